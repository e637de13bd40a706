//! The table that is shown while the bots trade: one row a peer, one for all.

use crate::numbers::{grouped, per_second, ratio, rounded};
use crate::seats::{Life, Row, Told};
use std::time::Duration;

/// The lines of the table for one second.
pub(crate) fn lines(second: u64, seconds: u64, peers: &[Row]) -> Vec<String> {
    let mut lines = vec![format!(
        "{:>9}  {:>8}  {:>9}  {:>8}  {:>9}  {:>7}  {:>11}",
        format!("{second}/{seconds} s"),
        "objects",
        "commits/s",
        "p50 us",
        "p99 us",
        "local",
        "transfers/s"
    )];
    let mut all =
        Row { life: Life::Live, owned: 0, traded: Default::default(), told: None, arrived: 0, elapsed: Duration::ZERO };
    for (number, peer) in peers.iter().enumerate() {
        let name = format!("peer {number}");
        lines.push(match peer.life {
            Life::Live => row(&name, peer),
            Life::Starting => format!("{name:>9}  starting"),
            Life::Paused => format!("{name:>9}  paused"),
            Life::Dead => format!("{name:>9}  killed"),
        });
        all.traded.add(&peer.traded);
        if let Some(told) = peer.told {
            let before = all.told.unwrap_or(Told { commits: 0, local: 0 });
            all.told = Some(Told { commits: before.commits + told.commits, local: before.local + told.local });
        }
        all.owned += peer.owned;
        all.arrived += peer.arrived;
        all.elapsed = all.elapsed.max(peer.elapsed);
    }
    lines.push(row("all", &all));
    lines
}

fn row(name: &str, peer: &Row) -> String {
    let traded = &peer.traded;
    let told = peer.told.unwrap_or(Told { commits: traded.commits, local: traded.local_commits });
    let micros = u64::try_from(peer.elapsed.as_micros()).unwrap_or(u64::MAX);
    format!(
        "{name:>9}  {:>8}  {:>9}  {:>8.1}  {:>9}  {:>5.1} %  {:>11}",
        grouped(peer.owned),
        rounded(per_second(traded.commits, micros)),
        traded.latencies.at_quantile_us(0.5),
        rounded(traded.latencies.at_quantile_us(0.99)),
        100.0 * ratio(told.local, told.commits),
        rounded(per_second(peer.arrived, micros)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seats::Traded;

    fn words(line: &str) -> String {
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn there_is_a_row_for_each_peer_and_one_for_all() {
        let mut traded = Traded { commits: 1_000, local_commits: 950, ..Traded::default() };
        (0..950).for_each(|_| traded.latencies.record(Duration::from_micros(20)));
        (0..50).for_each(|_| traded.latencies.record(Duration::from_millis(3)));
        let elapsed = Duration::from_secs(1);
        let peer = Row { life: Life::Live, owned: 6_000, traded, told: None, arrived: 30, elapsed };
        let dead = Row { life: Life::Dead, owned: 0, traded: Traded::default(), told: None, arrived: 0, elapsed };
        let lines = lines(3, 20, &[peer.clone(), dead, peer]);
        assert_eq!(lines.len(), 5);
        assert_eq!(words(&lines[1]), "peer 0 6,000 1,000 20.0 3,000 95.0 % 30");
        assert_eq!(words(&lines[2]), "peer 1 killed");
        assert_eq!(words(&lines[4]), "all 12,000 2,000 20.0 3,000 95.0 % 60");
    }
}
