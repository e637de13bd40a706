//! Running a task once: its anchor is locked and asked first, and its outcome is part of its commit (R21).
//!
//! It refuses to route, and to keep anything of a task that did not commit.

use super::error::{Error, Result};
use super::handlers::{Handlers, TaskAttempts};
use super::host::Host;
use super::schedule_run::run_scheduled;
use super::transact::{Done, ForTask, Options, transact_for};
use super::tx::Tx;
use crate::message::{TaskAbort, TaskEnd, TaskRequest};
use crate::steps::{Receipt, TaskTies};
use crate::tasking::{RETRY_AFTER, Run, TaskFound, TaskRun};
use driftmesh_model::limits::TASK_ANSWER_BYTES_MAX;
use driftmesh_model::{Epoch, ObjectId, TaskId, Timestamp, Value, codec};
use driftmesh_object_store::TaskOutcome;
use driftmesh_txn::{Cause, TaskKind};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

/// Longest text of an error that is kept, bytes.
const TEXT_MAX: usize = 1 << 10;

/// What an anchor keeps of a task.
#[derive(Debug, Serialize, Deserialize)]
enum KeptAnswer {
    Done(Value),
    Aborted(TaskAbort),
}

/// What an attempt came to.
enum Tried {
    Ended(KeptAnswer),
    /// An earlier copy of the request had ended so.
    Before(Value),
    Forgotten,
    NoAnchor,
}

/// How a task ended, and whether that was stable when it was told.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) end: TaskEnd,
    pub(super) stable: bool,
}

impl Ran {
    pub(super) const fn aborted(why: TaskAbort) -> Self {
        Self { end: TaskEnd::aborted(why), stable: true }
    }
}

/// A text that is not too long to be kept.
pub(super) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}

/// What a panic said.
#[must_use]
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it said nothing".to_owned())
}

/// What an error means for good: a retry of the whole task would not mend it.
pub(super) fn abort_of(error: &Error) -> Option<TaskAbort> {
    match error {
        Error::Rejected(reason) => Some(TaskAbort::Rejected(cut(reason.to_string()))),
        Error::Panicked { message, .. } => Some(TaskAbort::Panicked(cut(message.clone()))),
        Error::Dangling { .. }
        | Error::ObjectLost { .. }
        | Error::Object { .. }
        | Error::TransactionTooLarge { .. }
        | Error::TooManyObjects
        | Error::GuardHeld { .. }
        | Error::NameTaken { .. }
        | Error::IllegalName(_)
        | Error::BucketMissing { .. }
        | Error::Schedule { .. } => Some(TaskAbort::Failed(cut(error.to_string()))),
        Error::AttemptEnded { .. }
        | Error::Deadline { .. }
        | Error::SnapshotTooOld { .. }
        | Error::CreatedLater { .. }
        | Error::SnapshotRead(_)
        | Error::SnapshotExpired
        | Error::Ended
        | Error::Busy(_)
        | Error::CallerBusy { .. }
        | Error::ToldOtherwise { .. }
        | Error::Leaving
        | Error::NoRoom(_)
        | Error::TooManySubscriptions
        | Error::TooManyWatches
        | Error::Superseded
        | Error::RuntimeStopped { .. }
        | Error::ClockOff { .. }
        | Error::Lost { .. }
        | Error::NotStable { .. }
        | Error::PeerUnreachable(_) => None,
    }
}

/// Locks the anchor, and asks it. `None` if the task has not run.
async fn ask_anchor<H: Host>(tx: &Tx<H>, task: TaskId) -> Result<Option<Tried>> {
    match tx.acquire(&[task.anchor]).await {
        Ok(()) => {}
        Err(Error::Dangling { .. } | Error::ObjectLost { .. }) => return Ok(Some(Tried::NoAnchor)),
        Err(error) => return Err(error),
    }
    Ok(match tx.task_seen(task).await? {
        TaskFound::New => None,
        TaskFound::Ended(answer) => Some(Tried::Before(answer)),
        TaskFound::Forgotten => Some(Tried::Forgotten),
    })
}

