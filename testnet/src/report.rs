//! What a testnet run came to, and whether it counts.
//!
//! Keys of the report are only ever added. It refuses to call a run valid that proves too little: too few commits or
//! transfers, work that was not local, objects that gathered at one peer, or any audit that does not add up.

use crate::audit::Findings;
use crate::latency::Latencies;
use crate::numbers::{float, grouped, per_second, ratio};
use crate::options::RunOptions;
use crate::protocol::Finished;
use crate::world::Totals;
use anyhow::Result;
use serde::Serialize;

const COMMITS_MIN: u64 = 1_000;
const TRANSFERS_MIN: u64 = 100;
/// At this locality or more ...
const LOCALITY_OF_LOCAL_SHARE: f64 = 0.95;
/// ... at least so many commits must not have waited for a message.
const LOCAL_SHARE_MIN: f64 = 0.9;
/// Every peer must own at least this share of the objects, and none more than that.
const OWNED_SHARE_MIN: f64 = 0.05;
const OWNED_SHARE_MAX: f64 = 0.5;

/// The report of a run.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Peer processes.
    pub(crate) peers: u64,
    /// For how long the bots were to trade.
    pub(crate) seconds: u64,
    /// Players of the world.
    pub(crate) players: u64,
    /// The probability of a trade between neighbours.
    pub(crate) locality: f64,
    /// What the bots' choices were drawn from.
    pub(crate) seed: u64,
    /// Trades that committed.
    pub(crate) commits: u64,
    /// Trades that committed, per second.
    pub(crate) commits_per_s: f64,
    /// From the call of a transaction to its answer, retries and fetches included: the median, microseconds.
    pub(crate) commit_p50_us: f64,
    /// Of 100, the slowest but one.
    pub(crate) commit_p99_us: f64,
    /// Of 1,000, the slowest but one.
    pub(crate) commit_p999_us: f64,
    /// The slowest.
    pub(crate) commit_max_us: f64,
    /// Share of the commits that awaited no message.
    pub(crate) local_share: f64,
    /// Objects whose owner changed.
    pub(crate) transfers: u64,
    /// Attempts that ended without a commit.
    pub(crate) aborts: u64,
    /// Trades given up at their deadline.
    pub(crate) deadlines: u64,
    /// Trades that met any other error.
    pub(crate) errors: u64,
    /// Frames that peers sent each other while the bots traded.
    pub(crate) frames_sent: u64,
    /// Their bytes, before encryption.
    pub(crate) bytes_sent: u64,
    /// The longest time that messages or timers held the core of a peer, microseconds.
    pub(crate) longest_core_hold_us: u64,
    /// Pointers followed by a search for an object, in the mean.
    pub(crate) hops_mean: f64,
    /// Most pointers that one search followed.
    pub(crate) chain_max: u64,
    /// Forwarding pointers kept by all peers at the end.
    pub(crate) pointers: u64,
    /// About how much memory pointers, hints and home records of all peers take at the end, bytes per object.
    pub(crate) directory_bytes_per_object: f64,
    /// The smallest share of the objects that a peer owns at the end.
    pub(crate) owned_min_share: f64,
    /// The largest.
    pub(crate) owned_max_share: f64,
    /// Gold created.
    pub(crate) gold_expected: u64,
    /// Gold that the audit found.
    pub(crate) gold_found: u64,
    /// Items created.
    pub(crate) items_expected: u64,
    /// Items that the audit found.
    pub(crate) items_found: u64,
    /// Objects with two owners, and items in two inventories.
    pub(crate) duplicates: u64,
    /// Peers killed.
    pub(crate) kills: u64,
    /// Peers paused.
    pub(crate) pauses: u64,
    /// Why the run does not count; empty is good.
    pub(crate) invalid: Vec<String>,
}

