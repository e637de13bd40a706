//! Submitting a task: it is run here, or sent to where its data is and waited for.
//!
//! It refuses to guess: what nobody has told by the deadline is unknown, and the id says how to ask again (R21).

use super::fates::{Fate, Waiter, settled_within};
use super::handlers::Handlers;
use super::host::Host;
use super::task_error::TaskError;
use super::task_run::{Copies, Ran, run_once};
use crate::message::{TaskAbort, TaskEnd, TaskRequest};
use crate::steps::Receipt;
use crate::tasking::{NotSubmitted, Provisional, RETRY_AFTER, SubmitTask, TaskStep, TaskTo};
use driftmesh_model::limits::DEADLINE_MAX;
use driftmesh_model::{Micros, ObjectId, PeerId, TaskId, Value};
use std::future::poll_fn;
use std::sync::Arc;

/// How long at most a task that has ended at home lets others off first: some rounds to their peers.
const COURTESY_MAX: Micros = Micros::from_millis(20);

/// How a task is submitted.
#[derive(Clone, Copy, Debug)]
pub struct Submission {
    /// Where it is to run.
    pub to: TaskTo,
    /// Whether it was submitted before, by whomever.
    pub again: bool,
    /// Whether it ends only when the commit is stable.
    pub stable: bool,
    /// Whether the caller has the id, and may ask again.
    pub kept_id: bool,
    /// Whether its anchor only stands in for one that the caller has not named, and may be another.
    pub free_anchor: bool,
}

/// A task that took effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskDone<T> {
    /// Its answer.
    pub value: T,
    /// The request.
    pub task: TaskId,
    /// Where its commit stands; of an earlier copy, where its anchor stood when it was asked.
    pub receipt: Receipt,
    /// Whether that was stable when it was told: then no crash can undo it. Always, if another peer ran it.
    pub stable: bool,
    /// Whether an earlier copy of the request had done it.
    pub earlier: bool,
    /// Who told.
    pub by: PeerId,
}

/// Takes a task's answer before that is stable: perhaps not at all, and once more if the task had to run again here.
pub type Tell<'a> = &'a mut (dyn FnMut(Provisional) + Send);

/// A new id for a task with this anchor.
pub fn new_task_id<H: Host>(host: &H, anchor: ObjectId) -> TaskId {
    host.step(|peer, now| peer.new_task_id(now, anchor))
}

/// Submits a task. Cancel safe: dropped before it is ready, the task takes effect once or not at all, and the same id
/// submitted again tells which.
///
/// # Errors
/// Why the task did not take effect, or `Unknown`.
pub async fn submit<H: Host>(
    host: H,
    handlers: &Arc<Handlers<H>>,
    request: TaskRequest,
    how: Submission,
) -> Result<TaskDone<Value>, TaskError> {
    submit_and_tell(host, handlers, request, how, &mut |_| {}).await
}

/// Submits a task as [`submit`] does, and tells its answer before that is stable, if it is known before: it may be another one
/// in the end, if the peer that ran the task crashes. Cancel safe as [`submit`].
///
/// # Errors
/// As [`submit`].
pub async fn submit_provisional<H: Host>(
    host: H,
    handlers: &Arc<Handlers<H>>,
    request: TaskRequest,
    how: Submission,
    tell: Tell<'_>,
) -> Result<TaskDone<Value>, TaskError> {
    submit_and_tell(host, handlers, TaskRequest { provisional: true, ..request }, how, tell).await
}

