//! Conformance of the consensus port: what any consensus behind it must do, on a seeded network in virtual time.
//!
//! Everything but `ours.rs` is generic over [`port::Port`]. Members lose their memory with a crash and never return; a new
//! incarnation is somebody new. At each step of each run `watch.rs` looks whether what is called stable is held by those
//! who make it so, agrees everywhere, and survives every leader. `random.rs` is the bulk of it; the other files are
//! stories with one point each.
//!
//! `CONFORMANCE_SEEDS=20000 cargo test --package driftmesh-object-store --test conformance` looks further.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lone;
mod membership;
mod network;
mod ours;
mod port;
mod random;
mod replacing;
mod rng;
#[cfg(feature = "sabotage")]
mod sabotage;
mod stories;
mod timing;
mod watch;
mod world;
