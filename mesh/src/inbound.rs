//! From the transport into the core: payloads and membership.
//!
//! It decodes before it takes the lock, and refuses to panic on anything that a peer sends (R25): what does not
//! decode is counted, logged now and then, and dropped.

use crate::founding::FoundingHost;
use crate::host::{Shared, count_and_should_log};
use crate::notice::{Notice, Observer};
use crate::transport::{Event, Handler, Received};
use driftmesh_model::{Incarnation, PeerId, codec};
use driftmesh_peer::{Envelope, Introduction, Peer};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// The transport's handler. It holds the peer weakly: the transport belongs to the peer, not the other way round.
pub(crate) struct Inbound {
    pub(crate) shared: Weak<Shared>,
    pub(crate) observer: Option<Observer>,
    /// Until there is a mesh, for a peer that founds one with others.
    pub(crate) founding: Option<Arc<FoundingHost>>,
    /// Whether it was told that another process counts as this peer.
    pub(crate) told_superseded: AtomicBool,
    /// How often it was told that others went on with what this peer owned.
    pub(crate) told_deposed: AtomicU64,
}

impl Inbound {
    fn tell(&self, notice: Notice) {
        if let Some(observer) = &self.observer {
            observer(notice);
        }
    }

    /// R9: another process counts as this peer, as that member says. Told once, whichever way it was learned.
    fn superseded(&self, by: PeerId) {
        if !self.told_superseded.swap(true, Ordering::Relaxed) {
            self.tell(Notice::Superseded { by });
        }
    }

    /// R9: others lead this peer's group, so often by now.
    fn deposed(&self, times: u64) {
        if self.told_deposed.fetch_max(times, Ordering::Relaxed) < times {
            self.tell(Notice::Deposed);
        }
    }

    fn admitted(&self, shared: &Shared, peer: PeerId, incarnation: u64, hello: &[u8]) {
        let introduction = match codec::decode::<Introduction>(hello) {
            Ok(introduction) if introduction.incarnation == Incarnation::from_u64(incarnation) => introduction,
            Ok(_) | Err(_) => {
                if count_and_should_log(&shared.counters.undecodable) {
                    tracing::warn!(%peer, "the introduction of a peer does not decode; it takes no part");
                }
                return;
            }
        };
        if shared.joining.is_member(&peer) {
            // A former start of it, of which no end was told, owns nothing that this one knows of.
            shared.step(|core, now| core.left(now, peer, false));
        }
        shared.step(|core, now| core.joined(now, peer, introduction));
        let members = shared.joining.admitted(peer);
        self.tell(Notice::Joined { peer, members });
    }
}

impl Handler for Inbound {
    fn received(&self, from: PeerId, payloads: Vec<Vec<u8>>) -> Received {
        let mut received = Received::default();
        let Some(shared) = self.shared.upgrade() else { return received };
        let mut envelopes = Vec::with_capacity(payloads.len());
        for payload in payloads {
            match codec::decode::<Envelope>(&payload) {
                Ok(envelope) => envelopes.push(envelope),
                Err(error) => {
                    received.undecodable += 1;
                    if count_and_should_log(&shared.counters.undecodable) {
                        tracing::warn!(%from, %error, "a message does not decode; both peers must run one release");
                    }
                }
            }
        }
        let said_something = !envelopes.is_empty();
        let (mut is_superseded, mut deposed) = (false, 0);
        received.held = shared.step_each(envelopes, |core, now, envelope| {
            let before = core.metrics().impossible;
            core.received(now, from, envelope);
            // Others may be told of the same step; who spoke is who is counted.
            received.impossible += u32::from(core.metrics().impossible > before);
            (is_superseded, deposed) = (core.is_superseded(), core.metrics().deposed);
        });
        self.deposed(deposed);
        if is_superseded {
            self.superseded(from);
        }
        if said_something {
            shared.joining.heard(&from);
        }
        received
    }

    /// R11: it says how much this start has said, so that an old copy of it is known.
    fn hello(&self) -> Option<Vec<u8>> {
        codec::encode(&self.shared.upgrade()?.step(|core, _| core.introduction())).ok()
    }

    fn event(&self, event: Event) {
        let Some(shared) = self.shared.upgrade() else { return };
        match event {
            Event::Listening { address } => self.tell(Notice::Listening { address: address.to_string() }),
            Event::Admitted { peer, incarnation, hello, genesis, .. } => {
                if let Some(founding) = &self.founding {
                    founding.adopted(&shared, genesis);
                }
                self.admitted(&shared, peer, incarnation, &hello);
            }
            Event::Fresh { peer, event } => {
                if let Some(founding) = &self.founding {
                    founding.event(&shared, peer, event);
                }
            }
            Event::Left { peer, reason, .. } => {
                shared.step(|core, now| core.left(now, peer, reason.is_clean()));
                let members = shared.joining.left(&peer);
                self.tell(Notice::Left { peer, members, reason });
            }
            Event::Refused { peer, address, reason, by_remote } => {
                if let Some(address) = &address {
                    shared.joining.refused(address, reason.clone());
                }
                let address = address.map(|address| address.to_string());
                self.tell(Notice::Refused { peer, address, reason, by_remote });
            }
            Event::Superseded { by } => {
                shared.step(Peer::superseded);
                self.superseded(by);
            }
            Event::OtherMesh { reason, address } => {
                self.tell(Notice::OtherMesh { reason, address: address.map(|address| address.to_string()) });
            }
            Event::Unreachable { address, error } => {
                shared.joining.unreachable(&address, error.clone());
                self.tell(Notice::Unreachable { address: address.to_string(), error });
            }
            Event::ListenFailed { addresses, error } => {
                let addresses = addresses.iter().map(ToString::to_string).collect();
                self.tell(Notice::ListenFailed { addresses, error });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Error, Mesh, Notice};
    use driftmesh_model::{Timestamp, codec};
    use driftmesh_peer::{Envelope, Message};
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_peer_that_learns_to_be_an_old_copy_of_itself_tells_so_once() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tells = Arc::clone(&told);
        let copy = Mesh::builder().observe(move |notice| {
            if let Notice::Superseded { by } = notice {
                tells.lock().unwrap().push(by);
            }
        });
        let copy = copy.start().await.unwrap();
        let other = Mesh::builder().join(&copy.addresses()[0]).start().await.unwrap();
        copy.wait_for_peers(1).await;
        assert!(!copy.status().superseded);
        let incarnation = copy.host.shared.step(|peer, _| peer.introduction()).incarnation;
        let message = Message::Forgotten { incarnation, heartbeats: u64::MAX };
        let payload = codec::encode(&Envelope { clock: Timestamp::ZERO, message }).unwrap();
        let begun = Instant::now();
        while !copy.status().superseded || told.lock().unwrap().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not tell: {:?}", copy.status());
            let _ = other.host.shared.transport().unwrap().send(copy.peer_id(), payload.clone());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(*told.lock().unwrap(), [other.peer_id()]);
        let refused = copy.transact(|_| async { Ok(()) }).await;
        assert!(matches!(refused, Err(Error::Superseded)), "{refused:?}");
    }
}
