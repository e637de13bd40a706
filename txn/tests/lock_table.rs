//! The lock table against a list: whatever is asked of it in whatever order, it answers as a list of waiters in age order
//! would (R12, R14), and it forgets what nobody holds, pins or waits for (R24).

use driftmesh_model::{GroupId, Micros, ObjectId, Timestamp, TxnId, TxnTimestamp};
use driftmesh_txn::{Acquired, Holder, LockTable, PIN_IDLE_MAX, RemoteWaiter, TaskKind, Turn};
use proptest::prelude::*;
use std::collections::BTreeMap;

const OBJECTS: u8 = 3;
const TXNS: u8 = 6;
const GROUPS: u8 = 3;
/// How long a request of another group counts.
const REQUEST_FOR: Micros = Micros(300_000);

#[derive(Clone, Debug)]
enum Step {
    Acquire(u8, u8),
    AcquireIfFree(u8, u8),
    /// A group asks, for somebody of this age.
    Queue(u8, u8, u8),
    Pin(u8, u8),
    Unpin(u8, u8),
    Release(u8, u8),
    Withdraw(u8, u8),
    NextTurn(u8),
    Clear(u8),
    /// A transaction takes a step, or ends.
    Steps(u8, bool),
    /// Time passes, milliseconds.
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (object, txn) = (|| 0..OBJECTS, || 0..TXNS);
    let step = prop_oneof![
        6 => (object(), txn()).prop_map(|(object, txn)| Step::Acquire(object, txn)),
        1 => (object(), txn()).prop_map(|(object, txn)| Step::AcquireIfFree(object, txn)),
        3 => (object(), 0..GROUPS, 0..2 * TXNS).prop_map(|(object, group, age)| Step::Queue(object, group, age)),
        2 => (object(), txn()).prop_map(|(object, txn)| Step::Pin(object, txn)),
        1 => (object(), txn()).prop_map(|(object, txn)| Step::Unpin(object, txn)),
        4 => (object(), txn()).prop_map(|(object, txn)| Step::Release(object, txn)),
        2 => (object(), txn()).prop_map(|(object, txn)| Step::Withdraw(object, txn)),
        4 => object().prop_map(Step::NextTurn),
        1 => object().prop_map(Step::Clear),
        2 => (txn(), any::<bool>()).prop_map(|(txn, alive)| Step::Steps(txn, alive)),
        2 => (0..200_u16).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

fn object(number: u8) -> ObjectId {
    ObjectId::from_u128(u128::from(number) + 1)
}

/// Transactions here have even ages, those elsewhere any: ages of different peers never meet.
fn age(number: u8, peer: u64) -> TxnTimestamp {
    TxnTimestamp { time: Timestamp::from_u64(u64::from(number)), incarnation: peer, sequence: u64::from(number) + 1 }
}

fn holder(txn: u8) -> Holder {
    let timestamp = age(2 * txn, 1);
    Holder { txn: TxnId::from_u64(timestamp.sequence), timestamp }
}

fn remote(group: u8, now: Micros) -> RemoteWaiter {
    RemoteWaiter {
        group: GroupId::from_u128(u128::from(group)),
        kind: TaskKind::new("far"),
        have: None,
        expires: now.plus(REQUEST_FOR),
    }
}

#[derive(Clone, PartialEq, Debug)]
enum Waits {
    Here(Holder),
    There(RemoteWaiter),
}

/// One lock as the rules say it, without regard to speed.
#[derive(Default, Debug)]
struct Model {
    holder: Option<Holder>,
    pin: Option<TxnTimestamp>,
    /// In no order.
    waits: Vec<(TxnTimestamp, Waits)>,
}

impl Model {
    fn oldest(&self) -> Option<usize> {
        (0..self.waits.len()).min_by_key(|at| self.waits[*at].0)
    }

    /// R12: whoever is older than the holder wounds it.
    fn wound(&self, age: TxnTimestamp) -> Option<Holder> {
        self.holder.filter(|holder| age < holder.timestamp)
    }

    fn wait(&mut self, age: TxnTimestamp, waits: Waits) -> Acquired {
        self.waits.retain(|(other, _)| *other != age);
        self.waits.push((age, waits));
        Acquired::Waits { wound: self.wound(age) }
    }

    /// R14: a pin keeps off whoever is younger, while its transaction steps on.
    fn pinned_until(&self, age: TxnTimestamp, world: &World) -> Option<Micros> {
        let pin = self.pin.filter(|pin| *pin < age)?;
        let until = world.stepped.get(&pin.sequence)?.plus(PIN_IDLE_MAX);
        (until > world.now).then_some(until)
    }

    fn is_idle(&self) -> bool {
        self.holder.is_none() && self.pin.is_none() && self.waits.is_empty()
    }
}

#[derive(Debug)]
struct World {
    now: Micros,
    /// When each transaction that has not ended took its last step, by its number.
    stepped: BTreeMap<u64, Micros>,
}

struct Run {
    table: LockTable,
    models: Vec<Model>,
    world: World,
}

impl Run {
    fn new() -> Self {
        let now = Micros(1_000_000);
        let stepped = (0..TXNS).map(|txn| (holder(txn).txn.as_u64(), now)).collect();
        let models = (0..OBJECTS).map(|_| Model::default()).collect();
        Self { table: LockTable::default(), models, world: World { now, stepped } }
    }

    fn acquire(&mut self, number: u8, txn: u8) -> Result<(), TestCaseError> {
        let (model, world) = (&mut self.models[usize::from(number)], &self.world);
        let requester = holder(txn);
        let age = requester.timestamp;
        let is_first = model.waits.iter().all(|(other, _)| age <= *other);
        let expected = if model.holder == Some(requester) {
            Acquired::Granted
        } else if model.holder.is_none() && is_first && model.pinned_until(age, world).is_none() {
            model.waits.retain(|(other, _)| *other != age);
            model.holder = Some(requester);
            Acquired::Granted
        } else {
            model.wait(age, Waits::Here(requester))
        };
        let last_step = |txn: TxnId| world.stepped.get(&txn.as_u64()).copied();
        prop_assert_eq!(self.table.acquire(object(number), requester, world.now, last_step), expected);
        Ok(())
    }

    fn next_turn(&mut self, number: u8) -> Result<(), TestCaseError> {
        let (model, world) = (&mut self.models[usize::from(number)], &self.world);
        let mut expected = Turn::Nobody;
        if model.holder.is_none() {
            while let Some(at) = model.oldest() {
                let (age, waits) = model.waits[at].clone();
                if matches!(&waits, Waits::There(remote) if remote.expires <= world.now) {
                    model.waits.remove(at);
                    continue;
                }
                if let Some(until) = model.pinned_until(age, world) {
                    expected = Turn::Pinned(until);
                    break;
                }
                model.waits.remove(at);
                expected = match waits {
                    Waits::Here(holder) => {
                        model.holder = Some(holder);
                        Turn::Local(holder)
                    }
                    Waits::There(remote) => Turn::Remote(age, remote),
                };
                break;
            }
        }
        let last_step = |txn: TxnId| world.stepped.get(&txn.as_u64()).copied();
        prop_assert_eq!(self.table.next_turn(object(number), world.now, last_step), expected);
        Ok(())
    }

    fn clear(&mut self, number: u8) -> Result<(), TestCaseError> {
        let mut waits = std::mem::take(&mut self.models[usize::from(number)]).waits;
        waits.sort_by_key(|(age, _)| *age);
        let waiters = self.table.clear(object(number));
        let mut cleared: Vec<_> = waiters.remote.into_iter().map(|(age, remote)| (age, Waits::There(remote))).collect();
        let local = |(timestamp, txn)| (timestamp, Waits::Here(Holder { txn, timestamp }));
        cleared.extend(waiters.local.into_iter().map(local));
        cleared.sort_by_key(|(age, _)| *age);
        prop_assert_eq!(cleared, waits);
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Acquire(number, txn) => self.acquire(number, txn)?,
            Step::AcquireIfFree(number, txn) => {
                let model = &mut self.models[usize::from(number)];
                let is_free = model.is_idle();
                if is_free {
                    model.holder = Some(holder(txn));
                }
                prop_assert_eq!(self.table.acquire_if_free(object(number), holder(txn)), is_free);
            }
            Step::Queue(number, group, other) => {
                let (waiter, age) = (remote(group, self.world.now), age(other, 2 + u64::from(group)));
                let model = &mut self.models[usize::from(number)];
                // A group waits once.
                model.waits.retain(|(_, waits)| !matches!(waits, Waits::There(old) if old.group == waiter.group));
                let expected = model.wait(age, Waits::There(waiter.clone()));
                prop_assert_eq!(self.table.queue_remote(object(number), age, waiter), expected);
            }
            Step::Pin(number, txn) => {
                self.models[usize::from(number)].pin = Some(holder(txn).timestamp);
                self.table.pin(object(number), holder(txn).timestamp);
            }
            Step::Unpin(number, txn) => {
                let (model, age) = (&mut self.models[usize::from(number)], holder(txn).timestamp);
                model.pin = model.pin.filter(|pin| *pin != age);
                self.table.unpin(object(number), &age);
            }
            Step::Release(number, txn) => {
                let model = &mut self.models[usize::from(number)];
                model.holder = model.holder.filter(|held| *held != holder(txn));
                let waits = !model.waits.is_empty();
                prop_assert_eq!(self.table.release(object(number), holder(txn).txn), waits);
            }
            Step::Withdraw(number, txn) => {
                let age = holder(txn).timestamp;
                self.models[usize::from(number)].waits.retain(|(other, _)| *other != age);
                self.table.withdraw(object(number), &age);
            }
            Step::NextTurn(number) => self.next_turn(number)?,
            Step::Clear(number) => self.clear(number)?,
            Step::Steps(txn, alive) => {
                let number = holder(txn).txn.as_u64();
                if alive {
                    self.world.stepped.insert(number, self.world.now);
                } else {
                    self.world.stepped.remove(&number);
                }
            }
            Step::Wait(millis) => self.world.now = self.world.now.plus(Micros::from_millis(u64::from(millis))),
        }
        self.looks_like_the_model()
    }

    fn looks_like_the_model(&self) -> Result<(), TestCaseError> {
        for (number, model) in (0..).zip(&self.models) {
            let object = object(number);
            prop_assert_eq!(self.table.holder(object), model.holder);
            prop_assert_eq!(self.table.pinned_for(object), model.pin);
            prop_assert_eq!(self.table.is_waited_for(object), !model.waits.is_empty());
        }
        // R24: nothing is kept of a lock that is free, unpinned and not waited for.
        let kept = self.models.iter().filter(|model| !model.is_idle()).count();
        prop_assert_eq!((self.table.len(), self.table.is_empty()), (kept, kept == 0));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_answers_as_a_list_in_age_order_would(steps in steps()) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step)?;
        }
    }
}

