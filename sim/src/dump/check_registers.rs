//! Whether a file of registers is a history that snapshot isolation allows, sessions in order.
//!
//! It refuses files in which the order of versions is not known: every write must follow a read of its register in the
//! same transaction. The rest is for the checker of the simulator.

use super::check_appends::shown;
use super::fault::{BadFile, BadLine, Fault, Rejected};
use super::register_file::{Event, File, Txn};
use crate::checker::{self, History, ObjectKey, Outcome, ReadRecord, SessionOrder, Token, TxnRecord, WriteRecord};
use std::collections::{BTreeMap, BTreeSet};

/// What a valid file consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegisterSummary {
    /// Transactions that took effect.
    pub committed: usize,
    /// Sessions.
    pub sessions: usize,
    /// Registers that were read or written.
    pub registers: usize,
    /// Reads in transactions that took effect.
    pub reads: usize,
    /// Writes in these.
    pub writes: usize,
}

/// Checks the text of a file.
///
/// # Errors
/// [`Rejected`]: it is no history, or it has violations.
pub fn check_json(text: &str) -> Result<RegisterSummary, Rejected> {
    let file: File = serde_json::from_str(text)
        .map_err(|error| BadFile { line: error.line(), what: BadLine::Syntax(error.to_string()) })?;
    let history = history(&file.data).map_err(|what| BadFile { line: line_of(text, &what), what })?;
    match checker::check_with(&history, SessionOrder::Enforced) {
        Ok(_) => Ok(summarize(&file, &history)),
        Err(found) => {
            Err(Rejected::Invalid(found.into_iter().map(|violation| Fault::Found(Box::new(violation))).collect()))
        }
    }
}

/// The line on which a session begins: the files that are written here have one a line. Else the first.
fn line_of(text: &str, what: &BadLine) -> usize {
    let (BadLine::WritesZero { session, .. } | BadLine::WrittenTwice { session, .. } | BadLine::Blind { session, .. }) =
        what
    else {
        return 1;
    };
    let sessions = text.lines().zip(1..).filter(|(line, _)| line.starts_with('['));
    sessions.map(|(_, number)| number).nth(*session).unwrap_or(1)
}

fn history(sessions: &[Vec<Txn>]) -> Result<History, BadLine> {
    let mut history = History::default();
    let mut written = BTreeSet::new();
    for (session, txns) in sessions.iter().enumerate() {
        for (transaction, txn) in txns.iter().enumerate() {
            let mut record = TxnRecord {
                label: format!("session {session} transaction {transaction} "),
                session: u32::try_from(session).unwrap_or(u32::MAX),
                reads: Vec::new(),
                writes: Vec::new(),
                outcome: if txn.committed { Outcome::Committed } else { Outcome::Aborted },
                serializable: false,
            };
            for event in &txn.events {
                enter(&mut record, event, &mut written).map_err(|fault| fault.at(session, transaction))?;
            }
            history.txns.push(record);
        }
    }
    history.final_state = ends(&history);
    Ok(history)
}

/// What is wrong with an event.
enum BadEvent {
    Zero,
    Twice(u64),
    Blind(u64),
}

impl BadEvent {
    const fn at(self, session: usize, transaction: usize) -> BadLine {
        match self {
            Self::Zero => BadLine::WritesZero { session, transaction },
            Self::Twice(version) => BadLine::WrittenTwice { session, transaction, version },
            Self::Blind(variable) => BadLine::Blind { session, transaction, variable },
        }
    }
}

fn enter(record: &mut TxnRecord, event: &Event, written: &mut BTreeSet<u64>) -> Result<(), BadEvent> {
    match event {
        Event::Read { variable, version } => {
            let (object, token) = (shown(*variable), Token(version.unwrap_or(0)));
            // A read of its own write is no read from outside.
            if !record.writes.iter().any(|write| write.object == object && write.token == token) {
                record.reads.push(ReadRecord { object, token });
            }
        }
        Event::Write { variable, version } => {
            let (object, token) = (shown(*variable), Token(*version));
            if *version == 0 {
                return Err(BadEvent::Zero);
            }
            if !written.insert(*version) {
                return Err(BadEvent::Twice(*version));
            }
            let read = record.reads.iter().find(|read| read.object == object).ok_or(BadEvent::Blind(*variable))?;
            let predecessor = read.token;
            // Only its last write of a register counts.
            record.writes.retain(|write| write.object != object);
            record.writes.push(WriteRecord { object, predecessor, token });
        }
    }
    Ok(())
}

/// What the registers end as: the version that nobody replaced. Where there are several, the checker says so.
fn ends(history: &History) -> BTreeMap<ObjectKey, Token> {
    let committed = || history.txns.iter().filter(|txn| txn.outcome == Outcome::Committed).flat_map(|txn| &txn.writes);
    let replaced: BTreeSet<(ObjectKey, Token)> = committed().map(|write| (write.object, write.predecessor)).collect();
    let mut ends = BTreeMap::new();
    for write in committed() {
        let end = ends.entry(write.object).or_insert(Token::INITIAL);
        if !replaced.contains(&(write.object, write.token)) {
            *end = write.token;
        }
    }
    ends
}

fn summarize(file: &File, history: &History) -> RegisterSummary {
    let committed = || history.txns.iter().filter(|txn| txn.outcome == Outcome::Committed);
    let touched = |txn: &TxnRecord| {
        let reads = txn.reads.iter().map(|read| read.object);
        reads.chain(txn.writes.iter().map(|write| write.object)).collect::<Vec<_>>()
    };
    let registers: BTreeSet<ObjectKey> = committed().flat_map(touched).collect();
    RegisterSummary {
        committed: committed().count(),
        sessions: file.data.len(),
        registers: registers.len(),
        reads: committed().map(|txn| txn.reads.len()).sum(),
        writes: committed().map(|txn| txn.writes.len()).sum(),
    }
}
