//! What peer processes do in the benchmarks of tasks and moves: closed loops, each with one thing under way.
//!
//! Counts and times are taken here and told when asked for. It refuses to draw where objects are, and to judge.

use super::cpu_time;
use crate::chance;
use crate::marks::Mark;
use crate::protocol::unpack;
use crate::workloads::Workload;
use crate::workloads::draw::draw;
use crate::workloads::plan::Made;
use crate::workloads::tasks::{Act, Deed, Walk, Way};
use anyhow::{Context, Result, bail};
use driftmesh::{Error, Mesh, Object, ObjectId, Ref, Task, TaskError, Tx};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Times that are kept between two questions.
const SAMPLES_MAX: usize = 100_000;
/// How often a bare round trip is taken beside work whose round trips matter.
const PING_EVERY: Duration = Duration::from_millis(10);
/// How often tasks are begun that come at a rate, and how long one may take.
const ASK_EVERY: Duration = Duration::from_millis(2);
const TASK_DEADLINE: Duration = Duration::from_secs(1);
/// Decisions that are timed together: one alone takes less than can be told apart.
pub(super) const DECISIONS_TIMED: u32 = 100;
/// How long a command of a player may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);

/// A number that tasks count up.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counter {
    /// How often.
    pub(crate) count: u64,
}

impl Object for Counter {
    const TYPE_NAME: &'static str = "testnet.counter";
}

/// Reads a counter and writes what it makes of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Bump {
    counter: Ref<Counter>,
    /// Whether it says that it touches the counter.
    declares: bool,
    /// Which object keeps the outcome; the counter unless given.
    anchor: Option<ObjectId>,
    /// What it has in common with tasks that touch the same.
    key: u64,
}

impl Task for Bump {
    type Output = u64;
    const NAME: &'static str = "testnet.bump";

    async fn run(&self, tx: &Tx) -> driftmesh::Result<u64> {
        let mut counter = tx.get_mut(self.counter).await?;
        counter.count += 1;
        Ok(counter.count)
    }

    fn touches(&self) -> Vec<ObjectId> {
        if self.declares { vec![self.counter.id()] } else { Vec::new() }
    }

    fn anchor(&self) -> Option<ObjectId> {
        Some(self.anchor.unwrap_or(self.counter.id()))
    }

    fn key(&self) -> u64 {
        self.key
    }
}

/// What a process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// Commands of players whose gateway this is: wherever their objects are.
    Crowd {
        /// The players, packed.
        heroes: String,
        /// How many commands are under way at once, at most.
        clients: u64,
        /// From one command of a client to the next, microseconds.
        every_us: u64,
        /// What they are drawn from.
        seed: u64,
    },
    /// Tasks that count one counter up.
    Bumps {
        /// Which.
        #[serde(with = "crate::protocol::id_text")]
        counter: ObjectId,
        /// How many submit at once.
        submitters: u64,
        /// Whether they say what they touch; else the outcome is kept by an object of each submitter's own.
        declares: bool,
    },
    /// Transactions on marks, of which some are on those of other peers, so that these move.
    Handover {
        /// The marks that are here at first, packed.
        own: String,
        /// All marks.
        all: String,
        /// How many are under way at once.
        clients: u64,
        /// Of 1,000 so many are on marks from elsewhere.
        moves_per_mille: u64,
        /// From one of a client to its next, microseconds; 0 for at once.
        every_us: u64,
        /// What is drawn from.
        seed: u64,
    },
    /// Tasks that count counters up, chosen by chance.
    Tasks {
        /// Which, packed.
        counters: String,
        /// How many are under way at once, where no rate is given.
        clients: u64,
        /// How many are begun in a second, whatever becomes of those before; 0 for no rate.
        per_s: u64,
    },
    /// Bare round trips to the other peers in turn.
    Pings {
        /// How many are under way at once.
        clients: u64,
    },
    /// Tasks that run at another peer, in turns with bare round trips to it.
    Forwarded {
        /// A counter of that peer.
        #[serde(with = "crate::protocol::id_text")]
        counter: ObjectId,
        /// The peer.
        peer: String,
    },
    /// Decisions where tasks go of which it was learned what they touch; they are not submitted.
    Decisions {
        /// Counters of that peer, packed.
        counters: String,
        /// The peer.
        peer: String,
        /// How many keys are learned before.
        keys: u64,
    },
}

