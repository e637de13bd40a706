//! A simulated mesh for somebody else's futures: the same peers, network, faults and judge as for the built-in game.
//!
//! It refuses to know what runs on it; `driftmesh` puts its own handles on top, so that users test what they ship.

use crate::audit::{owned_objects, replicas_differ};
use crate::host::{Clock, SimHost};
use crate::options::Options;
use crate::requests::{Request, Requests};
use crate::world::Simulation;
use driftmesh_model::PeerId;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Once a run is over, what is on its way must have arrived within this, virtual, us.
const SETTLE_WITHIN_US: u64 = 30_000_000;

/// Why a run did not end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfinished {
    /// Virtual time ran out.
    #[error("it did not end in its virtual time")]
    TooLate,
    /// Futures woke each other without end, while virtual time stood still.
    #[error("it keeps the world busy without letting virtual time pass: it must sleep, or wait for something")]
    Spinning,
}

/// A simulated mesh, every peer connected to all others.
pub struct Stage {
    simulation: Simulation,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Stage").field("options", &self.simulation.options).finish_non_exhaustive()
    }
}

/// What futures on a stage can do with it. Cheap to clone.
#[derive(Clone)]
pub struct StageHandle {
    clock: Arc<Clock>,
    requests: Requests,
}

impl std::fmt::Debug for StageHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StageHandle").field("now_us", &self.now_us()).finish_non_exhaustive()
    }
}

impl StageHandle {
    /// Virtual time since the start, us.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    /// Sleeps for so many microseconds of virtual time. Cancel safe.
    pub async fn sleep(&self, for_us: u64) {
        self.clock.sleep(for_us).await;
    }

    /// Runs another future on the stage.
    pub fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        self.requests.add(Request::Spawn(None, Box::pin(job)));
    }

    /// Ends the faults, and mends what is broken.
    pub fn heal(&self) {
        self.requests.add(Request::Heal);
    }
}

impl Stage {
    /// A mesh with these options; those of the built-in game do not matter. A host is one incarnation of a peer that
    /// knows all others, so peers neither restart nor begin as strangers, no clock is mad, no memory is set back, and none is short.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let options = Options {
            restarts: false,
            strangers: false,
            mad_clock: false,
            crashes: false,
            old_copies: false,
            // What somebody else's test creates is its own business.
            room_bytes: None,
            ..options
        };
        Self { simulation: Simulation::new(options) }
    }

    /// Who is in it, in order, each with its host.
    #[must_use]
    pub fn peers(&self) -> Vec<(PeerId, SimHost)> {
        self.simulation.peers.iter().map(|peer| (peer.id, peer.host.clone())).collect()
    }

    /// What its futures can do with it.
    #[must_use]
    pub fn handle(&self) -> StageHandle {
        StageHandle { clock: Arc::clone(&self.simulation.clock), requests: self.simulation.requests.clone() }
    }

    /// Begins the faults that the options name.
    pub fn begin_faults(&mut self) {
        self.simulation.begin_faults();
    }

    /// Runs a future, with everything that it spawns, until it has ended.
    ///
    /// # Errors
    /// When it has not ended after so much virtual time, us, or spins.
    pub fn run(&mut self, main: impl Future<Output = ()> + Send + 'static, limit_us: u64) -> Result<(), Unfinished> {
        let ended = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&ended);
        self.handle().spawn(async move {
            main.await;
            ended.store(true, Ordering::Relaxed);
        });
        if self.simulation.run(limit_us, |_| has_ended.load(Ordering::Relaxed)) {
            Ok(())
        } else if self.simulation.is_spinning() {
            Err(Unfinished::Spinning)
        } else {
            Err(Unfinished::TooLate)
        }
    }

    /// Ends the faults, lets what is on its way arrive, and judges: R19 (one owner) by all journals and by the final
    /// states, and every state by its journal. Returns what is wrong.
    pub fn settle_and_judge(&mut self) -> Vec<String> {
        let simulation = &mut self.simulation;
        simulation.heal();
        let until = simulation.now_us() + SETTLE_WITHIN_US;
        simulation.run(until, |simulation| {
            let mut alive = simulation.peers.iter().filter(|peer| !peer.gone);
            alive.all(|peer| peer.host.look(|peer| peer.is_quiet() && !peer.is_behind()))
        });
        let mut wrong = std::mem::take(&mut simulation.observer.violations);
        owned_objects(simulation, &mut wrong);
        replicas_differ(simulation, &mut wrong);
        wrong
    }

    /// The hash over everything that happened so far, bytes included: equal hashes mean equal runs. `None` if the options
    /// want none.
    #[must_use]
    pub fn trace_hash(&self) -> Option<String> {
        self.simulation.trace_hash()
    }

    /// Objects that changed their owner so far.
    #[must_use]
    pub const fn transfers(&self) -> u64 {
        self.simulation.observer.transfers
    }

    /// Faults so far: partitions, mends, broken connections, peers that stood still.
    #[must_use]
    pub const fn faults(&self) -> u64 {
        self.simulation.faults
    }
}
