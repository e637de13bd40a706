//! The entries of a replicated log that a member keeps: contiguous, each with its term, from a base position on.

use super::LogEntry;
use super::batch::BATCH_ENTRIES_MAX;
use driftmesh_model::{Lsn, Micros, Term};
use std::collections::VecDeque;
use std::sync::Arc;

/// A kept entry.
#[derive(Clone, Debug)]
struct Logged<E> {
    term: Term,
    entry: Arc<E>,
    /// What all entries up to this one weigh, bytes since the log's beginning.
    sum: u64,
    /// When it was taken in here, monotonic.
    at: Micros,
}

/// A contiguous run of entries. What lies at or below the base is stable, applied, and gone.
#[derive(Clone, Debug)]
pub(super) struct Log<E> {
    base: Lsn,
    base_term: Term,
    base_sum: u64,
    entries: VecDeque<Logged<E>>,
}

impl<E: LogEntry> Log<E> {
    pub(super) const fn new() -> Self {
        Self { base: Lsn::ZERO, base_term: Term::ZERO, base_sum: 0, entries: VecDeque::new() }
    }

    /// A log that begins after a copied state.
    pub(super) const fn after(base: Lsn, base_term: Term) -> Self {
        Self { base, base_term, base_sum: 0, entries: VecDeque::new() }
    }

    /// The position before the first kept entry.
    pub(super) const fn base(&self) -> Lsn {
        self.base
    }

    /// Whether no entry is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn tail(&self) -> Lsn {
        Lsn::from_u64(self.base.as_u64() + self.entries.len() as u64)
    }

    pub(super) fn tail_term(&self) -> Term {
        self.entries.back().map_or(self.base_term, |logged| logged.term)
    }

    fn index(&self, lsn: Lsn) -> Option<usize> {
        usize::try_from(lsn.as_u64().checked_sub(self.base.as_u64())?.checked_sub(1)?).ok()
    }

    fn logged(&self, lsn: Lsn) -> Option<&Logged<E>> {
        self.entries.get(self.index(lsn)?)
    }

    /// The term of the entry at a position, if it is kept or the base.
    pub(super) fn term_at(&self, lsn: Lsn) -> Option<Term> {
        if lsn == self.base {
            return Some(self.base_term);
        }
        self.logged(lsn).map(|logged| logged.term)
    }

    pub(super) fn entry(&self, lsn: Lsn) -> Option<&Arc<E>> {
        self.logged(lsn).map(|logged| &logged.entry)
    }

    /// When the entry at a position was taken in.
    pub(super) fn taken_at(&self, lsn: Lsn) -> Option<Micros> {
        self.logged(lsn).map(|logged| logged.at)
    }

    pub(super) fn push(&mut self, term: Term, entry: Arc<E>, at: Micros) -> Lsn {
        let before = self.entries.back().map_or(self.base_sum, |logged| logged.sum);
        let sum = before + entry.cost() as u64;
        self.entries.push_back(Logged { term, entry, sum, at });
        self.tail()
    }

    /// Counts an entry that is stable at once and wanted by nobody. No entry is kept.
    pub(super) fn pass(&mut self, term: Term) -> Lsn {
        self.base = self.base.next();
        self.base_term = term;
        self.base
    }

    /// Drops everything after a position.
    pub(super) fn truncate_after(&mut self, lsn: Lsn) {
        let keep = lsn.as_u64().saturating_sub(self.base.as_u64());
        self.entries.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// Drops entries from the front: up to `lsn` at most, and only while more than `keep` bytes would be left.
    pub(super) fn trim(&mut self, lsn: Lsn, keep: u64) {
        let Some(last) = self.entries.back().map(|logged| logged.sum) else { return };
        while self.base < lsn {
            let Some(first) = self.entries.front() else { return };
            if last - first.sum < keep {
                return;
            }
            (self.base, self.base_term, self.base_sum) = (self.base.next(), first.term, first.sum);
            self.entries.pop_front();
        }
    }

    fn sum_at(&self, lsn: Lsn) -> u64 {
        self.logged(lsn).map_or(self.base_sum, |logged| logged.sum)
    }

    /// What the entries after one position up to another weigh, bytes.
    pub(super) fn bytes_between(&self, after: Lsn, to: Lsn) -> u64 {
        self.sum_at(to).saturating_sub(self.sum_at(after))
    }

    /// The entries from a position on, one at least, about so many bytes.
    pub(super) fn batch_from(&self, first: Lsn, bytes: u64) -> Vec<(Term, Arc<E>)> {
        let Some(index) = self.index(first).filter(|index| *index < self.entries.len()) else { return Vec::new() };
        let before = self.sum_at(Lsn::from_u64(first.as_u64() - 1));
        let mut taken = Vec::new();
        for logged in self.entries.range(index..) {
            if taken.len() >= BATCH_ENTRIES_MAX || (!taken.is_empty() && logged.sum - before > bytes) {
                break;
            }
            taken.push((logged.term, Arc::clone(&logged.entry)));
        }
        taken
    }

    /// The kept entries from a position on, each with its position.
    pub(super) fn entries_from(&self, from: Lsn) -> impl Iterator<Item = (Lsn, &E)> {
        let first = self.base.as_u64() + 1;
        let skip = usize::try_from(from.as_u64().saturating_sub(first)).unwrap_or(usize::MAX).min(self.entries.len());
        (first + skip as u64..).map(Lsn::from_u64).zip(self.entries.range(skip..).map(|logged| &*logged.entry))
    }

    /// The first position whose entry has this term, going back from `lsn`.
    pub(super) fn first_of_term_at(&self, lsn: Lsn) -> Lsn {
        let Some(term) = self.term_at(lsn) else { return lsn };
        // Terms climb, so it is found by halving: a journal may be long.
        let before = self.entries.partition_point(|logged| logged.term < term);
        Lsn::from_u64(self.base.as_u64() + 1 + before as u64).min(lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Membership;
    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl LogEntry for Nothing {
        fn term_start(_: Term) -> Self {
            Self
        }
        fn members(_: Membership) -> Self {
            Self
        }
        fn membership(&self) -> Option<&Membership> {
            None
        }
        fn cost(&self) -> usize {
            1
        }
    }

    #[test]
    fn the_first_entry_of_a_term_is_found_as_a_walk_back_finds_it() {
        let (base, base_term) = (Lsn::from_u64(10), Term::from_u64(2));
        let mut log = Log::after(base, base_term);
        for term in [2, 2, 3, 7, 7, 7, 7, 8, 20, 20] {
            log.push(Term::from_u64(term), Arc::new(Nothing), Micros(0));
        }
        for lsn in 11..=20 {
            let is_same = |at: &u64| log.term_at(Lsn::from_u64(*at)) == log.term_at(Lsn::from_u64(lsn));
            let walked = (11..=lsn).rev().take_while(is_same).last().unwrap();
            assert_eq!(log.first_of_term_at(Lsn::from_u64(lsn)), Lsn::from_u64(walked), "of {lsn}");
        }
        // What is not kept has no term; the base is where it ends.
        for lsn in [3, 10, 21] {
            assert_eq!(log.first_of_term_at(Lsn::from_u64(lsn)), Lsn::from_u64(lsn));
        }
    }
}
