//! The handle that a closure works with: typed reads and writes inside one attempt of a transaction.

use super::adding::Changes;
use super::error::{Error, Result};
use super::host::Host;
use super::mutable::Mutable;
use super::schedules::Occurrence;
use super::transact::Isolation;
use super::write_set::WriteSet;
use crate::steps::{StepError, Stepped, TxnWrites, ValueRead};
use crate::tasking::TaskFound;
use crate::{Peer, RareEvent, Sabotage};
use driftmesh_model::{Now, Object, ObjectId, Ref, TaskId, Timestamp, TxnId, Value, decode_object, encode_object};
use driftmesh_object_store::TaskOutcome;
use driftmesh_txn::TaskKind;
use std::any::Any;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

/// One attempt of a transaction. An owned, cheap handle; it must not outlive the closure it was given to.
///
/// Dropping the future of any of its operations is safe: nothing is half done. What an operation has locked or
/// fetched stays with the attempt.
pub struct Tx<H: Host> {
    inner: Arc<Inner<H>>,
}

struct Inner<H> {
    host: H,
    id: TxnId,
    attempt: u32,
    isolation: Isolation,
    writes: WriteSet,
    changes: Changes,
    ended: AtomicBool,
    /// If it runs what is due of a schedule.
    occurrence: OnceLock<Box<Occurrence>>,
}

impl<H> AsRef<WriteSet> for Inner<H> {
    fn as_ref(&self) -> &WriteSet {
        &self.writes
    }
}

impl<H: Host> Clone for Tx<H> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<H: Host> std::fmt::Debug for Tx<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tx").field("id", &self.inner.id).field("attempt", &self.inner.attempt).finish()
    }
}

/// Decodes a value once and shares the result with all who read the same version as the same type.
pub(super) fn decode_shared<T: Object>(object: ObjectId, value: &Value) -> Result<Arc<T>> {
    if let Some(decoded) = value.decoded().get()
        && let Ok(shared) = Arc::clone(decoded).downcast::<T>()
    {
        return Ok(shared);
    }
    let decoded = Arc::new(decode_object::<T>(value).map_err(|error| Error::Object { object, error })?);
    let shared: Arc<dyn Any + Send + Sync> = Arc::clone(&decoded) as _;
    // Another reader may have been faster, or reads it as another type: then this one keeps its own.
    let _ = value.decoded().set(shared);
    Ok(decoded)
}

impl<H: Host> Tx<H> {
    /// The first attempt of a transaction that has begun.
    pub(super) fn new(host: H, id: TxnId, isolation: Isolation) -> Self {
        Self::of_attempt(host, id, isolation, 1)
    }

    fn of_attempt(host: H, id: TxnId, isolation: Isolation, attempt: u32) -> Self {
        let (writes, changes, ended) = (WriteSet::default(), Changes::default(), AtomicBool::new(false));
        let occurrence = OnceLock::new();
        Self { inner: Arc::new(Inner { host, id, attempt, isolation, writes, changes, ended, occurrence }) }
    }

    /// The attempt after this one.
    pub(super) fn next_attempt(&self) -> Self {
        let Inner { host, id, attempt, isolation, .. } = &*self.inner;
        Self::of_attempt(host.clone(), *id, *isolation, attempt + 1)
    }

    pub(super) fn host(&self) -> &H {
        &self.inner.host
    }

    pub(super) fn id(&self) -> TxnId {
        self.inner.id
    }

    /// The kind of task, which errors name; the core keeps it while the transaction is open.
    pub(super) fn kind(&self) -> Option<TaskKind> {
        self.inner.host.step(|peer, _| peer.kind_of(self.inner.id).cloned())
    }

    /// Ends the handle and takes what was written.
    pub(super) fn finish(&self) -> Result<TxnWrites> {
        self.close();
        self.inner.writes.take()
    }

    /// Ends the handle.
    pub(super) fn close(&self) {
        self.inner.ended.store(true, Ordering::Release);
    }

    pub(super) fn changes(&self) -> &Changes {
        &self.inner.changes
    }

    /// What the transaction has made of an object, if it has written it.
    pub(super) fn pending(&self, object: ObjectId) -> Result<Option<Option<Value>>> {
        Ok(self.inner.writes.pending(object)?.map(|pending| pending.value))
    }

    pub(super) fn note_write(&self, object: ObjectId, value: Option<Value>) -> Result<()> {
        self.inner.writes.write(object, value, false)
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.inner.ended.load(Ordering::Acquire) { Err(Error::Ended) } else { Ok(()) }
    }

