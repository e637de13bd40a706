//! Which faults a run meets, and when: spread evenly, each a little earlier or later, all of it drawn from the seed.
//!
//! It refuses to know processes and networks: `carry_out.rs` carries the plan out.

use fastrand::Rng;
use std::time::Duration;

/// Shortest and longest time for which a victim's traffic is held before it is killed, milliseconds.
const HOLD_MS: std::ops::RangeInclusive<u64> = 20..=200;
/// How far a fault may be from its even place, as a share of the distance between two.
const JITTER: f64 = 0.2;
/// In a run of chaos one fault, or two at once, begin about so often.
const EVERY: Duration = Duration::from_secs(5);
/// How long faults of the network last, milliseconds.
const LASTS_MS: std::ops::RangeInclusive<u64> = 1_000..=6_000;
/// How long a link that comes and goes stays as it is, milliseconds.
const TURN_MS: std::ops::RangeInclusive<u64> = 200..=1_200;
/// Which share of the packets gets lost, percent.
const LOSS_PERCENT: std::ops::RangeInclusive<u32> = 1..=20;
/// How much later packets come, and how much that differs, milliseconds.
const DELAY_MS: std::ops::RangeInclusive<u64> = 5..=100;
const DELAY_JITTER_MS: std::ops::RangeInclusive<u64> = 0..=50;
/// One fault of so many begins while the one before is still going on.
const ALONG_OF: u32 = 3;

/// What happens to a peer, or to the network between peers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Fault {
    /// SIGKILL.
    Kill {
        /// For how long before it what the victim sends to other peers is held back, while its callers get receipts.
        hold: Option<Duration>,
    },
    /// SIGSTOP, and SIGCONT some seconds later.
    Pause,
    /// A second process is started as a peer that runs.
    Copy,
    /// Something between peers.
    Network {
        /// What.
        what: Trouble,
        /// For how long.
        lasts: Duration,
    },
}

/// What the network does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Trouble {
    /// Two parts that cannot reach each other.
    Partition,
    /// One peer that reaches nobody, and whom nobody reaches.
    Isolation,
    /// One peer whom the others hear, and who hears nobody.
    Deaf,
    /// One peer who hears the others, and whom nobody hears.
    Mute,
    /// Two peers that do not reach each other, though both reach all others.
    CutLink,
    /// One of two such peers reaches the other.
    OneWayLink,
    /// One peer that is isolated and is not, in turns.
    Flapping {
        /// How long each turn is.
        turn: Duration,
    },
    /// This share of all packets gets lost.
    Loss {
        /// Which.
        share: f64,
    },
    /// Everything comes late, in order.
    Delay {
        /// By so much at least.
        least: Duration,
        /// By up to so much more.
        jitter: Duration,
    },
    /// Everything comes late, and packets overtake each other.
    Reordering {
        /// By so much at least.
        least: Duration,
        /// By up to so much more.
        jitter: Duration,
    },
}

impl Fault {
    /// All kinds, as reports call them.
    pub(crate) const KINDS: [&str; 13] = [
        "kill",
        "pause",
        "copy",
        "partition",
        "isolation",
        "deaf",
        "mute",
        "cut_link",
        "one_way_link",
        "flapping",
        "loss",
        "delay",
        "reordering",
    ];

    /// What reports call it.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Pause => "pause",
            Self::Copy => "copy",
            Self::Network { what, .. } => match what {
                Trouble::Partition => "partition",
                Trouble::Isolation => "isolation",
                Trouble::Deaf => "deaf",
                Trouble::Mute => "mute",
                Trouble::CutLink => "cut_link",
                Trouble::OneWayLink => "one_way_link",
                Trouble::Flapping { .. } => "flapping",
                Trouble::Loss { .. } => "loss",
                Trouble::Delay { .. } => "delay",
                Trouble::Reordering { .. } => "reordering",
            },
        }
    }
}

