//! Simulated peers for a game's own tests: the same [`Mesh`] and [`Tx`](crate::Tx) as in production, on one thread, in
//! virtual time, with a seed and faults. Cargo feature `test`.
//!
//! ```
//! use driftmesh::test::{Faults, Options, simulate};
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # struct Counter(u64);
//! # impl driftmesh::Object for Counter {
//! #     const TYPE_NAME: &'static str = "counter";
//! # }
//!
//! let run = simulate(Options::seed(7).peers(3).faults(Faults::network()), |peers, world| async move {
//!     let counter = peers[0].transact(|tx| async move { tx.create(&Counter(0)) }).await.unwrap();
//!     // Under faults a transaction may end with `Deadline`; without them it does not.
//!     world.heal();
//!     let mut count = 0;
//!     for mesh in &peers {
//!         let add = |tx: driftmesh::Tx| async move {
//!             let mut counter = tx.get_mut(counter).await?;
//!             counter.0 += 1;
//!             Ok(counter.0)
//!         };
//!         count = mesh.task("add").deadline(std::time::Duration::from_secs(20)).run(add).await.unwrap();
//!     }
//!     count
//! });
//! assert_eq!(run.value, 3);
//! ```
//!
//! It refuses to know real time: sleep with [`World::sleep`], and take time and randomness from `tx`. `tokio::time`,
//! sockets and threads do not work in a simulation, or would make a seed give different runs; so does iterating over a
//! std `HashMap`. Peers neither crash nor restart: a [`Mesh`] is one start of a peer.

use crate::Mesh;
use crate::builder::AddTask;
use crate::host::{Identity, LiveHost, Shared};
use crate::{OutboxMessage, Task, outbox, task};
use driftmesh_model::{Micros, PeerId};
use driftmesh_peer::session::Handlers;
use driftmesh_sim::{Overrides, Stage, StageHandle};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Set to a number, this replaces the seeds of all simulations: for replaying one that failed.
pub const SEED_VARIABLE: &str = "DRIFTMESH_TEST_SEED";
/// Peers of a simulation unless set, and the most there may be.
const DEFAULT_PEERS: usize = 3;
const PEERS_MAX: usize = 64;
/// Most types of tasks.
const TASKS_MAX: usize = 32;
/// Virtual time that a simulation may take unless set.
const DEFAULT_LIMIT: Duration = Duration::from_secs(120);

/// Which faults a simulation has, until [`World::heal`] or its end. How many of each is drawn from the seed; whole
/// classes are off for many seeds, since what is always on hides what it causes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    network: bool,
    peers: bool,
}

impl Faults {
    /// None: messages take a little time, and that is all.
    #[must_use]
    pub const fn none() -> Self {
        Self { network: false, peers: false }
    }

    /// Messages that are lost, doubled, late and reordered; partitions; connections that break and come back.
    #[must_use]
    pub const fn network() -> Self {
        Self { network: true, peers: false }
    }

    /// Those of the network, and peers that stand still for up to 4 s, wall clocks that are off by up to 120 ms, run too
    /// fast or too slow and are set, and small memories for records and old versions.
    #[must_use]
    pub const fn all() -> Self {
        Self { network: true, peers: true }
    }
}

/// What a simulation is made of.
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing happens until simulate() is called"]
pub struct Options {
    seed: u64,
    peers: usize,
    faults: Faults,
    limit: Duration,
    tasks: TaskTypes,
}

/// The types of tasks that all peers run.
#[derive(Clone, Copy, Debug)]
struct TaskTypes([Option<AddTask>; TASKS_MAX]);

impl Options {
    /// Three peers without faults; everything that is random is drawn from this seed.
    pub const fn seed(seed: u64) -> Self {
        Self {
            seed,
            peers: DEFAULT_PEERS,
            faults: Faults::none(),
            limit: DEFAULT_LIMIT,
            tasks: TaskTypes([None; TASKS_MAX]),
        }
    }

