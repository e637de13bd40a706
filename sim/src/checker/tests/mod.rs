//! Tests of the checker against histories whose verdict is known.
//!
//! A checker that never complains passes any test of a correct system, so most
//! tests here plant a violation and insist that it is found and named. These
//! tests refuse to run the system under test; they need none of it.

mod accepted;
mod oracle;
mod planted;
mod random;
mod reference_store;

use super::{History, ObjectKey, Outcome, ReadRecord, Token, TxnName, TxnRecord, Violation, WriteRecord};

const X: ObjectKey = ObjectKey(0xa);
const Y: ObjectKey = ObjectKey(0xb);

fn txn(label: &str, session: u32) -> TxnRecord {
    TxnRecord {
        label: label.to_owned(),
        session,
        reads: Vec::new(),
        writes: Vec::new(),
        outcome: Outcome::Committed,
        serializable: true,
    }
}

impl TxnRecord {
    fn reads(mut self, object: ObjectKey, token: u64) -> Self {
        self.reads.push(ReadRecord { object, token: Token(token) });
        self
    }

    fn writes(mut self, object: ObjectKey, predecessor: u64, token: u64) -> Self {
        let (predecessor, token) = (Token(predecessor), Token(token));
        self.writes.push(WriteRecord { object, predecessor, token });
        self
    }

    fn ends(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    fn unflagged(mut self) -> Self {
        self.serializable = false;
        self
    }
}

fn history<const N: usize>(txns: impl IntoIterator<Item = TxnRecord>, final_state: [(ObjectKey, u64); N]) -> History {
    History {
        txns: txns.into_iter().collect(),
        final_state: final_state.map(|(object, token)| (object, Token(token))).into(),
    }
}

fn name(label: &str, position: usize) -> TxnName {
    TxnName { position, label: label.to_owned() }
}

fn printed(violations: &[Violation]) -> Vec<String> {
    violations.iter().map(Violation::to_string).collect()
}
