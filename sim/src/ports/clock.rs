//! Clocks as the core sees them: one that only climbs, by which everything is timed, and one that says the time of day, which
//! may be set.

use driftmesh_model::{Micros, Now};

/// The clocks of one peer, and what waits for them.
pub trait ClockPort {
    /// How far wall time gets away from the other between two readings, in parts per million, while nobody sets it.
    fn drift_ppm(&self) -> u64;
    /// How far wall time may be off for a moment because the two are read one after the other, us.
    fn jitter_us(&self) -> u64;
    /// Reads both, as at the beginning of a step.
    fn now(&mut self) -> Now;
    /// Somebody sets the wall clock, to so much more or less than it says; a clock that cannot be set so far is set less
    /// far. The next reading shows it, at the latest after the peer's next timer.
    fn set_wall(&mut self, by_us: i64);
    /// Does what a future at the peer does that sleeps so long. Returns the time when it goes on.
    fn sleep(&mut self, for_us: u64) -> Now;
    /// Waits for the next timer of the core. Returns for when it was wanted, and when the core was told.
    fn next_timer(&mut self) -> (Micros, Micros);
}

/// How late a sleeper or a timer may be on a busy machine, us. Whether they are late is nobody's promise; that they come is.
const LATE_MAX_US: u64 = 30_000_000;

/// Runs the whole suite.
///
/// # Panics
/// When the clocks do not conform.
pub fn clock_conforms<P: ClockPort>(mut make: impl FnMut() -> P) {
    it_never_goes_back(&mut make());
    sleepers_sleep_long_enough(&mut make());
    timers_never_fire_early(&mut make());
    the_wall_clock_may_be_set_and_the_other_goes_on(&mut make());
}

fn slack_us<P: ClockPort>(clock: &P, passed_us: u64) -> i128 {
    i128::from(passed_us * clock.drift_ppm() / 1_000_000 + clock.jitter_us())
}

fn it_never_goes_back<P: ClockPort>(clock: &mut P) {
    let mut former = clock.now();
    for number in 0..2_000 {
        let now = if number % 200 == 0 { clock.sleep(1_500) } else { clock.now() };
        assert!(now.mono >= former.mono, "{now:?} after {former:?}");
        let (passed, wall) = (now.mono.since(former.mono).0, i128::from(now.wall.0) - i128::from(former.wall.0));
        // Nobody has set it: it goes forwards too, and about as fast.
        let slack = slack_us(clock, passed);
        assert!((wall - i128::from(passed)).abs() <= slack, "{now:?} after {former:?}");
        former = now;
    }
}

fn sleepers_sleep_long_enough<P: ClockPort>(clock: &mut P) {
    for for_us in [0, 1, 700, 1_000, 20_000] {
        let begun = clock.now();
        let slept = clock.sleep(for_us).mono.since(begun.mono).0;
        assert!((for_us..for_us + LATE_MAX_US).contains(&slept), "{slept} us instead of {for_us}");
    }
}

fn timers_never_fire_early<P: ClockPort>(clock: &mut P) {
    let mut former = Micros(0);
    for _ in 0..20 {
        let (wanted, fired) = clock.next_timer();
        assert!(fired >= wanted, "wanted at {wanted:?}, told at {fired:?}");
        assert!(fired.since(wanted).0 < LATE_MAX_US);
        assert!(fired >= former);
        former = fired;
    }
}

fn the_wall_clock_may_be_set_and_the_other_goes_on<P: ClockPort>(clock: &mut P) {
    for by_us in [50_000, -70_000, 90_000, -60_000] {
        let former = clock.now();
        clock.set_wall(by_us);
        clock.next_timer();
        let now = clock.now();
        let passed = now.mono.since(former.mono).0;
        let set = i128::from(now.wall.0) - i128::from(former.wall.0) - i128::from(passed);
        let slack = slack_us(clock, passed);
        assert!(now.mono >= former.mono, "what measures time was set");
        assert!((set - i128::from(by_us)).abs() <= slack, "it was set by {set} us instead of {by_us}");
        // And time that is measured goes on as before.
        let slept = clock.sleep(5_000).mono.since(now.mono).0;
        assert!(slept >= 5_000);
    }
}
