//! How transactions begin, are tried again and end: admission, the locks that a retry takes first, failures, deadlines.
//!
//! Whatever ends an attempt, all that it held is free at once (R14), and its age stays (R12). It refuses to read, to lock for
//! the first time and to commit: `objects.rs` and `committing.rs` do.

use super::{Begin, RETRY_PAUSE, StepError, Stepped, stepped};
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_model::limits::{AGE_MAX, DEADLINE_MAX};
use driftmesh_model::{Micros, Now, ObjectId, SmallMap, Timestamp, TxnId, TxnTimestamp};
use driftmesh_txn::{Cause, Intent, RemoteRead, Status, TaskKind, Transaction};
use std::collections::BTreeSet;
use std::task::Poll;

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

    /// The first thing each step does.
    pub(super) fn enter(&mut self, now: Now, id: TxnId) -> Result<(), StepError> {
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

    /// Ends all transactions, snapshots included, all tasks and all occurrences of schedules: whoever ran them is gone.
    pub fn end_all(&mut self, now: Now) {
        for id in self.txns.iter().map(|txn| txn.id).collect::<Vec<_>>() {
            self.end(now, id);
        }
        self.end_all_tasks(now);
        self.end_all_occurrences(now);
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
    pub(super) fn remove_transaction(&mut self, id: TxnId) -> bool {
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
}
