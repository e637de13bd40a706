//! The transactions a peer runs, by id, in an order that repeats between runs.

use crate::Transaction;
use driftmesh_model::TxnId;

/// Most transactions and snapshots open at one peer (R24). A power of two: the low bits of an id are its slot.
pub const TRANSACTIONS_MAX: usize = 1 << 16;

/// A slab of transactions. An id is never used twice in an incarnation.
#[derive(Clone, Debug, Default)]
pub struct Transactions {
    slots: Vec<Option<Transaction>>,
    free: Vec<usize>,
    begun: u64,
}

fn slot_of(id: TxnId) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "masked to 16 bits")]
    let slot = (id.as_u64() & (TRANSACTIONS_MAX as u64 - 1)) as usize;
    slot
}

impl Transactions {
    /// Adds the transaction that `make` builds from its id. `None` when too many are open.
    pub fn insert(&mut self, make: impl FnOnce(TxnId) -> Transaction) -> Option<TxnId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < TRANSACTIONS_MAX => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.begun += 1;
        let id = TxnId::from_u64(self.begun * TRANSACTIONS_MAX as u64 + slot as u64);
        self.slots[slot] = Some(make(id));
        Some(id)
    }

    /// The transaction with this id, if it is open.
    #[must_use]
    pub fn get(&self, id: TxnId) -> Option<&Transaction> {
        self.slots.get(slot_of(id))?.as_ref().filter(|txn| txn.id == id)
    }

    /// The transaction with this id, to change it.
    pub fn get_mut(&mut self, id: TxnId) -> Option<&mut Transaction> {
        self.slots.get_mut(slot_of(id))?.as_mut().filter(|txn| txn.id == id)
    }

    /// Removes a transaction, where it lies. Returns whether it was open.
    pub fn remove(&mut self, id: TxnId) -> bool {
        let slot = slot_of(id);
        let Some(entry) = self.slots.get_mut(slot) else { return false };
        let open = entry.as_ref().is_some_and(|txn| txn.id == id);
        if open {
            *entry = None;
            self.free.push(slot);
        }
        open
    }

    /// All open transactions.
    pub fn iter(&self) -> impl Iterator<Item = &Transaction> {
        self.slots.iter().flatten()
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Status, TaskKind};
    use driftmesh_model::{Micros, SmallMap, Timestamp, TxnTimestamp};
    use std::collections::BTreeSet;

    fn begun(id: TxnId) -> Transaction {
        Transaction {
            id,
            timestamp: TxnTimestamp { time: Timestamp::ZERO, incarnation: 1, sequence: id.as_u64() },
            kind: TaskKind::new("test"),
            status: Status::Running,
            snapshot: Timestamp::ZERO,
            attempt: 1,
            deadline: Micros(0),
            deadline_watched: false,
            last_step: Micros(0),
            not_before: Micros(0),
            reads: SmallMap::default(),
            intents: SmallMap::default(),
            lock_first: BTreeSet::new(),
            unavailable: None,
            waited: None,
            pins: Vec::new(),
            awaited_message: false,
            read_only: false,
            is_recent: false,
            is_task: false,
            may_move: false,
            came_for: None,
        }
    }

    #[test]
    fn who_has_ended_is_not_taken_for_who_has_its_place_now() {
        let mut txns = Transactions::default();
        let old = txns.insert(begun).expect("there is room");
        assert!(txns.remove(old));
        assert!(txns.is_empty());
        let new = txns.insert(begun).expect("there is room");
        assert_eq!(slot_of(new), slot_of(old));
        assert_ne!(new, old);
        assert!(txns.get(old).is_none() && txns.get_mut(old).is_none() && !txns.remove(old));
        assert_eq!((txns.len(), txns.get(new).map(|txn| txn.id)), (1, Some(new)));
        assert_eq!(txns.get_mut(new).map(|txn| txn.id), Some(new));
    }

    #[test]
    fn no_more_are_open_than_there_are_places() {
        let mut txns = Transactions::default();
        let first = txns.insert(begun).expect("there is room");
        assert!((1..TRANSACTIONS_MAX).all(|_| txns.insert(begun).is_some()));
        assert_eq!((txns.insert(begun), txns.len()), (None, TRANSACTIONS_MAX));
        assert!(txns.remove(first));
        assert_eq!(txns.iter().count(), TRANSACTIONS_MAX - 1);
        assert!(txns.insert(begun).is_some() && txns.insert(begun).is_none());
    }
}
