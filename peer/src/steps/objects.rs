//! The steps of an attempt on objects: reads at its snapshot, and locks of what it is to write.
//!
//! It refuses to begin, to end and to commit anything: `attempts.rs` and `committing.rs` do.

use super::{StepError, Stepped, ValueRead, stepped};
use crate::metrics::RareEvent;
use crate::{Peer, Sabotage};
use driftmesh_model::limits::TRANSACTION_OBJECTS_MAX;
use driftmesh_model::{Now, ObjectId, Timestamp, TxnId, Value};
use driftmesh_object_store::ReadAt;
use driftmesh_txn::{Cause, Holder, Intent, Other, Read, RemoteRead, Status};

impl Peer {
    /// Draws a new object id. It is unique, and nobody else knows it before it is told.
    pub fn new_object_id(&mut self) -> ObjectId {
        self.ids_drawn += 1;
        let mut hasher = blake3::Hasher::new_keyed(&self.config.seed);
        hasher.update(&self.ids_drawn.to_be_bytes());
        // R11: a copy of this peer's memory that comes to life later has drawn as many.
        hasher.update(&self.now.wall.0.to_be_bytes());
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        ObjectId::from_u128(u128::from_be_bytes(bytes))
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
}
