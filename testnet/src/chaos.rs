//! `cargo testnet chaos`: the testnet's run in a network of its own, which is cut, loses, delays and reorders while
//! peers are killed, paused and started anew.
//!
//! World, bots, ledger, audit and report are those of the plain run. It refuses to call a run good that could not be
//! made: where the system has no such networks, or does not let this process make them, it says so and is skipped.

use crate::interrupt::interrupt;
use crate::net::Network;
use crate::options::ChaosOptions;
use crate::testnet::{self, Ended};
use crate::{output, tell_ended};
use anyhow::Result;
use std::process::ExitCode;

/// The exit code of a run that was skipped, as test harnesses know it from Automake.
const SKIPPED: u8 = 77;

/// Runs it. The network is gone when this returns.
pub(crate) fn run(options: &ChaosOptions) -> Result<ExitCode> {
    let options = options.run_options();
    options.check()?;
    let network = match Network::new(options.seed.unwrap_or_default()) {
        Ok(network) => network,
        Err(error) => {
            output::line(&format!("skipped: chaos takes root, network namespaces and TUN devices: {error:#}"));
            return Ok(ExitCode::from(SKIPPED));
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended: Ended = runtime.block_on(async { testnet::run(&options, Some(network), interrupt()?).await })?;
    tell_ended(ended, &options)
}