    /// How many peers: at least 1, at most 64.
    pub const fn peers(mut self, peers: usize) -> Self {
        self.peers = peers;
        self
    }

    /// Which faults.
    pub const fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Lets all peers run tasks of a type, as [`Builder::register`](crate::Builder::register) does.
    ///
    /// # Panics
    /// With more than 32 types.
    pub fn register<T: Task>(mut self) -> Self {
        self.add(task::add::<T>);
        self
    }

    /// Lets all peers deliver messages of a type to the world outside.
    ///
    /// # Panics
    /// As [`Options::register`].
    pub fn deliver<M: OutboxMessage>(mut self) -> Self {
        self.add(outbox::add::<M>);
        self
    }

    fn add(&mut self, add: AddTask) {
        let free = self.tasks.0.iter_mut().find(|task| task.is_none());
        *free.expect("a simulation has 32 types of tasks and messages at most") = Some(add);
    }

    /// How much virtual time the closure may take: 120 s unless set.
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    fn drawn(&self) -> driftmesh_sim::Options {
        let peers = self.peers.clamp(1, PEERS_MAX);
        let drawn = driftmesh_sim::Options::draw(self.seed, &Overrides { peers: Some(peers), ..Overrides::default() });
        let drawn = driftmesh_sim::Options { stalls: self.faults.peers, ..drawn };
        let drawn = if self.faults.peers {
            drawn
        } else {
            driftmesh_sim::Options {
                skew_us: 0,
                drift_ppm: 0,
                version_bytes_max: 64 << 20,
                records_max: 1 << 16,
                pointers_max: 1 << 16,
                pointer_grace_us: 5_000_000,
                ..drawn
            }
        };
        if self.faults.network {
            return drawn;
        }
        driftmesh_sim::Options { delay_min_us: 200, delay_spread_us: 100, fault_every_us: 0, ..drawn }
    }
}

/// The world of a simulation: its time, its faults, and what runs in it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct World {
    stage: StageHandle,
}

impl World {
    /// Lets virtual time pass. Cancel safe.
    pub async fn sleep(&self, duration: Duration) {
        self.stage.sleep(Micros::from_duration(duration).0).await;
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.stage.now_us())
    }

    /// Ends the faults from now on: partitions are mended, connections come back, peers that stood still go on.
    pub fn heal(&self) {
        self.stage.heal();
    }

    /// Runs another future at the same time, and gives its result. It runs whether or not the result is awaited, and
    /// stops with the simulation.
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Spawned<T> {
        let (sender, result) = tokio::sync::oneshot::channel();
        self.stage.spawn(async move {
            // Nobody may want the result.
            let _ = sender.send(future.await);
        });
        Spawned { result }
    }
}

/// A future that was spawned in a simulation.
#[derive(Debug)]
pub struct Spawned<T> {
    result: tokio::sync::oneshot::Receiver<T>,
}

impl<T> Spawned<T> {
    /// Waits until it has ended. Its panic ends the whole simulation, so there is always a result.
    pub async fn join(self) -> T {
        self.result.await.expect("a spawned future ends, or the simulation does")
    }
}

/// A simulation that passed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Run<T> {
    /// The seed.
    pub seed: u64,
    /// What the closure returned.
    pub value: T,
    /// The hash over everything that happened, bytes included: the same code and seed give the same one.
    pub trace_hash: String,
    /// Virtual time it took, until the closure ended.
    pub elapsed: Duration,
    /// How often an object changed its owner.
    pub transfers: u64,
    /// Faults of the network and of peers, besides what happened to single messages.
    pub faults: u64,
}

/// Runs a closure on simulated peers, all connected to each other, and judges the mesh afterwards: no object has two
/// owners or is still on its way once the faults have ended, and every peer's state is what its journal says.
///
/// With [`SEED_VARIABLE`] set its value is the seed.
///
/// # Panics
/// When the closure or what it spawned panics, does not end in its virtual time, or the judge finds something. The
/// message says the seed and how to replay it.
pub fn simulate<T, F, Fut>(options: Options, body: F) -> Run<T>
where
    T: Send + 'static,
    F: FnOnce(Vec<Mesh>, World) -> Fut,
    Fut: Future<Output = T> + Send + 'static,
{
    run(Options { seed: seed_to_replay().unwrap_or(options.seed), ..options }, body)
}

