//! The cycle search against a slow and obvious one.
//!
//! Random histories with sound version orders but arbitrary reads are judged
//! by the definition: all edges, no reduction, transitive closure by trying
//! everything. This is what shows that reduced edges lose nothing. Refuses to
//! use anything of the checker but its public functions.

use proptest::prelude::*;

use super::super::{SessionOrder, check_serializable_with, check_with};
use super::*;

const TXNS: usize = 6;
const OBJECTS: usize = 3;

/// For each object the writers in order, and for each transaction and object
/// which version it reads, if any: 0 is the initial one.
#[derive(Clone, Debug)]
struct Plan {
    writers: Vec<Vec<usize>>,
    reads: Vec<Vec<Option<usize>>>,
    sessions: Vec<u32>,
    unknown: Vec<bool>,
    flagged: Vec<bool>,
}

fn plans() -> impl Strategy<Value = Plan> {
    let all: Vec<usize> = (0..TXNS).collect();
    let writers = proptest::sample::subsequence(all, 0..=4).prop_shuffle();
    let reads = proptest::option::weighted(0.5, 0..5_usize);
    (
        proptest::collection::vec(writers, OBJECTS),
        proptest::collection::vec(proptest::collection::vec(reads, OBJECTS), TXNS),
        proptest::collection::vec(0..4_u32, TXNS),
        proptest::collection::vec(proptest::bool::weighted(0.2), TXNS),
        proptest::collection::vec(proptest::bool::weighted(0.7), TXNS),
    )
        .prop_map(|(writers, mut reads, sessions, unknown, flagged)| {
            for (txn, reads) in reads.iter_mut().enumerate() {
                for (object, read) in reads.iter_mut().enumerate() {
                    // A writer reads what it overwrites, or does not say so.
                    let place = writers[object].iter().position(|&writer| writer == txn);
                    *read = read.map(|read| place.unwrap_or(read.min(writers[object].len())));
                }
            }
            Plan { writers, reads, sessions, unknown, flagged }
        })
}

fn object(index: usize) -> ObjectKey {
    ObjectKey(index as u128)
}

/// The token of the version at a place in the order of an object's versions.
fn token_at(writers: &[usize], place: usize) -> u64 {
    if place == 0 { 0 } else { writers[place - 1] as u64 + 1 }
}

impl Plan {
    fn history(&self) -> History {
        let mut history = History::default();
        for position in 0..TXNS {
            let mut record = txn("t", self.sessions[position]);
            record.serializable = self.flagged[position];
            if self.unknown[position] {
                record.outcome = Outcome::Unknown;
            }
            for (index, writers) in self.writers.iter().enumerate() {
                if let Some(place) = self.reads[position][index] {
                    record = record.reads(object(index), token_at(writers, place));
                }
                if let Some(place) = writers.iter().position(|&writer| writer == position) {
                    let predecessor = token_at(writers, place);
                    record = record.writes(object(index), predecessor, position as u64 + 1);
                }
            }
            history.txns.push(record);
        }
        for (index, writers) in self.writers.iter().enumerate() {
            history.final_state.insert(object(index), Token(token_at(writers, writers.len())));
        }
        history
    }

    /// Every version is overwritten or final, so every writer took effect;
    /// an unknown transaction that wrote nothing was not seen.
    fn took_effect(&self, position: usize) -> bool {
        !self.unknown[position] || self.writers.iter().any(|writers| writers.contains(&position))
    }

