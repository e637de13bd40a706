//! Founding by agreement under all faults: one genesis, and a mesh of all that live.

use driftmesh_sim::run_founding_seed;

const SEEDS: u64 = 4_000;

#[test]
fn one_group_of_fresh_peers_founds_one_mesh() {
    let (mut messages, mut founded_twice, mut crashes, mut beside) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let run = run_founding_seed(seed, None);
        assert!(run.violations.is_empty(), "{}\n{:#?}", run.options, run.violations);
        messages += run.messages;
        founded_twice += u64::from(run.founded > 1);
        crashes += run.crashes;
        beside += u64::from(run.beside);
    }
    println!("{messages} messages, {crashes} crashes, {beside} with a mesh beside");
    println!("{founded_twice} seeds in which several peers ended a ballot");
    assert!(messages > 10 * SEEDS && founded_twice > 0 && crashes > 0 && beside > 0, "the seeds are not idle");
}

#[test]
fn a_seed_repeats() {
    for seed in 0..20 {
        let (one, other) = (run_founding_seed(seed, None), run_founding_seed(seed, None));
        assert_eq!((one.messages, one.founded, one.options), (other.messages, other.founded, other.options));
    }
}
