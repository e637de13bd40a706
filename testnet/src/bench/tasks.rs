//! `cargo testnet bench tasks`: how long a task takes that runs at another peer, in bare round trips of the same connection.
//!
//! Real peer processes; tasks and round trips in turns, one at a time, in meshes without followers and with two. It refuses to
//! report anything good when a task ran elsewhere than where its object is.

use super::work::{DECISIONS_TIMED, Work, Worked};
use super::{above, created, runtime, with_peers, worked};
use crate::numbers::{at_quantile, grouped, ratio, thousandths};
use crate::output;
use crate::peers::Peers;
use crate::protocol::{Answer, Order, pack, unpack};
use crate::testnet::become_whole;
use anyhow::{Context, Result};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Peer processes.
const PEERS: usize = 5;
/// How long it is measured in each mesh, and how long at most until there is enough; how often that is looked at.
const LASTS: Duration = Duration::from_secs(3);
const LASTS_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long before it nothing is counted.
const WARM_UP: Duration = Duration::from_millis(500);
/// Round trips that a forwarded task may take.
const RTTS_MAX: f64 = 1.5;
/// What a decision where a task goes may take, microseconds, and of how many keys something is learned then.
const DECISION_MAX_US: f64 = 5.0;
const KEYS: u64 = 10_000;
/// Counters that tasks of these keys touch.
const COUNTERS: usize = 100;
/// Fewer timings of decisions, or tasks, than these say nothing.
const DECISIONS_MIN: usize = 10;
const TASKS_MIN: usize = 100;

/// The figures.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Peer processes.
    pub(crate) peers: u64,
    /// A task that runs at another peer until its provisional answer is there, in bare round trips: with two followers; medians.
    pub(crate) forwarded_rtts: f64,
    /// The same until it is certain that its effects stay.
    pub(crate) forwarded_settled_rtts: f64,
    /// Without followers: nothing waits for a copy.
    pub(crate) forwarded_alone_rtts: f64,
    /// The same in microseconds, and the round trips.
    pub(crate) forwarded_us: u32,
    pub(crate) forwarded_p99_us: u32,
    pub(crate) rtt_us: u32,
    pub(crate) forwarded_alone_us: u32,
    pub(crate) forwarded_alone_p99_us: u32,
    pub(crate) alone_rtt_us: u32,
    /// To decide where a task goes of which it was learned what it touches, microseconds: the median of hundreds; and how many keys
    /// are known.
    pub(crate) decision_us: f64,
    pub(crate) decision_keys: u64,
    /// Tasks that were measured, in both meshes.
    pub(crate) tasks: u64,
    /// What missed its bar.
    pub(crate) missed: Vec<String>,
    /// Why the figures do not count; empty is good.
    pub(crate) invalid: Vec<String>,
}

/// Of one mesh.
struct Part {
    task_us: u32,
    p99_us: u32,
    settled_us: u32,
    rtt_us: u32,
    tasks: usize,
    decision_us: f64,
    invalid: Vec<String>,
}

/// Measures and prints.
pub(crate) fn run() -> Result<Figures> {
    let runtime = runtime()?;
    let mut figures = Figures { peers: PEERS as u64, ..Figures::default() };
    let alone = runtime.block_on(with_peers((PEERS, 0), None, async |peers| measure(peers).await))?;
    let followed = runtime.block_on(with_peers((PEERS, 2), None, async |peers| measure(peers).await))?;
    let rtts = |part: &Part| thousandths(ratio(part.task_us.into(), part.rtt_us.into()));
    (figures.forwarded_alone_rtts, figures.forwarded_rtts) = (rtts(&alone), rtts(&followed));
    (figures.forwarded_us, figures.forwarded_p99_us, figures.rtt_us) =
        (followed.task_us, followed.p99_us, followed.rtt_us);
    (figures.forwarded_alone_us, figures.forwarded_alone_p99_us, figures.alone_rtt_us) =
        (alone.task_us, alone.p99_us, alone.rtt_us);
    figures.forwarded_settled_rtts = thousandths(ratio(followed.settled_us.into(), followed.rtt_us.into()));
    figures.tasks = (alone.tasks + followed.tasks) as u64;
    (figures.decision_us, figures.decision_keys) = (thousandths(alone.decision_us), KEYS);
    figures.missed = above(&[
        ("forwarded_rtts", figures.forwarded_rtts, RTTS_MAX),
        ("forwarded_alone_rtts", figures.forwarded_alone_rtts, RTTS_MAX),
        ("decision_us", figures.decision_us, DECISION_MAX_US),
    ]);
    for part in [alone, followed] {
        if part.tasks < TASKS_MIN {
            figures.invalid.push(format!("{} tasks, at least {TASKS_MIN} are needed", part.tasks));
        }
        figures.invalid.extend(part.invalid);
    }
    tell(&figures);
    Ok(figures)
}

