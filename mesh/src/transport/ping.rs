//! Bare round trips over an admitted peer's substream: what everything else on it is compared with.
//!
//! The remote's reading task answers at once, so neither the core nor its lock is part of it. It refuses more than a
//! bounded number of round trips at once; an answer that nobody waits for is dropped.

use super::frame::{FrameError, FrameKind};
use super::limits::PINGS_MAX;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

#[derive(Debug, Default)]
struct State {
    last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// The round trips to one peer that are under way.
#[derive(Debug, Default)]
pub(super) struct Pings {
    state: Mutex<State>,
}

impl Pings {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a round trip: the body to send, and what resolves when it comes back. `None` when too many are under way.
    pub(super) fn begin(&self) -> Option<([u8; 8], oneshot::Receiver<()>)> {
        let mut state = self.lock();
        state.waiting.retain(|_, waiter| !waiter.is_closed());
        if state.waiting.len() >= PINGS_MAX {
            return None;
        }
        state.last = state.last.wrapping_add(1);
        let number = state.last;
        let (done, waits) = oneshot::channel();
        state.waiting.insert(number, done);
        Some((number.to_be_bytes(), waits))
    }

    /// The remote sent a body back.
    pub(super) fn came_back(&self, body: [u8; 8]) {
        if let Some(waiter) = self.lock().waiting.remove(&u64::from_be_bytes(body)) {
            // Whoever waited may have gone.
            let _ = waiter.send(());
        }
    }
}

/// The body of a ping or of its answer.
///
/// # Errors
/// When it has not 8 bytes.
pub(super) fn body_of(kind: FrameKind, body: &[u8]) -> Result<[u8; 8], FrameError> {
    body.try_into().map_err(|_| FrameError::body(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_round_trip_ends_with_its_own_answer_and_they_are_bounded() {
        let pings = Pings::default();
        let (first, first_waits) = pings.begin().unwrap();
        let (second, mut second_waits) = pings.begin().unwrap();
        pings.came_back([9; 8]);
        pings.came_back(first);
        first_waits.await.unwrap();
        assert!(second_waits.try_recv().is_err());
        pings.came_back(second);
        let waiting: Vec<_> = (0..PINGS_MAX).map(|_| pings.begin().unwrap()).collect();
        assert!(pings.begin().is_none());
        drop(waiting);
        assert!(pings.begin().is_some());
        assert!(body_of(FrameKind::Ping, &[1; 7]).is_err());
    }
}
