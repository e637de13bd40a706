//! What the schedules of an object were before: the steps that lead back, each with the commit that it undoes.
//!
//! Values have versions, and a snapshot sees the one that was committed before it. What a run changes of its schedule is a
//! few numbers, so of schedules there are no versions: each commit leaves the steps that undo it, and whoever asks for the
//! past takes them backwards. So what a snapshot sees of a schedule and of the objects that its runs have changed is the work
//! of the same commits (R16). As with versions each member drops by itself what nobody needs any more (R17). It refuses to
//! guess: below its low-water mark there is no answer.

use crate::{ScheduleStep, Schedules};
use driftmesh_model::Timestamp;
use driftmesh_model::limits::SCHEDULES_FORMER_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What a step weighs beside a schedule that it says, bytes.
const STEP: usize = 96;

/// A step that leads back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Back {
    /// The commit that it undoes.
    commit: Timestamp,
    step: ScheduleStep,
}

impl Back {
    fn cost(&self) -> usize {
        let schedule = match &self.step {
            ScheduleStep::Begin(schedule) => schedule.cost(),
            ScheduleStep::Go { .. } | ScheduleStep::End { .. } => 0,
        };
        STEP + schedule
    }
}

/// The steps that lead back from the schedules of an object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Former {
    /// In the order of their commits.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    back: VecDeque<Back>,
    /// Snapshots below it cannot be answered any more.
    #[serde(default, skip_serializing_if = "Timestamp::is_zero")]
    low_water: Timestamp,
}

impl Former {
    /// Of schedules of which nothing is known before a time.
    pub(crate) const fn from(low_water: Timestamp) -> Self {
        Self { back: VecDeque::new(), low_water }
    }

    /// Whether there is nothing to say.
    pub(crate) fn is_blank(&self) -> bool {
        self.back.is_empty() && self.low_water == Timestamp::ZERO
    }

    /// A commit has changed something that these steps undo, taken from the last one to the first one. Beyond the bound the
    /// oldest go (R24).
    pub(crate) fn push(&mut self, commit: Timestamp, steps: impl IntoIterator<Item = ScheduleStep>) {
        // R25: only a faulty peer can have said so, and what it said is of no use.
        while self.back.back().is_some_and(|last| last.commit > commit) {
            self.drop_oldest();
        }
        self.back.extend(steps.into_iter().map(|step| Back { commit, step }));
        let mut cost = self.cost();
        while cost > SCHEDULES_FORMER_BYTES_MAX && !self.back.is_empty() {
            cost -= self.drop_oldest();
        }
    }

    /// The last commit is undone: what led back over it is not needed.
    pub(crate) fn undo(&mut self, commit: Timestamp) {
        while self.back.back().is_some_and(|back| back.commit >= commit) {
            self.back.pop_back();
        }
    }

    /// Drops what undoes commits at or before `horizon`. Returns what was freed, bytes.
    pub(crate) fn prune(&mut self, horizon: Timestamp) -> usize {
        self.prune_excess(usize::MAX, horizon)
    }

    /// The same, until so many bytes are freed.
    pub(crate) fn prune_excess(&mut self, excess: usize, horizon: Timestamp) -> usize {
        let mut freed = 0;
        while freed < excess && self.back.front().is_some_and(|oldest| oldest.commit <= horizon) {
            freed += self.drop_oldest();
        }
        freed
    }

    fn drop_oldest(&mut self) -> usize {
        let Some(oldest) = self.back.pop_front() else { return 0 };
        // R17: what was before this commit is not known any more, what it made is.
        self.low_water = self.low_water.max(oldest.commit);
        oldest.cost()
    }

    /// What the schedules were at a snapshot; none if that is not known any more.
    pub(crate) fn lead_back(&self, present: &Schedules, snapshot: Timestamp) -> Option<Schedules> {
        if snapshot < self.low_water {
            return None;
        }
        let mut then = present.clone();
        for back in self.back.iter().rev().take_while(|back| back.commit > snapshot) {
            then.apply(&back.step);
        }
        Some(then)
    }

    /// What all steps weigh, bytes.
    pub(crate) fn cost(&self) -> usize {
        self.back.iter().map(Back::cost).sum()
    }

    /// Whether a sound peer could have said so (R25).
    pub(crate) fn is_sound(&self) -> bool {
        let is_time = |time: Timestamp| time < Timestamp::SOUND_MAX;
        is_time(self.low_water)
            && self.back.back().is_none_or(|last| is_time(last.commit))
            && self.back.iter().is_sorted_by_key(|back| back.commit)
            && self.back.iter().all(|back| back.step.is_sound())
            && self.cost() <= SCHEDULES_FORMER_BYTES_MAX
    }

    /// What both remember.
    pub(crate) fn since(&self, mark: Timestamp) -> impl Iterator<Item = (Timestamp, &ScheduleStep)> {
        self.back.iter().filter(move |back| back.commit > mark).map(|back| (back.commit, &back.step))
    }

    /// Snapshots below it cannot be answered any more (R17).
    pub(crate) const fn low_water(&self) -> Timestamp {
        self.low_water
    }

