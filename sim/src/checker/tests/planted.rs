//! One planted violation per test; each must be found and named.
//!
//! Comparing whole reports also shows that nothing else is accused. Refuses to
//! plant two things at once, except where one cannot be had without the other.

use super::super::{
    Anomaly, RecordFault, SessionOrder, VIOLATIONS_PER_STAGE, check, check_serializable, check_serializable_with,
    check_with,
};
use super::*;

fn found(history: &History) -> Vec<Violation> {
    check(history).expect_err("the planted violation must be found")
}

fn only_cycle(history: &History) -> (Anomaly, bool, String) {
    match found(history).as_slice() {
        [Violation::ForbiddenCycle(cycle)] => (cycle.anomaly, cycle.through_session, cycle.to_string()),
        other => panic!("expected one cycle, found {:?}", printed(other)),
    }
}

#[test]
fn lost_update_of_the_initial_version() {
    let history = history([txn("a", 1).writes(X, 0, 1), txn("b", 2).writes(X, 0, 2)], [(X, 2)]);
    let (first, second) = (name("a", 0), name("b", 1));
    let expected = Violation::LostUpdate { object: X, predecessor: Token(0), first, second };
    assert_eq!(found(&history), [expected]);
}

#[test]
fn duplicate_successor_in_the_middle_of_a_chain() {
    let history = history(
        [
            txn("a", 1).writes(X, 0, 1),
            txn("b", 1).writes(X, 1, 2),
            txn("c", 1).writes(X, 2, 3),
            txn("d", 2).writes(X, 1, 4),
        ],
        [(X, 3)],
    );
    let (first, second) = (name("b", 1), name("d", 3));
    let expected = Violation::LostUpdate { object: X, predecessor: Token(1), first, second };
    assert_eq!(found(&history), [expected]);
}

#[test]
fn lost_update_seen_by_the_transaction_itself() {
    let history = history([txn("a", 1).writes(X, 0, 1), txn("b", 2).reads(X, 0).writes(X, 1, 2)], [(X, 2)]);
    let violations = found(&history);
    let expected = Violation::StaleOverwrite { txn: name("b", 1), object: X, read: Token(0), overwrote: Token(1) };
    assert_eq!(violations[0], expected);
    assert_eq!(printed(&violations[1..]), ["forbidden cycle G-single: a#0 --ww(a)--> b#1 --rw(a)--> a#0"]);
}

#[test]
fn dirty_read() {
    let history = history(
        [txn("a", 1).writes(X, 0, 1).ends(Outcome::Aborted), txn("b", 2).reads(X, 1), txn("c", 3).reads(X, 0)],
        [(X, 0)],
    );
    let (txn, aborted) = (name("b", 1), name("a", 0));
    let expected = Violation::DirtyRead { txn, object: X, token: Token(1), aborted };
    assert_eq!(found(&history), [expected]);
}

#[test]
fn dirty_write_over_an_aborted_version() {
    let history = history([txn("a", 1).writes(X, 0, 1).ends(Outcome::Aborted), txn("b", 2).writes(X, 1, 2)], [(X, 2)]);
    let (txn, aborted) = (name("b", 1), name("a", 0));
    let expected = Violation::DirtyWrite { txn, object: X, token: Token(1), aborted };
    assert_eq!(found(&history), [expected]);
}

#[test]
fn aborted_version_in_the_final_state() {
    let history = history([txn("a", 1).writes(X, 0, 1).ends(Outcome::Aborted)], [(X, 1)]);
    let expected = Violation::DirtyFinalState { object: X, token: Token(1), aborted: name("a", 0) };
    assert_eq!(found(&history), [expected]);
}

#[test]
fn reading_overwriting_and_ending_as_versions_nobody_wrote() {
    let history = history([txn("a", 1).reads(X, 7).writes(Y, 8, 1)], [(X, 9), (Y, 1)]);
    let expected = [
        Violation::PhantomVersion { txn: name("a", 0), object: Y, token: Token(8) },
        Violation::PhantomFinalState { object: X, token: Token(9) },
        Violation::PhantomRead { txn: name("a", 0), object: X, token: Token(7) },
    ];
    assert_eq!(found(&history), expected);
}

