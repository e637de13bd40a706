//! Links between fresh peers: peers of one mesh name and secret that have no mesh yet and wait for the same number of
//! peers to found one. A link carries messages of the founding, and whom else its ends know, and ends when either end
//! has found a mesh.
//!
//! It refuses every other frame (R26: nobody is admitted here), more links and longer messages than a bound, and to
//! look into what the founding says.

use std::io;
use std::sync::Arc;

use driftmesh_model::{PeerId, codec};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::address;
use super::bytes::Bytes;
use super::frame::{self, BODY_MAX, FrameBuffer, FrameError, FrameKind};
use super::handshake::{self, Admission};
use super::limits::{
    ADDRESSES_MAX, FOUNDING_BYTES_MAX, FRESH_QUEUE_FRAMES, FRESH_RECORDS_PER_FRAME, FRESH_TELL_INTERVAL, SILENCE_MAX,
};
use super::registry::{HandshakeTurn, Shared};
use super::session::{self, Remote};
use super::swarm::Command;
use super::{Event, FreshEvent};

/// A fresh peer and where it can be dialled, as one of its links knows it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Record {
    peer: PeerId,
    addresses: Vec<Bytes>,
}

/// The body of a frame of the founding.
#[derive(Serialize, Deserialize)]
pub(super) enum Body {
    /// Fresh peers that the sender has links to; none is a sign of life.
    Known(Vec<Record>),
    /// A message of the founding.
    Said(Bytes),
}

/// One link to a fresh peer. It ends when it is dropped.
pub(super) struct FreshLink {
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) queue: mpsc::Sender<Vec<u8>>,
}

/// A message of the founding as a frame; `None` when it is too long.
pub(super) fn said(message: Vec<u8>) -> Option<Vec<u8>> {
    (message.len() <= FOUNDING_BYTES_MAX).then(|| encode(&Body::Said(Bytes(message))))
}

pub(super) fn encode(body: &Body) -> Vec<u8> {
    // Only an exhausted memory can make it fail; the remote then closes the link.
    frame::encode(FrameKind::Founding, &codec::encode(body).unwrap_or_default())
}

/// What the links to others tell, without what is known of `to` itself.
fn known(shared: &Shared, to: &PeerId) -> Vec<Vec<u8>> {
    let mut records: Vec<Record> =
        shared.fresh_links(|peer, link| Record { peer: *peer, addresses: address::to_remote(&link.addresses) });
    records.retain(|record| record.peer != *to);
    if records.is_empty() {
        return vec![encode(&Body::Known(records))];
    }
    records.chunks(FRESH_RECORDS_PER_FRAME).map(|records| encode(&Body::Known(records.to_vec()))).collect()
}

/// Why a link ended.
enum End {
    /// The stream failed or was closed, or nothing came for too long, or there is a mesh now.
    Over,
    /// The remote broke the protocol.
    Broken(FrameError),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        tracing::debug!(%error, "link to a fresh peer failed");
        Self::Over
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Broken(error)
    }
}

/// From the handshake to the end of a link. Not cancel safe.
pub(super) async fn live<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    remote: Remote,
    mut stream: S,
    admission: Admission,
    turn: HandshakeTurn,
) {
    let peer = remote.peer;
    let Admission { addresses, frames, place, .. } = admission;
    let endpoint = shared.endpoint(&peer);
    let addresses = address::without_foreign_loopback(addresses, endpoint.as_ref());
    let (sender, queue) = mpsc::channel(FRESH_QUEUE_FRAMES);
    let link = FreshLink { addresses: addresses.clone(), queue: sender };
    let number = match shared.begin_fresh(peer, link) {
        Ok(number) => number,
        Err(reason) => {
            handshake::refuse(&mut stream, &reason).await;
            return session::failed(shared, remote, endpoint, reason.into(), turn).await;
        }
    };
    drop((place, turn));
    tracing::info!(%peer, address = ?endpoint, "fresh peer found");
    shared.handler.event(Event::Fresh { peer, event: FreshEvent::Met });
    let newcomer = Record { peer, addresses: address::to_remote(&addresses) };
    shared.send_to_fresh(&encode(&Body::Known(vec![newcomer])), &peer);
    // Ends in an error only when the transport stops, which ends all links.
    let _ = shared.commands.send(Command::FreshBegun(peer)).await;

    let mut link = Link { shared, peer, stream, frames, queue, heard: Instant::now() };
    let broken = match link.run().await {
        End::Over => None,
        End::Broken(error) => Some(error),
    };
    // The remote takes the end of the stream for the end of the link; a failure means that it knows already.
    let _ = tokio::time::timeout(SILENCE_MAX, link.stream.close()).await;
    if shared.end_fresh(&peer, number) {
        tracing::info!(%peer, error = ?broken, "fresh peer gone, or not fresh any more");
        shared.handler.event(Event::Fresh { peer, event: FreshEvent::Lost });
        let _ = shared.commands.send(Command::FreshEnded { remote, addresses, broken }).await;
    }
}

