//! Which versions exist, who wrote them, and which transactions took effect.
//!
//! This is where a transaction of unknown outcome is decided: it took effect
//! exactly if a transaction that took effect, or the final state, observed one
//! of its versions. The ledger refuses to order versions and to judge reads.

use std::collections::BTreeMap;

use super::findings::Findings;
use super::history::{History, ObjectKey, Outcome, Token, TxnRecord, WriteRecord};
use super::violation::{RecordFault, TxnName, Violation};

/// One version of one object.
#[derive(Debug)]
pub(super) struct Version {
    /// The object and the tokens.
    pub(super) write: WriteRecord,
    /// The position of the writing transaction.
    pub(super) writer: usize,
    /// Whether a transaction that took effect, other than the writer, read it.
    pub(super) was_read: bool,
    /// Whether it was read, overwritten, or found in the final state.
    pub(super) was_observed: bool,
}

/// How the version with a given token came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is the initial version.
    Initial,
    /// A transaction that took effect wrote this version.
    Effective(usize),
    /// A transaction that did not take effect wrote this version.
    Ineffective(usize),
    /// Nobody wrote it.
    Nobody,
}

/// The versions and transactions of a history, with unknown outcomes decided.
#[derive(Debug)]
pub(super) struct Ledger<'history> {
    pub(super) history: &'history History,
    /// All well-formed versions, those of aborted transactions included.
    pub(super) versions: Vec<Version>,
    /// Whether each transaction took effect.
    pub(super) took_effect: Vec<bool>,
    /// The versions of each transaction.
    written: Vec<Vec<usize>>,
    by_token: BTreeMap<(ObjectKey, Token), usize>,
}

impl<'history> Ledger<'history> {
    /// Reads a history. Reports malformed writes and torn transactions.
    pub(super) fn settle(history: &'history History, findings: &mut Findings) -> Self {
        let mut ledger = Self {
            history,
            versions: Vec::new(),
            took_effect: vec![false; history.txns.len()],
            written: vec![Vec::new(); history.txns.len()],
            by_token: BTreeMap::new(),
        };
        for (position, txn) in history.txns.iter().enumerate() {
            ledger.enter_writes(position, txn, findings);
        }
        ledger.decide_outcomes();
        ledger.report_torn(findings);
        ledger
    }

    /// The name of a transaction.
    pub(super) fn name(&self, position: usize) -> TxnName {
        let label = self.history.txns.get(position).map(|txn| txn.label.clone());
        TxnName { position, label: label.unwrap_or_default() }
    }

    /// The name of the transaction that wrote a version.
    pub(super) fn writer_name(&self, version: usize) -> TxnName {
        self.name(self.versions[version].writer)
    }

    /// How a version an effective transaction or the final state saw came
    /// about.
    pub(super) fn origin(&self, object: ObjectKey, token: Token) -> Origin {
        if token == Token::INITIAL {
            return Origin::Initial;
        }
        match self.by_token.get(&(object, token)) {
            None => Origin::Nobody,
            Some(&version) if self.took_effect[self.versions[version].writer] => Origin::Effective(version),
            Some(&version) => Origin::Ineffective(version),
        }
    }

    /// The transactions that took effect, in the order of the history.
    pub(super) fn effective_txns(&self) -> impl Iterator<Item = (usize, &'history TxnRecord)> {
        let took_effect = &self.took_effect;
        self.history.txns.iter().enumerate().filter(|(position, _)| took_effect[*position])
    }

    /// Whether a version must have its place in the version order of its
    /// object. The missing half of a torn transaction has none.
    pub(super) fn must_fit(&self, version: usize) -> bool {
        let version = &self.versions[version];
        if !self.took_effect[version.writer] {
            return false;
        }
        match self.history.txns[version.writer].outcome {
            Outcome::Committed | Outcome::Aborted => true,
            Outcome::Unknown => version.was_observed,
        }
    }

    fn enter_writes(&mut self, position: usize, txn: &TxnRecord, findings: &mut Findings) {
        let mut objects = BTreeMap::new();
        for write in &txn.writes {
            let object = write.object;
            let fault = if write.token == Token::INITIAL {
                Some(RecordFault::WroteInitialToken)
            } else if write.predecessor == write.token {
                Some(RecordFault::OverwroteItself)
            } else if objects.insert(object, write.token).is_some() {
                Some(RecordFault::WroteObjectTwice)
            } else {
                None
            };
            if let Some(fault) = fault {
                findings.report(Violation::MalformedRecord { txn: self.name(position), object, fault });
                continue;
            }
            if let Some(&first) = self.by_token.get(&(object, write.token)) {
                findings.report(Violation::TokenReused {
                    object,
                    token: write.token,
                    first: self.writer_name(first),
                    second: self.name(position),
                });
                continue;
            }
            let version = self.versions.len();
            self.by_token.insert((object, write.token), version);
            self.written[position].push(version);
            self.versions.push(Version { write: *write, writer: position, was_read: false, was_observed: false });
        }
    }

    /// Spreads "took effect" from the committed transactions and the final
    /// state to every unknown one they observed, and on from there.
    fn decide_outcomes(&mut self) {
        let history = self.history;
        let mut pending = Vec::new();
        for (position, txn) in history.txns.iter().enumerate() {
            if txn.outcome == Outcome::Committed {
                self.took_effect[position] = true;
                pending.push(position);
            }
        }
        for (object, token) in &history.final_state {
            if let Some(&version) = self.by_token.get(&(*object, *token)) {
                self.observe(version, &mut pending);
            }
        }
        while let Some(position) = pending.pop() {
            for read in &history.txns[position].reads {
                if let Some(&version) = self.by_token.get(&(read.object, read.token))
                    && self.versions[version].writer != position
                {
                    self.versions[version].was_read = true;
                    self.observe(version, &mut pending);
                }
            }
            for index in 0..self.written[position].len() {
                let write = self.versions[self.written[position][index]].write;
                if let Some(&version) = self.by_token.get(&(write.object, write.predecessor)) {
                    self.observe(version, &mut pending);
                }
            }
        }
    }

    fn observe(&mut self, version: usize, pending: &mut Vec<usize>) {
        self.versions[version].was_observed = true;
        let writer = self.versions[version].writer;
        match self.history.txns[writer].outcome {
            // A committed writer counts already, an aborted one never does:
            // whoever observed it is at fault.
            Outcome::Committed | Outcome::Aborted => {}
            Outcome::Unknown => {
                if !self.took_effect[writer] {
                    self.took_effect[writer] = true;
                    pending.push(writer);
                }
            }
        }
    }

    /// A version that came to be was overwritten by an effective transaction
    /// or is in the final state; both are observations. So an unobserved
    /// version of an effective transaction of unknown outcome never came to
    /// be, while another of its versions did.
    fn report_torn(&self, findings: &mut Findings) {
        for (position, txn) in self.effective_txns() {
            if txn.outcome != Outcome::Unknown {
                continue;
            }
            let versions = || self.written[position].iter().map(|&version| &self.versions[version]);
            let landed = versions().find(|version| version.was_observed);
            // Where the final state was not read, nothing can be said; the
            // comparison with the final state reports the omission.
            let missing = versions().find(|version| {
                let was_compared = self.history.final_state.contains_key(&version.write.object);
                was_compared && !version.was_observed
            });
            if let (Some(landed), Some(missing)) = (landed, missing) {
                findings.report(Violation::TornTransaction {
                    txn: self.name(position),
                    landed: landed.write.object,
                    missing: missing.write.object,
                });
            }
        }
    }
}
