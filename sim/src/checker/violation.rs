//! What a checker can find wrong with a history, in a form made for reading.
//!
//! A violation names the transactions and the object it is about, so that it
//! can be understood without the history at hand. It refuses to guess at the
//! fault in the system: it says what was observed and why that is forbidden.

use std::fmt;

use serde::Serialize;

use super::history::{ObjectKey, Token};

/// A transaction as reports name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TxnName {
    /// Its position in [`History::txns`](super::History::txns).
    pub position: usize,
    /// Its label.
    pub label: String,
}

impl fmt::Display for TxnName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}#{}", self.label, self.position)
    }
}

/// Why a record cannot be what a client of this kind observes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum RecordFault {
    /// It writes [`Token::INITIAL`], which stands for "before any write".
    WroteInitialToken,
    /// It lists two writes to one object; only the last may be listed.
    WroteObjectTwice,
    /// A write names its own token as the version it overwrote.
    OverwroteItself,
    /// It lists its own write among its external reads.
    ReadOwnWrite,
}

/// The kind of an edge between two transactions (Adya 2000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum EdgeKind {
    /// The target overwrote a version of this object the source had written.
    WriteWrite(ObjectKey),
    /// The target read the version of this object the source had written.
    WriteRead(ObjectKey),
    /// The target overwrote a version of this object the source had read: the
    /// anti-dependency.
    ReadWrite(ObjectKey),
    /// The target ran after the source in the same session.
    Session,
}

impl EdgeKind {
    /// Whether this is the anti-dependency.
    #[must_use]
    pub fn is_anti_dependency(self) -> bool {
        match self {
            Self::ReadWrite(_) => true,
            Self::WriteWrite(_) | Self::WriteRead(_) | Self::Session => false,
        }
    }
}

impl fmt::Display for EdgeKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteWrite(object) => write!(formatter, "ww({object})"),
            Self::WriteRead(object) => write!(formatter, "wr({object})"),
            Self::ReadWrite(object) => write!(formatter, "rw({object})"),
            Self::Session => formatter.write_str("so"),
        }
    }
}

/// One step of a [`Cycle`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CycleEdge {
    /// Where the edge starts.
    pub from: TxnName,
    /// Why its target comes after its source.
    pub kind: EdgeKind,
    /// Where the edge ends.
    pub to: TxnName,
}

/// The name of a forbidden cycle, after Adya (2000), with G-nonadjacent for
/// the long fork as is usual for snapshot isolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Anomaly {
    /// Write-write edges only.
    G0,
    /// Write-write and write-read edges.
    G1c,
    /// Exactly one anti-dependency: fractured read, read skew.
    GSingle,
    /// Several anti-dependencies, no two in a row: long fork.
    GNonadjacent,
    /// Two anti-dependencies in a row: write skew. Allowed under snapshot
    /// isolation, forbidden under serializability.
    G2Item,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::G0 => "G0",
            Self::G1c => "G1c",
            Self::GSingle => "G-single",
            Self::GNonadjacent => "G-nonadjacent",
            Self::G2Item => "G2-item",
        })
    }
}

/// A cycle that no execution at the promised isolation level can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cycle {
    /// Its name by the kinds of its edges, session edges left aside.
    pub anomaly: Anomaly,
    /// Whether it needs the order within a session to close. Such a cycle is
    /// no violation of plain snapshot isolation, only of strong session
    /// snapshot isolation.
    pub through_session: bool,
    /// Its edges; the last one ends where the first one starts.
    pub edges: Vec<CycleEdge>,
}

impl fmt::Display for Cycle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = if self.through_session { "-session" } else { "" };
        write!(formatter, "{}{session}:", self.anomaly)?;
        for (index, edge) in self.edges.iter().enumerate() {
            if index == 0 {
                write!(formatter, " {}", edge.from)?;
            }
            write!(formatter, " --{}--> {}", edge.kind, edge.to)?;
        }
        Ok(())
    }
}

