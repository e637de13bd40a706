//! `cargo testnet bench handover`: what it costs when transactions take objects from other peers, and what that leaves of the
//! throughput.
//!
//! Real peer processes, each with 8 transactions under way on one object each. Of these a share is on an object of another
//! peer, which moves. Throughput is what became stable. The cost is told in single framed messages: CPU time of bare round trips of the same processes, halved.
//! It refuses to report anything good when a transaction failed or too few objects moved.

use super::work::{Work, Worked};
use super::{created, runtime, with_peers, worked};
use crate::chance;
use crate::numbers::{at_quantile, float, median, per_second, ratio, rounded, thousandths};
use crate::output;
use crate::peers::Peers;
use crate::protocol::{Answer, Order, pack, unpack};
use crate::testnet::become_whole;
use anyhow::{Context, Result};
use driftmesh::ObjectId;
use fastrand::Rng;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Peer processes, and the followers of each.
const PEERS: usize = 5;
const REPLICAS: u8 = 2;
/// Objects of each peer at first.
const OBJECTS: u64 = 1_000;
/// Transactions under way at each peer.
const CLIENTS: u64 = 8;
/// Rounds of each share of moves, how long one is, and how long before it nothing is counted.
const ROUNDS: usize = 2;
const ROUND: Duration = Duration::from_millis(1_000);
const WARM_UP: Duration = Duration::from_millis(300);
/// How long the bare round trips of an idle mesh are measured.
const IDLE: Duration = Duration::from_millis(500);
/// How long an order may take.
const LIMIT: Duration = Duration::from_secs(20);
/// What must be reached.
const MESSAGES_MAX: f64 = 15.0;
const RATIO_MIN: f64 = 0.5;
const HALF_RATIO_MIN: f64 = 0.95;
const HALF_P99_MAX: f64 = 5.0;
/// Fewer moves than these say nothing.
const MOVES_MIN: u64 = 100;

/// The figures.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Peer processes, followers of each, objects of each, and transactions under way at each.
    pub(crate) peers: u64,
    pub(crate) replicas: u64,
    pub(crate) objects: u64,
    pub(crate) in_flight: u64,
    /// Extra CPU time of all processes for each object that moved, in single framed messages, with 10 % of moves.
    pub(crate) handover_messages: f64,
    /// The same with 2.5 %.
    pub(crate) handover_messages_2_5: f64,
    /// Both in microseconds, and the CPU time of a single framed message.
    pub(crate) handover_us: f64,
    pub(crate) handover_us_2_5: f64,
    pub(crate) message_us: f64,
    /// Throughput with that share of moves, in percent, over that without; medians of rounds.
    pub(crate) handover_ratio_2_5: f64,
    pub(crate) handover_ratio_10: f64,
    /// Transactions per second, all peers together, with no moves, 2.5 % and 10 %.
    pub(crate) per_s_0: f64,
    pub(crate) per_s_2_5: f64,
    pub(crate) per_s_10: f64,
    /// At half of `per_s_0`, with 10 % of moves: what was done of what was wanted.
    pub(crate) half_ratio_10: f64,
    /// Of 100 transactions the slowest but one at that load, in bare round trips at that load: of each peer, the highest.
    pub(crate) half_p99_rtts: f64,
    /// The same in bare round trips of an idle mesh.
    pub(crate) half_p99_idle_rtts: f64,
    /// And in microseconds, with those of moves alone, and both kinds of round trips (medians).
    pub(crate) half_p99_us: u32,
    pub(crate) half_rtt_us: u32,
    pub(crate) idle_rtt_us: u32,
    /// Objects that moved in the rounds with 10 %, saturated.
    pub(crate) moves: u64,
    /// Transactions that failed.
    pub(crate) failed: u64,
    /// What missed its bar.
    pub(crate) missed: Vec<String>,
    /// Why the figures do not count; empty is good.
    pub(crate) invalid: Vec<String>,
}

/// What one round of all peers came to.
#[derive(Clone, Debug, Default)]
struct Round {
    done: u64,
    per_s: f64,
    cpu_us: u64,
    moves: u64,
    failed: u64,
    error: Option<String>,
    p99_us: u32,
    rtt_us: u32,
}

impl Round {
    /// CPU time for each object that moved, beyond what as many transactions take without moves.
    fn extra_us(rounds: &[Self], without: &[Self]) -> f64 {
        let sum = |rounds: &[Self], part: fn(&Self) -> u64| rounds.iter().map(part).sum::<u64>();
        let each = ratio(sum(without, |round| round.cpu_us), sum(without, |round| round.done));
        let extra = float(sum(rounds, |round| round.cpu_us)) - float(sum(rounds, |round| round.done)) * each;
        extra.max(0.0) / float(sum(rounds, |round| round.moves).max(1))
    }
}

