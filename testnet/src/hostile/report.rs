//! What a hostile run came to, beside what the plain run reports.
//!
//! Keys are only ever added. It refuses to call a run good that misses a bar.

use crate::hostile::Siege;
use crate::hostile::samples::Kind;
use crate::hostile::tally::read;
use crate::memory::{growth_mib, mib};
use crate::numbers::grouped;
use crate::protocol::PeerStatus;
use crate::report::Report;
use serde::Serialize;
use std::collections::BTreeMap;

/// Messages of each kind that must be sent.
const SENT_MIN: u64 = 1_000;
/// Most memory that an honest peer may gain from the first third of the run to its end, MiB.
const GROWTH_MAX_MIB: f64 = 48.0;

/// The report of a hostile run.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct HostileReport {
    /// The keys of the plain run.
    #[serde(flatten)]
    pub(crate) run: Report,
    /// Messages that attackers sent, by kind.
    sent: BTreeMap<&'static str, u64>,
    /// By way, of the kind of which fewest were sent in it.
    sent_fewest: BTreeMap<&'static str, u64>,
    /// Bytes sent that are no frame: each ended a connection.
    sent_no_frames: u64,
    /// Members that attackers pretended to be.
    identities: u64,
    /// Honest peers that ended though nobody ended them.
    crashes: u64,
    /// Trades of honest callers that took longer than a second, those given up at their deadline included.
    stalls_over_1s: u64,
    /// What an honest peer gained in memory, at most, MiB; of a short run whatever it was.
    rss_growth_mb: f64,
    /// The most that one took, MiB.
    rss_max_mb: f64,
    /// How often honest peers dropped an attacker.
    dropped: u64,
    /// Handshakes of dropped attackers that they refused.
    refused_again: u64,
    /// Messages that they counted: that did not decode, that no peer says; and connections that brought no frames.
    counted_undecodable: u64,
    counted_impossible: u64,
    counted_no_frames: u64,
    /// How often they took nothing more of a member for a moment.
    inbound_paused: u64,
    /// Connections and handshakes that they turned away.
    connections_turned_away: u64,
    handshakes_turned_away: u64,
    /// Connections of strangers that got through to a peer's port, by what they did then.
    strangers: BTreeMap<&'static str, u64>,
    /// How long each honest newcomer took to join meanwhile, milliseconds.
    newcomers_joined_ms: Vec<u64>,
}

impl HostileReport {
    /// Sums up a run.
    pub(crate) fn new(mut run: Report, siege: &Siege, seconds: u64) -> Self {
        run.mode = "hostile";
        let mut report = Self { run, ..Self::of(siege) };
        report.stalls_over_1s = report.run.slow + report.run.deadlines;
        let mut missed = report.missed(siege.tally.faults());
        report.run.invalid.append(&mut missed);
        let fewest = report.sent_fewest.values().min().copied().unwrap_or(0);
        if fewest < SENT_MIN {
            crate::output::line(&format!(
                "{seconds} s are too short for {} messages of each kind in each way: {fewest} in one of them",
                grouped(SENT_MIN)
            ));
        }
        report
    }

    /// A run that came to nothing.
    pub(crate) fn of_failure(siege: &Siege, error: String) -> Self {
        let mut report = Self::of(siege);
        report.run.mode = "hostile";
        report.run.invalid.push(error);
        report
    }

    fn of(siege: &Siege) -> Self {
        let (tally, watch) = (&siege.tally, siege.watch());
        let sum = |part: fn(&PeerStatus) -> u64| watch.last.iter().map(part).sum::<u64>();
        let strangers = [
            ("silent", read(&tally.silent)),
            ("half_open", read(&tally.half_open)),
            ("garbage", read(&tally.garbage)),
            ("come_and_go", read(&tally.come_and_go)),
            ("wrong_secret", read(&tally.wrong_secret)),
        ];
        Self {
            sent: tally.by_kind(),
            sent_fewest: tally.fewest_by_way(),
            sent_no_frames: read(&tally.no_frames),
            identities: read(&tally.identities),
            crashes: watch.crashes,
            rss_growth_mb: growth_mib(&watch.memory),
            rss_max_mb: mib(watch.memory.iter().flatten().copied().max().unwrap_or(0)),
            dropped: sum(|status| status.offenders_dropped),
            refused_again: sum(|status| status.offenders_refused),
            counted_undecodable: sum(|status| status.undecodable),
            counted_impossible: sum(|status| status.impossible),
            counted_no_frames: sum(|status| status.malformed),
            inbound_paused: sum(|status| status.inbound_paused),
            connections_turned_away: sum(|status| status.connections_turned_away),
            handshakes_turned_away: sum(|status| status.handshakes_turned_away),
            strangers: strangers.into(),
            newcomers_joined_ms: tally.joins(),
            ..Self::default()
        }
    }

