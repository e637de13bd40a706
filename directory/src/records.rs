//! A bounded memory of location records that only climbs (R2): a peer's hints are one, the home records that it keeps another.
//! Forwarding pointers are not: they are never dropped to make room (`pointers.rs`).

use crate::Record;
use driftmesh_model::ObjectId;
use lru::LruCache;
use std::num::NonZeroUsize;

/// Location records by object; the least recently used one goes when the bound is reached, which costs a later
/// lookup time but never correctness (R1).
#[derive(Clone, Debug)]
pub struct Records {
    cache: LruCache<ObjectId, Record>,
    /// R2, switched off by the sabotage of the same name.
    climbs: bool,
}

impl Records {
    /// An empty memory for at most `bound` records.
    #[must_use]
    pub fn new(bound: NonZeroUsize) -> Self {
        Self { cache: LruCache::new(bound), climbs: true }
    }

    /// Breaks R2: whatever comes last wins.
    #[cfg(feature = "sabotage")]
    pub const fn sabotage_climb(&mut self) {
        self.climbs = false;
    }

    /// Takes in a record unless a newer or equal one is known. Returns whether it was taken.
    pub fn learn(&mut self, record: Record) -> bool {
        if let Some(known) = self.cache.get_mut(&record.object) {
            // R2: the epoch, and the generation in it, only climbs.
            if self.climbs && !record.outranks(known) {
                return false;
            }
            *known = record;
            return true;
        }
        self.cache.push(record.object, record);
        true
    }

    /// The record of an object; counts as a use.
    pub fn get(&mut self, object: ObjectId) -> Option<Record> {
        self.cache.get(&object).copied()
    }

    /// Forgets the record of an object, whatever it claims: the object is here.
    pub fn forget(&mut self, object: ObjectId) {
        self.cache.pop(&object);
    }

    /// Forgets the record of an object, if it claims no more than `epoch`: the object is here, or the claim was
    /// disproved.
    pub fn forget_up_to(&mut self, claim: &Record) {
        if self.cache.peek(&claim.object).is_some_and(|known| !known.outranks(claim)) {
            self.cache.pop(&claim.object);
        }
    }

    /// About how much memory they take, bytes.
    #[must_use]
    pub fn about_bytes(&self) -> usize {
        /// A boxed entry with its two links, its place in the hash table at the usual load, and the allocator's part.
        const ENTRY: usize = size_of::<(ObjectId, Record)>() + 2 * size_of::<usize>() + 20 + 16;
        self.cache.len() * ENTRY
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh_model::{Epoch, GroupId};

    fn record(epoch: u64, group: u128) -> Record {
        Record { object: ObjectId::from_u128(1), group: GroupId::from_u128(group), epoch: Epoch::from_u64(epoch) }
    }

    #[test]
    fn a_record_is_replaced_only_by_a_newer_one() {
        let mut records = Records::new(NonZeroUsize::MIN);
        assert!(records.learn(record(5, 1)));
        assert!(!records.learn(record(5, 2)));
        assert!(!records.learn(record(4, 2)));
        assert!(records.learn(record(6, 3)));
        assert_eq!(records.get(ObjectId::from_u128(1)), Some(record(6, 3)));
        records.forget_up_to(&record(5, 1));
        assert_eq!(records.len(), 1);
        records.forget_up_to(&record(6, 1));
        assert!(records.is_empty());
    }
}
