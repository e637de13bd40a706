//! Benchmarks: each runs what it compares with in the same run, so that the machine cancels out.
//!
//! Several go into one report, each under its name. It refuses to run anything whose report could not be written.

mod baseline;
pub(crate) mod cpu_time;
mod failover;
mod handover;
mod hotspot;
mod local;
mod locality;
mod overload;
mod remote;
mod replication;
mod tasks;
mod trades;
pub(crate) mod work;
mod zipf;

use crate::options::{Bench, BenchOptions, OverloadOptions, check_writable};
use crate::peers::Peers;
use crate::protocol::Answer;
use crate::{json_file, output};
use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value};

/// Figures, and whether they count.
struct Measured {
    figures: Value,
    /// Why they do not count.
    invalid: Vec<String>,
    /// What missed its bar: that is told, and is no error.
    missed: Vec<String>,
}

impl Measured {
    fn new<T: Serialize>(figures: &T, invalid: &[String], missed: &[String]) -> Result<Self> {
        Ok(Self { figures: serde_json::to_value(figures)?, invalid: invalid.to_vec(), missed: missed.to_vec() })
    }
}

/// Measures one thing after the other, and writes the report after each. Returns whether all figures count.
pub(crate) fn run(options: &BenchOptions) -> Result<bool> {
    check_writable(options.json.as_deref())?;
    let mut report: Map<String, Value> = Map::new();
    let mut is_good = true;
    for bench in &options.names {
        let (name, Measured { figures, invalid, missed }) = measure(*bench, options)?;
        missed.iter().for_each(|what| output::line(&format!("MISSED: {name}: {what}")));
        invalid.iter().for_each(|why| output::line(&format!("INVALID: {name}: {why}")));
        is_good &= invalid.is_empty();
        report.insert(name.to_owned(), figures);
        json_file::write(options.json.as_deref(), &report)?;
    }
    Ok(is_good)
}

/// Asks a mesh for more than it can carry. `Ok(false)` when a bar is missed.
pub(crate) fn overload(options: &OverloadOptions) -> Result<bool> {
    overload::run(options)
}

/// What of these figures is above its bar, in words.
fn above(bars: &[(&str, f64, f64)]) -> Vec<String> {
    let missed = bars.iter().filter(|(_, figure, most)| figure > most);
    missed.map(|(name, figure, most)| format!("{name} {figure}, at most {most}")).collect()
}

/// Runs a measurement in a mesh of so many peer processes. None is left when this returns.
async fn with_peers<T>(
    (count, replicas): (usize, u8),
    seed: Option<u64>,
    measure: impl AsyncFnOnce(&mut Peers) -> Result<T>,
) -> Result<T> {
    let mut peers = Peers::new(replicas, seed);
    let measured = async {
        peers.start(count).await?;
        // Only so that the exchange asks the peers how they stand: no bots trade.
        peers.exchange.open(&vec![0; count], 1.0, 0)?;
        measure(&mut peers).await
    };
    let measured = measured.await;
    if measured.is_err() {
        peers.error_lines().iter().for_each(|line| output::error_line(line));
    }
    peers.end().await;
    measured
}

/// A runtime for the orchestrator of peer processes.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// What created objects answer.
fn created(answer: &Answer) -> Option<String> {
    if let Answer::Created { players } = answer { Some(players.clone()) } else { None }
}

/// What the work of a benchmark has come to.
fn worked(answer: &Answer) -> Option<work::Worked> {
    if let Answer::Worked(worked) = answer { Some(worked.clone()) } else { None }
}

fn measure(bench: Bench, options: &BenchOptions) -> Result<(&'static str, Measured)> {
    Ok(match bench {
        Bench::Local => ("local", Measured::new(&local::run()?, &[], &[])?),
        Bench::Remote => ("remote", Measured::new(&remote::run()?, &[], &[])?),
        Bench::Replication => {
            let figures = replication::run()?;
            ("replication", Measured::new(&figures, &[], &figures.missed)?)
        }
        Bench::Failover => {
            let figures = failover::run(options.objects)?;
            ("failover", Measured::new(&figures, &figures.invalid, &figures.missed)?)
        }
        Bench::Locality => {
            let figures = locality::run(&options.locality)?;
            ("locality", Measured::new(&figures, &figures.invalid, &figures.missed)?)
        }
        Bench::Hotspot => {
            let figures = hotspot::run()?;
            ("hotspot", Measured::new(&figures, &figures.invalid, &figures.missed)?)
        }
        Bench::Handover => {
            let figures = handover::run()?;
            ("handover", Measured::new(&figures, &figures.invalid, &figures.missed)?)
        }
        Bench::Tasks => {
            let figures = tasks::run()?;
            ("tasks", Measured::new(&figures, &figures.invalid, &figures.missed)?)
        }
        Bench::Trades => {
            let figures = trades::run()?;
            ("trades", Measured::new(&figures, &figures.invalid, &[])?)
        }
    })
}