/// What work has come to since the last question; what the peer itself counts is since its start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Worked {
    /// What was done.
    pub(crate) done: u64,
    /// Commits on the objects of two players.
    pub(crate) pairs: u64,
    /// What rejected itself: there was nobody to meet.
    pub(crate) rejected: u64,
    /// What was refused because there was too much of it.
    pub(crate) refused: u64,
    /// What was given up at its deadline.
    pub(crate) late: u64,
    /// How long each refusal took, microseconds.
    pub(crate) refusals_us: Vec<u32>,
    /// What was not done for another reason, or nobody knows.
    pub(crate) failed: u64,
    /// The first of these errors.
    pub(crate) error: Option<String>,
    /// How often each submitter was done.
    pub(crate) by_client: Vec<u64>,
    /// How long each took, microseconds.
    pub(crate) samples_us: Vec<u32>,
    /// How long it took until it was certain, where that was noted apart.
    pub(crate) settled_us: Vec<u32>,
    /// Bare round trips, microseconds.
    pub(crate) pings_us: Vec<u32>,
    /// Players that were to travel and have not arrived yet.
    pub(crate) travelling: u64,
    /// CPU time of the process.
    pub(crate) cpu_us: u64,
    /// Objects owned.
    pub(crate) owned: u64,
    /// Objects that came here.
    pub(crate) arrived: u64,
    /// Commits here, whoever asked for them.
    pub(crate) commits: u64,
    /// Those of them that awaited no message.
    pub(crate) local_commits: u64,
    /// Attempts that ended without a commit.
    pub(crate) aborts: u64,
    /// Tasks that other peers sent here.
    pub(crate) tasks_for_others: u64,
}

impl Worked {
    /// Adds what was done after this; the peer's own counts are those of then.
    pub(crate) fn add(&mut self, later: Self) {
        let before = std::mem::replace(self, later);
        self.done += before.done;
        self.pairs += before.pairs;
        self.rejected += before.rejected;
        self.refused += before.refused;
        self.late += before.late;
        self.failed += before.failed;
        self.error = before.error.or_else(|| self.error.take());
        for (all, before) in [
            (&mut self.refusals_us, before.refusals_us),
            (&mut self.samples_us, before.samples_us),
            (&mut self.settled_us, before.settled_us),
            (&mut self.pings_us, before.pings_us),
        ] {
            all.extend(before);
        }
        for (all, before) in self.by_client.iter_mut().zip(before.by_client) {
            *all += before;
        }
    }
}

/// What all loops share.
#[derive(Debug)]
struct Shared {
    mesh: Mesh,
    is_over: AtomicBool,
    worked: Mutex<Worked>,
    /// Where players are to go before they do anything else.
    travel: Mutex<BTreeMap<ObjectId, ObjectId>>,
}

/// Work that is going on.
#[derive(Debug)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    loops: JoinSet<()>,
}

