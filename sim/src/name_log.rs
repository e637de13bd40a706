//! What clients were told about names, and whether it fits together (R23).
//!
//! All writes of one name climb in commit timestamp, because its bucket has one writer at a time. So replaying what
//! was told, by timestamp, gives the state that each answer must agree with. It refuses to look into buckets: the
//! final state comes from the audit.

use driftmesh_model::{ObjectId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What all names are bound to.
pub(crate) type Bindings = BTreeMap<String, ObjectId>;

/// Something a transaction was told of names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// A name was bound or freed, and what it was bound to before.
    Wrote { name: String, before: Option<ObjectId>, after: Option<ObjectId> },
    /// What a name was bound to.
    Saw { name: String, bound: Option<ObjectId> },
    /// All names.
    Listed(Bindings),
}

/// What a transaction was told, the timestamp at which it was true, and the number of the transaction in the ledger.
type Noted = (Timestamp, Told, usize);

/// What committed transactions were told. Shared by all clients.
#[derive(Clone, Default)]
pub(crate) struct NameLog {
    told: Arc<Mutex<Vec<Noted>>>,
}

/// What one attempt was told so far.
#[derive(Clone, Default)]
pub(crate) struct AttemptTold(Arc<Mutex<Vec<Told>>>);

impl AttemptTold {
    fn lock(&self) -> MutexGuard<'_, Vec<Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new attempt begins: what the former one was told does not count.
    pub(crate) fn begin(&self) -> Self {
        self.lock().clear();
        self.clone()
    }

    pub(crate) fn wrote(&self, name: &str, before: Option<ObjectId>, after: Option<ObjectId>) {
        self.lock().push(Told::Wrote { name: name.to_owned(), before, after });
    }

    pub(crate) fn saw(&self, name: &str, bound: Option<ObjectId>) {
        self.lock().push(Told::Saw { name: name.to_owned(), bound });
    }
}

impl NameLog {
    fn lock(&self) -> MutexGuard<'_, Vec<Noted>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction committed: its writes took effect at `at`, or, if it only read, that was its snapshot.
    pub(crate) fn committed(&self, at: Timestamp, attempt: &AttemptTold, number: usize) {
        let told = std::mem::take(&mut *attempt.lock());
        self.lock().extend(told.into_iter().map(|told| (at, told, number)));
    }

    /// A snapshot listed all names.
    pub(crate) fn listed(&self, at: Timestamp, names: Bindings, number: usize) {
        self.lock().push((at, Told::Listed(names), number));
    }

    /// Everything that was bound by what did happen after all.
    pub(crate) fn ever_bound(&self, happened: impl Fn(usize) -> bool) -> BTreeSet<(String, ObjectId)> {
        let bound = |(_, told, number): &Noted| match told {
            Told::Wrote { name, after: Some(object), .. } if happened(*number) => Some((name.clone(), *object)),
            Told::Wrote { .. } | Told::Saw { .. } | Told::Listed(_) => None,
        };
        self.lock().iter().filter_map(bound).collect()
    }

    /// Replays what did happen after all; returns what does not fit, and what the names should be bound to in the end.
    pub(crate) fn replay(&self, happened: impl Fn(usize) -> bool) -> (Vec<String>, Bindings) {
        let mut told = self.lock().clone();
        told.retain(|(_, _, number)| happened(*number));
        // Stable: the writes of one transaction stay in order. A snapshot sees what was committed at its timestamp.
        told.sort_by_key(|(at, told, _)| (*at, !matches!(told, Told::Wrote { .. })));
        let (mut wrong, mut now) = (Vec::new(), Bindings::new());
        for (at, told, _) in told {
            match told {
                Told::Wrote { name, before, after } => {
                    let bound = now.get(&name).copied();
                    if bound != before {
                        wrong.push(format!("at {at} {name:?} went from {before:?} to {after:?}, but it was {bound:?}"));
                    }
                    match after {
                        Some(object) => now.insert(name, object),
                        None => now.remove(&name),
                    };
                }
                Told::Saw { name, bound: seen } => {
                    let bound = now.get(&name).copied();
                    if bound != seen {
                        wrong.push(format!("at {at} {name:?} was seen as {seen:?}, but it was {bound:?}"));
                    }
                }
                Told::Listed(names) if names != now => {
                    wrong.push(format!("at {at} {} names were listed, but there were {}", names.len(), now.len()));
                }
                Told::Listed(_) => {}
            }
        }
        (wrong, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Option<ObjectId> {
        Some(ObjectId::from_u128(number))
    }

    /// What one transaction is told, and when.
    type Event<'a> = (u64, &'a dyn Fn(&AttemptTold));

    fn replayed(events: &[Event<'_>]) -> (usize, Bindings) {
        let log = NameLog::default();
        for (at, tell) in events {
            let attempt = AttemptTold::default();
            tell(&attempt);
            log.committed(Timestamp::from_u64(*at), &attempt, 0);
        }
        let (wrong, now) = log.replay(|_| true);
        (wrong.len(), now)
    }

    #[test]
    fn a_history_in_any_order_that_fits_is_accepted() {
        let (wrong, now) = replayed(&[
            (30, &|told| told.wrote("a", id(1), None)),
            (10, &|told| told.wrote("a", None, id(1))),
            (20, &|told| told.saw("a", id(1))),
            (10, &|told| told.saw("a", id(1))),
            (9, &|told| told.saw("a", None)),
            (40, &|told| {
                told.wrote("a", None, id(2));
                told.wrote("a", id(2), id(3));
            }),
        ]);
        assert_eq!((wrong, now.get("a").copied()), (0, id(3)));
    }

    #[test]
    fn two_binds_of_one_name_and_answers_that_are_not_true_are_found() {
        let bound = |told: &AttemptTold| told.wrote("a", None, id(1));
        assert_eq!(replayed(&[(10, &bound), (20, &|told| told.wrote("a", None, id(2)))]).0, 1);
        assert_eq!(replayed(&[(10, &bound), (20, &|told| told.saw("a", None))]).0, 1);
        assert_eq!(replayed(&[(10, &bound), (20, &|told| told.wrote("a", id(2), None))]).0, 1);
        let log = NameLog::default();
        log.listed(Timestamp::from_u64(1), Bindings::from([("a".to_owned(), ObjectId::from_u128(1))]), 0);
        assert_eq!(log.replay(|_| true).0.len(), 1);
    }

    #[test]
    fn what_did_not_happen_after_all_is_left_out() {
        let log = NameLog::default();
        for (number, object) in [(0, 1), (1, 2)] {
            let attempt = AttemptTold::default();
            attempt.wrote("a", None, id(object));
            log.committed(Timestamp::from_u64(object as u64), &attempt, number);
        }
        assert_eq!(log.replay(|_| true).0.len(), 1);
        assert_eq!(
            log.replay(|number| number == 1),
            (Vec::new(), Bindings::from([("a".to_owned(), ObjectId::from_u128(2))]))
        );
    }

    #[test]
    fn what_an_attempt_was_told_is_forgotten_by_the_next() {
        let attempt = AttemptTold::default();
        attempt.wrote("a", None, id(1));
        let log = NameLog::default();
        log.committed(Timestamp::from_u64(1), &attempt.begin(), 0);
        assert_eq!(log.replay(|_| true), (Vec::new(), Bindings::new()));
    }
}
