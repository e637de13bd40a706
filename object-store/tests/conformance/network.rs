//! The network of a run: how long each message takes, which are lost or come twice, and who cannot reach whom.

use crate::rng::Rng;
use driftmesh_model::Micros;
use driftmesh_object_store::MemberId;
use std::collections::BTreeSet;

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    /// A message takes at least this long.
    pub(crate) delay: Micros,
    /// And up to this much longer: what is sent later may come first.
    pub(crate) jitter: Micros,
    /// Lost, of a thousand.
    pub(crate) lost: u64,
    /// Doubled, of a thousand.
    pub(crate) doubled: u64,
    /// Held up for up to two seconds, of a thousand.
    pub(crate) late: u64,
}

impl Quality {
    pub(crate) const GOOD: Self = Self { delay: Micros(200), jitter: Micros(0), lost: 0, doubled: 0, late: 0 };

    pub(crate) const BAD: Self = Self { delay: Micros(100), jitter: Micros(20_000), lost: 100, doubled: 100, late: 20 };
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) quality: Quality,
    /// From whom to whom nothing gets through.
    cuts: BTreeSet<(MemberId, MemberId)>,
}

impl Network {
    pub(crate) const fn new(quality: Quality) -> Self {
        Self { quality, cuts: BTreeSet::new() }
    }

    pub(crate) fn cut(&mut self, from: MemberId, to: MemberId) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn cut_both(&mut self, one: MemberId, other: MemberId) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// When each copy of a message arrives, counted from now.
    pub(crate) fn carry(&self, rng: &mut Rng, from: MemberId, to: MemberId, weight: u64) -> Vec<Micros> {
        if self.cuts.contains(&(from, to)) {
            return Vec::new();
        }
        let quality = &self.quality;
        let copies = if rng.often(quality.lost) { 0 } else { 1 + usize::from(rng.often(quality.doubled)) };
        let mut arrivals = Vec::new();
        for _ in 0..copies {
            // About 1 GB a second.
            let mut takes = quality.delay.0 + weight / 1_000 + rng.below(quality.jitter.0 + 1);
            if rng.often(quality.late) {
                takes += rng.below(2_000_000);
            }
            arrivals.push(Micros(takes));
        }
        arrivals
    }
}
