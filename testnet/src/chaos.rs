//! `cargo testnet chaos`: the testnet's run in a network of its own, which is cut, loses, delays and reorders while
//! peers are killed, paused and started anew.
//!
//! World, bots, ledger, audit and report are those of the plain run. It refuses to call a run good that could not be
//! made: where the system has no such networks, or does not let this process make them, it says so and is skipped.

use crate::interrupt::interrupt;
use crate::net::Network;
use crate::options::ChaosOptions;
use crate::testnet;
use crate::{output, tell_ended};
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit code of a run that was skipped, as test harnesses know it from Automake.
const SKIPPED: u8 = 77;

/// A folder that is gone in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("driftmesh-chaos-{}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of it is in the folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs it. The network is gone when this returns.
pub(crate) fn run(options: &ChaosOptions) -> Result<ExitCode> {
    let mut options = options.run_options();
    options.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // From here on a signal does not end the process before the network is removed.
    let interrupt = runtime.block_on(async { interrupt() })?;
    let network = match Network::new(options.seed.unwrap_or_default()) {
        Ok(network) => network,
        Err(error) => {
            output::line(&format!("skipped: chaos takes root, network namespaces and TUN devices: {error:#}"));
            return Ok(ExitCode::from(SKIPPED));
        }
    };
    // Histories are judged in any case, and kept where that was asked for.
    let scratch = options.dump.is_none().then(Scratch::new);
    options.dump = options.dump.or_else(|| scratch.as_ref().map(|scratch| scratch.0.clone()));
    let ended = runtime.block_on(testnet::run(&options, Some(network), None, interrupt))?;
    tell_ended(ended, &options)
}
