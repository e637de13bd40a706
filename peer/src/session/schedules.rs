//! Schedules inside a transaction: made, listed and cancelled under the lock of their object.
//!
//! They are part of the transaction's commit: if it does not commit, or is lost, nothing of them was there. It refuses to run
//! anything, and to know types of tasks: they come encoded.

use super::error::{Error, Result};
use super::host::Host;
use super::tx::Tx;
use driftmesh_model::limits::{
    SCHEDULE_AHEAD_MAX, SCHEDULE_BYTES_MAX, SCHEDULE_CATCH_UP_MAX, SCHEDULE_PERIOD_MIN, SCHEDULES_BYTES_MAX,
    SCHEDULES_MAX, TASK_KIND_BYTES_MAX,
};
use driftmesh_model::{Micros, ObjectId, PeerId, ScheduleId, Timestamp};
use driftmesh_object_store::{
    CatchUp, Progress, Schedule, ScheduleBound, ScheduleChange, ScheduleStep, Schedules, Work,
};

/// When a task is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The first time.
    pub first: First,
    /// The time between two occurrences; none if it runs once.
    pub period: Option<Micros>,
    /// What becomes of occurrences that were missed.
    pub catch_up: CatchUp,
    /// Whether it runs only when the commit that makes it is stable.
    pub after_stable: bool,
}

impl Plan {
    /// At once, when the commit that makes it is stable.
    pub const FOLLOW_UP: Self =
        Self { first: First::After(Micros(0)), period: None, catch_up: CatchUp::Once, after_stable: true };
}

/// When a schedule begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum First {
    /// So long after the transaction's snapshot.
    After(Micros),
    /// At this time, wall clock. One that has passed is due at once.
    At(Micros),
}

/// Why a schedule cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScheduleRefused {
    /// The object has too many already.
    #[error(
        "an object may have {SCHEDULES_MAX} schedules with {SCHEDULES_BYTES_MAX} bytes of tasks together; cancel some, or use another object"
    )]
    TooMany,
    /// The task is too large.
    #[error("its task has {bytes} bytes, the limit is {SCHEDULE_BYTES_MAX}; store what it needs in an object")]
    TooLarge {
        /// Its size, bytes.
        bytes: usize,
    },
    /// The name of the task's type is too long.
    #[error("the name of its task has more than {TASK_KIND_BYTES_MAX} bytes")]
    NameTooLong,
    /// The period is too short or too long.
    #[error("its period is {} us; it must be {} ms at least and ten years at most", period.0, SCHEDULE_PERIOD_MIN.as_millis())]
    Period {
        /// The period.
        period: Micros,
    },
    /// It begins too late.
    #[error("it begins more than ten years from now")]
    TooFarAhead,
    /// Too many missed occurrences would be made up for.
    #[error(
        "it would make up for {max} missed occurrences; that must be 1 at least and {SCHEDULE_CATCH_UP_MAX} at most"
    )]
    CatchUp {
        /// How many.
        max: u32,
    },
    /// This process cannot encode the task.
    #[error("its task does not encode: {0}")]
    Unencodable(String),
}

/// A schedule, as it is listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scheduled {
    /// Its id.
    pub id: ScheduleId,
    /// The name of its task.
    pub name: String,
    /// The version of its task.
    pub version: u32,
    /// When the next occurrence is intended, wall clock.
    pub next: Micros,
    /// The time between two; none if it runs once.
    pub period: Option<Micros>,
    /// What becomes of missed ones.
    pub catch_up: CatchUp,
    /// How many runs took effect.
    pub ran: u64,
    /// How many were rejected, failed or panicked.
    pub failed: u64,
    /// Where it panicked since it last took effect.
    pub panicked_at: Vec<PeerId>,
    /// Whether it does not run any more, because it panicked at two peers.
    pub parked: bool,
}

/// What a run of a schedule stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Occurrence {
    /// The schedule.
    pub id: ScheduleId,
    /// When it was intended: of several occurrences the first.
    pub intended: Micros,
    /// How many occurrences it stands for: more than one if some were missed.
    pub count: u64,
}

impl Occurrence {
    /// When it was intended, milliseconds since the UNIX epoch: of several occurrences the first.
    #[must_use]
    pub const fn intended_ms(&self) -> u64 {
        self.intended.as_millis()
    }
}