    fn error_of(&self, error: StepError) -> Error {
        match error {
            StepError::Failed(cause) => self.kind().map_or(Error::Ended, |kind| Error::AttemptEnded { kind, cause }),
            StepError::Missing(object) => self.missing(object),
            StepError::TooManyObjects => Error::TooManyObjects,
            StepError::Busy => Error::Busy(StepError::Busy),
            StepError::Leaving => Error::Leaving,
            StepError::Superseded => Error::Superseded,
            StepError::ClockOff { ahead_ms } => Error::ClockOff { ahead_ms },
            StepError::NoRoom(full) => Error::NoRoom(full),
            // The transaction loop replaces this by `Deadline`, which says more.
            StepError::Expired | StepError::Ended | StepError::NotIntended(_) | StepError::ReadOnly => Error::Ended,
        }
    }

    pub(super) async fn step<T>(&self, mut step: impl FnMut(&mut Peer, Now) -> Stepped<T>) -> Result<T> {
        self.check_open()?;
        let inner = &self.inner;
        poll_fn(|context| inner.host.poll_step(inner.id, context, |peer, now| step(peer, now)))
            .await
            .map_err(|error| self.error_of(error))
    }

    /// Reads an object at the attempt's snapshot, or as this transaction has changed it.
    ///
    /// # Errors
    /// `Dangling` or `ObjectLost`, a wrong type, or the end of the attempt.
    pub async fn get<T: Object>(&self, reference: Ref<T>) -> Result<Arc<T>> {
        let object = reference.id();
        if self.changes().are_some() {
            // Rare, and in a box: what every read awaits stays small.
            Box::pin(self.settle_changes_of(object)).await?;
        }
        if let Some(pending) = self.inner.writes.pending(object)? {
            let value = pending.value.ok_or(Error::Dangling { object })?;
            return decode_shared(object, &value);
        }
        let value = self.read(object).await?;
        decode_shared(object, &value.ok_or_else(|| self.missing(object))?)
    }

    pub(super) fn missing(&self, object: ObjectId) -> Error {
        Error::missing(&self.inner.host, object)
    }

    /// What the transaction sees of an object that it has not written.
    async fn read(&self, object: ObjectId) -> Result<Option<Value>> {
        let id = self.inner.id;
        match self.inner.isolation {
            Isolation::Snapshot => Ok(self.step(|peer, now| peer.read(now, id, object)).await?.value),
            Isolation::Serializable => match self.step(|peer, now| peer.read_locked(now, id, object)).await {
                Err(Error::Dangling { .. } | Error::ObjectLost { .. }) => Ok(None),
                read => Ok(read?.value),
            },
        }
    }

    /// Reads many objects; those that are elsewhere cost one round together.
    ///
    /// # Errors
    /// As [`Tx::get`], for the first object that fails.
    pub async fn get_many<T: Object>(&self, references: &[Ref<T>]) -> Result<Vec<Arc<T>>> {
        let objects: Vec<ObjectId> = references.iter().map(Ref::id).collect();
        let values = self.values(&objects).await?;
        let decode = |(object, value): (ObjectId, Option<Value>)| {
            decode_shared(object, &value.ok_or_else(|| self.missing(object))?)
        };
        objects.into_iter().zip(values).map(decode).collect()
    }

    /// The values of objects at the snapshot, or as this transaction has changed them; those that are elsewhere cost
    /// one round together.
    pub(super) async fn values(&self, objects: &[ObjectId]) -> Result<Vec<Option<Value>>> {
        let id = self.inner.id;
        if self.changes().are_some() {
            for object in objects {
                Box::pin(self.settle_changes_of(*object)).await?;
            }
        }
        // What this transaction created, the core does not know yet.
        let mut unwritten = Vec::with_capacity(objects.len());
        for object in objects {
            if self.inner.writes.pending(*object)?.is_none() {
                unwritten.push(*object);
            }
        }
        if self.inner.isolation == Isolation::Serializable {
            self.acquire(&unwritten).await?;
        }
        let reads = self.step(|peer, now| read_all(peer, now, id, &unwritten)).await?;
        let mut reads = unwritten.into_iter().zip(reads).peekable();
        let mut values = Vec::with_capacity(objects.len());
        for object in objects {
            let read = reads.next_if(|(read, _)| read == object).and_then(|(_, read)| read.value);
            // Looked at again: another branch of the closure may have written it meanwhile.
            values.push(match self.inner.writes.pending(*object)? {
                Some(pending) => pending.value,
                None => read,
            });
        }
        Ok(values)
    }

