//! What a run, and many runs, came to.

use crate::dump::Dumped;
use driftmesh_peer::{RareBranch, RareEvent};
use serde::Serialize;
use std::collections::BTreeMap;

/// One seed's run.
#[derive(Clone, Debug, Default)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// What was wrong; empty is good.
    pub violations: Vec<String>,
    /// Commits that clients saw.
    pub commits: u64,
    /// Objects that changed their owner.
    pub transfers: u64,
    /// Wounds.
    pub wounds: u64,
    /// Attempts that ended without a commit.
    pub aborts: u64,
    /// Faults.
    pub faults: u64,
    /// Peers that crashed.
    pub crashes: u64,
    /// Commits, and snapshots read, that were lost and told so.
    pub lost: u64,
    /// How often both of two doors were seen open, where snapshot isolation allows it.
    pub write_skews: u64,
    /// The hash over all inputs and commands, if the caller wanted one.
    pub trace_hash: Option<String>,
    /// Virtual time, us.
    pub sim_us: u64,
    /// Rare events that happened.
    pub rare: BTreeMap<RareEvent, u64>,
    /// Rare branches that peers took on purpose.
    pub branches: BTreeMap<RareBranch, u64>,
    /// The options, as text.
    pub options: String,
    /// Files for outside judges, if the caller wanted some.
    pub dumped: Option<Dumped>,
}

/// Many seeds' runs.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many seeds ran.
    pub seeds: u64,
    /// How many violations there were.
    pub violations: u64,
    /// The seeds that had some.
    pub failed_seeds: Vec<u64>,
    /// Commits over all seeds.
    pub commits: u64,
    /// Transfers over all seeds.
    pub transfers: u64,
    /// Wounds over all seeds.
    pub wounds: u64,
    /// Aborts over all seeds.
    pub aborts: u64,
    /// Faults over all seeds.
    pub faults: u64,
    /// Crashes over all seeds.
    pub crashes: u64,
    /// Commits, and snapshots read, that were lost and told so, over all seeds.
    pub lost: u64,
    /// How often write skew was seen where snapshot isolation allows it, over all seeds.
    pub write_skews: u64,
    /// Median of commits per seed.
    pub commits_median: u64,
    /// Median of transfers per seed.
    pub transfers_median: u64,
    /// The trace hash, when there was one seed.
    pub trace_hash: Option<String>,
    /// Virtual time over all seeds, seconds.
    pub sim_seconds: f64,
    /// Real time, seconds; filled in by whoever has a clock.
    pub wall_seconds: f64,
    /// Planned rare events, and rare branches, that no seed reached.
    pub events_never_seen: Vec<String>,
}

impl Report {
    /// Sums up runs.
    #[must_use]
    pub fn of(runs: &[SeedReport]) -> Self {
        let sum = |part: fn(&SeedReport) -> u64| runs.iter().map(part).sum::<u64>();
        let median = |part: fn(&SeedReport) -> u64| {
            let mut parts: Vec<u64> = runs.iter().map(part).collect();
            parts.sort_unstable();
            parts.get(parts.len() / 2).copied().unwrap_or(0)
        };
        let events = RareEvent::ALL.iter().filter(|event| !runs.iter().any(|run| run.rare.contains_key(event)));
        let branches =
            RareBranch::ALL.iter().filter(|branch| !runs.iter().any(|run| run.branches.contains_key(branch)));
        let never = events.map(|event| format!("{event:?}")).chain(branches.map(|branch| format!("{branch:?}")));
        #[expect(clippy::cast_precision_loss, reason = "a duration for people")]
        let sim_seconds = sum(|run| run.sim_us) as f64 / 1e6;
        Self {
            seeds: runs.len() as u64,
            violations: sum(|run| run.violations.len() as u64),
            failed_seeds: runs.iter().filter(|run| !run.violations.is_empty()).map(|run| run.seed).collect(),
            commits: sum(|run| run.commits),
            transfers: sum(|run| run.transfers),
            wounds: sum(|run| run.wounds),
            aborts: sum(|run| run.aborts),
            faults: sum(|run| run.faults),
            crashes: sum(|run| run.crashes),
            lost: sum(|run| run.lost),
            write_skews: sum(|run| run.write_skews),
            commits_median: median(|run| run.commits),
            transfers_median: median(|run| run.transfers),
            trace_hash: match runs {
                [one] => one.trace_hash.clone(),
                _ => None,
            },
            sim_seconds,
            wall_seconds: 0.0,
            events_never_seen: never.collect(),
        }
    }
}