fn listed(object: ObjectId, schedule: &Schedule) -> Scheduled {
    let Schedule { number, work, period, catch_up, after_stable: _, progress } = schedule;
    Scheduled {
        id: ScheduleId { object, number: *number },
        name: work.name.clone(),
        version: work.version,
        next: progress.due,
        period: *period,
        catch_up: *catch_up,
        ran: progress.ran,
        failed: progress.failed,
        panicked_at: progress.panicked_at.clone(),
        parked: schedule.is_parked(),
    }
}

/// Whether a schedule keeps to the bounds (R24).
fn check(schedule: &Schedule, now: Micros) -> Result<(), ScheduleRefused> {
    match schedule.breaks() {
        None => {}
        Some(ScheduleBound::Bytes(bytes)) => return Err(ScheduleRefused::TooLarge { bytes }),
        Some(ScheduleBound::Name) => return Err(ScheduleRefused::NameTooLong),
        Some(ScheduleBound::Period(period)) => return Err(ScheduleRefused::Period { period }),
        Some(ScheduleBound::CatchUp(max)) => return Err(ScheduleRefused::CatchUp { max }),
    }
    if schedule.progress.due > now.plus(SCHEDULE_AHEAD_MAX) || schedule.progress.due >= Timestamp::SOUND_MAX.wall() {
        return Err(ScheduleRefused::TooFarAhead);
    }
    Ok(())
}

impl<H: Host> Tx<H> {
    /// Schedules an encoded task with an object, which it locks.
    ///
    /// # Errors
    /// `Schedule` if it does not keep to the bounds, `Dangling` or `ObjectLost`, or the end of the attempt.
    pub async fn schedule_work(&self, object: ObjectId, work: Work, plan: Plan) -> Result<ScheduleId> {
        let schedules = self.locked_schedules(object).await?;
        let number = self.random();
        // Not ahead of the clock that says when it is due.
        let wall = self.host().step(|_, now| now.wall).min(self.snapshot().wall());
        let due = match plan.first {
            First::After(after) => wall.plus(after),
            First::At(at) => at,
        };
        let Plan { first: _, period, catch_up, after_stable } = plan;
        let progress = Progress { due, ..Progress::default() };
        let schedule = Schedule { number, work, period, catch_up, after_stable, progress };
        let refused = |why| Error::Schedule { object, why };
        check(&schedule, wall).map_err(refused)?;
        let step = ScheduleStep::Begin(Box::new(schedule));
        let mut after = schedules;
        after.apply(&step);
        if !after.fit() {
            return Err(refused(ScheduleRefused::TooMany));
        }
        self.writes().change_schedule(ScheduleChange { object, step })?;
        Ok(ScheduleId { object, number })
    }

    /// Ends a schedule. Returns whether there was one: one that ran once and has run is no more.
    ///
    /// # Errors
    /// `Dangling` or `ObjectLost`, or the end of the attempt.
    pub async fn cancel(&self, id: ScheduleId) -> Result<bool> {
        let schedules = self.locked_schedules(id.object).await?;
        if schedules.get(id.number).is_none() {
            return Ok(false);
        }
        self.writes()
            .change_schedule(ScheduleChange { object: id.object, step: ScheduleStep::End { number: id.number } })?;
        Ok(true)
    }

    /// The schedules of an object, which it locks.
    ///
    /// # Errors
    /// `Dangling` or `ObjectLost`, or the end of the attempt.
    pub async fn schedules(&self, object: ObjectId) -> Result<Vec<Scheduled>> {
        let schedules = self.locked_schedules(object).await?;
        Ok(schedules.iter().map(|schedule| listed(object, schedule)).collect())
    }

    /// What the schedules of an object are for this transaction.
    async fn locked_schedules(&self, object: ObjectId) -> Result<Schedules> {
        // What is lent out is there.
        let pending = match self.writes().pending(object) {
            Ok(pending) => pending,
            Err(Error::GuardHeld { .. }) => None,
            Err(error) => return Err(error),
        };
        let schedules = match pending {
            Some(pending) if pending.value.is_none() => return Err(Error::Dangling { object }),
            Some(pending) if pending.creates => Schedules::default(),
            Some(_) | None => {
                self.acquire(&[object]).await?;
                let id = self.id();
                self.step(|peer, now| peer.schedules_of(now, id, object)).await?
            }
        };
        Ok(self.writes().with_changes(object, schedules))
    }
}
