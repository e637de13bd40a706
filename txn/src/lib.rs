//! Transactions at the peer that runs them: what each has read and locked, and who waits for whom.
//!
//! All locks of a transaction are at its own peer, so wounds are local (R12). This crate refuses to know versions,
//! places and messages: the peer fetches ownership, checks snapshots and commits.
#![deny(clippy::disallowed_types, clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod cause;
mod lock_table;
mod transaction;
mod transactions;

pub use cause::{Cause, Other, TaskKind};
pub use lock_table::{Acquired, Holder, LockTable, PIN_IDLE_MAX, RemoteWaiter, Turn, Waiters};
pub use transaction::{Intent, Read, RemoteRead, Status, Transaction};
pub use transactions::{TRANSACTIONS_MAX, Transactions};