impl Report {
    /// Sums up a run. `peers` names the peers of the workload as the audit names owners.
    pub(crate) fn new(
        options: &RunOptions,
        seed: u64,
        peers: &[String],
        work: &[Finished],
        audit: &Findings,
    ) -> Result<Self> {
        let sum = |part: fn(&Finished) -> u64| work.iter().map(part).sum::<u64>();
        let mut latencies = Latencies::default();
        for finished in work {
            latencies.add_pairs(&finished.latencies)?;
        }
        let created = Totals::of_players(options.players);
        let objects = audit.owned.values().sum();
        let shares = peers.iter().map(|peer| ratio(audit.owned.get(peer).copied().unwrap_or(0), objects));
        let commits = sum(|finished| finished.commits);
        let longest_us = work.iter().map(|finished| finished.elapsed_us).max().unwrap_or(0);
        let mut report = Self {
            peers: options.peers,
            seconds: options.seconds,
            players: options.players,
            locality: options.locality,
            seed,
            commits,
            commits_per_s: per_second(commits, longest_us).round(),
            commit_p50_us: latencies.at_quantile_us(0.5),
            commit_p99_us: latencies.at_quantile_us(0.99),
            commit_p999_us: latencies.at_quantile_us(0.999),
            commit_max_us: latencies.longest_us(),
            local_share: ratio(sum(|finished| finished.local_commits), commits),
            transfers: sum(|finished| finished.arrived),
            aborts: sum(|finished| finished.aborts),
            deadlines: sum(|finished| finished.deadlines),
            errors: sum(|finished| finished.error_count),
            frames_sent: sum(|finished| finished.frames_sent),
            bytes_sent: sum(|finished| finished.bytes_sent),
            longest_core_hold_us: work.iter().map(|finished| finished.longest_core_hold_us).max().unwrap_or(0),
            hops_mean: ratio(sum(|finished| finished.hops), sum(|finished| finished.found)),
            chain_max: work.iter().map(|finished| finished.chain_max).max().unwrap_or(0),
            pointers: sum(|finished| finished.pointers),
            directory_bytes_per_object: ratio(sum(|finished| finished.directory_bytes), objects).round(),
            owned_min_share: shares.clone().fold(1.0, f64::min),
            owned_max_share: shares.fold(0.0, f64::max),
            gold_expected: created.gold,
            gold_found: audit.gold,
            items_expected: created.items,
            items_found: audit.items,
            duplicates: audit.duplicates,
            kills: options.kill,
            pauses: options.pause,
            invalid: Vec::new(),
        };
        report.invalid = report.reasons();
        report
            .invalid
            .extend(work.iter().flat_map(|finished| &finished.errors).map(|error| format!("a trade failed: {error}")));
        report.invalid.extend(audit.told.iter().map(|fault| format!("the audit failed: {fault}")));
        Ok(report)
    }

    /// Why the figures alone make the run invalid.
    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let mut check = |is_good: bool, reason: String| {
            if !is_good {
                reasons.push(reason);
            }
        };
        check(self.commits >= COMMITS_MIN, format!("{} commits, at least {COMMITS_MIN} are needed", self.commits));
        check(
            self.locality < LOCALITY_OF_LOCAL_SHARE || self.local_share >= LOCAL_SHARE_MIN,
            format!("the local share is {:.3}, at least {LOCAL_SHARE_MIN} is needed", self.local_share),
        );
        // One peer has nobody to exchange objects with.
        check(
            self.peers == 1 || self.transfers >= TRANSFERS_MIN,
            format!("{} transfers, at least {TRANSFERS_MIN} are needed", self.transfers),
        );
        let (min, max) = owned_share_limits(self.peers);
        check(
            self.owned_min_share >= min,
            format!("a peer owns {:.1} % of the objects, less than {:.1} %", 100.0 * self.owned_min_share, 100.0 * min),
        );
        check(
            self.owned_max_share <= max,
            format!("a peer owns {:.1} % of the objects, more than {:.1} %", 100.0 * self.owned_max_share, 100.0 * max),
        );
        check(self.errors == 0, format!("{} trades failed with an error that is no deadline", self.errors));
        reasons
    }

    /// The line about what the audit found.
    pub(crate) fn audit_line(&self) -> String {
        format!(
            "gold {} of {}, items {} of {}, duplicates {}",
            grouped(self.gold_found),
            grouped(self.gold_expected),
            grouped(self.items_found),
            grouped(self.items_expected),
            grouped(self.duplicates)
        )
    }

    /// The line about how objects were found.
    pub(crate) fn directory_line(&self) -> String {
        format!(
            "searches followed {:.3} pointers in the mean and {} at most; {} pointers kept, {} directory bytes per object",
            self.hops_mean,
            self.chain_max,
            grouped(self.pointers),
            self.directory_bytes_per_object,
        )
    }

    /// The line about the work.
    pub(crate) fn work_line(&self) -> String {
        format!(
            "{} commits, {}/s, p50 {} us, p99 {} us, p99.9 {} us, max {} us, local {:.1} %, {} transfers, {} aborts, \
             {} deadlines, each peer owns {:.1} to {:.1} %",
            grouped(self.commits),
            crate::numbers::rounded(self.commits_per_s),
            self.commit_p50_us,
            self.commit_p99_us,
            self.commit_p999_us,
            self.commit_max_us,
            100.0 * self.local_share,
            grouped(self.transfers),
            grouped(self.aborts),
            grouped(self.deadlines),
            100.0 * self.owned_min_share,
            100.0 * self.owned_max_share,
        )
    }
}

