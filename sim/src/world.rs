//! The event loop: virtual time, messages on their way, timers, faults.
//!
//! It refuses threads, clocks and any randomness but the seed's, and to look into messages: one seed is one run. What bytes
//! cross from peer to peer are those that a live mesh would send.

use crate::bounds::HeldBefore;
use crate::executor::Executor;
use crate::hearing::Heard;
use crate::host::{Clock, SimHost};
use crate::lives::{MadeAt, Staff};
use crate::moments::LeftBehind;
use crate::network::Network;
use crate::observer::{Look, Observer, Opening};
use crate::old_copies::Image;
use crate::options::Options;
use crate::requests::{Request, Requests};
use crate::trace::Trace;
use crate::wall_clock::{WallClock, off_max_us};
use driftmesh_directory::HomeRing;
use driftmesh_model::ObjectId;
use driftmesh_model::limits::{CLOCK_AHEAD_MAX, MESSAGE_BYTES_MAX};
use driftmesh_model::{GroupId, PeerId, codec};
use driftmesh_object_store::Group;
use driftmesh_peer::session::Host;
use driftmesh_peer::{Commands, Envelope, Metrics, Peer, Seek};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::Waker;

/// Polls at one instant of virtual time, after which jobs are taken to spin for ever.
const POLLS_PER_INSTANT_MAX: u64 = 1_000_000;
/// With a lower bound of records than this, homes may forget.
const RECORDS_ENOUGH: usize = 1_000;
/// In one of so many seeds messages travel as bytes, and their lengths are looked at.
const SEEDS_PER_DECODED: u64 = 4;
/// Bounds are looked at in one of so many faults.
const FAULTS_PER_LOOK: u64 = 4;
/// How often somebody asks what became of a commit, us.
const ASK_EVERY_US: u64 = 50_000;
/// How often the routing lets two peers meet that had not, us.
const REFRESH_EVERY_US: u64 = 300_000;

pub(crate) enum Event {
    Deliver {
        from: usize,
        to: usize,
        /// Which starts of the two it belongs to: a connection ends with either.
        lives: (u64, u64),
        /// Its number among all messages.
        number: u64,
        envelope: Shipped,
    },
    Timer(usize),
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
    /// A peer that has crashed is started again, as itself or as somebody new.
    Return(usize, bool),
    /// A peer is set back to an image of its memory.
    SetBack(usize, Box<Peer>),
    /// The others find out that a start of a peer is over.
    Missed(usize, u64),
    /// All links are mended.
    Mend,
    /// Somebody asks what became of a commit.
    AskFate,
    /// A fault where something has begun a moment ago.
    Strike {
        index: usize,
        life: u64,
        group: GroupId,
        opening: Opening,
    },
}

/// A message on its way.
#[derive(Clone)]
pub(crate) enum Shipped {
    /// As what it says. Decoding is most of the work, so this is what most seeds do.
    Said(Arc<Envelope>),
    /// As its bytes, which are decoded when it arrives.
    Bytes(Arc<Vec<u8>>),
    /// As bytes that are no message.
    Rubbish(Arc<Vec<u8>>),
}

/// One simulated peer.
pub(crate) struct SimPeer {
    pub(crate) host: SimHost,
    pub(crate) id: PeerId,
    /// How often it was started.
    pub(crate) life: u64,
    pub(crate) wall_clock: WallClock,
    pub(crate) timer_set: Option<u64>,
    pub(crate) paused_until: u64,
    /// A number that stands for where all its journals were when they were looked at last.
    pub(crate) journals: u64,
    /// What it held, had committed and had been sent then.
    pub(crate) held: HeldBefore,
    pub(crate) mad: bool,
    /// It is down: it crashed, or said goodbye.
    pub(crate) gone: bool,
    /// And the others know that.
    pub(crate) missed: bool,
}

