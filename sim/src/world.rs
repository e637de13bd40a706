//! The event loop: virtual time, messages on their way, timers, faults.

use crate::executor::Executor;
use crate::host::{Clock, Place, SimHost, now_at};
use crate::network::Network;
use crate::observer::Observer;
use crate::options::Options;
use crate::requests::{Request, Requests};
use crate::trace::Trace;
use driftmesh_directory::HomeRing;
use driftmesh_model::ObjectId;
use driftmesh_model::limits::CLOCK_AHEAD_MAX;
use driftmesh_model::{Incarnation, Lsn, Micros, PeerId, Timestamp, codec};
use driftmesh_peer::session::Host;
use driftmesh_peer::{Config, Envelope, Peer, Retain, Seek, Stability};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::Waker;

/// Polls at one instant of virtual time, after which jobs are taken to spin for ever.
const POLLS_PER_INSTANT_MAX: u64 = 1_000_000;
/// With a lower bound of records than this, homes may forget.
const RECORDS_ENOUGH: usize = 1_000;
/// How often the routing lets two peers meet that had not, us.
const REFRESH_EVERY_US: u64 = 300_000;
/// How far ahead the mad clock is, us.
const MAD_CLOCK_AHEAD_US: i64 = 600_000_000;

enum Event {
    Deliver {
        from: usize,
        to: usize,
        ids: (PeerId, PeerId),
        bytes: Vec<u8>,
    },
    Timer(usize),
    JournalHeld(usize, Lsn),
    Awake(Waker),
    JobReady(usize),
    Fault,
    Rejoin(usize, usize),
    Stay(usize),
    /// The routing answers what a peer asked it.
    Sought(usize, Seek),
    /// The routing of two peers that have not met refreshes itself.
    Refresh,
    /// A peer that drains goes as soon as it may, and comes back as somebody new; not after the time.
    Leave(usize, u64),
}

/// How a peer goes for good.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Going {
    /// Drained, with a goodbye.
    Clean,
    /// Without a word; it had nothing, and nothing was on its way to it.
    Crash,
}

/// One simulated peer.
pub(crate) struct SimPeer {
    pub(crate) host: SimHost,
    pub(crate) id: PeerId,
    pub(crate) wall_offset_us: i64,
    timer_set: Option<u64>,
    paused_until: u64,
    journal_hashed: Lsn,
    pub(crate) mad: bool,
    /// It said goodbye and does not come back.
    pub(crate) gone: bool,
}

/// A whole simulated mesh.
pub(crate) struct Simulation {
    pub(crate) options: Arc<Options>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) peers: Vec<SimPeer>,
    pub(crate) executor: Executor,
    pub(crate) observer: Observer,
    pub(crate) rng: Rng,
    pub(crate) faults: u64,
    pub(crate) requests: Requests,
    network: Network,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    messages: u64,
    trace: Trace,
    /// Polls since virtual time passed last.
    polls: u64,
    /// Pairs whose connection is down, lower index first.
    down: Vec<(usize, usize)>,
    /// Pairs that have not met, lower index first.
    strangers: BTreeSet<(usize, usize)>,
}

/// The homes of an object among all peers.
fn true_homes(peers: &[SimPeer], object: ObjectId) -> Vec<PeerId> {
    let mut ring = HomeRing::default();
    for peer in peers {
        ring.add(peer.id);
    }
    ring.homes(object)
}

fn peer_id(seed: u64, index: usize) -> PeerId {
    let mut hasher = blake3::Hasher::new_derive_key("driftmesh simulator peer v1");
    hasher.update(&seed.to_be_bytes());
    hasher.update(&(index as u64).to_be_bytes());
    PeerId::from_bytes(*hasher.finalize().as_bytes())
}

impl Simulation {
    pub(crate) fn new(options: Options) -> Self {
        let options = Arc::new(options);
        let clock = Arc::new(Clock::default());
        let mut rng = Rng::with_seed(options.seed);
        let requests = Requests::default();
        let place = |index| (index, Arc::clone(&clock), requests.clone());
        let peers = (0..options.peers).map(|index| new_peer(&options, place(index), &mut rng)).collect();
        let mut simulation = Self {
            trace: Trace::new(options.seed),
            options,
            clock,
            peers,
            executor: Executor::default(),
            observer: Observer::default(),
            rng,
            faults: 0,
            requests,
            network: Network::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            messages: 0,
            polls: 0,
            down: Vec::new(),
            strangers: BTreeSet::new(),
        };
        for left in 0..simulation.peers.len() {
            for right in left + 1..simulation.peers.len() {
                // With strangers, each knows the one after it, as if it had joined by it.
                if simulation.options.strangers && right > left + 1 {
                    simulation.strangers.insert((left, right));
                } else {
                    simulation.meet(left, right);
                }
            }
        }
        simulation
    }

