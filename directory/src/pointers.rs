//! Forwarding pointers: where objects went that left this group (R2, R3).
//!
//! A pointer stays until every home of its object has acknowledged a record of at least its epoch, asked after a
//! grace period in which requests that were on their way have arrived. It refuses to drop one earlier, however many
//! there are: at its bound it says that there is no room, and whoever makes pointers waits.

use crate::Record;
use driftmesh_model::{LookupMap, Micros, ObjectId, PeerId};
use std::collections::{BTreeMap, BTreeSet};

/// Pointers whose homes are being asked at once.
const CONFIRMING_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug)]
struct Pointer {
    record: Record,
    /// Its place among those whose homes have not been asked.
    number: u64,
}

/// The forwarding pointers of one group.
#[derive(Clone, Debug, Default)]
pub struct Pointers {
    pointers: LookupMap<ObjectId, Pointer>,
    /// The pointers whose homes have not been asked, in the order of their numbers, each with the time it was set.
    waiting: BTreeMap<u64, (Micros, ObjectId)>,
    /// The pointers whose homes were asked, each with the homes that have not answered.
    confirming: BTreeMap<ObjectId, BTreeSet<PeerId>>,
    /// What pointers said before they were set again, until that departure is known to be true. Few are: an object passes
    /// twice only through a peer that leads several groups.
    formers: BTreeMap<ObjectId, Record>,
    last_number: u64,
}

impl Pointers {
    /// Sets the pointer of an object that leaves now, unless one of a later departure is known (R2).
    pub fn set(&mut self, record: Record, now: Micros) {
        let former = self.get(record.object);
        if former.is_some_and(|former| !record.outranks(&former)) {
            return;
        }
        self.put(record, now);
        self.formers.extend(former.map(|former| (record.object, former)));
    }

    /// A departure that a pointer was set for is no part of the journal after all: the pointer says again what it said
    /// before, if it said anything (R3).
    pub fn undo(&mut self, departure: &Record, now: Micros) {
        let said = |record: Record| (record.group, record.epoch) == (departure.group, departure.epoch);
        if self.get(departure.object).is_some_and(said) {
            let former = self.formers.remove(&departure.object);
            self.remove(departure.object);
            if let Some(former) = former {
                self.put(former, now);
            }
        }
    }

    fn put(&mut self, record: Record, set_at: Micros) {
        self.unqueue(record.object);
        self.last_number += 1;
        self.waiting.insert(self.last_number, (set_at, record.object));
        self.pointers.insert(record.object, Pointer { record, number: self.last_number });
    }

    /// Where an object went.
    #[must_use]
    pub fn get(&self, object: ObjectId) -> Option<Record> {
        self.pointers.get(&object).map(|pointer| pointer.record)
    }

    /// The object is known to have gone further: path compression. Returns whether that was news.
    pub fn compress(&mut self, record: &Record) -> bool {
        let Some(pointer) = self.pointers.get_mut(&record.object).filter(|known| record.outranks(&known.record)) else {
            return false;
        };
        pointer.record = *record;
        if self.confirming.contains_key(&record.object) {
            // R3: the homes were asked about an older epoch.
            self.put(*record, Micros(0));
        }
        true
    }

    /// The object is here again: a departure says nothing any more, and what the pointer was told since is not so.
    pub fn forget(&mut self, object: ObjectId) {
        self.remove(object);
    }

    fn remove(&mut self, object: ObjectId) {
        self.unqueue(object);
        self.pointers.remove(&object);
        self.formers.remove(&object);
    }

    fn unqueue(&mut self, object: ObjectId) {
        if let Some(pointer) = self.pointers.get(&object) {
            self.waiting.remove(&pointer.number);
            self.confirming.remove(&object);
        }
    }

