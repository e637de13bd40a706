//! `cargo testnet bench trades`: trades per second at three peers with two copies, for partners who are near and far.
//!
//! Runs of the testnet with all their checks. It refuses to report a run that does not count.

use crate::numbers::rounded;
use crate::options::RunOptions;
use crate::output;
use crate::testnet::{self, Ended};
use anyhow::{Result, bail};
use serde::Serialize;

/// Peer processes, and the followers of each.
const PEERS: u64 = 3;
const REPLICAS: u8 = 2;
/// How long bots trade.
const SECONDS: u64 = 4;
const PLAYERS: u64 = 10_000;

/// The figures.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Peer processes.
    pub(crate) peers: u64,
    /// Followers of each.
    pub(crate) replicas: u64,
    /// Trades per second where 99 of 100 partners are neighbours.
    pub(crate) per_s_99: f64,
    /// Where 9 of 10 are.
    pub(crate) per_s_90: f64,
    /// Where partners are drawn from all players.
    pub(crate) per_s_uniform: f64,
    /// Share of the trades that awaited no message, each.
    pub(crate) local_share_99: f64,
    pub(crate) local_share_90: f64,
    pub(crate) local_share_uniform: f64,
    /// From a trade to its answer, of 100 the slowest but one, microseconds.
    pub(crate) p99_us_99: f64,
    pub(crate) p99_us_90: f64,
    pub(crate) p99_us_uniform: f64,
    /// Why the figures do not count; empty is good.
    pub(crate) invalid: Vec<String>,
}

/// Measures and prints.
pub(crate) fn run() -> Result<Figures> {
    let runtime = super::runtime()?;
    let mut figures = Figures { peers: PEERS, replicas: REPLICAS.into(), ..Figures::default() };
    for locality in [0.99, 0.9, 0.0] {
        let options =
            RunOptions { players: Some(PLAYERS), locality, replicas: REPLICAS, ..RunOptions::plain(PEERS, SECONDS) };
        let Ended::Reported(report) = runtime.block_on(testnet::run(&options, None, None, std::future::pending()))?
        else {
            bail!("interrupted");
        };
        let (per_s, local, p99) = (report.commits_per_s, report.local_share, report.commit_p99_us);
        output::line(&format!("locality {locality}: {} trades/s", rounded(per_s)));
        if locality > 0.95 {
            (figures.per_s_99, figures.local_share_99, figures.p99_us_99) = (per_s, local, p99);
        } else if locality > 0.0 {
            (figures.per_s_90, figures.local_share_90, figures.p99_us_90) = (per_s, local, p99);
        } else {
            (figures.per_s_uniform, figures.local_share_uniform, figures.p99_us_uniform) = (per_s, local, p99);
        }
        // How local the bots find their partners is measured here, not demanded.
        let reasons = report.invalid.into_iter().filter(|why| !why.contains("local share"));
        figures.invalid.extend(reasons.map(|why| format!("locality {locality}: {why}")));
    }
    Ok(figures)
}
