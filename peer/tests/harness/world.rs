//! The peers, the clock, and the messages in flight.

use super::jobs::Jobs;
use driftmesh_model::{GroupId, Incarnation, Lsn, Micros, Now, ObjectId, PeerId, Timestamp, TxnId};
use driftmesh_object_store::{Entry, Group};
use driftmesh_peer::session::{Host, Wakers};
use driftmesh_peer::{Commands, Config, Envelope, Message, Metrics, Peer, RareEvent, Run, Status};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Where the wall clocks begin: 2026-01-01, us since the UNIX epoch.
const WALL_START_US: u64 = 1_767_225_600_000_000;
/// Where the monotonic clock begins.
const MONO_START_US: u64 = 1_000_000;
/// A mesh that does more than this without time passing runs in circles.
const EVENTS_MAX: usize = 200_000;

/// A message on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Flight {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) envelope: Envelope,
}

impl Flight {
    pub(crate) fn message(&self) -> &Message {
        &self.envelope.message
    }
}

/// What happens to messages that a rule fits, as soon as they are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    Drop,
    /// Kept aside until `release`.
    Hold,
    /// Under way for so many microseconds.
    Delay(u64),
}

type Predicate = Box<dyn Fn(&Flight) -> bool + Send>;

/// How one peer begins.
pub(crate) struct Setup {
    pub(crate) config: Config,
    /// Its wall clock minus the true one, us.
    pub(crate) wall_offset_us: i64,
}

/// Whether a peer runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SeatState {
    Runs,
    /// It stands still: messages for it wait.
    Paused,
    Dead,
}

struct Seat {
    peer: Peer,
    wall_offset_us: i64,
    wakers: Wakers,
    woken: BTreeSet<TxnId>,
    /// What it was asked to run: tasks of other peers, and what is due.
    tasks: Vec<Run>,
    state: SeatState,
}

pub(super) struct World {
    seats: Vec<Seat>,
    mono_us: u64,
    flight: VecDeque<Flight>,
    held: Vec<Flight>,
    /// What arrives later, by when and in which order.
    delayed: BTreeMap<(u64, u64), Flight>,
    delays: u64,
    /// What arrived at peers that stand still.
    unheard: Vec<Flight>,
    rules: Vec<(Rule, Predicate)>,
    /// Everything ever sent, heartbeats excepted.
    log: Vec<Flight>,
    sleepers: Vec<(u64, Waker)>,
    disconnected: BTreeSet<(usize, usize)>,
}

/// Several peers under a test's control. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mesh {
    world: Arc<Mutex<World>>,
    pub(super) jobs: Arc<Mutex<Jobs>>,
}

/// One peer of the mesh, as the session needs it.
#[derive(Clone)]
pub(crate) struct SeatHost {
    mesh: Mesh,
    at: usize,
}

/// The identity of the peer with this index.
pub(crate) fn peer_id(index: usize) -> PeerId {
    let mut bytes = [7; 32];
    bytes[0] = u8::try_from(index).expect("few peers");
    PeerId::from_bytes(bytes)
}

fn index_of(peer: &PeerId) -> usize {
    usize::from(peer.as_bytes()[0])
}

fn config_of(index: usize, incarnation: u64) -> Config {
    let mut seed = [3; 32];
    seed[0] = u8::try_from(index).expect("few peers");
    seed[1..9].copy_from_slice(&incarnation.to_be_bytes());
    let mut config = Config::new(peer_id(index), Incarnation::from_u64(incarnation), seed);
    // Unless a test says otherwise each group is one peer, whose journal is stable at once and kept as a whole.
    config.replicas = 0;
    config.journal.keep_bytes = u64::MAX;
    // A founder begins with the directory buckets, which most tests have no use for.
    config.founder = false;
    config
}

impl World {
    fn now(&self, at: usize) -> Now {
        let wall = (WALL_START_US + self.mono_us).saturating_add_signed(self.seats[at].wall_offset_us);
        Now { mono: Micros(self.mono_us), wall: Micros(wall) }
    }

