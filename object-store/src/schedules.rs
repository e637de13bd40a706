//! Schedules of an object: tasks that are due at a time, once or again and again.
//!
//! A schedule is kept with its object, and changed by commits alone. An occurrence is named by the time that it was intended
//! for; the commit of its run moves that time on, so an occurrence takes effect once, wherever it runs (R21). It refuses to
//! read a clock, to look into tasks, and to know who runs them.

use driftmesh_model::limits::{
    SCHEDULE_AHEAD_MAX, SCHEDULE_BYTES_MAX, SCHEDULE_CATCH_UP_MAX, SCHEDULE_PANICS_MAX, SCHEDULE_PERIOD_MIN,
    SCHEDULES_BYTES_MAX, SCHEDULES_MAX, TASK_KIND_BYTES_MAX,
};
use driftmesh_model::{Micros, ObjectId, PeerId, Timestamp, Value};
use serde::{Deserialize, Serialize};

/// What a schedule weighs beside its task, bytes.
const OVERHEAD: usize = 320;

/// A task, encoded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Work {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Its fields, encoded.
    pub body: Value,
}

/// What becomes of occurrences that were missed: those that were not run when the next one was due already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CatchUp {
    /// Each runs, the earliest first, up to so many. The first run stands for the earlier ones too.
    Each {
        /// At most so many runs, one at least.
        max: u32,
    },
    /// One run stands for all of them.
    Once,
    /// They do not run.
    Skip,
}

/// What moves on with each occurrence.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// When the next occurrence is intended to run, wall clock.
    pub due: Micros,
    /// How many runs took effect.
    pub ran: u64,
    /// How many were rejected, failed or panicked.
    pub failed: u64,
    /// Where it panicked since it last took effect; with [`SCHEDULE_PANICS_MAX`] peers it is parked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub panicked_at: Vec<PeerId>,
}

/// One schedule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Schedule {
    /// Its number at its object.
    pub number: u64,
    /// What it runs.
    pub work: Work,
    /// The time between two occurrences; none for a task that runs once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Micros>,
    /// What becomes of missed occurrences.
    pub catch_up: CatchUp,
    /// Whether it runs only when the commit that made it is stable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub after_stable: bool,
    /// How far it is.
    pub progress: Progress,
}

/// A bound that a schedule may break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScheduleBound {
    /// So many bytes of a task are too many.
    Bytes(usize),
    /// The name of the task's type is too long.
    Name,
    /// This period is too short or too long.
    Period(Micros),
    /// So many missed occurrences are none, or too many.
    CatchUp(u32),
}

/// What is to be done about a schedule that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    /// Whether the task is run.
    pub runs: bool,
    /// How many occurrences that stands for.
    pub count: u64,
    /// When the next occurrence is intended; none if there is none.
    pub next: Option<Micros>,
}

impl Schedule {
    /// Whether it does not run any more, because its task panicked at several peers (R26).
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.progress.panicked_at.len() >= SCHEDULE_PANICS_MAX
    }

    /// Whether it is not run at a peer any more: what runs once and panicked there has to be tried at another one (R26).
    #[must_use]
    pub fn waits_for_another(&self, peer: &PeerId) -> bool {
        self.period.is_none() && self.progress.panicked_at.contains(peer)
    }

    /// What is to be done now. The times of occurrences are those that were intended from the beginning, however late this
    /// one is.
    #[must_use]
    pub fn plan(&self, now: Micros) -> Planned {
        let Some(period) = self.period.filter(|period| period.0 > 0) else {
            return Planned { runs: true, count: 1, next: None };
        };
        let due = now.since(self.progress.due).0 / period.0 + 1;
        let (runs, count) = match self.catch_up {
            CatchUp::Each { max } => (true, due.saturating_sub(u64::from(max.max(1))) + 1),
            CatchUp::Once => (true, due),
            CatchUp::Skip => (due == 1, due),
        };
        let next = Micros(self.progress.due.0.saturating_add(period.0.saturating_mul(count)));
        Planned { runs, count, next: Some(next).filter(|next| *next < Timestamp::SOUND_MAX.wall()) }
    }

    /// About how much it weighs, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        OVERHEAD + self.work.name.len() + self.work.body.len()
    }

    /// Which bound it breaks, if it does (R24).
    #[must_use]
    pub fn breaks(&self) -> Option<ScheduleBound> {
        let bytes = self.work.body.len();
        if bytes > SCHEDULE_BYTES_MAX {
            return Some(ScheduleBound::Bytes(bytes));
        }
        if self.work.name.len() > TASK_KIND_BYTES_MAX {
            return Some(ScheduleBound::Name);
        }
        if let Some(period) = self.period
            && !(SCHEDULE_PERIOD_MIN..=SCHEDULE_AHEAD_MAX).contains(&period)
        {
            return Some(ScheduleBound::Period(period));
        }
        match self.catch_up {
            CatchUp::Each { max } if max == 0 || max > SCHEDULE_CATCH_UP_MAX => Some(ScheduleBound::CatchUp(max)),
            CatchUp::Each { .. } | CatchUp::Once | CatchUp::Skip => None,
        }
    }

    /// Whether a sound peer could have made it (R25).
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.breaks().is_none() && self.progress.is_sound()
    }
}