/// Measures and prints.
pub(crate) fn run() -> Result<Figures> {
    let measured = with_peers((PEERS, REPLICAS), None, async |peers| measure(peers).await);
    let figures = runtime()?.block_on(measured)?;
    tell(&figures);
    Ok(figures)
}

async fn measure(peers: &mut Peers) -> Result<Figures> {
    let all: Vec<usize> = (0..PEERS).collect();
    let own = peers.all(&all, &Order::CreateMarks { count: OBJECTS }, created).await?;
    let own: Vec<Vec<ObjectId>> = own.iter().map(|packed| unpack(packed)).collect::<Result<_>>()?;
    let mut figures = Figures {
        peers: PEERS as u64,
        replicas: REPLICAS.into(),
        objects: OBJECTS,
        in_flight: CLIENTS,
        ..Figures::default()
    };
    become_whole(&peers.exchange, &mut figures.invalid).await?;
    let idle = round(peers, |peer| Work::Pings { clients: u64::from(peer == 0) }, Duration::ZERO, IDLE).await?;
    figures.idle_rtt_us = idle.rtt_us;
    let pings = round(peers, |_| Work::Pings { clients: CLIENTS }, WARM_UP, ROUND).await?;
    figures.message_us = thousandths(ratio(pings.cpu_us, 2 * pings.done));
    let marks = Marks { all: own.concat(), rng: chance::rng() };
    let (mut without, mut few, mut many) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(marks.round(peers, 0, 0).await?);
        few.push(marks.round(peers, 25, 0).await?);
        many.push(marks.round(peers, 100, 0).await?);
    }
    let per_s = |rounds: &[Round]| median(&mut rounds.iter().map(|round| round.per_s).collect::<Vec<_>>());
    let (per_s_0, per_s_2_5, per_s_10) = (per_s(&without), per_s(&few), per_s(&many));
    (figures.per_s_0, figures.per_s_2_5, figures.per_s_10) = (per_s_0.round(), per_s_2_5.round(), per_s_10.round());
    figures.handover_ratio_2_5 = thousandths(per_s_2_5 / per_s_0.max(1.0));
    figures.handover_ratio_10 = thousandths(per_s_10 / per_s_0.max(1.0));
    figures.handover_us = thousandths(Round::extra_us(&many, &without));
    figures.handover_us_2_5 = thousandths(Round::extra_us(&few, &without));
    figures.handover_messages = thousandths(figures.handover_us / figures.message_us.max(1e-3));
    figures.handover_messages_2_5 = thousandths(figures.handover_us_2_5 / figures.message_us.max(1e-3));
    figures.moves = many.iter().map(|round| round.moves).sum();
    let wanted = per_s_0 / 2.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a pause of some microseconds")]
    let every_us = (1e6 * float(CLIENTS * PEERS as u64) / wanted.max(1.0)) as u64;
    let half = marks.round(peers, 100, every_us.max(1)).await?;
    figures.half_ratio_10 = thousandths(half.per_s / wanted.max(1.0));
    (figures.half_p99_us, figures.half_rtt_us) = (half.p99_us, half.rtt_us);
    figures.half_p99_rtts = thousandths(ratio(half.p99_us.into(), half.rtt_us.into()));
    figures.half_p99_idle_rtts = thousandths(ratio(half.p99_us.into(), idle.rtt_us.into()));
    for round in without.iter().chain(&few).chain(&many).chain([&half]) {
        figures.failed += round.failed;
        figures.invalid.extend(round.error.iter().map(|error| format!("a transaction failed: {error}")));
    }
    figures.invalid.append(&mut peers.faults());
    figures.judge();
    Ok(figures)
}

/// All objects, wherever they are.
struct Marks {
    all: Vec<ObjectId>,
    rng: Rng,
}

impl Marks {
    /// One round with so many moves in 1,000.
    async fn round(&self, peers: &mut Peers, moves_per_mille: u64, every_us: u64) -> Result<Round> {
        let packed = pack(&self.all);
        let seed = self.rng.clone().u64(..);
        let work = |peer: usize| Work::Handover {
            // Which of them are here, each peer finds out.
            own: packed.clone(),
            all: packed.clone(),
            clients: CLIENTS,
            moves_per_mille,
            every_us,
            seed: seed.wrapping_add(1_000 * peer as u64),
        };
        round(peers, work, WARM_UP, ROUND).await
    }
}

