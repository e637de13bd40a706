//! Benchmarks: each runs what it compares with in the same process, so that the machine cancels out.

mod baseline;
mod cpu_time;
pub(crate) mod failover;
pub(crate) mod local;
pub(crate) mod remote;
mod zipf;