    /// Takes pointers set at or before `before` whose homes are to be asked now, oldest first and at most `most`.
    /// Each has to be given to [`Pointers::asked`] or [`Pointers::not_asked`].
    pub fn due(&mut self, before: Micros, most: usize) -> Vec<Record> {
        let room = CONFIRMING_MAX.saturating_sub(self.confirming.len());
        let mut due = Vec::new();
        while due.len() < most.min(room) {
            let Some(first) = self.waiting.first_entry().filter(|entry| entry.get().0 <= before) else { break };
            let (_, object) = first.remove();
            due.extend(self.get(object));
        }
        due
    }

    /// The homes of a pointer were asked, so its departure is true. Without any, nobody has to know and it goes.
    pub fn asked(&mut self, object: ObjectId, homes: BTreeSet<PeerId>) {
        self.formers.remove(&object);
        if homes.is_empty() {
            self.remove(object);
        } else {
            self.confirming.insert(object, homes);
        }
    }

    /// The homes of a pointer could not be asked: it is due again, after those that wait already.
    pub fn not_asked(&mut self, object: ObjectId) {
        if let Some(record) = self.get(object) {
            self.put(record, Micros(0));
        }
    }

    /// A home holds records of these objects that are at least as new as these. Returns the pointers that go (R3).
    pub fn confirmed(&mut self, home: &PeerId, records: &[Record]) -> Vec<Record> {
        let mut dropped = Vec::new();
        for record in records {
            let Some(pointer) = self.pointers.get(&record.object).copied() else { continue };
            if pointer.record.outranks(record) {
                continue;
            }
            let Some(waiting) = self.confirming.get_mut(&record.object) else { continue };
            waiting.remove(home);
            if waiting.is_empty() {
                self.remove(record.object);
                dropped.push(pointer.record);
            }
        }
        dropped
    }

    /// A home is gone: whoever takes its place has to be asked, so its pointers are due again.
    pub fn home_gone(&mut self, home: &PeerId) {
        let affected: Vec<ObjectId> =
            self.confirming.iter().filter(|(_, waiting)| waiting.contains(home)).map(|(object, _)| *object).collect();
        for object in affected {
            self.not_asked(object);
        }
    }

    /// About how much memory they take, bytes.
    #[must_use]
    pub fn about_bytes(&self) -> usize {
        // Hash tables are a little over half full in the mean, nodes of trees three quarters.
        let table = 2 * size_of::<(ObjectId, Pointer)>();
        let tree = size_of::<(u64, Micros, ObjectId)>() * 4 / 3;
        self.pointers.len() * table + (self.waiting.len() + 2 * self.formers.len()) * tree
    }

    /// How many pointers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pointers.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pointers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh_model::{Epoch, GroupId};

    fn record(object: u128, epoch: u64) -> Record {
        Record { object: ObjectId::from_u128(object), group: GroupId::from_u128(9), epoch: Epoch::from_u64(epoch) }
    }

