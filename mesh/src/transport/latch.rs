//! A switch that is set once and that any number of tasks can wait for.
//!
//! It refuses to be unset.

use tokio::sync::watch;

/// Set once, waited for by many.
pub(super) struct Latch(watch::Sender<bool>);

impl Latch {
    /// A latch that is not set.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Sets it and wakes all that wait.
    pub(super) fn set(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is set.
    pub(super) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is set. Cancel safe.
    pub(super) async fn wait(&self) {
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = self.0.subscribe().wait_for(|set| *set).await;
    }
}
