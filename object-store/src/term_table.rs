//! Where each leadership period of a group begins, and what that says of receipts (R22).
//!
//! It is never truncated, 16 bytes a change of leader, and outlives its group. It refuses to say anything of what is
//! not stable: until the deciding entry is, a receipt's fate is unknown.

use driftmesh_model::{Lsn, Term};
use serde::{Deserialize, Serialize};

/// What became of the commit that a receipt speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Fate {
    /// It survives any change of leader.
    Stable,
    /// It is not part of the group's journal and never will be.
    Lost,
    /// Not decided yet.
    Unknown,
}

/// The term table of a group: each term with the position of its leader's first entry; both climb.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<(Term, Lsn)>", into = "Vec<(Term, Lsn)>")]
pub struct TermTable {
    starts: Vec<(Term, Lsn)>,
}

/// Terms or the positions where they start do not climb: such a table comes from a faulty peer (R25).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("terms and the positions where they start must climb; term {term} at {start} does not")]
pub struct NotClimbing {
    /// The term that lies at or below the one before it.
    pub term: Term,
    /// Or starts at or before it.
    pub start: Lsn,
}

impl TermTable {
    /// The terms, each with the position of its leader's first entry, oldest first.
    #[must_use]
    pub fn starts(&self) -> &[(Term, Lsn)] {
        &self.starts
    }

    /// The last term; zero before the first.
    #[must_use]
    pub const fn term(&self) -> Term {
        match self.starts.as_slice() {
            [.., (term, _)] => *term,
            [] => Term::ZERO,
        }
    }

    /// A leader's first entry.
    ///
    /// # Errors
    /// When the term or its position is not above the last one; nothing changes then.
    pub fn push(&mut self, term: Term, start: Lsn) -> Result<(), NotClimbing> {
        if self.starts.last().is_some_and(|last| last.0 >= term || last.1 >= start) {
            return Err(NotClimbing { term, start });
        }
        self.starts.push((term, start));
        Ok(())
    }

    /// The entry of the last term, which was not stable, is gone.
    pub fn pop(&mut self) -> Option<(Term, Lsn)> {
        self.starts.pop()
    }

    /// What became of the commit at `lsn` under `term`'s leader, if everything up to `watermark` is stable and this
    /// table knows all terms that start up to there.
    ///
    /// R22: lost if and only if a later term starts at or below the receipt's position, or its own never made a stable
    /// entry though a later one did. A watermark beyond the position does not suffice for stable: as long as the
    /// receipt's own term is not in the table, what is stable there may be a former leader's entry.
    #[must_use]
    pub fn fate(&self, term: Term, lsn: Lsn, watermark: Lsn) -> Fate {
        let stable = &self.starts[..self.starts.partition_point(|(_, start)| *start <= watermark)];
        let up_to_it = &stable[..stable.partition_point(|(_, start)| *start <= lsn)];
        let (led_by, own) = (up_to_it.last().map(|(term, _)| *term), Some(term));
        let is_later_stable = stable.last().map(|(term, _)| *term) > own;
        if led_by > own || (led_by < own && is_later_stable) {
            Fate::Lost
        } else if led_by == own && lsn <= watermark {
            Fate::Stable
        } else {
            Fate::Unknown
        }
    }

    /// From where on a former term's entries are lost: where the next one starts, or everything if it made no stable
    /// entry. `None` for the last term, and as long as it may be that.
    #[must_use]
    pub fn lost_from(&self, term: Term, watermark: Lsn) -> Option<Lsn> {
        let stable = &self.starts[..self.starts.partition_point(|(_, start)| *start <= watermark)];
        let (_, next) = *stable.get(stable.partition_point(|(known, _)| *known <= term))?;
        let made_an_entry = stable.iter().any(|(known, _)| *known == term);
        Some(if made_an_entry { next } else { Lsn::ZERO })
    }
}

impl TryFrom<Vec<(Term, Lsn)>> for TermTable {
    type Error = NotClimbing;