    /// Two peers are connected and admit each other.
    fn meet(&mut self, left: usize, right: usize) {
        self.strangers.remove(&(left.min(right), left.max(right)));
        self.join(left, right);
        self.join(right, left);
    }

    /// The routing answers: late, and often in part, with somebody else, or not at all.
    fn sought(&mut self, at: usize, seek: Seek) {
        let wanted: Vec<usize> = match seek {
            Seek::Peer(id) => self.peers.iter().position(|peer| peer.id == id).into_iter().collect(),
            Seek::Near(object) => {
                let homes = true_homes(&self.peers, object);
                (0..self.peers.len()).filter(|index| homes.contains(&self.peers[*index].id)).collect()
            }
        };
        for other in wanted {
            let other = if self.rng.u8(..4) == 0 { self.rng.usize(..self.peers.len()) } else { other };
            let pair = (at.min(other), at.max(other));
            if self.strangers.contains(&pair) && self.rng.bool() {
                self.meet(at, other);
            }
        }
    }

    /// Peer `at` learns that `other` is connected.
    fn join(&mut self, at: usize, other: usize) {
        let introduction = self.peers[other].host.look(|peer| peer.introduction());
        let id = self.peers[other].id;
        self.peers[at].host.step(|peer, now| peer.joined(now, id, introduction));
        self.collect(at, "joined");
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    /// Whether jobs wake each other without end while time stands still.
    pub(crate) const fn is_spinning(&self) -> bool {
        self.polls >= POLLS_PER_INSTANT_MAX
    }

    fn schedule(&mut self, at_us: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at_us.max(self.now_us()), self.sequence), event);
    }

    pub(crate) fn begin_faults(&mut self) {
        self.network.faulty = true;
        self.schedule_fault();
        if !self.strangers.is_empty() {
            self.schedule(self.now_us() + REFRESH_EVERY_US, Event::Refresh);
        }
    }

    fn schedule_fault(&mut self) {
        if self.options.fault_every_us > 0 && self.network.faulty {
            let wait = self.rng.u64(0..=2 * self.options.fault_every_us);
            self.schedule(self.now_us() + wait, Event::Fault);
        }
    }

    /// No faults from now on, and everything is mended.
    pub(crate) fn heal(&mut self) {
        self.network.faulty = false;
        self.network.mend();
        let now_us = self.now_us();
        for (left, right) in self.down.clone() {
            self.schedule(now_us, Event::Rejoin(left, right));
        }
        for (left, right) in std::mem::take(&mut self.strangers) {
            self.meet(left, right);
        }
        for index in 0..self.peers.len() {
            self.peers[index].paused_until = 0;
            // Where leaving is no fault, somebody else's leaving is no business of ours.
            if self.options.restarts {
                self.peers[index].host.step(|peer, _| peer.stay());
                self.collect(index, "stay");
            }
        }
    }

    /// Runs until `done` says so or virtual time reaches `until_us`. Returns whether it was done.
    pub(crate) fn run(&mut self, until_us: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        loop {
            self.poll_ready();
            if done(self) {
                return true;
            }
            if self.is_spinning() {
                return false;
            }
            let Some((&(at, sequence), _)) = self.queue.first_key_value() else { return false };
            if at > until_us {
                self.clock.set(until_us);
                return false;
            }
            let Some(event) = self.queue.remove(&(at, sequence)) else { return false };
            if at > self.now_us() {
                self.polls = 0;
            }
            self.clock.set(at);
            self.handle(event);
        }
    }

    fn poll_ready(&mut self) {
        loop {
            // Also before the first poll: who stands outside of the world may have asked for something.
            self.answer_requests();
            if self.is_spinning() {
                return;
            }
            let Some((job, at)) = self.executor.next_ready() else { return };
            let paused_until = at.map_or(0, |at| self.peers[at].paused_until);
            if paused_until > self.now_us() {
                self.schedule(paused_until, Event::JobReady(job));
                continue;
            }
            self.polls += 1;
            self.executor.poll(job);
            for (until, waker) in self.clock.new_sleepers() {
                self.schedule(until, Event::Awake(waker));
            }
            if let Some(at) = at {
                self.collect(at, "client");
            }
            // A user's job may have taken steps at any peer.
            for other in 0..self.peers.len() {
                if self.peers[other].host.has_commands() {
                    self.collect(other, "user");
                }
            }
        }
    }

    /// Does what running jobs have asked for.
    fn answer_requests(&mut self) {
        for request in self.requests.take() {
            match request {
                Request::Spawn(at, job) => self.executor.spawn_boxed(at, job),
                Request::Heal => self.heal(),
                Request::Goodbye(index) => self.goodbye(index),
            }
        }
    }

    /// A peer goes for good, with a goodbye. What it has not handed over is gone with it.
    fn goodbye(&mut self, index: usize) {
        if std::mem::replace(&mut self.peers[index].gone, true) {
            return;
        }
        let id = self.peers[index].id;
        for other in 0..self.peers.len() {
            let pair = (index.min(other), index.max(other));
            if other == index || self.peers[other].gone || self.down.contains(&pair) {
                continue;
            }
            self.down.push(pair);
            let other_id = self.peers[other].id;
            self.peers[other].host.step(|peer, now| peer.left(now, id, true));
            self.collect(other, "gone");
            self.peers[index].host.step(|peer, now| peer.left(now, other_id, false));
            self.collect(index, "left");
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, ids, bytes } => self.deliver(from, to, ids, bytes),
            Event::Timer(index) => self.timer(index),
            Event::JournalHeld(index, lsn) => {
                self.peers[index].host.step(|peer, now| peer.journal_held(now, lsn));
                self.collect(index, "held");
            }
            Event::Awake(waker) => waker.wake(),
            Event::JobReady(job) => self.executor.make_ready(job),
            Event::Fault => {
                if self.network.faulty {
                    self.fault();
                    self.schedule_fault();
                }
            }
            Event::Rejoin(left, right) => {
                if self.down.contains(&(left, right)) && !self.peers[left].gone && !self.peers[right].gone {
                    self.down.retain(|pair| *pair != (left, right));
                    self.meet(left, right);
                }
            }
            Event::Sought(at, seek) => {
                if self.network.faulty {
                    self.sought(at, seek);
                }
            }
            Event::Refresh => {
                let pair = self.rng.choice(self.strangers.iter().copied().collect::<Vec<_>>());
                if let Some((left, right)) = pair.filter(|_| self.network.faulty) {
                    self.meet(left, right);
                    self.schedule(self.now_us() + REFRESH_EVERY_US, Event::Refresh);
                }
            }
            Event::Stay(index) => {
                self.peers[index].host.step(|peer, _| peer.stay());
                self.collect(index, "stay");
            }
            Event::Leave(index, until) => self.leave(index, until),
        }
    }

    fn deliver(&mut self, from: usize, to: usize, ids: (PeerId, PeerId), bytes: Vec<u8>) {
        if ids != (self.peers[from].id, self.peers[to].id) {
            // One of the two has gone: its connections went with it.
            return;
        }
        if self.peers[to].paused_until > self.now_us() {
            self.schedule(self.peers[to].paused_until, Event::Deliver { from, to, ids, bytes });
            return;
        }
        if self.down.contains(&(from.min(to), from.max(to))) {
            return;
        }
        self.trace.note(self.now_us(), to, "received", &bytes);
        let envelope: Envelope = codec::decode(&bytes).expect("what a peer encodes decodes");
        let id = self.peers[from].id;
        self.peers[to].host.step(|peer, now| peer.received(now, id, envelope));
        self.collect(to, "after received");
    }

    fn timer(&mut self, index: usize) {
        // An earlier timer was set after this one, and has taken its place.
        if self.peers[index].timer_set != Some(self.now_us()) {
            return;
        }
        self.peers[index].timer_set = None;
        let paused_until = self.peers[index].paused_until;
        if paused_until > self.now_us() {
            self.peers[index].timer_set = Some(paused_until);
            self.schedule(paused_until, Event::Timer(index));
            return;
        }
        self.peers[index].host.step(Peer::timers_due);
        self.collect(index, "timer");
    }

    /// Carries out what a peer's steps want done, and watches its journal.
    fn collect(&mut self, index: usize, what: &str) {
        let (steps, commands) = self.peers[index].host.take_commands();
        self.trace.note(self.now_us(), index, what, &steps.to_be_bytes());
        for commands in commands {
            for txn in &commands.wakes {
                self.trace.note(self.now_us(), index, "wake", &txn.as_u64().to_be_bytes());
            }
            if let Some(lsn) = commands.appended {
                let after = self.rng.u64(0..=2 * self.options.stable_after_us);
                self.schedule(self.now_us() + after, Event::JournalHeld(index, lsn));
            }
            for (to, envelope) in commands.sends {
                self.ship(index, to, &envelope);
            }
            for seek in commands.seeks {
                let after = self.rng.u64(1_000..1_000_000);
                self.schedule(self.now_us() + after, Event::Sought(index, seek));
            }
        }
        self.hash_journal(index);
        let next = self.peers[index].host.look(|peer| peer.next_timer());
        if let Some(at) = next.map(|at| at.0.max(self.now_us()))
            && self.peers[index].timer_set.is_none_or(|set| at < set)
        {
            self.peers[index].timer_set = Some(at);
            self.schedule(at, Event::Timer(index));
        }
    }

    fn ship(&mut self, from: usize, to: PeerId, envelope: &Envelope) {
        let bytes = codec::encode(envelope).expect("messages encode");
        self.messages += 1;
        self.trace.note(self.now_us(), from, "send", &bytes);
        let Some(to) = self.peers.iter().position(|peer| peer.id == to) else { return };
        if self.options.drop_message == Some(self.messages) {
            return;
        }
        for after in self.network.send(&mut self.rng, &self.options, from, to) {
            let ids = (self.peers[from].id, self.peers[to].id);
            self.schedule(self.now_us() + after, Event::Deliver { from, to, ids, bytes: bytes.clone() });
        }
    }

    fn hash_journal(&mut self, index: usize) {
        let now_us = self.now_us();
        let sim_peer = &mut self.peers[index];
        let (trace, observer) = (&mut self.trace, &mut self.observer);
        let hashed = sim_peer.journal_hashed;
        let offset = sim_peer.wall_offset_us.max(0).unsigned_abs();
        // A commit may lie ahead of the true time by what the peer's own clock does, by what the guard lets through
        // from others, and by what those were ahead.
        let bound = SimHost::true_wall_us(&self.clock) + offset + CLOCK_AHEAD_MAX.0 + 2 * self.options.skew_us + 1_000;
        let left = sim_peer.host.look(|peer| {
            let group = peer.group();
            for (_, entry) in group.journal().entries_from(hashed.next()) {
                let bytes = codec::encode(entry).expect("entries encode");
                trace.note(now_us, index, "journal", &bytes);
            }
            observer.watch(group, Timestamp::from_wall(Micros(bound)))
        });
        sim_peer.journal_hashed = sim_peer.host.look(|peer| peer.group().journal().tail());
        if left {
            self.check_pointers(&[index]);
        }
    }

    /// R3: at every fault, and for a group whenever something leaves it.
    fn check_pointers(&mut self, which: &[usize]) {
        if self.options.records_max < RECORDS_ENOUGH {
            return;
        }
        let wrong = self.observer.departures.check(&self.peers, which, self.observer.restarts);
        if let Some(text) = wrong {
            self.observer.wrong(text);
        }
    }

    fn fault(&mut self) {
        self.faults += 1;
        let peers = self.peers.len();
        self.check_pointers(&(0..peers).collect::<Vec<_>>());
        let now_us = self.now_us();
        let one = self.rng.usize(..peers);
        match self.rng.u8(..10) {
            0..=2 if peers > 1 => self.network.partition(&mut self.rng, peers),
            3..=5 => self.network.mend(),
            6 | 7 if peers > 1 => {
                let other = (one + self.rng.usize(1..peers)) % peers;
                self.disconnect(one.min(other), one.max(other));
            }
            8 if self.options.stalls => self.peers[one].paused_until = now_us + self.rng.u64(1_000..1_500_000),
            9 if !self.options.restarts => {}
            9 if self.rng.u8(..4) == 0 && self.has_nothing(one) && self.is_idle(one) => self.go(one, Going::Crash),
            9 if !self.peers[one].mad => {
                self.peers[one].host.step(|peer, now| peer.drain(now));
                self.collect(one, "drain");
                if self.rng.bool() {
                    self.schedule(now_us + 20_000, Event::Leave(one, now_us + 2_000_000));
                } else {
                    let until = now_us + self.rng.u64(10_000..500_000);
                    self.schedule(until, Event::Stay(one));
                }
            }
            _ => {}
        }
    }

    /// A draining peer goes when it may.
    fn leave(&mut self, index: usize, until: u64) {
        let may_go = self.peers[index].host.look(|peer| peer.is_drained() && peer.is_quiet());
        if may_go && self.network.faulty {
            self.go(index, Going::Clean);
        } else if self.now_us() < until && self.network.faulty {
            self.schedule(self.now_us() + 20_000, Event::Leave(index, until));
        } else {
            self.peers[index].host.step(|peer, _| peer.stay());
            self.collect(index, "stay");
        }
    }

    /// Whether no client waits for anything at this peer: the simulator keeps them through a restart.
    fn is_idle(&self, index: usize) -> bool {
        self.peers[index].host.look(|peer| peer.status(now_at(&self.clock, 0)).transactions == 0)
    }

    /// Whether a crash of this peer destroys nothing: it owns nothing and nothing is on its way to it.
    fn has_nothing(&self, index: usize) -> bool {
        let group = self.peers[index].host.look(|peer| peer.group().id());
        let empty = |peer: &mut Peer| peer.group().owned_count() + peer.group().in_transit_count() == 0;
        let sends = |other: &SimPeer| other.host.look(|peer| peer.group().unsettled_to(group).count() > 0);
        self.peers[index].host.look(empty) && !self.peers.iter().any(sends)
    }

    /// A peer goes and comes back as somebody new: another id, another incarnation, another group.
    fn go(&mut self, index: usize, going: Going) {
        let former = self.peers[index].id;
        self.down.retain(|(left, right)| *left != index && *right != index);
        for other in 0..self.peers.len() {
            if other != index {
                self.peers[other].host.step(|peer, now| peer.left(now, former, going == Going::Clean));
                self.collect(other, "gone");
            }
        }
        self.observer.restarts += 1;
        let id = peer_id(self.options.seed, index + 1_000 * self.observer.restarts);
        let config = new_config(&self.options, &mut self.rng, id, false);
        self.peers[index].host.replace(|now| Peer::new(config, now));
        let peer = &mut self.peers[index];
        (peer.id, peer.timer_set, peer.journal_hashed) = (id, None, Lsn::ZERO);
        for other in 0..self.peers.len() {
            if other != index {
                self.meet(index, other);
            }
        }
    }

    fn disconnect(&mut self, left: usize, right: usize) {
        if self.down.contains(&(left, right)) || self.strangers.contains(&(left, right)) {
            return;
        }
        self.down.push((left, right));
        for (at, other) in [(left, right), (right, left)] {
            let id = self.peers[other].id;
            self.peers[at].host.step(|peer, now| peer.left(now, id, false));
            self.collect(at, "left");
        }
        let until = self.now_us() + self.rng.u64(1_000..1_000_000);
        self.schedule(until, Event::Rejoin(left, right));
    }

    pub(crate) fn trace_hash(&self) -> String {
        self.trace.finish()
    }
}