/// A whole simulated mesh.
pub(crate) struct Simulation {
    /// What a peer may hold while there are faults, bytes.
    pub(crate) held_bytes_max: u64,
    pub(crate) options: Arc<Options>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) peers: Vec<SimPeer>,
    pub(crate) executor: Executor,
    pub(crate) observer: Observer,
    pub(crate) rng: Rng,
    pub(crate) faults: u64,
    /// Faults so far at which bounds were looked at or might have been.
    looks_at_bounds: u64,
    pub(crate) requests: Requests,
    pub(crate) network: Network,
    queue: BTreeMap<(u64, u64), Event>,
    /// Room for what steps want done.
    spare_commands: Vec<Commands>,
    sequence: u64,
    messages: u64,
    pub(crate) trace: Trace,
    /// Polls since virtual time passed last.
    polls: u64,
    /// Pairs whose connection is down, lower index first.
    pub(crate) down: Vec<(usize, usize)>,
    /// Pairs that have not met, lower index first.
    pub(crate) strangers: BTreeSet<(usize, usize)>,
    /// Who begins to work at a peer that is started, if anybody does.
    pub(crate) staff: Option<Staff>,
    pub(crate) crashes: u64,
    /// What peers had counted that ended.
    pub(crate) former_metrics: Vec<Metrics>,
    /// Moments that opened at a peer and are good for a fault.
    pub(crate) moments: Vec<(usize, GroupId, Opening)>,
    /// A leader that is cut off, while its group goes on without it.
    pub(crate) left_behind: Option<LeftBehind>,
    /// An image of a peer's memory.
    pub(crate) image: Option<Image>,
    /// Groups that lost the majority of their voters: nobody but an operator could revive them.
    pub(crate) lost_groups: BTreeSet<GroupId>,
    /// What peers learnt, with the time and the peer.
    #[cfg(test)]
    pub(crate) heard: Vec<(u64, usize, Heard)>,
}

/// A number that changes when any journal of a peer does.
fn journals_of(peer: &Peer) -> u64 {
    peer.groups().fold(1, |sum, group| {
        // A peer that begins anew may lead another group at the same place.
        let id = group.id().as_u128();
        #[expect(clippy::cast_possible_truncation, reason = "half of it tells groups apart")]
        let places = [id as u64, group.term().as_u64(), group.tail().as_u64(), group.watermark().as_u64()];
        places
            .into_iter()
            .fold(sum, |sum: u64, place| sum.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(place.wrapping_add(1)))
    })
}

/// The homes of an object among all peers.
fn true_homes(peers: &[SimPeer], object: ObjectId) -> Vec<PeerId> {
    let mut ring = HomeRing::default();
    for peer in peers.iter().filter(|peer| !peer.gone) {
        ring.add(peer.id);
    }
    ring.homes(object)
}

impl Simulation {
    pub(crate) fn new(options: Options) -> Self {
        let (options_seed, options) = (options.seed, Arc::new(options));
        let clock = Arc::new(Clock::default());
        let mut rng = Rng::with_seed(options.seed);
        let requests = Requests::default();
        let place = |index| MadeAt { index, clock: Arc::clone(&clock), requests: requests.clone() };
        let peers = (0..options.peers).map(|index| place(index).first(&options, &mut rng)).collect();
        let mut simulation = Self {
            trace: Trace::new(options.seed, !options.untraced),
            options,
            clock,
            peers,
            executor: Executor::default(),
            held_bytes_max: u64::MAX,
            observer: Observer::default(),
            rng,
            faults: 0,
            looks_at_bounds: options_seed,
            requests,
            network: Network::default(),
            queue: BTreeMap::new(),
            spare_commands: Vec::new(),
            sequence: 0,
            messages: 0,
            polls: 0,
            down: Vec::new(),
            strangers: BTreeSet::new(),
            staff: None,
            crashes: 0,
            former_metrics: Vec::new(),
            moments: Vec::new(),
            left_behind: None,
            image: None,
            lost_groups: BTreeSet::new(),
            #[cfg(test)]
            heard: Vec::new(),
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
    pub(crate) fn meet(&mut self, left: usize, right: usize) {
        self.strangers.remove(&(left.min(right), left.max(right)));
        if self.peers[left].gone || self.peers[right].gone {
            return;
        }
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
        self.hear(at, Heard::Met(id, introduction), "joined");
    }

    /// How many messages were sent so far.
    pub(crate) const fn messages(&self) -> u64 {
        self.messages
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    /// Whether jobs wake each other without end while time stands still.
    pub(crate) const fn is_spinning(&self) -> bool {
        self.polls >= POLLS_PER_INSTANT_MAX
    }

    pub(crate) fn schedule(&mut self, at_us: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at_us.max(self.now_us()), self.sequence), event);
    }

    pub(crate) fn begin_faults(&mut self) {
        self.network.faulty = true;
        self.begin_little_room();
        self.schedule_fault();
        if !self.strangers.is_empty() {
            self.schedule(self.now_us() + REFRESH_EVERY_US, Event::Refresh);
        }
        self.schedule(self.now_us() + ASK_EVERY_US, Event::AskFate);
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
        if self.options.together || self.options.lossy {
            // Crashes that came together with changes of the members may have left too few.
            let lost = self.lost_with(&[]);
            self.lost_groups.extend(lost);
        }
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
            if !self.peers[index].gone {
                self.peers[index].host.step(|peer, _| peer.end_rare_branches());
                self.peers[index].host.step(|peer, _| peer.set_held_bytes_max(u64::MAX));
            }
            // Where leaving is no fault, somebody else's leaving is no business of ours.
            if self.options.restarts {
                self.stay(index);
            }
        }
    }

