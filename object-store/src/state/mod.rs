//! What a replica group holds, as a fold over its journal: objects, grants under way, terms, the timestamp window.
//!
//! A leader applies an entry when it appends it, a follower when it is stable; what is not stable yet can be undone,
//! from the last entry downwards (`undo`). Beside the fold there is only what each member does for itself: old versions
//! go (`prune`), and a copy is handed out in slices (`copy`, `install`). It refuses to know who may append what, who
//! leads, and how entries become stable. An entry from elsewhere is checked first (`check`): what `apply` is given must
//! be sound, and it panics otherwise.

mod check;
mod compare;
mod copy;
mod grants;
mod held;
mod install;
mod objects;
mod prune;
mod scheduled;
mod slice;
#[cfg(test)]
mod tests;
mod undo;

pub use check::BadEntry;
pub use held::{Growth, OBJECT_OVERHEAD};
pub use install::BadSlice;
pub use scheduled::Due;
pub use slice::Slice;

use crate::{Arrival, Chain, Departure, Entry, Fate, GrantLog, Outcomes, TaskOutcome, TermTable, Version, Write};
use copy::Copying;
use driftmesh_model::{Epoch, GroupId, LookupMap, Lsn, ObjectId, Term, Timestamp};
use install::Installing;
use objects::Objects;
use scheduled::{FormerSchedules, Scheduled};
use std::collections::{BTreeMap, VecDeque};
use undo::{Handed, Kept, Left, Unstable};

/// An object whose master is here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The object.
    pub object: ObjectId,
    /// How often its mastership has moved.
    pub epoch: Epoch,
    /// The position of the entry that changed it last: what an answer about its newest version waits for (R6).
    pub changed: Lsn,
    /// Its versions.
    pub chain: Chain,
    /// What became of tasks whose anchor it is (R21), and its schedules. Nearly all objects have none.
    pub outcomes: Option<Box<Outcomes>>,
}

impl Stored {
    /// What is kept of its past costs, bytes: superseded versions, and what leads back to former schedules.
    #[must_use]
    pub fn superseded_cost(&self) -> usize {
        self.chain.superseded_cost() + self.outcomes.as_ref().map_or(0, |outcomes| outcomes.former_cost())
    }
}

/// An object on its way to another group: nobody commits to it (R19).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InTransit {
    /// The object.
    pub object: ObjectId,
    /// The epoch it will have at the destination.
    pub epoch: Epoch,
    /// The position of the entry by which it left: what its grant waits for (R6).
    pub changed: Lsn,
    /// Its versions; snapshots up to the floor may still be answered from them.
    pub chain: Chain,
    /// What became of tasks whose anchor it is.
    pub outcomes: Option<Box<Outcomes>>,
    /// The leader's clock when it left (R16).
    pub floor: Timestamp,
}

/// A grant from here: its destination and its number towards it.
type GrantKey = (GroupId, u64);

/// The state of a replica group after a prefix of its journal.
#[derive(Clone, Debug)]
pub struct State {
    /// The owned objects.
    objects: Objects,
    in_transit: BTreeMap<GrantKey, InTransit>,
    /// The last grant of each object that is in transit.
    transit_index: LookupMap<ObjectId, GrantKey>,
    /// The number of the last grant to each group.
    sent: BTreeMap<GroupId, u64>,
    received: BTreeMap<GroupId, GrantLog>,
    terms: TermTable,
    /// The end of the last timestamp window.
    window: Timestamp,
    retired: bool,
    /// The position of the last entry applied.
    applied: Lsn,
    /// What all those entries speak of.
    marks: Marks,
    /// What the stable ones among them speak of.
    stable_marks: Marks,
    /// The entries that may still be undone, oldest first.
    unstable: VecDeque<Unstable>,
    /// What all superseded versions and ways back to former schedules cost together, bytes.
    superseded_cost: usize,
    /// How much room all objects take, bytes (`held`).
    held: usize,
    /// What was superseded at or before this is not needed any more (R17).
    prune_below: Timestamp,
    /// What superseded versions may cost together, bytes.
    prune_budget: usize,
    /// Whether any object ever kept outcomes of tasks here: then pruning looks for old ones.
    has_outcomes: bool,
    /// Which schedules of owned objects are due when.
    scheduled: Scheduled,
    /// The slot that pruning looks at next.
    prune_hand: usize,
    /// How many objects have come and gone, by a part of their id. Each member counts by itself.
    moves: Vec<u64>,
    /// A copy that is being handed out.
    copy: Option<Box<Copying>>,
    /// A copy that is being taken in: the state is not whole yet.
    installing: Option<Box<Installing>>,
}

