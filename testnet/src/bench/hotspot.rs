//! `cargo testnet bench hotspot`: tasks that read and write one object, by 50 submitters at five peers, beside the same 50 all
//! at the peer that owns it.
//!
//! Real peer processes; both by `mesh.submit`, in alternating rounds. Tasks say what they touch, or say nothing. It refuses to
//! report anything good when a task was not done.

use super::work::{Work, Worked};
use super::{created, runtime, with_peers, worked};
use crate::numbers::{at_quantile, float, median, per_second, rounded, thousandths};
use crate::output;
use crate::peers::Peers;
use crate::protocol::{Answer, Order, unpack};
use crate::testnet::become_whole;
use anyhow::{Context, Result};
use driftmesh::ObjectId;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Peer processes, and the followers of each.
const PEERS: usize = 5;
const REPLICAS: u8 = 2;
/// Submitters at each peer; all of them are at the owner in the rounds compared with.
const SUBMITTERS: u64 = 10;
/// Rounds of each kind, how long one is, and how long before it nothing is counted.
const ROUNDS: usize = 2;
const ROUND: Duration = Duration::from_millis(1_200);
const WARM_UP: Duration = Duration::from_millis(400);
/// How long an order may take.
const LIMIT: Duration = Duration::from_secs(20);
/// What must be reached.
const RATIO_MIN: f64 = 0.5;
const JAIN_MIN: f64 = 0.95;

/// The figures.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Peer processes, followers of each, and submitters of them all.
    pub(crate) peers: u64,
    pub(crate) replicas: u64,
    pub(crate) submitters: u64,
    /// Tasks per second of submitters everywhere, over those of submitters at the owner; medians of rounds.
    pub(crate) hotspot_ratio: f64,
    /// How evenly the tasks done are shared by the submitters everywhere (Jain's index; 1 is even); the worst round.
    pub(crate) jain: f64,
    /// Both rates.
    pub(crate) per_s: f64,
    pub(crate) at_owner_per_s: f64,
    /// The same for tasks that say nothing of what they touch, each submitter with an anchor of its own.
    pub(crate) undeclared_ratio: f64,
    pub(crate) undeclared_jain: f64,
    pub(crate) undeclared_per_s: f64,
    pub(crate) undeclared_at_owner_per_s: f64,
    /// From a submission to its end, everywhere: of each peer the quantile, of these the highest; microseconds.
    pub(crate) p50_us: u32,
    pub(crate) p99_us: u32,
    /// How often the object came to another peer in all rounds.
    pub(crate) moves: u64,
    /// Attempts without a commit, for each commit.
    pub(crate) aborts_per_commit: f64,
    /// Tasks that were not done: none may be, since the oldest is never ended by others and none is old for long.
    pub(crate) failed: u64,
    /// What missed its bar.
    pub(crate) missed: Vec<String>,
    /// Why the figures do not count; empty is good.
    pub(crate) invalid: Vec<String>,
}

/// What one round came to.
struct Round {
    per_s: f64,
    jain: f64,
    worked: Vec<Worked>,
}

/// Measures and prints.
pub(crate) fn run() -> Result<Figures> {
    let measured = with_peers((PEERS, REPLICAS), None, async |peers| measure(peers).await);
    let figures = runtime()?.block_on(measured)?;
    tell(&figures);
    Ok(figures)
}

async fn measure(peers: &mut Peers) -> Result<Figures> {
    let mut figures = Figures {
        peers: PEERS as u64,
        replicas: REPLICAS.into(),
        submitters: SUBMITTERS * PEERS as u64,
        ..Figures::default()
    };
    become_whole(&peers.exchange, &mut figures.invalid).await?;
    let (mut commits, mut aborts) = (0, 0);
    for declares in [true, false] {
        let (mut ratios, mut spread, mut at_owner) = (Vec::new(), Vec::new(), Vec::new());
        let mut jain: f64 = 1.0;
        for round in 0..ROUNDS {
            // A new object each time: nothing is learned of it.
            let owner = round % PEERS;
            let counter = peers.all(&[owner], &Order::CreateCounter, created).await?;
            let counter = unpack(counter.first().context("no counter")?)?.first().copied().context("no counter")?;
            let submitters = |peer: usize| if peer == owner { SUBMITTERS * PEERS as u64 } else { 0 };
            let alone = measure_round(peers, counter, submitters, declares).await?;
            let all = measure_round(peers, counter, |_| SUBMITTERS, declares).await?;
            ratios.push(all.per_s / alone.per_s.max(1.0));
            spread.push(all.per_s);
            at_owner.push(alone.per_s);
            jain = jain.min(all.jain);
            for worked in all.worked.iter().chain(&alone.worked) {
                figures.failed += worked.failed;
                if let Some(error) = &worked.error {
                    figures.invalid.push(format!("a task failed: {error}"));
                }
            }
            for worked in &all.worked {
                (commits, aborts) = (commits + worked.commits, aborts + worked.aborts);
                figures.moves += worked.arrived;
                if declares {
                    let quantile = |quantile| at_quantile(&worked.samples_us, quantile);
                    figures.p50_us = figures.p50_us.max(quantile(0.5));
                    figures.p99_us = figures.p99_us.max(quantile(0.99));
                }
            }
        }
        let (ratio, jain) = (thousandths(median(&mut ratios)), thousandths(jain));
        let (per_s, at_owner) = (median(&mut spread).round(), median(&mut at_owner).round());
        if declares {
            (figures.hotspot_ratio, figures.jain, figures.per_s, figures.at_owner_per_s) =
                (ratio, jain, per_s, at_owner);
        } else {
            (figures.undeclared_ratio, figures.undeclared_jain) = (ratio, jain);
            (figures.undeclared_per_s, figures.undeclared_at_owner_per_s) = (per_s, at_owner);
        }
    }
    figures.aborts_per_commit = thousandths(crate::numbers::ratio(aborts, commits));
    figures.invalid.append(&mut peers.faults());
    figures.judge();
    Ok(figures)
}

