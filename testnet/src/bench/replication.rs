//! `cargo testnet bench replication`: what followers cost those who commit, how long a commit takes to be stable, and how
//! much CPU time it takes of all peers together.
//!
//! Two meshes of three peers in this process, without followers and with two, over TCP, with a delay on each way that the
//! transport simulates; one peer of each works. Both commit at the same fixed pace, half of what the one with followers can do,
//! in alternating rounds. The CPU time is that of a testnet of real processes. It refuses to report anything
//! when a commit was lost or a run does not count.

use super::above;
use super::local::Account;
use crate::latency::Latencies;
use crate::options::RunOptions;
use crate::testnet::Ended;
use crate::{output, testnet};
use anyhow::{Context, Result, bail};
use driftmesh::{Fate, Mesh, Ref};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Peers of each mesh.
const PEERS: usize = 3;
/// Followers of each group in the second mesh.
const REPLICAS: usize = 2;
/// Accounts between which money moves.
const ACCOUNTS: u64 = 1_000;
/// Delays on each way that the network is given.
const DELAYS_MS: [u64; 3] = [0, 5, 50];
/// Rounds of each mesh with each delay, and how long one is: short ones, so that what else happens on the machine meets
/// both meshes alike.
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(300);
/// For how long it is tried how much the mesh with followers can do.
const CAPACITY_TRIAL: Duration = Duration::from_secs(2);
/// How often transfers begin; as many at once as the pace demands.
const TICK: Duration = Duration::from_millis(1);
/// One commit of so many is watched until it is stable.
const WATCHED_OF: u64 = 64;
/// The batching interval of a journal, which a commit may wait before it leaves, milliseconds.
const BATCH_MS: f64 = 1.0;
/// How long the groups may take to become whole.
const WHOLE_LIMIT: Duration = Duration::from_secs(20);
/// How long the bots of the testnet trade whose CPU time is taken, and how many players there are.
const CPU_SECONDS: u64 = 8;
const CPU_PLAYERS: u64 = 10_000;
/// What must be reached: the median of a commit in that of one without followers, round trips until it is stable, and
/// microseconds of CPU time.
const P50_RATIO_MAX: f64 = 1.1;
const STABLE_RTTS_MAX: f64 = 2.0;
const CPU_US_MAX: f64 = 25.0;

/// The figures. Delays are those of one way.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// The pace: transfers per second, half of what a peer with two followers can do.
    pub(crate) load_per_s: u64,
    /// The median latency of a commit with two followers, in that of one without.
    pub(crate) p50_ratio_0ms: f64,
    /// With 5 ms on each way.
    pub(crate) p50_ratio_5ms: f64,
    /// With 50 ms.
    pub(crate) p50_ratio_50ms: f64,
    /// The median latencies themselves, microseconds, for each delay: without followers.
    pub(crate) p50_alone_us: [f64; 3],
    /// With two.
    pub(crate) p50_us: [f64; 3],
    /// From the answer of a commit until it is stable, without the batching interval, in round trips: medians.
    pub(crate) stable_rtts_0ms: f64,
    /// With 5 ms on each way.
    pub(crate) stable_rtts_5ms: f64,
    /// With 50 ms.
    pub(crate) stable_rtts_50ms: f64,
    /// The same in milliseconds, the batching interval included, for each delay.
    pub(crate) stable_p50_ms: [f64; 3],
    /// Bare round trips, milliseconds, for each delay: medians.
    pub(crate) rtt_ms: [f64; 3],
    /// CPU time of all peer processes for one commit of a trade, all of which became stable: three peers, two followers each,
    /// partners always neighbours; microseconds.
    pub(crate) cpu_us_per_stable_commit: f64,
    /// What missed its bar.
    pub(crate) missed: Vec<String>,
}

impl Figures {
    fn judge(&mut self) {
        self.missed = above(&[
            ("p50_ratio_0ms", self.p50_ratio_0ms, P50_RATIO_MAX),
            ("p50_ratio_5ms", self.p50_ratio_5ms, P50_RATIO_MAX),
            ("p50_ratio_50ms", self.p50_ratio_50ms, P50_RATIO_MAX),
            ("stable_rtts_0ms", self.stable_rtts_0ms, STABLE_RTTS_MAX),
            ("stable_rtts_5ms", self.stable_rtts_5ms, STABLE_RTTS_MAX),
            ("stable_rtts_50ms", self.stable_rtts_50ms, STABLE_RTTS_MAX),
            ("cpu_us_per_stable_commit", self.cpu_us_per_stable_commit, CPU_US_MAX),
        ]);
    }
}

/// A mesh of which one peer works. Each peer has a runtime of its own.
struct World {
    peers: Vec<(Mesh, tokio::runtime::Runtime)>,
    accounts: Vec<Ref<Account>>,
}

