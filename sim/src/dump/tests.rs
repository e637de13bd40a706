//! Tests of the formats and of the check of files, mostly by histories with something wrong planted in them.

use super::*;
use crate::checker::{Anomaly, Violation};
use fastrand::Rng;
use std::collections::BTreeMap;

mod registers;

/// Lines of a file from short ones: process, type, operations; written as the format is.
fn file(lines: &[(u64, &str, &str)]) -> String {
    let line = |(index, (process, kind, ops)): (usize, &(u64, &str, &str))| {
        format!("{{:index {index} :time {index} :process {process} :type :{kind} :f :txn :value [{ops}]}}\n")
    };
    lines.iter().enumerate().map(line).collect()
}

/// A transaction that runs by itself: what it asks for, and what it is answered.
fn alone<'text>(process: u64, asked: &'text str, answered: &'text str) -> [(u64, &'text str, &'text str); 2] {
    [(process, "invoke", asked), (process, "ok", answered)]
}

fn faults(text: &str) -> Vec<Fault> {
    match check_edn(text) {
        Err(Rejected::Invalid(faults)) => faults,
        other => panic!("{other:?}"),
    }
}

fn bad(text: &str) -> String {
    match check_edn(text) {
        Err(Rejected::BadFile(bad)) => bad.to_string(),
        other => panic!("{other:?}"),
    }
}

fn anomalies(text: &str) -> Vec<Anomaly> {
    let anomaly = |fault| {
        let Fault::Found(violation) = fault else { return None };
        if let Violation::ForbiddenCycle(cycle) = *violation { Some(cycle.anomaly) } else { None }
    };
    faults(text).into_iter().filter_map(anomaly).collect()
}

#[test]
fn a_plain_history_is_valid_and_counted() {
    let lines = [
        alone(0, "[:append 1 1] [:append 2 2]", "[:append 1 1] [:append 2 2]"),
        alone(1, "[:r 1 nil] [:append 1 3] [:r 1 nil]", "[:r 1 [1]] [:append 1 3] [:r 1 [1 3]]"),
        alone(0, "[:r 1 nil] [:r 2 nil]", "[:r 1 [1 3]] [:r 2 [2]]"),
    ];
    let summary = check_edn(&file(&lines.concat())).unwrap();
    let expected =
        AppendSummary { committed: 3, failed: 0, unknown: 0, processes: 2, keys: 2, elements: 3, reads: 4, appends: 3 };
    assert_eq!(summary, expected);
}

#[test]
fn a_stale_snapshot_and_write_skew_are_allowed() {
    let stale = [
        alone(0, "[:append 1 1]", "[:append 1 1]"),
        alone(1, "[:r 1 nil]", "[:r 1 []]"),
        alone(1, "[:r 1 nil]", "[:r 1 [1]]"),
    ];
    assert!(check_edn(&file(&stale.concat())).is_ok());
    let mut skew = vec![(0, "invoke", "[:r 1 nil] [:append 2 1]"), (1, "invoke", "[:r 2 nil] [:append 1 2]")];
    skew.extend([(0, "ok", "[:r 1 []] [:append 2 1]"), (1, "ok", "[:r 2 []] [:append 1 2]")]);
    skew.extend(alone(2, "[:r 1 nil] [:r 2 nil]", "[:r 1 [2]] [:r 2 [1]]"));
    assert!(check_edn(&file(&skew)).is_ok());
}

#[test]
fn what_lists_show_by_themselves_is_found() {
    let appends = alone(0, "[:append 1 1] [:append 1 2]", "[:append 1 1] [:append 1 2]");
    let more = alone(1, "[:append 1 3]", "[:append 1 3]");
    let read = |answered| file(&[appends, more, alone(2, "[:r 1 nil]", answered)].concat());
    assert!(check_edn(&read("[:r 1 [1 2 3]]")).is_ok());
    assert!(faults(&read("[:r 1 [1 2 3 3]]")).contains(&Fault::Duplicate { line: 6, key: 1, element: 3 }));
    assert!(faults(&read("[:r 1 [1 2 9]]")).contains(&Fault::FromNowhere { line: 6, key: 1, element: 9 }));
    assert!(faults(&read("[:r 1 [1 2]]")).contains(&Fault::Lost { line: 4, key: 1, element: 3 }));
    assert!(faults(&read("[:r 1 [3 1]]")).contains(&Fault::Intermediate { line: 6, key: 1, element: 1 }));
    assert!(faults(&read("[:r 1 [1 3 2]]")).contains(&Fault::Scattered { line: 2, key: 1 }));
    assert!(faults(&read("[:r 1 [2 1 3]]")).contains(&Fault::Scattered { line: 2, key: 1 }));
    assert!(faults(&read("[:r 1 []]")).contains(&Fault::Lost { line: 2, key: 1, element: 1 }));
}

