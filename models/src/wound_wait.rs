//! Wound-wait over two peers: R12 (who waits waits for an older one), R13 (commit point), R14 (fetches have the age of their
//! oldest waiter; pins; requests are repeated), R15 (a retry takes first what former attempts locked).
//!
//! *Covered.* Transactions of different ages, each at a peer and with a list of objects that it locks one after the other
//! before it commits. Each object is at one of the peers or on its way. A lock is taken where the object is; a transaction at
//! the other peer fetches the object first: the request queues there in age order and wounds a younger holder, the object
//! leaves when it is free, its other waiters are sent after it, and on arrival it is pinned for who fetched it. Requests are
//! under way for any time and overtake each other. A wounded transaction loses its locks at once and learns of it at its next
//! step, whenever that is; a parked one too. All beginnings are tried: which transaction is where, what is where, who locks
//! what first.
//!
//! *Left out.* Values, reads and snapshots; how an object is found (with two peers it is here or there) and how its transfer
//! outlives a failover (`ownership_transfer`); deadlines and `Unavailable`, which end waits as well: here nothing may need
//! them. Requests are not lost; a timer repeats each that is not queued as it should be.
//!
//! *States.* 187,666 with three transactions and two objects; the other sizes are at the end of this file.

use crate::checking::{assert_broken, assert_can_end, assert_holds};
use stateright::{Model, Property};

const TRANSACTIONS: usize = 4;
const OBJECTS: usize = 3;

/// A transaction is its age: 0 is the oldest.
type Txn = usize;

/// A set of transactions, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Ages(u8);

impl Ages {
    fn insert(&mut self, txn: Txn) {
        self.0 |= 1 << txn;
    }

    fn remove(&mut self, txn: Txn) {
        self.0 &= !(1 << txn);
    }

    const fn contains(self, txn: Txn) -> bool {
        self.0 & (1 << txn) != 0
    }

    fn iter(self) -> impl Iterator<Item = Txn> {
        (0..TRANSACTIONS).filter(move |txn| self.contains(*txn))
    }

    fn oldest(self) -> Option<Txn> {
        self.iter().next()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Status {
    Running,
    /// It has lost its locks, and will learn of it.
    Wounded,
    Committed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Intent {
    None,
    Waiting,
    Held,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Transaction {
    peer: usize,
    /// What it locks, in this order.
    locks: Vec<usize>,
    status: Status,
    intents: [Intent; OBJECTS],
    /// What former attempts locked or were wounded for.
    lock_first: [bool; OBJECTS],
}

/// Where an object is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Place {
    At(usize),
    /// Granted, and on its way to a peer.
    Granted(usize),
}

/// An object, with its lock where it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Object {
    place: Place,
    holder: Option<Txn>,
    pin: Option<Txn>,
    /// In age order. Those of the other peer stand for that peer, with the age that it named; there is one at most.
    waiters: Ages,
}

/// A peer's search for an object of the other one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Fetch {
    owners: Ages,
    asked_age: Txn,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    txns: Vec<Transaction>,
    objects: Vec<Object>,
    /// By peer and object.
    fetches: [[Option<Fetch>; OBJECTS]; 2],
    /// Requests under way to a peer about an object, by the ages they name.
    requests: [[Ages; OBJECTS]; 2],
    /// Who was wounded so far, and whether that one was parked.
    wounded: Ages,
    wounded_while_parked: bool,
}

/// What can happen, named as in the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    /// A transaction goes on to the next lock of its list.
    Intend(Txn),
    /// A wounded one begins again.
    Retry(Txn),
    Commit(Txn),
    /// A request for ownership arrives at a peer.
    Own {
        to: usize,
        object: usize,
        age: Txn,
    },
    /// An object arrives.
    TransferIn {
        object: usize,
    },
    /// A timer repeats a request, or gives up a search that nobody needs.
    FetchDue {
        peer: usize,
        object: usize,
    },
    /// Who fetched it has taken no step for long.
    PinIdle {
        object: usize,
    },
}

