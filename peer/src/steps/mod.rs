//! The steps of a transaction: what they take and give. Each is one call that answers at once, or says "not yet" and wakes it
//! later: `attempts.rs` begins and ends, `objects.rs` reads and locks, `committing.rs` commits.
//!
//! Here are plain values, which refuse to do anything.

mod attempts;
mod committing;
mod objects;

use crate::recent::Recent;
use crate::room::NoRoom;
use driftmesh_model::limits::TRANSACTION_OBJECTS_MAX;
use driftmesh_model::{Epoch, GroupId, Lsn, Micros, ObjectId, Term, Timestamp, TxnTimestamp, Value};
use driftmesh_object_store::{ScheduleChange, TaskOutcome, Write};
use driftmesh_txn::{Cause, TaskKind};
use serde::{Deserialize, Serialize};
use std::task::Poll;

/// Pause before the retry of an attempt that failed for a reason outside the transactions here.
const RETRY_PAUSE: Micros = Micros::from_millis(20);

/// How a transaction begins.
#[derive(Clone, Debug)]
pub struct Begin {
    /// What kind of task it runs.
    pub kind: TaskKind,
    /// How long it may take, attempts included; at most 60 s.
    pub deadline: Micros,
    /// When it was first admitted elsewhere, if it was; clamped to 60 s before this peer's clock (R12).
    pub age: Option<Timestamp>,
    /// A fixed snapshot that only reads.
    pub read_only: bool,
    /// If it only reads: its snapshot may lie so far in the past. `None` for now.
    pub recent: Option<Recent>,
    /// What it does for a task, if it does.
    pub task: Option<TaskTies>,
}

/// How a transaction is tied to the task that it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskTies {
    /// Its first attempt may end before it has done anything, if what it wants is in much use elsewhere: the task goes there.
    pub may_move: bool,
    /// The object that the task was sent here for.
    pub came_for: Option<ObjectId>,
}

/// The writes to be committed.
#[derive(Clone, Default, Debug)]
pub struct TxnWrites {
    /// The new values, each object once; `None` deletes.
    pub writes: Vec<Write>,
    /// Which of these objects the transaction creates, in the order of their ids. The ids were drawn from this peer,
    /// and nobody else knows them.
    pub created: Vec<ObjectId>,
    /// What becomes of a task with this commit. Its anchor is locked by the transaction (R21).
    pub outcome: Option<Box<TaskOutcome>>,
    /// What it changes of schedules, of objects that it locks or creates.
    pub schedules: Vec<ScheduleChange>,
}

impl TxnWrites {
    const fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.outcome.is_none() && self.schedules.is_empty()
    }
}

/// What a read gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValueRead {
    /// When the version was committed; zero where there is none.
    pub commit: Timestamp,
    /// The value; `None` where the object is deleted at the snapshot, or nowhere.
    pub value: Option<Value>,
}

/// What a caller gets at commit: where it stands in which journal. Its fate becomes stable or lost later (R22).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// The group whose journal holds the commit.
    pub group: GroupId,
    /// The leadership period it was made in.
    pub term: Term,
    /// Its position; for a transaction that only read, the highest position that it can depend on.
    pub lsn: Lsn,
    /// When its writes took effect; for a transaction that only read, its snapshot.
    pub commit: Timestamp,
    /// The transaction.
    pub txn: TxnTimestamp,
}

/// A finished transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Where the commit stands.
    pub receipt: Receipt,
    /// Whether the transaction waited for a message in any of its attempts.
    pub awaited_message: bool,
    /// How many attempts it took.
    pub attempts: u32,
    /// Whether it was stable when it was answered: then no crash can undo it.
    pub stable: bool,
    /// Of a task: what it locked, and at which epochs this peer's group owns that; what is used least comes first.
    pub touched: Vec<(ObjectId, Epoch)>,
}

/// Why a step could not be taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The attempt ended; the transaction can be retried.
    #[error("the attempt ended: {0}")]
    Failed(Cause),
    /// The deadline passed.
    #[error("the deadline passed")]
    Expired,
    /// There is no such object.
    #[error("there is no object {0}")]
    Missing(ObjectId),
    /// The transaction touches too many objects.
    #[error("a transaction may touch at most {TRANSACTION_OBJECTS_MAX} objects")]
    TooManyObjects,
    /// A write of an object whose lock the transaction does not hold: a mistake of the caller.
    #[error("object {0} is written without a write intent")]
    NotIntended(ObjectId),
    /// No such transaction is open.
    #[error("the transaction has ended")]
    Ended,
    /// Too many transactions are open.
    #[error("too many transactions are open at this peer; wait for some to end")]
    Busy,
    /// The peer is leaving.
    #[error("the peer is leaving the mesh")]
    Leaving,
    /// This peer's clock is wrong.
    #[error("this peer's clock is {ahead_ms} ms ahead of the median of the members' (negative: behind); set it right")]
    ClockOff {
        /// How far it is ahead, ms; negative when it is behind.
        ahead_ms: i64,
    },
    /// Another process is this peer now.
    #[error("a newer process uses the key of this peer, and the mesh counts on that one")]
    Superseded,
    /// There is no room for what it would create, enlarge or fetch.
    #[error(transparent)]
    NoRoom(NoRoom),
    /// A snapshot only reads.
    #[error("a snapshot only reads; write in a transaction")]
    ReadOnly,
}

/// What a step gives: an answer, or "not yet".
pub type Stepped<T> = Poll<Result<T, StepError>>;

/// An answer, or "not yet" where there is none.
fn stepped<T>(result: Result<Option<T>, StepError>) -> Stepped<T> {
    match result {
        Ok(Some(value)) => Poll::Ready(Ok(value)),
        Ok(None) => Poll::Pending,
        Err(error) => Poll::Ready(Err(error)),
    }
}
