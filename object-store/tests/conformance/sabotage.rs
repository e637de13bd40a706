//! Each rule broken on purpose is noticed: `cargo test --package driftmesh-object-store --features sabotage`.

use crate::ours::Ours;
use crate::random;
use driftmesh_object_store::BrokenRule;

/// Within this many seeds each sabotage must be caught.
const SEEDS_MAX: u64 = 2_000;

macro_rules! sabotages {
    ($($test:ident: $rule:ident),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                let caught = (0..SEEDS_MAX).find_map(|seed| {
                    let outcome = random::run::<Ours>(seed, |port| port.sabotage(BrokenRule::$rule));
                    Some((seed, outcome.broken?))
                });
                let (seed, broken) = caught.expect("a broken rule is noticed");
                println!("without {:?}: seed {seed}: {broken}", BrokenRule::$rule);
            }
        )*

        #[test]
        fn no_sabotage_is_without_a_test() {
            assert_eq!(BrokenRule::ALL.to_vec(), vec![$(BrokenRule::$rule),*]);
        }
    };
}

sabotages! {
    without_the_fence: Fence,
    without_log_matching: Prefix,
    without_a_look_at_the_candidates_journal: UpToDate,
    without_one_vote_a_term: OneVote,
    without_counting_copies: Stable,
    without_the_present_terms_entry: FormerTerms,
    without_both_majorities: Joint,
    without_incarnations: Members,
}