/// The highest timestamps of a prefix of the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Marks {
    /// Of all versions.
    commit: Timestamp,
    /// Of everything: floors and windows too.
    highest: Timestamp,
}

/// Counters of moves; many, so that a search for one object is not disturbed by the moves of others.
const MOVE_COUNTERS: usize = 1 << 12;

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The state before the first entry.
    #[must_use]
    pub fn new() -> Self {
        Self {
            objects: Objects::default(),
            in_transit: BTreeMap::new(),
            transit_index: LookupMap::default(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
            terms: TermTable::default(),
            window: Timestamp::ZERO,
            retired: false,
            applied: Lsn::ZERO,
            marks: Marks::default(),
            stable_marks: Marks::default(),
            unstable: VecDeque::new(),
            superseded_cost: 0,
            held: 0,
            prune_below: Timestamp::ZERO,
            prune_budget: usize::MAX,
            has_outcomes: false,
            scheduled: Scheduled::default(),
            prune_hand: 0,
            moves: vec![0; MOVE_COUNTERS],
            copy: None,
            installing: None,
        }
    }

    /// Applies the next entry, which may be undone until `stable` says that it will not.
    ///
    /// # Panics
    /// On an entry that `check` would have refused.
    pub fn apply(&mut self, lsn: Lsn, entry: &Entry) {
        self.mark(lsn, entry);
        let (kept, schedules) = self.fold(lsn, entry, true);
        self.unstable.push_back(Unstable { lsn, marks: self.marks, kept, schedules });
    }

    /// Applies the next entry, which is stable already, as all before it are: nothing is kept to undo it.
    ///
    /// # Panics
    /// On an entry that `check` would have refused.
    pub fn apply_stable(&mut self, lsn: Lsn, entry: &Entry) {
        if !self.unstable.is_empty() {
            self.stable(lsn);
        }
        self.mark(lsn, entry);
        // Before the fold: what the entry supersedes need not be kept to undo it.
        self.stable_marks = self.marks;
        drop(self.fold(lsn, entry, false));
    }

    fn mark(&mut self, lsn: Lsn, entry: &Entry) {
        debug_assert!(
            lsn > self.applied && self.installing.is_none(),
            "entries are applied in order, to a whole state"
        );
        self.applied = lsn;
        self.marks.commit = self.marks.commit.max(entry.newest_commit());
        self.marks.highest = self.marks.highest.max(entry.highest_timestamp());
    }

    /// Changes the state by an entry. Returns what else than the entry is needed to undo it, if that shall be kept.
    fn fold(&mut self, lsn: Lsn, entry: &Entry, keep: bool) -> (Kept, FormerSchedules) {
        let kept = self.fold_objects(lsn, entry, keep);
        let Entry::Commit { commit, writes, schedules, .. } = entry else { return (kept, None) };
        (kept, self.fold_schedules(*commit, schedules, writes, keep))
    }

    fn fold_objects(&mut self, lsn: Lsn, entry: &Entry, keep: bool) -> Kept {
        match entry {
            Entry::TermStart { term } => {
                self.terms.push(*term, lsn).expect("terms climb");
                Kept::Nothing
            }
            Entry::Commit { commit, writes, outcome, schedules: _ } => {
                let kept = self.fold_commit(lsn, *commit, writes, keep);
                if let Some(outcome) = outcome {
                    self.fold_outcome(*commit, outcome);
                }
                kept
            }
            Entry::TransferOut { to, first, floor, departures } => {
                self.fold_departures(lsn, (*to, *first), *floor, departures, keep)
            }
            Entry::TransferIn { from, unsettled_from, arrivals } => {
                self.fold_arrivals(lsn, *from, *unsettled_from, arrivals)
            }
            Entry::Handed { to, numbers } => {
                let mut handed = Vec::with_capacity(if keep { numbers.len() } else { 0 });
                for number in numbers {
                    let Some((transit, indexed)) = self.remove_transit((*to, *number)) else { continue };
                    self.count_move(transit.object);
                    if keep {
                        handed.push(Handed { number: *number, transit, indexed });
                    }
                }
                Kept::Handed(handed)
            }
            Entry::Refused { from, number, unsettled_from } => {
                let log = self.received.entry(*from).or_default();
                log.record(*number, true);
                Kept::Settled(log.settle_below(*unsettled_from))
            }
            Entry::TakenBack { to, number } => {
                let Some((transit, indexed)) = self.remove_transit((*to, *number)) else { return Kept::Nothing };
                let InTransit { object, epoch, changed, chain, outcomes, floor } = transit;
                // R19: one epoch above the refused one.
                self.install(Stored { object, epoch: epoch.next(), changed: lsn, chain, outcomes });
                Kept::taken_back(keep, object, changed, floor, indexed)
            }
            Entry::Window { until } => {
                let former = self.window;
                self.window = former.max(*until);
                Kept::Window(former)
            }
            // Who belongs to the group is consensus' business.
            Entry::Members(_) => Kept::Nothing,
            Entry::Retired => {
                self.retired = true;
                Kept::Nothing
            }
            Entry::Imported { kept } => {
                self.fold_imported(kept);
                Kept::Nothing
            }
        }
    }

    fn fold_commit(&mut self, lsn: Lsn, commit: Timestamp, writes: &[Write], keep: bool) -> Kept {
        let (horizon, stable, budget) = (self.horizon(), self.stable_marks.commit, self.prune_budget);
        let mut kept = Kept::Nothing;
        for write in writes {
            let version = Version { commit, value: write.value.clone() };
            let Some((slot, stored)) = self.objects.get_mut(write.object) else {
                let (object, epoch) = (write.object, Epoch::ZERO.next());
                self.install(Stored { object, epoch, changed: lsn, chain: Chain::new(version), outcomes: None });
                if keep {
                    kept.note_write(Lsn::ZERO, writes.len());
                }
                continue;
            };
            if let Some(copy) = &mut self.copy {
                copy.object_changes(slot, Some(stored));
            }
            let grown = version.value_len();
            self.held = self.held - stored.chain.newest().value_len() + grown;
            let added = stored.chain.push(version, horizon);
            // Its chain is at hand: what nobody needs any more goes now, and beyond the budget a bit more.
            let freed = prune::while_written(&mut stored.chain, self.superseded_cost + added, horizon, stable, budget);
            let former = std::mem::replace(&mut stored.changed, lsn);
            self.superseded_cost = self.superseded_cost + added - freed;
            if keep {
                kept.note_write(former, writes.len());
            }
        }
        kept
    }

    /// R21: what became of a task is kept with its anchor.
    fn fold_outcome(&mut self, commit: Timestamp, outcome: &TaskOutcome) {
        self.has_outcomes = true;
        let Some((slot, stored)) = self.objects.get_mut(outcome.anchor()) else { return };
        if let Some(copy) = &mut self.copy {
            copy.object_changes(slot, Some(stored));
        }
        stored.outcomes.get_or_insert_default().add(commit, outcome);
    }

    fn fold_departures(
        &mut self,
        lsn: Lsn,
        (to, first): GrantKey,
        floor: Timestamp,
        departures: &[Departure],
        keep: bool,
    ) -> Kept {
        let mut kept = Vec::with_capacity(if keep { departures.len() } else { 0 });
        for (number, Departure { object, epoch }) in (first..).zip(departures) {
            let stored = self.remove(*object).expect("only what is owned is transferred");
            if keep {
                kept.push(Left {
                    epoch: stored.epoch,
                    changed: stored.changed,
                    former: self.transit_index.get(object).copied(),
                });
            }
            let Stored { chain, outcomes, .. } = stored;
            let transit = InTransit { object: *object, epoch: *epoch, changed: lsn, chain, outcomes, floor };
            self.insert_transit((to, number), transit, true);
            self.sent.insert(to, number);
        }
        Kept::Left(kept)
    }

    /// Grants are answered; and their sender has settled those below `unsettled_from`.
    fn fold_arrivals(&mut self, lsn: Lsn, from: GroupId, unsettled_from: u64, arrivals: &[Arrival]) -> Kept {
        for Arrival { object, epoch, versions, outcomes, low_water, .. } in arrivals {
            let chain = Chain::from_slice(versions, *low_water).expect("grants are checked before they are journalled");
            let outcomes = outcomes.clone();
            self.install(Stored { object: *object, epoch: *epoch, changed: lsn, chain, outcomes });
        }
        let log = self.received.entry(from).or_default();
        arrivals.iter().for_each(|arrival| log.record(arrival.number, false));
        Kept::Settled(log.settle_below(unsettled_from))
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

    fn install(&mut self, stored: Stored) {
        self.count_move(stored.object);
        self.has_outcomes |= stored.outcomes.is_some();
        let object = stored.object;
        self.superseded_cost += stored.superseded_cost();
        self.held += stored.held();
        let (slot, former) = self.objects.insert(stored);
        if let Some(copy) = &mut self.copy {
            copy.object_changes(slot, None);
        }
        if let Some((former, replaced)) = former {
            self.vacated(former, &replaced);
        }
        if let Some(stored) = self.objects.get(object) {
            self.scheduled.add(stored);
        }
    }

    fn remove(&mut self, object: ObjectId) -> Option<Stored> {
        let (slot, stored) = self.objects.remove(object)?;
        self.vacated(slot, &stored);
        Some(stored)
    }

    /// An object is gone from its slot.
    fn vacated(&mut self, slot: usize, stored: &Stored) {
        if let Some(copy) = &mut self.copy {
            copy.object_changes(slot, Some(stored));
        }
        self.superseded_cost -= stored.superseded_cost();
        self.held -= stored.held();
        self.scheduled.remove(stored);
    }

    /// The position of the last entry applied.
    #[must_use]
    pub const fn applied(&self) -> Lsn {
        self.applied
    }

    /// The present leadership period.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.terms.term()
    }

    /// Each leadership period with the position of its leader's first entry, oldest first (R22).
    #[must_use]
    pub fn term_table(&self) -> &[(Term, Lsn)] {
        self.terms.starts()
    }

    /// The term table as it outlives the group (R22).
    #[must_use]
    pub const fn terms(&self) -> &TermTable {
        &self.terms
    }

    /// What became of the commit of a receipt, if everything up to `watermark` is stable (R22).
    #[must_use]
    pub fn fate(&self, term: Term, lsn: Lsn, watermark: Lsn) -> Fate {
        self.terms.fate(term, lsn, watermark.min(self.applied))
    }

    /// The highest end of a timestamp window (R8).
    #[must_use]
    pub const fn window(&self) -> Timestamp {
        self.window
    }

    /// The highest timestamp of all entries: commits, floors, ends of windows. A new leader starts above it (R8).
    #[must_use]
    pub const fn highest(&self) -> Timestamp {
        self.marks.highest
    }

    /// The highest commit timestamp of all entries.
    #[must_use]
    pub const fn newest_commit(&self) -> Timestamp {
        self.marks.commit
    }

    /// Whether the group has ended.
    #[must_use]
    pub const fn is_retired(&self) -> bool {
        self.retired
    }

    /// The object, if its master is here.
    #[must_use]
    pub fn owned(&self, object: ObjectId) -> Option<&Stored> {
        self.objects.get(object)
    }

    /// How many objects are owned, deleted ones included.
    #[must_use]
    pub fn owned_count(&self) -> usize {
        self.objects.len()
    }

    /// The owned objects in slot order from `cursor` on, each with the cursor that follows it. The order repeats
    /// between runs; an object that moves in or out during a scan may be missed or met.
    pub fn owned_from(&self, cursor: usize) -> impl Iterator<Item = (usize, &Stored)> {
        (cursor..self.objects.slots()).filter_map(|slot| Some((slot + 1, self.objects.at(slot)?)))
    }

    /// The owned objects in the next `slots` slots from `cursor` on, each with the cursor after it, and where the next slice
    /// begins; `None` after the last one. Free slots count, so that the work is bounded.
    pub fn owned_slice(&self, cursor: usize, slots: usize) -> (impl Iterator<Item = (usize, &Stored)>, Option<usize>) {
        let end = self.objects.slots();
        let from = cursor.min(end);
        let to = from.saturating_add(slots).min(end);
        let stored = (from..to).filter_map(|slot| Some((slot + 1, self.objects.at(slot)?)));
        (stored, (to < end).then_some(to))
    }
}

fn move_counter(object: ObjectId) -> usize {
    usize::try_from(object.as_u128() % MOVE_COUNTERS as u128).unwrap_or(0)
}