fn connected(mesh: &Mesh, name: &str) -> Result<driftmesh::PeerId> {
    mesh.peers().into_iter().find(|peer| peer.to_string() == name).context("the peer is not connected")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    /// Begins. The loops run until [`Worker::end`].
    pub(crate) fn begin(mesh: &Mesh, work: Work) -> Result<Self> {
        let (worked, travel) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { mesh: mesh.clone(), is_over: AtomicBool::new(false), worked, travel });
        let mut worker = Self { shared, loops: JoinSet::new() };
        match work {
            Work::Crowd { heroes, clients, every_us, seed } => {
                worker.crowd(&unpack(&heroes)?, clients, Duration::from_micros(every_us), seed)?;
            }
            Work::Bumps { counter, submitters, declares } => worker.bumps(counter, submitters, declares)?,
            Work::Handover { own, all, clients, moves_per_mille, every_us, seed } => {
                let marks = Marks { own: refs(&own)?, all: refs(&all)?.into(), moves_per_mille };
                worker.handover(&marks, clients, Duration::from_micros(every_us), seed)?;
            }
            Work::Tasks { counters, clients, per_s } => worker.tasks(&counters, clients, per_s)?,
            Work::Pings { clients } => worker.pings(clients)?,
            Work::Forwarded { counter, peer } => {
                let (shared, peer) = (Arc::clone(&worker.shared), connected(mesh, &peer)?);
                worker.loops.spawn(async move { shared.forward(Ref::from_id(counter), peer).await });
            }
            Work::Decisions { counters, peer, keys } => {
                let (shared, peer, counters) = (Arc::clone(&worker.shared), connected(mesh, &peer)?, refs(&counters)?);
                worker.loops.spawn(async move { shared.decide(&counters, peer, keys).await });
            }
        }
        Ok(worker)
    }

    /// Sends players elsewhere: each goes as soon as its gateway has nothing under way for it.
    pub(crate) fn travel(&self, heroes: &[ObjectId], places: &[ObjectId]) {
        lock(&self.shared.travel).extend(heroes.iter().copied().zip(places.iter().copied()));
    }

    /// What was done since the last call.
    pub(crate) fn done(&self) -> Worked {
        self.shared.take()
    }

    /// Lets what is under way end, and what was committed here become stable; tells what was done since the last question.
    pub(crate) async fn end(self) -> Worked {
        let Self { shared, loops } = self;
        shared.is_over.store(true, Ordering::Relaxed);
        loops.join_all().await;
        // It comes after all the others in the journal of this peer.
        let last = shared.mesh.task("last").stable().run(|tx| async move { tx.create(&Counter::default()) });
        if let Err(error) = last.await {
            shared.note_failure(error.to_string());
        }
        shared.take()
    }

    fn crowd(&mut self, heroes: &[ObjectId], clients: u64, every: Duration, seed: u64) -> Result<()> {
        let clients = usize::try_from(clients)?.clamp(1, heroes.len().max(1));
        for number in 0..clients {
            let own: Vec<ObjectId> = heroes.iter().skip(number).step_by(clients).copied().collect();
            if own.is_empty() {
                continue;
            }
            let (shared, rng) = (Arc::clone(&self.shared), Rng::with_seed(seed.wrapping_add(number as u64)));
            self.loops.spawn(async move { shared.command(own, every, rng).await });
        }
        Ok(())
    }

    fn bumps(&mut self, counter: ObjectId, submitters: u64, declares: bool) -> Result<()> {
        let submitters = usize::try_from(submitters)?;
        lock(&self.shared.worked).by_client = vec![0; submitters];
        for number in 0..submitters {
            let shared = Arc::clone(&self.shared);
            self.loops.spawn(async move { shared.bump(Ref::from_id(counter), number, declares).await });
        }
        Ok(())
    }

    fn handover(&mut self, marks: &Marks, clients: u64, every: Duration, seed: u64) -> Result<()> {
        let clients = usize::try_from(clients)?;
        if marks.own.len() < clients {
            bail!("{} marks are not enough for {clients} clients", marks.own.len());
        }
        for number in 0..clients {
            let own = marks.own.iter().skip(number).step_by(clients).copied().collect();
            let marks = Marks { own, all: Arc::clone(&marks.all), moves_per_mille: marks.moves_per_mille };
            let (shared, rng) = (Arc::clone(&self.shared), Rng::with_seed(seed.wrapping_add(number as u64)));
            self.loops.spawn(async move { shared.change_marks(marks, every, rng).await });
        }
        if !every.is_zero() {
            let shared = Arc::clone(&self.shared);
            self.loops.spawn(async move { shared.ping_now_and_then().await });
        }
        Ok(())
    }

    fn tasks(&mut self, counters: &str, clients: u64, per_s: u64) -> Result<()> {
        let counters: Arc<[Ref<Counter>]> = refs(counters)?.into();
        if counters.is_empty() {
            bail!("there are no counters");
        }
        let clients = if per_s == 0 { usize::try_from(clients)? } else { 1 };
        for _ in 0..clients {
            let (shared, counters) = (Arc::clone(&self.shared), Arc::clone(&counters));
            self.loops.spawn(async move { shared.ask_for_tasks(counters, per_s).await });
        }
        Ok(())
    }

    fn pings(&mut self, clients: u64) -> Result<()> {
        for number in 0..usize::try_from(clients)? {
            let shared = Arc::clone(&self.shared);
            self.loops.spawn(async move { shared.ping(number).await });
        }
        Ok(())
    }
}