/// The least and the most that a peer may own. With one or two peers somebody must own half or more, with twenty
/// somebody must own 5 % or less: there the limits are half and one and a half of an even share.
fn owned_share_limits(peers: u64) -> (f64, f64) {
    let even = 1.0 / float(peers.max(1));
    let min = if peers < 20 { OWNED_SHARE_MIN } else { even / 2.0 };
    let max = if peers > 2 { OWNED_SHARE_MAX } else { (1.5 * even).min(1.0) };
    (min, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            peers: 5,
            locality: 0.95,
            commits: 1_000,
            local_share: 0.9,
            transfers: 100,
            owned_min_share: 0.05,
            owned_max_share: 0.5,
            ..Report::default()
        }
    }

    #[test]
    fn each_limit_has_its_own_reason() {
        assert_eq!(good().reasons(), Vec::<String>::new());
        let bad: [(Report, &str); 6] = [
            (Report { commits: 999, ..good() }, "999 commits"),
            (Report { local_share: 0.89, ..good() }, "local share"),
            (Report { transfers: 99, ..good() }, "99 transfers"),
            (Report { owned_min_share: 0.04, ..good() }, "less than 5.0 %"),
            (Report { owned_max_share: 0.51, ..good() }, "more than 50.0 %"),
            (Report { errors: 1, ..good() }, "no deadline"),
        ];
        for (report, reason) in bad {
            let reasons = report.reasons();
            assert!(reasons.len() == 1 && reasons[0].contains(reason), "{reasons:?}");
        }
    }

    #[test]
    fn the_local_share_counts_only_where_it_was_asked_for() {
        assert_eq!(Report { locality: 0.5, local_share: 0.4, ..good() }.reasons(), Vec::<String>::new());
    }

    #[test]
    fn shares_are_limited_where_an_even_split_allows_it() {
        assert_eq!(owned_share_limits(1), (0.05, 1.0));
        assert_eq!(owned_share_limits(2), (0.05, 0.75));
        assert_eq!(owned_share_limits(3), (0.05, 0.5));
        assert_eq!(owned_share_limits(19), (0.05, 0.5));
        assert_eq!(owned_share_limits(40), (0.0125, 0.5));
    }

    #[test]
    fn faults_of_the_audit_and_errors_of_trades_make_a_run_invalid() {
        let options =
            RunOptions { peers: 1, seconds: 1, players: 2, locality: 0.95, seed: None, json: None, kill: 0, pause: 0 };
        let work = Finished {
            commits: 2_000,
            local_commits: 2_000,
            errors: vec!["lost a sword".into()],
            error_count: 1,
            ..Finished::default()
        };
        let audit = Findings {
            owned: [("a".to_owned(), 6)].into(),
            told: vec!["2 gold too few".into()],
            ..Findings::default()
        };
        let report = Report::new(&options, 7, &["a".to_owned()], &[work], &audit).unwrap();
        assert_eq!(report.invalid.len(), 3, "{:?}", report.invalid);
        assert!(report.invalid[2].contains("2 gold too few"));
    }
}