async fn measure(peers: &mut Peers) -> Result<Part> {
    let (owner, asker) = (1, 0);
    let mut invalid = Vec::new();
    become_whole(&peers.exchange, &mut invalid).await?;
    let counter = peers.all(&[owner], &Order::CreateCounter, created).await?;
    let counter = unpack(counter.first().context("no counter")?)?.first().copied().context("no counter")?;
    let peer = peers.names(&[owner]).pop().context("the owner has no name")?;
    // Who asks learns where the counter is, as it would of any object that it has read.
    peers
        .all(&[asker], &Order::Read { object: counter }, |answer| matches!(answer, Answer::Ready).then_some(()))
        .await?;
    let work = Work::Forwarded { counter, peer };
    peers.all(&[asker], &Order::BeginWork { work }, |answer| matches!(answer, Answer::Ready).then_some(())).await?;
    tokio::time::sleep(WARM_UP).await;
    let warm_up = peers.all(&[asker], &Order::WorkDone, worked).await?;
    invalid.extend(warm_up.into_iter().filter_map(|worked| worked.error));
    let done = work_of(peers, asker, TASKS_MIN).await?;
    invalid.extend(done.error.iter().map(|error| format!("{} tasks failed: {error}", done.failed)));
    let decision_us = decision_us(peers, (owner, asker), &mut invalid).await?;
    invalid.append(&mut peers.faults());
    Ok(Part {
        task_us: at_quantile(&done.samples_us, 0.5),
        p99_us: at_quantile(&done.samples_us, 0.99),
        settled_us: at_quantile(&done.settled_us, 0.5),
        rtt_us: at_quantile(&done.pings_us, 0.5),
        tasks: done.samples_us.len(),
        decision_us,
        invalid,
    })
}

/// Lets a peer work for a while, and until there is enough of it; then ends it.
async fn work_of(peers: &mut Peers, peer: usize, enough: usize) -> Result<Worked> {
    let (begun, mut all) = (Instant::now(), Worked::default());
    while begun.elapsed() < LASTS || (all.samples_us.len() < enough && begun.elapsed() < LASTS_MAX) {
        tokio::time::sleep(LOOK_EVERY).await;
        for worked in peers.all(&[peer], &Order::WorkDone, worked).await? {
            all.add(worked);
        }
        if all.failed > 0 {
            break;
        }
    }
    for worked in peers.all(&[peer], &Order::EndWork, worked).await? {
        all.add(worked);
    }
    Ok(all)
}

/// How long the asker takes to decide that a task goes to the owner, when it knows that from many tasks before.
async fn decision_us(peers: &mut Peers, (owner, asker): (usize, usize), invalid: &mut Vec<String>) -> Result<f64> {
    let is_ready = |answer: &Answer| matches!(answer, Answer::Ready).then_some(());
    let mut counters = Vec::with_capacity(COUNTERS);
    for _ in 0..COUNTERS {
        let counter = peers.all(&[owner], &Order::CreateCounter, created).await?;
        let counter = unpack(counter.first().context("no counter")?)?.first().copied().context("no counter")?;
        peers.all(&[asker], &Order::Read { object: counter }, is_ready).await?;
        counters.push(counter);
    }
    let peer = peers.names(&[owner]).pop().context("the owner has no name")?;
    let work = Work::Decisions { counters: pack(&counters), peer, keys: KEYS };
    peers.all(&[asker], &Order::BeginWork { work }, is_ready).await?;
    let done = work_of(peers, asker, DECISIONS_MIN).await?;
    invalid.extend(done.error.iter().map(|error| format!("decisions failed: {error}")));
    if done.samples_us.len() < DECISIONS_MIN {
        invalid.push("too few decisions were timed: learning took too long".to_owned());
    }
    Ok(f64::from(at_quantile(&done.samples_us, 0.5)) / f64::from(DECISIONS_TIMED))
}

fn tell(figures: &Figures) {
    output::line(&format!(
        "to decide where a task goes takes {} us with {} keys learned",
        figures.decision_us,
        grouped(figures.decision_keys)
    ));
    output::line(&format!(
        "a forwarded task takes {} bare round trips until its answer with two followers, {} until that is certain ({} us, p99 {} us, a \
         round trip {} us), {} without ({} us, p99 {} us, a round trip {} us)",
        figures.forwarded_rtts,
        figures.forwarded_settled_rtts,
        figures.forwarded_us,
        figures.forwarded_p99_us,
        figures.rtt_us,
        figures.forwarded_alone_rtts,
        figures.forwarded_alone_us,
        figures.forwarded_alone_p99_us,
        figures.alone_rtt_us,
    ));
}