#[test]
fn non_repeatable_read() {
    let history = history([txn("a", 1).writes(X, 0, 1), txn("b", 2).reads(X, 0).reads(X, 1)], [(X, 1)]);
    let expected = Violation::NonRepeatableRead { txn: name("b", 1), object: X, first: Token(0), second: Token(1) };
    assert_eq!(found(&history)[0], expected);
}

#[test]
fn fractured_read() {
    let history =
        history([txn("t", 1).writes(X, 0, 1).writes(Y, 0, 1), txn("r", 2).reads(X, 1).reads(Y, 0)], [(X, 1), (Y, 1)]);
    let (anomaly, through_session, text) = only_cycle(&history);
    assert_eq!((anomaly, through_session), (Anomaly::GSingle, false));
    assert_eq!(text, "G-single: t#0 --wr(a)--> r#1 --rw(b)--> t#0");
}

#[test]
fn read_skew_across_versions_in_between() {
    // The reader sees y from before t1 and x from after t3; no single
    // transaction wrote both, and the reduced edges lead from r to t1 and
    // from t1 to t2 only.
    let history = history(
        [
            txn("t1", 1).writes(Y, 0, 1),
            txn("t2", 2).writes(Y, 1, 2),
            txn("t3", 3).writes(Y, 2, 3).writes(X, 0, 3),
            txn("r", 4).reads(Y, 0).reads(X, 3),
        ],
        [(X, 3), (Y, 3)],
    );
    let (anomaly, _, text) = only_cycle(&history);
    assert_eq!(anomaly, Anomaly::GSingle);
    assert_eq!(text, "G-single: t1#0 --ww(b)--> t3#2 --wr(a)--> r#3 --rw(b)--> t1#0");
}

#[test]
fn long_fork() {
    let history = history(
        [
            txn("w1", 1).writes(X, 0, 1),
            txn("w2", 2).writes(Y, 0, 2),
            txn("r1", 3).reads(X, 1).reads(Y, 0),
            txn("r2", 4).reads(X, 0).reads(Y, 2),
        ],
        [(X, 1), (Y, 2)],
    );
    let (anomaly, through_session, text) = only_cycle(&history);
    assert_eq!((anomaly, through_session), (Anomaly::GNonadjacent, false));
    assert_eq!(text, "G-nonadjacent: w1#0 --wr(a)--> r1#2 --rw(b)--> w2#1 --wr(b)--> r2#3 --rw(a)--> w1#0");
}

#[test]
fn write_cycle_and_circular_information_flow() {
    let opposite = history(
        [txn("a", 1).writes(X, 0, 1).writes(Y, 2, 1), txn("b", 2).writes(X, 1, 2).writes(Y, 0, 2)],
        [(X, 2), (Y, 1)],
    );
    assert_eq!(only_cycle(&opposite).0, Anomaly::G0);
    let circular =
        history([txn("a", 1).writes(X, 0, 1).reads(Y, 2), txn("b", 2).reads(X, 1).writes(Y, 0, 2)], [(X, 1), (Y, 2)]);
    assert_eq!(only_cycle(&circular).0, Anomaly::G1c);
}

#[test]
fn versions_in_a_circle() {
    let history =
        history([txn("a", 1).writes(X, 0, 1), txn("b", 2).writes(X, 3, 2), txn("c", 3).writes(X, 2, 3)], [(X, 1)]);
    let txns = vec![name("c", 2), name("b", 1)];
    assert_eq!(found(&history), [Violation::CircularVersions { object: X, txns }]);
}

#[test]
fn torn_unknown_transaction() {
    let unknown = txn("u", 1).writes(X, 0, 1).writes(Y, 0, 1).ends(Outcome::Unknown);
    let torn = Violation::TornTransaction { txn: name("u", 0), landed: X, missing: Y };
    // Its other half never showed ...
    let missing = history([unknown.clone()], [(X, 1), (Y, 0)]);
    assert_eq!(found(&missing), std::slice::from_ref(&torn));
    // ... or somebody else wrote there, which is no lost update ...
    let replaced = history([unknown.clone(), txn("b", 2).writes(Y, 0, 2)], [(X, 1), (Y, 2)]);
    assert_eq!(found(&replaced), std::slice::from_ref(&torn));
    // ... and the half that landed counts wherever it was seen.
    let seen = history([unknown, txn("b", 2).writes(X, 1, 2)], [(X, 2), (Y, 0)]);
    assert_eq!(found(&seen), [torn]);
}

