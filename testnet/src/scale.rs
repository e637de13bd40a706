//! Many peers in the simulator, and what became of them in a few lines.
//!
//! It refuses to decide what a violation is; the simulator does.

use crate::json_file;
use crate::numbers::grouped;
use crate::options::{ScaleOptions, check_writable};
use crate::output;
use anyhow::{Context, Result};
use driftmesh_sim::{ScaleReport, run_scale};
use std::time::Instant;

/// Runs the seeds. `Ok(false)` when there was a violation.
pub(crate) fn run(options: &ScaleOptions) -> Result<bool> {
    check_writable(options.json.as_deref())?;
    let peers = usize::try_from(options.peers).context("too many peers")?;
    let one = options.seed.unwrap_or(0);
    let seeds = options.seeds.clone().unwrap_or(one..one.saturating_add(1));
    let mut reports = Vec::new();
    for seed in seeds {
        let begun = Instant::now();
        let report = run_scale(seed, peers);
        let report = ScaleReport { wall_seconds: begun.elapsed().as_secs_f64(), ..report };
        tell(&report);
        reports.push(report);
    }
    json_file::write(options.json.as_deref(), &reports)?;
    Ok(reports.iter().all(|report| report.violations.is_empty()))
}

fn tell(report: &ScaleReport) {
    let ScaleReport { seed, peers, violations, .. } = report;
    output::line(&format!(
        "seed {seed}, {peers} peers: whole {:.1} s after three times the peers came; {} went and others came; {} killed at \
         once took {} groups with them, the other groups served again after {:.1} s",
        seconds(report.whole_after_flash_ms),
        report.churned,
        report.killed_at_once,
        report.groups_lost,
        seconds(report.served_again_ms),
    ));
    output::line(&format!(
        "  {} of {} objects survive and were found; {} commits, {} lost and told, {} transfers, {} messages a peer and \
         second; {:.0} s simulated in {:.0} s",
        grouped(report.objects_surviving as u64),
        grouped(report.objects as u64),
        grouped(report.commits),
        grouped(report.lost),
        grouped(report.transfers),
        report.messages_per_peer_second,
        report.sim_seconds,
        report.wall_seconds,
    ));
    for violation in violations {
        output::line(&format!("  violation: {violation}"));
    }
    if !violations.is_empty() {
        output::line(&format!("  replay: cargo testnet scale --peers {peers} --seed {seed}"));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a duration for people")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
