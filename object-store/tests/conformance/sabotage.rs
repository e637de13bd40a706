//! Each rule broken on purpose is noticed: `cargo test --package driftmesh-object-store --features sabotage`.

use crate::ours::Ours;
use crate::{random, stories};
use driftmesh_object_store::BrokenRule;

/// Within this many seeds each sabotage must be caught.
const SEEDS_MAX: u64 = 1_000;

/// The first random run that notices.
fn caught_at_random(prepare: fn(&mut Ours)) -> Option<String> {
    (0..SEEDS_MAX).find_map(|seed| Some(format!("seed {seed}: {}", random::run::<Ours>(seed, prepare).broken?)))
}

macro_rules! sabotages {
    ($($test:ident: $rule:ident by $caught:expr),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                let caught = $caught(|port: &mut Ours| port.sabotage(BrokenRule::$rule));
                println!("without {:?}: {}", BrokenRule::$rule, caught.expect("a broken rule is noticed"));
            }
        )*

        #[test]
        fn no_sabotage_is_without_a_test() {
            assert_eq!(BrokenRule::ALL.to_vec(), vec![$(BrokenRule::$rule),*]);
        }
    };
}

sabotages! {
    without_the_fence: Fence by caught_at_random,
    without_log_matching: Prefix by caught_at_random,
    without_a_look_at_the_candidates_journal: UpToDate by caught_at_random,
    without_one_vote_a_term: OneVote by caught_at_random,
    without_counting_copies: Stable by caught_at_random,
    // It takes so many things in a row that chance needs thousands of runs.
    without_the_present_terms_entry: FormerTerms by stories::former_terms,
    without_both_majorities: Joint by caught_at_random,
    without_incarnations: Members by caught_at_random,
}
