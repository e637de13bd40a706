//! What the members of a group say to each other.

use super::{Batch, LogEntry};
use driftmesh_model::{Generation, Lsn, Term};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A message of one member to another, with the sender's generation and term.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "E: Serialize + LogEntry", deserialize = "E: DeserializeOwned"))]
pub struct Message<E> {
    /// The group's generation, as the sender knows it.
    pub generation: Generation,
    /// The term, as the sender knows it.
    pub term: Term,
    /// What is said.
    pub body: Body<E>,
}

impl<E> Message<E> {
    /// Generation and term: what a higher one outranks.
    #[must_use]
    pub const fn period(&self) -> (Generation, Term) {
        (self.generation, self.term)
    }
}

/// What is said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "E: Serialize + LogEntry", deserialize = "E: DeserializeOwned"))]
pub enum Body<E> {
    /// The leader's entries after a position, or none as a sign of life.
    Append {
        /// The position before the first entry.
        previous: Lsn,
        /// The term of the entry there: only a journal that has the same one may take the entries (log matching).
        previous_term: Term,
        /// The entries.
        batch: Batch<E>,
        /// What the leader knows to be stable.
        watermark: Lsn,
    },
    /// The follower's journal is the leader's up to here.
    Appended {
        /// The position.
        matched: Lsn,
    },
    /// The entry before the sent ones is not there, or of another term.
    Refused {
        /// Where the two journals may still agree, at most.
        hint: Lsn,
    },
    /// Asks for a vote.
    Vote {
        /// The position of the sender's last entry.
        last: Lsn,
        /// Its term.
        last_term: Term,
        /// Only asks whether it would be given; no term begins.
        trial: bool,
    },
    /// Answers that.
    Voted {
        /// Whether the vote was, or would be, given.
        granted: bool,
        /// Whether it was only asked for a trial.
        trial: bool,
    },
    /// The receiver does not belong to the group any more.
    Excluded {
        /// The stable entry that says so.
        since: Lsn,
    },
}
