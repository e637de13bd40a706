//! A tiny store that is correct by construction, and its faults.
//!
//! Snapshot isolation as textbooks have it: a snapshot at the start, first
//! committer wins at the end. Its histories must pass; with one planted fault
//! they must fail. It refuses to be efficient or distributed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::{Anomaly, Summary, check, check_serializable};
use super::*;

const SESSIONS: u32 = 4;
const OBJECTS: u128 = 5;

#[derive(Clone, Copy, Debug)]
enum Action {
    Read(u128),
    Write(u128),
    Commit,
    Abort,
    /// Commits at once, but the client is not told.
    CommitUnheard,
    /// Is given up by the client and stays in flight.
    Detach,
    /// Commits the oldest attempt in flight, whatever its session does by now.
    Land,
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..OBJECTS).prop_map(Action::Read),
        4 => (0..OBJECTS).prop_map(Action::Write),
        3 => Just(Action::Commit),
        1 => Just(Action::Abort),
        1 => Just(Action::CommitUnheard),
        1 => Just(Action::Detach),
        1 => Just(Action::Land),
    ]
}

fn runs() -> impl Strategy<Value = Vec<(u32, Action)>> {
    proptest::collection::vec((0..SESSIONS, actions()), 0..150)
}

#[derive(Debug)]
struct Attempt {
    snapshot: usize,
    /// Its place in the history.
    position: usize,
}

#[derive(Debug, Default)]
struct ReferenceStore {
    /// The versions of each object: commit number and token.
    versions: BTreeMap<ObjectKey, Vec<(usize, Token)>>,
    commits: usize,
    open: BTreeMap<u32, Attempt>,
    in_flight: Vec<Attempt>,
    history: History,
    next_token: u64,
}

impl ReferenceStore {
    /// Every object gets a first version by one transaction.
    fn new() -> Self {
        let mut store = Self::default();
        store.write_all(0);
        store
    }

    fn write_all(&mut self, session: u32) {
        for object in 0..OBJECTS {
            self.apply(session, Action::Write(object));
        }
        self.apply(session, Action::Commit);
    }

    fn visible(&self, object: ObjectKey, snapshot: usize) -> Token {
        let versions = self.versions.get(&object).map_or(&[][..], Vec::as_slice);
        let visible = versions.iter().rev().find(|(commit, _)| *commit <= snapshot);
        visible.map_or(Token::INITIAL, |(_, token)| *token)
    }

    /// Opens an attempt if the session has none. Every other one asks for
    /// serializability.
    fn attempt(&mut self, session: u32) -> (usize, usize) {
        let position = self.history.txns.len();
        let snapshot = self.commits;
        let attempt = self.open.entry(session).or_insert(Attempt { snapshot, position });
        if attempt.position == position {
            let mut record = txn("t", session).ends(Outcome::Aborted);
            record.serializable = position.is_multiple_of(2);
            self.history.txns.push(record);
        }
        (attempt.snapshot, attempt.position)
    }

    fn apply(&mut self, session: u32, action: Action) {
        match action {
            Action::Read(object) => {
                let object = ObjectKey(object);
                let (snapshot, position) = self.attempt(session);
                let token = self.visible(object, snapshot);
                let record = &mut self.history.txns[position];
                if record.writes.iter().all(|write| write.object != object) {
                    record.reads.push(ReadRecord { object, token });
                }
            }
            Action::Write(object) => {
                let object = ObjectKey(object);
                let (snapshot, position) = self.attempt(session);
                let predecessor = self.visible(object, snapshot);
                self.next_token += 1;
                let token = Token(self.next_token);
                let writes = &mut self.history.txns[position].writes;
                writes.retain(|write| write.object != object);
                writes.push(WriteRecord { object, predecessor, token });
            }
            Action::Commit => self.close(session, Outcome::Committed, Outcome::Aborted),
            Action::CommitUnheard => self.close(session, Outcome::Unknown, Outcome::Unknown),
            Action::Abort => {
                self.open.remove(&session);
            }
            Action::Detach => {
                if let Some(attempt) = self.open.remove(&session) {
                    self.history.txns[attempt.position].outcome = Outcome::Unknown;
                    self.in_flight.push(attempt);
                }
            }
            Action::Land => {
                if !self.in_flight.is_empty() {
                    let attempt = self.in_flight.remove(0);
                    self.try_commit(&attempt);
                }
            }
        }
    }

    fn close(&mut self, session: u32, committed: Outcome, aborted: Outcome) {
        if let Some(attempt) = self.open.remove(&session) {
            let outcome = if self.try_commit(&attempt) { committed } else { aborted };
            self.history.txns[attempt.position].outcome = outcome;
        }
    }

