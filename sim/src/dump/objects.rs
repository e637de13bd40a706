//! The objects of dumped histories. Each value tells all that a judge needs to know about the writes before it.

use driftmesh_model::Object;
use serde::{Deserialize, Serialize};

/// A list that transactions append to: it shows every append that took effect, in order.
#[derive(Clone, Serialize, Deserialize, Debug, Default)]
pub struct Series {
    /// What was appended so far. No element is appended twice.
    pub elements: Vec<u64>,
}

impl Object for Series {
    const TYPE_NAME: &'static str = "dump.series";
}

/// A register: each write replaces what is there.
#[derive(Clone, Serialize, Deserialize, Debug, Default)]
pub struct Register {
    /// The version, which no other write of the run has; 0 at first.
    pub version: u64,
    /// All versions before it, oldest first: so whoever reads it knows what each writer had read, also when the writer
    /// was never answered.
    pub past: Vec<u64>,
}

impl Object for Register {
    const TYPE_NAME: &'static str = "dump.register";
}
