//! The hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014).
//!
//! It never reads a clock: the wall time of each step is an argument. It refuses to follow requests that are too
//! far ahead (R18); what must not be refused says so by calling `raise_above`.

use crate::limits::CLOCK_AHEAD_MAX;
use crate::{Micros, Timestamp};

/// One peer's hybrid logical clock: at or above its wall clock and all that any message told it.
#[derive(Clone, Debug, Default)]
pub struct HybridClock {
    last: Timestamp,
}

/// A timestamp that a request named lies too far ahead of the receiver's wall clock (R18).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockAhead {
    /// The refused timestamp.
    pub named: Timestamp,
    /// The receiver's wall clock.
    pub receiver: Micros,
}

impl HybridClock {
    /// The present time: at or above everything this peer has committed, promised or been told. What is committed
    /// later lies strictly above it.
    pub fn now(&mut self, wall: Micros) -> Timestamp {
        self.last = self.last.max(Timestamp::from_wall(wall));
        self.last
    }

    /// A new timestamp, strictly above all before.
    pub fn tick(&mut self, wall: Micros) -> Timestamp {
        self.last = self.last.next().max(Timestamp::from_wall(wall));
        self.last
    }

    /// Follows a timestamp that must not be refused: a floor, a journal entry, an outcome.
    pub fn raise_above(&mut self, timestamp: Timestamp) {
        self.last = self.last.max(timestamp);
    }

    /// Follows a timestamp that a request named.
    ///
    /// # Errors
    /// `ClockAhead` when it lies more than [`CLOCK_AHEAD_MAX`] ahead of the wall clock; the clock is then unchanged.
    pub fn observe(&mut self, timestamp: Timestamp, wall: Micros) -> Result<(), ClockAhead> {
        // R18: refuse before merging, else one peer with a bad clock drags the whole mesh along.
        Self::guard(timestamp, wall)?;
        self.raise_above(timestamp);
        Ok(())
    }

    /// Checks a timestamp that a request named, without following it.
    ///
    /// # Errors
    /// As for [`HybridClock::observe`].
    pub fn guard(timestamp: Timestamp, wall: Micros) -> Result<(), ClockAhead> {
        if timestamp > Timestamp::from_wall(wall.plus(CLOCK_AHEAD_MAX)) {
            return Err(ClockAhead { named: timestamp, receiver: wall });
        }
        Ok(())
    }

    /// The last timestamp given out or followed.
    #[must_use]
    pub const fn last(&self) -> Timestamp {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_strictly_increasing_when_the_wall_clock_stands_still_or_jumps_back() {
        let mut clock = HybridClock::default();
        let first = clock.tick(Micros(1_000));
        let second = clock.tick(Micros(1_000));
        let third = clock.tick(Micros(10));
        assert!(first < second && second < third);
    }

    #[test]
    fn a_request_from_the_future_is_refused_and_leaves_the_clock_alone() {
        let mut clock = HybridClock::default();
        let before = clock.now(Micros(1_000_000));
        let far = Timestamp::from_wall(Micros(1_000_000).plus(CLOCK_AHEAD_MAX).plus(Micros(1)));
        assert!(clock.observe(far, Micros(1_000_000)).is_err());
        assert_eq!(clock.last(), before);
        let near = Timestamp::from_wall(Micros(1_000_000).plus(CLOCK_AHEAD_MAX));
        assert!(clock.observe(near, Micros(1_000_000)).is_ok());
        assert_eq!(clock.last(), near);
    }
}
