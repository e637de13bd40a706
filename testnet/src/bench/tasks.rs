//! `cargo testnet bench tasks`: how long a task takes that runs at another peer, in bare round trips of the same connection.
//!
//! Real peer processes; tasks and round trips in turns, one at a time, in meshes without followers and with two. It refuses to
//! report anything good when a task ran elsewhere than where its object is.

use super::work::Work;
use super::{created, runtime, with_peers, worked};
use crate::numbers::{at_quantile, ratio, thousandths};
use crate::output;
use crate::peers::Peers;
use crate::protocol::{Answer, Order, unpack};
use crate::testnet::become_whole;
use anyhow::{Context, Result};
use serde::Serialize;
use std::time::Duration;

/// Peer processes.
const PEERS: usize = 5;
/// How long it is measured in each mesh.
const LASTS: Duration = Duration::from_secs(3);
/// How long before it nothing is counted.
const WARM_UP: Duration = Duration::from_millis(500);
/// Round trips that a forwarded task may take.
const RTTS_MAX: f64 = 1.5;
/// Fewer tasks than these say nothing.
const TASKS_MIN: usize = 100;

/// The figures.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Peer processes.
    pub(crate) peers: u64,
    /// A task that runs at another peer until its answer is there, in bare round trips: with two followers; medians.
    pub(crate) forwarded_rtts: f64,
    /// Without followers: nothing waits for a copy.
    pub(crate) forwarded_alone_rtts: f64,
    /// The same in microseconds, and the round trips.
    pub(crate) forwarded_us: u32,
    pub(crate) forwarded_p99_us: u32,
    pub(crate) rtt_us: u32,
    pub(crate) forwarded_alone_us: u32,
    pub(crate) forwarded_alone_p99_us: u32,
    pub(crate) alone_rtt_us: u32,
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
    rtt_us: u32,
    tasks: usize,
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
    figures.tasks = (alone.tasks + followed.tasks) as u64;
    for (name, rtts) in
        [("forwarded_rtts", figures.forwarded_rtts), ("forwarded_alone_rtts", figures.forwarded_alone_rtts)]
    {
        if rtts > RTTS_MAX {
            figures.missed.push(format!("{name} {rtts}, at most {RTTS_MAX}"));
        }
    }
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
    peers.all(&[asker], &Order::WorkDone, worked).await?;
    tokio::time::sleep(LASTS).await;
    let done = peers.all(&[asker], &Order::EndWork, worked).await?.pop().context("nothing was done")?;
    invalid.extend(done.error.iter().map(|error| format!("{} tasks failed: {error}", done.failed)));
    invalid.append(&mut peers.faults());
    Ok(Part {
        task_us: at_quantile(&done.samples_us, 0.5),
        p99_us: at_quantile(&done.samples_us, 0.99),
        rtt_us: at_quantile(&done.pings_us, 0.5),
        tasks: done.samples_us.len(),
        invalid,
    })
}

fn tell(figures: &Figures) {
    output::line(&format!(
        "a forwarded task takes {} bare round trips with two followers ({} us, p99 {} us, a round trip {} us), {} without ({} us, p99 \
         {} us, a round trip {} us)",
        figures.forwarded_rtts,
        figures.forwarded_us,
        figures.forwarded_p99_us,
        figures.rtt_us,
        figures.forwarded_alone_rtts,
        figures.forwarded_alone_us,
        figures.forwarded_alone_p99_us,
        figures.alone_rtt_us,
    ));
}