/// What one mesh did with one delay.
#[derive(Default)]
struct Measured {
    commits: Latencies,
    stable: Latencies,
    round_trips: Latencies,
}

/// Measures and prints.
pub(crate) fn run() -> Result<Figures> {
    let mut figures = Figures::default();
    measure_latencies(&mut figures)?;
    figures.cpu_us_per_stable_commit = cpu_time()?;
    figures.judge();
    tell(&figures);
    Ok(figures)
}

fn measure_latencies(figures: &mut Figures) -> Result<()> {
    let (alone, followed) = (World::start(0)?, World::start(REPLICAS)?);
    // As many as become stable: its commits wait when too many are not.
    figures.load_per_s = followed.capacity()? / 2;
    let mut ratios = [0.0; 3];
    let mut rtts = [0.0; 3];
    for (at, delay) in DELAYS_MS.into_iter().enumerate() {
        let (mut without, mut with) = (Measured::default(), Measured::default());
        for (world, measured) in [(&alone, &mut without), (&followed, &mut with)] {
            world.peers.iter().for_each(|(mesh, _)| mesh.delay_outgoing(Duration::from_millis(delay)));
            world.round(figures.load_per_s, &mut Measured::default())?;
            world.ping(measured)?;
        }
        for _ in 0..ROUNDS {
            alone.round(figures.load_per_s, &mut without)?;
            followed.round(figures.load_per_s, &mut with)?;
        }
        let p50 = |latencies: &Latencies| latencies.at_quantile_us(0.5);
        (figures.p50_alone_us[at], figures.p50_us[at]) = (p50(&without.commits), p50(&with.commits));
        (figures.stable_p50_ms[at], figures.rtt_ms[at]) =
            (p50(&with.stable) / 1_000.0, p50(&with.round_trips) / 1_000.0);
        ratios[at] = crate::numbers::thousandths(with.commits.ratio_at_quantile(0.5, &without.commits));
        rtts[at] = crate::numbers::thousandths((figures.stable_p50_ms[at] - BATCH_MS).max(0.0) / figures.rtt_ms[at]);
    }
    [figures.p50_ratio_0ms, figures.p50_ratio_5ms, figures.p50_ratio_50ms] = ratios;
    [figures.stable_rtts_0ms, figures.stable_rtts_5ms, figures.stable_rtts_50ms] = rtts;
    alone.end();
    followed.end();
    Ok(())
}

impl World {
    fn start(replicas: usize) -> Result<Self> {
        let mut world = Self { peers: Vec::new(), accounts: Vec::new() };
        for _ in 0..PEERS {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let mut builder = Mesh::builder().replicas(replicas);
            if let Some((first, _)) = world.peers.first() {
                builder = builder.join(first.addresses().first().context("the first peer has no address")?);
            }
            let mesh = runtime.block_on(builder.start()).context("cannot start a peer")?;
            world.peers.push((mesh, runtime));
        }
        for (mesh, runtime) in &world.peers {
            runtime.block_on(mesh.wait_for_peers(PEERS - 1));
        }
        let (mesh, runtime) = world.worker();
        let created = mesh.transact(|tx| async move {
            (0..ACCOUNTS).map(|number| tx.create(&Account::new(number))).collect::<driftmesh::Result<Vec<_>>>()
        });
        world.accounts = runtime.block_on(created).context("cannot create accounts")?;
        let begun = Instant::now();
        while !world.peers.iter().all(|(mesh, _)| mesh.status().may_stop) {
            if begun.elapsed() > WHOLE_LIMIT {
                bail!("the groups did not become whole within {} s", WHOLE_LIMIT.as_secs());
            }
            std::thread::sleep(TICK);
        }
        Ok(world)
    }

    /// The peer that works.
    fn worker(&self) -> (&Mesh, &tokio::runtime::Runtime) {
        let (mesh, runtime) = &self.peers[0];
        (mesh, runtime)
    }

    /// How many transfers become stable in a second.
    fn capacity(&self) -> Result<u64> {
        let (mesh, runtime) = self.worker();
        let begun = Instant::now();
        let (mut done, mut ignored) = (0, Measured::default());
        let (sender, _) = std::sync::mpsc::channel();
        runtime.block_on(async {
            while begun.elapsed() < CAPACITY_TRIAL {
                transfer(mesh, &self.accounts, done, &mut ignored, &sender).await?;
                done += 1;
            }
            while mesh.status().journal_lag > 0 {
                tokio::time::sleep(TICK).await;
            }
            anyhow::Ok(())
        })?;
        let micros = u64::try_from(begun.elapsed().as_micros())?.max(1);
        Ok(done * 1_000_000 / micros)
    }

