//! One replica group's state: a fold over its journal.
//!
//! It knows what the group owns, what is in transit, and which grants were answered. It refuses entries that its
//! caller should have known to be wrong by panicking: entries are made by this peer, never taken from the wire.

use crate::{Chain, Entry, GrantLog, GrantSeen, Journal, Retain, Stability, Version, Write};
use driftmesh_model::limits::GRANT_WINDOW;
use driftmesh_model::{Epoch, Generation, GroupId, LookupMap, Lsn, ObjectId, Term, Timestamp};
use std::collections::BTreeMap;

/// An object whose master is here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The object.
    pub object: ObjectId,
    /// How often its mastership has moved.
    pub epoch: Epoch,
    /// Its versions.
    pub chain: Chain,
}

/// An object on its way to another group: nobody commits to it (R19).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InTransit {
    /// The object.
    pub object: ObjectId,
    /// The epoch it will have at the destination.
    pub epoch: Epoch,
    /// Its versions; snapshots up to the floor may still be answered from them.
    pub chain: Chain,
    /// The leader's clock when it left (R16).
    pub floor: Timestamp,
}

/// A replica group as its leader sees it.
#[derive(Clone, Debug)]
pub struct Group {
    id: GroupId,
    generation: Generation,
    term: Term,
    journal: Journal,
    /// The owned objects, each with its place in `slots`.
    objects: LookupMap<ObjectId, (usize, Stored)>,
    /// Their ids, in an order that repeats between runs.
    slots: Vec<Option<ObjectId>>,
    free: Vec<usize>,
    in_transit: BTreeMap<(GroupId, u64), InTransit>,
    transit_index: LookupMap<ObjectId, (GroupId, u64)>,
    /// The number of the last grant to each group.
    sent: BTreeMap<GroupId, u64>,
    received: BTreeMap<GroupId, GrantLog>,
    /// What all superseded versions cost together, bytes.
    superseded_cost: usize,
    /// What was superseded at or before this is not needed any more (R17).
    prune_below: Timestamp,
    /// What superseded versions may cost together, bytes.
    prune_budget: usize,
    /// The slot that pruning looks at next.
    prune_hand: usize,
    /// How many objects have come and gone, by a part of their id.
    moves: Vec<u64>,
}

/// Versions pruned at most when an object is looked at or written: a step stays short even for a hot object.
const PRUNED_PER_LOOK: usize = 16;
/// Beyond the budget a write, which adds one version, prunes so many of the same object.
const PRUNED_PER_WRITE_OVER_BUDGET: usize = 2;
/// Counters of moves; many, so that a search for one object is not disturbed by the moves of others.
const MOVE_COUNTERS: usize = 1 << 12;

