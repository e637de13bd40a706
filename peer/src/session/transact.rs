//! The transaction loop: attempts of a closure until one commits, rejects, or the deadline passes.

use super::error::{Error, Result};
use super::fates::{Fate, settled_within};
use super::host::Host;
use super::tx::Tx;
use crate::steps::{Begin, Committed, StepError, TaskTies};
use driftmesh_model::{Micros, Timestamp};
use driftmesh_txn::{Cause, TaskKind};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// What a transaction may not notice of others that run at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Isolation {
    /// Snapshot isolation: all reads are of one snapshot, and no update is lost. Two transactions that each read what
    /// the other writes may both commit (write skew). Reads take no lock.
    #[default]
    Snapshot,
    /// As if all transactions that ask for it ran one after the other: no write skew among them. Every read takes the
    /// object's lock, and so fetches its ownership.
    Serializable,
}

/// How a transaction is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What kind of task it is: errors and metrics name it.
    pub kind: TaskKind,
    /// How long it may take, retries included; at most 60 s. Default 5 s.
    pub deadline: Micros,
    /// What it may not notice of others. Default [`Isolation::Snapshot`].
    pub isolation: Isolation,
    /// Whether it ends only when its commit is stable. Default: it ends at its commit.
    pub stable: bool,
}

impl Options {
    /// The defaults, for a kind of task.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        Self {
            kind: TaskKind::new(kind),
            deadline: Micros::from_millis(5_000),
            isolation: Isolation::Snapshot,
            stable: false,
        }
    }
}

/// A committed transaction: what its closure returned, and its receipt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done<T> {
    /// What the closure returned.
    pub value: T,
    /// The receipt, and how it went.
    pub committed: Committed,
}

/// The transaction, over all its attempts. Ends it when its future is dropped at any point.
struct Open<H: Host> {
    /// The present attempt.
    tx: Tx<H>,
    deadline: Micros,
    /// Why the last attempt ended.
    last: Option<Cause>,
    committed: bool,
}

impl<H: Host> Open<H> {
    /// Begins the next attempt.
    fn retry(&mut self) -> std::result::Result<(), StepError> {
        let id = self.tx.id();
        let cause = self.tx.host().step(|peer, now| {
            let cause = peer.failure_of(id).cloned();
            peer.retry(now, id).map(|()| cause)
        })?;
        self.last = cause.or(self.last.take());
        self.tx = self.tx.next_attempt();
        Ok(())
    }

    fn give_up(&mut self, error: StepError) -> Error {
        match error {
            StepError::Failed(cause @ Cause::UsedElsewhere { .. }) => match self.tx.kind() {
                Some(kind) => Error::AttemptEnded { kind, cause },
                None => Error::Ended,
            },
            StepError::Expired | StepError::Failed(_) => {
                let id = self.tx.id();
                let waited = self.tx.host().step(|peer, _| peer.waited_of(id).cloned());
                let (Some(kind), attempts) = (self.tx.kind(), self.tx.attempt()) else { return Error::Ended };
                Error::Deadline { kind, deadline: self.deadline, attempts, last: waited.or(self.last.take()) }
            }
            StepError::Missing(object) => Error::missing(self.tx.host(), object),
            StepError::TooManyObjects => Error::TooManyObjects,
            StepError::Busy => Error::Busy(StepError::Busy),
            StepError::Leaving => Error::Leaving,
            StepError::Superseded => Error::Superseded,
            StepError::ClockOff { ahead_ms } => Error::ClockOff { ahead_ms },
            StepError::NoRoom(full) => Error::NoRoom(full),
            StepError::Ended | StepError::NotIntended(_) | StepError::ReadOnly => Error::Ended,
        }
    }
}

impl<H: Host> Drop for Open<H> {
    fn drop(&mut self) {
        let id = self.tx.id();
        if !self.committed {
            self.tx.host().step(|peer, now| peer.end(now, id));
        }
    }
}

enum Attempt<T> {
    Done(T),
    Retry,
}

/// Runs a closure as a transaction. It may be called several times: an attempt that meets a conflict is retried.
///
/// Cancel safe: dropping the future before it is ready aborts the transaction.
///
/// # Errors
/// What the closure returned, `Deadline`, or a limit: nothing took effect then. With `Options::stable` also `Lost` and
/// `NotStable`, of a transaction that had committed.
pub fn transact<H, T, F, Fut>(host: H, options: Options, body: F) -> impl Future<Output = Result<Done<T>>>
where
    H: Host,
    F: FnMut(Tx<H>) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    // A block that awaits it would hold it twice: futures are moved about by value.
    transact_for(host, options, None, body)
}

