//! Locks and wounds: who gets an object next, here or elsewhere (R12, R14).

use crate::metrics::RareEvent;
use crate::steps::StepError;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_model::limits::TRANSACTION_OBJECTS_MAX;
use driftmesh_model::{ObjectId, TxnId};
use driftmesh_txn::{Acquired, Cause, Holder, Intent, Other, RemoteRead, Turn};

impl Peer {
    /// Takes or queues for the locks of objects. Returns whether all are held.
    pub(crate) fn take_locks(&mut self, id: TxnId, objects: &[ObjectId]) -> Result<bool, StepError> {
        let mut all_held = true;
        for object in objects {
            let intent = self.txns.get(id).and_then(|txn| txn.intents.get(object).copied());
            let held = match intent {
                Some(Intent::Held | Intent::Checked) => true,
                Some(Intent::Missing) => return Err(StepError::Missing(*object)),
                Some(Intent::Waiting) => false,
                None => self.take_lock(id, *object)?,
            };
            all_held &= held;
        }
        Ok(all_held)
    }

    fn take_lock(&mut self, id: TxnId, object: ObjectId) -> Result<bool, StepError> {
        if self.txns.get(id).is_some_and(|txn| txn.intents.len() >= TRANSACTION_OBJECTS_MAX) {
            return Err(StepError::TooManyObjects);
        }
        if self.group.owned(object).is_none() {
            self.refuse_arrival(id, object)?;
            self.set_intent(id, object, Intent::Waiting);
            if let Some(txn) = self.txns.get_mut(id) {
                txn.awaited_message = true;
            }
            self.watch_deadline(id);
            self.want_ownership(object, id);
            return Ok(false);
        }
        self.queue_local(id, object)
    }

    /// Locks an object that is here, or waits for it in age order.
    pub(crate) fn queue_local(&mut self, id: TxnId, object: ObjectId) -> Result<bool, StepError> {
        let txn = self.txns.get(id).ok_or(StepError::Ended)?;
        let requester = Holder { txn: id, timestamp: txn.timestamp };
        let by = Other { timestamp: txn.timestamp, kind: txn.kind.clone() };
        let txns = &self.txns;
        let last_step = |txn: TxnId| txns.get(txn).map(|txn| txn.last_step);
        match self.locks.acquire(object, requester, self.now.mono, last_step) {
            Acquired::Granted => {
                self.note_overruled_pin(object, &requester);
                self.set_intent(id, object, Intent::Held);
                Ok(true)
            }
            Acquired::Waits { wound } => {
                self.set_intent(id, object, Intent::Waiting);
                self.watch_deadline(id);
                self.wound_or_watch(object, wound, by);
                self.hand_overs.push_back(object);
                self.settle_hand_overs();
                let intent = self.txns.get(id).and_then(|txn| txn.intents.get(&object).copied());
                Ok(intent == Some(Intent::Held))
            }
            Acquired::Busy => Err(StepError::Busy),
        }
    }

    fn set_intent(&mut self, id: TxnId, object: ObjectId, intent: Intent) {
        if let Some(txn) = self.txns.get_mut(id) {
            txn.intents.insert(object, intent);
        }
    }

    fn note_overruled_pin(&mut self, object: ObjectId, by: &Holder) {
        if self.locks.pinned_for(object).is_some_and(|pin| by.timestamp.is_older_than(&pin)) {
            self.metrics.note(RareEvent::PinOverruled);
        }
    }

    /// R12: an older one wounds a younger holder. A holder that is not wounded is at least ended at its deadline.
    pub(crate) fn wound_or_watch(&mut self, object: ObjectId, wound: Option<Holder>, by: Other) {
        match wound {
            Some(victim) if !self.broken(Sabotage::WoundWait) => {
                self.metrics.wounds += 1;
                if self.txns.get(victim.txn).is_some_and(driftmesh_txn::Transaction::is_parked) {
                    self.metrics.note(RareEvent::WoundOfParkedHolder);
                }
                self.fail(victim.txn, Cause::Wounded { object, by });
            }
            Some(_) | None => {
                if let Some(holder) = self.locks.holder(object) {
                    self.watch_deadline(holder.txn);
                }
            }
        }
    }

    /// The transaction here that has an object: by its lock, or by its pin.
    pub(crate) fn holder_of(&self, object: ObjectId) -> Option<Other> {
        let holder = self.locks.holder(object).map(|holder| holder.txn);
        let pinned = || self.locks.pinned_for(object).map(|pin| TxnId::from_u64(pin.sequence));
        let txn = self.txns.get(holder.or_else(pinned)?)?;
        Some(Other { timestamp: txn.timestamp, kind: txn.kind.clone() })
    }

    /// What a transaction waits for, and who has it.
    pub(crate) fn waits_for(&self, id: TxnId) -> Option<Cause> {
        let txn = self.txns.get(id)?;
        let lock = txn.intents.iter().find(|(_, intent)| **intent == Intent::Waiting).map(|(object, _)| *object);
        let read = || txn.reads.iter().find(|(_, read)| read.remote == Some(RemoteRead::Waiting));
        let object = lock.or_else(|| read().map(|(object, _)| *object))?;
        let there = || self.fetches.get(&object).and_then(|fetch| fetch.behind.clone());
        let behind = self.holder_of(object).filter(|other| other.timestamp != txn.timestamp).or_else(there);
        Some(Cause::Waited { object, behind })
    }

    /// Gives released objects to whoever waits for them, until nothing moves any more.
    pub(crate) fn settle_hand_overs(&mut self) {
        loop {
            while let Some(object) = self.hand_overs.pop_front() {
                self.hand_over(object);
            }
            if !self.depart() {
                return;
            }
        }
    }

    fn hand_over(&mut self, object: ObjectId) {
        if self.group.owned(object).is_none() || self.departing.contains(object) {
            return;
        }
        let txns = &self.txns;
        let last_step = |txn: TxnId| txns.get(txn).map(|txn| txn.last_step);
        match self.locks.next_turn(object, self.now.mono, last_step) {
            Turn::Local(holder) => {
                self.note_overruled_pin(object, &holder);
                if self.txns.get(holder.txn).is_none() {
                    self.locks.release(object, holder.txn);
                    self.hand_overs.push_back(object);
                    return;
                }
                self.set_intent(holder.txn, object, Intent::Held);
                self.wakes.push(holder.txn);
            }
            // Nobody who is gone, or about to go, is sent anything. The queue is soft state: who is back asks again.
            Turn::Remote(_, waiter) if !self.takes_objects(waiter.group) => self.hand_overs.push_back(object),
            Turn::Remote(age, waiter) => {
                if self.locks.pinned_for(object).is_some_and(|pin| age.is_older_than(&pin)) {
                    self.metrics.note(RareEvent::PinOverruled);
                }
                self.transfer_out(object, age, waiter);
            }
            Turn::Pinned(until) => {
                self.metrics.note(RareEvent::PinHeld);
                self.timers.set(until, Timer::HandOver(object));
            }
            Turn::Nobody => {}
        }
    }
}
