//! Exclusive locks of the objects owned here, with queues in age order: wound-wait (Rosenkrantz, Stearns and Lewis
//! 1978), R12 and R14.
//!
//! It refuses to act: it says whom to wound and whose turn it is, and the peer does it.

use crate::TaskKind;
use driftmesh_model::{GroupId, Hash, LookupMap, Micros, ObjectId, TxnId, TxnTimestamp};
use std::collections::BTreeMap;

/// A pin ends when its transaction takes no step for this long (R14).
pub const PIN_IDLE_MAX: Micros = Micros::from_millis(100);
/// Most waiters of one lock (R24).
const WAITERS_MAX: usize = 4_096;

/// The transaction that holds a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its id at this peer.
    pub txn: TxnId,
    /// Its age.
    pub timestamp: TxnTimestamp,
}

/// Another group that waits for ownership, with the age of its oldest waiter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteWaiter {
    /// The group.
    pub group: GroupId,
    /// The kind of task that waits there.
    pub kind: TaskKind,
    /// The hash of a value that it has, so that a grant need not carry it.
    pub have: Option<Hash>,
    /// The request counts as given up unless it is repeated by then.
    pub expires: Micros,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Waiter {
    Local(TxnId),
    Remote(RemoteWaiter),
}

/// What an attempt to lock gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acquired {
    /// The lock is held now.
    Granted,
    /// It waits in age order.
    Waits {
        /// A younger holder that must be wounded (R12).
        wound: Option<Holder>,
    },
    /// Too many wait already (R24).
    Busy,
}

/// Whose turn it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Turn {
    /// This local transaction, which holds the lock now.
    Local(Holder),
    /// This group: the object goes there.
    Remote(TxnTimestamp, RemoteWaiter),
    /// Somebody waits, but the object is pinned for an older transaction; look again then.
    Pinned(Micros),
    /// Nobody waits, or the lock is held.
    Nobody,
}

/// All waiters of a lock, taken out of it.
#[derive(Clone, Debug, Default)]
pub struct Waiters {
    /// Transactions of this peer.
    pub local: Vec<(TxnTimestamp, TxnId)>,
    /// Other groups.
    pub remote: Vec<(TxnTimestamp, RemoteWaiter)>,
}

#[derive(Clone, Debug, Default)]
struct Lock {
    holder: Option<Holder>,
    /// The transaction that fetched the object here, over its attempts (R14).
    pin: Option<TxnTimestamp>,
    waiters: BTreeMap<TxnTimestamp, Waiter>,
}

/// The locks that are held, pinned or waited for.
#[derive(Clone, Debug, Default)]
pub struct LockTable {
    locks: LookupMap<ObjectId, Lock>,
}

impl LockTable {
    /// Takes the lock of an object for a local transaction, or queues for it.
    ///
    /// `last_step` tells when the transaction of a pin took its last step, or that it has ended.
    pub fn acquire(
        &mut self,
        object: ObjectId,
        requester: Holder,
        now: Micros,
        last_step: impl Fn(TxnId) -> Option<Micros>,
    ) -> Acquired {
        let lock = self.locks.or_insert_with(object, Lock::default);
        if lock.holder.is_some_and(|holder| holder.txn == requester.txn) {
            return Acquired::Granted;
        }
        let first = lock.waiters.first_key_value().is_none_or(|(oldest, _)| requester.timestamp <= *oldest);
        if lock.holder.is_none() && first && lock.pinned_before(&requester.timestamp, now, last_step).is_none() {
            lock.waiters.remove(&requester.timestamp);
            lock.holder = Some(requester);
            return Acquired::Granted;
        }
        if lock.waiters.len() >= WAITERS_MAX {
            return Acquired::Busy;
        }
        lock.waiters.insert(requester.timestamp, Waiter::Local(requester.txn));
        Acquired::Waits { wound: lock.younger_holder(&requester.timestamp) }
    }

