//! The network between simulated peers: loss, duplication, delay, reordering, slow peers, links that lose most of what
//! they carry or on which much waits, one-way and full partitions, and such with a bridge.
//!
//! It refuses to promise anything but what the live transport promises, and to change what a message says.

use crate::options::Options;
use fastrand::Rng;
use std::collections::BTreeSet;

/// Late messages take up to so much longer, us.
pub(crate) const LATE_MAX_US: u64 = 2_000_000;

/// What a bad link loses, in parts per thousand.
const BAD_LOSS_PERMILLE: u16 = 700;
/// How much longer the ways to and from a slow peer take.
const SLOW_TIMES: u64 = 20;

/// The state of all links.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Directed pairs between which nothing passes.
    cut: BTreeSet<(usize, usize)>,
    /// Directed pairs between which little passes.
    bad: BTreeSet<(usize, usize)>,
    /// Directed pairs on which whatever is not in haste waits behind much else.
    crowded: BTreeSet<(usize, usize)>,
    /// Whose messages take long, both ways.
    slow: Option<usize>,
    /// Whether messages are still lost, doubled and late.
    pub(crate) faulty: bool,
}

/// When the copies of a message arrive, us from now; none if it is lost.
pub(crate) type Arrivals = Vec<u64>;

/// A third of all links.
fn some_links(rng: &mut Rng, peers: usize) -> impl Iterator<Item = (usize, usize)> {
    let links = (0..peers).flat_map(move |from| (0..peers).map(move |to| (from, to)));
    links.filter(|_| rng.u8(..3) == 0)
}

impl Network {
    /// What becomes of a message, which may go before others that wait.
    pub(crate) fn send(
        &self,
        rng: &mut Rng,
        options: &Options,
        (from, to): (usize, usize),
        in_haste: bool,
    ) -> Arrivals {
        let waits = !in_haste && self.crowded.contains(&(from, to));
        let delay = |rng: &mut Rng, late: bool| {
            let late = if late || waits { rng.u64(10_000..LATE_MAX_US) } else { 0 };
            let times = if self.slow.is_some_and(|slow| slow == from || slow == to) { SLOW_TIMES } else { 1 };
            // No longer than what is very late anyway.
            let way = (options.delay_min_us + rng.u64(0..=options.delay_spread_us)) * times;
            way.min(LATE_MAX_US) + late
        };
        if !self.faulty {
            return vec![delay(rng, false)];
        }
        if self.cut.contains(&(from, to)) || rng.u16(..1_000) < options.loss_permille {
            return Vec::new();
        }
        if self.bad.contains(&(from, to)) && rng.u16(..1_000) < BAD_LOSS_PERMILLE {
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

    /// Cuts some links: one direction, one peer, what one peer says or hears, or the peers in two halves, between which
    /// one peer may be a bridge. Or makes some bad, or crowded.
    pub(crate) fn partition(&mut self, rng: &mut Rng, options: &Options, peers: usize) {
        let one = rng.usize(..peers);
        match rng.u8(..if options.odd_links { 8 } else { 3 }) {
            0 => {
                self.cut.insert((one, rng.usize(..peers)));
            }
            1 => self.isolate(one, peers),
            2 => self.halve(rng, peers, None),
            3 => self.halve(rng, peers, Some(one)),
            4 => self.cut.extend((0..peers).map(|other| (one, other))),
            5 => self.cut.extend((0..peers).map(|other| (other, one))),
            6 => self.bad.extend(some_links(rng, peers)),
            _ => self.crowded.extend(some_links(rng, peers)),
        }
    }

    /// Cuts the peers in two halves. A bridge can still talk to both.
    fn halve(&mut self, rng: &mut Rng, peers: usize, bridge: Option<usize>) {
        let side: Vec<bool> = (0..peers).map(|_| rng.bool()).collect();
        let links = (0..peers).flat_map(|left| (0..peers).map(move |right| (left, right)));
        let is_cut = |(left, right): &(usize, usize)| {
            side[*left] != side[*right] && bridge != Some(*left) && bridge != Some(*right)
        };
        self.cut.extend(links.filter(is_cut));
    }

    /// All that a peer says and hears takes long.
    pub(crate) const fn slow_down(&mut self, one: usize) {
        self.slow = Some(one);
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
        self.cut.is_empty() && self.bad.is_empty() && self.crowded.is_empty() && self.slow.is_none()
    }

    /// Mends all links.
    pub(crate) fn mend(&mut self) {
        self.cut.clear();
        self.bad.clear();
        self.crowded.clear();
        self.slow = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Overrides;

    #[test]
    fn on_a_crowded_link_only_what_is_in_haste_passes_in_time() {
        let drawn = Options::draw(0, &Overrides::default());
        let options = Options { loss_permille: 0, tail_permille: 0, duplicate_permille: 0, ..drawn };
        let (mut rng, mut network) = (Rng::with_seed(1), Network { faulty: true, ..Network::default() });
        network.crowded.insert((0, 1));
        let in_time = options.delay_min_us + options.delay_spread_us;
        for _ in 0..100 {
            assert!(network.send(&mut rng, &options, (0, 1), true)[0] <= in_time);
            assert!(network.send(&mut rng, &options, (1, 0), false)[0] <= in_time);
            assert!(network.send(&mut rng, &options, (0, 1), false)[0] >= 10_000);
        }
        assert!(!network.is_whole());
        network.mend();
        assert!(network.is_whole() && network.send(&mut rng, &options, (0, 1), false)[0] <= in_time);
    }
}
