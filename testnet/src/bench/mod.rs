//! Benchmarks: each runs what it compares with in the same process, so that the machine cancels out.

mod baseline;
pub(crate) mod cpu_time;
pub(crate) mod failover;
pub(crate) mod local;
pub(crate) mod remote;
pub(crate) mod replication;
mod zipf;
