//! What a testnet run came to, and whether it counts.
//!
//! Keys of the report are only ever added. It refuses to call a run valid that proves too little: too few commits or
//! transfers, work that was not local, objects that gathered at one peer, or any audit that does not add up.

use crate::accounts::Verdict;
use crate::audit::Findings;
use crate::auditor::Created;
use crate::call_desk::Counts;
use crate::carry_out::Course;
use crate::exchange::Work;
use crate::faults::Fault;
use crate::net::Traffic;
use crate::numbers::{float, grouped, per_second, ratio};
use crate::options::{Mode, RunOptions};
use crate::protocol::PeerStatus;
use crate::recovery::Recovered;
use crate::seats::Life;
use crate::soak::{self, Growth};
use crate::workloads::Workload;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

const COMMITS_MIN: u64 = 1_000;
const TRANSFERS_MIN: u64 = 100;
/// At this locality or more ...
const LOCALITY_OF_LOCAL_SHARE: f64 = 0.95;
/// ... at least so many commits must not have waited for a message.
const LOCAL_SHARE_MIN: f64 = 0.9;
/// Every peer must own at least this share of the objects, and none more than that.
const OWNED_SHARE_MIN: f64 = 0.05;
const OWNED_SHARE_MAX: f64 = 0.5;
/// After faults a live peer may own so much: it may lead the group of a dead one beside its own. And it may own nothing
/// when it is new.
const OWNED_SHARE_MAX_AFTER_FAULTS: f64 = 0.75;
/// With replicas at least so many commits must be answered before they are stable: waiting is no way out.
const ACKED_BEFORE_STABLE_MIN: f64 = 0.5;

/// The mode of a run in a network of its own.
const CHAOS: &str = "chaos";
/// Why faults did not happen.
const NO_TIME: &str = "the groups were not whole in time, or the run is too short";

/// The report of a run.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// What held the game world.
    pub(crate) mode: &'static str,
    /// What the players did.
    pub(crate) workload: Workload,
    /// Peer processes.
    pub(crate) peers: u64,
    /// For how long the bots were to trade.
    pub(crate) seconds: u64,
    /// Players of the world.
    pub(crate) players: u64,
    /// The probability of a trade between neighbours.
    pub(crate) locality: f64,
    /// How many orders a second all players together began at most, if that was limited.
    pub(crate) rate: Option<u64>,
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
    /// How many took longer than a second.
    pub(crate) slow: u64,
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
    /// CPU time of all peer processes for each commit, microseconds.
    pub(crate) cpu_us_per_commit: f64,
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
    /// Those of them whose traffic was held before.
    pub(crate) holds: u64,
    /// Peers paused.
    pub(crate) pauses: u64,
    /// Peers started in place of killed ones.
    pub(crate) restarts: u64,
    /// Followers that each group was to have.
    pub(crate) replicas: u64,
    /// Commits that were answered, and told lost later.
    pub(crate) lost: u64,
    /// Commits that are not in the final state, and whose callers believe them stable.
    pub(crate) lost_untold: u64,
    /// Trades that are in the final state, though they were told lost or aborted.
    pub(crate) lost_but_present: u64,
    /// Commits of which nobody could tell what became of them.
    pub(crate) unknown: u64,
    /// Players whom no set of trades explains, trades in one of their two players only, receipts of two commits.
    pub(crate) unaccounted: u64,
    /// Trades without an answer: their peer died.
    pub(crate) unanswered: u64,
    /// Those of them that committed.
    pub(crate) unanswered_committed: u64,
    /// Share of the commits that were answered before they were stable.
    pub(crate) acked_before_stable_share: f64,
    /// The longest time between the answer of a commit that was lost and the death of its peer, milliseconds.
    pub(crate) lost_window_ms: f64,
    /// From a kill to the first commit of a player of the dead peer, milliseconds; the longest of all kills. `None`
    /// without kills, and when there was no such commit.
    pub(crate) recovery_first_ms: Option<f64>,
    /// From a kill until 99 % of those players of the dead peer that bots tried within a second were back.
    pub(crate) recovery_99_ms: Option<f64>,
    /// From the answer of a commit until it was stable, milliseconds: the median of those watched.
    pub(crate) stable_p50_ms: f64,
    /// Of 100, the slowest but one.
    pub(crate) stable_p99_ms: f64,
    /// Faults that happened, by kind.
    pub(crate) faults_done: BTreeMap<&'static str, u64>,
    /// Faults that did not happen, by kind: how many, and why.
    pub(crate) faults_skipped: BTreeMap<&'static str, String>,
    /// Commits on lists of unique elements that are kept, where histories were taken.
    pub(crate) list_commits: u64,
    /// Commits on registers that are kept.
    pub(crate) register_commits: u64,
    /// Commits of both that were answered, and told lost later.
    pub(crate) calls_lost: u64,
    /// Looks at the whole world of a workload at one snapshot, while its players acted, that saw everything.
    pub(crate) looks: u64,
    /// Those that did not.
    pub(crate) looks_failed: u64,
    /// Those of the first that found something wrong.
    pub(crate) looks_faulty: u64,
    /// What a workload's own invariant is about, as the audit found it.
    pub(crate) invariants: BTreeMap<&'static str, u64>,
    /// Packets of a network of its own that were delivered, late ones included.
    pub(crate) packets_delivered: u64,
    /// That were dropped because of a fault.
    pub(crate) packets_dropped: u64,
    /// That were delivered late because of a fault.
    pub(crate) packets_delayed: u64,
    /// That were lost for another reason: a queue was full, or a machine was just being made or removed.
    pub(crate) packets_failed: u64,
    /// What the first peer keeps, in the second and in the last third of the run, where it lived throughout.
    pub(crate) growth: BTreeMap<&'static str, Growth>,
    /// Why the run does not count; empty is good.
    pub(crate) invalid: Vec<String>,
}

