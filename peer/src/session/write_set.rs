//! What a transaction has written so far, encoded. It reaches the core in the commit step only.

use super::error::{Error, Result};
use crate::steps::TxnWrites;
use driftmesh_model::limits::{TRANSACTION_BYTES_MAX, TRANSACTION_OBJECTS_MAX, WRITE_OVERHEAD_BYTES};
use driftmesh_model::{ObjectId, SmallMap, Value};
use driftmesh_object_store::{ScheduleChange, Schedules, TaskOutcome, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One object's state in the write set.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// Lent out by `get_mut`; what it was before.
    Lent(Option<Pending>),
    /// Written.
    Written(Pending),
}

/// A write that is not committed yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) value: Option<Value>,
    pub(super) creates: bool,
}

impl Pending {
    fn length(&self) -> usize {
        self.value.as_ref().map_or(0, Value::len)
    }
}

#[derive(Debug, Default)]
struct Inner {
    slots: SmallMap<ObjectId, Slot>,
    bytes: usize,
    /// The first error of a guard that was dropped and could not give back its value.
    failed: Option<Error>,
    /// What becomes of a task with this attempt, if it commits.
    outcome: Option<Box<TaskOutcome>>,
    /// What it changes of schedules, one after the other.
    schedules: Vec<ScheduleChange>,
}

/// The write set of one attempt.
#[derive(Debug, Default)]
pub(super) struct WriteSet {
    inner: Mutex<Inner>,
}

impl WriteSet {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change below is complete before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pending write of an object, if there is one.
    pub(super) fn pending(&self, object: ObjectId) -> Result<Option<Pending>> {
        match self.lock().slots.get(&object) {
            None => Ok(None),
            Some(Slot::Written(pending)) => Ok(Some(pending.clone())),
            Some(Slot::Lent(_)) => Err(Error::GuardHeld { object }),
        }
    }

    /// Marks an object as lent out. Returns its pending value, or what `read` gives if this transaction has not
    /// written it; `None` if `read` gives nothing, and nothing is lent then.
    pub(super) fn lend(
        &self,
        object: ObjectId,
        read: impl FnOnce() -> Result<Option<Option<Value>>>,
    ) -> Result<Option<Option<Value>>> {
        let mut inner = self.lock();
        let Some(slot) = inner.slots.get_mut(&object) else {
            let Some(read) = read()? else { return Ok(None) };
            inner.slots.insert(object, Slot::Lent(None));
            return Ok(Some(read));
        };
        // Two lenders at once: the second must not undo what the first gives back.
        let Slot::Written(pending) = slot else { return Err(Error::GuardHeld { object }) };
        let (value, length) = (pending.value.clone(), pending.length());
        let pending = Pending { value: pending.value.take(), creates: pending.creates };
        *slot = Slot::Lent(Some(pending));
        inner.bytes -= length;
        Ok(Some(value))
    }

    /// Takes an object back: with a new value, or unchanged.
    pub(super) fn give_back(&self, object: ObjectId, value: Option<Result<Value>>) {
        let mut inner = self.lock();
        let Inner { slots, bytes, failed, .. } = &mut *inner;
        let Some(slot) = slots.get_mut(&object) else { return };
        let Slot::Lent(before) = slot else { return };
        let before = before.take();
        let written = match value {
            None => before,
            Some(Ok(value)) => {
                Some(Pending { value: Some(value), creates: before.is_some_and(|pending| pending.creates) })
            }
            Some(Err(error)) => {
                failed.get_or_insert(error);
                before
            }
        };
        match written {
            Some(pending) => {
                *bytes += pending.length();
                *slot = Slot::Written(pending);
            }
            None => {
                slots.remove(&object);
            }
        }
    }

    /// Notes a write.
    pub(super) fn write(&self, object: ObjectId, value: Option<Value>, creates: bool) -> Result<()> {
        let mut inner = self.lock();
        if matches!(inner.slots.get(&object), Some(Slot::Lent(_))) {
            return Err(Error::GuardHeld { object });
        }
        let creates = creates || matches!(inner.slots.get(&object), Some(Slot::Written(pending)) if pending.creates);
        inner.put(object, Pending { value, creates });
        inner.within_limits()
    }

    /// Sets what becomes of a task, if this attempt commits.
    pub(super) fn set_outcome(&self, outcome: TaskOutcome) {
        self.lock().outcome = Some(Box::new(outcome));
    }

    /// The schedules of an object as this attempt has changed them.
    pub(super) fn with_changes(&self, object: ObjectId, mut schedules: Schedules) -> Schedules {
        let inner = self.lock();
        let changes = inner.schedules.iter().filter(|change| change.object == object);
        for change in changes {
            schedules.apply(&change.step);
        }
        schedules
    }

    /// Notes a change of a schedule.
    pub(super) fn change_schedule(&self, change: ScheduleChange) -> Result<()> {
        let mut inner = self.lock();
        inner.bytes += change.cost();
        inner.schedules.push(change);
        inner.within_limits()
    }

    /// Takes everything for the commit.
    pub(super) fn take(&self) -> Result<TxnWrites> {
        let mut inner = self.lock();
        if let Some(error) = inner.failed.take() {
            return Err(error);
        }
        inner.within_limits()?;
        let writes = Vec::with_capacity(inner.slots.len());
        let (outcome, schedules) = (inner.outcome.take(), std::mem::take(&mut inner.schedules));
        let mut all = TxnWrites { writes, created: Vec::new(), outcome, schedules };
        for (object, slot) in std::mem::take(&mut inner.slots) {
            match slot {
                // Created and deleted again: it never was.
                Slot::Written(Pending { value: None, creates: true }) => {
                    all.schedules.retain(|change| change.object != object);
                }
                Slot::Written(Pending { value, creates }) => {
                    if creates {
                        all.created.push(object);
                    }
                    all.writes.push(Write { object, value });
                }
                Slot::Lent(_) => return Err(Error::GuardHeld { object }),
            }
        }
        Ok(all)
    }
}

impl Inner {
    fn put(&mut self, object: ObjectId, pending: Pending) {
        self.bytes += pending.length();
        if let Some(Slot::Written(former)) = self.slots.insert(object, Slot::Written(pending)) {
            self.bytes -= former.length();
        }
    }

    fn within_limits(&self) -> Result<()> {
        // R24: an entry that fits no message would never become stable.
        let bytes = self.bytes + self.slots.len() * WRITE_OVERHEAD_BYTES;
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(Error::TransactionTooLarge { bytes });
        }
        if self.slots.len().max(self.schedules.len()) > TRANSACTION_OBJECTS_MAX {
            return Err(Error::TooManyObjects);
        }
        Ok(())
    }
}
