//! Seeds of the simulator on all cores: each is a run of its own on one thread, so their order changes nothing.
//!
//! It refuses to decide what a violation is; the simulator does. A seed that panics counts as one.

use crate::dump_files::DumpFolder;
use crate::json_file;
use crate::numbers::grouped;
use crate::options::{SimOptions, check_writable};
use crate::output;
use anyhow::{Context, Result, bail};
use driftmesh_sim::{Overrides, Report, SeedReport, run_seed};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

/// How often a long run says how far it is, in seeds.
const TELL_EVERY: u64 = 500;

/// Runs the seeds. `Ok(false)` when there was a violation.
pub(crate) fn run(options: &SimOptions) -> Result<bool> {
    options.check()?;
    check_writable(options.json.as_deref())?;
    let folder = options.dump.as_deref().map(DumpFolder::open).transpose()?;
    let peers = options.peers.map(usize::try_from).transpose().context("too many peers")?;
    let dump = folder.is_some();
    // The hash is told of a single seed only.
    let untraced = options.seeds().end - options.seeds().start > 1;
    let overrides = Overrides { peers, steps: options.steps, dump, untraced, ..Overrides::default() };
    let begun = Instant::now();
    let runs = run_all(options, &overrides, folder.as_ref())?;
    if runs.len() as u64 != options.seeds().end - options.seeds().start {
        bail!("only {} of the seeds came to an end", runs.len());
    }
    let mut report = Report::of(&runs);
    report.wall_seconds = begun.elapsed().as_secs_f64();
    tell(&runs, &report);
    json_file::write(options.json.as_deref(), &report)?;
    Ok(report.violations == 0)
}

/// Runs all seeds on as many threads as there are cores, and returns them in their order.
fn run_all(options: &SimOptions, overrides: &Overrides, folder: Option<&DumpFolder>) -> Result<Vec<SeedReport>> {
    let seeds = options.seeds();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, end) = (sender.clone(), &next, seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || sender.send(run_or_catch(seed, overrides)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        in_order(receiver, seeds.start, options, folder)
    })
}

/// Puts the runs in order as they come, writes their histories, and tells of each that failed. On an error nobody
/// receives any more, and the threads end.
fn in_order(
    receiver: Receiver<SeedReport>,
    first: u64,
    options: &SimOptions,
    folder: Option<&DumpFolder>,
) -> Result<Vec<SeedReport>> {
    let mut early = BTreeMap::new();
    let mut runs = Vec::new();
    for mut run in receiver {
        if let (Some(folder), Some(dumped)) = (folder, run.dumped.take()) {
            folder.write(&run.seed.to_string(), &dumped)?;
        }
        early.insert(run.seed, run);
        while let Some(run) = early.remove(&(first + runs.len() as u64)) {
            if !run.violations.is_empty() {
                tell_failure(&run, options);
            }
            runs.push(run);
            let done = runs.len() as u64;
            if done.is_multiple_of(TELL_EVERY) {
                output::line(&format!("{} seeds done", grouped(done)));
            }
        }
    }
    Ok(runs)
}

fn run_or_catch(seed: u64, overrides: &Overrides) -> SeedReport {
    // Nothing of a run that panicked is used again.
    catch_unwind(AssertUnwindSafe(|| run_seed(seed, overrides))).unwrap_or_else(|panic| SeedReport {
        seed,
        violations: vec![format!("the run panicked: {}", panic_text(panic.as_ref()))],
        options: format!("seed {seed} (the others are drawn from it)"),
        ..SeedReport::default()
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

fn tell_failure(run: &SeedReport, options: &SimOptions) {
    output::line(&format!("seed {} FAILED", run.seed));
    output::line(&format!("  options: {}", run.options));
    for violation in &run.violations {
        output::line(&format!("  violation: {violation}"));
    }
    output::line(&format!("  replay: {}", replay_line(run.seed, options)));
}

/// The command that runs a seed again as it was run.
fn replay_line(seed: u64, options: &SimOptions) -> String {
    let mut line = format!("cargo testnet sim --seed {seed}");
    if let Some(peers) = options.peers {
        line.push_str(&format!(" --peers {peers}"));
    }
    if let Some(steps) = options.steps {
        line.push_str(&format!(" --steps {steps}"));
    }
    if let Some(folder) = &options.dump {
        // With it seeds are other runs.
        line.push_str(&format!(" --dump {}", folder.display()));
    }
    line
}

fn tell(runs: &[SeedReport], report: &Report) {
    if let [one] = runs
        && one.violations.is_empty()
    {
        output::line(&format!("options: {}", one.options));
    }
    if let Some(hash) = &report.trace_hash {
        output::line(&format!("trace hash: {hash}"));
    }
    output::line(&format!(
        "{} seeds, {} violations in {} seeds; {} commits, {} transfers, {} wounds, {} aborts, {} faults; medians per \
         seed: {} commits, {} transfers; {:.1} s simulated in {:.1} s",
        grouped(report.seeds),
        grouped(report.violations),
        report.failed_seeds.len(),
        grouped(report.commits),
        grouped(report.transfers),
        grouped(report.wounds),
        grouped(report.aborts),
        grouped(report.faults),
        report.commits_median,
        report.transfers_median,
        report.sim_seconds,
        report.wall_seconds,
    ));
    if !report.events_never_seen.is_empty() {
        output::line(&format!("events never seen: {}", report.events_never_seen.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(seeds: std::ops::Range<u64>) -> SimOptions {
        SimOptions { seed: None, seeds: Some(seeds), peers: Some(3), steps: Some(20), dump: None, json: None }
    }

    #[test]
    fn runs_come_in_the_order_of_seeds() {
        let options = options(10..14);
        let (sender, receiver) = channel();
        for seed in [12, 10, 13, 11] {
            sender.send(SeedReport { seed, ..SeedReport::default() }).unwrap();
        }
        drop(sender);
        let seeds: Vec<u64> = in_order(receiver, 10, &options, None).unwrap().iter().map(|run| run.seed).collect();
        assert_eq!(seeds, [10, 11, 12, 13]);
    }

    #[test]
    fn a_failure_is_replayed_as_it_was_run() {
        let mut options = options(0..20);
        assert_eq!(replay_line(11, &options), "cargo testnet sim --seed 11 --peers 3 --steps 20");
        options.dump = Some("dumps".into());
        assert_eq!(replay_line(11, &options), "cargo testnet sim --seed 11 --peers 3 --steps 20 --dump dumps");
    }
}
