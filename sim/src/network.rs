//! The network between simulated peers: loss, duplication, delay, reordering, one-way and full partitions.

use crate::options::Options;
use fastrand::Rng;
use std::collections::BTreeSet;

/// Late messages take up to so much longer, us.
pub(crate) const LATE_MAX_US: u64 = 2_000_000;

/// The state of all links.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Directed pairs between which nothing passes.
    cut: BTreeSet<(usize, usize)>,
    /// Whether messages are still lost, doubled and late.
    pub(crate) faulty: bool,
}

/// When the copies of a message arrive, us from now; none if it is lost.
pub(crate) type Arrivals = Vec<u64>;

impl Network {
    /// What becomes of a message.
    pub(crate) fn send(&self, rng: &mut Rng, options: &Options, from: usize, to: usize) -> Arrivals {
        let delay = |rng: &mut Rng, late: bool| {
            let late = if late { rng.u64(10_000..LATE_MAX_US) } else { 0 };
            options.delay_min_us + rng.u64(0..=options.delay_spread_us) + late
        };
        if !self.faulty {
            return vec![delay(rng, false)];
        }
        if self.cut.contains(&(from, to)) || rng.u16(..1_000) < options.loss_permille {
            return Vec::new();
        }
        let late = rng.u16(..1_000) < options.tail_permille;
        let mut arrivals = vec![delay(rng, late)];
        if rng.u16(..1_000) < options.duplicate_permille {
            let late = rng.u8(..4) == 0;
            arrivals.push(delay(rng, late));
        }
        arrivals
    }

    /// Cuts some links: one direction, one peer, or the peers in two halves.
    pub(crate) fn partition(&mut self, rng: &mut Rng, peers: usize) {
        let one = rng.usize(..peers);
        match rng.u8(..3) {
            0 => {
                self.cut.insert((one, rng.usize(..peers)));
            }
            1 => self.isolate(one, peers),
            _ => {
                let side: Vec<bool> = (0..peers).map(|_| rng.bool()).collect();
                for left in 0..peers {
                    for right in 0..peers {
                        if side[left] != side[right] {
                            self.cut.insert((left, right));
                        }
                    }
                }
            }
        }
    }

    /// Cuts a peer off from all others.
    pub(crate) fn isolate(&mut self, one: usize, peers: usize) {
        for other in 0..peers {
            self.cut.insert((one, other));
            self.cut.insert((other, one));
        }
    }

    /// Cuts two peers off from each other.
    pub(crate) fn cut_both(&mut self, one: usize, other: usize) {
        self.cut.extend([(one, other), (other, one)]);
    }

    /// Whether nothing passes from one peer to the other.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Whether no link is cut.
    pub(crate) fn is_whole(&self) -> bool {
        self.cut.is_empty()
    }

    /// Mends all links.
    pub(crate) fn mend(&mut self) {
        self.cut.clear();
    }
}
