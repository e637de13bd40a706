//! The bots of one peer: closed loops of trades, and what they measure.
//!
//! It refuses to hide an error: all but a deadline are kept and reported.

use crate::latency::Latencies;
use crate::locals::Locals;
use crate::protocol::{Finished, Progress};
use crate::trade::{Trade, Traded};
use driftmesh::{Done, Error, Mesh, Metrics, ObjectId, Ref, Result, TransportView};
use fastrand::Rng;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinSet};

/// Bots at each peer.
pub(crate) const BOTS: u64 = 16;
/// Most that a trade costs.
const PRICE_MAX: u64 = 5;
/// How often a bot looks for a player who is at this peer before it pauses.
const CHOICES_MAX: usize = 64;
/// How long a bot pauses when there is nobody to trade with.
const PAUSE: Duration = Duration::from_millis(1);
/// Errors that are told in full.
const ERRORS_TOLD_MAX: usize = 5;

/// What one bot has counted.
#[derive(Debug, Default)]
struct Counted {
    commits: u64,
    local_commits: u64,
    deadlines: u64,
    latencies: Latencies,
    this_second: Latencies,
    errors: Vec<String>,
    error_count: u64,
}

impl Counted {
    fn count(&mut self, done: Result<Done<Traded>>, latency: Duration) {
        match done {
            Ok(done) if done.value == Traded::Nothing => {}
            Ok(done) => {
                self.commits += 1;
                self.local_commits += u64::from(!done.committed.awaited_message);
                self.latencies.record(latency);
                self.this_second.record(latency);
            }
            Err(Error::Deadline { .. }) => self.deadlines += 1,
            Err(error) => {
                self.error_count += 1;
                if self.errors.len() < ERRORS_TOLD_MAX {
                    self.errors.push(error.to_string());
                }
            }
        }
    }
}

/// What all bots of a peer share.
#[derive(Debug)]
struct Shared {
    mesh: Mesh,
    world: Arc<[ObjectId]>,
    locals: Locals,
    locality: f64,
    stop: AtomicBool,
    /// One for each bot, so that bots do not wait for each other.
    counted: Vec<Mutex<Counted>>,
}

/// The bots of one peer at work.
#[derive(Debug)]
pub(crate) struct Workload {
    shared: Arc<Shared>,
    bots: JoinSet<()>,
    begun: Instant,
    metrics_before: Metrics,
    sent_before: TransportView,
    last: Last,
}

/// Where the last second ended.
#[derive(Debug)]
struct Last {
    at: Instant,
    commits: u64,
    local_commits: u64,
    arrived: u64,
}

/// What a workload is started with.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// All players of the world.
    pub(crate) world: Arc<[ObjectId]>,
    /// The players who are at this peer at first.
    pub(crate) locals: &'a [ObjectId],
    /// The probability that a partner is chosen among the players at this peer.
    pub(crate) locality: f64,
    /// What the bots' choices are drawn from; another one for each peer.
    pub(crate) seed: u64,
}

impl Workload {
    /// Starts the bots.
    pub(crate) fn start(mesh: &Mesh, plan: &Plan<'_>) -> Self {
        let shared = Arc::new(Shared {
            mesh: mesh.clone(),
            world: Arc::clone(&plan.world),
            locals: Locals::new(plan.locals),
            locality: plan.locality,
            stop: AtomicBool::new(false),
            counted: (0..BOTS).map(|_| Mutex::default()).collect(),
        });
        let (metrics_before, sent_before) = (mesh.metrics(), mesh.status().transport);
        let begun = Instant::now();
        let mut bots = JoinSet::new();
        let mut seeds = Rng::with_seed(plan.seed);
        for number in 0..shared.counted.len() {
            bots.spawn(work(Arc::clone(&shared), number, Rng::with_seed(seeds.u64(..))));
        }
        Self {
            shared,
            bots,
            begun,
            last: Last { at: begun, commits: 0, local_commits: 0, arrived: metrics_before.arrived },
            metrics_before,
            sent_before,
        }
    }