#[test]
fn reads_that_do_not_begin_with_each_other_are_found() {
    let appends = [alone(0, "[:append 1 1]", "[:append 1 1]"), alone(1, "[:append 1 2]", "[:append 1 2]")];
    let reads = [alone(2, "[:r 1 nil]", "[:r 1 [2]]"), alone(2, "[:r 1 nil]", "[:r 1 [1 2]]")];
    let text = file(&[appends.concat(), reads.concat()].concat());
    assert_eq!(faults(&text), [Fault::Incompatible { key: 1, line: 8, other: 6, place: 0 }]);
}

#[test]
fn a_transaction_that_does_not_agree_with_itself_is_found() {
    let first = alone(0, "[:append 1 1]", "[:append 1 1]");
    for (asked, answered) in [
        ("[:r 1 nil] [:append 1 2] [:r 1 nil]", "[:r 1 [1]] [:append 1 2] [:r 1 [1]]"),
        ("[:r 1 nil] [:append 1 2] [:r 1 nil]", "[:r 1 []] [:append 1 2] [:r 1 [1 2]]"),
        ("[:r 1 nil] [:r 1 nil]", "[:r 1 []] [:r 1 [1]]"),
    ] {
        let text = file(&[first, alone(1, asked, answered)].concat());
        assert!(faults(&text).contains(&Fault::Internal { line: 4, key: 1 }), "{answered}");
    }
}

#[test]
fn what_failed_must_not_be_seen_and_what_is_unknown_may() {
    let ended = |kind| [(0, "invoke", "[:append 1 1]"), (0, kind, "[:append 1 1]")];
    let seen = |kind| file(&[ended(kind), alone(1, "[:r 1 nil]", "[:r 1 [1]]")].concat());
    assert!(check_edn(&seen("info")).is_ok());
    assert!(check_edn(&seen("ok")).is_ok());
    let found = faults(&seen("fail"));
    assert!(found.iter().any(|fault| fault.to_string().contains("dirty read (G1a)")), "{found:?}");
    // Also amid a list that others appended to, and also the first of two appends.
    let on_top = [alone(1, "[:append 1 2]", "[:append 1 2]"), alone(2, "[:r 1 nil]", "[:r 1 [1 2]]")].concat();
    let found = faults(&file(&[ended("fail").to_vec(), on_top].concat()));
    assert!(found.iter().any(|fault| fault.to_string().contains("dirty write")), "{found:?}");
    let two = [(0, "invoke", "[:append 1 1] [:append 1 2]"), (0, "fail", "[:append 1 1] [:append 1 2]")];
    let found = faults(&file(&[two, alone(1, "[:r 1 nil]", "[:r 1 [1]]")].concat()));
    assert!(found.iter().any(|fault| fault.to_string().contains("dirty read (G1a)")), "{found:?}");
}

#[test]
fn half_of_an_unknown_transaction_is_found() {
    let unknown = [(0, "invoke", "[:append 1 1] [:append 2 2]"), (0, "info", "[:append 1 1] [:append 2 2]")];
    let ends = |answered| file(&[unknown, alone(1, "[:r 1 nil] [:r 2 nil]", answered)].concat());
    assert!(check_edn(&ends("[:r 1 [1]] [:r 2 [2]]")).is_ok());
    assert!(check_edn(&ends("[:r 1 []] [:r 2 []]")).is_ok());
    let found = faults(&ends("[:r 1 [1]] [:r 2 []]"));
    assert!(found.iter().any(|fault| fault.to_string().contains("torn transaction")), "{found:?}");
}

