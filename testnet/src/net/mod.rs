//! The network of a chaos run: machines as network namespaces of Linux, and a router in this process between them that
//! cuts, loses, delays and reorders.
//!
//! It refuses to touch the network of the machine it runs on, and to leave anything of it behind.

#[cfg(target_os = "linux")]
mod device;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
pub(crate) mod links;
#[cfg(target_os = "linux")]
mod machines;
#[cfg(target_os = "linux")]
mod network;
#[cfg(target_os = "linux")]
mod router;

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::Network;
#[cfg(target_os = "linux")]
pub(crate) use network::Network;

use anyhow::Context;
use std::net::Ipv4Addr;
use tokio::process::Command;
use tokio::runtime::Runtime;

/// A machine of the network. The first is 1.
pub(crate) type Number = u16;

/// The network that machines are in.
const NETWORK: [u8; 2] = [10, 78];
/// Bits of an address that name the network.
#[cfg(target_os = "linux")]
const PREFIX: u8 = 16;
/// Where peers of such a network listen.
const PORT: u16 = 4001;

/// A machine, as whoever runs a process there has to know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Machine {
    /// Its number.
    pub(crate) number: Number,
    /// The name of its namespace.
    pub(crate) name: String,
}

impl Machine {
    /// Its address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(NETWORK[0], NETWORK[1], high, low)
    }

    /// Where a peer there listens.
    pub(crate) fn listen(&self) -> String {
        format!("{}:{PORT}", self.address())
    }

    /// Begins a command that runs a program there. The process that it starts becomes the program.
    pub(crate) fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

/// Which machine an address is of, if it is of the network.
#[cfg(target_os = "linux")]
const fn machine_at(address: [u8; 4]) -> Option<Number> {
    let [one, two, high, low] = address;
    if one == NETWORK[0] && two == NETWORK[1] { Some(Number::from_be_bytes([high, low])) } else { None }
}

/// A runtime whose tasks are on a machine of the network. It ends when it is dropped, without waiting for them.
#[derive(Debug)]
pub(crate) struct RuntimeThere(Option<Runtime>);

impl RuntimeThere {
    #[cfg(target_os = "linux")]
    const fn new(runtime: Runtime) -> Self {
        Self(Some(runtime))
    }

    /// Runs a task there.
    pub(crate) async fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let runtime = self.0.as_ref().context("the runtime has ended")?;
        Ok(runtime.spawn(task).await?)
    }
}

impl Drop for RuntimeThere {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Also where nobody may wait: in a task.
            runtime.shutdown_background();
        }
    }
}

/// What became of the packets of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Traffic {
    /// Delivered.
    pub(crate) delivered: u64,
    /// Not delivered, because a link was cut or lossy.
    pub(crate) dropped: u64,
    /// Delivered late, because a link was slow.
    pub(crate) delayed: u64,
    /// Not delivered for another reason: a queue was full, or the machine was just being made or removed.
    pub(crate) failed: u64,
}