    fn try_from(starts: Vec<(Term, Lsn)>) -> Result<Self, NotClimbing> {
        let mut table = Self::default();
        starts.into_iter().try_for_each(|(term, start)| table.push(term, start))?;
        Ok(table)
    }
}

impl From<TermTable> for Vec<(Term, Lsn)> {
    fn from(table: TermTable) -> Self {
        table.starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh_model::codec;

    fn table(starts: &[(u64, u64)]) -> TermTable {
        let starts: Vec<_> = starts.iter().map(|(term, lsn)| (Term::from_u64(*term), Lsn::from_u64(*lsn))).collect();
        starts.try_into().unwrap()
    }

    fn fate(table: &TermTable, receipt: (u64, u64), watermark: u64) -> Fate {
        table.fate(Term::from_u64(receipt.0), Lsn::from_u64(receipt.1), Lsn::from_u64(watermark))
    }

    #[test]
    fn a_receipt_is_decided_by_stable_terms_alone() {
        let table = table(&[(1, 1), (3, 10), (5, 20)]);
        assert_eq!(fate(&table, (1, 5), 5), Fate::Stable);
        assert_eq!(fate(&table, (1, 5), 4), Fate::Unknown);
        // Term 3 starts at 10: what term 1 had there and beyond is gone, once that is stable.
        assert_eq!(fate(&table, (1, 10), 9), Fate::Unknown);
        assert_eq!(fate(&table, (1, 10), 10), Fate::Lost);
        assert_eq!(fate(&table, (1, 99), 10), Fate::Lost);
        assert_eq!(fate(&table, (1, 9), 10), Fate::Stable);
        assert_eq!(fate(&table, (5, 25), 24), Fate::Unknown);
        assert_eq!(fate(&table, (5, 25), 25), Fate::Stable);
    }

    #[test]
    fn a_term_without_a_stable_entry_loses_everything_once_a_later_one_is_stable() {
        let table = table(&[(1, 1), (3, 10), (5, 20)]);
        // Term 2 said (2, 9); a follower that knows term 1's entries up to 9 to be stable cannot tell yet.
        assert_eq!(fate(&table, (2, 9), 9), Fate::Unknown);
        assert_eq!(fate(&table, (2, 9), 10), Fate::Lost);
        assert_eq!(fate(&table, (4, 12), 19), Fate::Unknown);
        assert_eq!(fate(&table, (4, 12), 20), Fate::Lost);
        assert_eq!(fate(&table, (6, 30), 40), Fate::Unknown);
        assert_eq!(fate(&TermTable::default(), (1, 1), 0), Fate::Unknown);
    }

    #[test]
    fn what_is_lost_of_a_term_begins_where_the_next_one_starts() {
        let table = table(&[(1, 1), (3, 10), (5, 20)]);
        for watermark in 0..25 {
            for term in 1..7 {
                let from = table.lost_from(Term::from_u64(term), Lsn::from_u64(watermark)).map(Lsn::as_u64);
                // A leader gives no receipts below its first entry.
                let own = table.starts().iter().find(|(known, _)| known.as_u64() == term);
                let first = own.map_or(0, |(_, start)| start.as_u64());
                let lost = (first..30).find(|lsn| fate(&table, (term, *lsn), watermark) == Fate::Lost);
                assert_eq!(from, lost, "term {term}, watermark {watermark}");
            }
        }
    }

    #[test]
    fn a_table_that_does_not_climb_is_not_decoded() {
        let good = table(&[(1, 1), (3, 10)]);
        assert_eq!(codec::decode::<TermTable>(&codec::encode(&good).unwrap()), Ok(good));
        for bad in [[(3_u64, 1_u64), (1, 10)], [(1, 10), (3, 10)]] {
            assert!(codec::decode::<TermTable>(&codec::encode(&bad.to_vec()).unwrap()).is_err());
        }
    }
}
