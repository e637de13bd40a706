//! The steps of a transaction: each is one call that answers at once, or says "not yet" and wakes it later.

use crate::metrics::RareEvent;
use crate::peer::RecentCommit;
use crate::rare_branches::RareBranch;
use crate::recent::Recent;
use crate::room::NoRoom;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_model::limits::{AGE_MAX, DEADLINE_MAX, TASK_TOLD_MAX, TRANSACTION_OBJECTS_MAX};
use driftmesh_model::{
    Epoch, GroupId, Lsn, Micros, Now, ObjectId, SmallMap, Term, Timestamp, TxnId, TxnTimestamp, Value,
};
use driftmesh_object_store::{Entry, ReadAt, ScheduleChange, TaskOutcome, Write};
use driftmesh_txn::{Cause, Holder, Intent, Other, Read, RemoteRead, Status, TaskKind, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::task::Poll;

/// Commits remembered so that a conflict can name the other side.
const RECENT_COMMITS_MAX: usize = 1_024;
/// Held commits that look again at once when more is stable.
const HELD_WOKEN_MAX: usize = 64;
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

fn stepped<T>(result: Result<Option<T>, StepError>) -> Stepped<T> {
    match result {
        Ok(Some(value)) => Poll::Ready(Ok(value)),
        Ok(None) => Poll::Pending,
        Err(error) => Poll::Ready(Err(error)),
    }
}

impl Peer {
    /// Begins a transaction. Its first attempt has its snapshot at once.
    ///
    /// # Errors
    /// `Busy` when too many are open, `Leaving` when the peer is about to go, `ClockOff` when its clock is wrong,
    /// `Superseded` when another process is this peer now.
    pub fn begin(&mut self, now: Now, begin: Begin) -> Result<TxnId, StepError> {
        self.now = now;
        if self.is_superseded {
            return Err(StepError::Superseded);
        }
        if self.draining {
            return Err(StepError::Leaving);
        }
        if let Some(refused) = self.refuse_begin_by_clock() {
            return Err(refused);
        }
        let now_here = self.clock.now(now.wall);
        let snapshot = match begin.recent {
            Some(recent) if begin.read_only => self.choose_snapshot(recent)?,
            Some(_) | None => now_here,
        };
        // R12: an age from the far past would win against everybody.
        let oldest = Timestamp::from_wall(Micros(now.wall.0.saturating_sub(AGE_MAX.0)));
        let time = begin.age.map_or(now_here, |age| age.clamp(oldest, now_here));
        let incarnation = self.config.incarnation.as_u64();
        self.metrics.begun += 1;
        let make = |id: TxnId| Transaction {
            id,
            timestamp: TxnTimestamp { time, incarnation, sequence: id.as_u64() },
            kind: begin.kind,
            status: Status::Running,
            snapshot,
            attempt: 1,
            deadline: now.mono.plus(begin.deadline.min(DEADLINE_MAX)),
            deadline_watched: false,
            last_step: now.mono,
            not_before: Micros(0),
            reads: SmallMap::default(),
            intents: std::mem::take(&mut self.spare_intents),
            lock_first: BTreeSet::new(),
            unavailable: None,
            waited: None,
            pins: Vec::new(),
            awaited_message: false,
            read_only: begin.read_only,
            is_recent: begin.read_only && begin.recent.is_some(),
            is_task: begin.task.is_some(),
            may_move: begin.task.is_some_and(|ties| ties.may_move),
            came_for: begin.task.and_then(|ties| ties.came_for),
        };
        self.txns.insert(make).ok_or(StepError::Busy)
    }

    /// The snapshot timestamp of a transaction's present attempt.
    #[must_use]
    pub fn snapshot_of(&self, id: TxnId) -> Option<Timestamp> {
        self.txns.get(id).map(|txn| txn.snapshot)
    }

    /// The age and attempt of a transaction.
    #[must_use]
    pub fn attempt_of(&self, id: TxnId) -> Option<(TxnTimestamp, u32)> {
        self.txns.get(id).map(|txn| (txn.timestamp, txn.attempt))
    }

    /// What kind of task a transaction runs.
    #[must_use]
    pub fn kind_of(&self, id: TxnId) -> Option<&TaskKind> {
        self.txns.get(id).map(|txn| &txn.kind)
    }

    /// Why a transaction's present attempt ended, if it did and can be retried.
    #[must_use]
    pub fn failure_of(&self, id: TxnId) -> Option<&Cause> {
        match &self.txns.get(id)?.status {
            Status::Failed(cause) => Some(cause),
            Status::Preparing | Status::Running | Status::Expired => None,
        }
    }

    /// Draws a new object id. It is unique, and nobody else knows it before it is told.
    pub fn new_object_id(&mut self) -> ObjectId {
        self.ids_drawn += 1;
        let mut hasher = blake3::Hasher::new_keyed(&self.config.seed);
        hasher.update(&self.ids_drawn.to_be_bytes());
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        ObjectId::from_u128(u128::from_be_bytes(bytes))
    }

    /// The first thing each step does.
    fn enter(&mut self, now: Now, id: TxnId) -> Result<(), StepError> {
        self.now = now;
        let txn = self.txns.get_mut(id).ok_or(StepError::Ended)?;
        txn.last_step = now.mono;
        if self.is_superseded {
            return Err(StepError::Superseded);
        }
        if now.mono >= txn.deadline && txn.status != Status::Expired {
            self.expire(id);
            return Err(StepError::Expired);
        }
        match &txn.status {
            Status::Preparing | Status::Running => Ok(()),
            Status::Failed(cause) => Err(StepError::Failed(cause.clone())),
            Status::Expired => Err(StepError::Expired),
        }
    }

    /// Makes a retry ready: takes the locks of what former attempts wrote or conflicted on, then the snapshot (R15).
    pub fn prepare(&mut self, now: Now, id: TxnId) -> Stepped<()> {
        stepped(self.try_prepare(now, id))
    }

    fn try_prepare(&mut self, now: Now, id: TxnId) -> Result<Option<()>, StepError> {
        self.enter(now, id)?;
        let txn = self.txns.get(id).ok_or(StepError::Ended)?;
        if txn.status == Status::Running {
            return Ok(Some(()));
        }
        if txn.not_before > now.mono {
            self.timers.set(txn.not_before, Timer::Wake(id));
            return Ok(None);
        }
        // R15: the locks come before the snapshot, so a retry can fail only on an object it had not met before.
        if !self.broken(Sabotage::LockFirst) {
            // R14: what was unavailable is waited for without holding anything.
            if let Some(missing) = txn.unavailable
                && !self.take_locks(id, &[missing])?
            {
                return Ok(None);
            }
            let txn = self.txns.get(id).ok_or(StepError::Ended)?;
            let objects: Vec<ObjectId> = txn.lock_first.iter().copied().collect();
            if !self.take_locks(id, &objects)? {
                return Ok(None);
            }
        }
        let snapshot = self.clock.now(now.wall);
        let txn = self.txns.get_mut(id).ok_or(StepError::Ended)?;
        txn.snapshot = snapshot;
        txn.status = Status::Running;
        for intent in txn.intents.values_mut() {
            if *intent == Intent::Held {
                *intent = Intent::Checked;
            }
        }
        Ok(Some(()))
    }

    /// Reads an object at the attempt's snapshot. Takes no lock. May be called again until it answers.
    pub fn read(&mut self, now: Now, id: TxnId, object: ObjectId) -> Stepped<ValueRead> {
        stepped(self.try_read(now, id, object))
    }

    fn try_read(&mut self, now: Now, id: TxnId, object: ObjectId) -> Result<Option<ValueRead>, StepError> {
        self.enter(now, id)?;
        let txn = self.txns.get(id).ok_or(StepError::Ended)?;
        let (snapshot, read_only, is_recent) = (txn.snapshot, txn.read_only, txn.is_recent);
        // What is locked cannot change any more; the lock is what keeps the read repeatable.
        if txn.intents.get(&object) == Some(&Intent::Checked)
            && let Some(stored) = self.group.owned(object)
        {
            let newest = stored.chain.newest();
            return Ok(Some(ValueRead { commit: newest.commit, value: newest.value.clone() }));
        }
        match txn.reads.get(&object) {
            Some(Read { commit, remote: Some(RemoteRead::Value(value)) }) => {
                return Ok(Some(ValueRead { commit: *commit, value: value.clone() }));
            }
            Some(Read { remote: Some(RemoteRead::Waiting), .. } | Read { remote: None, .. }) => {}
            None if txn.reads.len() >= TRANSACTION_OBJECTS_MAX => {
                return Err(StepError::TooManyObjects);
            }
            None => {}
        }
        let Some(read) = self.read_here(object, snapshot) else {
            return self.read_not_here(id, object, snapshot);
        };
        if read_only {
            if !self.own_window_covers(snapshot, id) {
                if self.window_is_late(id) {
                    let cause = Cause::Unavailable { object };
                    self.fail(id, cause.clone());
                    return Err(StepError::Failed(cause));
                }
                self.watch_deadline(id);
                return Ok(None);
            }
            self.window_waits.remove(&id);
            self.snapshots_here.insert(id);
            self.metrics.reads_own += u64::from(is_recent);
        }
        let read = match read {
            Ok(read) => read,
            Err(cause) => {
                self.fail(id, cause.clone());
                return Err(StepError::Failed(cause));
            }
        };
        if let Some(txn) = self.txns.get_mut(id) {
            txn.reads.insert(object, Read { commit: read.commit, remote: None });
        }
        Ok(Some(read))
    }

    /// Reads an object that is not this peer's: a copy answers if it can and may, else its owner is asked.
    fn read_not_here(
        &mut self,
        id: TxnId,
        object: ObjectId,
        snapshot: Timestamp,
    ) -> Result<Option<ValueRead>, StepError> {
        let Some(txn) = self.txns.get(id) else { return Err(StepError::Ended) };
        let is_asked = txn.reads.get(&object).is_some_and(|read| read.remote == Some(RemoteRead::Waiting));
        if txn.is_recent && !is_asked {
            match self.read_copy(object, snapshot) {
                Some(Ok(read)) => {
                    if let Some(txn) = self.txns.get_mut(id) {
                        let remote = Some(RemoteRead::Value(read.value.clone()));
                        txn.reads.insert(object, Read { commit: read.commit, remote });
                    }
                    return Ok(Some(read));
                }
                Some(Err(cause)) => {
                    self.fail(id, cause.clone());
                    return Err(StepError::Failed(cause));
                }
                None => self.metrics.reads_elsewhere += 1,
            }
        }
        self.read_elsewhere(id, object, snapshot);
        Ok(None)
    }

    /// What a snapshot sees of an object, if it is here.
    fn read_here(&mut self, object: ObjectId, snapshot: Timestamp) -> Option<Result<ValueRead, Cause>> {
        // The common case without any copying of versions.
        if let Some(stored) = self.group.owned(object)
            && let ReadAt::Version(version) = stored.chain.read_at(snapshot)
        {
            return Some(Ok(ValueRead { commit: version.commit, value: version.value.clone() }));
        }
        let (_, seen) = self.seen_here(object, snapshot)?;
        Some(self.read_of(object, seen))
    }

    /// What an owner's answer means to a transaction. One that comes too early or too late needs another snapshot.
    pub(crate) fn read_of(&mut self, object: ObjectId, seen: crate::Seen) -> Result<ValueRead, Cause> {
        match seen {
            crate::Seen::Version { commit, value } => Ok(ValueRead { commit, value }),
            crate::Seen::NotYetCreated => {
                self.metrics.note(RareEvent::CreatedLater);
                Err(Cause::CreatedLater { object })
            }
            crate::Seen::TooOld => {
                self.metrics.note(RareEvent::SnapshotTooOld);
                Err(Cause::SnapshotTooOld { object })
            }
        }
    }

    fn read_elsewhere(&mut self, id: TxnId, object: ObjectId, snapshot: Timestamp) {
        if let Some(txn) = self.txns.get_mut(id) {
            let waiting = Read { commit: Timestamp::ZERO, remote: Some(RemoteRead::Waiting) };
            txn.reads.insert(object, waiting);
            txn.awaited_message = true;
        }
        self.watch_deadline(id);
        self.want_read(object, snapshot, id);
    }

    /// Takes the exclusive locks of objects, fetching their masters where need be, and makes sure that none has a
    /// version newer than the snapshot. May be called again until it answers.
    pub fn intend(&mut self, now: Now, id: TxnId, objects: &[ObjectId]) -> Stepped<()> {
        stepped(self.try_intend(now, id, objects))
    }

    /// `intend` and `read` of one object as one step: the way of a `get_mut`.
    pub fn lock_and_read(&mut self, now: Now, id: TxnId, object: ObjectId) -> Stepped<ValueRead> {
        stepped(self.try_lock_and_read(now, id, object))
    }

    /// The read of a serializable transaction: what it has read is locked until it commits, and absence stays (R16).
    pub fn read_locked(&mut self, now: Now, id: TxnId, object: ObjectId) -> Stepped<ValueRead> {
        if self.broken(Sabotage::Serializable) {
            return self.read(now, id, object);
        }
        self.lock_and_read(now, id, object)
    }

    fn try_lock_and_read(&mut self, now: Now, id: TxnId, object: ObjectId) -> Result<Option<ValueRead>, StepError> {
        self.enter(now, id)?;
        if let Some(read) = self.lock_and_read_at_hand(id, object) {
            return Ok(Some(read));
        }
        match self.try_intend(now, id, &[object])? {
            Some(()) => self.try_read(now, id, object),
            None => Ok(None),
        }
    }

    /// The common case of `lock_and_read` in one look-up of each kind: the object is here, nobody else wants it, and
    /// its newest version is in the snapshot. `None` when anything is different; nothing has happened then.
    ///
    /// It takes no time: it goes by that of this peer's last step. A deadline that has passed since shows in the next
    /// step that takes the time, at the latest in the commit (R15); who has pins always takes the time (R14).
    pub fn lock_and_read_at_hand(&mut self, id: TxnId, object: ObjectId) -> Option<ValueRead> {
        let newest = self.group.owned(object)?.chain.newest();
        let txn = self.txns.get_mut(id)?;
        let plain = txn.status == Status::Running && !txn.read_only && newest.commit <= txn.snapshot;
        if !plain || !txn.pins.is_empty() || self.now.mono >= txn.deadline {
            return None;
        }
        if txn.intents.contains_key(&object) || txn.intents.len() >= TRANSACTION_OBJECTS_MAX {
            return None;
        }
        let holder = Holder { txn: id, timestamp: txn.timestamp };
        if !self.locks.acquire_if_free(object, holder) {
            return None;
        }
        txn.intents.insert(object, Intent::Checked);
        Some(ValueRead { commit: newest.commit, value: newest.value.clone() })
    }

    fn try_intend(&mut self, now: Now, id: TxnId, objects: &[ObjectId]) -> Result<Option<()>, StepError> {
        self.enter(now, id)?;
        let txn = self.txns.get(id).ok_or(StepError::Ended)?;
        if txn.read_only {
            return Err(StepError::ReadOnly);
        }
        if objects.len() > TRANSACTION_OBJECTS_MAX {
            return Err(StepError::TooManyObjects);
        }
        if !self.take_locks(id, objects)? {
            return Ok(None);
        }
        for object in objects {
            self.check_newest(id, *object)?;
        }
        Ok(Some(()))
    }

    /// Takes the locks of objects that are changed whatever they are, and gives their newest values: of those that the attempt
    /// has read, only if nothing is newer than that. May be called again until it answers.
    pub fn lock_newest(&mut self, now: Now, id: TxnId, objects: &[ObjectId]) -> Stepped<Vec<Option<Value>>> {
        stepped(self.try_lock_newest(now, id, objects))
    }

    fn try_lock_newest(
        &mut self,
        now: Now,
        id: TxnId,
        objects: &[ObjectId],
    ) -> Result<Option<Vec<Option<Value>>>, StepError> {
        self.enter(now, id)?;
        if !self.take_locks(id, objects)? {
            return Ok(None);
        }
        let mut newest = Vec::with_capacity(objects.len());
        for object in objects {
            let Some(txn) = self.txns.get_mut(id) else { return Err(StepError::Ended) };
            if txn.reads.get(object).is_some() {
                self.check_newest(id, *object)?;
            } else {
                // Nothing of it was seen, so nothing of it can have changed. The lock keeps it as it is.
                txn.intents.insert(*object, Intent::Checked);
            }
            newest.push(self.group.owned(*object).and_then(|stored| stored.chain.newest().value.clone()));
        }
        Ok(Some(newest))
    }

    /// Compares a locked object with the snapshot, moving the snapshot forward if need be and possible.
    fn check_newest(&mut self, id: TxnId, object: ObjectId) -> Result<(), StepError> {
        let txn = self.txns.get(id).ok_or(StepError::Ended)?;
        if txn.intents.get(&object) != Some(&Intent::Held) {
            return Ok(());
        }
        let newest = self.group.owned(object).map_or(Timestamp::ZERO, |stored| stored.chain.newest().commit);
        if newest > txn.snapshot && !self.move_snapshot_forward(id) {
            self.metrics.note(RareEvent::Conflict);
            let by = self.recent_commits.iter().rev().find(|recent| recent.commit == newest);
            let by = by.map(|recent| Other { timestamp: recent.timestamp, kind: recent.kind.clone() });
            let cause = Cause::Conflict { object, newer: newest, by };
            self.fail(id, cause.clone());
            return Err(StepError::Failed(cause));
        }
        if let Some(txn) = self.txns.get_mut(id) {
            txn.intents.insert(object, Intent::Checked);
        }
        Ok(())
    }

    /// Moves an attempt's snapshot to now, if everything it has read is unchanged there. What was read elsewhere
    /// cannot be checked here.
    fn move_snapshot_forward(&mut self, id: TxnId) -> bool {
        let later = self.clock.now(self.now.wall);
        let Some(txn) = self.txns.get(id) else { return false };
        let unchanged = txn.reads.iter().all(|(object, read)| {
            read.remote.is_none()
                && self.group.owned(*object).is_some_and(|stored| match stored.chain.read_at(later) {
                    ReadAt::Version(version) => version.commit == read.commit,
                    ReadAt::NotYetCreated | ReadAt::TooOld(_) => false,
                })
        });
        if unchanged {
            self.metrics.note(RareEvent::SnapshotMovedForward);
            if let Some(txn) = self.txns.get_mut(id) {
                txn.snapshot = later;
            }
        }
        unchanged
    }

    /// R13: Running becomes Committed in this one step. Before it a wound wins; after it nothing can. "Not yet" while too
    /// much is unstable (R10); the writes are taken only when it commits. May be called again until it answers.
    ///
    /// # Errors
    /// When the attempt has ended, or a write is not covered by a lock; nothing is written then.
    pub fn commit(&mut self, now: Now, id: TxnId, txn_writes: &mut TxnWrites) -> Stepped<Committed> {
        stepped(self.try_commit(now, id, txn_writes))
    }

    fn try_commit(&mut self, now: Now, id: TxnId, txn_writes: &mut TxnWrites) -> Result<Option<Committed>, StepError> {
        match self.enter(now, id) {
            Err(StepError::Failed(_)) if self.broken(Sabotage::CommitPoint) => {}
            entered => entered?,
        }
        if !txn_writes.is_empty() {
            if self.group.is_retired() {
                return Err(StepError::Leaving);
            }
            // R24: before anything of it is done.
            self.refuse_growth(txn_writes)?;
            // R6: what was told here in another group is decided before anything builds on it in this one.
            if !self.former_leads_are_decided(id) {
                return Ok(None);
            }
            let waits = self.group.watermark() < self.group.tail() && self.rarely(RareBranch::HoldCommit);
            if waits || self.is_too_much_unstable() {
                self.hold_commit(id);
                return Ok(None);
            }
        }
        if txn_writes.is_empty() && !self.may_stand_together(id) {
            return Ok(None);
        }
        self.commit_now(id, std::mem::take(txn_writes)).map(Some)
    }

    /// R8: whether what a transaction that only read saw here may stand beside what it, or one before it, saw elsewhere. A
    /// window that covers its snapshot is journalled, and its receipt says up to there: if this peer leads no more, it is
    /// lost as the window is. What was read here alone does not wait for that: it is a past that was true.
    fn may_stand_together(&mut self, id: TxnId) -> bool {
        let Some(txn) = self.txns.get(id) else { return true };
        let (here, elsewhere) = (txn.has_read_here(), txn.has_read_elsewhere());
        let snapshot = txn.snapshot;
        if txn.read_only || !here || self.window_needs(self.group.id(), snapshot).is_some() || !elsewhere {
            return true;
        }
        self.timers.set(self.now.mono.plus(RETRY_PAUSE), Timer::Wake(id));
        self.watch_deadline(id);
        false
    }

    /// Ends an attempt whose closure ended with an error. R8: an error has no receipt, so what was seen here beside what
    /// came from elsewhere is told only when it is certain that this peer leads its group. May be called again until it
    /// answers.
    ///
    /// # Errors
    /// When the attempt has ended, and what the closure made of it does not count.
    pub fn conclude(&mut self, now: Now, id: TxnId) -> Stepped<()> {
        stepped(self.try_conclude(now, id))
    }

    fn try_conclude(&mut self, now: Now, id: TxnId) -> Result<Option<()>, StepError> {
        self.enter(now, id)?;
        let txn = self.txns.get(id).ok_or(StepError::Ended)?;
        let (mixed, snapshot) = (txn.has_read_here() && txn.awaited_message, txn.snapshot);
        if mixed && !self.own_window_covers(snapshot, id) {
            self.watch_deadline(id);
            return Ok(None);
        }
        self.end(now, id);
        Ok(Some(()))
    }

    /// R10: what a crash may lose is bounded in time and bytes.
    fn is_too_much_unstable(&self) -> bool {
        if self.group.consensus().is_alone() || self.broken(Sabotage::BoundedLoss) {
            return false;
        }
        let (bytes, since) = self.group.consensus().unstable();
        let age = since.map_or(Micros(0), |since| self.now.mono.since(since));
        bytes >= self.config.unstable_bytes_max || age >= self.config.unstable_max
    }

    /// More is stable: commits that were held look again, the oldest first. Some at a time, while more is to become stable,
    /// which wakes the next ones: all of them at each step of the watermark would be the work of all for each of them.
    pub(crate) fn wake_held_commits(&mut self) {
        if self.group.watermark() >= self.group.tail() {
            self.wakes.extend(std::mem::take(&mut self.held_commits));
        } else if !self.is_too_much_unstable() {
            self.wakes.extend((0..HELD_WOKEN_MAX).map_while(|_| self.held_commits.pop_first()));
        }
    }

    /// Its locks are held, and a wound still works.
    fn hold_commit(&mut self, id: TxnId) {
        if self.held_commits.insert(id) {
            self.metrics.held_commits += 1;
            self.metrics.note(RareEvent::CommitHeld);
        }
        self.own_dirty = true;
        self.watch_deadline(id);
    }

    fn commit_now(&mut self, id: TxnId, txn_writes: TxnWrites) -> Result<Committed, StepError> {
        let wrote = !txn_writes.is_empty();
        let TxnWrites { writes, created, outcome, schedules } = txn_writes;
        let txn = self.txns.get(id).ok_or(StepError::Ended)?;
        if txn.read_only && wrote {
            return Err(StepError::ReadOnly);
        }
        // R21: the anchor is owned here and nobody else's until this has committed.
        if let Some(anchor) = outcome.as_ref().map(|outcome| outcome.anchor())
            && txn.intents.get(&anchor) != Some(&Intent::Checked)
        {
            return Err(StepError::NotIntended(anchor));
        }
        // R5: everything written is locked here, and so belongs to the one group that this peer leads.
        let uncovered = |object: &ObjectId| {
            txn.intents.get(object) != Some(&Intent::Checked) && created.binary_search(object).is_err()
        };
        let changed = writes.iter().map(|write| write.object);
        if !self.broken(Sabotage::CommitPoint)
            && let Some(object) = changed.chain(schedules.iter().map(|change| change.object)).find(uncovered)
        {
            return Err(StepError::NotIntended(object));
        }
        let all = TxnWrites { writes, created, outcome, schedules };
        let commit = if wrote { self.journal_commit(all) } else { txn.snapshot };
        let journal_tail = self.group.tail();
        let txn = self.txns.get(id).ok_or(StepError::Ended)?;
        if txn.deadline_watched {
            // It waited; a step of it that was dropped meanwhile may have left a waker with the host.
            self.wakes.push(id);
        }
        self.metrics.local_commits += u64::from(!txn.awaited_message);
        let receipt =
            Receipt { group: self.group.id(), term: self.group.term(), lsn: journal_tail, commit, txn: txn.timestamp };
        let stable = self.group.watermark() >= journal_tail;
        if !stable {
            self.told.unstable(receipt);
        }
        let touched = if txn.is_task { self.touched_by(id) } else { Vec::new() };
        self.note_touched(id);
        let Some(txn) = self.txns.get(id) else { return Err(StepError::Ended) };
        let (awaited_message, attempts) = (txn.awaited_message, txn.attempt);
        let committed = Committed { receipt, awaited_message, attempts, stable, touched };
        if wrote {
            self.remember_commit(id, commit);
        }
        self.remove_transaction(id);
        Ok(committed)
    }

    /// What a task's transaction has locked, as far as anybody learns it.
    fn touched_by(&self, id: TxnId) -> Vec<(ObjectId, Epoch)> {
        let Some(txn) = self.txns.get(id) else { return Vec::new() };
        let locked = txn.intents.iter().filter(|(_, intent)| **intent == Intent::Checked);
        let epoch = |object: ObjectId| self.group.owned(object).map(|stored| self.group.epoch_of(stored));
        let mut touched: Vec<_> = locked.filter_map(|(object, _)| Some((*object, epoch(*object)?))).collect();
        // What is used least is most its own.
        touched.sort_by_cached_key(|(object, _)| self.uses.of(*object).heat);
        touched.truncate(TASK_TOLD_MAX);
        touched
    }

    /// Remembers who committed, in exchange for the oldest that is remembered. The transaction is about to go.
    fn remember_commit(&mut self, id: TxnId, commit: Timestamp) {
        let Some(txn) = self.txns.get_mut(id) else { return };
        let full = self.recent_commits.len() >= RECENT_COMMITS_MAX;
        let kind = match self.recent_commits.pop_front_if(|_| full) {
            Some(oldest) => std::mem::replace(&mut txn.kind, oldest.kind),
            None => txn.kind.clone(),
        };
        self.recent_commits.push_back(RecentCommit { commit, timestamp: txn.timestamp, kind });
    }

    fn journal_commit(&mut self, all: TxnWrites) -> Timestamp {
        let TxnWrites { writes, created, outcome, schedules } = all;
        let commit = self.clock.tick(self.now.wall);
        // What leads back from a change of schedules goes like a superseded version.
        let changed = writes.len() + schedules.len();
        if self.members.is_empty() && self.txns.len() == 1 {
            // Nobody here or elsewhere reads at an older snapshot: what is superseded goes while it is at hand.
            self.group.set_prune_below(commit, self.config.version_bytes_max);
        }
        self.tell_written(&writes, &created);
        self.journal(Entry::Commit { commit, writes, outcome, schedules });
        for object in created {
            self.publish(object);
        }
        self.metrics.commits += 1;
        self.prune_versions(changed);
        commit
    }

    /// Begins the next attempt of a transaction whose last one failed. Call `prepare` until it is ready.
    ///
    /// # Errors
    /// `Expired` when the deadline passed, `Ended` when the transaction is not open, `Failed` when its task should run elsewhere.
    pub fn retry(&mut self, now: Now, id: TxnId) -> Result<(), StepError> {
        match self.enter(now, id) {
            Ok(()) | Err(StepError::Failed(_)) => {}
            Err(error) => return Err(error),
        }
        let mono = now.mono;
        let txn = self.txns.get_mut(id).ok_or(StepError::Ended)?;
        if let Status::Failed(cause @ Cause::UsedElsewhere { .. }) = &txn.status {
            return Err(StepError::Failed(cause.clone()));
        }
        if let Status::Failed(cause) = &txn.status {
            txn.not_before = match cause {
                Cause::Unavailable { .. } | Cause::ClockAhead { .. } => mono.plus(RETRY_PAUSE),
                Cause::Wounded { .. }
                | Cause::Conflict { .. }
                | Cause::SnapshotTooOld { .. }
                | Cause::CreatedLater { .. }
                | Cause::Deposed { .. }
                | Cause::Waited { .. }
                | Cause::UsedElsewhere { .. } => mono,
            };
            txn.status = Status::Preparing;
            txn.attempt = txn.attempt.saturating_add(1);
        }
        Ok(())
    }

    /// Lets a read-only snapshot read on at the same timestamp after a read of it failed.
    pub fn reopen_snapshot(&mut self, now: Now, id: TxnId) {
        self.now = now;
        if let Some(txn) = self.txns.get_mut(id)
            && txn.read_only
            && matches!(txn.status, Status::Failed(_))
        {
            txn.status = Status::Running;
        }
    }

    /// Ends all transactions, snapshots included: whoever ran them is gone.
    pub fn end_all(&mut self, now: Now) {
        for id in self.txns.iter().map(|txn| txn.id).collect::<Vec<_>>() {
            self.end(now, id);
        }
    }

    /// Ends a transaction without a commit, at any time: what it held is free.
    pub fn end(&mut self, now: Now, id: TxnId) {
        self.now = now;
        if self.remove_transaction(id) {
            // Its parked steps were dropped with it: the host must let go of their wakers.
            self.wakes.push(id);
        }
    }

    /// Returns whether it was open.
    fn remove_transaction(&mut self, id: TxnId) -> bool {
        self.give_up_everything(id);
        self.held_commits.remove(&id);
        self.snapshots_here.remove(&id);
        self.window_waits.remove(&id);
        self.fates.forget(id);
        let Some(txn) = self.txns.get(id) else { return false };
        for object in &txn.pins {
            self.locks.unpin(*object, &txn.timestamp);
            self.hand_overs.push_back(*object);
        }
        if txn.read_only {
            self.scans.forget(id);
            self.explaining.remove(&id);
        }
        if txn.deadline_watched {
            self.timers.clear(txn.deadline, Timer::Deadline(id));
        }
        self.txns.remove(id)
    }

    /// Ends the present attempt (the transaction keeps its age, and its pins).
    pub(crate) fn fail(&mut self, id: TxnId, cause: Cause) {
        let Some(txn) = self.txns.get(id) else { return };
        if !matches!(txn.status, Status::Running | Status::Preparing) {
            return;
        }
        self.metrics.aborts += 1;
        if let Cause::Conflict { object, .. } | Cause::Wounded { object, .. } = &cause {
            self.uses.note_contended(*object);
        }
        let lock_also = match &cause {
            Cause::Conflict { object, .. } | Cause::Wounded { object, .. } => Some(*object),
            Cause::SnapshotTooOld { .. }
            | Cause::CreatedLater { .. }
            | Cause::Waited { .. }
            | Cause::UsedElsewhere { .. }
            | Cause::Unavailable { .. }
            | Cause::Deposed { .. }
            | Cause::ClockAhead { .. } => None,
        };
        if let Some(txn) = self.txns.get_mut(id) {
            let missing = if let Cause::Unavailable { object } = &cause { Some(*object) } else { None };
            txn.unavailable = missing.filter(|missing| txn.intents.contains_key(missing));
            txn.lock_first.extend(
                txn.intents.iter().filter(|(_, intent)| **intent != Intent::Missing).map(|(object, _)| *object),
            );
            txn.lock_first.extend(lock_also);
        }
        self.give_up_everything(id);
        if let Some(txn) = self.txns.get_mut(id) {
            txn.status = Status::Failed(cause);
            self.wakes.push(id);
        }
    }

    /// The deadline of a transaction passed: what it held is free, whether or not anybody polls it.
    pub(crate) fn expire(&mut self, id: TxnId) {
        let waited = self.waits_for(id);
        self.give_up_everything(id);
        self.metrics.expired += 1;
        if let Some(txn) = self.txns.get_mut(id) {
            txn.status = Status::Expired;
            txn.waited = waited;
            self.wakes.push(id);
        }
    }

    /// What a transaction waited for when its deadline passed.
    #[must_use]
    pub fn waited_of(&self, id: TxnId) -> Option<&Cause> {
        self.txns.get(id)?.waited.as_ref()
    }

    /// Waits for the deadline of a transaction: R15 ends it there, whatever its closure waits for.
    pub fn deadline_passed(&mut self, now: Now, id: TxnId) -> Poll<()> {
        self.now = now;
        self.watch_deadline(id);
        match self.txns.get(id) {
            Some(txn) if txn.status != Status::Expired => Poll::Pending,
            Some(_) | None => Poll::Ready(()),
        }
    }

    pub(crate) fn deadline_due(&mut self, id: TxnId) {
        let expired =
            self.txns.get(id).is_some_and(|txn| txn.status != Status::Expired && self.now.mono >= txn.deadline);
        if expired {
            self.expire(id);
        }
    }

    /// R14: what somebody waits for, or waits in, ends at its deadline.
    pub(crate) fn watch_deadline(&mut self, id: TxnId) {
        if let Some(txn) = self.txns.get_mut(id)
            && !txn.deadline_watched
        {
            txn.deadline_watched = true;
            self.timers.set(txn.deadline, Timer::Deadline(id));
        }
    }

    /// Releases all locks and withdraws from all queues.
    fn give_up_everything(&mut self, id: TxnId) {
        let Some(txn) = self.txns.get_mut(id) else { return };
        let timestamp = txn.timestamp;
        let snapshot = txn.snapshot;
        let mut intents = std::mem::take(&mut txn.intents);
        let reads = std::mem::take(&mut txn.reads);
        for (object, intent) in intents.iter().map(|(object, intent)| (*object, *intent)) {
            match intent {
                Intent::Held | Intent::Checked => {
                    if self.locks.release(object, id) {
                        self.hand_overs.push_back(object);
                    }
                }
                Intent::Waiting => {
                    self.locks.withdraw(object, &timestamp);
                    self.withdraw_owner(object, &timestamp);
                }
                Intent::Missing => {}
            }
        }
        intents.clear();
        self.spare_intents = intents;
        for (object, read) in reads {
            if read.remote == Some(RemoteRead::Waiting) {
                self.withdraw_reader(object, snapshot, id);
            }
        }
    }
}
