//! One transaction: its age, its present attempt, what that has read and locked.

use crate::{Cause, TaskKind};
use driftmesh_model::{Micros, ObjectId, SmallMap, Timestamp, TxnId, TxnTimestamp, Value};
use std::collections::BTreeSet;

/// Where an attempt stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// It takes a retry's locks (R15) before its snapshot.
    Preparing,
    /// It has a snapshot and takes steps.
    Running,
    /// It ended; the transaction may be retried.
    Failed(Cause),
    /// The deadline passed; there is no further attempt.
    Expired,
}

/// How far an exclusive lock is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intent {
    /// Waited for: at the lock, or for the object to come here.
    Waiting,
    /// Held, but not yet compared with the snapshot.
    Held,
    /// Held, and no version is newer than the snapshot.
    Checked,
    /// There is no such object anywhere.
    Missing,
}

/// What a read of an object somewhere else gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RemoteRead {
    /// Asked for, not answered.
    Waiting,
    /// Answered: the value at the snapshot; `None` where it is deleted, or nowhere at all.
    Value(Option<Value>),
}

/// What an attempt has read of one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// When the version was committed; zero where there was none.
    pub commit: Timestamp,
    /// Set when the object was read elsewhere: such a read cannot be checked here again.
    pub remote: Option<RemoteRead>,
}

/// A transaction over all its attempts.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Its id at this peer.
    pub id: TxnId,
    /// Its age; kept over attempts.
    pub timestamp: TxnTimestamp,
    /// What kind of task it runs.
    pub kind: TaskKind,
    /// Where the present attempt stands.
    pub status: Status,
    /// What the present attempt reads at.
    pub snapshot: Timestamp,
    /// How many attempts were begun.
    pub attempt: u32,
    /// When it gives up, monotonic.
    pub deadline: Micros,
    /// Whether a timer watches the deadline: only once somebody waits.
    pub deadline_watched: bool,
    /// When it took its last step, monotonic.
    pub last_step: Micros,
    /// A pause before the next attempt, monotonic.
    pub not_before: Micros,
    /// What the attempt has read.
    pub reads: SmallMap<ObjectId, Read>,
    /// What the attempt has locked or waits to lock.
    pub intents: SmallMap<ObjectId, Intent>,
    /// What former attempts wrote or conflicted on: locked before the snapshot is taken (R15).
    pub lock_first: BTreeSet<ObjectId>,
    /// The object that was unavailable to the former attempt: waited for alone, without any lock (R14).
    pub unavailable: Option<ObjectId>,
    /// What it waited for when its deadline passed.
    pub waited: Option<Cause>,
    /// Objects pinned for it.
    pub pins: Vec<ObjectId>,
    /// Whether it has waited for a message in any attempt.
    pub awaited_message: bool,
    /// A fixed snapshot that only reads: it takes no locks and has no attempts.
    pub read_only: bool,
    /// Its snapshot may lie a little in the past, so that copies can answer.
    pub is_recent: bool,
    /// It runs a task: whoever submitted it learns what it touches.
    pub is_task: bool,
    /// It may end instead of fetching what is in much use elsewhere: its task goes there.
    pub may_move: bool,
    /// What its task came here for.
    pub came_for: Option<ObjectId>,
}

impl Transaction {
    /// Whether some step of it waits for something.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.intents.values().any(|intent| *intent == Intent::Waiting)
            || self.reads.values().any(|read| read.remote == Some(RemoteRead::Waiting))
    }

    /// Whether the attempt has seen anything of its peer's own group.
    #[must_use]
    pub fn has_read_here(&self) -> bool {
        !self.intents.is_empty() || self.reads.values().any(|read| read.remote.is_none())
    }

    /// Whether the attempt has asked others for what they see.
    #[must_use]
    pub fn has_read_elsewhere(&self) -> bool {
        self.reads.values().any(|read| read.remote.is_some())
    }
}