    fn carry_out(&mut self, from: usize, commands: Commands) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let seat = &mut self.seats[from];
        for txn in commands.wakes {
            seat.woken.insert(txn);
            wakers.append(&mut seat.wakers.take(txn));
        }
        seat.tasks.extend(commands.tasks);
        for (to, envelope) in commands.sends {
            self.send(Flight { from, to: index_of(&to), envelope });
        }
        wakers
    }

    fn send(&mut self, flight: Flight) {
        if !super::is_heartbeat(&flight) {
            self.log.push(flight.clone());
        }
        if self.disconnected.contains(&(flight.from, flight.to)) {
            return;
        }
        match self.rules.iter().find(|(_, fits)| fits(&flight)) {
            None => self.flight.push_back(flight),
            Some((Rule::Hold, _)) => self.held.push(flight),
            Some((Rule::Drop, _)) => {}
            Some((Rule::Delay(micros), _)) => {
                self.delays += 1;
                self.delayed.insert((self.mono_us + micros, self.delays), flight);
            }
        }
    }

    fn runs(&self, at: usize) -> bool {
        self.seats[at].state == SeatState::Runs
    }

    /// Takes the next message that has arrived at a peer that runs.
    fn next_arrival(&mut self) -> Option<Flight> {
        while let Some(first) = self.delayed.first_entry().filter(|first| first.key().0 <= self.mono_us) {
            let flight = first.remove();
            self.flight.push_back(flight);
        }
        while let Some(flight) = self.flight.pop_front() {
            match self.seats[flight.to].state {
                SeatState::Runs => return Some(flight),
                SeatState::Paused => self.unheard.push(flight),
                SeatState::Dead => {}
            }
        }
        None
    }

    fn lose(&mut self, one: usize, other: usize) {
        self.disconnected.extend([(one, other), (other, one)]);
        let lost = |flight: &Flight| [(one, other), (other, one)].contains(&(flight.from, flight.to));
        self.flight.retain(|flight| !lost(flight));
        self.unheard.retain(|flight| !lost(flight));
        self.delayed.retain(|_, flight| !lost(flight));
    }
}

impl Mesh {
    /// So many peers with good clocks and the defaults, all of whom know each other.
    pub(crate) fn new(peers: usize) -> Self {
        Self::with(peers, |_, _| {})
    }

    /// So many peers, each on a machine of its own, whose groups have `replicas` followers, or as many as there can be.
    pub(crate) fn replicated(peers: usize, replicas: usize) -> Self {
        Self::replicated_with(peers, replicas, |_, _| {})
    }

    /// The same, each set up by the test.
    pub(crate) fn replicated_with(peers: usize, replicas: usize, mut set_up: impl FnMut(usize, &mut Setup)) -> Self {
        let mesh = Self::with(peers, |at, setup| {
            setup.config.replicas = replicas;
            setup.config.domain = at as u64;
            set_up(at, setup);
        });
        mesh.run_until("all groups are whole", 10_000, || mesh.all_whole());
        mesh.run(100);
        mesh
    }

    /// Whether every group that a living peer leads has all members that it can have.
    pub(crate) fn all_whole(&self) -> bool {
        self.alive().into_iter().all(|at| {
            self.status(at).groups.iter().filter(|group| self.leads(at, group.group)).all(|group| group.is_whole)
        })
    }

    /// Whether a peer leads a group.
    pub(crate) fn leads(&self, at: usize, id: GroupId) -> bool {
        self.look_at_group(at, id, Group::is_leading) == Some(true)
    }

    /// What a peer says of itself.
    pub(crate) fn status(&self, at: usize) -> Status {
        let now = self.now(at);
        self.look(at, |peer| peer.status(now))
    }

    /// Entries of a peer's own journal reach nobody from now on; its signs of life do.
    pub(crate) fn hold_entries(&self, at: usize) {
        self.rule(Rule::Hold, move |flight| flight.from == at && super::is_entries(flight));
    }

    /// So many peers, each set up by the test.
    pub(crate) fn with(peers: usize, mut set_up: impl FnMut(usize, &mut Setup)) -> Self {
        let world = World {
            seats: Vec::new(),
            mono_us: MONO_START_US,
            flight: VecDeque::new(),
            held: Vec::new(),
            delayed: BTreeMap::new(),
            delays: 0,
            unheard: Vec::new(),
            rules: Vec::new(),
            log: Vec::new(),
            sleepers: Vec::new(),
            disconnected: BTreeSet::new(),
        };
        let mesh = Self { world: Arc::new(Mutex::new(world)), jobs: Arc::default() };
        for index in 0..peers {
            let mut setup = Setup { config: config_of(index, index as u64 + 1), wall_offset_us: 0 };
            set_up(index, &mut setup);
            mesh.seat(None, setup);
        }
        for one in 0..peers {
            for other in 0..one {
                mesh.connect(one, other);
            }
        }
        mesh.settle();
        mesh
    }