/// A task that a transaction runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForTask {
    /// When it was admitted, here or elsewhere (R12).
    pub(super) age: Timestamp,
    /// `None` if nobody learns from it, and it runs here.
    pub(super) ties: Option<TaskTies>,
}

/// The same for a task, if it is for one.
pub(super) async fn transact_for<H, T, F, Fut>(
    host: H,
    options: Options,
    task: Option<ForTask>,
    mut body: F,
) -> Result<Done<T>>
where
    H: Host,
    F: FnMut(Tx<H>) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let Options { kind, deadline, isolation, stable } = options;
    // The core forgets a transaction's kind when it commits.
    let stable = stable.then(|| kind.clone());
    let (age, task) = (task.map(|task| task.age), task.and_then(|task| task.ties));
    let begin = Begin { kind, deadline, age, read_only: false, recent: None, task };
    let begun = host.step(|peer, now| peer.begin(now, begin));
    let id = begun.map_err(Error::of_begin)?;
    let mut open = Open { tx: Tx::new(host, id, isolation), deadline, last: None, committed: false };
    loop {
        // The first attempt has its snapshot already.
        let ready = if open.tx.attempt() == 1 {
            Ok(())
        } else {
            poll_fn(|context| open.tx.host().poll_step(id, context, |peer, now| peer.prepare(now, id))).await
        };
        match ready {
            Ok(()) => {
                let result = {
                    let mut attempt = pin!(body(open.tx.clone()));
                    poll_fn(|context| poll_until_deadline(&open.tx, attempt.as_mut(), context)).await
                };
                let Some(result) = result else {
                    open.tx.close();
                    return Err(open.give_up(StepError::Expired));
                };
                if let Attempt::Done(done) = finish(&mut open, result).await? {
                    return match stable {
                        Some(kind) => until_stable(&open, kind, done).await,
                        None => Ok(done),
                    };
                }
            }
            Err(StepError::Failed(_)) => {}
            Err(error) => return Err(open.give_up(error)),
        }
        open.retry().map_err(|error| open.give_up(error))?;
    }
}

/// Commits what an attempt has done, or says why not.
async fn finish<H: Host, T>(open: &mut Open<H>, result: Result<T>) -> Result<Attempt<Done<T>>> {
    let tx = &open.tx;
    let id = tx.id();
    let result = match result {
        Ok(value) if tx.changes().are_some() => Box::pin(tx.settle_changes()).await.map(|()| value),
        result => result,
    };
    let value = match result {
        Ok(value) => value,
        Err(error) => {
            tx.close();
            // An attempt that has ended is retried, whatever the closure made of it.
            let host = tx.host();
            match poll_fn(|context| host.poll_step(id, context, |peer, now| peer.conclude(now, id))).await {
                Ok(()) => {}
                Err(StepError::Failed(_)) => return Ok(Attempt::Retry),
                Err(StepError::Expired) => return Err(open.give_up(StepError::Expired)),
                Err(_) if matches!(error, Error::Ended) => return Err(open.give_up(StepError::Expired)),
                Err(_) => {}
            }
            return Err(error);
        }
    };
    let mut writes = tx.finish()?;
    let host = tx.host();
    let committed = poll_fn(|context| host.poll_step(id, context, |peer, now| peer.commit(now, id, &mut writes))).await;
    match committed {
        Ok(committed) => {
            open.committed = true;
            Ok(Attempt::Done(Done { value, committed }))
        }
        Err(StepError::Failed(_)) => Ok(Attempt::Retry),
        Err(error) => Err(open.give_up(error)),
    }
}

/// Waits until a commit is stable, as long as the transaction might have taken.
async fn until_stable<H: Host, T>(open: &Open<H>, kind: TaskKind, mut done: Done<T>) -> Result<Done<T>> {
    let receipt = done.committed.receipt;
    if done.committed.stable {
        return Ok(done);
    }
    match settled_within(open.tx.host().clone(), receipt, open.deadline).await {
        Some(Fate::Stable { .. }) => {
            done.committed.stable = true;
            Ok(done)
        }
        Some(Fate::Lost { .. }) => Err(Error::Lost { kind, receipt }),
        Some(Fate::Unknown { .. }) | None => Err(Error::NotStable { kind, deadline: open.deadline, receipt }),
    }
}

/// Polls a closure's future, but not beyond the transaction's deadline: it may wait for something of its own.
fn poll_until_deadline<H: Host, T>(
    tx: &Tx<H>,
    attempt: Pin<&mut impl Future<Output = Result<T>>>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<T>>> {
    if let Poll::Ready(result) = attempt.poll(context) {
        return Poll::Ready(Some(result));
    }
    let id = tx.id();
    tx.host().poll_step(id, context, |peer, now| peer.deadline_passed(now, id)).map(|()| None)
}