    /// A peer stays after all.
    pub(crate) fn stay(&mut self, index: usize) {
        if !self.peers[index].gone {
            self.peers[index].host.step(Peer::stay);
            self.collect(index, "stay");
        }
    }

    /// Whether somebody who is gone will be back.
    pub(crate) fn expects_somebody(&self) -> bool {
        self.queue.values().any(|event| matches!(event, Event::Return(_, _)))
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
            let Some(next) = self.queue.first_entry() else { return false };
            let at = next.key().0;
            if at > until_us {
                self.clock.set(until_us);
                return false;
            }
            let event = next.remove();
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
            self.hear(other, Heard::Left(id, true), "gone");
            self.hear(index, Heard::Left(other_id, false), "left");
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, lives, number, envelope } => self.deliver(from, to, lives, number, envelope),
            Event::Timer(index) => self.timer(index),
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
            Event::Stay(index) => self.stay(index),
            Event::Leave(index, until) => self.leave(index, until),
            Event::Return(index, as_itself) => self.begin_life(index, as_itself),
            Event::SetBack(index, peer) => self.set_back(index, *peer),
            Event::Missed(index, life) => self.missed(index, life),
            Event::Mend => self.network.mend(),
            Event::Strike { index, life, group, opening } => {
                if self.peers[index].life == life {
                    self.strike(index, group, opening);
                }
            }
            Event::AskFate => {
                if self.network.faulty {
                    self.ask_some_fate();
                    self.schedule(self.now_us() + ASK_EVERY_US, Event::AskFate);
                }
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, lives: (u64, u64), number: u64, envelope: Shipped) {
        let has_gone = self.peers[from].missed || self.peers[to].gone;
        if has_gone || lives != (self.peers[from].life, self.peers[to].life) {
            // One of the two has gone: its connections went with it.
            return;
        }
        if self.peers[to].paused_until > self.now_us() {
            let again = Event::Deliver { from, to, lives, number, envelope };
            self.schedule(self.peers[to].paused_until, again);
            return;
        }
        if self.down.contains(&(from.min(to), from.max(to))) {
            return;
        }
        self.trace.note(self.now_us(), to, "received", &number.to_be_bytes());
        let envelope = match envelope {
            Shipped::Said(envelope) => Arc::unwrap_or_clone(envelope),
            Shipped::Bytes(bytes) => codec::decode(&bytes).expect("what a peer encodes decodes"),
            Shipped::Rubbish(bytes) => {
                // A live peer counts and drops it.
                if codec::decode::<Envelope>(&bytes).is_ok() {
                    self.observer.wrong(format!("R25: {} bytes that are no message decode", bytes.len()));
                }
                return;
            }
        };
        let id = self.peers[from].id;
        self.hear(to, Heard::Said(id, envelope), "after received");
    }

    fn timer(&mut self, index: usize) {
        // An earlier timer was set after this one, and has taken its place.
        if self.peers[index].timer_set != Some(self.now_us()) || self.peers[index].gone {
            return;
        }
        self.peers[index].timer_set = None;
        let paused_until = self.peers[index].paused_until;
        if paused_until > self.now_us() {
            self.peers[index].timer_set = Some(paused_until);
            self.schedule(paused_until, Event::Timer(index));
            return;
        }
        let now_us = self.now_us();
        match self.peers[index].host.look(|peer| peer.next_timer()) {
            Some(wanted) if wanted.0 <= now_us => self.hear(index, Heard::Due(wanted), "timer"),
            // What it was set for is not wanted any more; a live peer is not told either.
            Some(_) | None => self.set_timer(index),
        }
    }