    fn peer(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    #[test]
    fn a_pointer_goes_when_every_home_has_confirmed_it_and_not_before() {
        let mut pointers = Pointers::default();
        pointers.set(record(1, 2), Micros(10));
        assert!(pointers.due(Micros(9), 8).is_empty(), "the grace period has not passed");
        assert_eq!(pointers.due(Micros(10), 8), vec![record(1, 2)]);
        pointers.asked(ObjectId::from_u128(1), [peer(1), peer(2)].into());
        assert_eq!(pointers.confirmed(&peer(1), &[record(1, 2)]), vec![]);
        assert_eq!(pointers.get(ObjectId::from_u128(1)), Some(record(1, 2)));
        assert_eq!(pointers.confirmed(&peer(2), &[record(1, 1)]), vec![], "an older record is not enough");
        assert_eq!(pointers.confirmed(&peer(2), &[record(1, 2)]), vec![record(1, 2)]);
        assert!(pointers.is_empty());
    }

    #[test]
    fn a_later_departure_is_not_confirmed_by_an_earlier_answer() {
        let mut pointers = Pointers::default();
        pointers.set(record(1, 2), Micros(10));
        pointers.due(Micros(10), 8);
        pointers.asked(ObjectId::from_u128(1), [peer(1)].into());
        pointers.set(record(1, 4), Micros(11));
        assert_eq!(pointers.confirmed(&peer(1), &[record(1, 2)]), vec![]);
        pointers.set(record(1, 3), Micros(12));
        assert_eq!(pointers.get(ObjectId::from_u128(1)), Some(record(1, 4)), "pointers climb");
        assert_eq!(pointers.due(Micros(20), 8), vec![record(1, 4)], "the earlier departure is passed over");
    }

    #[test]
    fn when_a_home_goes_its_pointers_are_due_again() {
        let mut pointers = Pointers::default();
        pointers.set(record(1, 2), Micros(10));
        pointers.due(Micros(10), 8);
        pointers.asked(ObjectId::from_u128(1), [peer(1), peer(2)].into());
        pointers.home_gone(&peer(1));
        assert_eq!(pointers.confirmed(&peer(2), &[record(1, 2)]), vec![]);
        assert_eq!(pointers.due(Micros(0), 8), vec![record(1, 2)]);
        pointers.asked(ObjectId::from_u128(1), BTreeSet::new());
        assert!(pointers.is_empty());
    }

    #[test]
    fn what_came_back_has_no_pointer() {
        let mut pointers = Pointers::default();
        pointers.set(record(1, 2), Micros(10));
        assert!(pointers.compress(&record(1, 3)));
        assert!(!pointers.compress(&record(1, 3)));
        pointers.forget(ObjectId::from_u128(1));
        assert!(pointers.is_empty());
        assert!(pointers.due(Micros(99), 8).is_empty());
    }

    #[test]
    fn a_departure_that_never_was_leaves_the_pointer_that_was_before() {
        let mut pointers = Pointers::default();
        pointers.set(record(1, 2), Micros(10));
        pointers.set(record(1, 3), Micros(11));
        assert_eq!(pointers.due(Micros(99), 8), vec![record(1, 3)]);
        pointers.not_asked(ObjectId::from_u128(1));
        pointers.undo(&record(1, 3), Micros(12));
        assert_eq!(pointers.get(ObjectId::from_u128(1)), Some(record(1, 2)));
        pointers.undo(&record(1, 3), Micros(13));
        assert_eq!(pointers.due(Micros(11), 8), vec![], "the grace period begins again");
        assert_eq!(pointers.due(Micros(12), 8), vec![record(1, 2)]);
        pointers.set(record(1, 4), Micros(14));
        pointers.asked(ObjectId::from_u128(1), [peer(1)].into());
        pointers.undo(&record(1, 4), Micros(15));
        assert!(pointers.is_empty() && pointers.formers.is_empty());
    }

    #[test]
    fn an_object_that_comes_and_goes_costs_one_pointer() {
        let mut pointers = Pointers::default();
        for object in 1..=CONFIRMING_MAX as u128 {
            pointers.set(record(object, 2), Micros(0));
        }
        for due in pointers.due(Micros(1), usize::MAX) {
            pointers.asked(due.object, [peer(1)].into());
        }
        let before = pointers.about_bytes();
        for epoch in 1..100_000 {
            pointers.set(record(1 << 90, 2 * epoch), Micros(2));
            pointers.forget(ObjectId::from_u128(1 << 90));
        }
        assert_eq!(pointers.about_bytes(), before);
        assert!(pointers.due(Micros(9), 8).is_empty(), "there is no room to ask about more");
    }

    #[test]
    fn what_could_not_be_asked_is_due_again() {
        let mut pointers = Pointers::default();
        pointers.set(record(1, 2), Micros(10));
        pointers.due(Micros(10), 8);
        pointers.not_asked(ObjectId::from_u128(1));
        assert_eq!(pointers.due(Micros(10), 8), vec![record(1, 2)]);
    }
}