/// The sizes, and the rules, each of which can be broken.
#[derive(Clone)]
struct WoundWait {
    /// What each transaction locks, oldest first.
    lists: Vec<Vec<Vec<usize>>>,
    objects: usize,
    /// Pins end by themselves.
    pins_end: bool,
    /// R12: an older one wounds a younger holder.
    wounds: bool,
    /// R12: and nobody else does.
    spares_the_older: bool,
    /// R14: a fetch that an older one joins is sent again.
    raises_age: bool,
    /// R14: requests are repeated.
    repeats: bool,
    /// An object leaves when nobody holds its lock.
    waits_for_holder: bool,
}

impl WoundWait {
    fn new(objects: usize, lists: Vec<Vec<Vec<usize>>>) -> Self {
        Self {
            lists,
            objects,
            pins_end: false,
            wounds: true,
            spares_the_older: true,
            raises_age: true,
            repeats: true,
            waits_for_holder: true,
        }
    }

    /// Three transactions that lock two objects, in each order.
    fn two_objects() -> Self {
        let orders = [vec![0, 1], vec![1, 0]];
        let lists = (0..8).map(|bits| (0..3).map(|txn| orders[(bits >> txn) & 1].clone()).collect()).collect();
        Self::new(2, lists)
    }

    /// Three transactions that lock two of three objects each, in a circle.
    fn three_objects() -> Self {
        let circle = [vec![0, 1], vec![1, 2], vec![2, 0]];
        let turns = [[0, 1, 2], [0, 2, 1]];
        let lists = turns.iter().map(|turn| turn.iter().map(|at| circle[*at].clone()).collect()).collect();
        Self::new(3, lists)
    }

    /// R14: whether a pin for an older one is in the way.
    fn is_pinned_before(world: &World, object: usize, age: Txn) -> bool {
        let holds = |pin: Txn| pin < age && world.txns[pin].status != Status::Committed;
        world.objects[object].pin.is_some_and(holds)
    }

    fn take_lock(&self, world: &mut World, txn: Txn, object: usize) {
        if world.objects[object].place == Place::At(world.txns[txn].peer) {
            self.queue_local(world, txn, object);
        } else {
            world.txns[txn].intents[object] = Intent::Waiting;
            self.want_ownership(world, txn, object);
        }
    }

    fn queue_local(&self, world: &mut World, txn: Txn, object: usize) {
        let lock = &world.objects[object];
        let first = lock.waiters.oldest().is_none_or(|oldest| txn <= oldest);
        if lock.holder.is_none() && first && !Self::is_pinned_before(world, object, txn) {
            Self::grant(world, txn, object);
            return;
        }
        world.objects[object].waiters.insert(txn);
        world.txns[txn].intents[object] = Intent::Waiting;
        self.wound(world, object, txn);
        self.hand_over(world, object);
    }

    fn grant(world: &mut World, txn: Txn, object: usize) {
        let lock = &mut world.objects[object];
        lock.waiters.remove(txn);
        lock.holder = Some(txn);
        world.txns[txn].intents[object] = Intent::Held;
    }

    /// R12: an older one wounds a younger holder, which loses all its locks at once.
    fn wound(&self, world: &mut World, object: usize, by: Txn) {
        let Some(victim) = world.objects[object].holder else { return };
        if !self.wounds || (by > victim && self.spares_the_older) || by == victim {
            return;
        }
        let txn = &mut world.txns[victim];
        let parked = txn.intents.contains(&Intent::Waiting);
        for (lock_first, intent) in txn.lock_first.iter_mut().zip(txn.intents) {
            *lock_first |= intent != Intent::None;
        }
        txn.status = Status::Wounded;
        world.wounded.insert(victim);
        world.wounded_while_parked |= parked;
        self.give_up_everything(world, victim);
    }

