//! What becomes of a packet on its way from one machine to another: the faults of all links together.
//!
//! A link is directed, and the effects of several faults add up. It refuses to know packets, clocks and devices.

use super::Number;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;

/// Which links a fault concerns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// All.
    All,
    /// Those from these machines to all others.
    OutOf(Vec<Number>),
    /// Those from all others to these machines.
    Into(Vec<Number>),
    /// Both.
    Across(Vec<Number>),
    /// The one from the first to the second.
    OneWay(Number, Number),
    /// Both between these two.
    Between(Number, Number),
}

impl Which {
    fn concerns(&self, from: Number, to: Number) -> bool {
        let is_out = |side: &[Number]| side.contains(&from) && !side.contains(&to);
        let is_in = |side: &[Number]| side.contains(&to) && !side.contains(&from);
        match self {
            Self::All => true,
            Self::OutOf(side) => is_out(side),
            Self::Into(side) => is_in(side),
            Self::Across(side) => is_out(side) || is_in(side),
            Self::OneWay(one, other) => (*one, *other) == (from, to),
            Self::Between(one, other) => [(*one, *other), (*other, *one)].contains(&(from, to)),
        }
    }
}

/// What a fault does to the links it concerns.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Effect {
    /// Nothing gets through.
    Cut,
    /// As `Cut` and whole, in turns of this length.
    Flap {
        /// How long each turn is.
        turn: Duration,
    },
    /// This share of the packets gets lost.
    Lose(f64),
    /// Everything comes later.
    Delay {
        /// By so much at least.
        least: Duration,
        /// By up to so much more, each packet by another time.
        jitter: Duration,
        /// Whether packets may overtake each other; else each waits for the one before it.
        reorders: bool,
    },
}

/// A fault of the network.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct LinkFault {
    /// Where.
    pub(crate) which: Which,
    /// What.
    pub(crate) effect: Effect,
    /// For how long.
    pub(crate) lasts: Duration,
}

/// What becomes of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It is delivered at once.
    Now,
    /// It never arrives.
    Never,
    /// It is delivered at this time.
    At(Duration),
}

/// The links between all machines. Times are since the network began.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Each with the time when it began.
    faults: Vec<(LinkFault, Duration)>,
    /// When the last packet of a slow link that keeps the order is delivered.
    last: BTreeMap<(Number, Number), Duration>,
}

impl Links {
    /// Lets a fault begin. It ends by itself.
    pub(crate) fn begin(&mut self, fault: LinkFault, now: Duration) {
        self.faults.push((fault, now));
    }

    /// Ends all faults.
    pub(crate) fn mend(&mut self) {
        self.faults.clear();
    }

    /// What becomes of a packet that a machine sends to another now.
    pub(crate) fn fate(&mut self, from: Number, to: Number, now: Duration, rng: &mut Rng) -> Fate {
        let mut delay = Duration::ZERO;
        let mut reorders = false;
        self.faults.retain(|(fault, begun)| now < *begun + fault.lasts);
        for (fault, begun) in self.faults.iter().filter(|(fault, _)| fault.which.concerns(from, to)) {
            match fault.effect {
                Effect::Cut => return Fate::Never,
                Effect::Flap { turn } => {
                    let turns = now.saturating_sub(*begun).as_nanos() / turn.as_nanos().max(1);
                    if turns.is_multiple_of(2) {
                        return Fate::Never;
                    }
                }
                Effect::Lose(share) => {
                    if rng.f64() < share {
                        return Fate::Never;
                    }
                }
                Effect::Delay { least, jitter, reorders: may } => {
                    delay += least + jitter.mul_f64(rng.f64());
                    reorders |= may;
                }
            }
        }
        self.delivery(from, to, now, delay, reorders)
    }