    fn seat(&self, at: Option<usize>, setup: Setup) {
        let mut world = self.lock();
        let wall = (WALL_START_US + world.mono_us).saturating_add_signed(setup.wall_offset_us);
        let now = Now { mono: Micros(world.mono_us), wall: Micros(wall) };
        let seat = Seat {
            peer: Peer::new(setup.config, now),
            wall_offset_us: setup.wall_offset_us,
            wakers: Wakers::default(),
            woken: BTreeSet::new(),
            tasks: Vec::new(),
            state: SeatState::Runs,
        };
        match at {
            Some(at) => world.seats[at] = seat,
            None => world.seats.push(seat),
        }
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many peers there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().seats.len()
    }

    /// One peer as a host for sessions.
    pub(crate) fn host(&self, at: usize) -> SeatHost {
        SeatHost { mesh: self.clone(), at }
    }

    fn take<R>(&self, at: usize, step: impl FnOnce(&mut Peer, Now) -> R, after: impl FnOnce(&R, &mut Wakers)) -> R {
        let (result, wakers) = {
            let mut world = self.lock();
            let now = world.now(at);
            let seat = &mut world.seats[at];
            let result = step(&mut seat.peer, now);
            after(&result, &mut seat.wakers);
            let commands = seat.peer.take_commands();
            let wakers = world.carry_out(at, commands);
            (result, wakers)
        };
        for waker in wakers {
            waker.wake();
        }
        result
    }

    /// Takes the tasks that a peer was asked to run.
    pub(crate) fn take_tasks(&self, at: usize) -> Vec<Run> {
        std::mem::take(&mut self.lock().seats[at].tasks)
    }

    /// Takes one step at a peer.
    pub(crate) fn step<R>(&self, at: usize, step: impl FnOnce(&mut Peer, Now) -> R) -> R {
        self.take(at, step, |_, _| {})
    }

    /// Looks at a peer without taking a step.
    pub(crate) fn look<R>(&self, at: usize, look: impl FnOnce(&Peer) -> R) -> R {
        look(&self.lock().seats[at].peer)
    }

    // Members.

    /// Two peers can reach each other, and know it.
    pub(crate) fn connect(&self, one: usize, other: usize) {
        {
            let mut world = self.lock();
            world.disconnected.remove(&(one, other));
            world.disconnected.remove(&(other, one));
        }
        for (at, of) in [(one, other), (other, one)] {
            let introduction = self.look(of, Peer::introduction);
            self.step(at, |peer, now| peer.joined(now, peer_id(of), introduction));
        }
    }

    /// Two peers cannot reach each other any more, and know it; what was in flight between them is lost.
    pub(crate) fn disconnect(&self, one: usize, other: usize) {
        self.cut(one, other);
        self.step(one, |peer, now| peer.left(now, peer_id(other), false));
        self.step(other, |peer, now| peer.left(now, peer_id(one), false));
    }

