//! Transactions step by step, and whole small ones.

use super::world::Mesh;
use super::{amount, small};
use driftmesh_model::{Micros, Now, ObjectId, Timestamp, TxnId, TxnTimestamp, Value};
use driftmesh_object_store::Write;
use driftmesh_peer::{Begin, Cause, Committed, Peer, StepError, Stepped, TaskKind, TxnWrites, ValueRead};
use std::task::Poll;

/// A transaction of one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Txn {
    pub(crate) at: usize,
    pub(crate) id: TxnId,
}

/// What a step gave; fails the test if it says "not yet".
pub(crate) fn ready<T>(stepped: Stepped<T>) -> Result<T, StepError> {
    match stepped {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the step is not ready"),
    }
}

fn to_write(writes: &[(ObjectId, Option<Value>)]) -> TxnWrites {
    let write = |(object, value): &(ObjectId, Option<Value>)| Write { object: *object, value: value.clone() };
    TxnWrites { writes: writes.iter().map(write).collect(), created: Vec::new(), outcome: None, schedules: Vec::new() }
}

impl Mesh {
    /// Begins a transaction with 5 s to go.
    pub(crate) fn begin(&self, at: usize, kind: &str) -> Txn {
        self.begin_for(at, kind, 5_000)
    }

    /// Begins a transaction with so many milliseconds to go.
    pub(crate) fn begin_for(&self, at: usize, kind: &str, millis: u64) -> Txn {
        self.begin_as(at, kind, millis, None, false)
    }

    /// Begins a fixed snapshot that only reads, open for 60 s.
    pub(crate) fn begin_snapshot(&self, at: usize) -> Txn {
        self.begin_as(at, "snapshot", 60_000, None, true)
    }

    pub(crate) fn begin_as(&self, at: usize, kind: &str, millis: u64, age: Option<Timestamp>, read_only: bool) -> Txn {
        let begin = Begin {
            kind: TaskKind::new(kind),
            deadline: Micros::from_millis(millis),
            age,
            read_only,
            recent: None,
            task: None,
        };
        let id = self.step(at, |peer, now| peer.begin(now, begin)).expect("neither busy nor leaving");
        Txn { at, id }
    }

    pub(crate) fn read(&self, txn: Txn, object: ObjectId) -> Stepped<ValueRead> {
        self.step(txn.at, |peer, now| peer.read(now, txn.id, object))
    }

    pub(crate) fn intend(&self, txn: Txn, objects: &[ObjectId]) -> Stepped<()> {
        self.step(txn.at, |peer, now| peer.intend(now, txn.id, objects))
    }

    pub(crate) fn prepare(&self, txn: Txn) -> Stepped<()> {
        self.step(txn.at, |peer, now| peer.prepare(now, txn.id))
    }

    pub(crate) fn retry(&self, txn: Txn) -> Result<(), StepError> {
        self.step(txn.at, |peer, now| peer.retry(now, txn.id))
    }

    pub(crate) fn end(&self, txn: Txn) {
        self.step(txn.at, |peer, now| peer.end(now, txn.id));
    }

    /// Commits writes of objects that exist; fails the test if it has to wait (R10).
    pub(crate) fn commit(&self, txn: Txn, writes: &[(ObjectId, Option<Value>)]) -> Result<Committed, StepError> {
        ready(self.try_commit(txn, writes))
    }

    /// Commits writes of objects that exist, or says "not yet".
    pub(crate) fn try_commit(&self, txn: Txn, writes: &[(ObjectId, Option<Value>)]) -> Stepped<Committed> {
        let mut writes = to_write(writes);
        self.step(txn.at, |peer, now| peer.commit(now, txn.id, &mut writes))
    }

    /// Commits writes of objects that exist, waiting until it may.
    pub(crate) fn commit_wait(&self, txn: Txn, writes: &[(ObjectId, Option<Value>)]) -> Result<Committed, StepError> {
        let mut writes = to_write(writes);
        self.wait(txn, |peer, now, id| peer.commit(now, id, &mut writes))
    }

    /// Commits one number.
    pub(crate) fn commit_amount(&self, txn: Txn, object: ObjectId, amount: u64) -> Result<Committed, StepError> {
        self.commit(txn, &[(object, Some(small(amount)))])
    }

    /// Why the present attempt ended, if it did.
    pub(crate) fn failure(&self, txn: Txn) -> Option<Cause> {
        self.look(txn.at, |peer| peer.failure_of(txn.id).cloned())
    }

    /// A transaction's age and attempt.
    pub(crate) fn attempt(&self, txn: Txn) -> (TxnTimestamp, u32) {
        self.look(txn.at, |peer| peer.attempt_of(txn.id)).expect("it is open")
    }

    pub(crate) fn snapshot(&self, txn: Txn) -> Timestamp {
        self.look(txn.at, |peer| peer.snapshot_of(txn.id)).expect("it is open")
    }

    /// Whether the core has woken it since this was asked last.
    pub(crate) fn woken(&self, txn: Txn) -> bool {
        self.take_woken(txn.at, txn.id)
    }

    /// Repeats a step until it answers, letting time pass.
    pub(crate) fn wait<T>(
        &self,
        txn: Txn,
        mut step: impl FnMut(&mut Peer, Now, TxnId) -> Stepped<T>,
    ) -> Result<T, StepError> {
        let end = self.mono_us() + 61_000_000;
        loop {
            if let Poll::Ready(result) = self.step(txn.at, |peer, now| step(peer, now, txn.id)) {
                return result;
            }
            self.settle();
            if let Poll::Ready(result) = self.step(txn.at, |peer, now| step(peer, now, txn.id)) {
                return result;
            }
            assert!(self.mono_us() < end, "a step outlives every deadline");
            self.tick();
        }
    }

