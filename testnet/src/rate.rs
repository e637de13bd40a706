//! How many orders a second the players give at most, for a run that is not to ask for all that the peers can carry.
//!
//! It refuses to make up for more than a moment in which nobody gave any: what was not ordered does not come in a heap.

use std::time::{Duration, Instant};

/// What was not ordered for so long is not made up for.
const MADE_UP: Duration = Duration::from_millis(50);
const NANOS: u64 = 1_000_000_000;

/// How fast all players together give orders. Without a number as fast as answers come.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Rate {
    every: Option<Duration>,
    /// When the next order may be given.
    next: Option<Instant>,
}

impl Rate {
    /// So many orders a second.
    pub(crate) fn new(per_s: Option<u64>) -> Self {
        Self { every: per_s.map(|rate| Duration::from_nanos(NANOS / rate.max(1))), next: None }
    }

    /// Whether an order may be given now; it counts as given.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let Some(every) = self.every else { return true };
        let next = self.next.unwrap_or(now);
        if next > now {
            return false;
        }
        let since = (now - next).min(MADE_UP);
        self.next = Some(now - since + every);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(rate: &mut Rate, at: Instant) -> u64 {
        (0..10_000).take_while(|_| rate.take(at)).count() as u64
    }

    #[test]
    fn orders_come_at_the_rate_and_a_long_silence_is_not_made_up_for() {
        let begun = Instant::now();
        let mut rate = Rate::new(Some(100));
        let each = |ms: u64| begun + Duration::from_millis(ms);
        let first: u64 = (0..1_000).map(|ms| taken(&mut rate, each(ms))).sum();
        assert_eq!(first, 100);
        let after_a_minute = taken(&mut rate, each(61_000));
        assert!((1..=6).contains(&after_a_minute), "{after_a_minute}");
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        assert_eq!(taken(&mut Rate::new(None), Instant::now()), 10_000);
    }
}
