//! The network where the system is not Linux: there is none.

use super::links::LinkFault;
use super::{Machine, RuntimeThere, Traffic};
use anyhow::{Result, bail};

/// No such network can be made.
#[derive(Debug)]
pub(crate) enum Network {}

impl Network {
    /// Says why there is none.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn new(_: u64) -> Result<Self> {
        bail!("network namespaces are a part of Linux, and this is another system")
    }

    pub(crate) fn plug_in(&mut self) -> Result<Machine> {
        match *self {}
    }

    pub(crate) fn begin(&self, _: LinkFault) {
        match *self {}
    }

    pub(crate) fn mend(&self) {
        match *self {}
    }

    pub(crate) fn traffic(&self) -> Traffic {
        match *self {}
    }

    pub(crate) fn runtime_on(_: &Machine) -> Result<RuntimeThere> {
        bail!("this system has no network namespaces")
    }
}
