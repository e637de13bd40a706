//! One seed gives one run; another seed, or one message less, gives another.

use driftmesh_sim::{Overrides, run_seed};

fn hash(seed: u64, drop_message: Option<u64>) -> String {
    let overrides = Overrides { steps: Some(60), drop_message, ..Overrides::default() };
    run_seed(seed, &overrides).trace_hash
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