async fn submit_and_tell<H: Host>(
    host: H,
    handlers: &Arc<Handlers<H>>,
    request: TaskRequest,
    how: Submission,
    tell: Tell<'_>,
) -> Result<TaskDone<Value>, TaskError> {
    if request.is_too_large() {
        let (bytes, touches) = (request.body.len(), request.touches.len());
        return Err(TaskError::TooLarge { name: request.name, bytes, touches });
    }
    let mut request = TaskRequest { deadline: request.deadline.clamp(Micros(1), DEADLINE_MAX), ..request };
    let me = host.step(|peer, _| peer.id());
    let until = host.step(|_, now| now.mono).plus(request.deadline);
    let (by, ran, _place) = await_end(&host, handlers, &mut request, how, tell).await?;
    let what = (request.name.as_str(), request.version);
    let (task, name) = (request.id, request.name.clone());
    let left = until.since(host.step(|_, now| now.mono));
    match ran.end {
        TaskEnd::Done { answer, receipt, earlier, .. } => {
            let mut stable = ran.stable || by != me;
            if !stable && request.provisional {
                tell(Provisional { by, answer: answer.clone(), receipt });
            }
            // Others are told when their commits are stable. Who has run here and was told at once could have the next one
            // done before they hear of their first, and they would starve: with them it waits like them.
            let others_wait = |host: &H| host.step(|peer, _| peer.others_wait_for_stable());
            let waits = how.stable || others_wait(&host).is_some();
            if waits && !stable {
                match until_stable(host.clone(), receipt, left, &request).await {
                    Ok(()) => {
                        stable = true;
                        // Their answers have a way to go, and their next requests the same way back: they are let off first.
                        if let Some((group, lsn)) = others_wait(&host)
                            && group == receipt.group
                        {
                            let left = until.since(host.step(|_, now| now.mono));
                            settled_within(host, Receipt { lsn, ..receipt }, left.min(COURTESY_MAX)).await;
                        }
                    }
                    // It was not asked for.
                    Err(TaskError::NotStable { .. }) if !how.stable => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(TaskDone { value: answer, task, receipt, stable, earlier, by })
        }
        TaskEnd::Aborted { why, kept } => {
            // What other copies of the request would meet is certain before it is told.
            if let Some(receipt) = kept.filter(|_| by == me && !ran.stable) {
                // The receipt is of the abort: what it says of a commit would be misread.
                let known = until_stable(host, receipt, left, &request).await;
                known.map_err(|_| TaskError::Unknown { name: name.clone(), task })?;
            }
            Err(TaskError::of_abort(why, task, what, request.deadline, by))
        }
        TaskEnd::Forgotten => Err(TaskError::Forgotten { name, task }),
        TaskEnd::Busy { retry_after } => Err(TaskError::Busy { retry_after }),
        // It was sent on already, so nobody says so any more.
        TaskEnd::Elsewhere { .. } => Err(TaskError::Busy { retry_after: RETRY_AFTER }),
    }
}

/// Waits until what was committed here is stable, so long at most.
async fn until_stable<H: Host>(
    host: H,
    receipt: Receipt,
    limit: Micros,
    request: &TaskRequest,
) -> Result<(), TaskError> {
    let (name, task) = (request.name.clone(), request.id);
    match settled_within(host, receipt, limit).await {
        Some(Fate::Stable { .. }) => Ok(()),
        Some(Fate::Lost { .. }) => Err(TaskError::Lost { name, task }),
        Some(Fate::Unknown { .. }) | None => Err(TaskError::NotStable { name, task, receipt: Box::new(receipt) }),
    }
}

/// What a submission has met so far.
struct Way<H: Host> {
    /// Who should run the task, and what it wants there.
    sent_on: Option<(PeerId, ObjectId)>,
    /// How often it was sent on.
    hops: u8,
    /// Whether copies of the request may run, or have run, that nobody has told the end of.
    again: bool,
    /// Whether a copy has left this peer.
    was_sent: bool,
    /// What it counts by among the tasks that run here, until it has ended for its caller.
    place: Option<Waiter<H>>,
}

/// Waits until a task has ended, wherever it runs. The request gets the anchor that was chosen for it.
async fn await_end<H: Host>(
    host: &H,
    handlers: &Arc<Handlers<H>>,
    request: &mut TaskRequest,
    how: Submission,
    tell: Tell<'_>,
) -> Result<(PeerId, Ran, Option<Waiter<H>>), TaskError> {
    let until = host.step(|_, now| now.mono).plus(request.deadline);
    let named = request.id.anchor;
    let session = Some(named).filter(|_| how.free_anchor);
    let mut way = Way { sent_on: None, hops: 0, again: how.again, was_sent: false, place: None };
    loop {
        let (by, ran) = await_one(host, handlers, request, how, (&mut way, &mut *tell)).await?;
        match &ran.end {
            // So often at most as the core lets it: what is settled runs where it arrives.
            TaskEnd::Elsewhere { object, at } => {
                way.sent_on = Some((*at, *object));
                way.hops += 1;
                way.place = None;
            }
            TaskEnd::Aborted { why: TaskAbort::NoAnchor, .. } if request.id.anchor != named && way.hops == 0 => {
                host.step(|peer, _| peer.forget_route(request));
                request.id.anchor = named;
                way.place = None;
            }
            TaskEnd::Aborted { .. } | TaskEnd::Done { .. } | TaskEnd::Forgotten | TaskEnd::Busy { .. } => {
                host.step(|peer, _| peer.learn_from_task(request, by, &ran.end, session));
                return Ok((by, ran, way.place));
            }
        }
        let left = until.since(host.step(|_, now| now.mono));
        request.deadline = left.max(Micros(1));
    }
}

/// Waits until a task has ended at the peer that suits it best, or was told by this one to go elsewhere.
async fn await_one<H: Host>(
    host: &H,
    handlers: &Arc<Handlers<H>>,
    request: &mut TaskRequest,
    how: Submission,
    (way, tell): (&mut Way<H>, Tell<'_>),
) -> Result<(PeerId, Ran), TaskError> {
    let waiter = Waiter::new(host.clone());
    let id = waiter.id();
    let name = request.name.clone();
    let unknown = |task| TaskError::Unknown { name: name.clone(), task };
    let Submission { to, free_anchor, .. } = how;
    let Way { sent_on, hops, again, .. } = *way;
    let task = SubmitTask { request: request.clone(), to, again, free_anchor, sent_on, hops };
    let submitted = host.step(|peer, now| (peer.id(), peer.submit_task(now, id, task)));
    match submitted {
        (_, Ok(())) => {}
        // What became of copies that were submitted before is not known.
        (_, Err(_)) if again => return Err(unknown(request.id)),
        (_, Err(NotSubmitted::Busy)) => return Err(TaskError::Busy { retry_after: RETRY_AFTER }),
        (at, Err(NotSubmitted::ClockAhead { receiver })) => return Err(TaskError::ClockAhead { at, receiver }),
    }
    let next = || poll_fn(|context| host.poll_step(id, context, |peer, now| peer.poll_task(now, id)));
    let (mut here, again, was_sent, hops) = loop {
        match next().await {
            TaskStep::Provisional(provisional) => tell(provisional),
            // Nothing waits for what another peer has told.
            TaskStep::Ended { task, by, end } => {
                request.id = task;
                return Ok((by, Ran { end, stable: true }));
            }
            TaskStep::Unknown { task } => return Err(unknown(task)),
            TaskStep::Unreachable => {
                return match how.to {
                    TaskTo::Peer(peer) if !again => Err(TaskError::Unreachable(peer)),
                    TaskTo::Peer(_) | TaskTo::Anywhere => Err(unknown(request.id)),
                };
            }
            TaskStep::RunHere { request, again, was_sent, hops } => break (request, again, was_sent, hops),
        }
    };
    // R21: also for what follows. Copies keep their anchor, and an end here that is not kept says nothing of theirs.
    (way.hops, way.again, way.was_sent) = (hops, again, way.was_sent || was_sent);
    request.id = here.id;
    here.deadline = here.deadline.max(Micros(1));
    let (me, task) = (host.step(|peer, _| peer.id()), here.id);
    // An end that waits to be stable names the id if it waits in vain.
    let may_ask = how.kept_id || how.stable;
    let copies = if again || way.was_sent {
        Copies::Now
    } else if may_ask {
        Copies::Later
    } else {
        Copies::None
    };
    let ran = run_once(host, handlers, &here, copies).await;
    way.place = Some(waiter);
    let goes_on = matches!(ran.end, TaskEnd::Elsewhere { .. });
    // This copy did not run, for a reason of its own; another one may have.
    if again && !ran.end.is_decided() && !goes_on { Err(unknown(task)) } else { Ok((me, ran)) }
}