    /// Why the run does not count, beside what the plain run asks for.
    fn missed(&self, faults: Vec<String>) -> Vec<String> {
        let mut missed = faults;
        let mut bar = |is_met: bool, what: String| {
            if !is_met {
                missed.push(what);
            }
        };
        for kind in Kind::ALL {
            let sent = self.sent.get(kind.name()).copied().unwrap_or(0);
            bar(sent >= SENT_MIN, format!("{sent} messages of the kind {} were sent, not {SENT_MIN}", kind.name()));
        }
        bar(self.crashes == 0, format!("{} honest peers ended", self.crashes));
        bar(self.stalls_over_1s == 0, format!("{} honest callers waited for more than a second", self.stalls_over_1s));
        bar(
            self.rss_growth_mb <= GROWTH_MAX_MIB,
            format!("an honest peer gained {} MiB, {GROWTH_MAX_MIB} may be", self.rss_growth_mb),
        );
        bar(self.dropped > 0, "nobody was dropped".to_owned());
        bar(self.refused_again > 0, "nobody who was dropped was refused".to_owned());
        bar(self.counted_undecodable > 0, "no message was counted that does not decode".to_owned());
        bar(self.counted_no_frames > 0, "no connection was counted that brings no frames".to_owned());
        bar(self.connections_turned_away > 0, "no stranger was turned away".to_owned());
        bar(!self.newcomers_joined_ms.is_empty(), "no honest peer joined meanwhile".to_owned());
        missed
    }

    /// What is told to people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let kinds: Vec<String> = self.sent.iter().map(|(kind, count)| format!("{kind} {}", grouped(*count))).collect();
        let ways: Vec<String> =
            self.sent_fewest.iter().map(|(way, count)| format!("{way} {}", grouped(*count))).collect();
        let strangers: Vec<String> =
            self.strangers.iter().map(|(what, count)| format!("{what} {}", grouped(*count))).collect();
        vec![
            format!("sent: {}", kinds.join(", ")),
            format!("sent at least, of each kind: {}; {} times no frame", ways.join(", "), self.sent_no_frames),
            format!(
                "{} attackers dropped {} times and refused {} times; counted: {} that do not decode, {} that no peer says, {} without \
                 frames; paused {} times",
                grouped(self.identities),
                grouped(self.dropped),
                grouped(self.refused_again),
                grouped(self.counted_undecodable),
                grouped(self.counted_impossible),
                grouped(self.counted_no_frames),
                grouped(self.inbound_paused),
            ),
            format!(
                "strangers: {}; {} connections and {} handshakes turned away; newcomers joined within {:?} ms",
                strangers.join(", "),
                grouped(self.connections_turned_away),
                grouped(self.handshakes_turned_away),
                self.newcomers_joined_ms,
            ),
            format!(
                "{} crashes, {} stalls over 1 s, memory of a peer {} MiB at most, {} more at the end than in the first third",
                self.crashes, self.stalls_over_1s, self.rss_max_mb, self.rss_growth_mb
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> HostileReport {
        HostileReport {
            sent: Kind::ALL.into_iter().map(|kind| (kind.name(), SENT_MIN)).collect(),
            dropped: 1,
            refused_again: 1,
            counted_undecodable: 1,
            counted_no_frames: 1,
            connections_turned_away: 1,
            newcomers_joined_ms: vec![1],
            ..HostileReport::default()
        }
    }

    #[test]
    fn each_bar_that_is_missed_is_told() {
        assert_eq!(good().missed(Vec::new()), Vec::<String>::new());
        let bad: [fn(&mut HostileReport); 9] = [
            |report| report.crashes = 1,
            |report| report.stalls_over_1s = 1,
            |report| report.rss_growth_mb = GROWTH_MAX_MIB + 1.0,
            |report| report.dropped = 0,
            |report| report.refused_again = 0,
            |report| report.counted_undecodable = 0,
            |report| report.counted_no_frames = 0,
            |report| report.connections_turned_away = 0,
            |report| report.newcomers_joined_ms.clear(),
        ];
        for spoil in bad {
            let mut report = good();
            spoil(&mut report);
            assert_eq!(report.missed(Vec::new()).len(), 1, "{report:?}");
        }
        let mut few = good();
        few.sent.insert(Kind::Scan.name(), SENT_MIN - 1);
        assert!(few.missed(vec!["a fault".to_owned()]).len() == 2);
    }
}
