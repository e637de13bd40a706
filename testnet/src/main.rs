//! `cargo testnet`: real peer processes on this machine that hold one game world together, and an audit of it; the
//! simulator's front end; a check of histories that both dump; benchmarks.
//!
//! It refuses to call a run good that proves too little: see `report.rs`. Exit codes: 0 good, 1 a run that does not
//! count, a violation or an error (options that do not fit together too), 2 a command line that cannot be read, 77 skipped, 130 and
//! 143 after Ctrl-C and SIGTERM.

mod accounts;
mod answers;
mod audit;
mod auditor;
mod bench;
mod bots;
mod call_desk;
mod callers;
mod carry_out;
mod chance;
mod chaos;
mod check;
mod children;
mod dump_files;
mod dumping;
mod exchange;
mod executor;
mod fates;
mod faults;
mod frames;
mod hostile;
mod interrupt;
mod json_file;
mod latency;
mod ledger;
mod lists;
mod live_table;
mod looks;
mod marks;
mod memory;
mod naive;
mod net;
mod numbers;
mod options;
mod output;
mod packed;
mod peer_process;
mod peers;
mod places;
mod protocol;
mod rate;
mod records;
mod recovery;
mod report;
mod sabotage;
mod scale;
mod seats;
mod shares;
mod simulate;
mod soak;
mod testnet;
mod trade;
mod way_in;
mod workloads;
mod world;

use anyhow::Result;
use clap::Parser;
use options::{Command, Options, RunOptions};
use report::Report;
use std::process::ExitCode;
use testnet::Ended;

/// As the program `driftmesh` does (decision 0020).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    // As the program `driftmesh` does (decision 0038); the peer processes inherit it. A sandbox may forbid it.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let options = Options::parse();
    let code = match options.command {
        None => run_testnet(&options.run),
        Some(Command::Chaos(options)) => chaos::run(&options),
        Some(Command::Hostile(options)) => hostile::run(&options),
        Some(Command::PeerProcess) => with_log(peer_process::run).map(|()| ExitCode::SUCCESS),
        Some(Command::ZoneServer) => naive::run().map(|()| ExitCode::SUCCESS),
        Some(Command::Sim(sim)) => simulate::run(&sim).map(|is_good| ExitCode::from(u8::from(!is_good))),
        Some(Command::Soak(options)) => soak::run(&options),
        Some(Command::Overload(options)) => bench::overload(&options).map(|is_good| ExitCode::from(u8::from(!is_good))),
        Some(Command::Scale(options)) => scale::run(&options).map(|is_good| ExitCode::from(u8::from(!is_good))),
        Some(Command::Sabotage(wanted)) => sabotage::run(&wanted),
        Some(Command::Check(options)) => check::run(&options).map(|is_good| ExitCode::from(u8::from(!is_good))),
        Some(Command::Bench(options)) => bench::run(&options).map(|is_good| ExitCode::from(u8::from(!is_good))),
    };
    code.unwrap_or_else(|error| {
        output::error_line(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// Runs with a log on the error output: warnings, or what `RUST_LOG` says.
fn with_log<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    work()
}

fn run_testnet(options: &RunOptions) -> Result<ExitCode> {
    options.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async { testnet::run(options, None, None, interrupt::interrupt()?).await })?;
    tell_ended(ended, options)
}

/// Says how a run ended, and writes its report.
fn tell_ended(ended: Ended, options: &RunOptions) -> Result<ExitCode> {
    match ended {
        Ended::Interrupted(interrupt) => {
            output::error_line("interrupted: all peers have ended");
            Ok(ExitCode::from(interrupt.exit_code()))
        }
        Ended::Reported(report) => {
            json_file::write(options.json.as_deref(), &report)?;
            Ok(tell(&report))
        }
    }
}

fn tell(report: &Report) -> ExitCode {
    output::line(&report.work_line());
    output::line(&report.directory_line());
    if let Some(line) = report.faults_line() {
        output::line(&line);
    }
    if let Some(line) = report.workload_line() {
        output::line(&line);
    }
    output::line(&report.audit_line());
    let is_naive = report.mode == "naive";
    for reason in &report.invalid {
        output::line(&format!("{}: {reason}", if is_naive { "DAMAGE" } else { "INVALID" }));
    }
    if is_naive {
        output::line("zone servers without a protocol: what was found is what they do, and no error");
    }
    if is_naive || report.invalid.is_empty() {
        return ExitCode::SUCCESS;
    }
    output::line(&format!("replay with --seed {}; the order of messages will differ", report.seed));
    ExitCode::FAILURE
}
