//! The network of a run as the others use it: machines that are plugged in, and faults of the links between them.
//!
//! It refuses to begin where the system lacks what it takes, and says what.

use super::device::{inside, make};
use super::links::LinkFault;
use super::machines::{Machines, remove_left_over};
use super::router::Router;
use super::{Machine, RuntimeThere, Traffic};
use anyhow::{Context, Result};

/// Threads of a peer that runs inside this process, on a machine.
const THREADS: usize = 2;

/// The network. Everything of it goes when it is dropped; by then no process may run on its machines any more.
#[derive(Debug)]
pub(crate) struct Network {
    // In this order: a device goes with the router, and then its namespace can.
    router: Router,
    machines: Machines,
}

impl Network {
    /// A network without machines, once it was tried whether this system can make any. What earlier runs left behind is
    /// removed.
    ///
    /// # Errors
    /// Why this system cannot: it is not root, or something is missing.
    pub(crate) fn new(seed: u64) -> Result<Self> {
        remove_left_over();
        // The first machine of each run; nobody else is there yet, so whatever is missing is told here.
        let mut probe = Machines::default();
        let machine = probe.make()?;
        let device = make(&machine)?;
        Machines::set_up(&machine)?;
        drop((device, probe));
        Ok(Self { router: Router::start(seed), machines: Machines::default() })
    }

    /// Plugs one more machine in.
    pub(crate) fn plug_in(&mut self) -> Result<Machine> {
        let machine = self.machines.make()?;
        let device = make(&machine)?;
        Machines::set_up(&machine)?;
        self.router.plug_in(machine.number, device);
        Ok(machine)
    }

    /// Lets a fault begin. It ends by itself.
    pub(crate) fn begin(&self, fault: LinkFault) {
        self.router.links(|links, now| links.begin(fault, now));
    }

    /// Ends all faults.
    pub(crate) fn mend(&self) {
        self.router.links(|links, _| links.mend());
    }

    /// What became of all packets until now.
    pub(crate) fn traffic(&self) -> Traffic {
        self.router.traffic()
    }

    /// A runtime whose tasks are on a machine: what they open is in its network.
    pub(crate) fn runtime_on(machine: &Machine) -> Result<RuntimeThere> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(THREADS).enable_all();
        inside(machine, move || builder.build().context("cannot start a runtime in a namespace")).map(RuntimeThere::new)
    }
}