    /// Carries out what a peer's steps want done, and watches its journal.
    pub(crate) fn collect(&mut self, index: usize, what: &str) {
        if self.peers[index].gone {
            return;
        }
        let mut commands = std::mem::take(&mut self.spare_commands);
        let steps = self.peers[index].host.take_commands(&mut commands);
        self.trace.note(self.now_us(), index, what, &steps.to_be_bytes());
        for commands in commands.drain(..) {
            for txn in &commands.wakes {
                self.trace.note(self.now_us(), index, "wake", &txn.as_u64().to_be_bytes());
            }
            for (to, envelope) in commands.sends {
                self.ship(index, to, envelope);
            }
            for seek in commands.seeks {
                let after = self.rng.u64(1_000..1_000_000);
                self.schedule(self.now_us() + after, Event::Sought(index, seek));
            }
            for run in commands.tasks {
                if let Some(job) = self.peers[index].host.job_of(run) {
                    self.executor.spawn_boxed(Some(index), job);
                }
            }
        }
        self.spare_commands = commands;
        self.watch_journals(index);
        self.set_timer(index);
        self.use_moments();
        self.replace_superseded(index);
    }

    fn set_timer(&mut self, index: usize) {
        let next = self.peers[index].host.look(|peer| peer.next_timer());
        if let Some(at) = next.map(|at| at.0.max(self.now_us()))
            && self.peers[index].timer_set.is_none_or(|set| at < set)
        {
            self.peers[index].timer_set = Some(at);
            self.schedule(at, Event::Timer(index));
        }
    }

    pub(crate) fn ship(&mut self, from: usize, to: PeerId, envelope: Envelope) {
        self.messages += 1;
        // Encoding is a tenth of all work. What nobody wants to have as bytes is encoded in some seeds only, to be measured.
        let as_bytes = self.options.seed.is_multiple_of(SEEDS_PER_DECODED);
        let is_long = envelope.about_bytes() > MESSAGE_BYTES_MAX / 2;
        let bytes =
            (as_bytes || is_long || self.trace.is_wanted()).then(|| codec::encode(&envelope).expect("messages encode"));
        if let Some(bytes) = &bytes {
            self.trace.note(self.now_us(), from, "send", bytes);
            if (as_bytes || is_long) && bytes.len() > MESSAGE_BYTES_MAX {
                // A live network refuses it, so what it says would never be heard.
                self.observer.wrong(format!("R24: peer {from} sends a message of {} bytes", bytes.len()));
                return;
            }
        }
        let Some(to) = self.peers.iter().position(|peer| peer.id == to) else { return };
        if self.options.drop_message == Some(self.messages) {
            return;
        }
        let in_haste = envelope.message.is_in_haste();
        if let Some(rubbish) = self.rubbish_after(&envelope) {
            self.deliver_later(from, to, rubbish, in_haste);
        }
        let shipped = match bytes.filter(|_| as_bytes) {
            Some(bytes) => Shipped::Bytes(Arc::new(bytes)),
            None => Shipped::Said(Arc::new(envelope)),
        };
        self.deliver_later(from, to, shipped, in_haste);
    }

    fn deliver_later(&mut self, from: usize, to: usize, shipped: Shipped, in_haste: bool) {
        for after in self.network.send(&mut self.rng, &self.options, (from, to), in_haste) {
            let lives = (self.peers[from].life, self.peers[to].life);
            let (number, envelope) = (self.messages, shipped.clone());
            self.schedule(self.now_us() + after, Event::Deliver { from, to, lives, number, envelope });
        }
    }