    /// First committer wins. Serializable attempts also need their reads to be
    /// current, which puts each of them at its commit in a serial order.
    fn try_commit(&mut self, attempt: &Attempt) -> bool {
        let record = &self.history.txns[attempt.position];
        let unchanged = |object| self.visible(object, attempt.snapshot) == self.visible(object, self.commits);
        let wins = record.writes.iter().all(|write| unchanged(write.object));
        let current = record.reads.iter().all(|read| unchanged(read.object));
        if !wins || (record.serializable && !current) {
            return false;
        }
        self.commits += 1;
        for write in &record.writes {
            self.versions.entry(write.object).or_default().push((self.commits, write.token));
        }
        true
    }

    /// Ends all attempts. The last versions are by committed transactions, and
    /// the last one of object 0 by another than the others.
    fn finish(mut self) -> History {
        self.open.clear();
        self.write_all(SESSIONS);
        self.apply(SESSIONS, Action::Write(0));
        self.apply(SESSIONS, Action::Commit);
        for object in self.versions.keys() {
            self.history.final_state.insert(*object, self.visible(*object, self.commits));
        }
        self.history
    }
}

fn run(actions: &[(u32, Action)]) -> History {
    let mut store = ReferenceStore::new();
    for (session, action) in actions {
        store.apply(*session, *action);
    }
    store.finish()
}

/// Faults that make any history of the store a violation.
#[derive(Clone, Copy, Debug)]
enum Fault {
    RevertFinalVersion,
    AbortAfterAll,
    DropWriterRecord,
    ReadPhantom,
    ReadTwoVersions,
    ReadStaleAndOverwrite,
    OverwriteTwice,
    TearUnknown,
    FracturedRead,
    LongFork,
    SessionBackwards,
}

fn faults() -> impl Strategy<Value = Fault> {
    proptest::sample::select(vec![
        Fault::RevertFinalVersion,
        Fault::AbortAfterAll,
        Fault::DropWriterRecord,
        Fault::ReadPhantom,
        Fault::ReadTwoVersions,
        Fault::ReadStaleAndOverwrite,
        Fault::OverwriteTwice,
        Fault::TearUnknown,
        Fault::FracturedRead,
        Fault::LongFork,
        Fault::SessionBackwards,
    ])
}

const FRESH: u64 = 1_000_000;
const NEW_SESSION: u32 = 100;

/// The positions of the acknowledged writers; never empty.
fn writers(history: &History) -> Vec<usize> {
    let is_writer = |record: &TxnRecord| record.outcome == Outcome::Committed && !record.writes.is_empty();
    (0..history.txns.len()).filter(|&position| is_writer(&history.txns[position])).collect()
}

fn plant(history: &mut History, fault: Fault, index: Index) {
    let writers = writers(history);
    let position = writers[index.index(writers.len())];
    let chosen = history.txns[position].clone();
    let write = chosen.writes[index.index(chosen.writes.len())];
    let [x, y] = [ObjectKey(0), ObjectKey(1 + index.index(OBJECTS as usize - 1) as u128)];
    // The last writers of x and y differ; these are their records.
    let last_writes = history.txns.iter().rev().flat_map(|record| &record.writes);
    let last = |object| *last_writes.clone().find(|write| write.object == object).unwrap();
    let (last_x, last_y) = (last(x), last(y));
    match fault {
        Fault::RevertFinalVersion => {
            let last = last(write.object);
            history.final_state.insert(last.object, last.predecessor);
        }
        Fault::AbortAfterAll => history.txns[position].outcome = Outcome::Aborted,
        Fault::DropWriterRecord => {
            history.txns.remove(position);
        }
        Fault::ReadPhantom => {
            history.txns[position].reads.push(ReadRecord { object: x, token: Token(FRESH) });
        }
        Fault::ReadTwoVersions => {
            let reader = txn("planted", NEW_SESSION);
            let reader = reader.reads(write.object, write.predecessor.0);
            history.txns.push(reader.reads(write.object, write.token.0));
        }
        Fault::ReadStaleAndOverwrite => {
            let stale = txn("planted", NEW_SESSION).reads(write.object, write.predecessor.0);
            let last = last(write.object).token;
            history.txns.push(stale.writes(write.object, last.0, FRESH));
            history.final_state.insert(write.object, Token(FRESH));
        }
        Fault::OverwriteTwice => {
            let second = txn("planted", NEW_SESSION);
            history.txns.push(second.writes(write.object, write.predecessor.0, FRESH));
        }
        Fault::TearUnknown => {
            let torn = txn("planted", NEW_SESSION).writes(x, last_x.token.0, FRESH);
            let torn = torn.writes(y, last_y.token.0, FRESH).ends(Outcome::Unknown);
            history.txns.push(torn);
            history.final_state.insert(if index.index(2) == 0 { x } else { y }, Token(FRESH));
        }
        Fault::FracturedRead => {
            // The first transaction wrote all objects.
            let reader = txn("planted", NEW_SESSION);
            let reader = reader.reads(x, history.txns[0].writes[0].token.0);
            history.txns.push(reader.reads(y, Token::INITIAL.0));
        }
        Fault::LongFork => {
            let one = txn("planted", NEW_SESSION).reads(x, last_x.token.0);
            history.txns.push(one.reads(y, last_y.predecessor.0));
            let other = txn("planted", NEW_SESSION + 1).reads(y, last_y.token.0);
            history.txns.push(other.reads(x, last_x.predecessor.0));
        }
        Fault::SessionBackwards => {
            history.txns.push(txn("planted", NEW_SESSION).reads(write.object, write.token.0));
            let later = txn("planted", NEW_SESSION).reads(write.object, write.predecessor.0);
            history.txns.push(later);
        }
    }
}