    fn give_up_everything(&self, world: &mut World, txn: Txn) {
        let peer = world.txns[txn].peer;
        let intents = std::mem::replace(&mut world.txns[txn].intents, [Intent::None; OBJECTS]);
        for (object, intent) in intents.iter().enumerate() {
            match intent {
                Intent::None => {}
                Intent::Held => world.objects[object].holder = None,
                Intent::Waiting => {
                    // A lock that is elsewhere is waited for by the fetch, not by the transaction.
                    if world.objects[object].place == Place::At(peer) {
                        world.objects[object].waiters.remove(txn);
                    }
                    if let Some(fetch) = &mut world.fetches[peer][object] {
                        fetch.owners.remove(txn);
                    }
                }
            }
        }
        for object in (0..self.objects).filter(|object| intents[*object] == Intent::Held) {
            self.hand_over(world, object);
        }
    }

    /// Gives a free object to the oldest who waits for it, here or elsewhere.
    fn hand_over(&self, world: &mut World, object: usize) {
        let lock = &world.objects[object];
        let (Place::At(peer), Some(oldest)) = (lock.place, lock.waiters.oldest()) else { return };
        let is_remote = world.txns[oldest].peer != peer;
        let is_held = lock.holder.is_some() && (self.waits_for_holder || !is_remote);
        if is_held || Self::is_pinned_before(world, object, oldest) {
            return;
        }
        if is_remote {
            self.transfer_out(world, object, peer, 1 - peer);
        } else {
            Self::grant(world, oldest, object);
        }
    }

    /// The object leaves, and its waiters here are sent after it.
    fn transfer_out(&self, world: &mut World, object: usize, from: usize, to: usize) {
        let waiters = world.objects[object].waiters;
        world.objects[object] = Object { place: Place::Granted(to), holder: None, pin: None, waiters: Ages::default() };
        for txn in waiters.iter().filter(|txn| world.txns[*txn].peer == from).collect::<Vec<_>>() {
            self.want_ownership(world, txn, object);
        }
    }

    fn want_ownership(&self, world: &mut World, txn: Txn, object: usize) {
        let peer = world.txns[txn].peer;
        let fetch = &mut world.fetches[peer][object];
        // R14: a fetch in flight has the age of its oldest waiter and is sent again when that changes.
        let sends = fetch.is_none_or(|fetch| txn < fetch.asked_age && self.raises_age);
        let fetch = fetch.get_or_insert(Fetch { owners: Ages::default(), asked_age: txn });
        fetch.owners.insert(txn);
        if sends {
            self.send_request(world, peer, object);
        }
    }

    fn send_request(&self, world: &mut World, peer: usize, object: usize) {
        let Some(fetch) = &mut world.fetches[peer][object] else { return };
        let Some(oldest) = fetch.owners.oldest() else { return };
        if self.raises_age {
            fetch.asked_age = oldest;
        }
        world.requests[1 - peer][object].insert(fetch.asked_age);
    }

    /// Whether a request that arrives would be answered now; one for an object that is on its way here waits for it.
    fn own_asked(&self, world: &mut World, to: usize, object: usize, age: Txn) {
        world.requests[to][object].remove(age);
        if world.objects[object].place != Place::At(to) {
            // It is where it was asked for, or on its way there.
            return;
        }
        let others: Vec<Txn> = world.objects[object].waiters.iter().filter(|txn| world.txns[*txn].peer != to).collect();
        for other in others {
            world.objects[object].waiters.remove(other);
        }
        world.objects[object].waiters.insert(age);
        self.wound(world, object, age);
        self.hand_over(world, object);
    }

    fn transfer_in(&self, world: &mut World, object: usize) {
        let Place::Granted(peer) = world.objects[object].place else { return };
        world.objects[object].place = Place::At(peer);
        if let Some(fetch) = world.fetches[peer][object].take() {
            // R14: pinned for who fetched it, over its attempts.
            let fetcher = fetch.owners.oldest().unwrap_or(fetch.asked_age);
            if world.txns[fetcher].status != Status::Committed {
                world.objects[object].pin = Some(fetcher);
            }
            for owner in fetch.owners.iter() {
                self.queue_local(world, owner, object);
            }
        }
        self.hand_over(world, object);
    }

