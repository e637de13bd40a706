//! `cargo testnet overload`: tasks at twice the rate that the mesh can carry, for minutes, and then at half of what it can
//! carry again, as before.
//!
//! Real peer processes; tasks of all peers on objects of one, with two followers. It refuses to call a mesh good that does not
//! refuse early what it cannot do, does less work because more was asked of it, keeps more memory the longer that goes on, or
//! goes on talking about it when it is over.

use super::work::{Work, Worked};
use super::{created, runtime, with_peers, worked};
use crate::memory::{growth_mib, mib};
use crate::numbers::{float, grouped, per_second, ratio, rounded, thousandths};
use crate::options::OverloadOptions;
use crate::peers::Peers;
use crate::protocol::{Answer, Order, pack, unpack};
use crate::testnet::become_whole;
use crate::{json_file, output};
use anyhow::{Context, Result};
use driftmesh::ObjectId;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Peer processes, and the followers of each.
const PEERS: usize = 3;
const REPLICAS: u8 = 2;
/// Objects that the tasks are on, all of one peer at first.
const COUNTERS: usize = 200;
/// Tasks that each peer has under way while it is measured what the mesh can carry.
const CLIENTS: u64 = 64;
/// How long that is measured, and how long before it nothing is counted.
const MEASURED_FOR: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(2);
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The load beside what the mesh can carry.
const NORMAL: f64 = 0.5;
const TOO_MUCH: f64 = 2.0;
/// What must hold: of what the mesh can carry so much is done under overload; more memory of a process at the end of it than
/// after a third, MiB; tasks that end well at half load afterwards; frames for each of them, over those before.
const DONE_MIN: f64 = 0.5;
const GROWTH_MAX_MIB: f64 = 48.0;
const DONE_AFTER_MIN: f64 = 0.99;
const FRAMES_RATIO_MAX: f64 = 1.25;

/// One stretch of the run.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Stretch {
    /// Tasks asked for, per second.
    pub(crate) asked_per_s: f64,
    /// Done, per second.
    pub(crate) done_per_s: f64,
    /// Refused because there was too much, per second.
    pub(crate) refused_per_s: f64,
    /// Given up at their deadlines, per second.
    pub(crate) late_per_s: f64,
    /// The slowest but one of 100 refusals, microseconds.
    pub(crate) refusal_p99_us: u32,
    /// The slowest but one of 100 that were done.
    pub(crate) done_p99_us: u32,
    /// Frames between peers for each task that was done.
    pub(crate) frames_per_task: f64,
}

/// The figures.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// What the mesh can carry, tasks per second.
    pub(crate) capacity_per_s: f64,
    /// Half of that, before.
    pub(crate) before: Stretch,
    /// Twice as much as it can carry.
    pub(crate) overload: Stretch,
    /// Half of it again.
    pub(crate) after: Stretch,
    /// What a process gained in memory from the first third of the overload to its end, at most, MiB.
    pub(crate) rss_growth_mb: f64,
    /// The most that one took, MiB.
    pub(crate) rss_max_mb: f64,
    /// Why the run does not count; empty is good.
    pub(crate) invalid: Vec<String>,
}

/// Runs it. `Ok(false)` when a bar is missed.
pub(super) fn run(options: &OverloadOptions) -> Result<bool> {
    crate::options::check_writable(options.json.as_deref())?;
    let seconds = Duration::from_secs(options.seconds);
    let measured = with_peers((PEERS, REPLICAS), None, async |peers| measure(peers, seconds).await);
    let mut figures = runtime()?.block_on(measured)?;
    figures.judge();
    tell(&figures);
    figures.invalid.iter().for_each(|why| output::line(&format!("INVALID: {why}")));
    json_file::write(options.json.as_deref(), &figures)?;
    Ok(figures.invalid.is_empty())
}

async fn measure(peers: &mut Peers, overload: Duration) -> Result<Figures> {
    let mut figures = Figures::default();
    become_whole(&peers.exchange, &mut figures.invalid).await?;
    let mut counters = Vec::with_capacity(COUNTERS);
    for _ in 0..COUNTERS {
        let counter = peers.all(&[0], &Order::CreateCounter, created).await?;
        counters.extend(unpack(counter.first().context("no counter")?)?);
    }
    let mut memory = Vec::new();
    let carried = stretch(peers, &counters, 0.0, MEASURED_FOR, &mut memory).await?;
    figures.capacity_per_s = carried.done_per_s;
    // Before and after take a third of the overload each.
    let calm = (overload / 3).max(MEASURED_FOR);
    figures.before = stretch(peers, &counters, NORMAL * carried.done_per_s, calm, &mut memory).await?;
    memory.clear();
    figures.overload = stretch(peers, &counters, TOO_MUCH * carried.done_per_s, overload, &mut memory).await?;
    figures.rss_growth_mb = growth_mib(&memory);
    figures.rss_max_mb = mib(memory.iter().flatten().copied().max().unwrap_or(0));
    figures.after = stretch(peers, &counters, NORMAL * carried.done_per_s, calm, &mut memory).await?;
    figures.invalid.append(&mut peers.faults());
    Ok(figures)
}

