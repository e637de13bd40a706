//! Undoing entries that will never be stable, the newest first: what a deposed leader does (R7, R9).
//!
//! It refuses to keep more than an entry itself does not say: versions that an unstable commit superseded stay in their
//! chains (`prune`), and nothing is kept of what is stable. Outcomes of tasks that an unstable one displaced stay forgotten.

use super::scheduled::FormerSchedules;
use super::{GrantKey, InTransit, Marks, State, Stored};
use crate::{Departure, Entry, TaskOutcome, Write};
use driftmesh_model::{Epoch, GroupId, Lsn, ObjectId, Timestamp};

/// An entry that was applied and may be undone.
#[derive(Clone, Debug)]
pub(super) struct Unstable {
    pub(super) lsn: Lsn,
    /// The marks after it.
    pub(super) marks: Marks,
    pub(super) kept: Kept,
    /// What the schedules were that it changed.
    pub(super) schedules: FormerSchedules,
}

/// What is needed to undo an entry beside the entry and the state. Small, because each commit has one.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Nothing,
    /// Which entry had changed the one object that a commit wrote.
    Written(Lsn),
    /// The same for several, in the order of the writes.
    AllWritten(Vec<Lsn>),
    /// Refusals that need not be remembered any more.
    Settled(Vec<u64>),
    /// The end of the window before this one.
    Window(Timestamp),
    /// In the order of the departures.
    Left(Vec<Left>),
    Handed(Vec<Handed>),
    TakenBack(Box<TakenBack>),
}

/// Of an object that left.
#[derive(Clone, Debug)]
pub(super) struct Left {
    /// Its epoch.
    pub(super) epoch: Epoch,
    /// The entry that had changed it.
    pub(super) changed: Lsn,
    /// A former grant of it that is not settled.
    pub(super) former: Option<GrantKey>,
}

/// A grant that was adopted.
#[derive(Clone, Debug)]
pub(super) struct Handed {
    pub(super) number: u64,
    pub(super) transit: InTransit,
    /// Whether it was the last grant of its object.
    pub(super) indexed: bool,
}

/// What is not in an object's chain of a grant that was refused.
#[derive(Clone, Debug)]
pub(super) struct TakenBack {
    object: ObjectId,
    changed: Lsn,
    floor: Timestamp,
    indexed: bool,
}

impl Kept {
    /// One more write of a commit, to an object that this entry had changed last; zero for one that it created.
    pub(super) fn note_write(&mut self, former: Lsn, writes: usize) {
        if let Self::AllWritten(formers) = self {
            formers.push(former);
        } else if writes > 1 {
            let mut formers = Vec::with_capacity(writes);
            formers.push(former);
            *self = Self::AllWritten(formers);
        } else {
            *self = Self::Written(former);
        }
    }

    pub(super) fn taken_back(keep: bool, object: ObjectId, changed: Lsn, floor: Timestamp, indexed: bool) -> Self {
        if keep { Self::TakenBack(Box::new(TakenBack { object, changed, floor, indexed })) } else { Self::Nothing }
    }

    /// Which entry had changed the object of a write.
    fn former(&self, write: usize) -> Option<Lsn> {
        match self {
            Self::Written(former) => Some(*former),
            Self::AllWritten(formers) => formers.get(write).copied(),
            Self::Nothing
            | Self::Settled(_)
            | Self::Window(_)
            | Self::Left(_)
            | Self::Handed(_)
            | Self::TakenBack(_) => None,
        }
    }
}

impl State {
    /// Everything up to `lsn` will never be undone: what was kept for that goes.
    pub fn stable(&mut self, lsn: Lsn) {
        while let Some(first) = self.unstable.front()
            && first.lsn <= lsn
        {
            self.stable_marks = first.marks;
            self.unstable.pop_front();
        }
    }

    /// Undoes the last applied entry. Exact, but for the counters of moves, which only climb, and old versions that were
    /// pruned.
    ///
    /// # Panics
    /// When the entry is not the last one, or is stable.
    pub fn undo(&mut self, lsn: Lsn, entry: &Entry) {
        let last = self.unstable.pop_back().filter(|last| last.lsn == lsn);
        let Unstable { kept, schedules, .. } = last.expect("only the last entry is undone, if not stable");
        self.marks = self.unstable.back().map_or(self.stable_marks, |last| last.marks);
        self.applied = Lsn::from_u64(lsn.as_u64().saturating_sub(1));
        if let Entry::Commit { commit, .. } = entry {
            self.unfold_schedules(*commit, schedules);
        }
        self.unfold(entry, kept);
    }