    /// Whether an object exists at the snapshot and for this transaction.
    ///
    /// # Errors
    /// The end of the attempt.
    pub async fn exists<T: Object>(&self, reference: Ref<T>) -> Result<bool> {
        let object = reference.id();
        if self.changes().are_some() {
            // Rare, and in a box: what every read awaits stays small.
            Box::pin(self.settle_changes_of(object)).await?;
        }
        if let Some(pending) = self.inner.writes.pending(object)? {
            return Ok(pending.value.is_some());
        }
        Ok(self.read(object).await?.is_some())
    }

    /// Takes an object to change it: locks it, and fetches its master if that is elsewhere.
    ///
    /// # Errors
    /// `Dangling` or `ObjectLost`, a wrong type, `GuardHeld`, or the end of the attempt.
    pub async fn get_mut<T: Object>(&self, reference: Ref<T>) -> Result<Mutable<T>> {
        let object = reference.id();
        if self.changes().are_some() {
            // Rare, and in a box: what every read awaits stays small.
            Box::pin(self.settle_changes_of(object)).await?;
        }
        // The core is never entered while something waits for a write set, so this order of locks is safe.
        let lent = match self.inner.writes.lend(object, || self.read_at_hand(object))? {
            Some(lent) => lent,
            None => {
                let read = self.lock_and_read(object).await?;
                // Another branch of the closure may have written it while this one waited for the read.
                self.inner.writes.lend(object, || Ok(Some(read)))?.flatten()
            }
        };
        self.lent(reference, lent)
    }

    /// Locks and reads an object if that takes no time.
    fn read_at_hand(&self, object: ObjectId) -> Result<Option<Option<Value>>> {
        self.check_open()?;
        let id = self.inner.id;
        let read = self.inner.host.step_at_hand(|peer| peer.lock_and_read_at_hand(id, object));
        Ok(read.map(|read| read.value))
    }

    pub(super) async fn lock_and_read(&self, object: ObjectId) -> Result<Option<Value>> {
        let id = self.inner.id;
        Ok(self.step(|peer, now| peer.lock_and_read(now, id, object)).await?.value)
    }

    /// Hands out what the write set has just lent.
    fn lent<T: Object>(&self, reference: Ref<T>, value: Option<Value>) -> Result<Mutable<T>> {
        let object = reference.id();
        let decoded = value
            .ok_or_else(|| self.missing(object))
            .and_then(|value| decode_object(&value).map_err(|error| Error::Object { object, error }));
        match decoded {
            Ok(value) => Ok(Mutable::lent(reference, value, Arc::clone(&self.inner) as _)),
            Err(error) => {
                self.inner.writes.give_back(object, None);
                Err(error)
            }
        }
    }

    /// Takes many objects of one type to change them; those that are elsewhere cost one round together.
    ///
    /// # Errors
    /// As [`Tx::get_mut`], for the first object that fails; `GuardHeld` if one is named twice.
    pub async fn get_mut_many<T: Object>(&self, references: &[Ref<T>]) -> Result<Vec<Mutable<T>>> {
        let objects: Vec<ObjectId> = references.iter().map(Ref::id).collect();
        self.acquire(&objects).await?;
        let values = self.values(&objects).await?;
        let lend = |(reference, value): (&Ref<T>, Option<Value>)| {
            let lent = self.inner.writes.lend(reference.id(), || Ok(Some(value)))?.flatten();
            self.lent(*reference, lent)
        };
        references.iter().zip(values).map(lend).collect()
    }

    /// Locks objects of any types and fetches their masters, in one round together; the `get_mut` of each then
    /// answers at once.
    ///
    /// # Errors
    /// `Dangling` or `ObjectLost`, or the end of the attempt.
    pub async fn acquire(&self, objects: &[ObjectId]) -> Result<()> {
        let id = self.inner.id;
        let elsewhere: Vec<ObjectId> = {
            let mut objects = objects.to_vec();
            let writes = &self.inner.writes;
            objects.retain(|object| !matches!(writes.pending(*object), Ok(Some(pending)) if pending.creates));
            objects
        };
        self.step(|peer, now| peer.intend(now, id, &elsewhere)).await
    }

    /// Replaces an object's value without reading it.
    ///
    /// # Errors
    /// `Dangling` or `ObjectLost`, a limit, or the end of the attempt.
    pub async fn put<T: Object>(&self, reference: Ref<T>, value: &T) -> Result<()> {
        self.write(reference, Some(value)).await
    }

