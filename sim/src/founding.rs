//! Founding a mesh under faults: fresh peers that start late, crash, and come back as others, over links that lose,
//! double, delay and cut, and in some seeds a mesh that somebody else founded beside them.
//!
//! It checks outcomes: never two geneses from one group of fresh peers, one that a peer of the group proposed, and
//! once the faults have stopped and enough peers live, one mesh with all of them. It refuses to look into the vote.

use crate::network::Network;
use crate::options::{Options, Overrides};
use driftmesh_model::{GenesisId, Micros, PeerId};
use driftmesh_peer::{Founding, FoundingConfig, FoundingMessage, FoundingOutput, Sabotage};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};

const SECOND_US: u64 = 1_000_000;
/// When the faults stop.
const FAULTS_END_US: u64 = 14 * SECOND_US;
/// When everything must have ended: several of the longest waits between two ballots, and the latest start.
const END_US: u64 = 120 * SECOND_US;
/// The spread of delays once the faults have stopped.
const CALM_DELAY_US: u64 = 100_000;
/// Mean time between two changes of the links' state.
const LINKS_CHANGE_US: u64 = 700_000;
/// The genesis of the mesh beside.
const BESIDE: GenesisId = GenesisId::from_u128(u128::MAX);

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct FoundingReport {
    /// The seed.
    pub seed: u64,
    /// What was drawn from it.
    pub options: String,
    /// What must not have happened.
    pub violations: Vec<String>,
    /// Messages that arrived.
    pub messages: u64,
    /// Peers that brought a ballot to its end.
    pub founded: usize,
    /// Peers that crashed.
    pub crashes: usize,
    /// Whether there was a mesh beside.
    pub beside: bool,
}

/// The sizes and times of a seed.
#[derive(Debug)]
struct Plan {
    expect: usize,
    /// When each peer starts: fewer than twice `expect`, those that start again included.
    starts: Vec<u64>,
    /// Who crashes when.
    crashes: Vec<(usize, u64)>,
    /// When a peer of the mesh beside comes into reach.
    beside: Option<u64>,
    /// How often a link that works is taken for lost, in percent.
    flapping: u8,
    /// Longest time until a peer finds out what became of another, us: long ones let several ballots end.
    look_max_us: u64,
}

impl Plan {
    fn draw(rng: &mut Rng) -> Self {
        let expect = rng.usize(1..=5);
        let count = rng.usize(expect..2 * expect);
        let latest = [100_000, SECOND_US, 6 * SECOND_US, 20 * SECOND_US][rng.usize(..4)];
        let mut starts: Vec<_> = (0..count).map(|_| rng.u64(0..latest)).collect();
        // In most seeds enough peers are left for a mesh.
        let spare = if rng.u8(..4) == 0 { count } else { count - expect };
        let mut crashes = Vec::new();
        for (peer, start) in starts.iter_mut().enumerate().take(rng.usize(..=spare)) {
            let after = if rng.bool() { rng.u64(0..10 * SECOND_US) } else { rng.u64(2 * SECOND_US..4 * SECOND_US) };
            *start = (*start).min(FAULTS_END_US / 2);
            crashes.push((peer, *start + after));
        }
        let beside = (rng.u8(..6) == 0).then(|| rng.u64(0..10 * SECOND_US));
        Self {
            expect,
            starts,
            crashes,
            beside,
            flapping: [0, 0, 5, 30][rng.usize(..4)],
            look_max_us: [500_000, 8_000_000][rng.usize(..2)],
        }
    }
}

struct Node {
    id: PeerId,
    /// `None` for the peer of the mesh beside.
    founding: Option<Founding>,
    is_up: bool,
    genesis: Option<GenesisId>,
    armed: Option<Micros>,
}

#[derive(Debug)]
enum Event {
    Start(usize),
    Crash(usize),
    /// One peer finds out whether it can reach another, and what that one is.
    Look(usize, usize),
    Deliver {
        from: usize,
        to: usize,
        message: FoundingMessage,
    },
    Timer(usize),
    LinksChange,
    FaultsEnd,
}

struct World {
    rng: Rng,
    options: Options,
    plan: Plan,
    network: Network,
    nodes: Vec<Node>,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    now_us: u64,
    messages: u64,
    founded: usize,
    /// Every genesis that anybody ever had, with the first who had it.
    geneses: BTreeMap<GenesisId, usize>,
}

/// Runs one seed, with a rule broken on purpose or none; breaking one needs the feature `sabotage`.
#[must_use]
pub fn run_founding_seed(seed: u64, sabotage: Option<Sabotage>) -> FoundingReport {
    let mut world = World::new(seed, sabotage);
    world.run();
    world.report(seed)
}