    /// Takes the lock of an object that nobody holds, pins or waits for. Returns whether it was.
    pub fn acquire_if_free(&mut self, object: ObjectId, requester: Holder) -> bool {
        let lock = self.locks.or_insert_with(object, Lock::default);
        let free = lock.is_idle();
        if free {
            lock.holder = Some(requester);
        }
        free
    }

    /// Queues another group for the ownership of an object. A request of a group that waits already takes the place of
    /// its former one: the queue is soft state. `Waits` names a younger holder to wound, if there is one (R12); `Busy` says
    /// that there is no room (R24), or that another request has this age. It is never `Granted`.
    pub fn queue_remote(&mut self, object: ObjectId, age: TxnTimestamp, waiter: RemoteWaiter) -> Acquired {
        let lock = self.locks.or_insert_with(object, Lock::default);
        let is_its_own = |other: &Waiter| matches!(other, Waiter::Remote(other) if other.group == waiter.group);
        // R25: ages are of one transaction each; who says another's takes neither its place in the queue nor loses the own.
        if lock.waiters.get(&age).is_some_and(|other| !is_its_own(other)) {
            return Acquired::Busy;
        }
        lock.waiters.retain(|_, other| !is_its_own(other));
        if lock.waiters.len() >= WAITERS_MAX {
            return Acquired::Busy;
        }
        lock.waiters.insert(age, Waiter::Remote(waiter));
        Acquired::Waits { wound: lock.younger_holder(&age) }
    }

    /// Pins an object for the transaction that fetched it here.
    pub fn pin(&mut self, object: ObjectId, timestamp: TxnTimestamp) {
        self.locks.or_insert_with(object, Lock::default).pin = Some(timestamp);
    }

    /// The transaction has ended: its pin of the object goes.
    pub fn unpin(&mut self, object: ObjectId, timestamp: &TxnTimestamp) {
        if let Some(lock) = self.locks.get_mut(&object)
            && lock.pin.as_ref() == Some(timestamp)
        {
            lock.pin = None;
            self.drop_if_idle(object);
        }
    }

    /// Gives a lock back. Returns whether somebody waits.
    pub fn release(&mut self, object: ObjectId, txn: TxnId) -> bool {
        let release = |lock: &mut Lock| {
            if lock.holder.is_some_and(|holder| holder.txn == txn) {
                lock.holder = None;
            }
            (lock.is_idle(), !lock.waiters.is_empty())
        };
        self.locks.change_or_remove(object, release).unwrap_or(false)
    }

    /// A waiter has given up.
    pub fn withdraw(&mut self, object: ObjectId, timestamp: &TxnTimestamp) {
        if let Some(lock) = self.locks.get_mut(&object) {
            lock.waiters.remove(timestamp);
            self.drop_if_idle(object);
        }
    }

    /// Whose turn it is on a free lock: the oldest waiter's, unless a pin of an older transaction holds. A local
    /// transaction gets the lock by this.
    pub fn next_turn(&mut self, object: ObjectId, now: Micros, last_step: impl Fn(TxnId) -> Option<Micros>) -> Turn {
        let Some(lock) = self.locks.get_mut(&object) else { return Turn::Nobody };
        if lock.holder.is_some() {
            return Turn::Nobody;
        }
        loop {
            let Some((timestamp, waiter)) = lock.waiters.first_key_value() else {
                self.drop_if_idle(object);
                return Turn::Nobody;
            };
            let timestamp = *timestamp;
            if matches!(waiter, Waiter::Remote(remote) if remote.expires <= now) {
                lock.waiters.remove(&timestamp);
                continue;
            }
            // R14: only an older transaction may take what another one has fetched.
            if let Some(until) = lock.pinned_before(&timestamp, now, &last_step) {
                return Turn::Pinned(until);
            }
            return match lock.waiters.remove(&timestamp) {
                Some(Waiter::Local(txn)) => {
                    let holder = Holder { txn, timestamp };
                    lock.holder = Some(holder);
                    Turn::Local(holder)
                }
                Some(Waiter::Remote(remote)) => {
                    // R24: nothing is kept for who has had its turn.
                    self.drop_if_idle(object);
                    Turn::Remote(timestamp, remote)
                }
                None => Turn::Nobody,
            };
        }
    }