impl Progress {
    fn is_sound(&self) -> bool {
        let at = &self.panicked_at;
        self.due < Timestamp::SOUND_MAX.wall() && at.len() <= SCHEDULE_PANICS_MAX && at.is_sorted_by(|a, b| a < b)
    }

    /// It panicked at a peer.
    pub fn note_panic(&mut self, at: PeerId) {
        if let Err(index) = self.panicked_at.binary_search(&at)
            && self.panicked_at.len() < SCHEDULE_PANICS_MAX
        {
            self.panicked_at.insert(index, at);
        }
    }
}

/// What a commit changes of a schedule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScheduleChange {
    /// The object that it belongs to.
    pub object: ObjectId,
    /// What happens.
    pub step: ScheduleStep,
}

/// What happens to a schedule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ScheduleStep {
    /// It begins.
    Begin(Box<Schedule>),
    /// An occurrence is over; nothing happens if the schedule has ended.
    Go {
        /// The schedule's number.
        number: u64,
        /// How far it is.
        progress: Progress,
    },
    /// It ends; nothing happens if it has.
    End {
        /// The schedule's number.
        number: u64,
    },
}

impl ScheduleStep {
    /// Whether a sound peer could have made it (R25).
    #[must_use]
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Begin(schedule) => schedule.is_sound(),
            Self::Go { progress, .. } => progress.is_sound(),
            Self::End { .. } => true,
        }
    }
}

impl ScheduleChange {
    /// About how much it weighs, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        match &self.step {
            ScheduleStep::Begin(schedule) => schedule.cost(),
            ScheduleStep::Go { .. } | ScheduleStep::End { .. } => OVERHEAD,
        }
    }

    /// Whether a sound peer could have made it (R25).
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.step.is_sound()
    }
}

/// The schedules of an object, by their numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schedules {
    all: Vec<Schedule>,
}

