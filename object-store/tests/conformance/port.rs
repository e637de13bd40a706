//! What the suite needs of a consensus: the port, in the suite's words.

use driftmesh_model::{Generation, Lsn, Micros, Term};
use driftmesh_object_store::{MemberId, Membership, Settings};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A lead: generation, then term.
pub(crate) type Period = (Generation, Term);

/// What the suite puts into journals.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum TestEntry {
    /// A leader's first entry.
    Start(Term),
    /// Who belongs.
    Members(Box<Membership>),
    /// What somebody appended.
    Value {
        /// Who did.
        by: MemberId,
        /// Which of all values of the run.
        number: u64,
        /// As how heavy it counts, bytes.
        weight: u64,
    },
}

impl TestEntry {
    pub(crate) const fn weight(&self) -> u64 {
        match self {
            Self::Start(_) => 64,
            Self::Members(_) => 256,
            Self::Value { weight, .. } => *weight,
        }
    }
}

/// A copy of the state as of an entry: the suite's states are empty.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    pub(crate) period: Period,
    pub(crate) at: Lsn,
    pub(crate) at_term: Term,
    pub(crate) membership: (Lsn, Membership),
}

/// A consensus on one group's journal, as one member takes part in it.
pub(crate) trait Port: Sized + fmt::Debug {
    type Message: Clone + fmt::Debug;

    fn found(me: MemberId, settings: Settings, seed: u64, now: Micros) -> Self;
    fn join(me: MemberId, settings: Settings, seed: u64, now: Micros) -> Self;

    /// The same member, which dropped its journal and follows again: it keeps its promises (R11).
    fn join_again(&self, settings: Settings, seed: u64, now: Micros) -> Self;

    /// Only a leader appends.
    fn append(&mut self, now: Micros, entry: TestEntry) -> Option<Lsn>;
    fn handle(&mut self, now: Micros, from: MemberId, message: Self::Message);
    fn would_depose(&self, message: &Self::Message) -> bool;
    fn tick(&mut self, now: Micros);
    fn next_tick(&self) -> Option<Micros>;
    fn take_messages(&mut self, now: Micros, urgent: bool) -> Vec<(MemberId, Self::Message)>;

    fn is_leading(&self) -> bool;
    fn leader(&self) -> Option<MemberId>;
    fn period(&self) -> Period;
    fn base(&self) -> Lsn;
    fn tail(&self) -> Lsn;
    fn watermark(&self) -> Lsn;
    fn term_at(&self, lsn: Lsn) -> Option<Term>;
    fn entry(&self, lsn: Lsn) -> Option<TestEntry>;
    fn trim(&mut self, applied: Lsn);

    fn membership(&self) -> Membership;
    /// The newest stable entry that says who belongs.
    fn stable_membership(&self) -> (Lsn, Membership);
    fn may_change(&self) -> bool;
    fn propose(&mut self, now: Micros, target: Membership) -> bool;
    fn is_excluded(&self) -> bool;
    /// What a follower holds and how long it is silent, as its leader knows.
    fn held_by(&self, member: &MemberId, now: Micros) -> Option<(Lsn, Micros)>;
    fn copies(&self, lsn: Lsn) -> usize;

    fn wants_copy(&self) -> Option<MemberId>;
    fn needs_copy(&self, member: &MemberId) -> bool;
    fn keep_after(&mut self, at: Option<Lsn>);
    /// The newest entry that says who belongs.
    fn newest_membership(&self) -> (Lsn, Membership);
    fn installed(&mut self, now: Micros, copied: Copied);

    /// The entries in a message and what they weigh, bytes.
    fn load_of(message: &Self::Message) -> (usize, u64);
    /// The message as it arrives: encoded and decoded again.
    fn carried(message: &Self::Message) -> Self::Message;
}