    /// All edges of the full relations: dependencies and anti-dependencies.
    fn edges(&self, counts: &dyn Fn(usize) -> bool, sessions: bool) -> (Matrix, Matrix) {
        let mut dependency = [[false; TXNS]; TXNS];
        let mut anti_dependency = [[false; TXNS]; TXNS];
        for (index, writers) in self.writers.iter().enumerate() {
            for (place, &writer) in writers.iter().enumerate() {
                for &later in &writers[place + 1..] {
                    dependency[writer][later] = true;
                }
                for reader in 0..TXNS {
                    match self.reads[reader][index] {
                        Some(read) if read == place + 1 => dependency[writer][reader] = true,
                        Some(read) if read <= place => anti_dependency[reader][writer] = true,
                        Some(_) | None => {}
                    }
                }
            }
        }
        for (earlier, row) in dependency.iter_mut().enumerate() {
            for (later, related) in row.iter_mut().enumerate().skip(earlier + 1) {
                let same = self.sessions[earlier] == self.sessions[later];
                *related |= sessions && same && !self.unknown[earlier];
            }
        }
        for source in 0..TXNS {
            for target in 0..TXNS {
                let kept = source != target && counts(source) && counts(target);
                dependency[source][target] &= kept;
                anti_dependency[source][target] &= kept;
            }
        }
        (dependency, anti_dependency)
    }
}

type Matrix = [[bool; TXNS]; TXNS];

fn is_cyclic(mut relation: Matrix) -> bool {
    for middle in 0..TXNS {
        for source in 0..TXNS {
            for target in 0..TXNS {
                relation[source][target] |= relation[source][middle] && relation[middle][target];
            }
        }
    }
    (0..TXNS).any(|node| relation[node][node])
}

/// `dependency ; anti_dependency?`
fn composed(dependency: Matrix, anti_dependency: Matrix) -> Matrix {
    let mut relation = dependency;
    for source in 0..TXNS {
        for middle in 0..TXNS {
            for target in 0..TXNS {
                relation[source][target] |= dependency[source][middle] && anti_dependency[middle][target];
            }
        }
    }
    relation
}

fn united(mut first: Matrix, second: Matrix) -> Matrix {
    for source in 0..TXNS {
        for target in 0..TXNS {
            first[source][target] |= second[source][target];
        }
    }
    first
}

fn assert_verdict(verdict: Result<super::super::Summary, Vec<Violation>>, forbidden: bool, plan: &Plan) {
    match verdict {
        Ok(_) => assert!(!forbidden, "missed a cycle in {plan:?}"),
        Err(violations) => {
            assert!(forbidden, "{:?} in {plan:?}", printed(&violations));
            for violation in violations {
                let Violation::ForbiddenCycle(cycle) = violation else {
                    panic!("{violation} in {plan:?}");
                };
                assert!(cycle.edges.len() >= 2);
                let targets = cycle.edges.iter().map(|edge| &edge.to);
                let sources = cycle.edges.iter().cycle().skip(1).map(|edge| &edge.from);
                assert!(targets.zip(sources).all(|(target, source)| target == source));
                let mut met: Vec<_> = cycle.edges.iter().map(|edge| edge.from.position).collect();
                met.sort_unstable();
                met.dedup();
                assert_eq!(met.len(), cycle.edges.len(), "{cycle} meets a transaction twice");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn agrees_with_the_definition(plan in plans()) {
        let history = plan.history();
        for (order, sessions) in [(SessionOrder::Enforced, true), (SessionOrder::Ignored, false)] {
            let (dependency, anti_dependency) =
                plan.edges(&|position| plan.took_effect(position), sessions);
            let forbidden = is_cyclic(composed(dependency, anti_dependency));
            assert_verdict(check_with(&history, order), forbidden, &plan);

            let (dependency, anti_dependency) = plan.edges(
                &|position| plan.took_effect(position) && plan.flagged[position],
                sessions,
            );
            let forbidden = is_cyclic(united(dependency, anti_dependency));
            assert_verdict(check_serializable_with(&history, order), forbidden, &plan);
        }
    }
}

#[test]
fn plans_are_neither_all_allowed_nor_all_forbidden() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut forbidden = 0;
    let samples = 500;
    for _ in 0..samples {
        let plan = plans().new_tree(&mut runner).expect("a plan").current();
        forbidden += usize::from(check_with(&plan.history(), SessionOrder::Ignored).is_err());
    }
    assert!((samples / 10..samples * 9 / 10).contains(&forbidden), "{forbidden} of {samples}");
}