    fn watch_journals(&mut self, index: usize) {
        self.check_growth(index);
        // A commit may lie ahead of the true time by what the peer's own clock does, by what the guard lets through
        // from others, and by what those were ahead.
        let own = self.peers[index].wall_clock.ahead_max_us();
        let others = off_max_us(&self.options).unsigned_abs();
        let ahead_us = own + CLOCK_AHEAD_MAX.0 + 2 * others + 1_000;
        let true_wall_us = SimHost::true_wall_us(&self.clock);
        let now_us = self.clock.now_us();
        let unstable_max_us = self.options.unstable_max_us;
        let mut look = Look { trace: &mut self.trace, now_us, peer: index, true_wall_us, ahead_us, unstable_max_us };
        let (observer, moments) = (&mut self.observer, &mut self.moments);
        let former = self.peers[index].journals;
        let mut present = 0;
        let left = self.peers[index].host.look(|peer| {
            present = journals_of(peer);
            if present == former {
                return false;
            }
            let own = peer.group().id();
            let all: Vec<GroupId> = peer.groups().map(Group::id).collect();
            observer.forget_left(peer.group().consensus().me(), &all, |group| peer.has_ended(group));
            let mut any_left = false;
            for group in peer.groups() {
                let (openings, left) = observer.watch(group, group.id() == own, &mut look);
                any_left |= left && group.id() == own;
                moments.extend(openings.into_iter().map(|opening| (index, group.id(), opening)));
            }
            any_left
        });
        self.peers[index].journals = present;
        self.observer.judge();
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
        if self.left_behind.is_some() {
            // It takes several steps that no other fault may undo.
            return;
        }
        let peers = self.peers.len();
        self.check_pointers(&(0..peers).collect::<Vec<_>>());
        self.looks_at_bounds += 1;
        if self.looks_at_bounds.is_multiple_of(FAULTS_PER_LOOK) {
            self.check_bounds();
        }
        if self.options.old_copies {
            self.use_image();
        }
        let now_us = self.now_us();
        let one = self.rng.usize(..peers);
        let kinds = 12 + u8::from(self.options.clock_jumps) + u8::from(self.options.slow_peers);
        // Only what does something counts. Nothing may be drawn for that, and nothing may depend on the count.
        let is_done = match self.rng.u8(..kinds) {
            0..=2 if peers > 1 => {
                self.network.partition(&mut self.rng, &self.options, peers);
                true
            }
            // That is no fault.
            3..=5 => {
                self.network.mend();
                false
            }
            6 | 7 if peers > 1 => {
                let other = (one + self.rng.usize(1..peers)) % peers;
                self.disconnect(one.min(other), one.max(other))
            }
            8 if self.options.stalls => {
                self.pause(one);
                true
            }
            9 if self.options.restarts && !self.peers[one].mad && !self.peers[one].gone => {
                self.peers[one].host.step(Peer::drain);
                self.collect(one, "drain");
                if self.rng.bool() {
                    self.schedule(now_us + 20_000, Event::Leave(one, now_us + 4_000_000));
                } else {
                    let until = now_us + self.rng.u64(10_000..500_000);
                    self.schedule(until, Event::Stay(one));
                }
                true
            }
            10 | 11 => self.crash_if_allowed(one),
            12 if self.options.clock_jumps => {
                self.peers[one].wall_clock.set(&mut self.rng);
                true
            }
            12 | 13 => {
                self.network.slow_down(one);
                true
            }
            _ => false,
        };
        self.faults += u64::from(is_done);
    }

    /// A peer stands still for a while.
    pub(crate) fn pause(&mut self, index: usize) {
        self.peers[index].paused_until = self.now_us() + self.rng.u64(1_000..self.options.stall_max_us.max(1_001));
    }

    /// A draining peer goes when it may.
    fn leave(&mut self, index: usize, until: u64) {
        let may_go =
            !self.peers[index].gone && self.peers[index].host.look(|peer| peer.is_drained() && peer.is_quiet());
        if may_go && self.network.faulty {
            self.end_life(index, true);
            self.begin_life(index, false);
        } else if self.now_us() < until && self.network.faulty {
            self.schedule(self.now_us() + 20_000, Event::Leave(index, until));
        } else {
            self.stay(index);
        }
    }

    /// Says whether there was a connection that could break.
    pub(crate) fn disconnect(&mut self, left: usize, right: usize) -> bool {
        if self.down.contains(&(left, right)) || self.strangers.contains(&(left, right)) {
            return false;
        }
        if self.peers[left].gone || self.peers[right].gone {
            return false;
        }
        self.down.push((left, right));
        for (at, other) in [(left, right), (right, left)] {
            let id = self.peers[other].id;
            self.hear(at, Heard::Left(id, false), "left");
        }
        let until = self.now_us() + self.rng.u64(1_000..1_000_000);
        self.schedule(until, Event::Rejoin(left, right));
        true
    }

    pub(crate) fn trace_hash(&self) -> Option<String> {
        self.trace.finish()
    }
}
