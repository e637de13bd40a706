//! A TUN device inside a network namespace: what a machine sends comes out of it here.
//!
//! The thread that makes it goes into the namespace and ends; the device stays there and is read from anywhere. It
//! refuses to move any other thread.

use super::Machine;
use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use tappers::{Interface, Tun};

/// Where the namespaces are that have names.
pub(super) const NAMESPACES: &str = "/run/netns";
/// What the device is called on each machine.
pub(super) const NAME: &str = "mesh0";

/// Makes the device of a machine. It goes with the value.
pub(super) fn make(machine: &Machine) -> Result<Tun> {
    inside(machine, || {
        let name = Interface::new(NAME).context("the name of a device")?;
        let mut device = Tun::new_named(name).context("cannot make a TUN device")?;
        device.set_nonblocking(true).context("cannot read a TUN device without waiting")?;
        Ok(device)
    })
}

/// Does something on a thread inside a machine's namespace; the threads that this one starts are there too.
pub(super) fn inside<T: Send>(machine: &Machine, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = Path::new(NAMESPACES).join(&machine.name);
    let namespace = File::open(&file).with_context(|| format!("cannot open {}", file.display()))?;
    let within = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot go into a network namespace")?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(within).join()).map_err(|_| anyhow!("a thread in a namespace panicked"))?
}
