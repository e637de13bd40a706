//! Latencies of transactions: recorded as nanoseconds, told as microseconds, merged over peers.

use hdrhistogram::Histogram;
use std::time::Duration;

/// Longest latency that is told apart, nanoseconds: more than the longest deadline.
const LONGEST_NANOS: u64 = 120_000_000_000;
/// Decimal digits that are kept.
const DIGITS: u8 = 3;

/// How long many transactions took.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram =
            Histogram::new_with_bounds(1, LONGEST_NANOS, DIGITS).expect("the bounds are constants in order");
        Self { histogram }
    }
}

impl Latencies {
    /// Adds one.
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(nanos.max(1));
    }

    /// Adds all of another.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.histogram += &other.histogram;
    }

    /// The latency at a quantile, microseconds; 0 when there is none.
    pub(crate) fn at_quantile_us(&self, quantile: f64) -> f64 {
        if self.histogram.is_empty() { 0.0 } else { micros(self.histogram.value_at_quantile(quantile)) }
    }

    /// The latency at a quantile in that of others at the same quantile; 0 when there is none of those.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people, of durations below 2^53 ns")]
    pub(crate) fn ratio_at_quantile(&self, quantile: f64, others: &Self) -> f64 {
        let nanos = |latencies: &Self| latencies.histogram.value_at_quantile(quantile) as f64;
        if others.histogram.is_empty() { 0.0 } else { nanos(self) / nanos(others) }
    }

    /// How many took longer.
    pub(crate) fn longer_than(&self, latency: Duration) -> u64 {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        // What shares a bucket with it counts as no longer.
        self.histogram.len() - self.histogram.count_between(1, nanos.clamp(1, LONGEST_NANOS))
    }

    /// The longest, microseconds; 0 when there is none.
    pub(crate) fn longest_us(&self) -> f64 {
        micros(self.histogram.max())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a duration for people, below 2^53 ns")]
fn micros(nanos: u64) -> f64 {
    // One decimal: what is more is noise.
    (nanos as f64 / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_all_that_was_recorded() {
        let mut here = Latencies::default();
        for micros in 1..=1_000 {
            here.record(Duration::from_micros(micros));
        }
        let mut both = here.clone();
        both.merge(&here);
        assert_eq!(both.histogram.len(), 2_000);
        assert_eq!(both.at_quantile_us(0.5), here.at_quantile_us(0.5));
        assert!((both.at_quantile_us(0.5) - 500.0).abs() < 5.0);
        assert!((both.longest_us() - 1_000.0).abs() < 2.0);
    }

    #[test]
    fn nothing_recorded_is_zero_and_too_long_is_the_longest() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.at_quantile_us(0.99), latencies.longest_us()), (0.0, 0.0));
        latencies.record(Duration::from_secs(10_000));
        assert!(latencies.longest_us() > 100_000_000.0);
    }
}
