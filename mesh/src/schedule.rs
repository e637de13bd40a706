//! Schedules for users: tasks that are due later, or again and again, and tasks that follow a transaction.
//!
//! It refuses to keep time and to run anything: a schedule belongs to its object, and the core runs it where that is.

use crate::{Error, Result, Task, Tx};
use driftmesh_model::{Micros, ObjectId, Ref, ScheduleId, Value, codec};
use driftmesh_peer::session::{First, Plan, ScheduleRefused};
pub use driftmesh_peer::session::{Occurrence, Scheduled};
use driftmesh_peer::{CatchUp, Work};
use serde::Serialize;
use std::time::Duration;

/// When a task is due; see [`Scheduling::schedule`].
///
/// ```
/// use driftmesh::{CatchUp, Schedule};
/// use std::time::Duration;
///
/// // Once, in a minute.
/// let once = Schedule::after(Duration::from_secs(60));
/// // Each second from now on; what was missed while nobody could run it is made up for by one run.
/// let each = Schedule::every(Duration::from_secs(1)).first_after(Duration::ZERO).catch_up(CatchUp::Once);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    plan: Plan,
}

fn micros(duration: Duration) -> Micros {
    Micros::from_duration(duration)
}

impl Schedule {
    const fn new(first: First, period: Option<Micros>) -> Self {
        Self { plan: Plan { first, period, catch_up: CatchUp::Once, after_stable: false } }
    }

    /// Once, so long after the time of the transaction that schedules it.
    #[must_use]
    pub fn after(delay: Duration) -> Self {
        Self::new(First::After(micros(delay)), None)
    }

    /// Once, at this time, milliseconds since the UNIX epoch, as [`Tx::now_ms`] tells it. A time that has passed means at
    /// once.
    #[must_use]
    pub const fn at_ms(time: u64) -> Self {
        Self::new(First::At(Micros(time.saturating_mul(1_000))), None)
    }

    /// Again and again, with this time between the times that are intended: 10 ms at least. The first time is one period
    /// from now, unless [`Schedule::first_after`] or [`Schedule::first_at_ms`] says otherwise.
    #[must_use]
    pub fn every(period: Duration) -> Self {
        Self::new(First::After(micros(period)), Some(micros(period)))
    }

    /// The first time is so long after the time of the transaction that schedules it.
    #[must_use]
    pub fn first_after(mut self, delay: Duration) -> Self {
        self.plan.first = First::After(micros(delay));
        self
    }

    /// The first time is this one, milliseconds since the UNIX epoch.
    #[must_use]
    pub const fn first_at_ms(mut self, time: u64) -> Self {
        self.plan.first = First::At(Micros(time.saturating_mul(1_000)));
        self
    }

    /// What becomes of occurrences that nobody could run before the next one was due: because the object's peer had
    /// crashed, for instance. [`CatchUp::Once`] unless set.
    #[must_use]
    pub const fn catch_up(mut self, catch_up: CatchUp) -> Self {
        self.plan.catch_up = catch_up;
        self
    }
}

/// An object that schedules can belong to: a [`Ref`] or an [`ObjectId`].
pub trait Owner {
    /// The object.
    fn object(&self) -> ObjectId;
}

impl<T> Owner for Ref<T> {
    fn object(&self) -> ObjectId {
        self.id()
    }
}

impl Owner for ObjectId {
    fn object(&self) -> ObjectId {
        *self
    }
}

/// Schedules tasks inside a transaction: `use driftmesh::Scheduling as _;`. What is scheduled is part of the transaction's
/// commit, and belongs to an object: it moves with it, survives crashes as it does, and ends with it. [`Tx::cancel`] ends a
/// schedule, [`Tx::schedules`] lists those of an object, and [`Tx::occurrence`] tells a task for when it was intended.
pub trait Scheduling {
    /// Schedules a task with an object, which is locked by that. It runs where the object is then. Each occurrence takes
    /// effect once, or is rejected, fails or panics once; its output goes nowhere.
    ///
    /// # Errors
    /// `Schedule` if the bounds are not kept: 16 schedules of an object, 4 KiB a task. `Dangling` or `ObjectLost`, or the
    /// end of the attempt.
    fn schedule<T: Task>(
        &self,
        owner: impl Owner + Send,
        task: &T,
        schedule: Schedule,
    ) -> impl Future<Output = Result<ScheduleId>> + Send;

    /// Hands over a task that follows this transaction: it runs once, after the commit is stable, and if and only if the
    /// commit is kept. It belongs to an object, as a schedule does.
    ///
    /// # Errors
    /// As [`Scheduling::schedule`].
    fn then<T: Task>(&self, owner: impl Owner + Send, task: &T) -> impl Future<Output = Result<ScheduleId>> + Send;
}

/// What is due of an object, encoded.
pub(crate) fn encoded(object: ObjectId, name: &str, version: u32, of: &impl Serialize) -> Result<Work> {
    let unencodable =
        |error: codec::EncodeError| Error::Schedule { object, why: ScheduleRefused::Unencodable(error.to_string()) };
    let body = codec::encode(of).map_err(unencodable)?;
    Ok(Work { name: name.to_owned(), version, body: Value::from_slice(&body) })
}

fn work<T: Task>(object: ObjectId, task: &T) -> Result<Work> {
    encoded(object, T::NAME, T::VERSION, task)
}

impl Scheduling for Tx {
    async fn schedule<T: Task>(&self, owner: impl Owner + Send, task: &T, schedule: Schedule) -> Result<ScheduleId> {
        let object = owner.object();
        self.schedule_work(object, work(object, task)?, schedule.plan).await
    }

    async fn then<T: Task>(&self, owner: impl Owner + Send, task: &T) -> Result<ScheduleId> {
        let object = owner.object();
        self.schedule_work(object, work(object, task)?, Plan::FOLLOW_UP).await
    }
}
