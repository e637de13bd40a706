//! Holds back what this peer would send to others, so that a test can kill it with news that nobody else has heard: on
//! one machine the kernel delivers what was written even by a process that is dead.
//!
//! Only in builds with the feature `testing`. It refuses to hold for ever, and to drop anything: the lanes keep what
//! waits, within their bounds.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::limits::HOLD_MAX;

/// Until when nothing is written.
#[derive(Default)]
pub(super) struct Hold {
    until: Mutex<Option<Instant>>,
}

impl Hold {
    /// Nothing is written from now on, for so long, [`HOLD_MAX`] at most. A later call replaces an earlier one.
    pub(super) fn begin(&self, duration: Duration) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + duration.min(HOLD_MAX));
    }

    /// Waits until something may be written. Cancel safe.
    pub(super) async fn pass(&self) {
        loop {
            let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
            match until.filter(|until| Instant::now() < *until) {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => return,
            }
        }
    }
}