    /// Whether the timer of a search has anything to do.
    fn is_fetch_due(&self, world: &World, peer: usize, object: usize) -> bool {
        let Some(fetch) = world.fetches[peer][object] else { return false };
        let Some(oldest) = fetch.owners.oldest() else { return true };
        let age = if self.raises_age { oldest } else { fetch.asked_age };
        let Object { place, waiters, .. } = world.objects[object];
        let queued = waiters.contains(age) && place == Place::At(1 - peer);
        self.repeats && !queued && place != Place::Granted(peer) && !world.requests[1 - peer][object].contains(age)
    }
}

impl Model for WoundWait {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut worlds = Vec::new();
        for list in &self.lists {
            // The oldest is at peer 0; the other way round is the same.
            for peers in 0..1 << (list.len() - 1) {
                for places in 0..1 << self.objects {
                    let txn = |(txn, locks): (Txn, &Vec<usize>)| Transaction {
                        peer: ((peers << 1) >> txn) & 1,
                        locks: locks.clone(),
                        status: Status::Running,
                        intents: [Intent::None; OBJECTS],
                        lock_first: [false; OBJECTS],
                    };
                    let object = |object: usize| Object {
                        place: Place::At((places >> object) & 1),
                        holder: None,
                        pin: None,
                        waiters: Ages::default(),
                    };
                    worlds.push(World {
                        txns: list.iter().enumerate().map(txn).collect(),
                        objects: (0..self.objects).map(object).collect(),
                        fetches: Default::default(),
                        requests: Default::default(),
                        wounded: Ages::default(),
                        wounded_while_parked: false,
                    });
                }
            }
        }
        worlds
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (number, txn) in world.txns.iter().enumerate() {
            match txn.status {
                Status::Wounded => actions.push(Action::Retry(number)),
                Status::Running if !txn.intents.contains(&Intent::Waiting) => {
                    let is_done = txn.locks.iter().all(|object| txn.intents[*object] == Intent::Held);
                    actions.push(if is_done { Action::Commit(number) } else { Action::Intend(number) });
                }
                Status::Running | Status::Committed => {}
            }
        }
        for (number, object) in world.objects.iter().enumerate() {
            if matches!(object.place, Place::Granted(_)) {
                actions.push(Action::TransferIn { object: number });
            }
            if self.pins_end && object.pin.is_some() {
                actions.push(Action::PinIdle { object: number });
            }
            for peer in 0..2 {
                if object.place != Place::Granted(peer) {
                    let ages = world.requests[peer][number].iter();
                    actions.extend(ages.map(|age| Action::Own { to: peer, object: number, age }));
                }
                if self.is_fetch_due(world, peer, number) {
                    actions.push(Action::FetchDue { peer, object: number });
                }
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Intend(txn) => {
                let Transaction { locks, intents, .. } = &next.txns[txn];
                let object = *locks.iter().find(|object| intents[**object] == Intent::None)?;
                self.take_lock(&mut next, txn, object);
            }
            Action::Retry(txn) => {
                next.txns[txn].status = Status::Running;
                // R15: all that former attempts locked, before anything else.
                for object in (0..self.objects).filter(|object| world.txns[txn].lock_first[*object]) {
                    if next.txns[txn].status == Status::Running && next.txns[txn].intents[object] == Intent::None {
                        self.take_lock(&mut next, txn, object);
                    }
                }
            }
            Action::Commit(txn) => {
                // R13: one step.
                next.txns[txn].status = Status::Committed;
                next.txns[txn].lock_first = [false; OBJECTS];
                self.give_up_everything(&mut next, txn);
                for object in 0..self.objects {
                    if next.objects[object].pin == Some(txn) {
                        next.objects[object].pin = None;
                        self.hand_over(&mut next, object);
                    }
                }
            }
            Action::Own { to, object, age } => self.own_asked(&mut next, to, object, age),
            Action::TransferIn { object } => self.transfer_in(&mut next, object),
            Action::FetchDue { peer, object } => {
                if world.fetches[peer][object].is_some_and(|fetch| fetch.owners.oldest().is_none()) {
                    next.fetches[peer][object] = None;
                } else {
                    self.send_request(&mut next, peer, object);
                }
            }
            Action::PinIdle { object } => {
                next.objects[object].pin = None;
                self.hand_over(&mut next, object);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NO_DEADLOCK, |model: &Self, world: &World| {
                let mut actions = Vec::new();
                model.actions(world, &mut actions);
                !actions.is_empty() || is_over(world)
            }),
            Property::always(OLDEST, |_: &Self, world: &World| !world.wounded.contains(0)),
            Property::always(ONE_HOLDER, |model: &Self, world: &World| {
                (0..model.objects).all(|object| {
                    let holds = |txn: &&Transaction| txn.intents[object] == Intent::Held;
                    world.txns.iter().filter(holds).count() <= 1
                })
            }),
            Property::always(HELD_HERE, |model: &Self, world: &World| {
                world.txns.iter().enumerate().all(|(number, txn)| {
                    let holds = |object: &usize| {
                        let Object { place, holder, .. } = world.objects[*object];
                        holder == Some(number) && place == Place::At(txn.peer)
                    };
                    (0..model.objects)
                        .filter(|object| txn.intents[*object] == Intent::Held)
                        .all(|object| holds(&object))
                })
            }),
            Property::sometimes("everything is committed", |_: &Self, world: &World| is_over(world)),
            Property::sometimes("all but the oldest are wounded, and commit", |_: &Self, world: &World| {
                is_over(world) && (1..world.txns.len()).all(|txn| world.wounded.contains(txn))
            }),
            Property::sometimes("one that waits is wounded", |_: &Self, world: &World| world.wounded_while_parked),
            Property::sometimes("a pin is in the way", |model: &Self, world: &World| {
                (0..model.objects).any(|object| {
                    let Object { holder, waiters, .. } = world.objects[object];
                    let first = waiters.oldest();
                    holder.is_none() && first.is_some_and(|first| Self::is_pinned_before(world, object, first))
                })
            }),
        ]
    }
}

