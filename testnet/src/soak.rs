//! `cargo testnet soak`: the testnet's run for as long as one likes, with a kill and a new peer every minute; and whether
//! anything that peers keep grows for ever.
//!
//! One peer is never killed: what only grows shows in it. What it keeps, and its memory, are compared between the second and
//! the last third of the run. It refuses to judge a run that is too short to tell.

use crate::numbers::{grouped, thousandths};
use crate::options::SoakOptions;
use crate::protocol::PeerStatus;
use crate::{interrupt, output, tell_ended, testnet};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The peer that is never killed.
pub(crate) const SPARED: usize = 0;
/// Most samples that are kept: with more, every other one goes, and samples are taken half as often.
const SAMPLES_MAX: usize = 1_024;
/// How often one is taken at first.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// With fewer samples, or in less time, nothing is judged: caches fill, and versions are kept for a minute.
const SAMPLES_MIN: usize = 60;
const JUDGED_AFTER: Duration = Duration::from_secs(600);
/// Most growth from the second third of a run to the last.
const GROWTH_MAX: f64 = 0.1;

/// What is looked at: its name, where it stands, and how much of it comes and goes by itself.
type Gauge = (&'static str, fn(&PeerStatus) -> u64, u64);
const GAUGES: [Gauge; 6] = [
    ("memory_kib", |status| status.memory_kib, 16 << 10),
    ("version_bytes", |status| status.version_bytes, 1 << 20),
    ("pointers", |status| status.pointers, 2_000),
    ("directory_bytes", |status| status.directory_bytes, 1 << 20),
    ("held_messages", |status| status.held_messages, 500),
    ("outcomes", |status| status.outcomes, 2_000),
];

/// What the peer that lives throughout keeps, over time.
#[derive(Debug)]
pub(crate) struct Kept {
    samples: Vec<[u64; GAUGES.len()]>,
    every: Duration,
    begun: Instant,
    next: Instant,
}

/// How much of something is kept in the second and in the last third of a run, in the mean.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Growth {
    /// In the second third.
    pub(crate) before: u64,
    /// In the last one.
    pub(crate) after: u64,
    /// What that is more, as a share of the former.
    pub(crate) growth: f64,
}

impl Default for Kept {
    fn default() -> Self {
        let begun = Instant::now();
        Self { samples: Vec::new(), every: SAMPLE_EVERY, begun, next: begun }
    }
}

impl Kept {
    /// To be called often; `statuses` is what all peers said last, asked for now and then.
    pub(crate) fn look(&mut self, statuses: impl FnOnce() -> Vec<PeerStatus>) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + self.every;
        let statuses = statuses();
        let Some(spared) = statuses.get(SPARED) else { return };
        self.samples.push(GAUGES.map(|(_, gauge, _)| gauge(spared)));
        if self.samples.len() > SAMPLES_MAX {
            let mut number = 0_usize;
            self.samples.retain(|_| {
                number += 1;
                number.is_multiple_of(2)
            });
            self.every *= 2;
        }
    }

    /// What each gauge did; nothing after too few samples.
    pub(crate) fn growths(&self) -> BTreeMap<&'static str, Growth> {
        if self.samples.len() < 3 {
            return BTreeMap::new();
        }
        let third = self.samples.len() / 3;
        let mean = |from: usize, to: usize, gauge: usize| {
            let sum: u64 = self.samples[from..to].iter().map(|sample| sample[gauge]).sum();
            sum / (to - from) as u64
        };
        let growth = |(number, (name, _, noise)): (usize, &Gauge)| {
            let (before, after) = (mean(third, 2 * third, number), mean(2 * third, self.samples.len(), number));
            let more = after.saturating_sub(before.saturating_add(*noise));
            let growth = thousandths(crate::numbers::ratio(more, before.max(*noise)));
            (*name, Growth { before, after, growth })
        };
        GAUGES.iter().enumerate().map(growth).collect()
    }

    /// Whether it lasted long enough to tell.
    pub(crate) fn may_be_judged(&self) -> bool {
        self.samples.len() >= SAMPLES_MIN && self.begun.elapsed() >= JUDGED_AFTER
    }
}

/// What grows without an end.
pub(crate) fn faults(growths: &BTreeMap<&'static str, Growth>) -> Vec<String> {
    let grows = growths.iter().filter(|(_, growth)| growth.growth > GROWTH_MAX);
    grows
        .map(|(name, Growth { before, after, growth })| {
            let (before, after) = (grouped(*before), grouped(*after));
            format!("{name} of the peer that was never killed grew from {before} to {after}: {growth} beyond what comes and goes")
        })
        .collect()
}

/// Runs it.
pub(crate) fn run(options: &SoakOptions) -> Result<ExitCode> {
    let options = options.run_options();
    options.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async { testnet::run(&options, None, None, interrupt::interrupt()?).await })?;
    if let testnet::Ended::Reported(report) = &ended {
        for (name, Growth { before, after, growth }) in &report.growth {
            let (before, after) = (grouped(*before), grouped(*after));
            output::line(&format!("{name}: {before} in the second third, {after} in the last, growth {growth}"));
        }
    }
    tell_ended(ended, &options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(samples: impl Iterator<Item = u64>) -> Kept {
        let samples = samples.map(|memory| [memory, 0, 0, 0, 0, 0]).collect();
        Kept { samples, ..Kept::default() }
    }

    #[test]
    fn what_climbs_is_a_fault_and_what_comes_and_goes_is_none() {
        let climbs = kept((0..300).map(|second| (100 << 10) + second * 500));
        let growths = climbs.growths();
        assert!(growths["memory_kib"].growth > GROWTH_MAX, "{growths:?}");
        assert_eq!(faults(&growths).len(), 1);
        let waves = kept((0..300).map(|second| (100 << 10) + second % 20 * 500));
        assert_eq!(faults(&waves.growths()), Vec::<String>::new());
        assert!(!climbs.may_be_judged(), "it has only begun");
    }

    #[test]
    fn samples_are_bounded_however_long_it_lasts() {
        let mut kept = Kept::default();
        let statuses = || vec![PeerStatus { memory_kib: 7, ..PeerStatus::default() }];
        for _ in 0..3 * SAMPLES_MAX {
            kept.next = Instant::now();
            kept.look(statuses);
        }
        assert!(kept.samples.len() <= SAMPLES_MAX && kept.every > SAMPLE_EVERY);
        assert_eq!(kept.growths()["memory_kib"], Growth { before: 7, after: 7, growth: 0.0 });
    }
}
