//! What can be wrong with a dumped file: it is no history, or it is one that snapshot isolation does not allow.

use crate::checker::Violation;
use std::fmt;

/// A line that does not belong into such a file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadFile {
    /// Which line, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub what: BadLine,
}

/// What is wrong with a line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadLine {
    /// It is not written as it should be.
    #[error("{0}")]
    Syntax(String),
    /// A part is missing, or is of another kind.
    #[error("`{0}` is missing or is not {1}")]
    Part(&'static str, &'static str),
    /// Lines are not in their order.
    #[error("its index {0} does not follow {1}")]
    Index(u64, u64),
    /// A process does two things at a time.
    #[error("process {0} begins something while its last transaction has not ended")]
    Busy(u64),
    /// A process goes on though nobody knows what became of what it did last.
    #[error("process {0} goes on after a transaction that ended in :info")]
    GoesOn(u64),
    /// Something ends that had not begun.
    #[error("process {0} ends a transaction that it has not begun")]
    NotBegun(u64),
    /// What ended is not what had begun.
    #[error("process {0} ends another transaction than it had begun")]
    Another(u64),
    /// A committed transaction does not say what it read.
    #[error("a read of list {0} in a committed transaction has no value")]
    Unread(u64),
    /// Two appends of one element to one list.
    #[error("element {element} is appended to list {key} for a second time")]
    AppendedTwice {
        /// Which list.
        key: u64,
        /// Which element.
        element: u64,
    },
    /// An element that cannot be told from none.
    #[error("element 0: elements are counted from 1")]
    Zero,
    /// A version that cannot be told from the first one.
    #[error("session {session}, transaction {transaction}: writes version 0, which is what a register has at first")]
    WritesZero {
        /// In which session, from 0 on.
        session: usize,
        /// Which of its transactions, from 0 on.
        transaction: usize,
    },
    /// A version that two writes have.
    #[error("session {session}, transaction {transaction}: version {version} is written for a second time")]
    WrittenTwice {
        /// In which session.
        session: usize,
        /// Which of its transactions.
        transaction: usize,
        /// Which version.
        version: u64,
    },
    /// A write of which nobody knows what it replaced.
    #[error(
        "session {session}, transaction {transaction}: writes register {variable} without reading it first; this check \
         does not guess the order of versions"
    )]
    Blind {
        /// In which session.
        session: usize,
        /// Which of its transactions.
        transaction: usize,
        /// Which register.
        variable: u64,
    },
}

/// Something that snapshot isolation does not allow. Transactions are named by the lines on which they end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// An element is in a list twice.
    Duplicate {
        /// Where it was read.
        line: usize,
        /// The list.
        key: u64,
        /// The element.
        element: u64,
    },
    /// Two reads of one list, neither of which begins with the other.
    Incompatible {
        /// The list.
        key: u64,
        /// Where the longest was read.
        line: usize,
        /// Where the other was read.
        other: usize,
        /// The first place at which they differ, from 0 on.
        place: usize,
    },
    /// An element that nobody appended.
    FromNowhere {
        /// Where it was read.
        line: usize,
        /// The list.
        key: u64,
        /// The element.
        element: u64,
    },
    /// A transaction does not see its own appends, or sees a list change under it.
    Internal {
        /// The transaction.
        line: usize,
        /// The list.
        key: u64,
    },
    /// A transaction saw some appends of another and not its later ones to the same list (Adya's G1b).
    Intermediate {
        /// The reader.
        line: usize,
        /// The list.
        key: u64,
        /// The last element that it saw.
        element: u64,
    },
    /// The appends of one transaction to one list are not together, or not in their order.
    Scattered {
        /// The transaction.
        line: usize,
        /// The list.
        key: u64,
    },
    /// A committed append that none of the reads at the end shows.
    Lost {
        /// The transaction.
        line: usize,
        /// The list.
        key: u64,
        /// The element.
        element: u64,
    },
    /// What the checker of histories finds.
    Found(Box<Violation>),
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate { line, key, element } => {
                write!(formatter, "duplicate: line {line} reads element {element} twice in list {key}")
            }
            Self::Incompatible { key, line, other, place } => {
                write!(
                    formatter,
                    "incompatible order: lines {line} and {other} read list {key} and differ at place {place}"
                )
            }
            Self::FromNowhere { line, key, element } => {
                write!(
                    formatter,
                    "from nowhere: line {line} reads element {element} in list {key}, which nobody appended"
                )
            }
            Self::Internal { line, key } => {
                write!(formatter, "internal: line {line} reads list {key} otherwise than its own transaction left it")
            }
            Self::Intermediate { line, key, element } => {
                write!(
                    formatter,
                    "intermediate read (G1b): line {line} reads list {key} up to {element}, amid a transaction"
                )
            }
            Self::Scattered { line, key } => {
                write!(
                    formatter,
                    "torn apart: the appends of line {line} to list {key} are not together in their order"
                )
            }
            Self::Lost { line, key, element } => {
                write!(
                    formatter,
                    "lost: element {element}, which line {line} appended to list {key}, is not there at the end"
                )
            }
            Self::Found(violation) => violation.fmt(formatter),
        }
    }
}

/// Why a file does not pass.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejected {
    /// It is no history.
    #[error(transparent)]
    BadFile(#[from] BadFile),
    /// It is a history that snapshot isolation does not allow.
    #[error("{} violations, the first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Invalid(Vec<Fault>),
}
