//! The deterministic simulator: whole peers, their sessions and users' closures under a seeded network and virtual
//! time, on one thread.
//!
//! A run has two phases: work under faults, then no faults, where every transaction must end and every lookup must
//! find its owner. What it checks, it checks in histories, journals, answers and final states. It refuses to know
//! tokio, libp2p or a real clock: one seed gives one run.
#![deny(clippy::disallowed_types, clippy::iter_over_hash_type)]

mod audit;
mod bounds;
pub mod checker;
mod client;
pub mod dump;
mod dump_clients;
mod dumping;
mod executor;
mod founding;
mod game;
mod hearing;
mod history;
mod host;
mod ledger;
mod lives;
mod look;
#[cfg(feature = "sabotage")]
pub mod matrix;
mod moments;
mod name_audit;
mod name_log;
mod name_watchers;
mod network;
mod observer;
mod old_copies;
mod options;
mod outside;
mod pointer_check;
pub mod ports;
mod readers;
mod report;
mod requests;
mod rubbish;
mod run;
mod scale;
mod sessions;
mod stage;
mod trace;
mod wall_clock;
mod watchers;
mod workloads;
mod world;

pub use executor::Job;
pub use founding::{FoundingReport, run_founding_seed};
pub use host::SimHost;
pub use options::{Aim, DUMP_PEERS_MIN, Options, Overrides};
pub use report::{Report, SeedReport};
pub use run::run_seed;
pub use scale::{ScaleReport, run_scale};
pub use stage::{Stage, StageHandle, Unfinished};
pub use workloads::Workloads;