/// Asks for tasks at a rate, or for as many as there are clients where it is 0, so long.
async fn stretch(
    peers: &mut Peers,
    counters: &[ObjectId],
    per_s: f64,
    lasts: Duration,
    memory: &mut Vec<Vec<u64>>,
) -> Result<Stretch> {
    let all: Vec<usize> = (0..PEERS).collect();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is neither negative nor large")]
    let each = (per_s / float(PEERS as u64)).ceil() as u64;
    let work = Work::Tasks { counters: pack(counters), clients: CLIENTS, per_s: each };
    peers.all(&all, &Order::BeginWork { work }, |answer| matches!(answer, Answer::Ready).then_some(())).await?;
    tokio::time::sleep(WARM_UP).await;
    peers.all(&all, &Order::WorkDone, worked).await?;
    let frames = |peers: &Peers| peers.exchange.statuses().iter().map(|status| status.frames_sent).sum::<u64>();
    let (begun, frames_before) = (Instant::now(), frames(peers));
    let mut sum = Worked::default();
    while begun.elapsed() < lasts {
        tokio::time::sleep(LOOK_EVERY).await;
        peers.exchange.tick()?;
        memory.push(peers.exchange.statuses().iter().map(|status| status.memory_kib).collect());
        for worked in peers.all(&all, &Order::WorkDone, worked).await? {
            sum.add(worked);
        }
    }
    let (micros, sent) = (u64::try_from(begun.elapsed().as_micros())?, frames(peers) - frames_before);
    peers.all(&all, &Order::EndWork, worked).await?;
    let rate = |count| per_second(count, micros).round();
    let quantile = |samples: &[u32]| crate::numbers::at_quantile(samples, 0.99);
    anyhow::ensure!(sum.failed == 0, "{} tasks failed: {}", sum.failed, sum.error.unwrap_or_default());
    Ok(Stretch {
        asked_per_s: rate(sum.done + sum.refused + sum.late),
        done_per_s: rate(sum.done),
        refused_per_s: rate(sum.refused),
        late_per_s: rate(sum.late),
        refusal_p99_us: quantile(&sum.refusals_us),
        done_p99_us: quantile(&sum.samples_us),
        frames_per_task: thousandths(ratio(sent, sum.done)),
    })
}

impl Figures {
    fn judge(&mut self) {
        let Self { before, overload, after, .. } = *self;
        let done = ratio_of(overload.done_per_s, self.capacity_per_s);
        let refused = overload.refused_per_s;
        let mut bar = |is_met: bool, what: String| {
            if !is_met {
                self.invalid.push(what);
            }
        };
        bar(refused > 0.0, "nothing was refused under overload".to_owned());
        bar(
            done >= DONE_MIN,
            format!("under overload {done} of what the mesh can carry was done, {DONE_MIN} at least"),
        );
        let growth = self.rss_growth_mb;
        bar(growth <= GROWTH_MAX_MIB, format!("a process gained {growth} MiB under overload, {GROWTH_MAX_MIB} may be"));
        let done_after = ratio_of(after.done_per_s, after.asked_per_s);
        bar(
            done_after >= DONE_AFTER_MIN,
            format!("{done_after} of the tasks after it were done, {DONE_AFTER_MIN} at least"),
        );
        let frames = ratio_of(after.frames_per_task, before.frames_per_task);
        bar(
            frames <= FRAMES_RATIO_MAX,
            format!("{frames} times the frames a task after it, {FRAMES_RATIO_MAX} at most"),
        );
    }
}

fn ratio_of(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { thousandths(part / whole) }
}

fn tell(figures: &Figures) {
    output::line(&format!("the mesh can carry {} tasks/s", rounded(figures.capacity_per_s)));
    for (what, stretch) in [("before", figures.before), ("overload", figures.overload), ("after", figures.after)] {
        output::line(&format!(
            "{what}: {} tasks/s asked for, {} done (p99 {} us), {} refused (p99 {} us), {} late; {} frames a task",
            rounded(stretch.asked_per_s),
            rounded(stretch.done_per_s),
            grouped(stretch.done_p99_us.into()),
            rounded(stretch.refused_per_s),
            grouped(stretch.refusal_p99_us.into()),
            rounded(stretch.late_per_s),
            stretch.frames_per_task,
        ));
    }
    output::line(&format!(
        "memory of a process {} MiB at most, {} more at the end of the overload than after a third of it",
        figures.rss_max_mb, figures.rss_growth_mb
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bar_that_is_missed_is_told() {
        let good = Figures {
            capacity_per_s: 100.0,
            before: Stretch { frames_per_task: 2.0, ..Stretch::default() },
            overload: Stretch { done_per_s: 90.0, refused_per_s: 110.0, ..Stretch::default() },
            after: Stretch { asked_per_s: 50.0, done_per_s: 50.0, frames_per_task: 2.0, ..Stretch::default() },
            ..Figures::default()
        };
        let missed = |mut figures: Figures| {
            figures.judge();
            figures.invalid.len()
        };
        assert_eq!(missed(good.clone()), 0);
        let bad: [fn(&mut Figures); 5] = [
            |figures| figures.overload.refused_per_s = 0.0,
            |figures| figures.overload.done_per_s = 40.0,
            |figures| figures.rss_growth_mb = GROWTH_MAX_MIB + 1.0,
            |figures| figures.after.done_per_s = 40.0,
            |figures| figures.after.frames_per_task = 3.0,
        ];
        for spoil in bad {
            let mut figures = good.clone();
            spoil(&mut figures);
            assert_eq!(missed(figures), 1);
        }
    }
}
