//! Numbers for sessions that are no client's: each watch is one in the history.
//!
//! It refuses to know who has which.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Numbers after a first one. Clones share them.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<AtomicU32>);

impl Sessions {
    pub(crate) fn after(first: u32) -> Self {
        Self(Arc::new(AtomicU32::new(first)))
    }

    pub(crate) fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}