    /// Deletes an object. References to it dangle from then on.
    ///
    /// # Errors
    /// `Dangling` or `ObjectLost`, or the end of the attempt.
    pub async fn delete<T: Object>(&self, reference: Ref<T>) -> Result<()> {
        self.write(reference, None).await
    }

    async fn write<T: Object>(&self, reference: Ref<T>, value: Option<&T>) -> Result<()> {
        let object = reference.id();
        if self.changes().are_some() {
            // Rare, and in a box: what every read awaits stays small.
            Box::pin(self.settle_changes_of(object)).await?;
        }
        let before = match self.inner.writes.pending(object)? {
            Some(pending) => pending.value,
            None => self.lock_and_read(object).await?,
        };
        before.ok_or_else(|| self.missing(object))?;
        let encoded = value.map(encode_object).transpose().map_err(|error| Error::Object { object, error })?;
        self.inner.writes.write(object, encoded, false)
    }

    /// Creates an object. The reference may be stored in others at once; it dangles if the transaction aborts.
    ///
    /// # Errors
    /// A limit, or the end of the transaction.
    pub fn create<T: Object>(&self, value: &T) -> Result<Ref<T>> {
        self.check_open()?;
        let object = self.inner.host.step(|peer, _| peer.new_object_id());
        let encoded = encode_object(value).map_err(|error| Error::Object { object, error })?;
        self.inner.writes.write(object, Some(encoded), true)?;
        Ok(Ref::from_id(object))
    }

    /// Most names in one directory bucket, as this peer is configured.
    pub(super) fn name_bucket_entries_max(&self) -> usize {
        self.inner.host.step(|peer, _| peer.config.name_bucket_entries_max)
    }

    pub(super) fn note(&self, event: RareEvent) {
        self.inner.host.step(|peer, _| peer.metrics.note(event));
    }

    /// Whether a rule is broken in this run: only ever in test builds.
    pub(super) fn is_broken(&self, rule: Sabotage) -> bool {
        self.inner.host.step(|peer, _| peer.broken(rule))
    }

    /// What an anchor that this attempt has locked says of a task (R21).
    pub(super) async fn task_seen(&self, task: TaskId) -> Result<TaskFound> {
        let id = self.inner.id;
        self.step(|peer, now| peer.task_seen(now, id, &task)).await
    }

    /// What it has written so far.
    pub(super) fn writes(&self) -> &WriteSet {
        &self.inner.writes
    }

    /// This attempt runs an occurrence of a schedule.
    pub(super) fn set_occurrence(&self, occurrence: Occurrence) {
        // An attempt runs one.
        let _ = self.inner.occurrence.set(Box::new(occurrence));
    }

    /// If this transaction runs what is due of a schedule: which, for when it was intended, and for how many occurrences it
    /// stands.
    #[must_use]
    pub fn occurrence(&self) -> Option<Occurrence> {
        self.inner.occurrence.get().map(|occurrence| **occurrence)
    }

    /// Sets what becomes of a task, if this attempt commits.
    pub(super) fn set_outcome(&self, outcome: TaskOutcome) {
        self.inner.writes.set_outcome(outcome);
    }

    /// Rejects the transaction: `return Err(tx.reject("not enough gold"))`. Nothing takes effect, no retry.
    pub fn reject(&self, reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::rejected(reason)
    }

    /// The time of the attempt's snapshot, milliseconds since the UNIX epoch. Closures take time from here, so that
    /// a retry and a simulation see the time they should.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.snapshot().wall().as_millis()
    }

    /// The attempt's snapshot timestamp.
    #[must_use]
    pub fn snapshot(&self) -> Timestamp {
        let id = self.inner.id;
        self.inner.host.step(|peer, _| peer.snapshot_of(id)).unwrap_or_default()
    }

    /// A random number. Closures take randomness from here, so that a simulation repeats.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "half of a random number is random")]
    pub fn random(&self) -> u64 {
        self.inner.host.step(|peer, _| peer.new_object_id().as_u128() as u64)
    }

    /// Which attempt this is; the first is 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner.attempt
    }
}

pub(super) fn read_all(peer: &mut Peer, now: Now, id: TxnId, objects: &[ObjectId]) -> Stepped<Vec<ValueRead>> {
    let mut reads = Vec::with_capacity(objects.len());
    let mut pending = false;
    for object in objects {
        match peer.read(now, id, *object) {
            Poll::Ready(Ok(read)) => reads.push(read),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => pending = true,
        }
    }
    if pending { Poll::Pending } else { Poll::Ready(Ok(reads)) }
}
