//! The matrix of sabotages, by a build of the simulator of its own: what breaks rules must be in no other build.
//!
//! It refuses to know the switches; it starts `driftmesh-sabotages` of the crate `sim` and passes on how that ends.

use crate::options::{SabotageOptions, check_writable};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

/// How the program ends that found something missed.
const MISSED: i32 = 1;

/// Builds and runs the program. Exit code 1 when something was missed.
pub(crate) fn run(options: &SabotageOptions) -> Result<ExitCode> {
    check_writable(options.json.as_deref())?;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    if !manifest.exists() {
        bail!("the sabotages are built from the sources, which are not at {} any more", manifest.display());
    }
    // `cargo testnet` is run by a cargo, and says which.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--release", "--quiet", "--package", "driftmesh-sim", "--features", "sabotage"]);
    command.args(["--bin", "driftmesh-sabotages", "--manifest-path"]).arg(manifest).arg("--");
    if let Some(seeds) = options.seeds {
        command.args(["--seeds", &seeds.to_string()]);
    }
    if let Some(json) = &options.json {
        command.arg("--json").arg(json);
    }
    let status = command.status().context("cannot start cargo to build the simulator with the feature `sabotage`")?;
    outcome(status)
}

fn outcome(status: ExitStatus) -> Result<ExitCode> {
    match status.code() {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(MISSED) => Ok(ExitCode::FAILURE),
        Some(_) | None => bail!("the simulator with the feature `sabotage` could not be built or run: {status}"),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn what_ended_otherwise_than_by_a_verdict_is_an_error() {
        let ended = |code: i32| outcome(ExitStatus::from_raw(code << 8));
        assert!(ended(0).is_ok() && ended(1).is_ok());
        // A build that failed, a wrong command line, a kill.
        assert!(ended(101).is_err() && ended(2).is_err());
        assert!(outcome(ExitStatus::from_raw(9)).is_err());
    }
}
