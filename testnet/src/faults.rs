//! Which faults a run meets, and when: spread evenly, each a little earlier or later, all of it drawn from the seed.
//!
//! It refuses to know processes: `chaos.rs` carries the plan out.

use fastrand::Rng;
use std::time::Duration;

/// Shortest and longest time for which a victim's traffic is held before it is killed, milliseconds.
const HOLD_MS: std::ops::RangeInclusive<u64> = 20..=200;
/// How far a fault may be from its even place, as a share of the distance between two.
const JITTER: f64 = 0.2;

/// What happens to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// SIGKILL.
    Kill {
        /// For how long before it what the victim sends to other peers is held back, while its callers get receipts.
        hold: Option<Duration>,
    },
    /// SIGSTOP, and SIGCONT some seconds later.
    Pause,
}

/// A fault and its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Planned {
    /// How long after the bots began.
    pub(crate) at: Duration,
    /// What.
    pub(crate) fault: Fault,
}

/// Draws a plan. Half of the kills are preceded by a hold; of a single one, that of half of all seeds.
pub(crate) fn plan(kills: u64, pauses: u64, run: Duration, rng: &mut Rng) -> Vec<Planned> {
    let with_hold = rng.u64(..2);
    let kill = |number: u64| {
        let hold = (number % 2 == with_hold).then(|| Duration::from_millis(rng.u64(HOLD_MS)));
        Fault::Kill { hold }
    };
    let mut faults: Vec<Fault> = (0..kills).map(kill).collect();
    faults.extend((0..pauses).map(|_| Fault::Pause));
    rng.shuffle(&mut faults);
    let between = run.div_f64(crate::numbers::float(faults.len() as u64 + 1));
    let planned = |(number, fault): (u32, Fault)| {
        let jitter = 1.0 + JITTER * (2.0 * rng.f64() - 1.0);
        Planned { at: between * number + between.mul_f64(jitter), fault }
    };
    (0..).zip(faults).map(planned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_secs(20);

    #[test]
    fn one_kill_comes_about_half_way_and_is_held_for_half_of_the_seeds() {
        let mut held = 0;
        for seed in 0..1_000 {
            let [Planned { at, fault: Fault::Kill { hold } }] = plan(1, 0, RUN, &mut Rng::with_seed(seed))[..] else {
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
}