/// Begins something and polls it. A panic of it ends it, with what it said: the core is never held meanwhile, so that leaves
/// nothing half done.
pub(super) async fn catching<T>(
    begin: impl FnOnce() -> Pin<Box<dyn Future<Output = T> + Send>>,
) -> std::result::Result<T, String> {
    let said = |panic: Box<dyn Any + Send>| panic_text(panic.as_ref());
    let mut begun = catch_unwind(AssertUnwindSafe(begin)).map_err(said)?;
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| begun.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(said(panic))),
    })
    .await
}

/// An attempt of a task; a panic of it is an error of the task.
pub(super) async fn caught<H: Host>(attempts: &Mutex<TaskAttempts<H>>, tx: &Tx<H>, kind: &TaskKind) -> Result<Value> {
    let ended = catching(|| {
        let mut attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts(tx.clone())
    });
    ended.await.unwrap_or_else(|message| Err(Error::Panicked { kind: kind.clone(), message }))
}

/// Keeps with the anchor how a task ends, if this attempt commits and anybody may ask.
fn keep<H: Host>(tx: &Tx<H>, request: &TaskRequest, answer: KeptAnswer, copies: Copies) -> Result<Tried> {
    let encoded = codec::encode(&answer).map_err(Error::rejected)?;
    if encoded.len() > TASK_ANSWER_BYTES_MAX {
        return Err(Error::rejected(AnswerTooLarge(encoded.len() as u64)));
    }
    if copies != Copies::None {
        let TaskRequest { id: task, oldest, .. } = *request;
        tx.set_outcome(TaskOutcome { task, answer: Value::from_slice(&encoded), oldest });
    }
    Ok(Tried::Ended(answer))
}

#[derive(Debug, thiserror::Error)]
#[error("its answer has {0} bytes")]
struct AnswerTooLarge(u64);

/// Who may ask for a task again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Copies {
    /// Nobody: the request has not left this peer, and its caller does not know the id. Its outcome need not be kept: on a
    /// busy anchor it would only displace those that somebody may ask for.
    None,
    /// Its caller may, later. The outcome is kept.
    Later,
    /// Other copies may run by now: an abort is journalled too before it is told, so that none of them takes effect later.
    Now,
}

/// Runs a task, unless its anchor says that it has ended.
pub(super) async fn run_once<H: Host>(host: &H, handlers: &Handlers<H>, request: &TaskRequest, copies: Copies) -> Ran {
    let attempts = match handlers.attempts(&request.name, request.version, &request.body) {
        Ok(attempts) => Mutex::new(attempts),
        Err(why) => return Ran::aborted(why),
    };
    let kind = TaskKind::new(&request.name);
    let begun = host.step(|_, now| now.mono);
    let options = Options { deadline: request.deadline, ..Options::new(&request.name) };
    // R12: a copy that is sent again is as old as the first.
    let age = Timestamp::from_wall(request.id.key.issued);
    let for_task =
        |may_move: bool| Some(ForTask { age, ties: Some(TaskTies { may_move, came_for: request.came_for }) });
    let (attempts, task) = (&attempts, request.id);
    let body = |tx: Tx<H>| {
        let kind = kind.clone();
        async move {
            if let Some(tried) = ask_anchor(&tx, task).await? {
                return Ok(tried);
            }
            let answer = caught(attempts, &tx, &kind).await?;
            keep(&tx, request, KeptAnswer::Done(answer), copies)
        }
    };
    let error = match transact_for(host.clone(), options.clone(), for_task(!request.settled), body).await {
        Ok(done) => return ran(done),
        Err(error) => error,
    };
    let why = match (error.rejection::<AnswerTooLarge>(), abort_of(&error)) {
        (Some(AnswerTooLarge(bytes)), _) => TaskAbort::AnswerTooLarge(*bytes),
        (None, Some(why)) => why,
        (None, None) => return not_run(&error),
    };
    if let TaskAbort::Panicked(message) = &why {
        host.step(|peer, now| peer.note_panicked(now, &request.name, request.id.anchor, message));
    }
    if copies != Copies::Now {
        return Ran::aborted(why);
    }
    let left = begun.plus(request.deadline).since(host.step(|_, now| now.mono));
    let options = Options { deadline: left, ..options };
    let why = &why;
    let body = |tx: Tx<H>| async move {
        match ask_anchor(&tx, task).await? {
            Some(tried) => Ok(tried),
            None => keep(&tx, request, KeptAnswer::Aborted(why.clone()), Copies::Now),
        }
    };
    match transact_for(host.clone(), options, for_task(false), body).await {
        Ok(done) => ran(done),
        Err(error) => not_run(&error),
    }
}

