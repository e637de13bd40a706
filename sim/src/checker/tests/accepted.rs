//! Histories that look suspicious and are correct.
//!
//! Refuses to test what a correct store does at random; that is in
//! `reference_store`.

use super::super::{Summary, check, check_serializable};
use super::*;

#[test]
fn nothing_at_all() {
    assert_eq!(check(&History::default()), Ok(Summary::default()));
    assert_eq!(check_serializable(&History::default()), Ok(Summary::default()));
}

#[test]
fn serial_history_with_creation_and_delete() {
    let history = history(
        [
            txn("create", 1).writes(X, 0, 1).writes(Y, 0, 1),
            txn("failed", 2).reads(X, 1).writes(X, 1, 9).ends(Outcome::Aborted),
            txn("update", 2).reads(X, 1).writes(X, 1, 2),
            txn("delete", 1).reads(Y, 1).writes(Y, 1, 3),
            txn("recreate", 3).reads(X, 2).reads(Y, 3).writes(Y, 3, 4),
        ],
        [(X, 2), (Y, 4)],
    );
    let summary = check(&history).expect("serial");
    let expected = Summary {
        committed: 4,
        aborted: 1,
        searched: 4,
        objects: 2,
        versions: 5,
        reads: 4,
        // so: create-delete; ww: x once, y twice; wr: four.
        dependencies: 8,
        // update reads x and is itself the next writer, and so on.
        anti_dependencies: 0,
        ..Summary::default()
    };
    assert_eq!(summary, expected);
    assert!(check_serializable(&history).is_ok());
}

#[test]
fn unknown_transaction_that_did_or_did_not_happen() {
    let unknown = txn("u", 1).writes(X, 0, 1).writes(Y, 0, 1).ends(Outcome::Unknown);
    let happened = history([unknown.clone()], [(X, 1), (Y, 1)]);
    assert_eq!(check(&happened).map(|summary| summary.unknown_effective), Ok(1));
    let overwritten = [unknown.clone(), txn("b", 2).writes(X, 1, 2)];
    assert_eq!(check(&history(overwritten, [(X, 2), (Y, 1)])).map(|summary| summary.versions), Ok(3));
    let vanished = [unknown, txn("b", 2).writes(X, 0, 2)];
    assert_eq!(check(&history(vanished, [(X, 2), (Y, 0)])).map(|summary| summary.unknown_unseen), Ok(1));
}

#[test]
fn unknown_transactions_that_saw_only_each_other() {
    let history = history(
        [
            txn("u", 1).writes(X, 0, 1).ends(Outcome::Unknown),
            txn("v", 2).writes(X, 1, 2).ends(Outcome::Unknown),
            txn("w", 3).reads(X, 2).ends(Outcome::Unknown),
        ],
        [(X, 0)],
    );
    assert_eq!(check(&history).map(|summary| summary.unknown_unseen), Ok(3));
}

#[test]
fn unknown_transaction_may_land_after_its_session_moved_on() {
    let history = history(
        [txn("u", 1).writes(X, 0, 1).ends(Outcome::Unknown), txn("early", 1).reads(X, 0), txn("late", 1).reads(X, 1)],
        [(X, 1)],
    );
    assert!(check(&history).is_ok());
    assert!(check_serializable(&history).is_ok());
}

#[test]
fn read_only_snapshots_at_different_times() {
    let history = history(
        [
            txn("w1", 1).writes(X, 0, 1),
            txn("w2", 1).writes(Y, 0, 2),
            txn("w3", 1).writes(X, 1, 3).writes(Y, 2, 3),
            txn("newest", 2).reads(X, 3).reads(Y, 3),
            txn("middle", 3).reads(X, 1).reads(Y, 0),
            txn("oldest", 4).reads(X, 0).reads(Y, 0),
            txn("later", 3).reads(X, 1).reads(Y, 2),
        ],
        [(X, 3), (Y, 3)],
    );
    assert!(check(&history).is_ok());
    assert!(check_serializable(&history).is_ok());
}

#[test]
fn aborted_transactions_may_have_read_anything() {
    let history = history(
        [
            txn("w", 1).writes(X, 0, 1).writes(Y, 0, 1),
            txn("r", 2).reads(X, 1).reads(Y, 0).ends(Outcome::Aborted),
            txn("p", 3).reads(X, 77).ends(Outcome::Unknown),
        ],
        [(X, 1), (Y, 1)],
    );
    assert!(check(&history).is_ok());
}

#[test]
fn one_token_may_mark_several_objects() {
    let history = history([txn("a", 1).writes(X, 0, 1), txn("b", 2).writes(Y, 0, 1)], [(X, 1), (Y, 1)]);
    assert!(check(&history).is_ok());
}