    /// Messages between two peers are lost from now on; neither knows.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        self.lock().lose(one, other);
    }

    /// Two peers that were cut off from each other can reach each other again; neither knew.
    pub(crate) fn heal(&self, one: usize, other: usize) {
        let mut world = self.lock();
        world.disconnected.remove(&(one, other));
        world.disconnected.remove(&(other, one));
    }

    /// A peer dies: all others see its connections end.
    pub(crate) fn kill(&self, dead: usize) {
        self.kill_all(&[dead]);
    }

    /// Peers die together: all others see their connections end.
    pub(crate) fn kill_all(&self, dead: &[usize]) {
        for at in dead {
            self.lock().seats[*at].state = SeatState::Dead;
        }
        for at in dead {
            for other in (0..self.len()).filter(|other| other != at) {
                self.cut(*at, other);
                if self.lives(other) {
                    self.step(other, |peer, now| peer.left(now, peer_id(*at), false));
                }
            }
        }
    }

    /// Whether a peer has not died.
    pub(crate) fn lives(&self, at: usize) -> bool {
        self.lock().seats[at].state != SeatState::Dead
    }

    /// Whether a peer stands still.
    pub(crate) fn stands_still(&self, at: usize) -> bool {
        self.lock().seats[at].state == SeatState::Paused
    }

    /// The peers that have not died.
    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..self.len()).filter(|at| self.lives(*at)).collect()
    }

    /// A peer stands still: it does nothing, and what is sent to it waits. Nobody is told.
    pub(crate) fn pause(&self, at: usize) {
        self.lock().seats[at].state = SeatState::Paused;
    }

    /// It goes on: what was sent to it has arrived, and its timers are late.
    pub(crate) fn resume(&self, at: usize) {
        let mut world = self.lock();
        world.seats[at].state = SeatState::Runs;
        let (arrived, left) = std::mem::take(&mut world.unheard).into_iter().partition(|flight| flight.to == at);
        world.unheard = left;
        let arrived: Vec<Flight> = arrived;
        world.flight.extend(arrived);
    }

    /// A dead peer starts again, as another incarnation that knows nothing, and is admitted by all.
    pub(crate) fn restart(&self, at: usize) {
        self.restart_with(at, |_| {});
    }

    /// The same, set up by the test.
    pub(crate) fn restart_with(&self, at: usize, set_up: impl FnOnce(&mut Setup)) {
        let former = self.look(at, |peer| peer.introduction().incarnation.as_u64());
        let wall_offset_us = self.lock().seats[at].wall_offset_us;
        let mut setup = Setup { config: config_of(at, former + 1_000), wall_offset_us };
        set_up(&mut setup);
        self.seat(Some(at), setup);
        for other in self.alive().into_iter().filter(|other| *other != at) {
            self.connect(at, other);
        }
    }

    /// A peer's memory as it is now.
    pub(crate) fn image(&self, at: usize) -> Peer {
        self.look(at, Clone::clone)
    }

    /// In the place of a dead peer an image of it comes to life. Its connections are broken, and it makes others.
    pub(crate) fn set_back(&self, at: usize, image: Peer) {
        {
            let mut world = self.lock();
            let seat = &mut world.seats[at];
            (seat.peer, seat.state, seat.wakers) = (image, SeatState::Runs, Wakers::default());
        }
        let others: Vec<usize> = self.alive().into_iter().filter(|other| *other != at).collect();
        for other in &others {
            self.step(at, |peer, now| peer.left(now, peer_id(*other), false));
        }
        for other in others {
            self.connect(at, other);
        }
    }

    /// One more peer comes, and is admitted by all. Returns its number.
    pub(crate) fn join(&self, set_up: impl FnOnce(&mut Setup)) -> usize {
        let at = self.len();
        let mut setup = Setup { config: config_of(at, at as u64 + 1), wall_offset_us: 0 };
        set_up(&mut setup);
        self.seat(None, setup);
        for other in self.alive().into_iter().filter(|other| *other != at) {
            self.connect(at, other);
        }
        at
    }

    /// The same, but all that has arrived is taken in as one step, before anything is sent.
    pub(crate) fn resume_in_one_step(&self, at: usize) {
        self.resume(at);
        let arrived = self.intercept(|flight| flight.to == at);
        self.step(at, |peer, now| {
            for flight in arrived {
                peer.received(now, peer_id(flight.from), flight.envelope);
            }
        });
    }

    // Messages.

    /// Says something in a peer's name, which arrives after all that is in flight.
    pub(crate) fn forge_later(&self, from: usize, to: usize, message: Message) {
        let clock = Timestamp::from_wall(self.now(from).wall);
        self.lock().send(Flight { from, to, envelope: Envelope { clock, message } });
    }

    /// What is in flight.
    pub(crate) fn in_flight(&self, fits: impl Fn(&Flight) -> bool) -> Vec<Flight> {
        self.lock().flight.iter().filter(|flight| fits(flight)).cloned().collect()
    }

    /// Everything ever sent, heartbeats excepted.
    pub(crate) fn sent(&self, fits: impl Fn(&Flight) -> bool) -> Vec<Flight> {
        self.lock().log.iter().filter(|flight| fits(flight)).cloned().collect()
    }

    /// Forgets what was sent so far.
    pub(crate) fn clear_log(&self) {
        self.lock().log.clear();
    }

    /// Takes messages out of flight.
    pub(crate) fn intercept(&self, fits: impl Fn(&Flight) -> bool) -> Vec<Flight> {
        let mut world = self.lock();
        let (taken, left) = std::mem::take(&mut world.flight).into_iter().partition(|flight| fits(flight));
        world.flight = left;
        taken.into()
    }

    /// Delivers a message now, whether or not it was ever sent.
    pub(crate) fn hand(&self, flight: Flight) {
        self.step(flight.to, |peer, now| peer.received(now, peer_id(flight.from), flight.envelope));
    }

    /// Says something in a peer's name, with that peer's clock.
    pub(crate) fn forge(&self, from: usize, to: usize, message: Message) {
        let clock = Timestamp::from_wall(self.now(from).wall);
        self.hand(Flight { from, to, envelope: Envelope { clock, message } });
    }

    /// Delivers what is in flight and fits, in the order it was sent; not what that causes. Returns how many.
    pub(crate) fn deliver(&self, fits: impl Fn(&Flight) -> bool) -> usize {
        let taken = self.intercept(fits);
        let count = taken.len();
        for flight in taken {
            self.hand(flight);
        }
        count
    }

    /// From now on messages that fit are dropped or held as soon as they are sent.
    pub(crate) fn rule(&self, rule: Rule, fits: impl Fn(&Flight) -> bool + Send + 'static) {
        self.lock().rules.push((rule, Box::new(fits)));
    }

    /// Ends all rules, and puts what they held in flight. Returns what that is.
    pub(crate) fn release(&self) -> Vec<Flight> {
        let mut world = self.lock();
        world.rules.clear();
        let held = std::mem::take(&mut world.held);
        world.flight.extend(held.iter().cloned());
        held
    }

    /// Takes what the rules hold. The rules stay.
    pub(crate) fn take_held(&self) -> Vec<Flight> {
        std::mem::take(&mut self.lock().held)
    }

    /// How many messages the rules hold.
    pub(crate) fn held(&self, fits: impl Fn(&Flight) -> bool) -> usize {
        self.lock().held.iter().filter(|flight| fits(flight)).count()
    }

    // Time.

    /// The time at a peer.
    pub(crate) fn now(&self, at: usize) -> Now {
        self.lock().now(at)
    }

    /// A peer's wall clock is set to so many microseconds off the true one.
    pub(crate) fn set_wall_offset(&self, at: usize, wall_offset_us: i64) {
        self.lock().seats[at].wall_offset_us = wall_offset_us;
    }

    /// The time since the start, us.
    pub(crate) fn mono_us(&self) -> u64 {
        self.lock().mono_us
    }

    /// The earliest timer or sleeper.
    fn next_event(&self) -> Option<u64> {
        let world = self.lock();
        let runs = world.seats.iter().filter(|seat| seat.state == SeatState::Runs);
        let timers = runs.filter_map(|seat| seat.peer.next_timer()).map(|at| at.0);
        let arrivals = world.delayed.keys().map(|(at, _)| *at);
        timers.chain(arrivals).chain(world.sleepers.iter().map(|(until, _)| *until)).min()
    }

    fn fire_due(&self) -> bool {
        let mut fired = false;
        for at in 0..self.len() {
            let due = {
                let world = self.lock();
                world.runs(at) && world.seats[at].peer.next_timer().is_some_and(|timer| timer.0 <= world.mono_us)
            };
            if due {
                self.step(at, |peer, now| peer.timers_due(now));
                fired = true;
            }
        }
        let awake: Vec<Waker> = {
            let mut world = self.lock();
            let now = world.mono_us;
            let (awake, asleep) = std::mem::take(&mut world.sleepers).into_iter().partition(|(until, _)| *until <= now);
            world.sleepers = asleep;
            let awake: Vec<(u64, Waker)> = awake;
            awake.into_iter().map(|(_, waker)| waker).collect()
        };
        fired |= !awake.is_empty();
        for waker in awake {
            waker.wake();
        }
        fired
    }

    /// Fires what is due, runs what was woken and delivers everything, until nothing is left to do at this moment.
    pub(crate) fn settle(&self) {
        for _ in 0..EVENTS_MAX {
            if self.fire_due() || self.run_jobs() {
                continue;
            }
            let Some(flight) = self.lock().next_arrival() else { return };
            self.hand(flight);
        }
        panic!("the mesh does not come to rest");
    }

    /// Settles, then lets time pass to the next event, and settles again.
    pub(crate) fn tick(&self) {
        self.settle();
        if let Some(next) = self.next_event() {
            self.jump_to(next);
            self.settle();
        }
    }

    fn jump_to(&self, mono_us: u64) {
        let mut world = self.lock();
        world.mono_us = world.mono_us.max(mono_us);
    }

    /// Lets time pass without anything happening, not even timers.
    pub(crate) fn freeze(&self, millis: u64) {
        self.lock().mono_us += millis * 1_000;
    }

    /// Lets time pass.
    pub(crate) fn run(&self, millis: u64) {
        self.run_us(millis * 1_000);
    }

    /// Lets time pass.
    pub(crate) fn run_us(&self, micros: u64) {
        let end = self.mono_us() + micros;
        self.settle();
        while self.next_event().is_some_and(|next| next <= end) {
            self.tick();
        }
        self.jump_to(end);
        self.settle();
    }

    /// Lets time pass until something is true; fails the test if it is not within so many milliseconds.
    pub(crate) fn run_until(&self, what: &str, millis: u64, mut is_true: impl FnMut() -> bool) {
        let end = self.mono_us() + millis * 1_000;
        self.settle();
        while !is_true() {
            assert!(self.mono_us() <= end, "not within {millis} ms: {what}");
            self.tick();
        }
    }

    /// Sleeps in virtual time.
    pub(crate) async fn sleep(&self, millis: u64) {
        let until = self.mono_us() + millis * 1_000;
        std::future::poll_fn(|context| {
            let mut world = self.lock();
            if world.mono_us >= until {
                return Poll::Ready(());
            }
            world.sleepers.push((until, context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    // What can be seen of the peers.

    /// Looks at every group that a peer leads: its own, and those of dead founders.
    pub(crate) fn look_at_led<R>(&self, at: usize, look: impl Fn(&Group) -> R) -> Vec<R> {
        self.look(at, |peer| peer.groups().filter(|group| group.is_leading()).map(look).collect())
    }

    /// Looks at one group as one of its members sees it; `None` if the peer does not belong to it.
    pub(crate) fn look_at_group<R>(&self, at: usize, id: GroupId, look: impl FnOnce(&Group) -> R) -> Option<R> {
        self.look(at, |peer| peer.groups().find(|group| group.id() == id).map(look))
    }

    /// The id of the group that a peer works in.
    pub(crate) fn group_id(&self, at: usize) -> GroupId {
        self.look(at, |peer| peer.group().id())
    }

    /// The living peers that lead a group which owns an object.
    pub(crate) fn owners_of(&self, object: ObjectId) -> Vec<usize> {
        let owns = |at: &usize| self.look_at_led(*at, |group| group.owned(object).is_some()).contains(&true);
        self.alive().into_iter().filter(owns).collect()
    }

    /// The only owner of an object; fails the test if there is none, or more than one.
    pub(crate) fn owner_of(&self, object: ObjectId) -> usize {
        let owners = self.owners_of(object);
        assert_eq!(owners.len(), 1, "owners of {object}: {owners:?}");
        owners[0]
    }

    /// The epoch of an object at its owner.
    pub(crate) fn epoch_of(&self, object: ObjectId) -> u64 {
        let epochs = self.look_at_led(self.owner_of(object), |group| group.owned(object).map(|stored| stored.epoch));
        epochs.into_iter().flatten().next().map_or(0, |epoch| epoch.as_u64())
    }

    /// The whole journal of a peer's own group.
    pub(crate) fn journal(&self, at: usize) -> Vec<Entry> {
        self.look(at, |peer| peer.group().entries_from(Lsn::ZERO).map(|(_, entry)| entry.clone()).collect())
    }

    /// The end of a peer's own journal.
    pub(crate) fn tail(&self, at: usize) -> Lsn {
        self.look(at, |peer| peer.group().tail())
    }

    /// Up to where a peer's own journal is stable.
    pub(crate) fn watermark(&self, at: usize) -> Lsn {
        self.look(at, |peer| peer.group().watermark())
    }

    /// A peer's counters.
    pub(crate) fn metrics(&self, at: usize) -> Metrics {
        self.look(at, |peer| peer.metrics().clone())
    }

    /// How often a rare event happened at a peer.
    pub(crate) fn rare(&self, at: usize, event: RareEvent) -> u64 {
        self.look(at, |peer| peer.metrics().rare.get(&event).copied().unwrap_or(0))
    }

    /// Whether the core has woken a transaction since this was asked last.
    pub(super) fn take_woken(&self, at: usize, id: TxnId) -> bool {
        self.lock().seats[at].woken.remove(&id)
    }
}

impl Host for SeatHost {
    fn step<R>(&self, step: impl FnOnce(&mut Peer, Now) -> R) -> R {
        self.mesh.step(self.at, step)
    }

    fn poll_step<R>(
        &self,
        txn: TxnId,
        context: &mut Context<'_>,
        step: impl FnOnce(&mut Peer, Now) -> Poll<R>,
    ) -> Poll<R> {
        self.mesh.take(self.at, step, |result, wakers| {
            if result.is_pending() {
                wakers.park(txn, context.waker());
            }
        })
    }
}