/// All that a run came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What bots and faults were drawn from.
    pub(crate) seed: u64,
    /// The live peers, as the audit names owners.
    pub(crate) live: Vec<String>,
    /// The trades.
    pub(crate) work: Work,
    /// The faults.
    pub(crate) course: Course,
    /// The calls on lists and registers.
    pub(crate) calls: Counts,
    /// What became of packets, where there was a network of its own.
    pub(crate) traffic: Option<Traffic>,
    /// The final state.
    pub(crate) audit: Findings,
    /// What was created.
    pub(crate) created: Created,
    /// What a workload's own invariant is about.
    pub(crate) invariants: BTreeMap<&'static str, u64>,
    /// Lives of bosses that are over: each made an item.
    pub(crate) lives: u64,
    /// The ledger against it.
    pub(crate) verdict: Verdict,
    /// The longest time between the answer of a lost commit and the death of its peer.
    pub(crate) lost_window: Option<Duration>,
    /// What else does not let the run count.
    pub(crate) troubles: Vec<String>,
}

impl Report {
    /// Sums up a run.
    pub(crate) fn new(options: &RunOptions, outcome: Outcome) -> Self {
        let Outcome { seed, live, work, course, calls, traffic, audit, verdict, lost_window, troubles, .. } = outcome;
        let mut report = Self {
            seed,
            peers: options.peers,
            workload: options.workload,
            invariants: outcome.invariants,
            ..Self::default()
        };
        report.mode = match (options.mode, traffic) {
            (Mode::Mesh, Some(_)) => CHAOS,
            (Mode::Mesh, None) => "mesh",
            (Mode::Naive, _) => "naive",
        };
        report.seconds = options.seconds;
        report.players = options.players();
        report.locality = options.locality;
        report.rate = options.rate;
        report.replicas = options.replicas.into();
        report.add_work(&work);
        report.add_peers(&work.peers, &live, &audit);
        report.add_faults(&course, &work.recovered, lost_window);
        report.list_commits = calls.lists as u64;
        report.register_commits = calls.registers as u64;
        report.calls_lost = calls.lost as u64;
        report.add_traffic(traffic.unwrap_or_default());
        report.add_verdict(&verdict);
        let (gold, items) = match &outcome.created {
            Created::Trade(totals) => (totals.gold, totals.items),
            Created::Parts(plan) => (plan.gold(), plan.items() + outcome.lives),
        };
        (report.gold_expected, report.gold_found) = (gold, audit.gold);
        (report.items_expected, report.items_found) = (items, audit.items);
        report.looks = work.looks.done;
        report.looks_failed = work.looks.failed;
        report.looks_faulty = work.looks.faulty;
        report.duplicates = audit.duplicates;
        report.invalid = report.reasons();
        report.invalid.extend(report.too_few_faults(&course));
        if options.spares_first {
            report.growth = course.kept.growths();
            let grows = if course.kept.may_be_judged() { soak::faults(&report.growth) } else { Vec::new() };
            report.invalid.extend(grows);
        }
        report.invalid.extend(course.troubles);
        report.invalid.extend(troubles);
        report.invalid.extend(work.looks.faults.iter().map(|fault| format!("a look while players acted: {fault}")));
        report.invalid.extend(work.errors.iter().map(|error| format!("a trade failed: {error}")));
        report.invalid.extend(audit.told.iter().map(|fault| format!("the audit failed: {fault}")));
        report.invalid.extend(verdict.told.iter().map(|fault| format!("the ledger differs: {fault}")));
        report
    }