    /// Reads, waiting for the answer.
    pub(crate) fn read_wait(&self, txn: Txn, object: ObjectId) -> Result<Option<u64>, StepError> {
        let read = self.wait(txn, |peer, now, id| peer.read(now, id, object))?;
        Ok(read.value.as_ref().map(amount))
    }

    /// Locks, waiting for the locks.
    pub(crate) fn intend_wait(&self, txn: Txn, objects: &[ObjectId]) -> Result<(), StepError> {
        self.wait(txn, |peer, now, id| peer.intend(now, id, objects))
    }

    /// Begins the next attempt, waiting until it is ready.
    pub(crate) fn retry_wait(&self, txn: Txn) -> Result<(), StepError> {
        loop {
            self.retry(txn)?;
            match self.wait(txn, |peer, now, id| peer.prepare(now, id)) {
                Err(StepError::Failed(_)) => {}
                other => return other,
            }
        }
    }

    /// Creates objects with these values, in one commit.
    pub(crate) fn create_values(&self, at: usize, values: &[Value]) -> Vec<ObjectId> {
        self.create_with_receipt(at, values).0
    }

    /// Creates objects with these values, in one commit, and says where that stands.
    pub(crate) fn create_with_receipt(&self, at: usize, values: &[Value]) -> (Vec<ObjectId>, Committed) {
        let txn = self.begin(at, "create");
        let create =
            |value: &Value| Write { object: self.step(at, |peer, _| peer.new_object_id()), value: Some(value.clone()) };
        let writes: Vec<Write> = values.iter().map(create).collect();
        let objects: Vec<ObjectId> = writes.iter().map(|write| write.object).collect();
        let mut created = objects.clone();
        created.sort_unstable();
        let mut writes = TxnWrites { writes, created, outcome: None, schedules: Vec::new() };
        let done = self.step(at, |peer, now| peer.commit(now, txn.id, &mut writes));
        (objects, ready(done).expect("nobody else knows the objects"))
    }

    /// Creates an object.
    pub(crate) fn create(&self, at: usize, amount: u64) -> ObjectId {
        self.create_values(at, &[small(amount)])[0]
    }

    /// Creates an object and lets the news of it spread.
    pub(crate) fn create_known(&self, at: usize, amount: u64) -> ObjectId {
        let object = self.create(at, amount);
        self.run(20);
        object
    }

    /// Writes values from a peer in one transaction, retrying as often as it takes.
    pub(crate) fn put_values(&self, at: usize, writes: &[(ObjectId, Option<Value>)]) -> Committed {
        let txn = self.begin(at, "put");
        let objects: Vec<ObjectId> = writes.iter().map(|(object, _)| *object).collect();
        loop {
            let done = self.intend_wait(txn, &objects).and_then(|()| self.commit_wait(txn, writes));
            match done {
                Ok(committed) => return committed,
                Err(StepError::Failed(_)) => self.retry_wait(txn).expect("within the deadline"),
                Err(other) => panic!("a put fails: {other}"),
            }
        }
    }

    /// Writes a number from a peer.
    pub(crate) fn put(&self, at: usize, object: ObjectId, amount: u64) -> Committed {
        self.put_values(at, &[(object, Some(small(amount)))])
    }

    /// Adds to a number from a peer, in a transaction that reads first.
    pub(crate) fn add(&self, at: usize, object: ObjectId, more: u64) -> Committed {
        let txn = self.begin(at, "add");
        loop {
            let done = self
                .read_wait(txn, object)
                .and_then(|read| self.intend_wait(txn, &[object]).map(|()| read.unwrap_or(0)))
                .and_then(|read| self.commit_wait(txn, &[(object, Some(small(read + more)))]));
            match done {
                Ok(committed) => return committed,
                Err(StepError::Failed(_)) => self.retry_wait(txn).expect("within the deadline"),
                Err(other) => panic!("an add fails: {other}"),
            }
        }
    }

    /// Reads a number at a peer, in a transaction of its own, a moment later: a snapshot is causal, not real-time.
    pub(crate) fn get(&self, at: usize, object: ObjectId) -> Option<u64> {
        self.run(1);
        let txn = self.begin(at, "get");
        loop {
            match self.read_wait(txn, object) {
                Ok(read) => {
                    self.commit(txn, &[]).expect("it only read");
                    return read;
                }
                Err(StepError::Failed(_)) => self.retry_wait(txn).expect("within the deadline"),
                Err(other) => panic!("a get fails: {other}"),
            }
        }
    }

    /// The newest number of an object, if this peer's own group has it.
    pub(crate) fn newest_at(&self, at: usize, object: ObjectId) -> Option<u64> {
        let value = self.look(at, |peer| peer.group().owned(object).map(|stored| stored.chain.newest().value.clone()));
        value.flatten().as_ref().map(amount)
    }

    /// The newest number of an object, at its only owner.
    pub(crate) fn newest(&self, object: ObjectId) -> Option<u64> {
        let owner = self.owner_of(object);
        let newest = self.look_at_led(owner, |group| Some(group.owned(object)?.chain.newest().value.clone()));
        newest.into_iter().flatten().next().flatten().as_ref().map(amount)
    }
}