fn id(index: usize) -> PeerId {
    // Neither the order of starts nor that of ids is to decide who goes first.
    PeerId::from_bytes(*blake3::hash(&index.to_be_bytes()).as_bytes())
}

fn genesis_of(index: usize) -> GenesisId {
    GenesisId::from_u128(index as u128 + 1)
}

impl World {
    fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x000F_0D1E);
        let plan = Plan::draw(&mut rng);
        let mut options = Options::draw(seed, &Overrides { sabotage, ..Overrides::default() });
        // Delays as long as the waits between ballots, so that ballots meet each other.
        options.delay_spread_us = [1_000, 50_000, 400_000, 2_000_000][rng.usize(..4)];
        let mut world = Self {
            rng,
            options,
            plan,
            network: Network::default(),
            nodes: Vec::new(),
            events: BTreeMap::new(),
            next_event: 0,
            now_us: 0,
            messages: 0,
            founded: 0,
            geneses: BTreeMap::new(),
        };
        world.network.faulty = true;
        for (index, start) in world.plan.starts.clone().into_iter().enumerate() {
            world.nodes.push(Node { id: id(index), founding: None, is_up: false, genesis: None, armed: None });
            world.at(start, Event::Start(index));
        }
        for (index, time) in world.plan.crashes.clone() {
            world.at(time, Event::Crash(index));
        }
        if let Some(time) = world.plan.beside {
            let index = world.nodes.len();
            world.nodes.push(Node { id: id(index), founding: None, is_up: false, genesis: Some(BESIDE), armed: None });
            world.at(time, Event::Start(index));
        }
        world.at(0, Event::LinksChange);
        world.at(FAULTS_END_US, Event::FaultsEnd);
        world
    }

    fn at(&mut self, time_us: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((time_us, self.next_event), event);
    }

    fn is_beside(&self, index: usize) -> bool {
        index >= self.plan.starts.len()
    }

    fn all_ended(&self) -> bool {
        let left = |node: &Node| node.is_up && node.genesis.is_none();
        let none_comes = self.plan.starts.iter().all(|start| *start <= self.now_us);
        self.now_us > FAULTS_END_US && none_comes && !self.nodes.iter().any(left)
    }

    fn run(&mut self) {
        while let Some(((time_us, _), event)) = self.events.pop_first() {
            if time_us > END_US || self.all_ended() {
                return;
            }
            self.now_us = time_us;
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        let now = Micros(self.now_us);
        match event {
            Event::Start(index) => self.start(index),
            Event::Crash(index) => self.nodes[index].is_up = false,
            Event::Look(from, to) => self.look(from, to),
            Event::Deliver { from, to, message } => {
                let from = self.nodes[from].id;
                self.messages += 1;
                self.input(to, |founding| founding.received(now, from, message));
            }
            Event::Timer(index) => {
                self.nodes[index].armed = None;
                self.input(index, |founding| founding.timer_due(now));
            }
            Event::LinksChange if self.network.faulty => {
                self.network.mend();
                if self.options.fault_every_us > 0 && self.rng.bool() {
                    let count = self.nodes.len();
                    self.network.partition(&mut self.rng, &self.options, count);
                }
                let next = self.now_us + self.rng.u64(1..2 * LINKS_CHANGE_US);
                self.at(next, Event::LinksChange);
            }
            Event::LinksChange => {}
            Event::FaultsEnd => {
                self.network.mend();
                self.network.faulty = false;
                // A way of seconds is a fault too: no ballot could end in its time.
                self.options.delay_spread_us = CALM_DELAY_US;
            }
        }
    }

    fn start(&mut self, index: usize) {
        self.nodes[index].is_up = true;
        if !self.is_beside(index) {
            let config = FoundingConfig {
                peer: self.nodes[index].id,
                expect: self.plan.expect,
                genesis: genesis_of(index),
                seed: self.rng.u64(..),
                #[cfg(feature = "sabotage")]
                sabotage: self.options.sabotage,
            };
            self.nodes[index].founding = Some(Founding::new(Micros(self.now_us), config));
            self.carry_out(index);
        }
        for other in (0..self.nodes.len()).filter(|other| *other != index) {
            for (from, to) in [(index, other), (other, index)] {
                let first = self.now_us + self.rng.u64(1_000..400_000);
                self.at(first, Event::Look(from, to));
            }
        }
    }

    /// What the handshake does: a fresh peer joins whoever has a mesh, and counts whoever is fresh too. The two sides
    /// of a link find out at different times.
    fn look(&mut self, from: usize, to: usize) {
        if !self.nodes[from].is_up {
            return;
        }
        let flaps = self.network.faulty && self.rng.u8(..100) < self.plan.flapping;
        let is_cut = self.network.is_cut(from, to) || self.network.is_cut(to, from) || !self.nodes[to].is_up || flaps;
        let (now, peer, theirs) = (Micros(self.now_us), self.nodes[to].id, self.nodes[to].genesis);
        match theirs {
            Some(_) | None if is_cut => self.input(from, |founding| founding.lost(now, peer)),
            None => self.input(from, |founding| founding.met(now, peer)),
            Some(genesis) if self.nodes[from].genesis.is_none() => {
                self.input(from, |founding| founding.adopted(genesis));
                self.belongs_to(from, genesis);
            }
            Some(_) => self.input(from, |founding| founding.lost(now, peer)),
        }
        if self.nodes[to].is_up {
            let next = self.now_us + self.rng.u64(50_000..self.plan.look_max_us);
            self.at(next, Event::Look(from, to));
        }
    }

    fn input(&mut self, index: usize, input: impl FnOnce(&mut Founding)) {
        let node = &mut self.nodes[index];
        if let Some(founding) = node.founding.as_mut().filter(|_| node.is_up) {
            input(founding);
            self.carry_out(index);
        }
    }

    fn carry_out(&mut self, index: usize) {
        let Some(founding) = &mut self.nodes[index].founding else { return };
        let (outputs, next) = (founding.take_outputs(), founding.next_timer());
        for output in outputs {
            match output {
                FoundingOutput::Send { to, message } => {
                    let Some(to) = self.nodes.iter().position(|node| node.id == to) else { continue };
                    for delay in self.network.send(&mut self.rng, &self.options, (index, to), false) {
                        self.at(self.now_us + delay, Event::Deliver { from: index, to, message });
                    }
                }
                FoundingOutput::Founded(proposal) => {
                    self.founded += 1;
                    self.belongs_to(index, proposal.genesis);
                }
            }
        }
        if let Some(next) = next.filter(|next| self.nodes[index].armed.is_none_or(|armed| *next < armed)) {
            self.nodes[index].armed = Some(next);
            self.at(next.0.max(self.now_us), Event::Timer(index));
        }
    }

    fn belongs_to(&mut self, index: usize, genesis: GenesisId) {
        self.nodes[index].genesis = Some(genesis);
        self.geneses.entry(genesis).or_insert(index);
    }

    fn report(&self, seed: u64) -> FoundingReport {
        let mut violations = Vec::new();
        let own: BTreeSet<_> = self.geneses.keys().filter(|genesis| **genesis != BESIDE).collect();
        if own.len() > 1 {
            violations.push(format!("two geneses from one group of fresh peers: {:?}", self.geneses));
        }
        let proposed: BTreeSet<_> = (0..self.plan.starts.len()).map(genesis_of).collect();
        if let Some(unknown) = own.iter().find(|genesis| !proposed.contains(**genesis)) {
            violations.push(format!("nobody proposed the genesis {unknown}"));
        }
        let living: Vec<usize> = (0..self.plan.starts.len()).filter(|index| self.nodes[*index].is_up).collect();
        let left: Vec<_> = living.iter().filter(|index| self.nodes[**index].genesis.is_none()).collect();
        let must_end = living.len() >= self.plan.expect || self.plan.beside.is_some();
        if must_end && !left.is_empty() {
            violations.push(format!("{} of {} living peers never found a mesh: {left:?}", left.len(), living.len()));
        }
        let is_founder = |index: &&usize| self.nodes[**index].founding.as_ref().is_some_and(Founding::is_founder);
        let founders = living.iter().filter(is_founder).count();
        let has_own = |index: &&usize| self.nodes[**index].genesis == Some(genesis_of(**index));
        let proposers = living.iter().filter(has_own).count();
        // One whose proposal was carried through by another must learn that it is the founder; it need not live.
        if founders != proposers || founders > 1 {
            violations.push(format!("{founders} living founders of one mesh"));
        }
        FoundingReport {
            seed,
            options: format!("seed {seed} {:?} {}", self.plan, self.options),
            violations,
            messages: self.messages,
            founded: self.founded,
            crashes: self.nodes.iter().filter(|node| node.founding.is_some() && !node.is_up).count(),
            beside: self.plan.beside.is_some(),
        }
    }
}
