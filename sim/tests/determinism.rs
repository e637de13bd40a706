//! One seed gives one run; another seed, or one message less, gives another.

use driftmesh_sim::{Overrides, SeedReport, run_seed};

fn hash(seed: u64, drop_message: Option<u64>) -> String {
    let overrides = Overrides { steps: Some(60), drop_message, ..Overrides::default() };
    run_seed(seed, &overrides).trace_hash.expect("a hash is made unless the caller wants none")
}

#[test]
fn a_seed_without_a_hash_is_the_same_run() {
    for seed in 0..4 {
        let traced = run_seed(seed, &Overrides::default());
        let untraced = run_seed(seed, &Overrides { untraced: true, ..Overrides::default() });
        assert_eq!(untraced.trace_hash, None);
        let figures = |run: &SeedReport| (run.commits, run.transfers, run.aborts, run.sim_us, run.rare.clone());
        assert_eq!(figures(&traced), figures(&untraced), "seed {seed}");
    }
}

#[test]
fn a_seed_repeats_and_its_bytes_are_covered() {
    for seed in 0..12 {
        let first = hash(seed, None);
        assert_eq!(first, hash(seed, None), "seed {seed} run twice");
        assert_ne!(first, hash(seed + 1_000, None), "seed {seed} and another");
        assert_ne!(first, hash(seed, Some(40)), "seed {seed} without its 40th message");
    }
}