    fn delivery(&mut self, from: Number, to: Number, now: Duration, delay: Duration, reorders: bool) -> Fate {
        // Also after a delay has ended nothing overtakes what is still on its way.
        let last = self.last.get(&(from, to)).copied().filter(|last| *last > now && !reorders);
        if delay.is_zero() && last.is_none() {
            return Fate::Now;
        }
        let at = last.map_or(now + delay, |last| last.max(now + delay));
        if !reorders {
            self.last.insert((from, to), at);
        }
        Fate::At(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const LONG: Duration = Duration::from_secs(60);

    const fn fault(which: Which, effect: Effect) -> LinkFault {
        LinkFault { which, effect, lasts: LONG }
    }

    /// The links that are cut between four machines.
    fn cut(which: Which) -> Vec<(Number, Number)> {
        let mut links = Links::default();
        links.begin(fault(which, Effect::Cut), ms(0));
        let mut rng = Rng::with_seed(1);
        let pairs = (1..=4).flat_map(|from| (1..=4).filter(move |to| *to != from).map(move |to| (from, to)));
        pairs.filter(|(from, to)| links.fate(*from, *to, ms(1), &mut rng) == Fate::Never).collect()
    }

    #[test]
    fn a_fault_concerns_just_its_links() {
        assert_eq!(cut(Which::All).len(), 12);
        assert_eq!(cut(Which::OutOf(vec![1])), [(1, 2), (1, 3), (1, 4)]);
        assert_eq!(cut(Which::Into(vec![1])), [(2, 1), (3, 1), (4, 1)]);
        assert_eq!(cut(Which::Across(vec![1, 2])), [(1, 3), (1, 4), (2, 3), (2, 4), (3, 1), (3, 2), (4, 1), (4, 2)]);
        assert_eq!(cut(Which::OneWay(2, 1)), [(2, 1)]);
        assert_eq!(cut(Which::Between(2, 1)), [(1, 2), (2, 1)]);
    }

    #[test]
    fn effects_add_up_and_end() {
        let (mut links, mut rng) = (Links::default(), Rng::with_seed(1));
        let delay = |least, reorders| Effect::Delay { least: ms(least), jitter: ms(0), reorders };
        links.begin(LinkFault { lasts: ms(100), ..fault(Which::All, delay(10, true)) }, ms(0));
        links.begin(LinkFault { lasts: ms(200), ..fault(Which::OneWay(1, 2), delay(5, true)) }, ms(0));
        assert_eq!(links.fate(1, 2, ms(0), &mut rng), Fate::At(ms(15)));
        assert_eq!(links.fate(2, 1, ms(99), &mut rng), Fate::At(ms(109)));
        assert_eq!(links.fate(1, 2, ms(100), &mut rng), Fate::At(ms(105)));
        assert_eq!(links.fate(2, 1, ms(100), &mut rng), Fate::Now);
        assert_eq!(links.fate(1, 2, ms(200), &mut rng), Fate::Now);
        links.begin(fault(Which::All, Effect::Cut), ms(200));
        assert_eq!(links.fate(1, 2, ms(200), &mut rng), Fate::Never);
        links.mend();
        assert_eq!(links.fate(1, 2, ms(200), &mut rng), Fate::Now);
    }

    #[test]
    fn only_a_link_that_reorders_does() {
        let mut rng = Rng::with_seed(1);
        let mut overtaken = |reorders| {
            let mut links = Links::default();
            let effect = Effect::Delay { least: ms(1), jitter: ms(50), reorders };
            links.begin(fault(Which::All, effect), ms(0));
            let mut fates = (0..200).map(|sent| links.fate(1, 2, ms(sent), &mut rng));
            let mut last = ms(0);
            fates
                .by_ref()
                .filter(|fate| matches!(fate, Fate::At(at) if *at < std::mem::replace(&mut last, *at)))
                .count()
        };
        assert_eq!(overtaken(false), 0);
        assert!(overtaken(true) > 50);
    }

    #[test]
    fn nothing_overtakes_what_was_sent_before_a_delay_ended() {
        let (mut links, mut rng) = (Links::default(), Rng::with_seed(1));
        let effect = Effect::Delay { least: ms(100), jitter: ms(0), reorders: false };
        links.begin(LinkFault { lasts: ms(40), ..fault(Which::All, effect) }, ms(0));
        assert_eq!(links.fate(1, 2, ms(0), &mut rng), Fate::At(ms(100)));
        assert_eq!(links.fate(1, 2, ms(50), &mut rng), Fate::At(ms(100)));
        assert_eq!(links.fate(1, 2, ms(100), &mut rng), Fate::Now);
    }

    #[test]
    fn a_share_is_lost_and_a_flapping_link_takes_turns() {
        let (mut links, mut rng) = (Links::default(), Rng::with_seed(1));
        links.begin(fault(Which::All, Effect::Lose(0.2)), ms(0));
        let lost = (0..1_000).filter(|_| links.fate(1, 2, ms(1), &mut rng) == Fate::Never).count();
        assert!((150..250).contains(&lost), "{lost}");
        links.mend();
        links.begin(fault(Which::All, Effect::Flap { turn: ms(300) }), ms(1_000));
        let mut is_cut = |at| links.fate(1, 2, ms(at), &mut rng) == Fate::Never;
        assert_eq!([is_cut(1_000), is_cut(1_299), is_cut(1_300), is_cut(1_650)], [true, true, false, true]);
    }
}
