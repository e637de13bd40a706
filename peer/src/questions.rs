//! Open questions to others about receipts: whoever waits has one at most, and an answer counts for the receipt that
//! was asked for and no other.
//!
//! Each question has a number of its own, so that an answer that comes late finds nothing (R22). It refuses to judge
//! what is told, and to send anything.

use crate::message::FateTold;
use crate::steps::Receipt;
use driftmesh_model::{GroupId, Lsn, Micros, Term, TxnId};
use std::collections::BTreeMap;

/// Most questions open at once (R24).
const QUESTIONS_MAX: usize = 4_096;

/// A question that others were asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) waiter: TxnId,
    pub(crate) group: GroupId,
    pub(crate) term: Term,
    pub(crate) lsn: Lsn,
    pub(crate) told: FateTold,
    /// When it is given up, us of the monotonic clock.
    pub(crate) until: Micros,
}

impl Question {
    fn is_about(&self, receipt: &Receipt) -> bool {
        (self.group, self.term, self.lsn) == (receipt.group, receipt.term, receipt.lsn)
    }
}

/// All questions that are open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Questions {
    by_number: BTreeMap<u64, Question>,
    of_waiter: BTreeMap<TxnId, u64>,
    last: u64,
}

impl Questions {
    /// A question is asked, in place of any other of the same waiter. Returns its number, or `None` where there is no
    /// room.
    pub(crate) fn open(&mut self, waiter: TxnId, receipt: &Receipt, until: Micros) -> Option<u64> {
        self.close(waiter);
        if self.by_number.len() >= QUESTIONS_MAX {
            return None;
        }
        self.last += 1;
        let Receipt { group, term, lsn, .. } = *receipt;
        let question = Question { waiter, group, term, lsn, told: FateTold::Unknown, until };
        self.by_number.insert(self.last, question);
        self.of_waiter.insert(waiter, self.last);
        Some(self.last)
    }

    /// What somebody asks about a receipt.
    pub(crate) fn about(&self, waiter: TxnId, receipt: &Receipt) -> Option<Question> {
        let number = self.of_waiter.get(&waiter)?;
        self.by_number.get(number).filter(|question| question.is_about(receipt)).copied()
    }

    /// Somebody asks no more.
    pub(crate) fn close(&mut self, waiter: TxnId) {
        if let Some(number) = self.of_waiter.remove(&waiter) {
            self.by_number.remove(&number);
        }
    }

    /// An answer has come. Returns what was asked, if it still is.
    pub(crate) fn answered(&mut self, number: u64, told: FateTold) -> Option<Question> {
        let question = self.by_number.get_mut(&number)?;
        question.told = told;
        Some(*question)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Question> {
        self.by_number.values()
    }
}