impl Group {
    /// A new group, led by its founder, whose journal begins with the first term.
    #[must_use]
    pub fn found(id: GroupId, stability: Stability, retain: Retain) -> Self {
        let mut group = Self {
            id,
            generation: Generation::ZERO,
            term: Term::ZERO,
            journal: Journal::new(stability, retain),
            objects: LookupMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            in_transit: BTreeMap::new(),
            transit_index: LookupMap::default(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
            superseded_cost: 0,
            prune_below: Timestamp::ZERO,
            prune_budget: usize::MAX,
            prune_hand: 0,
            moves: vec![0; MOVE_COUNTERS],
        };
        group.append(Entry::TermStart { term: Term::from_u64(1) });
        group
    }

    /// Appends an entry to the journal and applies it. Returns its position.
    pub fn append(&mut self, entry: Entry) -> Lsn {
        self.apply(&entry);
        self.journal.append(entry)
    }

    /// Applies an entry to the state. A follower does the same with stable entries.
    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::TermStart { term } => self.term = *term,
            Entry::Commit { commit, writes } => self.apply_commit(*commit, writes),
            Entry::TransferOut { object, epoch, to, number, floor } => {
                let stored = self.remove(*object).expect("only what is owned is transferred");
                self.superseded_cost -= stored.chain.superseded_cost();
                let transit = InTransit { object: *object, epoch: *epoch, chain: stored.chain, floor: *floor };
                self.in_transit.insert((*to, *number), transit);
                self.transit_index.insert(*object, (*to, *number));
                self.sent.insert(*to, *number);
            }
            Entry::TransferIn { object, epoch, from, number, versions, low_water, floor: _ } => {
                let chain = Chain::from_versions(versions.clone(), *low_water)
                    .expect("grants are checked before they are journalled");
                self.received.entry(*from).or_default().record(*number, false);
                self.install(*object, *epoch, chain);
            }
            Entry::Handed { to, number } => {
                if let Some(transit) = self.settle(*to, *number) {
                    self.count_move(transit.object);
                }
            }
            Entry::Refused { from, number } => self.received.entry(*from).or_default().record(*number, true),
            Entry::TakenBack { to, number } => {
                if let Some(transit) = self.settle(*to, *number) {
                    self.install(transit.object, transit.epoch.next(), transit.chain);
                }
            }
        }
    }

    fn apply_commit(&mut self, commit: Timestamp, writes: &[Write]) {
        for write in writes {
            let version = Version { commit, value: write.value.clone() };
            let (below, budget, cost) = (self.prune_below, self.prune_budget, self.superseded_cost);
            if let Some(stored) = self.owned_mut(write.object) {
                let added = stored.chain.push(version, below);
                // Its chain is at hand: what nobody needs any more goes now, and beyond the budget a bit more.
                let mut freed = stored.chain.prune(below, PRUNED_PER_LOOK);
                let excess = (cost + added).saturating_sub(freed + budget);
                freed += stored.chain.prune_excess(excess, PRUNED_PER_WRITE_OVER_BUDGET);
                self.superseded_cost = self.superseded_cost + added - freed;
            } else {
                self.install(write.object, Epoch::ZERO.next(), Chain::new(version));
            }
        }
    }

    /// A grant was answered. The object may have come back and left again meanwhile: then the index speaks of the
    /// later grant and stays.
    fn settle(&mut self, to: GroupId, number: u64) -> Option<InTransit> {
        let transit = self.in_transit.remove(&(to, number))?;
        if self.transit_index.get(&transit.object) == Some(&(to, number)) {
            self.transit_index.remove(&transit.object);
        }
        Some(transit)
    }

    fn count_move(&mut self, object: ObjectId) {
        self.moves[move_counter(object)] += 1;
    }

    /// How many objects that share a counter with this one have come to or left this group. While it stands still,
    /// this object has not moved here.
    #[must_use]
    pub fn moves_near(&self, object: ObjectId) -> u64 {
        self.moves[move_counter(object)]
    }

    fn install(&mut self, object: ObjectId, epoch: Epoch, chain: Chain) {
        self.count_move(object);
        self.superseded_cost += chain.superseded_cost();
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot] = Some(object);
            slot
        } else {
            self.slots.push(Some(object));
            self.slots.len() - 1
        };
        self.objects.insert(object, (slot, Stored { object, epoch, chain }));
    }

    fn remove(&mut self, object: ObjectId) -> Option<Stored> {
        let (slot, stored) = self.objects.remove(&object)?;
        self.free.push(slot);
        self.slots[slot] = None;
        Some(stored)
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

    /// The present leadership period.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.term
    }

    /// The group's journal.
    #[must_use]
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The host holds the journal up to `lsn`. Returns whether the watermark moved.
    pub fn advance_journal(&mut self, lsn: Lsn) -> bool {
        self.journal.advance(lsn)
    }

    /// The object, if its master is here.
    #[must_use]
    pub fn owned(&self, object: ObjectId) -> Option<&Stored> {
        self.objects.get(&object).map(|(_, stored)| stored)
    }

    fn owned_mut(&mut self, object: ObjectId) -> Option<&mut Stored> {
        self.objects.get_mut(&object).map(|(_, stored)| stored)
    }

    /// The object, if it is in transit from here, and to which group.
    #[must_use]
    pub fn in_transit(&self, object: ObjectId) -> Option<(GroupId, &InTransit)> {
        let key = self.transit_index.get(&object)?;
        self.in_transit.get(key).map(|transit| (key.0, transit))
    }

    /// The grant with this number to this group, while it is not settled.
    #[must_use]
    pub fn unsettled(&self, to: GroupId, number: u64) -> Option<&InTransit> {
        self.in_transit.get(&(to, number))
    }

    /// The numbers of the grants to this group that are not settled.
    pub fn unsettled_to(&self, to: GroupId) -> impl Iterator<Item = u64> {
        self.in_transit.range((to, 0)..=(to, u64::MAX)).map(|((_, number), _)| *number)
    }

    /// The lowest number of an unsettled grant to this group, or the next one to be given.
    #[must_use]
    pub fn unsettled_from(&self, to: GroupId) -> u64 {
        self.unsettled_to(to).next().unwrap_or_else(|| self.last_grant(to).saturating_add(1))
    }

    /// The number for the next grant to this group, or `None` while too many are unsettled (R20, R24).
    #[must_use]
    pub fn next_grant(&self, to: GroupId) -> Option<u64> {
        let next = self.last_grant(to).saturating_add(1);
        (next - self.unsettled_from(to).min(next) < GRANT_WINDOW).then_some(next)
    }

    fn last_grant(&self, to: GroupId) -> u64 {
        self.sent.get(&to).copied().unwrap_or(0)
    }

    /// What a grant of this group and number means here (R20).
    #[must_use]
    pub fn grant_seen(&self, from: GroupId, number: u64) -> GrantSeen {
        self.received.get(&from).map_or_else(|| GrantLog::default().look_up(number), |log| log.look_up(number))
    }

    /// The sender has settled all its grants below `number`.
    pub fn settle_grants_below(&mut self, from: GroupId, number: u64) {
        if let Some(log) = self.received.get_mut(&from) {
            log.settle_below(number);
        }
    }

    /// How many objects are owned, deleted ones included.
    #[must_use]
    pub fn owned_count(&self) -> usize {
        self.objects.len()
    }

    /// How many objects are in transit from here.
    #[must_use]
    pub fn in_transit_count(&self) -> usize {
        self.in_transit.len()
    }

    /// The owned objects in slot order from `cursor` on, each with the cursor that follows it. The order repeats
    /// between runs; an object that moves in or out during a scan may be missed or met.
    pub fn owned_from(&self, cursor: usize) -> impl Iterator<Item = (usize, &Stored)> {
        self.slots
            .iter()
            .enumerate()
            .skip(cursor)
            .filter_map(|(slot, object)| Some((slot + 1, self.owned((*object)?)?)))
    }

    /// The owned objects in the next `slots` slots from `cursor` on, and where the next slice begins; `None` after
    /// the last one. Free slots count, so that the work is bounded.
    pub fn owned_slice(&self, cursor: usize, slots: usize) -> (impl Iterator<Item = &Stored>, Option<usize>) {
        let from = cursor.min(self.slots.len());
        let to = from.saturating_add(slots).min(self.slots.len());
        let stored = self.slots[from..to].iter().filter_map(|object| self.owned((*object)?));
        (stored, (to < self.slots.len()).then_some(to))
    }

    /// Sets up to which commit timestamp superseded versions are not needed any more (R17).
    /// Beyond a cost of `budget` bytes together, older versions go whether needed or not.
    pub const fn set_prune_below(&mut self, below: Timestamp, budget: usize) {
        self.prune_below = below;
        self.prune_budget = budget;
    }

    /// Looks at the next `steps` owned objects and prunes a few versions of each that are not needed any more, or
    /// that the budget has no room for.
    ///
    /// A hand that goes round, rather than a queue of versions: a version costs nothing until it goes.
    pub fn prune(&mut self, steps: usize) {
        if self.superseded_cost == 0 {
            return;
        }
        for _ in 0..steps.min(self.slots.len()) {
            self.prune_hand = (self.prune_hand + 1) % self.slots.len();
            let (below, excess) = (self.prune_below, self.superseded_cost.saturating_sub(self.prune_budget));
            let Some(Some(object)) = self.slots.get(self.prune_hand).copied() else { continue };
            let Some(stored) = self.owned_mut(object) else { continue };
            let due = stored.chain.prune(below, PRUNED_PER_LOOK);
            let excess = excess.saturating_sub(due);
            let freed = due + stored.chain.prune_excess(excess, PRUNED_PER_LOOK);
            self.superseded_cost -= freed;
        }
    }

    /// Prunes the oldest versions of an object that is about to leave to at most `budget` bytes (R17).
    pub fn prune_object(&mut self, object: ObjectId, budget: usize) {
        if let Some(stored) = self.owned_mut(object) {
            let freed = stored.chain.prune_to_budget(budget);
            self.superseded_cost -= freed;
        }
    }

    /// What all superseded versions cost together, bytes.
    #[must_use]
    pub const fn superseded_cost(&self) -> usize {
        self.superseded_cost
    }
}