#[test]
fn lost_updates_are_found() {
    let mut lines = vec![(0, "invoke", "[:r 1 nil] [:append 1 1]"), (1, "invoke", "[:r 1 nil] [:append 1 2]")];
    lines.extend([(0, "ok", "[:r 1 []] [:append 1 1]"), (1, "ok", "[:r 1 []] [:append 1 2]")]);
    lines.extend(alone(2, "[:r 1 nil]", "[:r 1 [1 2]]"));
    let found = faults(&file(&lines));
    assert!(found.iter().any(|fault| fault.to_string().contains("lost update")), "{found:?}");
}

#[test]
fn forbidden_cycles_are_found_and_named() {
    // Two transactions that append to two lists in opposite orders.
    let g0 = [
        alone(0, "[:append 1 1] [:append 2 1]", "[:append 1 1] [:append 2 1]"),
        alone(1, "[:append 1 2] [:append 2 2]", "[:append 1 2] [:append 2 2]"),
        alone(2, "[:r 1 nil]", "[:r 1 [1 2]]"),
        alone(2, "[:r 2 nil]", "[:r 2 [2 1]]"),
    ];
    assert_eq!(anomalies(&file(&g0.concat())), [Anomaly::G0]);
    // Each reads what the other appends.
    let g1c = [
        alone(0, "[:append 1 1] [:r 2 nil]", "[:append 1 1] [:r 2 [2]]"),
        alone(1, "[:append 2 2] [:r 1 nil]", "[:append 2 2] [:r 1 [1]]"),
    ];
    assert_eq!(anomalies(&file(&g1c.concat())), [Anomaly::G1c]);
    // A read of half of a transaction.
    let fractured = [
        alone(0, "[:append 1 1] [:append 2 1]", "[:append 1 1] [:append 2 1]"),
        alone(1, "[:r 1 nil] [:r 2 nil]", "[:r 1 [1]] [:r 2 []]"),
        alone(2, "[:r 1 nil] [:r 2 nil]", "[:r 1 [1]] [:r 2 [1]]"),
    ];
    assert_eq!(anomalies(&file(&fractured.concat())), [Anomaly::GSingle]);
    // Two readers that see two appends in opposite orders: a long fork.
    let fork = [
        alone(0, "[:append 1 1]", "[:append 1 1]"),
        alone(1, "[:append 2 2]", "[:append 2 2]"),
        alone(2, "[:r 1 nil] [:r 2 nil]", "[:r 1 [1]] [:r 2 []]"),
        alone(3, "[:r 1 nil] [:r 2 nil]", "[:r 1 []] [:r 2 [2]]"),
        alone(4, "[:r 1 nil] [:r 2 nil]", "[:r 1 [1]] [:r 2 [2]]"),
    ];
    assert_eq!(anomalies(&file(&fork.concat())), [Anomaly::GNonadjacent]);
}

#[test]
fn files_that_are_no_histories_are_refused_with_their_lines() {
    let ok = "{:index 0 :time 0 :process 0 :type :invoke :f :txn :value [[:r 1 nil]]}\n";
    for (second, expected) in [
        ("{:index 1", "line 2: `}` is missing"),
        ("[1]", "line 2: it is no map"),
        (
            "{:index 1 :time 0 :type :ok :f :txn :value []}",
            "line 2: `:process` is missing or is not a number from 0 on",
        ),
        ("{:index 1 :time 0 :process 0 :type :done :f :txn :value []}", "line 2: `:type` is missing"),
        ("{:index 1 :time 0 :process 0 :type :ok :f :read :value []}", "line 2: `:f` is missing or is not :txn"),
        ("{:index 1 :time 0 :process 0 :type :ok :f :txn :value [[:w 1 2]]}", "line 2: `an operation`"),
        ("{:index 1 :time 0 :process 0 :type :ok :f :txn :value [[:r 1 [0]]]}", "line 2: element 0"),
        ("{:index 0 :time 0 :process 0 :type :ok :f :txn :value [[:r 1 []]]}", "line 2: its index 0 does not follow 0"),
        ("{:index 1 :time 0 :process 0 :type :ok :f :txn :value [[:r 1 nil]]}", "line 2: a read of list 1"),
        ("{:index 1 :time 0 :process 0 :type :ok :f :txn :value [[:r 2 []]]}", "line 2: process 0 ends another"),
        ("{:index 1 :time 0 :process 0 :type :invoke :f :txn :value []}", "line 2: process 0 begins something while"),
        ("{:index 1 :time 0 :process 1 :type :ok :f :txn :value []}", "line 2: process 1 ends a transaction"),
    ] {
        let text = bad(&format!("{ok}{second}"));
        assert!(text.starts_with(expected), "{text}");
    }
    let goes_on = [(0, "invoke", ""), (0, "info", ""), (0, "invoke", "")];
    assert!(bad(&file(&goes_on)).starts_with("line 3: process 0 goes on"));
    let twice = [alone(0, "[:append 1 1]", "[:append 1 1]"), alone(1, "[:append 1 1]", "[:append 1 1]")];
    assert!(bad(&file(&twice.concat())).starts_with("line 3: element 1 is appended to list 1 for a second time"));
}