/// A fault and its time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Planned {
    /// How long after the bots began.
    pub(crate) at: Duration,
    /// What.
    pub(crate) fault: Fault,
    /// Whether it begins while the one before is going on. Else it waits until that is over and all groups are whole.
    pub(crate) along: bool,
}

/// Draws a plan. Half of the kills are preceded by a hold; of a single one, that of half of all seeds.
pub(crate) fn plan(kills: u64, pauses: u64, run: Duration, rng: &mut Rng) -> Vec<Planned> {
    let with_hold = rng.u64(..2);
    let kill = |number: u64| {
        let hold = (number % 2 == with_hold).then(|| hold(rng));
        Fault::Kill { hold }
    };
    let mut faults: Vec<Fault> = (0..kills).map(kill).collect();
    faults.extend((0..pauses).map(|_| Fault::Pause));
    rng.shuffle(&mut faults);
    spread(faults.into_iter().map(|fault| (fault, false)), run, rng)
}

/// Draws a plan of these kinds of faults, or of all where none is named; each kind once before any comes again.
pub(crate) fn chaos(only: &[String], run: Duration, rng: &mut Rng) -> Vec<Planned> {
    let named = |kind: &&str| only.is_empty() || only.iter().any(|name| name == kind);
    let count = usize::try_from(run.as_secs() / EVERY.as_secs()).unwrap_or(usize::MAX).max(1);
    let mut faults: Vec<(Fault, bool)> = Vec::new();
    let mut kinds: Vec<&str> = Vec::new();
    while faults.iter().filter(|(_, along)| !along).count() < count {
        if kinds.is_empty() {
            kinds = Fault::KINDS.into_iter().filter(named).collect();
            rng.shuffle(&mut kinds);
        }
        // Only names that are no kinds leave none.
        let Some(fault) = kinds.pop().and_then(|kind| draw(kind, rng)) else { break };
        let before = faults.last().filter(|(_, along)| !along).map(|(before, _)| *before);
        let along = before.is_some_and(|before| may_meet(before, fault)) && rng.u32(..ALONG_OF) == 0;
        faults.push((fault, along));
    }
    spread(faults.into_iter(), run, rng)
}

/// Whether two faults may happen at once. Of two peers that are gone for good a group may not have enough left; what is
/// lost then is no fault of the mesh.
const fn may_meet(one: Fault, other: Fault) -> bool {
    matches!(one, Fault::Network { .. }) || matches!(other, Fault::Network { .. })
}

fn hold(rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.u64(HOLD_MS))
}

/// Draws a fault of a kind; `None` for what is no kind.
fn draw(kind: &str, rng: &mut Rng) -> Option<Fault> {
    let mut millis = |range: std::ops::RangeInclusive<u64>| Duration::from_millis(rng.u64(range));
    let lasts = millis(LASTS_MS);
    let (least, jitter, turn) = (millis(DELAY_MS), millis(DELAY_JITTER_MS), millis(TURN_MS));
    let what = match kind {
        "kill" => return Some(Fault::Kill { hold: rng.bool().then(|| hold(rng)) }),
        "pause" => return Some(Fault::Pause),
        "copy" => return Some(Fault::Copy),
        "partition" => Trouble::Partition,
        "isolation" => Trouble::Isolation,
        "deaf" => Trouble::Deaf,
        "mute" => Trouble::Mute,
        "cut_link" => Trouble::CutLink,
        "one_way_link" => Trouble::OneWayLink,
        "flapping" => Trouble::Flapping { turn },
        "loss" => Trouble::Loss { share: f64::from(rng.u32(LOSS_PERCENT)) / 100.0 },
        "delay" => Trouble::Delay { least, jitter },
        "reordering" => Trouble::Reordering { least, jitter },
        _ => return None,
    };
    Some(Fault::Network { what, lasts })
}

