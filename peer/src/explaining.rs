//! How an object was found: for operators and developers who ask where it is and why there.

use crate::Peer;
use driftmesh_directory::{Source, Trail};
use driftmesh_model::{Epoch, GroupId, Now, ObjectId, PeerId, TxnId};

/// Where a search ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// This peer's group owns the object.
    At {
        /// The peer.
        peer: PeerId,
        /// The group that it leads.
        group: GroupId,
        /// The epoch at which the group owns the object.
        epoch: Epoch,
    },
    /// Every group denied having it.
    Nowhere,
    /// It was lost with a group that an operator gave up.
    Lost {
        /// The group.
        group: GroupId,
    },
    /// Nobody who may have it answered.
    Unavailable,
}

/// An object's place, what led there, and the steps of the search.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Where it is.
    pub place: Place,
    /// What led there.
    pub how: Source,
    /// Pointers followed.
    pub hops: usize,
    /// What was known, asked and told on the way.
    pub trail: Trail,
}

impl Peer {
    /// Notes how each object that this transaction reads is found, until the transaction ends.
    pub fn explain(&mut self, now: Now, id: TxnId) {
        self.now = now;
        if self.txns.get(id).is_some() {
            self.explaining.insert(id, Vec::new());
        }
    }

    /// How an object was found that an explaining transaction has read.
    #[must_use]
    pub fn found(&self, id: TxnId, object: ObjectId) -> Option<Found> {
        let found = self.explaining.get(&id)?;
        let fetched = found.iter().rev().find(|(found, _)| *found == object).map(|(_, found)| found.clone());
        fetched.or_else(|| {
            let stored = self.group.owned(object)?;
            let place =
                Place::At { peer: self.config.peer, group: self.group.id(), epoch: self.group.epoch_of(stored) };
            Some(Found { place, how: Source::Own, hops: 0, trail: Trail::default() })
        })
    }

    /// A search ended: notes it for the transactions that asked how.
    pub(crate) fn note_found(&mut self, object: ObjectId, readers: &[TxnId], place: Place) {
        if self.explaining.is_empty() {
            return;
        }
        let Some(fetch) = self.fetches.get(&object) else { return };
        for id in readers {
            if let Some(found) = self.explaining.get_mut(id) {
                let lookup = &fetch.lookup;
                let hops = lookup.path().len().saturating_sub(1);
                found.push((object, Found { place, how: lookup.led_by(), hops, trail: lookup.trail().clone() }));
            }
        }
    }
}