const NO_DEADLOCK: &str = "no transaction waits for ever";
const OLDEST: &str = "the oldest is never wounded";
const ONE_HOLDER: &str = "one holder of a lock";
const HELD_HERE: &str = "who takes itself for the holder is, where the object is";

fn is_over(world: &World) -> bool {
    world.txns.iter().all(|txn| txn.status == Status::Committed)
}

#[test]
fn three_transactions_lock_two_objects_in_each_order() {
    assert_holds("two objects", WoundWait::two_objects(), 170_000);
}

#[test]
fn three_transactions_lock_three_objects_in_a_circle() {
    assert_holds("three objects", WoundWait::three_objects(), 27_000);
}

#[test]
fn pins_that_end_by_themselves_do_no_harm() {
    assert_holds("pins end", WoundWait { pins_end: true, ..WoundWait::two_objects() }, 290_000);
}

#[test]
fn everything_can_be_committed_from_everywhere() {
    assert_can_end("two objects", &WoundWait::two_objects(), is_over);
}

#[test]
fn waits_for_younger_ones_are_noticed() {
    assert_broken("nobody is wounded", WoundWait { wounds: false, ..WoundWait::two_objects() }, NO_DEADLOCK);
    assert_broken("a fetch keeps its age", WoundWait { raises_age: false, ..WoundWait::two_objects() }, NO_DEADLOCK);
}

#[test]
fn wounds_of_older_ones_are_noticed() {
    assert_broken("all are wounded", WoundWait { spares_the_older: false, ..WoundWait::two_objects() }, OLDEST);
}

#[test]
fn objects_that_leave_while_they_are_held_are_noticed() {
    let broken = || WoundWait { waits_for_holder: false, ..WoundWait::two_objects() };
    assert_broken("objects leave at once", broken(), HELD_HERE);
    assert_broken("objects leave at once", broken(), ONE_HOLDER);
}

/// A later request of a peer takes the place of its former one. Where the two overtake each other, the younger age stays,
/// until the timer repeats the older one.
#[test]
fn requests_that_are_not_repeated_are_noticed() {
    let lists = vec![vec![vec![0], vec![1, 0], vec![0, 1], vec![0]]];
    assert_broken("nothing is repeated", WoundWait { repeats: false, ..WoundWait::new(2, lists.clone()) }, NO_DEADLOCK);
    assert_holds("four transactions", WoundWait::new(2, lists), 155_000);
}