    /// Transfers at a fixed pace for a round.
    fn round(&self, per_s: u64, measured: &mut Measured) -> Result<()> {
        let (mesh, runtime) = self.worker();
        let (sender, stable) = std::sync::mpsc::channel();
        runtime.block_on(async {
            let begun = Instant::now();
            let mut done = 0;
            let mut ticks = tokio::time::interval(TICK);
            while begun.elapsed() < ROUND {
                ticks.tick().await;
                let due = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX) * per_s / 1_000_000;
                while done < due {
                    transfer(mesh, &self.accounts, done, measured, &sender).await?;
                    done += 1;
                }
            }
            anyhow::Ok(())
        })?;
        drop(sender);
        take_stable(&stable, measured)
    }

    fn ping(&self, measured: &mut Measured) -> Result<()> {
        let (mesh, runtime) = self.worker();
        for _ in 0..20 {
            let ping = mesh.ping(self.peers[1].0.peer_id());
            measured.round_trips.record(runtime.block_on(ping).context("a peer does not answer")?);
        }
        Ok(())
    }

    fn end(self) {
        for (mesh, runtime) in self.peers {
            mesh.delay_outgoing(Duration::ZERO);
            runtime.block_on(mesh.shutdown());
        }
    }
}

type Stable = std::sync::mpsc::Sender<Result<Duration>>;

async fn transfer(
    mesh: &Mesh,
    accounts: &[Ref<Account>],
    number: u64,
    measured: &mut Measured,
    stable: &Stable,
) -> Result<()> {
    let place = |number: u64| usize::try_from(number % ACCOUNTS).unwrap_or(0);
    let (from, to) = (accounts[place(number * 7)], accounts[place(number * 7 + 3)]);
    let begun = Instant::now();
    let done = mesh.task("transfer").run_with_receipt(|tx| async move {
        let mut payer = tx.get_mut(from).await?;
        let mut payee = tx.get_mut(to).await?;
        payer.pay(&mut payee);
        Ok(())
    });
    let done = done.await.context("a transfer failed")?;
    measured.commits.record(begun.elapsed());
    if number.is_multiple_of(WATCHED_OF) {
        let (mesh, stable, answered) = (mesh.clone(), stable.clone(), Instant::now());
        tokio::spawn(async move {
            let fate = mesh.settled(&done.committed.receipt).await;
            let took = answered.elapsed();
            let told = if matches!(fate, Fate::Stable { .. }) { Ok(took) } else { Err(anyhow::anyhow!("{fate:?}")) };
            // Nobody listens only when the benchmark has failed.
            let _ = stable.send(told);
        });
    }
    Ok(())
}

/// Waits until all watched commits are decided.
fn take_stable(stable: &std::sync::mpsc::Receiver<Result<Duration>>, measured: &mut Measured) -> Result<()> {
    for took in stable {
        measured.stable.record(took.context("a commit was lost")?);
    }
    Ok(())
}

/// CPU time of all peers of a testnet for one commit, microseconds.
fn cpu_time() -> Result<f64> {
    let options = RunOptions {
        players: Some(CPU_PLAYERS),
        locality: 1.0,
        replicas: u8::try_from(REPLICAS)?,
        ..RunOptions::plain(PEERS as u64, CPU_SECONDS)
    };
    let runtime = super::runtime()?;
    match runtime.block_on(testnet::run(&options, None, None, std::future::pending()))? {
        Ended::Interrupted(_) => bail!("interrupted"),
        Ended::Reported(report) => {
            // Without partners elsewhere there are no transfers to demand.
            let reasons: Vec<_> = report.invalid.iter().filter(|why| !why.contains("transfers, at least")).collect();
            if !reasons.is_empty() {
                bail!("the run whose CPU time was taken does not count: {reasons:?}");
            }
            Ok(report.cpu_us_per_commit)
        }
    }
}

fn tell(figures: &Figures) {
    let ratios = [figures.p50_ratio_0ms, figures.p50_ratio_5ms, figures.p50_ratio_50ms];
    let rtts = [figures.stable_rtts_0ms, figures.stable_rtts_5ms, figures.stable_rtts_50ms];
    output::line(&format!(
        "{} transfers per second, half of what a peer with two followers can do",
        figures.load_per_s
    ));
    for (at, delay) in DELAYS_MS.into_iter().enumerate() {
        output::line(&format!(
            "{delay:>2} ms each way: commit p50 {} us with two followers, {} us without, ratio {}; stable after {} ms, which \
             without the batching is {} round trips of {} ms",
            figures.p50_us[at],
            figures.p50_alone_us[at],
            ratios[at],
            crate::numbers::thousandths(figures.stable_p50_ms[at]),
            rtts[at],
            crate::numbers::thousandths(figures.rtt_ms[at]),
        ));
    }
    output::line(&format!("CPU time of three peers for one stable commit: {} us", figures.cpu_us_per_stable_commit));
}