    fn unfold(&mut self, entry: &Entry, kept: Kept) {
        match entry {
            Entry::TermStart { .. } => {
                self.terms.pop();
            }
            Entry::Commit { commit, writes, outcome, schedules: _ } => {
                if let Some(outcome) = outcome {
                    self.unfold_outcome(*commit, outcome);
                }
                self.unfold_commit(writes, &kept);
            }
            Entry::TransferOut { to, first, departures, .. } => self.unfold_departures(*to, *first, departures, kept),
            Entry::TransferIn { from, arrivals, .. } => {
                for arrival in arrivals.iter().rev() {
                    self.remove(arrival.object);
                    self.count_move(arrival.object);
                }
                let numbers = arrivals.iter().rev().map(|arrival| arrival.number);
                self.unfold_answers(*from, numbers, kept);
            }
            Entry::Refused { from, number, .. } => self.unfold_answers(*from, std::iter::once(*number), kept),
            Entry::Handed { to, .. } => {
                if let Kept::Handed(handed) = kept {
                    for Handed { number, transit, indexed } in handed.into_iter().rev() {
                        self.count_move(transit.object);
                        self.insert_transit((*to, number), transit, indexed);
                    }
                }
            }
            Entry::TakenBack { to, number } => {
                if let Kept::TakenBack(taken) = kept
                    && let Some(Stored { epoch, chain, outcomes, .. }) = self.remove(taken.object)
                {
                    let TakenBack { object, changed, floor, indexed } = *taken;
                    self.count_move(object);
                    let epoch = Epoch::from_u64(epoch.as_u64().saturating_sub(1));
                    let transit = InTransit { object, epoch, changed, chain, outcomes, floor };
                    self.insert_transit((*to, *number), transit, indexed);
                }
            }
            Entry::Window { .. } => {
                if let Kept::Window(former) = kept {
                    self.window = former;
                }
            }
            Entry::Members(_) => {}
            Entry::Retired => self.retired = false,
            Entry::Imported { kept } => self.unfold_imported(kept),
        }
    }

    fn unfold_commit(&mut self, writes: &[Write], kept: &Kept) {
        for (index, write) in writes.iter().enumerate().rev() {
            let Some((slot, stored)) = self.objects.get_mut(write.object) else { continue };
            if let Some(copy) = &mut self.copy {
                copy.object_changes(slot, Some(stored));
            }
            let undone = stored.chain.newest().value_len();
            if let Some(cost) = stored.chain.pop() {
                self.superseded_cost -= cost;
                self.held = self.held - undone + stored.chain.newest().value_len();
                stored.changed = kept.former(index).unwrap_or(self.applied);
            } else {
                // The commit created it.
                self.remove(write.object);
                self.count_move(write.object);
            }
        }
    }

    fn unfold_outcome(&mut self, commit: Timestamp, outcome: &TaskOutcome) {
        let Some((slot, stored)) = self.objects.get_mut(outcome.anchor()) else { return };
        if let Some(copy) = &mut self.copy {
            copy.object_changes(slot, Some(stored));
        }
        if let Some(outcomes) = &mut stored.outcomes {
            outcomes.undo(outcome.task.key, commit);
        }
    }

    fn unfold_departures(&mut self, to: GroupId, first: u64, departures: &[Departure], kept: Kept) {
        if let Kept::Left(left) = kept {
            for ((index, departure), left) in departures.iter().enumerate().zip(left).rev() {
                let Some((transit, _)) = self.remove_transit((to, first.saturating_add(index as u64))) else {
                    continue;
                };
                self.index_transit(departure.object, left.former);
                let Left { epoch, changed, .. } = left;
                let InTransit { object, chain, outcomes, .. } = transit;
                self.install(Stored { object, epoch, changed, chain, outcomes });
            }
        }
        // Numbers are given one by one.
        match first.saturating_sub(1) {
            0 => self.sent.remove(&to),
            former => self.sent.insert(to, former),
        };
    }

    fn unfold_answers(&mut self, from: GroupId, numbers: impl Iterator<Item = u64>, kept: Kept) {
        let Some(log) = self.received.get_mut(&from) else { return };
        numbers.for_each(|number| log.forget(number));
        if let Kept::Settled(refused) = kept {
            log.unsettle(refused);
        }
    }
}