/// One thing wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Violation {
    /// A record contradicts itself.
    MalformedRecord {
        /// The transaction of the record.
        txn: TxnName,
        /// The object the fault is about.
        object: ObjectKey,
        /// The fault.
        fault: RecordFault,
    },
    /// Two writes to one object carry the same token.
    TokenReused {
        /// The object.
        object: ObjectKey,
        /// The token.
        token: Token,
        /// The writer listed first; it keeps the token.
        first: TxnName,
        /// The other writer; its write is left out of all further checks.
        second: TxnName,
    },
    /// Two committed transactions overwrote the same version.
    LostUpdate {
        /// The object.
        object: ObjectKey,
        /// The version both overwrote.
        predecessor: Token,
        /// One writer.
        first: TxnName,
        /// The other writer.
        second: TxnName,
    },
    /// A transaction read one version of an object and overwrote another: it
    /// lost the update between the two.
    StaleOverwrite {
        /// The transaction.
        txn: TxnName,
        /// The object.
        object: ObjectKey,
        /// The version read.
        read: Token,
        /// The version overwritten.
        overwrote: Token,
    },
    /// A committed transaction overwrote the version of an aborted one.
    DirtyWrite {
        /// The overwriting transaction.
        txn: TxnName,
        /// The object.
        object: ObjectKey,
        /// The version overwritten.
        token: Token,
        /// The aborted writer.
        aborted: TxnName,
    },
    /// A committed transaction overwrote a version nobody wrote.
    PhantomVersion {
        /// The overwriting transaction.
        txn: TxnName,
        /// The object.
        object: ObjectKey,
        /// The version overwritten.
        token: Token,
    },
    /// Each of these transactions overwrote the version of the one before it,
    /// all round.
    CircularVersions {
        /// The object.
        object: ObjectKey,
        /// Some of the transactions, in the order of their versions.
        txns: Vec<TxnName>,
    },
    /// A transaction of unknown outcome took effect in part.
    TornTransaction {
        /// The transaction.
        txn: TxnName,
        /// An object its write was seen on.
        landed: ObjectKey,
        /// An object its write is missing from.
        missing: ObjectKey,
    },
    /// A committed write that nobody ever saw is missing from the final state.
    LostCommit {
        /// The transaction whose write is missing.
        txn: TxnName,
        /// The object.
        object: ObjectKey,
        /// The version in the final state instead.
        found: Token,
    },
    /// The final state holds a version whose replacement had been seen.
    ResurrectedVersion {
        /// The object.
        object: ObjectKey,
        /// The version that came back.
        token: Token,
        /// The transaction that had replaced it.
        replaced_by: TxnName,
    },
    /// The final state holds the version of an aborted transaction.
    DirtyFinalState {
        /// The object.
        object: ObjectKey,
        /// The version.
        token: Token,
        /// The aborted writer.
        aborted: TxnName,
    },
    /// The final state holds a version nobody wrote.
    PhantomFinalState {
        /// The object.
        object: ObjectKey,
        /// The version.
        token: Token,
    },
    /// An object with a committed write is missing from the final state.
    MissingFinalState {
        /// The object.
        object: ObjectKey,
    },
    /// A committed transaction read the version of an aborted one (Adya's G1a).
    DirtyRead {
        /// The reader.
        txn: TxnName,
        /// The object.
        object: ObjectKey,
        /// The version read.
        token: Token,
        /// The aborted writer.
        aborted: TxnName,
    },
    /// A committed transaction read a version nobody wrote.
    PhantomRead {
        /// The reader.
        txn: TxnName,
        /// The object.
        object: ObjectKey,
        /// The version read.
        token: Token,
    },
    /// A committed transaction read two versions of one object.
    NonRepeatableRead {
        /// The reader.
        txn: TxnName,
        /// The object.
        object: ObjectKey,
        /// The version it read first.
        first: Token,
        /// The other version.
        second: Token,
    },
    /// The transactions of a cycle cannot all have had their snapshots.
    ForbiddenCycle(Cycle),
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MalformedRecord { txn, object, fault } => {
                write!(formatter, "malformed record: {txn} on {object}: {fault:?}")
            }
            Self::TokenReused { object, token, first, second } => {
                write!(formatter, "token reused: {first} and {second} both wrote {token} to {object}")
            }
            Self::LostUpdate { object, predecessor, first, second } => {
                write!(formatter, "lost update: {first} and {second} both overwrote version {predecessor} of {object}")
            }
            Self::StaleOverwrite { txn, object, read, overwrote } => {
                write!(formatter, "lost update: {txn} read version {read} of {object} but overwrote {overwrote}")
            }
            Self::DirtyWrite { txn, object, token, aborted } => {
                write!(formatter, "dirty write: {txn} overwrote version {token} of {object} by the aborted {aborted}")
            }
            Self::PhantomVersion { txn, object, token } => {
                write!(formatter, "phantom version: {txn} overwrote version {token} of {object}, which nobody wrote")
            }
            Self::CircularVersions { object, txns } => {
                write!(formatter, "circular versions of {object}:")?;
                txns.iter().try_for_each(|txn| write!(formatter, " {txn}"))
            }
            Self::TornTransaction { txn, landed, missing } => {
                write!(formatter, "torn transaction: {txn} took effect on {landed} but not on {missing}")
            }
            Self::LostCommit { txn, object, found } => {
                write!(formatter, "lost commit: the write of {txn} to {object} is gone, version {found} is there")
            }
            Self::ResurrectedVersion { object, token, replaced_by } => {
                write!(formatter, "resurrected version: {object} ends as {token}, which {replaced_by} had replaced")
            }
            Self::DirtyFinalState { object, token, aborted } => {
                write!(formatter, "dirty final state: {object} ends as {token} by the aborted {aborted}")
            }
            Self::PhantomFinalState { object, token } => {
                write!(formatter, "phantom final state: {object} ends as {token}, which nobody wrote")
            }
            Self::MissingFinalState { object } => {
                write!(formatter, "missing final state: {object} was written but not read at the end")
            }
            Self::DirtyRead { txn, object, token, aborted } => {
                write!(formatter, "dirty read (G1a): {txn} read version {token} of {object} by the aborted {aborted}")
            }
            Self::PhantomRead { txn, object, token } => {
                write!(formatter, "phantom read: {txn} read version {token} of {object}, which nobody wrote")
            }
            Self::NonRepeatableRead { txn, object, first, second } => {
                write!(formatter, "non-repeatable read: {txn} read {object} as {first} and as {second}")
            }
            Self::ForbiddenCycle(cycle) => write!(formatter, "forbidden cycle {cycle}"),
        }
    }
}