    fn add_work(&mut self, work: &Work) {
        let traded = &work.traded;
        self.commits = traded.commits;
        let micros = u64::try_from(work.elapsed.as_micros()).unwrap_or(u64::MAX);
        self.commits_per_s = per_second(traded.commits, micros).round();
        self.commit_p50_us = traded.latencies.at_quantile_us(0.5);
        self.commit_p99_us = traded.latencies.at_quantile_us(0.99);
        self.commit_p999_us = traded.latencies.at_quantile_us(0.999);
        self.commit_max_us = traded.latencies.longest_us();
        self.slow = traded.latencies.longer_than(Duration::from_secs(1));
        self.local_share = ratio(traded.local_commits, traded.commits);
        if self.workload != Workload::Trade {
            // What a task waited for only the peer knows that ran it.
            let gained = |part: fn(&PeerStatus) -> u64| {
                work.peers.iter().map(|(first, last, _)| part(last).saturating_sub(part(first))).sum::<u64>()
            };
            self.local_share = ratio(gained(|status| status.local_commits), gained(|status| status.commits));
        }
        self.acked_before_stable_share = ratio(traded.unstable_commits, traded.commits);
        self.stable_p50_ms = work.until_stable.at_quantile_us(0.5) / 1_000.0;
        self.stable_p99_ms = work.until_stable.at_quantile_us(0.99) / 1_000.0;
        self.deadlines = work.deadlines;
        self.errors = work.error_count;
    }

    /// Counts while the bots traded come from all peers, as far as the dead ones told; what is kept, from the live ones.
    fn add_peers(&mut self, peers: &[(PeerStatus, PeerStatus, Life)], live: &[String], audit: &Findings) {
        let gained = |part: fn(&PeerStatus) -> u64| {
            peers.iter().map(|(first, last, _)| part(last).saturating_sub(part(first))).sum::<u64>()
        };
        let highest = |part: fn(&PeerStatus) -> u64| peers.iter().map(|(_, last, _)| part(last)).max().unwrap_or(0);
        let kept = |part: fn(&PeerStatus) -> u64| {
            let live = peers.iter().filter(|(_, _, life)| *life != Life::Dead);
            live.map(|(_, last, _)| part(last)).sum::<u64>()
        };
        self.transfers = gained(|status| status.arrived);
        self.aborts = gained(|status| status.aborts);
        self.frames_sent = gained(|status| status.frames_sent);
        self.bytes_sent = gained(|status| status.bytes_sent);
        self.cpu_us_per_commit = (10.0 * ratio(gained(|status| status.cpu_us), self.commits)).round() / 10.0;
        self.hops_mean = ratio(gained(|status| status.hops), gained(|status| status.found));
        self.longest_core_hold_us = highest(|status| status.longest_core_hold_us);
        self.chain_max = highest(|status| status.chain_max);
        self.pointers = kept(|status| status.pointers);
        let objects = audit.owned.values().sum();
        self.directory_bytes_per_object = ratio(kept(|status| status.directory_bytes), objects).round();
        let shares = live.iter().map(|peer| ratio(audit.owned.get(peer).copied().unwrap_or(0), objects));
        self.owned_min_share = shares.clone().fold(1.0, f64::min);
        self.owned_max_share = shares.fold(0.0, f64::max);
    }