struct Link<'a, S> {
    shared: &'a Arc<Shared>,
    peer: PeerId,
    stream: S,
    frames: FrameBuffer,
    queue: mpsc::Receiver<Vec<u8>>,
    heard: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<'_, S> {
    async fn run(&mut self) -> End {
        match self.exchange().await {
            Ok(()) => End::Over,
            Err(end) => end,
        }
    }

    async fn exchange(&mut self) -> Result<(), End> {
        let mut refresh = tokio::time::interval(FRESH_TELL_INTERVAL);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.take_frames()?;
            tokio::task::consume_budget().await;
            tokio::select! {
                () = self.shared.stop.wait() => return Ok(()),
                () = self.shared.genesis_known.wait() => return Ok(()),
                queued = self.queue.recv() => match queued {
                    Some(frame) => self.write(&frame).await?,
                    // Another link to the same peer took over, or it was admitted.
                    None => return Ok(()),
                },
                _ = refresh.tick() => {
                    if self.heard.elapsed() >= SILENCE_MAX {
                        return Ok(());
                    }
                    for frame in known(self.shared, &self.peer) {
                        self.write(&frame).await?;
                    }
                }
                read = self.stream.read(self.frames.space()) => match read? {
                    0 => return Ok(()),
                    count => {
                        self.frames.filled(count);
                        self.heard = Instant::now();
                    }
                },
            }
        }
    }

    async fn write(&mut self, frame: &[u8]) -> Result<(), End> {
        let written = async {
            self.stream.write_all(frame).await?;
            self.stream.flush().await
        };
        Ok(tokio::time::timeout(SILENCE_MAX, written).await.map_err(io::Error::from)??)
    }

    fn take_frames(&mut self) -> Result<(), End> {
        while let Some((kind, body)) = self.frames.next(BODY_MAX)? {
            if kind != FrameKind::Founding {
                return Err(FrameError::unexpected(kind).into());
            }
            match read(body)? {
                Body::Said(Bytes(message)) => {
                    self.shared.handler.event(Event::Fresh { peer: self.peer, event: FreshEvent::Said(message) });
                }
                Body::Known(records) => {
                    let teller = self.shared.endpoint(&self.peer);
                    let read = |record: Record| {
                        let addresses = address::from_remote(&record.addresses);
                        (record.peer, address::without_foreign_loopback(addresses, teller.as_ref()))
                    };
                    let heard: Vec<_> =
                        records.into_iter().map(read).filter(|(_, addresses)| !addresses.is_empty()).collect();
                    // A full channel only delays it until it is told again.
                    if !heard.is_empty() && self.shared.commands.try_send(Command::FreshHeard(heard)).is_err() {
                        tracing::debug!(peer = %self.peer, "fresh peers left out, too much waits");
                    }
                }
            }
        }
        Ok(())
    }
}

pub(super) fn read(body: &[u8]) -> Result<Body, FrameError> {
    let malformed = FrameError::body(FrameKind::Founding);
    let body: Body = codec::decode(body).map_err(|_| malformed)?;
    let is_within = match &body {
        Body::Said(Bytes(message)) => message.len() <= FOUNDING_BYTES_MAX,
        Body::Known(records) => {
            records.len() <= FRESH_RECORDS_PER_FRAME
                && records.iter().all(|record| record.addresses.len() <= ADDRESSES_MAX)
        }
    };
    if is_within { Ok(body) } else { Err(malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_and_excessive_bodies_are_refused_without_a_panic() {
        let mut random = blake3::Hasher::new().update(b"fresh").finalize_xof();
        for length in 0..2_000 {
            let mut body = vec![0; length];
            random.fill(&mut body);
            let _ = read(&body);
        }
        let record = |addresses: usize| Record {
            peer: PeerId::from_bytes([1; 32]),
            addresses: vec![Bytes(vec![4, 127, 0, 0, 1, 6, 0, 1]); addresses],
        };
        let is_read = |body: &Body| read(&codec::encode(body).unwrap()).is_ok();
        assert!(is_read(&Body::Known(vec![record(ADDRESSES_MAX); FRESH_RECORDS_PER_FRAME])));
        assert!(!is_read(&Body::Known(vec![record(ADDRESSES_MAX + 1)])));
        assert!(!is_read(&Body::Known(vec![record(1); FRESH_RECORDS_PER_FRAME + 1])));
        assert!(is_read(&Body::Said(Bytes(vec![0; FOUNDING_BYTES_MAX]))));
        assert!(!is_read(&Body::Said(Bytes(vec![0; FOUNDING_BYTES_MAX + 1]))));
        assert_eq!(said(vec![0; FOUNDING_BYTES_MAX + 1]), None);
    }
}
