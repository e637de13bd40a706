//! How much of one member is taken in: so many frames, bytes and so much of the core's time in a second (R24).
//!
//! What is beyond waits in its own connection, which makes the sender busy; so a flood costs its sender, and an honest
//! peer that has much to say is slowed down and loses nothing. It refuses to drop anything.

use std::time::{Duration, Instant};

use super::limits::{
    INBOUND_BURST, INBOUND_BYTES_PER_S, INBOUND_FRAMES_PER_S, INBOUND_HELD_SHARE, INBOUND_PAUSE_MAX, INBOUND_PAUSE_MIN,
};

/// What one member has taken of its share.
#[derive(Debug)]
pub(super) struct Pace {
    /// When all that was taken will be given back: of frames, of bytes, and of the core's time.
    even_at: [Instant; 3],
}

impl Pace {
    /// Of a member that has said nothing yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self { even_at: [now; 3] }
    }

    /// Takes so much. Returns how long nothing more is to be taken, if that is worth a pause.
    pub(super) fn take(&mut self, frames: u64, bytes: u64, held: Duration, now: Instant) -> Option<Duration> {
        let costs = [
            Duration::from_nanos(frames.saturating_mul(1_000_000_000 / INBOUND_FRAMES_PER_S)),
            Duration::from_micros(bytes.saturating_mul(1_000_000) / INBOUND_BYTES_PER_S),
            held.saturating_mul(INBOUND_HELD_SHARE),
        ];
        let mut longest = Duration::ZERO;
        for (even_at, cost) in self.even_at.iter_mut().zip(costs) {
            // A machine that stood still meanwhile makes any message seem costly.
            *even_at = ((*even_at).max(now) + cost).min(now + INBOUND_BURST + INBOUND_PAUSE_MAX);
            longest = longest.max((*even_at - now).saturating_sub(INBOUND_BURST));
        }
        Some(longest).filter(|pause| *pause >= INBOUND_PAUSE_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many turns of so much are taken in 10 s.
    fn turns_in_10_s(frames: u64, bytes: u64, held: Duration) -> u64 {
        let begin = Instant::now();
        let (mut pace, mut now, mut turns) = (Pace::new(begin), begin, 0);
        while now < begin + Duration::from_secs(10) {
            turns += 1;
            now += pace.take(frames, bytes, held, now).unwrap_or_default().max(Duration::from_micros(1));
        }
        turns
    }

    #[test]
    fn a_flood_of_frames_of_bytes_and_of_work_is_slowed_down() {
        let second = |share: u64| (10 * share, 12 * share);
        for (turns, (least, most)) in [
            (turns_in_10_s(1_000, 0, Duration::ZERO), second(INBOUND_FRAMES_PER_S / 1_000)),
            (turns_in_10_s(1, 1 << 20, Duration::ZERO), second(INBOUND_BYTES_PER_S >> 20)),
            (turns_in_10_s(1, 0, Duration::from_millis(5)), second(200 / u64::from(INBOUND_HELD_SHARE))),
        ] {
            assert!((least..=most).contains(&turns), "{turns} turns, {least} to {most} are right");
        }
    }

    #[test]
    fn who_says_little_never_waits() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        for turn in 0..10_000 {
            let now = begin + Duration::from_millis(turn);
            assert_eq!(pace.take(50, 64 << 10, Duration::from_micros(300), now), None);
        }
    }

    #[test]
    fn no_pause_is_longer_than_a_bound() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        for _ in 0..3 {
            assert_eq!(pace.take(1, 1, Duration::from_secs(3_600), begin), Some(INBOUND_PAUSE_MAX));
        }
    }

    #[test]
    fn a_burst_is_taken_at_once() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        let frames = INBOUND_FRAMES_PER_S * INBOUND_BURST.as_millis() as u64 / 1_000;
        assert_eq!(pace.take(frames, 0, Duration::ZERO, begin), None);
        assert!(pace.take(frames, 0, Duration::ZERO, begin).is_some());
    }
}
