//! A network that is further away than loopback: what is written to a peer waits on a line of a given length first.
//!
//! Only in builds with the feature `testing`. It keeps the order and drops nothing; only what is still on the line when the
//! connection ends is lost, as on any line. It refuses to bound what is on it: that is what the peers send in that time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the lines to all peers are, microseconds.
#[derive(Default)]
pub(super) struct Delay(AtomicU64);

impl Delay {
    pub(super) fn set(&self, delay: Duration) {
        self.0.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// What is on its way to one peer.
#[derive(Default)]
pub(super) struct Line {
    /// When each piece arrives, its bytes, and how many frames they are.
    pieces: VecDeque<(Instant, Vec<u8>, u64)>,
}

impl Line {
    /// Whether what is written has to go by the line: also behind what is still on it.
    pub(super) fn is_used(&self, delay: Duration) -> bool {
        delay > Duration::ZERO || !self.pieces.is_empty()
    }

    pub(super) fn push(&mut self, delay: Duration, bytes: Vec<u8>, frames: u64) {
        let arrives = self.pieces.back().map_or_else(Instant::now, |(last, ..)| Instant::now().max(*last - delay));
        self.pieces.push_back((arrives + delay, bytes, frames));
    }

    /// Takes the next piece that has arrived.
    pub(super) fn take_due(&mut self) -> Option<(Vec<u8>, u64)> {
        let (_, bytes, frames) = self.pieces.pop_front_if(|(arrives, ..)| *arrives <= Instant::now())?;
        Some((bytes, frames))
    }

    /// Waits until a piece arrives; for ever when none is on its way. Cancel safe.
    pub(super) async fn due(&self) {
        match self.pieces.front() {
            Some((arrives, ..)) => tokio::time::sleep_until((*arrives).into()).await,
            None => std::future::pending().await,
        }
    }
}