impl Schedules {
    /// One of them.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&Schedule> {
        self.all.binary_search_by_key(&number, |schedule| schedule.number).ok().map(|index| &self.all[index])
    }

    /// All of them, by their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Schedule> {
        self.all.iter()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Changes one of them. Returns the step that leads back, if anything has changed.
    pub fn apply(&mut self, step: &ScheduleStep) -> Option<ScheduleStep> {
        let find = |all: &Vec<Schedule>, number: u64| all.binary_search_by_key(&number, |schedule| schedule.number);
        match step {
            ScheduleStep::Begin(schedule) => match find(&self.all, schedule.number) {
                Ok(index) => {
                    let former = std::mem::replace(&mut self.all[index], (**schedule).clone());
                    Some(ScheduleStep::Begin(Box::new(former)))
                }
                Err(index) => {
                    self.all.insert(index, (**schedule).clone());
                    Some(ScheduleStep::End { number: schedule.number })
                }
            },
            ScheduleStep::Go { number, progress } => {
                let index = find(&self.all, *number).ok()?;
                let former = std::mem::replace(&mut self.all[index].progress, progress.clone());
                Some(ScheduleStep::Go { number: *number, progress: former })
            }
            ScheduleStep::End { number } => {
                let index = find(&self.all, *number).ok()?;
                Some(ScheduleStep::Begin(Box::new(self.all.remove(index))))
            }
        }
    }

    fn bytes(&self) -> usize {
        self.all.iter().map(|schedule| schedule.work.body.len()).sum()
    }

    /// About how much they weigh, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.all.iter().map(Schedule::cost).sum()
    }

    /// Whether there are no more than an object may have (R24).
    #[must_use]
    pub fn fit(&self) -> bool {
        self.all.len() <= SCHEDULES_MAX && self.bytes() <= SCHEDULES_BYTES_MAX
    }

    /// Whether a sound peer could have said so (R25).
    #[must_use]
    pub fn are_sound(&self) -> bool {
        self.fit()
            && self.all.is_sorted_by(|left, right| left.number < right.number)
            && self.all.iter().all(Schedule::is_sound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(number: u64, bytes: usize) -> Schedule {
        let body = Value::from_slice(&vec![7; bytes]);
        let work = Work { name: "tick".to_owned(), version: 1, body };
        let progress = Progress { due: Micros(1_000_000), ..Progress::default() };
        let period = Some(Micros(50_000));
        Schedule { number, work, period, catch_up: CatchUp::Once, after_stable: false, progress }
    }

    fn plan(catch_up: CatchUp, now: u64) -> (bool, u64, u64) {
        let Planned { runs, count, next } = Schedule { catch_up, ..schedule(1, 1) }.plan(Micros(now));
        (runs, count, next.unwrap().0)
    }

    #[test]
    fn the_rate_is_fixed_however_late_a_run_is() {
        let (each, once, skip) = (CatchUp::Each { max: 3 }, CatchUp::Once, CatchUp::Skip);
        for catch_up in [each, once, skip] {
            // In time, a little late, and before its time by a clock that is behind.
            for now in [1_000_000, 1_049_999, 990_000] {
                assert_eq!(plan(catch_up, now), (true, 1, 1_050_000), "{catch_up:?} at {now}");
            }
        }
        // Three are due: those at 1.00, 1.05 and 1.10 s.
        assert_eq!(plan(each, 1_149_999), (true, 1, 1_050_000));
        assert_eq!(plan(once, 1_149_999), (true, 3, 1_150_000));
        assert_eq!(plan(skip, 1_149_999), (false, 3, 1_150_000));
        // Six are due: three runs, of which the first stands for four.
        assert_eq!(plan(each, 1_250_000), (true, 4, 1_200_000));
    }

    #[test]
    fn what_runs_once_has_no_next_time_and_the_end_of_time_neither() {
        let once = Schedule { period: None, ..schedule(1, 1) };
        assert_eq!(once.plan(Micros(u64::MAX)), Planned { runs: true, count: 1, next: None });
        assert_eq!(schedule(1, 1).plan(Micros(u64::MAX)).next, None);
    }

    #[test]
    fn what_no_sound_peer_says_is_not_sound() {
        let of = |all: Vec<Schedule>| Schedules { all }.are_sound();
        assert!(of(vec![schedule(1, 1), schedule(2, SCHEDULE_BYTES_MAX)]));
        assert!(!of(vec![schedule(2, 1), schedule(1, 1)]), "out of order");
        assert!(!of(vec![schedule(1, SCHEDULE_BYTES_MAX + 1)]));
        assert!(!of((0..=SCHEDULES_MAX as u64).map(|number| schedule(number, 0)).collect()));
        assert!(!of((0..9).map(|number| schedule(number, SCHEDULE_BYTES_MAX)).collect()), "36 KiB");
        let is_sound = |change: fn(&mut Schedule)| {
            let mut changed = schedule(1, 1);
            change(&mut changed);
            changed.is_sound()
        };
        assert!(is_sound(|_| {}));
        assert!(!is_sound(|schedule| schedule.period = Some(Micros(0))));
        assert!(!is_sound(|schedule| schedule.progress.due = Micros(u64::MAX)));
        assert!(!is_sound(|schedule| schedule.catch_up = CatchUp::Each { max: 0 }));
        assert!(!is_sound(|schedule| schedule.work.name = "x".repeat(TASK_KIND_BYTES_MAX + 1)));
        assert!(!is_sound(|schedule| schedule.progress.panicked_at = vec![PeerId::from_bytes([1; 32]); 2]));
    }

    #[test]
    fn panics_at_two_peers_park_it_and_panics_at_one_do_not() {
        let mut parked = schedule(1, 1);
        parked.progress.note_panic(PeerId::from_bytes([2; 32]));
        parked.progress.note_panic(PeerId::from_bytes([2; 32]));
        assert!(!parked.is_parked());
        parked.progress.note_panic(PeerId::from_bytes([1; 32]));
        parked.progress.note_panic(PeerId::from_bytes([3; 32]));
        assert!(parked.is_parked() && parked.is_sound());
    }

    #[test]
    fn an_occurrence_of_what_has_ended_changes_nothing() {
        let mut all = Schedules::default();
        all.apply(&ScheduleStep::Begin(Box::new(schedule(2, 1))));
        all.apply(&ScheduleStep::Begin(Box::new(schedule(1, 1))));
        let progress = Progress { due: Micros(7), ran: 1, ..Progress::default() };
        all.apply(&ScheduleStep::Go { number: 2, progress: progress.clone() });
        assert_eq!(all.get(2).map(|schedule| schedule.progress.due), Some(Micros(7)));
        all.apply(&ScheduleStep::End { number: 2 });
        assert_eq!(all.apply(&ScheduleStep::Go { number: 2, progress }), None);
        assert_eq!(all.apply(&ScheduleStep::End { number: 2 }), None);
        assert_eq!((all.len(), all.get(2), all.are_sound()), (1, None, true));
    }
}