#[test]
fn a_request_that_names_the_age_of_another_one_is_refused_and_neither_loses_its_place() {
    let (mut table, now) = (LockTable::default(), Micros(1_000_000));
    let (older, younger) = (age(1, 9), age(2, 9));
    let waits = Acquired::Waits { wound: None };
    assert_eq!(table.queue_remote(object(0), older, remote(0, now)), waits);
    assert_eq!(table.queue_remote(object(0), younger, remote(1, now)), waits);
    // R25: it says the first one's age, and then that of somebody here.
    assert_eq!(table.queue_remote(object(0), older, remote(1, now)), Acquired::Busy);
    let last_step = |_: TxnId| None;
    assert_eq!(table.acquire(object(0), holder(4), now, last_step), waits);
    assert_eq!(table.queue_remote(object(0), holder(4).timestamp, remote(1, now)), Acquired::Busy);
    for (age, group) in [(older, 0), (younger, 1)] {
        assert_eq!(table.next_turn(object(0), now, last_step), Turn::Remote(age, remote(group, now)));
    }
    assert_eq!(table.next_turn(object(0), now, last_step), Turn::Local(holder(4)));
}

#[test]
fn beyond_so_many_waiters_nobody_else_waits_and_who_waits_may_ask_again() {
    let (mut table, now) = (LockTable::default(), Micros(1_000_000));
    let age = |number: u64| TxnTimestamp { time: Timestamp::from_u64(number), incarnation: 9, sequence: number };
    let asks = |table: &mut LockTable, number: u64| {
        let waiter = RemoteWaiter { group: GroupId::from_u128(u128::from(number)), ..remote(0, now) };
        table.queue_remote(object(0), age(number), waiter)
    };
    let most = (1..10_000).take_while(|number| asks(&mut table, *number) != Acquired::Busy).count();
    assert_eq!(most, 4_096);
    assert_eq!(asks(&mut table, 7), Acquired::Waits { wound: None });
    assert_eq!(asks(&mut table, 10_000), Acquired::Busy);
}