/// As [`simulate`], for each of these seeds in place of the one in the options, one after the other.
///
/// With [`SEED_VARIABLE`] set only that seed is run.
///
/// # Panics
/// As [`simulate`], at the first seed that fails.
pub fn simulate_seeds<T, F, Fut>(seeds: std::ops::Range<u64>, options: Options, mut body: F) -> Vec<Run<T>>
where
    T: Send + 'static,
    F: FnMut(Vec<Mesh>, World) -> Fut,
    Fut: Future<Output = T> + Send + 'static,
{
    let seeds = seed_to_replay().map_or(seeds, |seed| seed..seed.saturating_add(1));
    let with = |seed| Options { seed, ..options };
    seeds.map(|seed| run(with(seed), &mut body)).collect()
}

fn seed_to_replay() -> Option<u64> {
    let text = std::env::var(SEED_VARIABLE).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE} is `{text}`, which is not a seed: give a number")))
}

fn run<T, F, Fut>(options: Options, body: F) -> Run<T>
where
    T: Send + 'static,
    F: FnOnce(Vec<Mesh>, World) -> Fut,
    Fut: Future<Output = T> + Send + 'static,
{
    let attempt = catch_unwind(AssertUnwindSafe(|| attempt(options, body)));
    match attempt {
        Ok(Ok(run)) => run,
        Ok(Err(wrong)) => fail(options.seed, &wrong),
        Err(panic) => fail(options.seed, &driftmesh_peer::session::panic_text(panic.as_ref())),
    }
}

/// Ends the test, and says how to see it again.
fn fail(seed: u64, why: &str) -> ! {
    // Tests run on threads that are named after them.
    let thread = std::thread::current();
    let replay = match thread.name() {
        None | Some("main") => format!("set {SEED_VARIABLE}={seed} and run this program again"),
        Some(test) => format!("{SEED_VARIABLE}={seed} cargo test {test}"),
    };
    panic!("the simulation with seed {seed} failed: {why}\nto replay it: {replay}");
}

fn attempt<T, F, Fut>(options: Options, body: F) -> Result<Run<T>, String>
where
    T: Send + 'static,
    F: FnOnce(Vec<Mesh>, World) -> Fut,
    Fut: Future<Output = T> + Send + 'static,
{
    let mut stage = Stage::new(options.drawn());
    let meshes = stage.peers().into_iter().map(|(peer, host)| simulated(peer, host, &options)).collect();
    let value = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&value);
    if options.faults != Faults::none() {
        stage.begin_faults();
    }
    let world = World { stage: stage.handle() };
    let main = body(meshes, world.clone());
    let main = async move {
        let ended = main.await;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
    };
    let limit_us = Micros::from_duration(options.limit).0;
    stage.run(main, limit_us).map_err(|error| format!("{error} ({} s)", options.limit.as_secs_f64()))?;
    let elapsed = world.elapsed();
    let wrong = stage.settle_and_judge();
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    let value = value.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(Run {
        seed: options.seed,
        value: value.expect("the closure has ended"),
        trace_hash: stage.trace_hash().unwrap_or_default(),
        elapsed,
        transfers: stage.transfers(),
        faults: stage.faults(),
    })
}

fn simulated(peer: PeerId, host: driftmesh_sim::SimHost, options: &Options) -> Mesh {
    let identity = Identity { peer, mesh: "simulated".to_owned(), zone: None };
    let mut handlers = Handlers::default();
    for add in options.tasks.0.iter().flatten() {
        assert!(add(&mut handlers), "two types of tasks have the same name");
    }
    Mesh::new(LiveHost { shared: Shared::simulated(host, identity, handlers) })
}
