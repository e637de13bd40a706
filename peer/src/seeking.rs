//! Looking beyond the peers that are known: what the routing of the mesh (Kademlia) is asked to find.
//!
//! Whoever is found is connected and admitted outside; here it then appears by `joined`. Nothing waits for that: a
//! search goes on among the known peers meanwhile, and takes notice of the newcomers.

use crate::Peer;
use driftmesh_directory::kademlia_key;
use driftmesh_model::{LookupMap, Micros, ObjectId, PeerId};
use std::collections::VecDeque;

/// Most questions to the routing between two heartbeats: each costs messages to several peers.
const SEEKS_PER_HEARTBEAT: usize = 4;
/// The same question is not asked again within this.
const SEEK_AGAIN_AFTER: Micros = Micros::from_millis(1_000);
/// Most searches that go on in the step in which a group's leader is in reach again; the others follow by their timers.
const BEGUN_AT_ONCE: usize = 64;
/// Questions remembered.
const SOUGHT_MAX: usize = 256;

/// A question to the routing of the mesh.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Seek {
    /// The peers nearest to an object.
    Near(ObjectId),
    /// This peer, which somebody named.
    Peer(PeerId),
}

impl Seek {
    /// The bytes whose hash Kademlia looks near to.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        match self {
            Self::Near(object) => kademlia_key(*object).to_vec(),
            Self::Peer(peer) => peer.kademlia_bytes().to_vec(),
        }
    }
}

/// What was asked lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sought {
    asked_at: LookupMap<Seek, Micros>,
    order: VecDeque<Seek>,
    since_heartbeat: usize,
}

impl Sought {
    pub(crate) const fn heartbeat(&mut self) {
        self.since_heartbeat = 0;
    }

    /// Whether the question may be asked now; if so it counts as asked.
    fn may_ask(&mut self, seek: Seek, now: Micros) -> bool {
        let asked_lately = self.asked_at.get(&seek).is_some_and(|at| now.since(*at) < SEEK_AGAIN_AFTER);
        if asked_lately || self.since_heartbeat >= SEEKS_PER_HEARTBEAT {
            return false;
        }
        self.since_heartbeat += 1;
        if self.asked_at.insert(seek, now).is_none() {
            self.order.push_back(seek);
        }
        if self.order.len() > SOUGHT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.asked_at.remove(&oldest);
        }
        true
    }
}

impl Peer {
    /// Asks the routing, unless it was asked the same or too much lately (R24).
    pub(crate) fn seek(&mut self, seek: Seek) {
        let known = match seek {
            Seek::Peer(peer) => peer == self.config.peer || self.is_connected(&peer),
            Seek::Near(_) => false,
        };
        if !known && self.sought.may_ask(seek, self.now.mono) {
            self.metrics.seeks += 1;
            self.metrics.note(crate::RareEvent::Sought);
            self.seeks.push(seek);
        }
    }

    /// A group's leader was connected, or is another one now: searches for what the group is said to own go there at once.
    pub(crate) fn searches_for_group(&mut self, group: driftmesh_model::GroupId) {
        let waiting: Vec<ObjectId> = self
            .fetches
            .iter()
            .filter(|(_, fetch)| fetch.lookup.best().is_some_and(|best| best.group == group))
            .map(|(object, _)| *object)
            .collect();
        for (number, object) in waiting.into_iter().enumerate() {
            if number < BEGUN_AT_ONCE {
                self.begin_lookup(object);
            } else {
                self.fetch_soon(object);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_few_and_not_repeated_at_once() {
        let mut sought = Sought::default();
        let seek = |number: u128| Seek::Near(ObjectId::from_u128(number));
        assert!(sought.may_ask(seek(1), Micros(0)));
        assert!(!sought.may_ask(seek(1), Micros(5)));
        let more = (2..20).filter(|number| sought.may_ask(seek(*number), Micros(5))).count();
        assert_eq!(more, SEEKS_PER_HEARTBEAT - 1);
        sought.heartbeat();
        assert!(sought.may_ask(seek(1), SEEK_AGAIN_AFTER));
        for number in 100..100 + 2 * SOUGHT_MAX as u128 {
            sought.heartbeat();
            assert!(sought.may_ask(seek(number), Micros(9)));
        }
        assert!(sought.order.len() <= SOUGHT_MAX && sought.asked_at.len() <= SOUGHT_MAX);
    }
}