fn new_peer(options: &Options, place: (usize, Arc<Clock>, Requests), rng: &mut Rng) -> SimPeer {
    let (index, clock, requests) = place;
    let id = peer_id(options.seed, index);
    let mad = options.mad_clock && index + 1 == options.peers;
    let skew = i64::try_from(options.skew_us).unwrap_or(0);
    let wall_offset_us = if mad { MAD_CLOCK_AHEAD_US } else { rng.i64(-skew..=skew) };
    let config = new_config(options, rng, id, index == 0);
    let place = Place { index, clock, requests, wall_offset_us };
    let host = SimHost::new(place, |now| Peer::new(config, now));
    SimPeer { host, id, wall_offset_us, timer_set: None, paused_until: 0, journal_hashed: Lsn::ZERO, mad, gone: false }
}

fn new_config(options: &Options, rng: &mut Rng, id: PeerId, founder: bool) -> Config {
    let mut seed = [0; 32];
    seed.fill_with(|| rng.u8(..));
    let incarnation = Incarnation::from_u64(rng.u64(..));
    let mut config = Config::new(id, incarnation, seed);
    config.retain = Retain::Everything;
    config.stability = if options.stable_after_us > 0 { Stability::Reported } else { Stability::OnAppend };
    config.version_bytes_max = options.version_bytes_max;
    config.pointers_max = options.pointers_max;
    config.pointer_grace = Micros(options.pointer_grace_us);
    config.records_max = NonZeroUsize::new(options.records_max).unwrap_or(NonZeroUsize::MIN);
    #[cfg(feature = "sabotage")]
    {
        config.sabotage = options.sabotage;
    }
    config.founder = founder;
    config.name_bucket_entries_max = options.name_bucket_entries_max;
    config
}
