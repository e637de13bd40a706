//! The history a checker judges: what clients saw, attempt by attempt.
//!
//! It holds plain records and nothing from inside the system under test: no
//! timestamps, no log positions, no node names. It refuses to interpret them;
//! whether a record makes sense is decided by the stages that read it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The object a read or a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey(pub u128);

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:x}", self.0)
    }
}

/// The mark a client puts into a version it writes, unique among all versions
/// of that object, aborted attempts included. One attempt may use the same
/// token for every object it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u64);

impl Token {
    /// The version an object has before the first recorded write: its content
    /// at the start of the history, or its absence. Nobody may write it.
    pub const INITIAL: Self = Self(0);
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::INITIAL { formatter.write_str("initial") } else { write!(formatter, "{}", self.0) }
    }
}

/// What the client was told about the end of its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The client was told that the transaction committed.
    Committed,
    /// The client was told that the transaction will never take effect.
    Aborted,
    /// The client was told nothing. The transaction may have taken effect, may
    /// still do so after its session has moved on, or may never.
    Unknown,
}

/// An external read: the client asked for an object it had not written itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRecord {
    /// The object asked for.
    pub object: ObjectKey,
    /// The version returned. After a delete this is the token the delete
    /// wrote, not [`Token::INITIAL`].
    pub token: Token,
}

/// A write, a creation or a delete. All are read-modify-writes, so the version
/// they replace is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteRecord {
    /// The object written.
    pub object: ObjectKey,
    /// The version overwritten; [`Token::INITIAL`] for a creation.
    pub predecessor: Token,
    /// The version written.
    pub token: Token,
}

/// One attempt at one transaction. A retry is another record, with new tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnRecord {
    /// The name reports use; need not be unique.
    pub label: String,
    /// The session that ran the attempt. A session runs one at a time.
    pub session: u32,
    /// The external reads. Several of one object are allowed and must agree.
    pub reads: Vec<ReadRecord>,
    /// The last write to each object written, at most one per object.
    pub writes: Vec<WriteRecord>,
    /// What the client was told.
    pub outcome: Outcome,
    /// Whether the client asked for serializability instead of snapshot
    /// isolation. Only [`check_serializable`](super::check_serializable)
    /// looks at it.
    pub serializable: bool,
}

/// Everything the clients of one run observed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The attempts. Those of one session stand in the order it ran them;
    /// the order between sessions means nothing.
    pub txns: Vec<TxnRecord>,
    /// The version of each object after the run, read when nothing was in
    /// flight any more. Every object with a committed write must be in it, a
    /// deleted one with the token of the delete.
    pub final_state: BTreeMap<ObjectKey, Token>,
}
