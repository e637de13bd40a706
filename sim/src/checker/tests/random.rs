//! Garbage in, verdict out.
//!
//! Small numbers make records collide in every way there is. Refuses to expect
//! anything of the verdict, except that there is one and that it is bounded.

use proptest::prelude::*;

use super::super::{VIOLATIONS_PER_STAGE, check, check_serializable};
use super::*;

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Committed),
        1 => Just(Outcome::Aborted),
        1 => Just(Outcome::Unknown),
    ]
}

fn records() -> impl Strategy<Value = TxnRecord> {
    let object = || (0..4_u128).prop_map(ObjectKey);
    let token = || (0..8_u64).prop_map(Token);
    let read = (object(), token()).prop_map(|(object, token)| ReadRecord { object, token });
    let write = (object(), token(), token()).prop_map(|(object, predecessor, token)| WriteRecord {
        object,
        predecessor,
        token,
    });
    (0..3_u32, proptest::collection::vec(read, 0..4), proptest::collection::vec(write, 0..4), outcomes(), any::<bool>())
        .prop_map(|(session, reads, writes, outcome, serializable)| TxnRecord {
            label: "garbage".to_owned(),
            session,
            reads,
            writes,
            outcome,
            serializable,
        })
}

fn histories() -> impl Strategy<Value = History> {
    let object = (0..4_u128).prop_map(ObjectKey);
    let token = (0..8_u64).prop_map(Token);
    (proptest::collection::vec(records(), 0..30), proptest::collection::btree_map(object, token, 0..5))
        .prop_map(|(txns, final_state)| History { txns, final_state })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn garbage_never_panics(history in histories()) {
        for verdict in [check(&history), check_serializable(&history)] {
            if let Err(violations) = &verdict {
                prop_assert!(!violations.is_empty());
                prop_assert!(violations.len() <= 5 * VIOLATIONS_PER_STAGE);
                prop_assert!(printed(violations).iter().all(|text| !text.is_empty()));
            }
        }
        prop_assert_eq!(check(&history), check(&history));
    }
}
