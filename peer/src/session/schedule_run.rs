//! Running what is due of a schedule: the same commit has what its task did and moves the schedule on (R21).
//!
//! Whatever happens before that commit is as if nothing had run, and whoever owns the object then runs it again. It refuses
//! to run an occurrence of an object that is not here, and to retry a task that rejected, failed or panicked: that
//! occurrence is over, and counted.

use super::deliver::deliver;
use super::error::{Error, Result};
use super::handlers::{Handlers, Runnable};
use super::host::Host;
use super::schedules::Occurrence;
use super::task_run::{abort_of, caught};
use super::transact::{ForTask, Options, transact_for};
use super::tx::Tx;
use crate::Sabotage;
use crate::message::TaskAbort;
use crate::scheduling::{OccurrenceKey, ScheduleEnd, ScheduleRun};
use driftmesh_model::{Micros, Timestamp};
use driftmesh_object_store::{Progress, Schedule, ScheduleChange, ScheduleStep};
use driftmesh_txn::TaskKind;
use std::sync::{Arc, Mutex};

/// How long a run may take, retries included.
const DEADLINE: Micros = Micros::from_millis(5_000);

/// What an attempt came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    Over,
    Gone,
}

/// A run. However it ends, its place is free.
struct Running<H: Host> {
    host: H,
    key: OccurrenceKey,
    end: Option<ScheduleEnd>,
}

impl<H: Host> Drop for Running<H> {
    fn drop(&mut self) {
        let (key, end) = (self.key, self.end.take().unwrap_or(ScheduleEnd::Again));
        self.host.step(|peer, now| peer.schedule_ended(now, key, end));
    }
}

/// Runs an occurrence of a schedule.
pub(super) async fn run_scheduled<H: Host>(host: H, handlers: Arc<Handlers<H>>, run: ScheduleRun) {
    let mut running = Running { host, key: run.key, end: None };
    let end = run_occurrence(&running.host, &handlers, &run).await;
    running.end = Some(end);
}

async fn run_occurrence<H: Host>(host: &H, handlers: &Handlers<H>, run: &ScheduleRun) -> ScheduleEnd {
    let ScheduleRun { key, work } = run;
    let kind = TaskKind::new(&work.name);
    let options = Options { deadline: DEADLINE, ..Options::new(&work.name) };
    let attempts = match handlers.runnable(&work.name, work.version, &work.body) {
        Ok(Runnable::Task(attempts)) => Mutex::new(attempts),
        Ok(Runnable::Message(delivery)) => return deliver(host, run, delivery, options).await,
        Err(why) => return ScheduleEnd::Waits(why),
    };
    let age = age_of(*key);
    let (attempts, key, splits) = (&attempts, *key, host.step(|peer, _| peer.broken(Sabotage::Schedules)));
    let body = |tx: Tx<H>| {
        let kind = kind.clone();
        async move {
            let Some(schedule) = at_occurrence(&tx, key).await? else { return Ok(Came::Gone) };
            let planned = schedule.plan(tx.host().step(|_, now| now.wall));
            let mut progress = Progress { due: planned.next.unwrap_or(key.due), ..schedule.progress };
            if planned.runs {
                tx.set_occurrence(Occurrence { id: key.id, intended: key.due, count: planned.count });
                drop(caught(attempts, &tx, &kind).await?);
                progress = Progress { ran: progress.ran.saturating_add(1), panicked_at: Vec::new(), ..progress };
            }
            if !splits {
                go_on(&tx, key, planned.next.map(|_| progress))?;
            }
            Ok(Came::Over)
        }
    };
    let error = match transact_for(host.clone(), options.clone(), age, body).await {
        Ok(done) if splits && done.value == Came::Over => return go_on_later(host, options, key, None).await,
        Ok(done) => return end_of(done.value),
        Err(error) => error,
    };
    let why = abort_of(&error);
    if let Some(TaskAbort::Panicked(message)) = &why {
        host.step(|peer, now| peer.note_panicked(now, &work.name, key.id.object, message));
    }
    match why {
        Some(why) => go_on_later(host, options, key, Some(why)).await,
        None => ScheduleEnd::Again,
    }
}

/// R12: who has waited for long goes first.
const fn age_of(key: OccurrenceKey) -> Option<ForTask> {
    Some(ForTask { age: Timestamp::from_wall(key.due), ties: None })
}

/// Whether a schedule still is at an occurrence, here.
pub(super) async fn is_due<H: Host>(host: &H, options: Options, key: OccurrenceKey) -> Result<bool> {
    let body = |tx: Tx<H>| async move { Ok(at_occurrence(&tx, key).await?.is_some()) };
    transact_for(host.clone(), options, age_of(key), body).await.map(|done| done.value)
}

const fn end_of(came: Came) -> ScheduleEnd {
    match came {
        Came::Over => ScheduleEnd::Done,
        Came::Gone => ScheduleEnd::Gone,
    }
}

/// Moves a schedule on, in a transaction of its own: the occurrence is over, or failed for this reason.
pub(super) async fn go_on_later<H: Host>(
    host: &H,
    options: Options,
    key: OccurrenceKey,
    why: Option<TaskAbort>,
) -> ScheduleEnd {
    let why = &why;
    let body = |tx: Tx<H>| async move {
        let Some(schedule) = at_occurrence(&tx, key).await? else { return Ok(Came::Gone) };
        let (now, me, forgets) = tx.host().step(|peer, now| (now.wall, peer.id(), peer.broken(Sabotage::Parking)));
        let at = (!forgets).then_some(me);
        go_on(&tx, key, after_failure(&schedule, now, why.as_ref(), at))?;
        Ok(Came::Over)
    };
    match transact_for(host.clone(), options, age_of(key), body).await {
        Ok(done) => {
            host.step(|peer, _| peer.note_failed_occurrence(why.is_some()));
            end_of(done.value)
        }
        Err(_) => ScheduleEnd::Again,
    }
}

/// How far a schedule is after an occurrence that failed; `None` if it has ended. R26: what panicked is kept, and not run
/// again where it did so if it runs once, and nowhere after two peers.
fn after_failure(
    schedule: &Schedule,
    now: Micros,
    why: Option<&TaskAbort>,
    at: Option<driftmesh_model::PeerId>,
) -> Option<Progress> {
    let mut progress = schedule.progress.clone();
    progress.failed = progress.failed.saturating_add(u64::from(why.is_some()));
    let next = schedule.plan(now).next;
    progress.due = next.unwrap_or(progress.due);
    if let (Some(TaskAbort::Panicked(_)), Some(at)) = (why, at) {
        progress.note_panic(at);
        return Some(progress);
    }
    next.map(|_| progress)
}

/// The schedule, locked, if it still is at this occurrence.
async fn at_occurrence<H: Host>(tx: &Tx<H>, key: OccurrenceKey) -> Result<Option<Schedule>> {
    let id = tx.id();
    match tx.step(|peer, now| peer.occurrence(now, id, key)).await {
        Err(Error::Dangling { .. } | Error::ObjectLost { .. }) => Ok(None),
        found => found,
    }
}

/// R21: the occurrence is over if this attempt commits, and only then.
fn go_on<H: Host>(tx: &Tx<H>, key: OccurrenceKey, progress: Option<Progress>) -> Result<()> {
    let number = key.id.number;
    let step = match progress {
        Some(progress) => ScheduleStep::Go { number, progress },
        None => ScheduleStep::End { number },
    };
    tx.writes().change_schedule(ScheduleChange { object: key.id.object, step })
}
