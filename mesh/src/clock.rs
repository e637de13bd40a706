//! Time for the core: one reading of the monotonic clock a step, and wall time derived from it.
//!
//! It refuses to read the wall clock in a step, and to let the jitter of its two readings move wall time back.

use driftmesh_model::{Micros, Now};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A measured offset that is smaller by no more than this is jitter, not a clock that was set back.
const JITTER_MAX: u64 = 1_000;

/// Monotonic time since the start, and how far the wall clock is ahead of it.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// Wall clock minus monotonic clock, microseconds.
    offset: u64,
    /// By how much somebody has set the wall clock, microseconds.
    #[cfg(test)]
    pub(crate) set_by: i64,
}

/// Without the 128-bit division of `Duration::as_micros`: this runs in every step.
const fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros() as u64)
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        let mut clock = Self {
            start: Instant::now(),
            offset: 0,
            #[cfg(test)]
            set_by: 0,
        };
        clock.refresh();
        clock
    }

    /// Microseconds since the start.
    pub(crate) fn mono(&self) -> Micros {
        Micros(micros(self.start.elapsed()))
    }

    /// The time of a step. Reads one clock.
    pub(crate) fn now(&self) -> Now {
        let mono = self.mono();
        Now { mono, wall: Micros(mono.0.saturating_add(self.offset)) }
    }

    /// Compares the wall clock with the monotonic one. Called by the thread of the timers, at least at every heartbeat.
    pub(crate) fn refresh(&mut self) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros);
        #[cfg(test)]
        let wall = wall.saturating_add_signed(self.set_by);
        self.adopt(wall.saturating_sub(self.mono().0));
    }

    fn adopt(&mut self, measured: u64) {
        let is_jitter = measured < self.offset && self.offset - measured <= JITTER_MAX;
        if !is_jitter {
            self.offset = measured;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_never_moves_wall_time_back_but_a_clock_set_back_does() {
        let mut clock = Clock { offset: 10_000_000, ..Clock::start() };
        clock.adopt(9_999_500);
        assert_eq!(clock.offset, 10_000_000);
        clock.adopt(10_000_020);
        assert_eq!(clock.offset, 10_000_020);
        clock.adopt(5_000_000);
        assert_eq!(clock.offset, 5_000_000);
    }

    #[test]
    fn wall_time_is_the_time_of_day() {
        let now = Clock::start().now();
        let day = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros);
        assert!(day.abs_diff(now.wall.0) < 5_000_000);
    }
}