#[test]
fn unknown_transaction_observed_through_another_unknown_one() {
    // v is in the final state and overwrote u, so u took effect, so its write
    // to y must be there.
    let history = history(
        [
            txn("u", 1).writes(X, 0, 1).writes(Y, 0, 1).ends(Outcome::Unknown),
            txn("v", 2).writes(X, 1, 2).ends(Outcome::Unknown),
        ],
        [(X, 2), (Y, 0)],
    );
    let torn = Violation::TornTransaction { txn: name("u", 0), landed: X, missing: Y };
    assert_eq!(found(&history), [torn]);
}

#[test]
fn lost_commit() {
    let history = history([txn("a", 1).writes(X, 0, 1), txn("b", 2).writes(X, 1, 2)], [(X, 1)]);
    let expected = Violation::LostCommit { txn: name("b", 1), object: X, found: Token(1) };
    assert_eq!(found(&history), [expected]);
}

#[test]
fn lost_creation() {
    let history = history([txn("a", 1).writes(X, 0, 1)], [(X, 0)]);
    let expected = Violation::LostCommit { txn: name("a", 0), object: X, found: Token(0) };
    assert_eq!(found(&history), [expected]);
}

#[test]
fn resurrected_version() {
    let resurrected = Violation::ResurrectedVersion { object: X, token: Token(1), replaced_by: name("b", 1) };
    let chain = [txn("a", 1).writes(X, 0, 1), txn("b", 2).writes(X, 1, 2)];
    // The replacement was read ...
    let read = history(chain.clone().into_iter().chain([txn("c", 3).reads(X, 2)]), [(X, 1)]);
    assert_eq!(found(&read), std::slice::from_ref(&resurrected));
    // ... or overwritten, so it was there.
    let overwritten = chain.into_iter().chain([txn("c", 3).writes(X, 2, 3)]);
    assert_eq!(found(&history(overwritten, [(X, 1)])), [resurrected]);
}

#[test]
fn object_missing_from_the_final_state() {
    let history = history([txn("a", 1).writes(X, 0, 1)], []);
    assert_eq!(found(&history), [Violation::MissingFinalState { object: X }]);
}

#[test]
fn creation_by_a_torn_transaction_missing_from_the_final_state() {
    let unknown = txn("u", 1).writes(X, 0, 1).writes(Y, 0, 1).ends(Outcome::Unknown);
    let history = history([unknown], [(X, 1)]);
    assert_eq!(found(&history), [Violation::MissingFinalState { object: Y }]);
}

#[test]
fn session_going_backwards() {
    let history = history([txn("w", 1).writes(X, 0, 1), txn("r1", 2).reads(X, 1), txn("r2", 2).reads(X, 0)], [(X, 1)]);
    let (anomaly, through_session, text) = only_cycle(&history);
    assert_eq!((anomaly, through_session), (Anomaly::GSingle, true));
    assert_eq!(text, "G-single-session: w#0 --wr(a)--> r1#1 --so--> r2#2 --rw(a)--> w#0");
    assert!(check_with(&history, SessionOrder::Ignored).is_ok());
    assert!(check_serializable(&history).is_err());
    assert!(check_serializable_with(&history, SessionOrder::Ignored).is_ok());
}

#[test]
fn session_missing_its_own_write_across_aborted_attempts() {
    let history = history(
        [
            txn("w", 1).writes(X, 0, 1),
            txn("gone", 1).writes(X, 1, 2).ends(Outcome::Aborted),
            txn("unseen", 1).writes(X, 1, 3).ends(Outcome::Unknown),
            txn("r", 1).reads(X, 0),
        ],
        [(X, 1)],
    );
    assert_eq!(only_cycle(&history).2, "G-single-session: w#0 --so--> r#3 --rw(a)--> w#0");
}

#[test]
fn cycle_is_shown_without_the_session_order_where_it_can_be() {
    let history =
        history([txn("t", 1).writes(X, 0, 1).writes(Y, 0, 1), txn("r", 1).reads(X, 1).reads(Y, 0)], [(X, 1), (Y, 1)]);
    assert!(!only_cycle(&history).1);
}