    /// The latest time that it speaks of.
    pub(crate) fn newest(&self) -> Timestamp {
        self.back.back().map_or(self.low_water, |last| last.commit.max(self.low_water))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CatchUp, Progress, Schedule, Work};
    use driftmesh_model::{Micros, Value};

    fn at(time: u64) -> Timestamp {
        Timestamp::from_u64(time)
    }

    fn begin(number: u64) -> ScheduleStep {
        let work = Work { name: "tick".to_owned(), version: 1, body: Value::from_slice(&[7; 10]) };
        let progress = Progress { due: Micros(0), ..Progress::default() };
        let (period, catch_up) = (Some(Micros(50_000)), CatchUp::Once);
        ScheduleStep::Begin(Box::new(Schedule { number, work, period, catch_up, after_stable: false, progress }))
    }

    fn go(number: u64, ran: u64) -> ScheduleStep {
        ScheduleStep::Go { number, progress: Progress { due: Micros(ran), ran, ..Progress::default() } }
    }

    /// Schedules that begin at 10 and run at each time from 11 to 29, of which one ends at 30 and one begins anew at 31.
    fn lived() -> (Schedules, Former, Vec<(u64, Schedules)>) {
        let (mut all, mut former, mut seen) =
            (Schedules::default(), Former::default(), vec![(0, Schedules::default())]);
        let mut commit = |time: u64, steps: &[ScheduleStep]| {
            let back: Vec<_> = steps.iter().filter_map(|step| all.apply(step)).collect();
            former.push(at(time), back);
            seen.push((time, all.clone()));
        };
        commit(10, &[begin(1), begin(2)]);
        (11..30).for_each(|time| commit(time, &[go(1, time), go(2, time), go(1, time + 1)]));
        commit(30, &[ScheduleStep::End { number: 2 }, go(2, 99)]);
        commit(31, &[begin(1)]);
        (all, former, seen)
    }

    #[test]
    fn each_snapshot_sees_what_the_last_commit_before_it_has_left() {
        let (all, former, seen) = lived();
        for (time, then) in &seen {
            assert_eq!(former.lead_back(&all, at(*time)).as_ref(), Some(then), "at {time}");
        }
        assert_eq!(former.lead_back(&all, at(9)), Some(Schedules::default()));
        assert_eq!(former.lead_back(&all, at(99)), Some(all));
        assert!(former.is_sound());
    }

    #[test]
    fn below_what_was_dropped_there_is_no_guess() {
        let (all, mut former, seen) = lived();
        let whole = former.cost();
        let freed = former.prune(at(20));
        assert_eq!((former.low_water(), former.cost()), (at(20), whole - freed));
        for (time, then) in &seen {
            let expected = Some(then).filter(|_| *time >= 20);
            assert_eq!(former.lead_back(&all, at(*time)).as_ref(), expected, "at {time}");
        }
        assert!(former.prune_excess(1, at(30)) > 0);
        assert_eq!(former.low_water(), at(21));
        former.prune(at(99));
        assert_eq!((former.cost(), former.low_water()), (0, at(31)));
        assert!(!former.is_blank(), "the mark stays");
    }

    #[test]
    fn an_undone_commit_leaves_nothing_to_lead_back_over() {
        let (_, mut former, seen) = lived();
        former.undo(at(31));
        former.undo(at(30));
        let (_, before) = &seen[seen.len() - 3];
        assert_eq!(former.lead_back(before, at(29)).as_ref(), Some(before));
        assert_eq!(former.lead_back(before, at(12)).as_ref(), Some(&seen[3].1));
    }

    #[test]
    fn beyond_the_bound_the_oldest_steps_go() {
        let (mut all, mut former) = (Schedules::default(), Former::default());
        former.push(at(1), all.apply(&begin(1)));
        for time in 2..2_000 {
            former.push(at(time), all.apply(&go(1, time)));
            assert!(former.cost() <= SCHEDULES_FORMER_BYTES_MAX && former.is_sound());
        }
        assert!(former.low_water() > at(1_000) && former.low_water() < at(1_999));
        assert_eq!(former.lead_back(&all, at(1_000)), None);
        let then = former.lead_back(&all, former.low_water()).unwrap();
        assert_eq!(at(then.get(1).unwrap().progress.ran), former.low_water());
    }

    #[test]
    fn what_no_sound_peer_says_is_not_sound() {
        let of = |times: &[u64], step: ScheduleStep| {
            let back = times.iter().map(|time| Back { commit: at(*time), step: step.clone() }).collect();
            Former { back, low_water: Timestamp::ZERO }.is_sound()
        };
        assert!(of(&[1, 1, 2], go(1, 1)));
        assert!(!of(&[2, 1], go(1, 1)), "out of order");
        assert!(!of(&[u64::MAX], go(1, 1)));
        assert!(!of(&[1], go(1, u64::MAX)));
        assert!(!of(&[1; 1_000], go(1, 1)), "too much");
        assert!(!Former::from(Timestamp::MAX).is_sound());
    }
}
