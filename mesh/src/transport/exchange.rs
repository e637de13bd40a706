//! Peer exchange: admitted peers tell each other whom they know, so that one address is enough to join.
//!
//! It refuses more records than a bound, and addresses that plain TCP cannot dial. It does not dial.

use std::sync::Arc;

use driftmesh_model::{PeerId, codec};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};

use super::address;
use super::bytes::Bytes;
use super::frame::{self, FrameError, FrameKind};
use super::limits::{ADDRESSES_MAX, EXCHANGE_RECORDS_MAX, EXCHANGE_RECORDS_PER_FRAME};
use super::registry::{Session, Shared};

#[derive(Serialize, Deserialize)]
struct Record {
    peer: PeerId,
    incarnation: u64,
    addresses: Vec<Bytes>,
}

/// A peer of the mesh that a remote told of.
#[derive(Debug)]
pub(super) struct Learned {
    pub(super) peer: PeerId,
    pub(super) incarnation: u64,
    pub(super) addresses: Vec<Multiaddr>,
}

fn frames(sessions: &[Arc<Session>]) -> Vec<Vec<u8>> {
    let frame = |sessions: &[Arc<Session>]| {
        let records: Vec<Record> = sessions
            .iter()
            .map(|session| Record {
                peer: session.peer,
                incarnation: session.incarnation,
                addresses: address::to_remote(&session.addresses),
            })
            .collect();
        codec::encode(&records).ok().map(|body| frame::encode(FrameKind::Exchange, &body))
    };
    if sessions.is_empty() {
        // An empty frame is still a sign of life.
        return frame(&[]).into_iter().collect();
    }
    sessions.chunks(EXCHANGE_RECORDS_PER_FRAME).filter_map(frame).collect()
}

/// Tells a newly admitted peer of the others, and the others of it.
pub(super) fn announce(shared: &Shared, new: &Arc<Session>) {
    let mut others = shared.sessions();
    others.retain(|session| session.peer != new.peer);
    let introduction = frames(std::slice::from_ref(new));
    for other in &others {
        introduction.iter().for_each(|frame| other.lanes.push_control(frame.clone()));
    }
    others.truncate(EXCHANGE_RECORDS_MAX);
    frames(&others).into_iter().for_each(|frame| new.lanes.push_control(frame));
}

/// Tells every peer of `count` others, beginning at the place `round` in the order of the peers.
pub(super) fn refresh(shared: &Shared, round: usize, count: usize) {
    let mut sessions = shared.sessions();
    sessions.sort_unstable_by_key(|session| session.peer);
    let begin = if sessions.is_empty() { 0 } else { round.wrapping_mul(count) % sessions.len() };
    let told: Vec<_> = sessions.iter().cycle().skip(begin).take(count.min(sessions.len())).cloned().collect();
    let frames = frames(&told);
    for session in &sessions {
        frames.iter().for_each(|frame| session.lanes.push_control(frame.clone()));
    }
}

/// Reads a frame of peer exchange from `teller`.
///
/// # Errors
/// When the body is malformed or breaks a limit.
pub(super) fn read(body: &[u8], teller: Option<&Multiaddr>) -> Result<Vec<Learned>, FrameError> {
    let malformed = FrameError::body(FrameKind::Exchange);
    let records: Vec<Record> = codec::decode(body).map_err(|_| malformed)?;
    if records.len() > EXCHANGE_RECORDS_PER_FRAME || records.iter().any(|record| record.addresses.len() > ADDRESSES_MAX)
    {
        return Err(malformed);
    }
    let learn = |record: Record| Learned {
        peer: record.peer,
        incarnation: record.incarnation,
        addresses: address::without_foreign_loopback(address::from_remote(&record.addresses), teller),
    };
    Ok(records.into_iter().map(learn).filter(|learned| !learned.addresses.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_and_excessive_bodies_are_refused_without_a_panic() {
        let mut random = blake3::Hasher::new().update(b"exchange").finalize_xof();
        for length in 1..2_000 {
            let mut body = vec![0; length];
            random.fill(&mut body);
            let _ = read(&body, None);
        }
        let record = |addresses: usize| Record {
            peer: PeerId::from_bytes([1; 32]),
            incarnation: 1,
            addresses: vec![Bytes(vec![4, 127, 0, 0, 1, 6, 0, 1]); addresses],
        };
        let body = |records: &[Record]| codec::encode(records).unwrap();
        assert_eq!(read(&body(&[record(1)]), None).unwrap().len(), 1);
        assert!(read(&body(&[record(ADDRESSES_MAX + 1)]), None).is_err());
        let many: Vec<_> = (0..=EXCHANGE_RECORDS_PER_FRAME).map(|_| record(1)).collect();
        assert!(read(&body(&many), None).is_err());
    }
}