    /// Takes everybody out of the queue, and the pin: the object has left.
    pub fn clear(&mut self, object: ObjectId) -> Waiters {
        let mut waiters = Waiters::default();
        if let Some(lock) = self.locks.remove(&object) {
            for (timestamp, waiter) in lock.waiters {
                match waiter {
                    Waiter::Local(txn) => waiters.local.push((timestamp, txn)),
                    Waiter::Remote(remote) => waiters.remote.push((timestamp, remote)),
                }
            }
        }
        waiters
    }

    /// Who holds the lock of an object.
    #[must_use]
    pub fn holder(&self, object: ObjectId) -> Option<Holder> {
        self.locks.get(&object).and_then(|lock| lock.holder)
    }

    /// Whether anybody waits for an object.
    #[must_use]
    pub fn is_waited_for(&self, object: ObjectId) -> bool {
        self.locks.get(&object).is_some_and(|lock| !lock.waiters.is_empty())
    }

    /// For whom the object is pinned.
    #[must_use]
    pub fn pinned_for(&self, object: ObjectId) -> Option<TxnTimestamp> {
        self.locks.get(&object).and_then(|lock| lock.pin)
    }

    /// How many objects are locked, pinned or waited for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.locks.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    fn drop_if_idle(&mut self, object: ObjectId) {
        self.locks.change_or_remove(object, |lock| (lock.is_idle(), ()));
    }
}

impl Lock {
    fn is_idle(&self) -> bool {
        self.holder.is_none() && self.pin.is_none() && self.waiters.is_empty()
    }

    fn younger_holder(&self, requester: &TxnTimestamp) -> Option<Holder> {
        // R12: an older one that meets a younger holder wounds it.
        self.holder.filter(|holder| requester.is_older_than(&holder.timestamp))
    }

