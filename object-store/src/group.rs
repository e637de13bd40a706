//! One replica group as its only member sees it: its state and its journal.
//!
//! It appends to the journal and applies to the state in one step, and tells the state what is stable. It refuses to
//! know what entries mean.

use crate::{Entry, GrantSeen, InTransit, Journal, Retain, Stability, State, Stored};
use driftmesh_model::{Generation, GroupId, Lsn, ObjectId, Term, Timestamp};

/// A replica group as its leader sees it.
#[derive(Clone, Debug)]
pub struct Group {
    id: GroupId,
    generation: Generation,
    journal: Journal,
    state: State,
}

impl Group {
    /// A new group, led by its founder, whose journal begins with the first term.
    #[must_use]
    pub fn found(id: GroupId, stability: Stability, retain: Retain) -> Self {
        let journal = Journal::new(stability, retain);
        let mut group = Self { id, generation: Generation::ZERO, journal, state: State::new() };
        group.append(Entry::TermStart { term: Term::from_u64(1) });
        group
    }

    /// Appends an entry to the journal and applies it. Returns its position.
    pub fn append(&mut self, entry: Entry) -> Lsn {
        let lsn = self.journal.tail().next();
        if self.journal.is_stable_on_append() {
            self.state.apply_stable(lsn, &entry);
        } else {
            self.state.apply(lsn, &entry);
        }
        self.journal.append(entry)
    }

    /// The group's id.
    #[must_use]
    pub const fn id(&self) -> GroupId {
        self.id
    }

    /// The group's generation.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// What the group holds.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The present leadership period.
    #[must_use]
    pub fn term(&self) -> Term {
        self.state.term()
    }

    /// The group's journal.
    #[must_use]
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The host holds the journal up to `lsn`. Returns whether the watermark moved.
    pub fn advance_journal(&mut self, lsn: Lsn) -> bool {
        let moved = self.journal.advance(lsn);
        if moved {
            self.state.stable(self.journal.watermark());
        }
        moved
    }

    /// See [`State::moves_near`].
    #[must_use]
    pub fn moves_near(&self, object: ObjectId) -> u64 {
        self.state.moves_near(object)
    }

    /// See [`State::owned`].
    #[must_use]
    pub fn owned(&self, object: ObjectId) -> Option<&Stored> {
        self.state.owned(object)
    }

    /// See [`State::in_transit`].
    #[must_use]
    pub fn in_transit(&self, object: ObjectId) -> Option<(GroupId, &InTransit)> {
        self.state.in_transit(object)
    }

    /// See [`State::unsettled`].
    #[must_use]
    pub fn unsettled(&self, to: GroupId, number: u64) -> Option<&InTransit> {
        self.state.unsettled(to, number)
    }

    /// See [`State::unsettled_to`].
    pub fn unsettled_to(&self, to: GroupId) -> impl Iterator<Item = u64> {
        self.state.unsettled_to(to)
    }

    /// See [`State::unsettled_from`].
    #[must_use]
    pub fn unsettled_from(&self, to: GroupId) -> u64 {
        self.state.unsettled_from(to)
    }

    /// See [`State::next_grant`].
    #[must_use]
    pub fn next_grant(&self, to: GroupId) -> Option<u64> {
        self.state.next_grant(to)
    }

    /// See [`State::grant_room`].
    #[must_use]
    pub fn grant_room(&self, to: GroupId) -> usize {
        self.state.grant_room(to)
    }

    /// See [`State::grant_seen`].
    #[must_use]
    pub fn grant_seen(&self, from: GroupId, number: u64) -> GrantSeen {
        self.state.grant_seen(from, number)
    }

    /// See [`State::owned_count`].
    #[must_use]
    pub fn owned_count(&self) -> usize {
        self.state.owned_count()
    }

    /// See [`State::in_transit_count`].
    #[must_use]
    pub fn in_transit_count(&self) -> usize {
        self.state.in_transit_count()
    }

    /// See [`State::owned_from`].
    pub fn owned_from(&self, cursor: usize) -> impl Iterator<Item = (usize, &Stored)> {
        self.state.owned_from(cursor)
    }

    /// See [`State::owned_slice`].
    pub fn owned_slice(&self, cursor: usize, slots: usize) -> (impl Iterator<Item = &Stored>, Option<usize>) {
        self.state.owned_slice(cursor, slots)
    }

    /// See [`State::set_prune_below`].
    pub const fn set_prune_below(&mut self, below: Timestamp, budget: usize) {
        self.state.set_prune_below(below, budget);
    }

    /// See [`State::prune`].
    pub fn prune(&mut self, steps: usize) {
        self.state.prune(steps);
    }

    /// See [`State::prune_object`].
    pub fn prune_object(&mut self, object: ObjectId, budget: usize) {
        self.state.prune_object(object, budget);
    }

    /// See [`State::superseded_cost`].
    #[must_use]
    pub const fn superseded_cost(&self) -> usize {
        self.state.superseded_cost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Write;
    use driftmesh_model::Value;

    fn commit(group: &mut Group, time: u64, object: ObjectId) -> Lsn {
        let writes = vec![Write { object, value: Some(Value::from_slice(&time.to_be_bytes())) }];
        group.append(Entry::Commit { commit: Timestamp::from_u64(time), writes })
    }

    #[test]
    fn a_journal_with_a_budget_keeps_what_is_not_stable() {
        let mut group = Group::found(GroupId::from_u128(1), Stability::Reported, Retain::Bytes(0));
        let lsn = commit(&mut group, 10, ObjectId::from_u128(7));
        assert_eq!(group.journal().entries_from(Lsn::ZERO).count(), 2);
        assert!(group.advance_journal(lsn));
        assert_eq!(group.journal().entries_from(Lsn::ZERO).count(), 0);
        assert!(!group.advance_journal(lsn));
    }

    #[test]
    fn what_is_not_stable_does_not_lose_the_versions_that_it_superseded() {
        let mut group = Group::found(GroupId::from_u128(1), Stability::Reported, Retain::Bytes(0));
        let object = ObjectId::from_u128(7);
        let first = commit(&mut group, 10, object);
        group.advance_journal(first);
        let last = commit(&mut group, 20, object);
        group.set_prune_below(Timestamp::MAX, 0);
        group.prune(1);
        assert_eq!(group.owned(object).unwrap().chain.superseded(), 1);
        group.advance_journal(last);
        group.prune(1);
        assert_eq!(group.owned(object).unwrap().chain.superseded(), 0);
    }
}
