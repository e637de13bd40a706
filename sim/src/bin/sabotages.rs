//! Breaks every rule on purpose, switch by switch, and tells which seed of the simulator noticed, and by what.
//!
//! `cargo testnet sabotage` runs it. Exit codes: 0 all noticed, 1 something was missed or could not be written, 2 a wrong
//! command line. It refuses to run without the feature `sabotage`: see `Cargo.toml`.

use driftmesh_peer::Sabotage;
use driftmesh_sim::matrix::{Matrix, RULES, SEEDS_MAX, Search, search};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Longest violation in the table, characters; the report has all of it.
const VIOLATION_CHARS: usize = 150;

fn line(text: &str) {
    // `println` would panic when the reader has gone.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn error_line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

struct Arguments {
    seeds: u64,
    json: Option<PathBuf>,
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut wanted = Arguments { seeds: SEEDS_MAX, json: None };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} takes a value"))?;
        match word.as_str() {
            "--seeds" => {
                let seeds = value.parse().ok().filter(|seeds| *seeds > 0);
                wanted.seeds = seeds.ok_or_else(|| format!("--seeds {value}: give a number from 1"))?;
            }
            "--json" => wanted.json = Some(value.into()),
            _ => return Err(format!("{word} is not known; there are --seeds N and --json FILE")),
        }
    }
    Ok(wanted)
}

/// Searches for all switches, on as many threads as there are cores.
fn search_all(seeds: u64) -> Vec<Search> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(sabotage) = Sabotage::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let search = search(*sabotage, seeds);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((*sabotage, search));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(sabotage, _)| *sabotage);
    done.into_iter().map(|(_, search)| search).collect()
}

fn shortened(text: &str) -> String {
    let short: String = text.chars().take(VIOLATION_CHARS).collect();
    if short.len() < text.len() { short + " ..." } else { short }
}

fn tell(matrix: &Matrix) {
    line(&format!("{:<5} {:<16} {:>5} {:>6}  noticed by", "rule", "switch", "seed", "run"));
    for rule in RULES {
        for search in matrix.switches.iter().filter(|search| search.rule == rule.name) {
            let (seed, by) = match &search.caught {
                Some(caught) => (caught.seed.to_string(), shortened(&caught.violation)),
                None => ("-".to_owned(), format!("NOTHING within {} seeds", matrix.seeds)),
            };
            line(&format!("{:<5} {:<16} {seed:>5} {:>6}  {by}", rule.name, search.switch, search.seeds_run));
        }
        if rule.switches().next().is_none() {
            line(&format!("{:<5} HAS NO SWITCH ({})", rule.name, rule.says));
        }
    }
    line(&format!("{} rules: {} caught, {} missed", matrix.rules.len(), matrix.caught.len(), matrix.missed.len()));
    if !matrix.missed.is_empty() {
        line(&format!("MISSED: {}", matrix.missed.join(", ")));
    }
}

fn main() -> ExitCode {
    let wanted = match arguments(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(error) => {
            error_line(&format!("error: {error}"));
            return ExitCode::from(2);
        }
    };
    // A broken core may panic: that is no news, and the next seed is tried.
    std::panic::set_hook(Box::new(|_| {}));
    let matrix = Matrix::of(&search_all(wanted.seeds), wanted.seeds);
    tell(&matrix);
    if let Some(file) = wanted.json {
        let written = serde_json::to_string_pretty(&matrix).map_err(|error| error.to_string()).and_then(|json| {
            std::fs::write(&file, json + "\n").map_err(|error| format!("--json {}: {error}", file.display()))
        });
        if let Err(error) = written {
            error_line(&format!("error: {error}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::from(u8::from(!matrix.missed.is_empty()))
}
