//! The consensus of this crate, behind the suite's port.

use crate::port::{Copied, Period, Port, TestEntry};
use driftmesh_model::{Lsn, Micros, Term, codec};
use driftmesh_object_store::{Body, Consensus, LogEntry, MemberId, Membership, Message, Promises, Settings};

pub(crate) type Ours = Consensus<TestEntry>;

impl LogEntry for TestEntry {
    fn term_start(term: Term) -> Self {
        Self::Start(term)
    }

    fn members(membership: Membership) -> Self {
        Self::Members(Box::new(membership))
    }

    fn membership(&self) -> Option<&Membership> {
        match self {
            Self::Members(membership) => Some(membership),
            Self::Start(_) | Self::Value { .. } => None,
        }
    }

    fn cost(&self) -> usize {
        usize::try_from(self.weight()).unwrap()
    }
}

impl Port for Ours {
    type Message = Message<TestEntry>;

    fn found(me: MemberId, settings: Settings, seed: u64, now: Micros) -> Self {
        Self::found(me, settings, seed, now)
    }

    fn join(me: MemberId, settings: Settings, seed: u64, now: Micros) -> Self {
        Self::join(me, settings, seed, now, Promises::default())
    }

    fn join_again(&self, settings: Settings, seed: u64, now: Micros) -> Self {
        Self::join(self.me(), settings, seed, now, self.promises())
    }

    fn append(&mut self, now: Micros, entry: TestEntry) -> Option<Lsn> {
        self.is_leading().then(|| Self::append(self, now, entry))
    }

    fn handle(&mut self, now: Micros, from: MemberId, message: Self::Message) {
        Self::handle(self, now, from, message);
    }

    fn would_depose(&self, message: &Self::Message) -> bool {
        Self::would_depose(self, message)
    }

    fn tick(&mut self, now: Micros) {
        Self::tick(self, now);
    }

    fn next_tick(&self) -> Option<Micros> {
        Self::next_tick(self)
    }

    fn take_messages(&mut self, now: Micros, urgent: bool) -> Vec<(MemberId, Self::Message)> {
        Self::take_messages(self, now, urgent)
    }

    fn is_leading(&self) -> bool {
        Self::is_leading(self)
    }

    fn leader(&self) -> Option<MemberId> {
        Self::leader(self)
    }

    fn period(&self) -> Period {
        (self.generation(), self.term())
    }

    fn base(&self) -> Lsn {
        Self::base(self)
    }

    fn tail(&self) -> Lsn {
        Self::tail(self)
    }

    fn watermark(&self) -> Lsn {
        Self::watermark(self)
    }

    fn term_at(&self, lsn: Lsn) -> Option<Term> {
        Self::term_at(self, lsn)
    }

    fn entry(&self, lsn: Lsn) -> Option<TestEntry> {
        Self::entry(self, lsn).map(|entry| TestEntry::clone(entry))
    }

    fn trim(&mut self, applied: Lsn) {
        Self::trim(self, applied);
    }

    fn membership(&self) -> Membership {
        Self::membership(self).clone()
    }

    fn stable_membership(&self) -> (Lsn, Membership) {
        Self::stable_membership(self).clone()
    }

    fn may_change(&self) -> bool {
        Self::may_change(self)
    }

    fn propose(&mut self, now: Micros, target: Membership) -> bool {
        Self::propose(self, now, target).is_ok()
    }

    fn is_excluded(&self) -> bool {
        Self::is_excluded(self)
    }

    fn held_by(&self, member: &MemberId, now: Micros) -> Option<(Lsn, Micros)> {
        Self::follower(self, member, now)
    }

    fn copies(&self, lsn: Lsn) -> usize {
        Self::copies(self, lsn)
    }

    fn wants_copy(&self) -> Option<MemberId> {
        Self::wants_copy(self)
    }

    fn needs_copy(&self, member: &MemberId) -> bool {
        Self::needs_copy(self, member)
    }

    fn keep_after(&mut self, at: Option<Lsn>) {
        Self::keep_after(self, at);
    }

    fn newest_membership(&self) -> (Lsn, Membership) {
        Self::newest_membership(self).clone()
    }

    fn installed(&mut self, now: Micros, copied: Copied) {
        Self::installed(self, now, copied.at, copied.at_term, copied.membership);
    }

    fn load_of(message: &Self::Message) -> (usize, u64) {
        match &message.body {
            Body::Append { batch, .. } => {
                let weight = batch.entries().iter().map(|(_, entry)| entry.weight()).sum();
                (batch.entries().len(), weight)
            }
            Body::Appended { .. }
            | Body::Refused { .. }
            | Body::Vote { .. }
            | Body::Voted { .. }
            | Body::Excluded { .. } => (0, 0),
        }
    }

    fn carried(message: &Self::Message) -> Self::Message {
        codec::decode(&codec::encode(message).unwrap()).unwrap()
    }
}