fn move_counter(object: ObjectId) -> usize {
    usize::try_from(object.as_u128() % MOVE_COUNTERS as u128).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh_model::Value;

    fn group(id: u128) -> Group {
        Group::found(GroupId::from_u128(id), Stability::OnAppend, Retain::Everything)
    }

    fn commit(group: &mut Group, time: u64, object: ObjectId) -> Lsn {
        let writes = vec![Write { object, value: Some(Value::from_slice(&time.to_be_bytes())) }];
        group.append(Entry::Commit { commit: Timestamp::from_u64(time), writes })
    }

    fn transfer_out(group: &mut Group, object: ObjectId, to: GroupId) -> u64 {
        let number = group.next_grant(to).unwrap();
        let epoch = group.owned(object).unwrap().epoch.next();
        let floor = Timestamp::from_u64(100);
        group.append(Entry::TransferOut { object, epoch, to, number, floor });
        number
    }

    #[test]
    fn an_object_in_transit_is_owned_by_nobody_until_it_is_settled() {
        let (mut group, object, to) = (group(1), ObjectId::from_u128(7), GroupId::from_u128(2));
        commit(&mut group, 10, object);
        let number = transfer_out(&mut group, object, to);
        assert!(group.owned(object).is_none());
        assert_eq!(group.in_transit(object).unwrap().0, to);
        group.append(Entry::TakenBack { to, number });
        assert_eq!(group.owned(object).unwrap().epoch, Epoch::from_u64(3));
        let number = transfer_out(&mut group, object, to);
        assert_eq!(number, 2);
        group.append(Entry::Handed { to, number });
        assert!(group.owned(object).is_none() && group.in_transit(object).is_none());
        assert_eq!(group.unsettled_from(to), 3);
    }

    #[test]
    fn a_late_answer_to_a_former_grant_does_not_hide_the_present_one() {
        let (mut group, object) = (group(1), ObjectId::from_u128(7));
        let (first, second) = (GroupId::from_u128(2), GroupId::from_u128(3));
        commit(&mut group, 10, object);
        let versions: Vec<_> = group.owned(object).unwrap().chain.versions().cloned().collect();
        let number = transfer_out(&mut group, object, first);
        let epoch = Epoch::from_u64(3);
        let (low_water, floor) = (Timestamp::ZERO, Timestamp::from_u64(100));
        group.append(Entry::TransferIn { object, epoch, from: first, number: 1, versions, low_water, floor });
        transfer_out(&mut group, object, second);
        group.append(Entry::Handed { to: first, number });
        assert_eq!(group.in_transit(object).unwrap().0, second);
    }

    #[test]
    fn slices_meet_every_owned_object_once_and_count_free_slots() {
        let (mut group, to) = (group(1), GroupId::from_u128(2));
        for id in 1..=7 {
            commit(&mut group, 10, ObjectId::from_u128(id));
        }
        transfer_out(&mut group, ObjectId::from_u128(2), to);
        let (mut met, mut cursor, mut slices) = (Vec::new(), Some(0), 0);
        while let Some(from) = cursor {
            let (stored, next) = group.owned_slice(from, 3);
            met.extend(stored.map(|stored| stored.object.as_u128()));
            (cursor, slices) = (next, slices + 1);
        }
        assert_eq!((met, slices), (vec![1, 3, 4, 5, 6, 7], 3));
        assert!(group.owned_slice(usize::MAX, usize::MAX).1.is_none());
    }

    #[test]
    fn old_versions_go_by_horizon_and_by_budget() {
        let (mut group, object) = (group(1), ObjectId::from_u128(7));
        for time in [10, 20, 30, 40] {
            commit(&mut group, time, object);
        }
        group.set_prune_below(Timestamp::from_u64(20), usize::MAX);
        group.prune(100);
        assert_eq!(group.owned(object).unwrap().chain.low_water(), Timestamp::from_u64(20));
        group.set_prune_below(Timestamp::ZERO, 0);
        group.prune(100);
        assert_eq!(group.owned(object).unwrap().chain.superseded(), 0);
        assert_eq!(group.superseded_cost(), 0);
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
}
