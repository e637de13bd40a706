//! The wall clocks of simulated peers: off, running too fast or too slow, and set while their peer runs (F6 of the fault
//! model in `docs/proof.md`).
//!
//! They refuse to be further off than the clock guard allows, except for one that is off by minutes on purpose: what a
//! peer with such a clock may not do is a rule of its own (R18).

use crate::host::{Clock, WALL_START_US};
use crate::options::Options;
use driftmesh_model::{Micros, Now};
use fastrand::Rng;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// How far the one clock is ahead that is off by minutes, us.
const MAD_AHEAD_US: i64 = 600_000_000;
/// No other is further from the true time, us: any two are less than the guard of 250 ms apart then.
const OFF_MAX_US: i64 = 120_000;
/// How far a clock may drift beyond where it could be set, us.
const DRIFTED_MAX_US: i64 = 40_000;

/// The wall clock of one peer, over all its lives. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct WallClock {
    /// What it was set to, minus the true time, us.
    set_us: Arc<AtomicI64>,
    /// How much faster than the true time it runs, in parts per million.
    drift_ppm: i64,
    /// What it is ever set to.
    set_within_us: RangeInclusive<i64>,
    /// How far from the true time it gets, us.
    off_max_us: i64,
}

/// How far the wall clocks of a seed get from the true time, but for one that is off by minutes, us.
pub(crate) fn off_max_us(options: &Options) -> i64 {
    let skew = i64::try_from(options.skew_us).unwrap_or(0);
    if options.drift_ppm == 0 { skew } else { OFF_MAX_US.min(skew + DRIFTED_MAX_US) }
}

impl WallClock {
    /// A clock as the options of a seed want it.
    pub(crate) fn draw(options: &Options, rng: &mut Rng, mad: bool) -> Self {
        let skew = i64::try_from(options.skew_us).unwrap_or(0);
        let (set_within_us, drift, off_max_us) = if mad {
            (MAD_AHEAD_US..=MAD_AHEAD_US, 0, MAD_AHEAD_US)
        } else {
            (-skew..=skew, i64::from(options.drift_ppm), off_max_us(options))
        };
        let set_us = Arc::new(rng.i64(set_within_us.clone()).into());
        Self { set_us, drift_ppm: rng.i64(-drift..=drift), set_within_us, off_max_us }
    }

    /// Somebody sets it, forwards or backwards.
    pub(crate) fn set(&self, rng: &mut Rng) {
        self.set_us.store(rng.i64(self.set_within_us.clone()), Ordering::Relaxed);
    }

    /// Somebody sets it forwards by so much, or backwards.
    #[cfg(test)]
    pub(crate) fn set_by(&self, by_us: i64) {
        self.set_us.fetch_add(by_us, Ordering::Relaxed);
    }

    /// The times at its peer.
    pub(crate) fn now(&self, clock: &Clock) -> Now {
        let mono = clock.now_us();
        let drifted = i64::try_from(mono).unwrap_or(i64::MAX).saturating_mul(self.drift_ppm) / 1_000_000;
        let off = (self.set_us.load(Ordering::Relaxed) + drifted).clamp(-self.off_max_us, self.off_max_us);
        Now { mono: Micros(mono), wall: Micros((WALL_START_US + mono).saturating_add_signed(off)) }
    }

    /// How far ahead of the true time it may ever be, us.
    pub(crate) const fn ahead_max_us(&self) -> u64 {
        self.off_max_us.unsigned_abs()
    }
}
