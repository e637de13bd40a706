//! Which schedules of owned objects are due when, and what commits change of them.
//!
//! The index says nothing that the objects do not say: it changes with them, whatever changes them, so whoever leads finds
//! what is due without a look at all objects. It refuses to run anything, and to know the time.

use super::{State, Stored};
use crate::{Imported, Outcomes, Schedule, ScheduleChange, ScheduleStep, Schedules, Write};
use driftmesh_model::{Micros, ObjectId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// One schedule: when it is due, its object, its number there. Ordered by time.
pub type Due = (Micros, ObjectId, u64);

/// The schedules of owned objects, by time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Scheduled {
    due: BTreeSet<Due>,
    parked: BTreeSet<(ObjectId, u64)>,
    /// Counts what changes here: whoever finds it unchanged need not look again.
    changes: u64,
}

/// What the schedules of the objects were that a commit changes.
pub(super) type FormerSchedules = Option<Box<Vec<(ObjectId, Schedules)>>>;

impl Scheduled {
    fn is_empty(&self) -> bool {
        self.due.is_empty() && self.parked.is_empty()
    }

    pub(super) fn add(&mut self, stored: &Stored) {
        for schedule in schedules_of(stored) {
            self.changes += 1;
            if schedule.is_parked() {
                self.parked.insert((stored.object, schedule.number));
            } else {
                self.due.insert((schedule.progress.due, stored.object, schedule.number));
            }
        }
    }

    pub(super) fn remove(&mut self, stored: &Stored) {
        for schedule in schedules_of(stored) {
            self.changes += 1;
            self.parked.remove(&(stored.object, schedule.number));
            self.due.remove(&(schedule.progress.due, stored.object, schedule.number));
        }
    }

    /// Whether both say the same.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.due == other.due && self.parked == other.parked
    }
}

fn schedules_of(stored: &Stored) -> impl Iterator<Item = &Schedule> {
    stored.outcomes.iter().flat_map(|outcomes| outcomes.schedules().iter())
}

/// What ends all of them.
fn end_of_all(schedules: &Schedules) -> Vec<ScheduleStep> {
    schedules.iter().map(|schedule| ScheduleStep::End { number: schedule.number }).collect()
}

impl State {
    /// What a commit changes of schedules, after its writes. Those of an object that it deletes end. Returns what they were,
    /// if that shall be kept.
    pub(super) fn fold_schedules(
        &mut self,
        commit: Timestamp,
        changes: &[ScheduleChange],
        writes: &[Write],
        keep: bool,
    ) -> FormerSchedules {
        if changes.is_empty() && self.scheduled.is_empty() {
            return None;
        }
        let mut former: BTreeMap<ObjectId, Schedules> = BTreeMap::new();
        for change in changes {
            let changed = self.change_schedules(change.object, commit, |_| vec![change.step.clone()]);
            former.entry(change.object).or_insert_with(|| changed.unwrap_or_default());
        }
        for write in writes.iter().filter(|write| write.value.is_none()) {
            let has_some = self.schedules(write.object).is_some_and(|schedules| !schedules.is_empty());
            if has_some && let Some(ended) = self.change_schedules(write.object, commit, end_of_all) {
                former.entry(write.object).or_insert(ended);
            }
        }
        (keep && !former.is_empty()).then(|| Box::new(former.into_iter().collect()))
    }

    /// Undoes that.
    pub(super) fn unfold_schedules(&mut self, commit: Timestamp, former: FormerSchedules) {
        for (object, former) in former.into_iter().flat_map(|former| *former) {
            self.with_kept(object, |kept| kept.undo_schedules(commit, former));
        }
    }

    /// A commit changes the schedules of an object. Returns what they were.
    fn change_schedules(
        &mut self,
        object: ObjectId,
        commit: Timestamp,
        steps: impl FnOnce(&Schedules) -> Vec<ScheduleStep>,
    ) -> Option<Schedules> {
        let horizon = self.horizon();
        self.with_kept(object, |kept| {
            let before = kept.change_schedules(commit, steps(kept.schedules()));
            // What nobody needs any more goes while it is at hand.
            kept.former_mut().prune(horizon);
            before
        })
    }

    /// Changes what an owned object keeps of tasks, and the index with it.
    fn with_kept<T>(&mut self, object: ObjectId, change: impl FnOnce(&mut Outcomes) -> T) -> Option<T> {
        let (slot, stored) = self.objects.get_mut(object)?;
        if let Some(copy) = &mut self.copy {
            copy.object_changes(slot, Some(stored));
        }
        self.scheduled.remove(stored);
        let kept = stored.outcomes.get_or_insert_default();
        let before = (kept.former_cost(), kept.schedules().cost());
        let changed = change(kept);
        self.superseded_cost = self.superseded_cost - before.0 + kept.former_cost();
        self.held = self.held - before.1 + kept.schedules().cost();
        self.scheduled.add(stored);
        Some(changed)
    }

    /// What objects kept elsewhere is theirs here too.
    pub(super) fn fold_imported(&mut self, kept: &[Imported]) {
        self.has_outcomes = true;
        for Imported { object, outcomes } in kept {
            self.with_kept(*object, |kept| kept.clone_from(outcomes));
        }
    }

    /// Undoes that: nothing was kept before.
    pub(super) fn unfold_imported(&mut self, kept: &[Imported]) {
        for Imported { object, .. } in kept {
            self.with_kept(*object, |kept| *kept = Outcomes::default());
        }
    }

    /// The schedules of an owned object; none if it keeps nothing of tasks.
    #[must_use]
    pub fn schedules(&self, object: ObjectId) -> Option<&Schedules> {
        Some(self.owned(object)?.outcomes.as_ref()?.schedules())
    }

    /// The schedules that are not parked, the earliest first, after one of them.
    pub fn due_after(&self, after: Option<Due>) -> impl Iterator<Item = Due> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.scheduled.due.range((after.map_or(Unbounded, Excluded), Unbounded)).copied()
    }

    /// How many schedules there are that are not parked.
    #[must_use]
    pub fn scheduled_count(&self) -> usize {
        self.scheduled.due.len()
    }

    /// The schedules that do not run any more, because their tasks panicked (R26).
    pub fn parked_schedules(&self) -> impl ExactSizeIterator<Item = (ObjectId, u64)> {
        self.scheduled.parked.iter().copied()
    }

    /// While this stands still, no schedule here has changed, come or gone.
    #[must_use]
    pub const fn schedule_changes(&self) -> u64 {
        self.scheduled.changes
    }
}