    /// Why fewer faults happened than must have. Of chaos half is enough: how many find time depends on how long each
    /// takes to heal.
    fn too_few_faults(&self, course: &Course) -> Option<String> {
        let (done, left_out) = (course.happened.len() as u64, course.left_out.values().sum::<u64>());
        let is_enough = left_out == 0 || (self.mode == CHAOS && done >= left_out);
        (!is_enough).then(|| format!("{left_out} faults did not happen: {NO_TIME}"))
    }

    fn add_traffic(&mut self, traffic: Traffic) {
        self.packets_delivered = traffic.delivered;
        self.packets_dropped = traffic.dropped;
        self.packets_delayed = traffic.delayed;
        self.packets_failed = traffic.failed;
    }

    fn add_faults(&mut self, course: &Course, recovered: &[Recovered], lost_window: Option<Duration>) {
        let count = |is_it: fn(&Fault) -> bool| course.happened.iter().filter(|one| is_it(&one.fault)).count() as u64;
        self.kills = count(|fault| matches!(fault, Fault::Kill { .. }));
        self.holds = count(|fault| matches!(fault, Fault::Kill { hold: Some(_) }));
        self.pauses = count(|fault| matches!(fault, Fault::Pause));
        self.restarts = course.restarts;
        self.faults_done = course.done();
        self.faults_skipped =
            course.left_out.iter().map(|(kind, count)| (*kind, format!("{count}: {NO_TIME}"))).collect();
        self.lost_window_ms = lost_window.map_or(0.0, millis);
        // A kill from which nobody recovered has no time; then the run has none.
        let longest = |part: fn(&Recovered) -> Option<Duration>| {
            recovered.iter().map(part).try_fold(None, |longest, one| Some(longest.max(Some(one?)))).flatten()
        };
        self.recovery_first_ms = longest(|kill| kill.first).map(millis);
        self.recovery_99_ms = longest(|kill| kill.most).map(millis);
    }

    fn add_verdict(&mut self, verdict: &Verdict) {
        self.lost = verdict.lost;
        self.lost_untold = verdict.lost_untold;
        self.lost_but_present = verdict.lost_but_present;
        self.unknown = verdict.unknown;
        self.unaccounted = verdict.unaccounted;
        self.unanswered = verdict.unanswered;
        self.unanswered_committed = verdict.unanswered_committed;
    }