/// One round of some work at each peer.
async fn round(peers: &mut Peers, work: impl Fn(usize) -> Work, warm_up: Duration, lasts: Duration) -> Result<Round> {
    let all: Vec<usize> = (0..PEERS).collect();
    for peer in &all {
        peers.child(*peer)?.order(&Order::BeginWork { work: work(*peer) }).await?;
    }
    for peer in &all {
        let begun = peers.child(*peer)?.take(LIMIT, |answer| matches!(answer, Answer::Ready).then_some(()));
        begun.await.context("the work did not begin")?;
    }
    tokio::time::sleep(warm_up).await;
    let before = peers.all(&all, &Order::WorkDone, worked).await?;
    let begun = Instant::now();
    tokio::time::sleep(lasts).await;
    let now = peers.all(&all, &Order::WorkDone, worked).await?;
    // It ends when all that was done is stable: followers can lag behind for a second, and whatever came next would pay for it.
    let ended = peers.all(&all, &Order::EndWork, worked).await?;
    let micros = u64::try_from(begun.elapsed().as_micros())?;
    let gained = |part: fn(&Worked) -> u64| -> u64 {
        before.iter().zip(&ended).map(|(before, ended)| part(ended).saturating_sub(part(before))).sum()
    };
    let done = now.iter().chain(&ended).map(|worked| worked.done).sum();
    let pings: Vec<u32> = now.iter().flat_map(|worked| worked.pings_us.iter().copied()).collect();
    Ok(Round {
        done,
        per_s: per_second(done, micros),
        cpu_us: gained(|worked| worked.cpu_us),
        moves: gained(|worked| worked.arrived),
        failed: before.iter().chain(&now).chain(&ended).map(|worked| worked.failed).sum(),
        error: before.iter().chain(&now).chain(&ended).find_map(|worked| worked.error.clone()),
        p99_us: now.iter().map(|worked| at_quantile(&worked.samples_us, 0.99)).max().unwrap_or(0),
        rtt_us: at_quantile(&pings, 0.5),
    })
}

impl Figures {
    fn judge(&mut self) {
        let mut miss = |is_good: bool, what: String| {
            if !is_good {
                self.missed.push(what);
            }
        };
        let messages = self.handover_messages;
        miss(messages <= MESSAGES_MAX, format!("handover_messages {messages}, at most {MESSAGES_MAX}"));
        let saturated = self.handover_ratio_10;
        miss(saturated >= RATIO_MIN, format!("handover_ratio_10 {saturated}, at least {RATIO_MIN}"));
        let half = self.half_ratio_10;
        miss(half >= HALF_RATIO_MIN, format!("half_ratio_10 {half}, at least {HALF_RATIO_MIN}"));
        let p99 = self.half_p99_rtts;
        miss(p99 <= HALF_P99_MAX, format!("half_p99_rtts {p99}, at most {HALF_P99_MAX}"));
        if self.moves < MOVES_MIN {
            self.invalid.push(format!("{} objects moved, at least {MOVES_MIN} must", self.moves));
        }
        if self.failed > 0 {
            self.invalid.push(format!("{} transactions failed", self.failed));
        }
    }
}

fn tell(figures: &Figures) {
    output::line(&format!(
        "saturated: {} transactions/s without moves, {} with 2.5 % (ratio {}), {} with 10 % (ratio {})",
        rounded(figures.per_s_0),
        rounded(figures.per_s_2_5),
        figures.handover_ratio_2_5,
        rounded(figures.per_s_10),
        figures.handover_ratio_10,
    ));
    output::line(&format!(
        "an object that moves costs {} us of CPU time, {} single framed messages of {} us ({} us at 2.5 %)",
        figures.handover_us, figures.handover_messages, figures.message_us, figures.handover_us_2_5,
    ));
    output::line(&format!(
        "half load with 10 % of moves: {} of what was wanted; p99 {} us, which is {} bare round trips of {} us at that load, {} of \
         {} us in an idle mesh",
        figures.half_ratio_10,
        figures.half_p99_us,
        figures.half_p99_rtts,
        figures.half_rtt_us,
        figures.half_p99_idle_rtts,
        figures.idle_rtt_us,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_costs_what_is_beyond_the_transactions() {
        let round = |done, cpu_us, moves| Round { done, cpu_us, moves, ..Round::default() };
        let without = [round(1_000, 10_000, 0), round(1_000, 10_000, 0)];
        assert_eq!(Round::extra_us(&[round(1_000, 12_000, 20)], &without), 100.0);
        assert_eq!(Round::extra_us(&[round(1_000, 9_000, 20)], &without), 0.0);
    }
}