#[test]
fn write_skew_fails_serializability_only() {
    let skew = |second: TxnRecord| {
        history(
            [txn("a", 1).reads(X, 0).reads(Y, 0).writes(X, 0, 1), second.reads(X, 0).reads(Y, 0).writes(Y, 0, 2)],
            [(X, 1), (Y, 2)],
        )
    };
    let flagged = skew(txn("b", 2));
    assert!(check(&flagged).is_ok());
    let violations = check_serializable(&flagged).expect_err("write skew");
    assert_eq!(printed(&violations), ["forbidden cycle G2-item: a#0 --rw(b)--> b#1 --rw(a)--> a#0"]);
    // A cycle counts only if all of it asked for serializability.
    assert!(check_serializable(&skew(txn("b", 2).unflagged())).is_ok());
}

#[test]
fn flagged_transactions_are_joined_across_unflagged_writers() {
    // b's write of x comes two versions after the one a read; the writer in
    // between is not flagged and must not hide the anti-dependency.
    let history = history(
        [
            txn("a", 1).reads(X, 0).reads(Y, 0).writes(Y, 0, 1),
            txn("between", 2).writes(X, 0, 2).unflagged(),
            txn("b", 3).reads(Y, 0).writes(X, 2, 3),
        ],
        [(X, 3), (Y, 1)],
    );
    assert!(check(&history).is_ok());
    let violations = check_serializable(&history).expect_err("write skew");
    assert_eq!(printed(&violations), ["forbidden cycle G2-item: a#0 --rw(a)--> b#2 --rw(b)--> a#0"]);
}

#[test]
fn malformed_records() {
    let history = history(
        [
            txn("zero", 1).writes(X, 1, 0),
            txn("twice", 1).writes(X, 0, 2).writes(X, 2, 3),
            txn("itself", 1).writes(Y, 4, 4),
            txn("own", 1).reads(Y, 5).writes(Y, 0, 5),
            txn("reused", 2).writes(Y, 5, 5).writes(X, 2, 2),
            txn("again", 3).writes(Y, 0, 5),
        ],
        [(X, 2), (Y, 5)],
    );
    let fault =
        |label: &str, position, object, fault| Violation::MalformedRecord { txn: name(label, position), object, fault };
    let violations = found(&history);
    let expected = [
        fault("zero", 0, X, RecordFault::WroteInitialToken),
        fault("twice", 1, X, RecordFault::WroteObjectTwice),
        fault("itself", 2, Y, RecordFault::OverwroteItself),
        fault("reused", 4, Y, RecordFault::OverwroteItself),
        fault("reused", 4, X, RecordFault::OverwroteItself),
        Violation::TokenReused { object: Y, token: Token(5), first: name("own", 3), second: name("again", 5) },
        fault("own", 3, Y, RecordFault::ReadOwnWrite),
    ];
    for violation in expected {
        assert!(violations.contains(&violation), "{violation} in {:?}", printed(&violations));
    }
}

#[test]
fn a_flood_of_violations_is_cut_stage_by_stage() {
    let mut txns: Vec<TxnRecord> =
        (0..1000).map(|token| txn("flood", token as u32).reads(X, 1_000_000 + token)).collect();
    txns.push(txn("a", 5000).writes(X, 0, 1));
    let violations = found(&history(txns, [(X, 0)]));
    assert_eq!(violations.len(), VIOLATIONS_PER_STAGE + 1);
    assert!(violations.contains(&Violation::LostCommit { txn: name("a", 1000), object: X, found: Token(0) }));
}

#[test]
fn a_cycle_as_long_as_the_history_is_found_without_recursion() {
    const LENGTH: u64 = 50_000;
    let object = |index: u64| ObjectKey(u128::from(index % LENGTH));
    let txns = (0..LENGTH).map(|index| {
        let read = if index == 0 { LENGTH } else { index };
        let reader = txn("link", index as u32).reads(object(index + LENGTH - 1), read);
        reader.writes(object(index), 0, index + 1)
    });
    let history = History {
        txns: txns.collect(),
        final_state: (0..LENGTH).map(|index| (object(index), Token(index + 1))).collect(),
    };
    match found(&history).as_slice() {
        [Violation::ForbiddenCycle(cycle)] => {
            assert_eq!(cycle.anomaly, Anomaly::G1c);
            assert_eq!(cycle.edges.len() as u64, LENGTH);
        }
        other => panic!("expected one cycle, found {:?}", printed(other)),
    }
}