/// Marks as one loop knows them.
struct Marks {
    /// Those that were here when they were used last.
    own: Vec<Ref<Mark>>,
    all: Arc<[Ref<Mark>]>,
    moves_per_mille: u64,
}

fn refs<T>(packed: &str) -> Result<Vec<Ref<T>>> {
    Ok(unpack(packed)?.into_iter().map(Ref::from_id).collect())
}

impl Marks {
    /// The next mark, and whether it is elsewhere.
    fn next(&mut self, mesh: &Mesh, rng: &mut Rng) -> Option<(Ref<Mark>, bool)> {
        if rng.u64(..1_000) < self.moves_per_mille {
            for _ in 0..8 {
                let mark = rng.choice(&*self.all).copied()?;
                if !mesh.is_owned(mark.id()) {
                    return Some((mark, true));
                }
            }
        }
        while !self.own.is_empty() {
            let place = rng.usize(..self.own.len());
            let mark = self.own[place];
            if mesh.is_owned(mark.id()) {
                return Some((mark, false));
            }
            // Another peer has taken it.
            self.own.swap_remove(place);
        }
        Some((rng.choice(&*self.all).copied()?, true))
    }
}

/// Waits for the next turn of a loop that has a pace.
struct Turns {
    next: Instant,
    every: Duration,
}

impl Turns {
    fn new(every: Duration, rng: &mut Rng) -> Self {
        // Not all at the same moment.
        Self { next: Instant::now() + every.mul_f64(rng.f64()), every }
    }

    async fn wait(&mut self) {
        if self.every.is_zero() {
            return;
        }
        let now = Instant::now();
        if self.next > now {
            tokio::time::sleep_until(self.next.into()).await;
        }
        // Who is late by more than a turn does not make up for it.
        self.next = (self.next + self.every).max(now);
    }
}