/// One round; what peers count themselves is that of the round alone.
async fn measure_round(
    peers: &mut Peers,
    counter: ObjectId,
    submitters: impl Fn(usize) -> u64,
    declares: bool,
) -> Result<Round> {
    let all: Vec<usize> = (0..PEERS).collect();
    for peer in &all {
        let work = Work::Bumps { counter, submitters: submitters(*peer), declares };
        peers.child(*peer)?.order(&Order::BeginWork { work }).await?;
    }
    for peer in &all {
        peers.child(*peer)?.take(LIMIT, |answer| matches!(answer, Answer::Ready).then_some(())).await?;
    }
    tokio::time::sleep(WARM_UP).await;
    let before = peers.all(&all, &Order::WorkDone, worked).await?;
    let begun = Instant::now();
    tokio::time::sleep(ROUND).await;
    let mut now = peers.all(&all, &Order::WorkDone, worked).await?;
    let micros = u64::try_from(begun.elapsed().as_micros())?;
    let ended = peers.all(&all, &Order::EndWork, worked).await?;
    let by_client: Vec<u64> = now.iter().flat_map(|worked| worked.by_client.iter().copied()).collect();
    for ((now, before), ended) in now.iter_mut().zip(&before).zip(&ended) {
        now.commits -= before.commits.min(now.commits);
        now.aborts -= before.aborts.min(now.aborts);
        now.arrived -= before.arrived.min(now.arrived);
        now.failed += before.failed + ended.failed;
        now.error = now.error.take().or_else(|| before.error.clone()).or_else(|| ended.error.clone());
    }
    let done = now.iter().map(|worked| worked.done).sum();
    Ok(Round { per_s: per_second(done, micros), jain: jain(&by_client), worked: now })
}

/// Jain's index: 1 when all have the same, 1/n when one has all.
fn jain(counts: &[u64]) -> f64 {
    let sum: f64 = counts.iter().copied().map(float).sum();
    let squares: f64 = counts.iter().copied().map(|count| float(count) * float(count)).sum();
    if squares == 0.0 { 0.0 } else { sum * sum / (float(counts.len() as u64) * squares) }
}

impl Figures {
    fn judge(&mut self) {
        let bars = [
            ("hotspot_ratio", self.hotspot_ratio, RATIO_MIN),
            ("jain", self.jain, JAIN_MIN),
            ("undeclared_ratio", self.undeclared_ratio, RATIO_MIN),
            ("undeclared_jain", self.undeclared_jain, JAIN_MIN),
        ];
        let missed = bars.into_iter().filter(|(_, figure, bar)| figure < bar);
        self.missed.extend(missed.map(|(name, figure, bar)| format!("{name} {figure}, at least {bar}")));
        if self.failed > 0 {
            self.invalid.push(format!("{} tasks were not done", self.failed));
        }
    }
}

fn tell(figures: &Figures) {
    let row = |what: &str, ratio: f64, per_s: f64, at_owner: f64, jain: f64| {
        output::line(&format!(
            "{what}: {} tasks/s of {} submitters at {} peers, {} tasks/s of as many at the owner: ratio {ratio}, Jain's index {jain}",
            rounded(per_s),
            figures.submitters,
            figures.peers,
            rounded(at_owner),
        ));
    };
    row("declared", figures.hotspot_ratio, figures.per_s, figures.at_owner_per_s, figures.jain);
    row(
        "undeclared",
        figures.undeclared_ratio,
        figures.undeclared_per_s,
        figures.undeclared_at_owner_per_s,
        figures.undeclared_jain,
    );
    output::line(&format!(
        "p50 {} us, p99 {} us; {} moves, {} aborts per commit, {} tasks not done",
        figures.p50_us, figures.p99_us, figures.moves, figures.aborts_per_commit, figures.failed
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_is_one_for_even_shares_and_a_share_for_one_who_has_all() {
        assert_eq!(jain(&[7, 7, 7, 7]), 1.0);
        assert_eq!(jain(&[8, 0, 0, 0]), 0.25);
        assert_eq!((jain(&[]), jain(&[0, 0])), (0.0, 0.0));
    }
}