/// The transaction committed.
fn ran(done: Done<Tried>) -> Ran {
    let (receipt, stable, touched) = (done.committed.receipt, done.committed.stable, done.committed.touched);
    let end = match done.value {
        Tried::Ended(answer) => end_of(answer, receipt, false, touched),
        Tried::Before(kept) => match codec::decode(kept.bytes()) {
            Ok(answer) => end_of(answer, receipt, true, touched),
            // Of a release that says it otherwise.
            Err(_) => TaskEnd::Forgotten,
        },
        Tried::Forgotten => TaskEnd::Forgotten,
        Tried::NoAnchor => TaskEnd::aborted(TaskAbort::NoAnchor),
    };
    Ran { end, stable }
}

fn end_of(answer: KeptAnswer, receipt: Receipt, earlier: bool, touched: Vec<(ObjectId, Epoch)>) -> TaskEnd {
    match answer {
        KeptAnswer::Done(answer) => TaskEnd::Done { answer, receipt, earlier, touched },
        KeptAnswer::Aborted(why) => TaskEnd::Aborted { why, kept: Some(receipt) },
    }
}

/// The transaction did not commit, for a reason that is not the task's.
fn not_run(error: &Error) -> Ran {
    // What is none of these means that the transaction ended under the task's feet: it is as if its time were over.
    let end = if let Error::AttemptEnded { cause: Cause::UsedElsewhere { object, at }, .. } = error {
        TaskEnd::Elsewhere { object: *object, at: *at }
    } else if let Error::Busy(_) = error {
        TaskEnd::Busy { retry_after: RETRY_AFTER }
    } else if matches!(error, Error::Leaving | Error::Superseded) {
        TaskEnd::aborted(TaskAbort::Leaving)
    } else if let Error::NoRoom(full) = error {
        TaskEnd::aborted(TaskAbort::NoRoom(*full))
    } else if let Error::ClockOff { ahead_ms } = error {
        TaskEnd::aborted(TaskAbort::ClockOff { ahead_ms: *ahead_ms })
    } else {
        TaskEnd::aborted(abort_of(error).unwrap_or(TaskAbort::Deadline))
    };
    Ran { end, stable: true }
}

/// A task that runs here for another peer. If it is dropped before it has ended, its place is free; whoever sent it asks
/// again.
struct Running<H: Host> {
    host: H,
    run: TaskRun,
    end: Option<TaskEnd>,
}

impl<H: Host> Drop for Running<H> {
    fn drop(&mut self) {
        let end = self.end.take().unwrap_or_else(|| TaskEnd::aborted(TaskAbort::Leaving));
        let (from, ask) = (self.run.from, self.run.ask);
        self.host.step(|peer, now| peer.task_ended(now, from, ask, end));
    }
}

/// Runs what the core wants to be run here. Never fails, and survives a panic of the task.
pub async fn run_here<H: Host>(host: H, handlers: Arc<Handlers<H>>, run: Run) {
    match run {
        Run::Task(run) => run_for_other(host, handlers, run).await,
        Run::Schedule(run) => run_scheduled(host, handlers, run).await,
    }
}

/// Runs a task that another peer has sent, and tells that peer how it ended.
async fn run_for_other<H: Host>(host: H, handlers: Arc<Handlers<H>>, run: TaskRun) {
    let mut running = Running { host, run, end: None };
    // A request that has left its caller may be there more than once.
    let ran = run_once(&running.host, &handlers, &running.run.request, Copies::Now).await;
    running.end = Some(ran.end);
}