impl Shared {
    fn take(&self) -> Worked {
        let mut worked = lock(&self.worked);
        let by_client = vec![0; worked.by_client.len()];
        let taken = std::mem::replace(&mut *worked, Worked { by_client, ..Worked::default() });
        drop(worked);
        let (status, metrics) = (self.mesh.status(), self.mesh.metrics());
        Worked {
            travelling: lock(&self.travel).len() as u64,
            cpu_us: u64::try_from(cpu_time::of_process().as_micros()).unwrap_or(u64::MAX),
            owned: status.owned as u64,
            arrived: metrics.arrived,
            commits: metrics.commits + metrics.read_only_commits,
            local_commits: metrics.local_commits,
            aborts: metrics.aborts,
            tasks_for_others: metrics.tasks_for_others,
            ..taken
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn note(&self, begun: Instant, done: impl FnOnce(&mut Worked)) {
        let took = begun.elapsed();
        let mut worked = lock(&self.worked);
        worked.done += 1;
        Self::note_time(&mut worked.samples_us, took);
        done(&mut worked);
    }

    fn note_failure(&self, error: String) {
        let mut worked = lock(&self.worked);
        worked.failed += 1;
        worked.error.get_or_insert(error);
    }

    fn note_ping(&self, took: Duration) {
        Self::note_time(&mut lock(&self.worked).pings_us, took);
    }

    fn note_time(times: &mut Vec<u32>, took: Duration) {
        if times.len() < SAMPLES_MAX {
            times.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// One client: commands of its players, one after the other.
    async fn command(&self, own: Vec<ObjectId>, every: Duration, mut rng: Rng) {
        let mut turns = Turns::new(every, &mut rng);
        let nowhere = Made::default();
        while !self.is_over() {
            turns.wait().await;
            let travels = {
                let travel = lock(&self.travel);
                own.iter().find_map(|hero| Some((*hero, *travel.get(hero)?)))
            };
            let Some(hero) = travels.map(|(hero, _)| hero).or_else(|| rng.choice(&own).copied()) else { return };
            let act = match travels {
                Some((_, place)) => {
                    Act::Walk(Walk { hero: Ref::from_id(hero), way: Way::To(Ref::from_id(place)), mark: 0 })
                }
                None => match draw(Workload::Crowd, &nowhere, hero, rng.u64(..), &mut rng) {
                    Some(act) => act,
                    None => return,
                },
            };
            let begun = Instant::now();
            match self.submit(act).await {
                Ok(deed) => {
                    self.note(begun, |worked| worked.pairs += u64::from(deed.other.is_some()));
                    if travels.is_some() {
                        lock(&self.travel).remove(&hero);
                    }
                }
                Err(TaskError::Rejected { .. }) => lock(&self.worked).rejected += 1,
                Err(error) => self.note_failure(error.to_string()),
            }
        }
    }

    async fn submit(&self, act: Act) -> Result<Deed, TaskError> {
        match act {
            Act::Walk(task) => self.mesh.submit(task).deadline(COMMAND_DEADLINE).await,
            Act::Meet(task) => self.mesh.submit(task).deadline(COMMAND_DEADLINE).await,
            Act::Rest(task) => self.mesh.submit(task).deadline(COMMAND_DEADLINE).await,
            Act::Deal(task) => self.mesh.submit(task).deadline(COMMAND_DEADLINE).await,
            Act::Strike(task) => self.mesh.submit(task).deadline(COMMAND_DEADLINE).await,
            Act::Shop(task) => self.mesh.submit(task).deadline(COMMAND_DEADLINE).await,
        }
    }

    async fn bump(&self, counter: Ref<Counter>, number: usize, declares: bool) {
        let anchor = if declares {
            None
        } else {
            match self.mesh.transact(|tx| async move { tx.create(&Counter::default()) }).await {
                Ok(own) => Some(own.id()),
                Err(error) => return self.note_failure(error.to_string()),
            }
        };
        let bump = Bump { counter, declares, anchor, key: 0 };
        while !self.is_over() {
            let begun = Instant::now();
            match self.mesh.submit(bump).await {
                Ok(_) => self.note(begun, |worked| {
                    if let Some(count) = worked.by_client.get_mut(number) {
                        *count += 1;
                    }
                }),
                Err(error) => self.note_failure(error.to_string()),
            }
        }
    }

    /// One task after the other, or at a rate.
    async fn ask_for_tasks(self: Arc<Self>, counters: Arc<[Ref<Counter>]>, per_s: u64) {
        let mut rng = chance::rng();
        let (begun, mut asked) = (Instant::now(), 0_u128);
        let mut under_way = JoinSet::new();
        while !self.is_over() {
            let mut next = || {
                let (shared, counter) = (Arc::clone(&self), counters[rng.usize(..counters.len())]);
                async move { shared.ask_for_task(counter).await }
            };
            if per_s == 0 {
                next().await;
                continue;
            }
            tokio::time::sleep(ASK_EVERY).await;
            let due = begun.elapsed().as_micros() * u128::from(per_s) / 1_000_000;
            while asked < due {
                asked += 1;
                under_way.spawn(next());
            }
            while under_way.try_join_next().is_some() {}
        }
        under_way.join_all().await;
    }

    async fn ask_for_task(&self, counter: Ref<Counter>) {
        let bump = Bump { counter, declares: true, anchor: None, key: 0 };
        let begun = Instant::now();
        match self.mesh.submit(bump).deadline(TASK_DEADLINE).await {
            Ok(_) => self.note(begun, |_| ()),
            Err(TaskError::Busy { .. }) => {
                let took = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
                let mut worked = lock(&self.worked);
                worked.refused += 1;
                if worked.refusals_us.len() < SAMPLES_MAX {
                    worked.refusals_us.push(took);
                }
            }
            Err(TaskError::Deadline { .. } | TaskError::Unknown { .. }) => lock(&self.worked).late += 1,
            Err(error) => self.note_failure(error.to_string()),
        }
    }

    async fn change_marks(&self, mut marks: Marks, every: Duration, mut rng: Rng) {
        let mut turns = Turns::new(every, &mut rng);
        while !self.is_over() {
            turns.wait().await;
            let Some((mark, moves)) = marks.next(&self.mesh, &mut rng) else { return };
            let begun = Instant::now();
            let done = self.mesh.transact(|tx| async move {
                tx.get_mut(mark).await?.marks += 1;
                Ok(())
            });
            match done.await {
                Ok(()) => {
                    if moves {
                        marks.own.push(mark);
                    }
                    self.note(begun, |worked| worked.pairs += u64::from(moves));
                }
                Err(error @ Error::Deadline { .. }) => self.note_failure(error.to_string()),
                Err(error) => return self.note_failure(error.to_string()),
            }
        }
    }

    async fn ping_now_and_then(&self) {
        let mut ticks = tokio::time::interval(PING_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for turn in 0.. {
            ticks.tick().await;
            if self.is_over() {
                return;
            }
            self.ping_once(turn).await;
        }
    }

    async fn ping(&self, first: usize) {
        for turn in first.. {
            if self.is_over() {
                return;
            }
            let begun = Instant::now();
            if self.ping_once(turn).await {
                self.note(begun, |_| ());
            }
        }
    }

    async fn ping_once(&self, turn: usize) -> bool {
        let peers = self.mesh.peers();
        let Some(peer) = peers.get(turn % peers.len().max(1)) else { return false };
        match self.mesh.ping(*peer).await {
            Ok(took) => self.note_ping(took),
            Err(error) => self.note_failure(error.to_string()),
        }
        true
    }

    /// Learns where so many kinds of tasks find their data, and then decides where each of them would go, over and over.
    async fn decide(&self, counters: &[Ref<Counter>], peer: driftmesh::PeerId, keys: u64) {
        let task = |key: u64| {
            let counter = usize::try_from(key).map_or(0, |key| key % counters.len().max(1));
            let counter = counters.get(counter).copied()?;
            Some(Bump { counter, declares: false, anchor: None, key: key + 1 })
        };
        for ended in self.mesh.submit_all((0..keys).filter_map(task)).await {
            if let Err(error) = ended {
                return self.note_failure(error.to_string());
            }
        }
        // Far from each other, so that none is at hand because of the last one.
        let mut key = 0;
        while !self.is_over() {
            let tasks: Vec<Bump> = (0..DECISIONS_TIMED)
                .filter_map(|_| {
                    key = (key + 7_919) % keys.max(1);
                    task(key)
                })
                .collect();
            let begun = Instant::now();
            let places: Vec<_> = tasks.iter().map(|task| self.mesh.explain_task(task)).collect();
            let took = begun.elapsed();
            let is_learned = |place: &driftmesh::TaskPlace| place.peer == peer && place.learned > 0;
            if !places.iter().all(|places| places.first().is_some_and(is_learned)) {
                return self.note_failure("what was learned is not what was decided by".to_owned());
            }
            Self::note_time(&mut lock(&self.worked).samples_us, took);
            tokio::task::yield_now().await;
        }
    }

    /// Tasks that run at the peer that has the counter; the first tells this one where that is.
    async fn forward(&self, counter: Ref<Counter>, peer: driftmesh::PeerId) {
        let bump = Bump { counter, declares: true, anchor: None, key: 0 };
        let caller = self.mesh.caller(1);
        while !self.is_over() {
            match self.mesh.ping(peer).await {
                Ok(took) => self.note_ping(took),
                Err(error) => return self.note_failure(error.to_string()),
            }
            let begun = Instant::now();
            let told = match caller.provisional(self.mesh.submit(bump)).await {
                Ok(told) if told.by == peer => told,
                Ok(_) => return self.note_failure("the task did not run where its counter is".to_owned()),
                Err(error) => return self.note_failure(error.to_string()),
            };
            self.note(begun, |_| ());
            match told.settled().await {
                Ok(_) => Self::note_time(&mut lock(&self.worked).settled_us, begun.elapsed()),
                Err(error) => return self.note_failure(error.to_string()),
            }
        }
    }
}