    /// If a pin of a transaction older than `requester` holds, until when it does unless that takes another step.
    fn pinned_before(
        &self,
        requester: &TxnTimestamp,
        now: Micros,
        last_step: impl Fn(TxnId) -> Option<Micros>,
    ) -> Option<Micros> {
        let pin = self.pin.as_ref().filter(|pin| pin.is_older_than(requester))?;
        let until = last_step(TxnId::from_u64(pin.sequence))?.plus(PIN_IDLE_MAX);
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh_model::Timestamp;

    const OBJECT: ObjectId = ObjectId::from_u128(1);
    const NOW: Micros = Micros(1_000_000);

    fn holder(age: u64) -> Holder {
        let timestamp = TxnTimestamp { time: Timestamp::from_u64(age), incarnation: 1, sequence: age };
        Holder { txn: TxnId::from_u64(age), timestamp }
    }

    fn remote(group: u128) -> RemoteWaiter {
        RemoteWaiter {
            group: GroupId::from_u128(group),
            kind: TaskKind::new("test"),
            have: None,
            expires: NOW.plus(NOW),
        }
    }

    fn alive(_: TxnId) -> Option<Micros> {
        Some(NOW)
    }

    #[test]
    fn the_older_wounds_and_the_younger_waits() {
        let mut locks = LockTable::default();
        assert_eq!(locks.acquire(OBJECT, holder(20), NOW, alive), Acquired::Granted);
        assert_eq!(locks.acquire(OBJECT, holder(30), NOW, alive), Acquired::Waits { wound: None });
        assert_eq!(locks.acquire(OBJECT, holder(10), NOW, alive), Acquired::Waits { wound: Some(holder(20)) });
        assert!(locks.release(OBJECT, holder(20).txn));
        assert_eq!(locks.next_turn(OBJECT, NOW, alive), Turn::Local(holder(10)));
        locks.release(OBJECT, holder(10).txn);
        assert_eq!(locks.next_turn(OBJECT, NOW, alive), Turn::Local(holder(30)));
        assert!(!locks.release(OBJECT, holder(30).txn));
        assert!(locks.is_empty());
    }

    #[test]
    fn who_says_the_age_of_another_waiter_does_not_take_its_place() {
        let mut locks = LockTable::default();
        assert_eq!(locks.acquire(OBJECT, holder(10), NOW, alive), Acquired::Granted);
        assert_eq!(locks.acquire(OBJECT, holder(20), NOW, alive), Acquired::Waits { wound: None });
        assert_eq!(locks.queue_remote(OBJECT, holder(20).timestamp, remote(7)), Acquired::Busy);
        locks.release(OBJECT, holder(10).txn);
        assert_eq!(locks.next_turn(OBJECT, NOW, alive), Turn::Local(holder(20)));
    }

    #[test]
    fn a_pin_yields_to_the_older_only_and_ends_when_idle() {
        let mut locks = LockTable::default();
        locks.pin(OBJECT, holder(20).timestamp);
        assert_eq!(locks.acquire(OBJECT, holder(30), NOW, alive), Acquired::Waits { wound: None });
        assert_eq!(locks.next_turn(OBJECT, NOW, alive), Turn::Pinned(NOW.plus(PIN_IDLE_MAX)));
        assert_eq!(locks.acquire(OBJECT, holder(10), NOW, alive), Acquired::Granted);
        locks.release(OBJECT, holder(10).txn);
        assert_eq!(locks.next_turn(OBJECT, NOW.plus(PIN_IDLE_MAX), alive), Turn::Local(holder(30)));
    }

    #[test]
    fn repeated_requests_of_a_group_are_merged_and_expire() {
        let mut locks = LockTable::default();
        locks.queue_remote(OBJECT, holder(20).timestamp, remote(1));
        locks.queue_remote(OBJECT, holder(10).timestamp, remote(1));
        assert_eq!(locks.next_turn(OBJECT, NOW, alive), Turn::Remote(holder(10).timestamp, remote(1)));
        assert_eq!(locks.next_turn(OBJECT, NOW, alive), Turn::Nobody);
        locks.queue_remote(OBJECT, holder(10).timestamp, remote(1));
        assert_eq!(locks.next_turn(OBJECT, NOW.plus(NOW), alive), Turn::Nobody);
        assert!(locks.is_empty());
    }

    #[test]
    fn the_queue_of_a_lock_is_bounded_and_who_waits_may_ask_again() {
        let mut locks = LockTable::default();
        assert_eq!(locks.acquire(OBJECT, holder(1), NOW, alive), Acquired::Granted);
        let queue = |locks: &mut LockTable, age: usize, group: usize| {
            locks.queue_remote(OBJECT, holder(age as u64).timestamp, remote(group as u128))
        };
        for number in 2..WAITERS_MAX + 2 {
            assert_eq!(queue(&mut locks, number, number), Acquired::Waits { wound: None });
        }
        let late = WAITERS_MAX + 2;
        assert_eq!(queue(&mut locks, late, late), Acquired::Busy);
        assert_eq!(locks.acquire(OBJECT, holder(late as u64), NOW, alive), Acquired::Busy);
        // A request that is repeated takes its own place.
        assert_eq!(queue(&mut locks, late, 2), Acquired::Waits { wound: None });
        locks.release(OBJECT, holder(1).txn);
        assert_eq!(locks.next_turn(OBJECT, NOW, alive), Turn::Remote(holder(3).timestamp, remote(3)));
        // Now there is room for one more.
        assert_eq!(queue(&mut locks, 4, 77), Acquired::Busy, "another one has this age");
        assert_eq!(queue(&mut locks, late + 1, 77), Acquired::Waits { wound: None });
    }
}
