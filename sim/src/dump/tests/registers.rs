//! Tests of files of registers.

use super::super::*;
use fastrand::Rng;

fn session(txns: &[&[(char, u64, u64)]]) -> String {
    let event = |(kind, variable, version): &(char, u64, u64)| {
        let name = if *kind == 'r' { "Read" } else { "Write" };
        format!("{{\"{name}\":{{\"variable\":{variable},\"version\":{version}}}}}")
    };
    let txn = |events: &&[(char, u64, u64)]| {
        let events: Vec<String> = events.iter().map(event).collect();
        format!("{{\"events\":[{}],\"committed\":true}}", events.join(","))
    };
    format!("[{}]", txns.iter().map(txn).collect::<Vec<_>>().join(","))
}

fn file(sessions: &[String]) -> String {
    let head = r#"{"params":{"id":0,"n_node":2,"n_variable":2,"n_transaction":2,"n_event":4},"info":"","start":"2026-01-01T00:00:00Z","end":"2026-01-01T00:00:01Z","#;
    format!("{head}\n\"data\":[\n{}\n]}}\n", sessions.join(",\n"))
}

fn found(sessions: &[String]) -> String {
    match check_json(&file(sessions)) {
        Err(Rejected::Invalid(faults)) => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        other => panic!("{other:?}"),
    }
}

fn bad(text: &str) -> String {
    match check_json(text) {
        Err(Rejected::BadFile(bad)) => bad.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn valid_files_pass() {
    let one = session(&[&[('r', 0, 0), ('w', 0, 1), ('r', 1, 0)], &[('r', 0, 2)]]);
    let two = session(&[&[('r', 0, 1), ('w', 0, 2)]]);
    let expected = RegisterSummary { committed: 3, sessions: 2, registers: 2, reads: 4, writes: 2 };
    assert_eq!(check_json(&file(&[one, two])).unwrap(), expected);
    // Write skew.
    let one = session(&[&[('r', 0, 0), ('r', 1, 0), ('w', 0, 1)]]);
    let two = session(&[&[('r', 0, 0), ('r', 1, 0), ('w', 1, 2)]]);
    assert!(check_json(&file(&[one, two])).is_ok());
}

#[test]
fn violations_are_found() {
    let writes = session(&[&[('r', 0, 0), ('w', 0, 1)]]);
    let other = session(&[&[('r', 0, 0), ('w', 0, 2)]]);
    assert!(found(&[writes.clone(), other]).contains("lost update"));
    assert!(found(&[writes.clone(), session(&[&[('r', 0, 9)]])]).contains("phantom read"));
    assert!(found(&[writes, session(&[&[('r', 0, 1)], &[('r', 0, 0)]])]).contains("session"));
    let both = session(&[&[('r', 0, 0), ('w', 0, 1), ('r', 1, 0), ('w', 1, 2)]]);
    assert!(found(&[both, session(&[&[('r', 0, 1), ('r', 1, 0)]])]).contains("G-single"));
    let (x, y) = (session(&[&[('r', 0, 0), ('w', 0, 1)]]), session(&[&[('r', 1, 0), ('w', 1, 2)]]));
    let (one, two) = (session(&[&[('r', 0, 1), ('r', 1, 0)]]), session(&[&[('r', 0, 0), ('r', 1, 2)]]));
    assert!(found(&[x, y, one, two]).contains("G-nonadjacent"));
}

#[test]
fn an_uncommitted_version_must_not_be_read() {
    let text = file(&[session(&[&[('r', 0, 0), ('w', 0, 1)]]), session(&[&[('r', 0, 1)]])]);
    assert!(check_json(&text).is_ok());
    let text = text.replacen("\"committed\":true", "\"committed\":false", 1);
    assert!(matches!(check_json(&text), Err(Rejected::Invalid(faults)) if faults[0].to_string().contains("G1a")));
}

#[test]
fn files_that_are_no_histories_are_refused_with_their_lines() {
    assert!(bad("{\n\"params\": 1}").starts_with("line 2: "));
    let first = session(&[&[('r', 0, 0), ('w', 0, 1)]]);
    let refused = |second: &[(char, u64, u64)]| bad(&file(&[first.clone(), session(&[&[('r', 0, 1)], second])]));
    assert_eq!(
        refused(&[('w', 0, 2)]),
        "line 4: session 1, transaction 1: writes register 0 without reading it first; this check does not guess the \
         order of versions"
    );
    assert!(refused(&[('r', 0, 1), ('w', 0, 0)]).starts_with("line 4: session 1, transaction 1: writes version 0"));
    assert!(refused(&[('r', 0, 1), ('w', 0, 1)]).starts_with("line 4: session 1, transaction 1: version 1 is written"));
}

#[test]
fn what_nobody_answered_is_written_as_far_as_others_saw_it() {
    let mut calls = RegisterCalls::default();
    let write = |variable, version| RegisterOp::Write { variable, version };
    let seen = |version, past: &[u64]| SeenVersion { version, past: past.to_vec() };
    let end = |answered, fate| End::Committed { answered, fate };
    // Two that were never answered, one on top of the other; a third that nobody saw; a fourth that was lost.
    calls.begin(0, 1, vec![write(0, 1), RegisterOp::Read { variable: 1 }]);
    calls.begin(1, 2, vec![write(0, 2), write(1, 3)]);
    calls.begin(2, 3, vec![write(1, 4)]);
    let lost = calls.begin(3, 4, vec![write(1, 5)]);
    calls.end(lost, 5, end(vec![seen(0, &[])], Fate::Lost));
    let reader = calls.begin(4, 1_500_000_000, vec![RegisterOp::Read { variable: 0 }, write(1, 6)]);
    calls.end(reader, 2_500_000_000, end(vec![seen(2, &[0, 1]), seen(3, &[0])], Fate::Stable));
    let text = write_json(&calls, About { id: 9, registers: 2, start_s: 1_767_225_600 }).unwrap();
    let head = r#"{"params":{"id":9,"n_node":3,"n_variable":2,"n_transaction":1,"n_event":4},"info":"driftmesh","start":"2026-01-01T00:00:00Z","end":"2026-01-01T00:00:03Z","#;
    let sessions = [
        session(&[&[('r', 0, 0), ('w', 0, 1)]]),
        session(&[&[('r', 0, 1), ('w', 0, 2), ('r', 1, 0), ('w', 1, 3)]]),
        session(&[&[('r', 0, 2), ('r', 1, 3), ('w', 1, 6)]]),
    ];
    assert_eq!(text, format!("{head}\n\"data\":[\n{}\n]}}\n", sessions.join(",\n")));
    assert_eq!(check_json(&text).unwrap().committed, 3);
}

#[test]
fn drawn_transactions_touch_each_register_once() {
    let (mut rng, mut written) = (Rng::with_seed(1), 0);
    for _ in 0..300 {
        let drawn = draw_registers(&mut rng, 12, &mut written);
        let mut variables: Vec<u64> = drawn.iter().map(RegisterOp::variable).collect();
        assert!((2..=5).contains(&variables.len()));
        variables.sort_unstable();
        variables.dedup();
        assert_eq!(variables.len(), drawn.len());
    }
    assert!(written > 300);
}
