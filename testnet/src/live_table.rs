//! The table that is shown while the bots trade: one row a peer, one for all.

use crate::latency::Latencies;
use crate::numbers::{grouped, per_second, ratio, rounded};
use crate::protocol::Progress;
use anyhow::Result;

/// The lines of the table for one second.
pub(crate) fn lines(second: u64, seconds: u64, peers: &[Progress]) -> Result<Vec<String>> {
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
    let mut all = Progress::default();
    let mut all_latencies = Latencies::default();
    for (number, peer) in peers.iter().enumerate() {
        let mut latencies = Latencies::default();
        latencies.add_pairs(&peer.latencies)?;
        lines.push(row(&format!("peer {number}"), peer, &latencies));
        all_latencies.merge(&latencies);
        all.owned += peer.owned;
        all.commits += peer.commits;
        all.local_commits += peer.local_commits;
        all.arrived += peer.arrived;
        all.elapsed_us = all.elapsed_us.max(peer.elapsed_us);
    }
    lines.push(row("all", &all, &all_latencies));
    Ok(lines)
}

fn row(name: &str, peer: &Progress, latencies: &Latencies) -> String {
    format!(
        "{name:>9}  {:>8}  {:>9}  {:>8.1}  {:>9}  {:>5.1} %  {:>11}",
        grouped(peer.owned),
        rounded(per_second(peer.commits, peer.elapsed_us)),
        latencies.at_quantile_us(0.5),
        rounded(latencies.at_quantile_us(0.99)),
        100.0 * ratio(peer.local_commits, peer.commits),
        rounded(per_second(peer.arrived, peer.elapsed_us)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_row_for_each_peer_and_one_for_all() {
        let peer = Progress {
            owned: 6_000,
            commits: 1_000,
            local_commits: 950,
            arrived: 30,
            latencies: vec![(20_000, 950), (3_000_000, 50)],
            elapsed_us: 1_000_000,
        };
        let lines = lines(3, 20, &[peer.clone(), peer]).unwrap();
        assert_eq!(lines.len(), 4);
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>().join(" "),
            "peer 0 6,000 1,000 20.0 3,000 95.0 % 30"
        );
        assert_eq!(lines[3].split_whitespace().collect::<Vec<_>>().join(" "), "all 12,000 2,000 20.0 3,000 95.0 % 60");
    }
}
