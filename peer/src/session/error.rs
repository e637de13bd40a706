//! What can go wrong for a user of transactions and snapshots: what happened, to what, and what to do.

use super::host::Host;
use super::names::NameError;
use super::schedules::ScheduleRefused;
use crate::ownership::SUBSCRIPTIONS_MAX;
use crate::room::NoRoom;
use crate::steps::{Receipt, StepError};
use crate::watching::{WATCHED_MAX, WATCHERS_MAX};
use driftmesh_model::limits::{TRANSACTION_BYTES_MAX, TRANSACTION_OBJECTS_MAX, WRITE_OVERHEAD_BYTES};
use driftmesh_model::{GroupId, Micros, ObjectError, ObjectId};
use driftmesh_txn::{Cause, TaskKind};

/// The result of an operation of a transaction or snapshot.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What became of a transaction that ended with an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing of it took effect.
    Aborted,
    /// It may have taken effect; ask by its receipt or task id.
    Unknown,
    /// It had taken effect, and a crash undid it.
    Lost,
}

/// An operation, a transaction or a snapshot failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The attempt has ended and will be retried: return this from the closure, as `?` does.
    #[error("this attempt of `{kind}` ended and will be retried: {cause}")]
    AttemptEnded {
        /// The kind of task.
        kind: TaskKind,
        /// Why the attempt ended: names the object, the other transaction and its kind of task.
        cause: Cause,
    },
    /// The deadline passed before the transaction could commit.
    #[error("`{kind}` did not commit within {} ms, after {attempts} attempts; the last one ended because {}", deadline.as_millis(), cause_text(last.as_ref()))]
    Deadline {
        /// The kind of task.
        kind: TaskKind,
        /// How long it was given.
        deadline: Micros,
        /// How many attempts were begun.
        attempts: u32,
        /// Why the last finished attempt ended.
        last: Option<Cause>,
    },
    /// A reference to an object that is deleted, was never committed, or is nowhere in the mesh.
    #[error("object {object} does not exist: it is deleted, or its creation never committed")]
    Dangling {
        /// The object.
        object: ObjectId,
    },
    /// The object was lost with its group, which an operator gave up because its members are gone for good.
    #[error("object {object} is lost: its group {group} was given up by an operator after all who held it were gone")]
    ObjectLost {
        /// The object.
        object: ObjectId,
        /// The group that it belonged to, as far as it is known.
        group: GroupId,
    },
    /// The object's bytes and the type it was used as do not fit.
    #[error("object {object}: {error}")]
    Object {
        /// The object.
        object: ObjectId,
        /// What does not fit.
        error: ObjectError,
    },
    /// The transaction writes too much.
    #[error(
        "the transaction writes {bytes} bytes, {WRITE_OVERHEAD_BYTES} beside its value for each object; the limit is \
         {TRANSACTION_BYTES_MAX}; split it"
    )]
    TransactionTooLarge {
        /// What it writes, bytes: encoded objects, and [`WRITE_OVERHEAD_BYTES`] for each.
        bytes: usize,
    },
    /// The transaction touches too many objects.
    #[error("a transaction may touch at most {TRANSACTION_OBJECTS_MAX} objects; split it")]
    TooManyObjects,
    /// The object is lent out by `get_mut` and not given back: drop the guard first.
    #[error("object {object} is lent out by an earlier get_mut; drop that guard first")]
    GuardHeld {
        /// The object.
        object: ObjectId,
    },
    /// The closure rejected the transaction: nothing of it took effect, and it is not retried.
    #[error("rejected: {0}")]
    Rejected(Box<dyn std::error::Error + Send + Sync>),
    /// The versions that the snapshot sees are no longer kept; take a new one.
    #[error(
        "the version of object {object} at the snapshot is no longer kept (they are kept for 5 s to 60 s, within a byte budget); take a new snapshot"
    )]
    SnapshotTooOld {
        /// The object.
        object: ObjectId,
    },
    /// The object was created after the snapshot.
    #[error("object {object} was created after the snapshot; take a new one to see it")]
    CreatedLater {
        /// The object.
        object: ObjectId,
    },
    /// A read of a snapshot failed for now.
    #[error("the snapshot's read failed for now: {0}")]
    SnapshotRead(Cause),
    /// The snapshot was open for more than 60 s.
    #[error("a snapshot may be open for 60 s at most; take a new one")]
    SnapshotExpired,
    /// The transaction has ended: its handle was kept longer than its closure ran.
    #[error("the transaction has ended; its handle must not outlive the closure")]
    Ended,
    /// Too many transactions are open, or too many wait for one object.
    #[error("the peer is busy: {0}")]
    Busy(StepError),
    /// This caller, one of several at its peer, has as much under way as it may. Nothing was begun.
    #[error("this caller has {most} transactions and tasks under way, the most it may have; await some of them first")]
    CallerBusy {
        /// So many it may have.
        most: usize,
    },
    /// This caller was told a provisional answer that did not stay, and has not heard of that yet; or it is not certain in time
    /// whether it stays. Nothing was begun: what it was about to do may rest on that answer.
    #[error(
        "what this caller was told of task `{name}` before it was stable did not stay, or is not certain; await what it settled to first"
    )]
    ToldOtherwise {
        /// The name of the task.
        name: String,
    },
    /// The peer is leaving the mesh.
    #[error("the peer is leaving the mesh")]
    Leaving,
    /// The objects that this peer holds take as much room as they may, and this would add to them. What makes them smaller
    /// or deletes some passes. A task goes to the peer that has what it wants (`mesh.submit`), and needs no room here.
    #[error(transparent)]
    NoRoom(NoRoom),
    /// Too many subscriptions to what this peer owns.
    #[error("{SUBSCRIPTIONS_MAX} subscriptions to ownership are open at this peer, the most there may be; drop one")]
    TooManySubscriptions,
    /// Too much is watched.
    #[error("{WATCHERS_MAX} watches of {WATCHED_MAX} objects together may be open at this peer; drop some")]
    TooManyWatches,
    /// The closure panicked where nobody could be told by the panic itself.
    #[error("the closure of `{kind}` panicked, nothing of it took effect: {message}")]
    Panicked {
        /// The kind of task.
        kind: TaskKind,
        /// What the panic said.
        message: String,
    },
    /// A newer process uses the key of this peer, and was admitted to the mesh: this one takes no part any more. Nothing
    /// took effect. Stop this process, and give each a key of its own.
    #[error(
        "a newer process uses the key of this peer, and the mesh counts on that one; stop this one, and give each a key of its own"
    )]
    Superseded,
    /// The runtime that ran the transaction was shut down before it ended.
    #[error("`{kind}` did not end before its runtime was shut down; nothing of it took effect")]
    RuntimeStopped {
        /// The kind of task.
        kind: TaskKind,
    },
    /// This peer's wall clock is more than 250 ms from the median of the members': until it is set right no transaction
    /// and no snapshot begins here.
    #[error(
        "this peer's clock is {ahead_ms} ms ahead of the median of the members' (negative: behind); set it right, for example by NTP"
    )]
    ClockOff {
        /// How far it is ahead, ms; negative when it is behind.
        ahead_ms: i64,
    },
    /// The name is bound already. Choose another, or use `rebind`.
    #[error("the name {name:?} is bound to object {by}; choose another name, or rebind it")]
    NameTaken {
        /// The name.
        name: String,
        /// What it is bound to; that object may be deleted.
        by: ObjectId,
    },
    /// No object can have such a name.
    #[error("{0}")]
    IllegalName(#[from] NameError),
    /// A directory bucket is gone, and with it the names that it kept.
    #[error(
        "directory bucket {bucket} is not in this mesh: the peer that had it was lost, and the names in it with it; they cannot be used until the mesh is founded anew"
    )]
    BucketMissing {
        /// The bucket.
        bucket: ObjectId,
    },
    /// A schedule cannot be made.
    #[error("object {object} cannot have such a schedule: {why}")]
    Schedule {
        /// The object.
        object: ObjectId,
        /// What to change.
        why: ScheduleRefused,
    },
    /// The transaction had committed, and a crash or a change of leader undid it before it was stable: run it again if it
    /// is still wanted.
    #[error("`{kind}` had committed, but was lost before it was stable: its group goes on without it")]
    Lost {
        /// The kind of task.
        kind: TaskKind,
        /// What it was told at its commit.
        receipt: Receipt,
    },
    /// The transaction had committed, and its deadline passed before it was stable.
    #[error("`{kind}` has committed, but was not stable within {} ms; ask for its fate by the receipt", deadline.as_millis())]
    NotStable {
        /// The kind of task.
        kind: TaskKind,
        /// How long it was given.
        deadline: Micros,
        /// What it was told at its commit.
        receipt: Receipt,
    },
    /// A peer that should be scanned cannot be reached.
    #[error("peer {0} cannot be reached")]
    PeerUnreachable(driftmesh_model::PeerId),
}