fn is_named(violation: &Violation, fault: Fault) -> bool {
    let is_cycle = |through_session| {
        matches!(violation, Violation::ForbiddenCycle(cycle)
            if cycle.through_session == through_session)
    };
    match fault {
        Fault::RevertFinalVersion => {
            matches!(violation, Violation::LostCommit { .. } | Violation::ResurrectedVersion { .. })
        }
        Fault::AbortAfterAll => matches!(
            violation,
            Violation::DirtyRead { .. } | Violation::DirtyWrite { .. } | Violation::DirtyFinalState { .. }
        ),
        Fault::DropWriterRecord => matches!(
            violation,
            Violation::PhantomRead { .. } | Violation::PhantomVersion { .. } | Violation::PhantomFinalState { .. }
        ),
        Fault::ReadPhantom => matches!(violation, Violation::PhantomRead { .. }),
        Fault::ReadTwoVersions => matches!(violation, Violation::NonRepeatableRead { .. }),
        Fault::ReadStaleAndOverwrite => matches!(violation, Violation::StaleOverwrite { .. }),
        Fault::OverwriteTwice => matches!(violation, Violation::LostUpdate { .. }),
        Fault::TearUnknown => matches!(violation, Violation::TornTransaction { .. }),
        Fault::FracturedRead | Fault::LongFork => is_cycle(false),
        Fault::SessionBackwards => is_cycle(true),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn correct_histories_pass(actions in runs()) {
        let history = run(&actions);
        let snapshot_isolated = check(&history);
        prop_assert!(snapshot_isolated.is_ok(), "{:?}", snapshot_isolated.map_err(|all| printed(&all)));
        let serializable = check_serializable(&history);
        prop_assert!(serializable.is_ok(), "{:?}", serializable.map_err(|all| printed(&all)));
    }

    #[test]
    fn planted_faults_are_found_and_named(
        actions in runs(),
        fault in faults(),
        index in any::<Index>(),
    ) {
        let mut history = run(&actions);
        plant(&mut history, fault, index);
        let violations = check(&history).expect_err("the planted fault must be found");
        prop_assert!(
            violations.iter().any(|violation| is_named(violation, fault)),
            "{:?}", printed(&violations)
        );
    }
}

#[test]
fn runs_of_the_store_exercise_the_checker() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut total = Summary::default();
    for _ in 0..100 {
        let actions = runs().new_tree(&mut runner).expect("a run").current();
        let summary = check(&run(&actions)).expect("correct");
        total.committed += summary.committed;
        total.aborted += summary.aborted;
        total.unknown_effective += summary.unknown_effective;
        total.unknown_unseen += summary.unknown_unseen;
        total.anti_dependencies += summary.anti_dependencies;
    }
    assert!(total.committed > 500, "{total:?}");
    assert!(total.aborted > 200, "{total:?}");
    assert!(total.unknown_effective > 50, "{total:?}");
    assert!(total.unknown_unseen > 50, "{total:?}");
    assert!(total.anti_dependencies > 200, "{total:?}");
}

#[test]
fn the_store_allows_write_skew_between_unflagged_attempts() {
    let mut store = ReferenceStore::new();
    for (session, object) in [(1, 0), (2, 1)] {
        store.apply(session, Action::Read(0));
        store.apply(session, Action::Read(1));
        store.apply(session, Action::Write(object));
    }
    for record in &mut store.history.txns {
        record.serializable = false;
    }
    store.apply(1, Action::Commit);
    store.apply(2, Action::Commit);
    let mut history = store.finish();
    assert!(check(&history).is_ok());
    for record in &mut history.txns {
        record.serializable = true;
    }
    let violations = check_serializable(&history).expect_err("write skew");
    assert!(matches!(
        violations.as_slice(),
        [Violation::ForbiddenCycle(cycle)] if cycle.anomaly == Anomaly::G2Item
    ));
}