#[test]
fn outcomes_are_patched_in_and_unknown_ends_a_process() {
    let mut calls = AppendCalls::default();
    let append = |element| vec![AppendOp::Append { key: 5, element }];
    let committed = |answered| End::Committed { answered, fate: Fate::Unknown };
    let first = calls.begin(7, 10, append(1));
    calls.end(first, 20, committed(append(1)));
    let second = calls.begin(7, 30, append(2));
    let third = calls.begin(8, 35, vec![AppendOp::Read { key: 5, elements: None }]);
    calls.end(second, 40, committed(append(2)));
    calls.end(third, 50, committed(vec![AppendOp::Read { key: 5, elements: Some(vec![1, 2]) }]));
    let fourth = calls.begin(7, 60, append(3));
    calls.end(fourth, 70, End::Aborted);
    calls.begin(8, 80, append(4));
    calls.decide(first, Fate::Stable);
    calls.decide(third, Fate::Lost);
    let lines = [
        "{:index 0 :time 10 :process 0 :type :invoke :f :txn :value [[:append 5 1]]}",
        "{:index 1 :time 20 :process 0 :type :ok :f :txn :value [[:append 5 1]]}",
        "{:index 2 :time 30 :process 0 :type :invoke :f :txn :value [[:append 5 2]]}",
        "{:index 3 :time 35 :process 1 :type :invoke :f :txn :value [[:r 5 nil]]}",
        // Nobody told what became of it: the client goes on as another process.
        "{:index 4 :time 40 :process 0 :type :info :f :txn :value [[:append 5 2]]}",
        "{:index 5 :time 50 :process 1 :type :fail :f :txn :value [[:r 5 nil]]}",
        "{:index 6 :time 60 :process 2 :type :invoke :f :txn :value [[:append 5 3]]}",
        "{:index 7 :time 70 :process 2 :type :fail :f :txn :value [[:append 5 3]]}",
        "{:index 8 :time 80 :process 1 :type :invoke :f :txn :value [[:append 5 4]]}",
        "{:index 9 :time 80 :process 1 :type :info :f :txn :value [[:append 5 4]]}",
    ];
    assert_eq!(write_edn(&calls), lines.join("\n") + "\n");
    assert_eq!(calls.committed(), 1);
    let summary = check_edn(&write_edn(&calls)).unwrap();
    assert_eq!((summary.committed, summary.failed, summary.unknown, summary.processes), (1, 2, 2, 3));
}

#[test]
fn drawn_transactions_are_as_they_are_promised() {
    let (mut rng, mut appended) = (Rng::with_seed(1), 0);
    let (mut reads, mut ops, mut only_reads) = (0, 0, 0);
    let mut met = BTreeMap::new();
    for client in 0..1_000 {
        let drawn = draw_appends(&mut rng, Mix { keys: 24, client }, &mut appended);
        assert!((3..=6).contains(&drawn.len()));
        let is_read = |op: &AppendOp| matches!(op, AppendOp::Read { .. });
        only_reads += usize::from(drawn.iter().all(is_read));
        reads += drawn.iter().filter(|op| is_read(op)).count();
        ops += drawn.len();
        for op in drawn {
            match op {
                AppendOp::Append { key, element } => {
                    assert!(key < 24);
                    assert_eq!(met.insert(element, key), None);
                }
                AppendOp::Read { key, elements } => assert!(key < 24 && elements.is_none()),
            }
        }
    }
    assert!((250..=420).contains(&only_reads), "{only_reads}");
    assert!(3 * reads >= ops, "{reads} of {ops}");
    let all = reads_of_all(24);
    assert!(all.iter().all(|ops| ops.len() == 6));
    assert_eq!(all.concat().len(), 24);
}