fn cause_text(cause: Option<&Cause>) -> String {
    cause.map_or_else(|| "it was still waiting".to_owned(), ToString::to_string)
}

impl Error {
    /// There is no such object: it never was or is deleted, or it was lost.
    pub(crate) fn missing<H: Host>(host: &H, object: ObjectId) -> Self {
        match host.step(|peer, _| peer.lost_with(object)) {
            Some(group) => Self::ObjectLost { object, group },
            None => Self::Dangling { object },
        }
    }

    /// Why a transaction or snapshot could not begin.
    pub(crate) fn of_begin(error: StepError) -> Self {
        match error {
            StepError::Leaving => Self::Leaving,
            StepError::Superseded => Self::Superseded,
            StepError::ClockOff { ahead_ms } => Self::ClockOff { ahead_ms },
            StepError::Failed(_)
            | StepError::Expired
            | StepError::Missing(_)
            | StepError::TooManyObjects
            | StepError::NotIntended(_)
            | StepError::Ended
            | StepError::Busy
            | StepError::NoRoom(_)
            | StepError::ReadOnly => Self::Busy(error),
        }
    }

    /// Rejects the transaction from inside the closure: nothing takes effect, no retry.
    pub fn rejected(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Rejected(error.into())
    }

    /// What the closure rejected the transaction with, if it is an `E`.
    #[must_use]
    pub fn rejection<E: std::error::Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::Rejected(error) => error.downcast_ref(),
            Self::AttemptEnded { .. }
            | Self::Deadline { .. }
            | Self::Dangling { .. }
            | Self::ObjectLost { .. }
            | Self::Object { .. }
            | Self::TransactionTooLarge { .. }
            | Self::TooManyObjects
            | Self::GuardHeld { .. }
            | Self::SnapshotTooOld { .. }
            | Self::CreatedLater { .. }
            | Self::SnapshotRead(_)
            | Self::SnapshotExpired
            | Self::Ended
            | Self::Busy(_)
            | Self::CallerBusy { .. }
            | Self::ToldOtherwise { .. }
            | Self::Leaving
            | Self::NoRoom(_)
            | Self::Superseded
            | Self::TooManySubscriptions
            | Self::TooManyWatches
            | Self::Panicked { .. }
            | Self::RuntimeStopped { .. }
            | Self::ClockOff { .. }
            | Self::NameTaken { .. }
            | Self::IllegalName(_)
            | Self::BucketMissing { .. }
            | Self::Schedule { .. }
            | Self::Lost { .. }
            | Self::NotStable { .. }
            | Self::PeerUnreachable(_) => None,
        }
    }

    /// What became of the transaction. Commits are local: an error before the commit means that nothing happened.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Lost { .. } => Outcome::Lost,
            Self::NotStable { .. } => Outcome::Unknown,
            Self::AttemptEnded { .. }
            | Self::Deadline { .. }
            | Self::Dangling { .. }
            | Self::ObjectLost { .. }
            | Self::Object { .. }
            | Self::TransactionTooLarge { .. }
            | Self::TooManyObjects
            | Self::GuardHeld { .. }
            | Self::Rejected(_)
            | Self::SnapshotTooOld { .. }
            | Self::CreatedLater { .. }
            | Self::SnapshotRead(_)
            | Self::SnapshotExpired
            | Self::Ended
            | Self::Busy(_)
            | Self::CallerBusy { .. }
            | Self::ToldOtherwise { .. }
            | Self::Leaving
            | Self::NoRoom(_)
            | Self::Superseded
            | Self::TooManySubscriptions
            | Self::TooManyWatches
            | Self::Panicked { .. }
            | Self::RuntimeStopped { .. }
            | Self::ClockOff { .. }
            | Self::NameTaken { .. }
            | Self::IllegalName(_)
            | Self::BucketMissing { .. }
            | Self::Schedule { .. }
            | Self::PeerUnreachable(_) => Outcome::Aborted,
        }
    }
}