    /// Why the figures alone make the run invalid.
    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let mut check = |is_good: bool, reason: String| {
            if !is_good {
                reasons.push(reason);
            }
        };
        let trades = self.trades();
        // What a kill has scattered comes together by trades, and only who is tried again is seen to be served.
        let has_few_orders = self.rate.is_some();
        check(self.commits >= COMMITS_MIN, format!("{} commits, at least {COMMITS_MIN} are needed", self.commits));
        check(
            !trades
                || self.mode == CHAOS
                || has_few_orders
                || self.locality < LOCALITY_OF_LOCAL_SHARE
                || self.local_share >= LOCAL_SHARE_MIN,
            format!("the local share is {:.3}, at least {LOCAL_SHARE_MIN} is needed", self.local_share),
        );
        // One peer has nobody to exchange objects with.
        check(
            !trades || self.peers == 1 || self.transfers >= TRANSFERS_MIN,
            format!("{} transfers, at least {TRANSFERS_MIN} are needed", self.transfers),
        );
        let faults = self.faults();
        let (min, max) = match faults {
            // Where objects go is not the orchestrator's to say: tasks go to them, or they follow who uses them.
            _ if !trades => (0.0, 1.0),
            0 => owned_share_limits(self.peers),
            _ => (0.0, owned_share_limits(self.live()).1.max(OWNED_SHARE_MAX_AFTER_FAULTS)),
        };
        check(
            self.owned_min_share >= min,
            format!("a peer owns {:.1} % of the objects, less than {:.1} %", 100.0 * self.owned_min_share, 100.0 * min),
        );
        check(
            self.owned_max_share <= max,
            format!("a peer owns {:.1} % of the objects, more than {:.1} %", 100.0 * self.owned_max_share, 100.0 * max),
        );
        check(self.errors == 0, format!("{} trades failed with an error that is no deadline", self.errors));
        check(
            faults == 0
                // A task that ran elsewhere is stable when it is told.
                || !trades
                || self.peers == 1
                || self.replicas == 0
                || self.acked_before_stable_share >= ACKED_BEFORE_STABLE_MIN,
            format!(
                "only {:.3} of the commits were answered before they were stable, at least {ACKED_BEFORE_STABLE_MIN} \
                 are needed",
                self.acked_before_stable_share
            ),
        );
        check(
            !trades || has_few_orders || self.kills == 0 || self.recovery_99_ms.is_some(),
            "of the players of a killed peer that bots tried, less than 99 % were served again".to_owned(),
        );
        check(
            trades || self.looks > 0,
            format!("no look at the whole world saw everything while the players acted; {} did not", self.looks_failed),
        );
        let zeros = [
            (self.looks_faulty, "looks at the whole world found something wrong"),
            (self.lost_untold, "commits were lost and nobody was told"),
            (self.lost_but_present, "trades were told lost or aborted, and are there"),
            (self.unknown, "commits have no known fate"),
            (self.unaccounted, "faults in the players' accounts"),
        ];
        for (count, what) in zeros {
            check(count == 0, format!("{count} {what}"));
        }
        reasons
    }

    /// Whether the players trade by transactions.
    fn trades(&self) -> bool {
        self.workload == Workload::Trade
    }

    /// How many faults happened.
    fn faults(&self) -> u64 {
        self.faults_done.values().sum()
    }

    /// How many peers live at the end.
    const fn live(&self) -> u64 {
        (self.peers + self.restarts).saturating_sub(self.kills)
    }

    /// The line about faults and what they cost; `None` when there were none.
    pub(crate) fn faults_line(&self) -> Option<String> {
        let time =
            |millis: Option<f64>| millis.map_or_else(|| "never".to_owned(), |millis| format!("after {millis} ms"));
        let times = format!("; first player back {}, 99 % {}", time(self.recovery_first_ms), time(self.recovery_99_ms));
        (self.faults() > 0).then(|| {
            format!(
                "{}{} killed ({} after a hold), {} paused, {} restarted; lost {}, untold {}, present {}, unknown {}, \
                 unaccounted {}, within {} ms{}",
                self.network_line(),
                self.kills,
                self.holds,
                self.pauses,
                self.restarts,
                grouped(self.lost),
                grouped(self.lost_untold),
                grouped(self.lost_but_present),
                grouped(self.unknown),
                grouped(self.unaccounted),
                self.lost_window_ms,
                // What is back after a kill is watched for trades alone.
                if self.kills > 0 && self.trades() { &times } else { "" },
            )
        })
    }

    /// The part of that line about the network; empty where it was the machine's own.
    fn network_line(&self) -> String {
        if self.mode != CHAOS {
            return String::new();
        }
        let list = |faults: Vec<String>| if faults.is_empty() { "none".to_owned() } else { faults.join(", ") };
        let done = list(self.faults_done.iter().map(|(kind, count)| format!("{kind} {count}")).collect());
        let skipped = list(self.faults_skipped.iter().map(|(kind, why)| format!("{kind} {why}")).collect());
        format!(
            "faults: {done}; skipped: {skipped}; {} packets delivered, {} of them late, {} dropped, {} failed\n",
            grouped(self.packets_delivered),
            grouped(self.packets_delayed),
            grouped(self.packets_dropped),
            grouped(self.packets_failed),
        )
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

    /// The line about a workload's own invariant; `None` for trades.
    pub(crate) fn workload_line(&self) -> Option<String> {
        let figures = self.invariants.iter().map(|(what, count)| format!("{what} {}", grouped(*count)));
        let figures = figures.collect::<Vec<_>>().join(", ");
        (self.workload != Workload::Trade).then(|| {
            format!(
                "{}: {}{}{} looks at one snapshot each while the players acted, {} of them found something wrong; {} did not see \
                 everything",
                self.workload.name(),
                figures,
                if figures.is_empty() { "" } else { "; " },
                self.looks,
                self.looks_faulty,
                self.looks_failed,
            )
        })
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

fn millis(duration: Duration) -> f64 {
    // One decimal: what is more is noise.
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
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
    fn each_of_the_zeros_must_be_zero() {
        let bad: [(Report, &str); 4] = [
            (Report { lost_untold: 1, ..good() }, "nobody was told"),
            (Report { lost_but_present: 2, ..good() }, "and are there"),
            (Report { unknown: 3, ..good() }, "no known fate"),
            (Report { unaccounted: 4, ..good() }, "accounts"),
        ];
        for (report, reason) in bad {
            let reasons = report.reasons();
            assert!(reasons.len() == 1 && reasons[0].contains(reason), "{reasons:?}");
        }
        assert_eq!(Report { lost: 5, ..good() }.reasons(), Vec::<String>::new());
    }

    #[test]
    fn faults_have_limits_of_their_own() {
        let faulty = || Report {
            kills: 1,
            faults_done: [("kill", 1)].into(),
            replicas: 2,
            acked_before_stable_share: 0.5,
            recovery_99_ms: Some(900.0),
            owned_min_share: 0.0,
            owned_max_share: 0.7,
            ..good()
        };
        assert_eq!(faulty().reasons(), Vec::<String>::new());
        let with_few_orders = Report { rate: Some(200), local_share: 0.7, recovery_99_ms: None, ..faulty() };
        assert_eq!(with_few_orders.reasons(), Vec::<String>::new());
        let bad: [(Report, &str); 3] = [
            (Report { owned_max_share: 0.76, ..faulty() }, "more than 75.0 %"),
            (Report { acked_before_stable_share: 0.4, ..faulty() }, "before they were stable"),
            (Report { recovery_99_ms: None, ..faulty() }, "served again"),
        ];
        for (report, reason) in bad {
            let reasons = report.reasons();
            assert!(reasons.len() == 1 && reasons[0].contains(reason), "{reasons:?}");
        }
        assert_eq!(Report { replicas: 0, acked_before_stable_share: 0.0, ..faulty() }.reasons(), Vec::<String>::new());
    }

    #[test]
    fn who_is_back_after_a_kill_is_said_where_it_is_watched() {
        let killed = |workload| {
            let faults_done = [("kill", 1)].into();
            Report { workload, kills: 1, faults_done, ..good() }.faults_line().unwrap()
        };
        assert!(killed(Workload::Trade).contains("first player back never"));
        assert!(!killed(Workload::Crowd).contains("player back"));
    }

    #[test]
    fn the_slowest_recovery_counts_and_one_that_never_came_leaves_none() {
        let kill = |millis: Option<u64>| {
            let time = millis.map(Duration::from_millis);
            Recovered { first: time, most: time, missed: 0 }
        };
        let after = |kills: &[Recovered]| {
            let mut report = Report::default();
            report.add_faults(&Course::default(), kills, None);
            report.recovery_99_ms
        };
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[kill(Some(300)), kill(Some(900)), kill(Some(200))]), Some(900.0));
        assert_eq!(after(&[kill(Some(300)), kill(None)]), None);
    }

    #[test]
    fn faults_of_the_audit_and_errors_of_trades_make_a_run_invalid() {
        let options = RunOptions { players: Some(2), ..RunOptions::plain(1, 1) };
        let mut work = Work { errors: vec!["lost a sword".into()], error_count: 1, ..Work::default() };
        (work.traded.commits, work.traded.local_commits) = (2_000, 2_000);
        let audit = Findings {
            owned: [("a".to_owned(), 6)].into(),
            told: vec!["2 gold too few".into()],
            ..Findings::default()
        };
        let verdict = Verdict { unknown: 1, told: vec!["nobody knows".into()], ..Verdict::default() };
        let troubles = vec!["not whole".into()];
        let outcome =
            Outcome { seed: 7, live: vec!["a".to_owned()], work, audit, verdict, troubles, ..Outcome::default() };
        let report = Report::new(&options, outcome);
        assert_eq!(report.invalid.len(), 6, "{:?}", report.invalid);
        for reason in ["no known fate", "not whole", "lost a sword", "2 gold too few", "nobody knows"] {
            assert!(report.invalid.iter().any(|told| told.contains(reason)), "{reason}");
        }
    }
}