    /// What was done since the last call.
    pub(crate) fn progress(&mut self) -> Progress {
        let mut latencies = Latencies::default();
        let (mut commits, mut local_commits) = (0, 0);
        for counted in &self.shared.counted {
            let mut counted = lock(counted);
            latencies.merge(&counted.this_second);
            counted.this_second.clear();
            commits += counted.commits;
            local_commits += counted.local_commits;
        }
        let now = Last { at: Instant::now(), commits, local_commits, arrived: self.shared.mesh.metrics().arrived };
        let before = std::mem::replace(&mut self.last, now);
        let now = &self.last;
        Progress {
            owned: self.shared.mesh.status().owned as u64,
            commits: now.commits - before.commits,
            local_commits: now.local_commits - before.local_commits,
            arrived: now.arrived - before.arrived,
            latencies: latencies.pairs(),
            elapsed_us: micros(now.at - before.at),
        }
    }

    /// Lets the bots end their running trades, and sums up. `Err` names a bot that panicked.
    pub(crate) async fn finish(mut self) -> std::result::Result<Finished, JoinError> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.bots.join_next().await {
            ended?;
        }
        let elapsed = self.begun.elapsed();
        let (metrics, status) = (self.shared.mesh.metrics(), self.shared.mesh.status());
        let mut latencies = Latencies::default();
        let mut finished = Finished {
            arrived: metrics.arrived - self.metrics_before.arrived,
            aborts: metrics.aborts - self.metrics_before.aborts,
            frames_sent: status.transport.frames_sent - self.sent_before.frames_sent,
            bytes_sent: status.transport.bytes_sent - self.sent_before.bytes_sent,
            longest_core_hold_us: status.longest_core_hold_us,
            found: metrics.found - self.metrics_before.found,
            hops: metrics.hops - self.metrics_before.hops,
            chain_max: metrics.chain_max,
            pointers: status.pointers as u64,
            directory_bytes: status.directory_bytes as u64,
            elapsed_us: micros(elapsed),
            ..Finished::default()
        };
        for counted in &self.shared.counted {
            let counted = lock(counted);
            latencies.merge(&counted.latencies);
            finished.commits += counted.commits;
            finished.local_commits += counted.local_commits;
            finished.deadlines += counted.deadlines;
            finished.error_count += counted.error_count;
            finished.errors.extend(counted.errors.iter().cloned());
        }
        finished.errors.truncate(ERRORS_TOLD_MAX);
        finished.latencies = latencies.pairs();
        Ok(finished)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn lock(counted: &Mutex<Counted>) -> MutexGuard<'_, Counted> {
    // Counters are whole at every moment.
    counted.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn work(shared: Arc<Shared>, number: usize, mut rng: Rng) {
    let task = shared.mesh.task("trade");
    while !shared.stop.load(Ordering::Relaxed) {
        let Some(trade) = shared.choose(&mut rng) else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let begun = Instant::now();
        let done = task.run_with_receipt(|tx| trade.run(tx)).await;
        let latency = begun.elapsed();
        if done.is_ok()
            && let Some(traveller) = trade.traveller
        {
            shared.locals.add(traveller.id());
        }
        lock(&shared.counted[number]).count(done, latency);
        // A trade at this peer never waits, so without this its bots would starve the network.
        tokio::task::yield_now().await;
    }
}

impl Shared {
    /// A player who is at this peer, other than `not`.
    fn neighbour(&self, rng: &mut Rng, not: Option<ObjectId>) -> Option<ObjectId> {
        for _ in 0..CHOICES_MAX {
            let player = self.locals.choose(rng)?;
            if !self.mesh.is_owned(player) {
                self.locals.remove(player);
            } else if Some(player) != not {
                return Some(player);
            }
        }
        None
    }

    /// Draws the next trade. `None` when nobody is here.
    fn choose(&self, rng: &mut Rng) -> Option<Trade> {
        let player = self.neighbour(rng, None)?;
        let partner = if rng.f64() < self.locality {
            self.neighbour(rng, Some(player))?
        } else {
            let partner = self.world[rng.usize(..self.world.len())];
            if partner == player {
                return None;
            }
            partner
        };
        let (buyer, seller) = if rng.bool() { (player, partner) } else { (partner, player) };
        Some(Trade {
            buyer: Ref::from_id(buyer),
            seller: Ref::from_id(seller),
            traveller: (!self.mesh.is_owned(partner)).then(|| Ref::from_id(partner)),
            price: rng.u64(1..=PRICE_MAX),
            choice: rng.usize(..usize::from(u16::MAX)),
        })
    }
}