/// Spreads faults over a run; those that go along with another come with it.
fn spread(faults: impl Iterator<Item = (Fault, bool)>, run: Duration, rng: &mut Rng) -> Vec<Planned> {
    let faults: Vec<(Fault, bool)> = faults.collect();
    let alone = faults.iter().filter(|(_, along)| !along).count() as u64;
    let between = run.div_f64(crate::numbers::float(alone + 1));
    let mut planned: Vec<Planned> = Vec::with_capacity(faults.len());
    let mut number = 0;
    for (fault, along) in faults {
        let at = match planned.last() {
            Some(before) if along => before.at,
            Some(_) | None => {
                let jitter = 1.0 + JITTER * (2.0 * rng.f64() - 1.0);
                number += 1;
                between * (number - 1) + between.mul_f64(jitter)
            }
        };
        planned.push(Planned { at, fault, along });
    }
    planned
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const RUN: Duration = Duration::from_secs(20);

    #[test]
    fn one_kill_comes_about_half_way_and_is_held_for_half_of_the_seeds() {
        let mut held = 0;
        for seed in 0..1_000 {
            let planned = plan(1, 0, RUN, &mut Rng::with_seed(seed));
            let [Planned { at, fault: Fault::Kill { hold }, along: false }] = planned[..] else {
                panic!("not one kill");
            };
            assert!((8..=12).contains(&at.as_secs()), "{at:?}");
            held += u64::from(hold.is_some());
            assert!(hold.is_none_or(|hold| HOLD_MS.contains(&(hold.as_millis() as u64))));
        }
        assert!((400..600).contains(&held), "{held}");
    }

    #[test]
    fn faults_are_in_order_and_of_the_kinds_asked_for() {
        let faults = plan(4, 3, RUN, &mut Rng::with_seed(7));
        assert!(faults.windows(2).all(|pair| pair[0].at < pair[1].at));
        assert!(faults.iter().all(|fault| fault.at < RUN));
        let held = |fault: &Planned| matches!(fault.fault, Fault::Kill { hold: Some(_) });
        assert_eq!(faults.iter().filter(|fault| held(fault)).count(), 2);
        assert_eq!(faults.iter().filter(|fault| fault.fault == Fault::Pause).count(), 3);
        assert_eq!(faults, plan(4, 3, RUN, &mut Rng::with_seed(7)));
        assert_eq!(plan(0, 0, RUN, &mut Rng::with_seed(7)), []);
    }

    #[test]
    fn chaos_has_every_kind_before_any_comes_again() {
        let long = Duration::from_secs(13 * 5);
        for seed in 0..100 {
            let faults = chaos(&[], long, &mut Rng::with_seed(seed));
            let first: BTreeSet<&str> = faults[..13].iter().map(|planned| planned.fault.kind()).collect();
            assert_eq!(first, Fault::KINDS.into());
            assert!(faults.windows(2).all(|pair| pair[0].at <= pair[1].at) && faults.iter().all(|one| one.at < long));
            assert_eq!(faults.iter().filter(|planned| !planned.along).count(), 13);
            for pair in faults.windows(2).filter(|pair| pair[1].along) {
                assert!(!pair[0].along && pair[0].at == pair[1].at && may_meet(pair[0].fault, pair[1].fault));
            }
        }
        assert!((0..100).any(|seed| chaos(&[], long, &mut Rng::with_seed(seed)).iter().any(|planned| planned.along)));
        let only = chaos(&["loss".to_owned()], long, &mut Rng::with_seed(1));
        assert!(only.len() >= 13 && only.iter().all(|planned| planned.fault.kind() == "loss"));
        assert_eq!(chaos(&[], Duration::from_secs(1), &mut Rng::with_seed(1)).len(), 1);
    }

    #[test]
    fn each_kind_is_drawn_as_what_it_is_called() {
        for kind in Fault::KINDS {
            assert_eq!(draw(kind, &mut Rng::with_seed(3)).unwrap().kind(), kind);
        }
        assert_eq!(draw("earthquake", &mut Rng::with_seed(3)), None);
    }
}
