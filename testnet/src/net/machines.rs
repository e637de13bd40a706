//! The network namespaces of a run, one for each machine: made, and removed whatever happens.
//!
//! Their names begin with the id of the process that made them, so that what a killed run left is known and removed by
//! the next. It refuses to remove what a living process made.

use super::device::{NAME, NAMESPACES};
use super::{Machine, Number, PREFIX};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// How all names begin.
const OURS: &str = "dmchaos";
/// Largest packet, bytes. That of Ethernet, so that loss and order concern as little as they do there.
const PACKET_MAX: &str = "1500";
/// Packets that a machine may have on their way to the router.
const QUEUE: &str = "4000";

/// The namespaces that were made.
#[derive(Debug, Default)]
pub(super) struct Machines {
    made: Vec<Machine>,
}

impl Machines {
    /// Makes one more, still without a network.
    pub(super) fn make(&mut self) -> Result<Machine> {
        let number = Number::try_from(self.made.len() + 1).context("too many machines")?;
        let machine = Machine { number, name: format!("{OURS}{}m{number}", std::process::id()) };
        ip(&["netns", "add", &machine.name])?;
        self.made.push(machine.clone());
        Ok(machine)
    }

    /// Gives a machine its address, once it has its device.
    pub(super) fn set_up(machine: &Machine) -> Result<()> {
        let (name, address) = (machine.name.as_str(), format!("{}/{PREFIX}", machine.address()));
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "address", "add", &address, "dev", NAME])?;
        ip(&["-n", name, "link", "set", NAME, "mtu", PACKET_MAX, "txqueuelen", QUEUE, "up"])
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in &self.made {
            let _ = ip(&["netns", "del", &machine.name]);
        }
    }
}

/// Removes what runs left that do not live any more.
pub(super) fn remove_left_over() {
    let Ok(entries) = std::fs::read_dir(NAMESPACES) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if maker(&name).is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// The id of the process that made a namespace of this name, if it is one of a run.
fn maker(name: &str) -> Option<u32> {
    let (process, machine) = name.strip_prefix(OURS)?.split_once('m')?;
    machine.parse::<Number>().ok()?;
    process.parse().ok()
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("the program `ip` cannot be run")?;
    if !output.status.success() {
        bail!("`ip {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_run_made_is_known_as_such() {
        assert_eq!(maker("dmchaos123m4"), Some(123));
        for other in ["dmchaos", "dmchaosm1", "dmchaos12m", "dmchaos12mx", "dm12m3", "prod", "dmchaos1 2m3"] {
            assert_eq!(maker(other), None, "{other}");
        }
    }
}
