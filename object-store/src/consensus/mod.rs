//! Consensus on the journal of one group: who leads, who belongs, which entries are stable.
//!
//! The protocol is Raft (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014) with a trial
//! round before elections (Ongaro's thesis, 9.6), joint changes of the members, and learners. It differs in one thing:
//! a leader does not wait. An entry has its position at once, and its leader may act on it inside of the group; that a
//! majority holds it is known later, as the watermark. Members keep everything in memory, so an incarnation that ended
//! never comes back (R11).
//!
//! Nobody outside of this folder knows the protocol. It refuses to know what entries mean, to apply or roll back
//! anything, to send, and to read a clock: time and the seed of its choices come in, messages go out. See decision 0016.

mod batch;
mod election;
mod follower;
mod leader;
mod log;
mod membership;
mod message;
mod refound;
mod sabotage;

pub use batch::Batch;
pub use membership::{MemberId, Membership};
pub use message::{Body, Message};
pub use refound::is_sound_period;
pub use sabotage::BrokenRule;

use driftmesh_model::{Generation, Lsn, Micros, SplitMix, Term};
use election::Election;
use follower::Following;
use leader::Leadership;
use log::Log;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

/// What consensus must know of the entries it orders.
pub trait LogEntry {
    /// The first entry of a leader.
    fn term_start(term: Term) -> Self;
    /// The entry that changes the members.
    fn members(membership: Membership) -> Self;
    /// The members, if the entry changes them.
    fn membership(&self) -> Option<&Membership>;
    /// About how much it weighs, bytes.
    fn cost(&self) -> usize;
}

/// How a member behaves in time. All of a group should agree, though nothing but speed depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// A leader that has nothing to say is heard this often.
    pub heartbeat: Micros,
    /// A voter that hears nothing for this long, and up to `election_spread` longer, tries to be elected.
    pub election_after: Micros,
    /// The random part of that time.
    pub election_spread: Micros,
    /// Entries wait so long for others to share their message.
    pub batch_every: Micros,
    /// About how many bytes of entries one message carries.
    pub batch_bytes: u64,
    /// How many bytes may be under way to one follower (R24).
    pub in_flight_bytes: u64,
    /// What a follower says that it lacks is sent again, but not more often than this.
    pub resend_after: Micros,
    /// What was sent and not acknowledged is sent again after this, though nobody misses it: a follower that only is
    /// slow must not be given more to do.
    pub resend_unasked_after: Micros,
    /// A learner that is silent for so long leaves the sync set of a single voter.
    pub sync_grace: Micros,
    /// Stable entries kept for members that lag a little, bytes.
    pub keep_bytes: u64,
    /// Entries kept for a member that lags a lot, bytes; beyond, it gets a copy of the state (R24).
    pub lag_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Micros::from_millis(60),
            election_after: Micros::from_millis(400),
            election_spread: Micros::from_millis(200),
            batch_every: Micros::from_millis(1),
            batch_bytes: 32 << 10,
            in_flight_bytes: 4 << 20,
            resend_after: Micros::from_millis(100),
            resend_unasked_after: Micros::from_millis(1_000),
            sync_grace: Micros::from_millis(1_000),
            keep_bytes: 1 << 20,
            lag_bytes: 64 << 20,
        }
    }
}

impl Settings {
    /// How often a follower that hears nothing looks whether it is in time itself.
    const fn look_every(&self) -> Micros {
        Micros(self.heartbeat.0.saturating_mul(2))
    }

    /// From such a delay on it stood still.
    const fn late_from(&self) -> Micros {
        Micros(self.heartbeat.0 / 4)
    }

    /// How often a leader is heard at least: seldom if few answer it, so that others stand for election in between.
    const fn sign_of_life(&self, silent: bool) -> Micros {
        if silent { Micros(self.election_after.0.saturating_mul(4)) } else { self.heartbeat }
    }
}

/// No position of a sound member is so high (R25).
const PERIOD_END: u64 = u64::MAX / 2;

/// A lead: a higher one outranks. The generation orders before the term.
type Period = (Generation, Term);

#[derive(Clone)]
enum Role<E> {
    /// Follows whoever leads, or nobody yet.
    Following(Following<E>),
    Electing(Election),
    Leading(Leadership),
}

/// What a member owes to its group even after it has dropped the journal: that it held entries up to somewhere, and
/// whom it voted for. Whoever follows the same group again as the same incarnation begins with it (R11).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Promises {
    period: Period,
    voted_for: Option<MemberId>,
    /// The term and position of the last entry that it ever acknowledged.
    last: (Term, Lsn),
}

/// Why a change of the members cannot be proposed now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CannotChange {
    /// Only a leader can.
    #[error("this member does not lead the group")]
    NotLeading,
    /// The last change, or the leader's first entry, is not stable yet: one change at a time (R11).
    #[error("the last change of the members is not stable yet")]
    Pending,
    /// A group without voters could never agree on anything again.
    #[error("a group needs a voter")]
    NoVoters,
    /// A new member counts only after full catch-up (R11).
    #[error("somebody who would count lacks too much of the journal")]
    NotCaughtUp,
}

/// One member's part in a group's consensus.
#[derive(Clone)]
pub struct Consensus<E> {
    me: MemberId,
    settings: Settings,
    generation: Generation,
    term: Term,
    voted_for: Option<MemberId>,
    /// The last entry that it held before it dropped the journal, if it did.
    promised: (Term, Lsn),
    role: Role<E>,
    log: Log<E>,
    watermark: Lsn,
    /// Who belongs, by the entry that says so; the first one is stable, the last one counts.
    memberships: VecDeque<(Lsn, Membership)>,
    /// The last membership is one voter without anybody: what it appends is stable at once.
    alone: bool,
    /// Told by a voter that the group goes on without this member.
    excluded: bool,
    /// What this member holds cannot be applied here: it leads nobody.
    unfit: bool,
    /// The generation that the journal is known to be of. While a higher one is known this member counts for nothing.
    held: Generation,
    /// Everything held was of a former generation and is gone since this was asked last.
    emptied: bool,
    out: Vec<(MemberId, Message<E>)>,
    random: SplitMix,
    #[cfg(feature = "sabotage")]
    broken: Option<BrokenRule>,
}

impl<E: LogEntry> fmt::Debug for Consensus<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Consensus")
            .field("me", &self.me)
            .field("generation", &self.generation)
            .field("term", &self.term)
            .field("leader", &self.leader())
            .field("watermark", &self.watermark)
            .finish_non_exhaustive()
    }
}

impl<E: LogEntry> Consensus<E> {
    /// A new group, led by its only member. Its journal begins with the first term.
    #[must_use]
    pub fn found(me: MemberId, settings: Settings, seed: u64, now: Micros) -> Self {
        let mut this = Self::empty(me, settings, seed, now);
        this.memberships = VecDeque::from([(Lsn::ZERO, Membership::alone(me))]);
        this.alone = true;
        this.term = Term::ZERO.next();
        this.lead(now);
        this
    }

    /// A member that knows nothing of its group yet: whoever leads it will say. If it has belonged to the group before and
    /// dropped its journal, it keeps its promises.
    #[must_use]
    pub fn join(me: MemberId, settings: Settings, seed: u64, now: Micros, promises: Promises) -> Self {
        let mut this = Self::empty(me, settings, seed, now);
        (this.generation, this.term) = promises.period;
        this.voted_for = promises.voted_for;
        this.promised = promises.last;
        this
    }

    /// What this member goes on owing to its group when it drops the journal.
    pub fn promises(&self) -> Promises {
        let last = (self.log.tail_term(), self.log.tail()).max(self.promised);
        Promises { period: self.period(), voted_for: self.voted_for, last }
    }

    fn empty(me: MemberId, settings: Settings, seed: u64, now: Micros) -> Self {
        let mut this = Self {
            me,
            settings,
            generation: Generation::ZERO,
            term: Term::ZERO,
            voted_for: None,
            promised: (Term::ZERO, Lsn::ZERO),
            role: Role::Following(Following::new(now, now, Lsn::ZERO)),
            log: Log::new(),
            watermark: Lsn::ZERO,
            memberships: VecDeque::from([(Lsn::ZERO, Membership::default())]),
            alone: false,
            excluded: false,
            unfit: false,
            held: Generation::ZERO,
            emptied: false,
            out: Vec::new(),
            random: SplitMix::of_seed(seed),
            #[cfg(feature = "sabotage")]
            broken: None,
        };
        this.follow(now, None);
        this
    }

    /// Who this member is.
    pub const fn me(&self) -> MemberId {
        self.me
    }

    /// The group's generation, as far as this member knows.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The present leadership period, as far as this member knows.
    pub const fn term(&self) -> Term {
        self.term
    }

    /// Whether this member leads, as far as it knows.
    pub const fn is_leading(&self) -> bool {
        matches!(self.role, Role::Leading(_))
    }

    /// Who leads, as far as this member knows.
    pub const fn leader(&self) -> Option<MemberId> {
        match &self.role {
            Role::Leading(_) => Some(self.me),
            Role::Following(following) => following.leader,
            Role::Electing(_) => None,
        }
    }

    /// The position of the last entry that this member holds.
    pub fn tail(&self) -> Lsn {
        self.log.tail()
    }

    /// Everything up to here is stable.
    pub const fn watermark(&self) -> Lsn {
        self.watermark
    }

    /// The position before the first entry that this member still keeps.
    pub const fn base(&self) -> Lsn {
        self.log.base()
    }

    /// The entry at a position, if it is kept.
    pub fn entry(&self, lsn: Lsn) -> Option<&Arc<E>> {
        self.log.entry(lsn)
    }

    /// The term of the entry at a position, if that is known.
    pub fn term_at(&self, lsn: Lsn) -> Option<Term> {
        self.log.term_at(lsn)
    }

    /// The kept entries from a position on, each with its position.
    pub fn entries_from(&self, from: Lsn) -> impl Iterator<Item = (Lsn, &E)> {
        self.log.entries_from(from)
    }

    /// Who belongs to the group, by the newest entry; it counts from the moment it is held.
    pub fn membership(&self) -> &Membership {
        &self.memberships.back().expect("there is always one").1
    }

    /// The newest entry that says who belongs, and what it says.
    pub fn newest_membership(&self) -> &(Lsn, Membership) {
        self.memberships.back().expect("there is always one")
    }

    /// Who belongs to the group, by the newest stable entry.
    pub fn stable_membership(&self) -> &(Lsn, Membership) {
        let stable = self.memberships.iter().rev().find(|(lsn, _)| *lsn <= self.watermark);
        stable.unwrap_or_else(|| self.memberships.front().expect("there is always one"))
    }

    /// Whether this is a group of one, whose entries are stable at once.
    pub const fn is_alone(&self) -> bool {
        self.alone
    }

    /// How many members hold an entry at least, if it is stable.
    pub fn copies(&self, lsn: Lsn) -> usize {
        let membership = self.membership();
        if self.is_leading() {
            let holds = |member: &&MemberId| self.follower(member, Micros(0)).is_some_and(|(held, _)| held >= lsn);
            // A leader that hands its group over does not count any more.
            return usize::from(membership.contains(&self.me)) + self.others().iter().filter(holds).count();
        }
        // A follower knows no more than that it took a majority.
        membership.voters.len() / 2 + 1
    }

    /// Whether a voter said that the group goes on without this member.
    pub const fn is_excluded(&self) -> bool {
        self.excluded
    }

    /// How many bytes are not stable, and when the oldest of them was appended, monotonic (R10).
    pub fn unstable(&self) -> (u64, Option<Micros>) {
        let bytes = self.log.bytes_between(self.watermark, self.log.tail());
        (bytes, self.log.taken_at(self.watermark.next()))
    }

    /// Whether a message will end this member's lead. What it has acted on beyond the watermark must be rolled back
    /// before the message is handled.
    pub fn would_depose(&self, message: &Message<E>) -> bool {
        let (generation, term) = message.period();
        self.is_leading() && is_sound_period(generation, term) && message.period() > self.period()
    }

    /// Takes in a message of another member. Never fails: what makes no sense is dropped (R25).
    pub fn handle(&mut self, now: Micros, from: MemberId, message: Message<E>) {
        let (theirs, ours) = (message.period(), self.period());
        if !is_sound_period(theirs.0, theirs.1) {
            // R25: no group comes so far, and none could go on from there.
            return;
        }
        if theirs < ours && !self.breaks(BrokenRule::Fence) {
            // R9: a lower term is refused, and its sender learns of the higher one.
            match message.body {
                Body::Append { .. } => self.say(from, Body::Refused { hint: Lsn::ZERO }),
                Body::Vote { trial, .. } => self.say(from, Body::Voted { granted: false, trial }),
                Body::Appended { .. } | Body::Refused { .. } | Body::Voted { .. } | Body::Excluded { .. } => {}
            }
            return;
        }
        if theirs > ours || (theirs < ours && self.breaks(BrokenRule::Fence) && !self.is_leading()) {
            (self.generation, self.term) = theirs;
            self.voted_for = None;
            self.follow(now, None);
        }
        match message.body {
            Body::Append { previous, previous_term, batch, watermark } => {
                self.append_received(now, from, (previous, previous_term), &batch, watermark);
            }
            Body::Appended { matched } => self.appended(now, from, matched),
            Body::Refused { hint } => self.refused(now, from, hint),
            Body::Vote { last, last_term, trial } => self.vote_asked(now, from, (last_term, last), trial),
            Body::Voted { granted, trial } => self.voted(now, from, granted, trial),
            Body::Excluded { since } => {
                // R11: only what is as new as what this member knows can exclude it, and who leads it knows best. One
                // that never heard that it belongs has yet to catch up to where it was added.
                let may_know = self.leader() == Some(from) || !self.hears_a_leader(now);
                let belonged = self.memberships.iter().any(|(_, membership)| membership.contains(&self.me));
                let is_news = self.memberships.back().is_some_and(|(lsn, _)| since >= *lsn);
                if may_know && (self.is_of_the_past() || (belonged && is_news)) {
                    self.excluded = true;
                }
            }
        }
    }

    /// Whether this member's state follows its journal. One that cannot go on applying leads no more, and stands for no
    /// election; it still votes, and holds what others may need.
    pub fn set_fit(&mut self, now: Micros, is_fit: bool) {
        self.unfit = !is_fit;
        if self.unfit && !matches!(self.role, Role::Following(_)) {
            self.follow(now, None);
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Micros) {
        self.note_standstill(now);
        match &self.role {
            Role::Leading(_) => self.lead_on(now),
            Role::Following(following) if now >= following.election_due => self.stand(now),
            Role::Electing(election) if now >= election.again_at => self.stand(now),
            Role::Following(_) | Role::Electing(_) => {}
        }
    }

    /// When `tick`, or `take_messages`, has something to do next, monotonic.
    pub fn next_tick(&self) -> Option<Micros> {
        match &self.role {
            Role::Leading(leadership) => self.next_of_leader(leadership),
            Role::Following(following) => {
                (!self.membership().voters.is_empty()).then_some(following.election_due.min(following.look_due))
            }
            Role::Electing(election) => Some(election.again_at),
        }
    }

    /// Whether this member has something to say besides entries and signs of life.
    pub const fn has_words(&self) -> bool {
        !self.out.is_empty()
    }

    /// Takes what this member wants said to others. Entries wait for the batching interval, unless `urgent`.
    pub fn take_messages(&mut self, now: Micros, urgent: bool) -> Vec<(MemberId, Message<E>)> {
        if self.is_leading() && !self.alone {
            self.send_entries(now, urgent);
        }
        std::mem::take(&mut self.out)
    }

    /// Drops stable entries that nobody needs: applied here up to `applied`, held by all members or copied for them.
    pub fn trim(&mut self, applied: Lsn) {
        let done = applied.min(self.watermark);
        let needed = self.needed_by_followers().unwrap_or(done).min(done);
        // Who is alone keeps nothing for others, but for a host that wants to see everything.
        let keep = if self.alone && self.settings.keep_bytes != u64::MAX { 0 } else { self.settings.keep_bytes };
        self.log.trim(needed, keep);
        self.log.trim(done, self.settings.lag_bytes);
        while self.memberships.len() > 1 && self.memberships[1].0 <= self.watermark {
            self.memberships.pop_front();
        }
    }

    const fn period(&self) -> Period {
        (self.generation, self.term)
    }

    fn say(&mut self, to: MemberId, body: Body<E>) {
        self.out.push((to, Message { generation: self.generation, term: self.term, body }));
    }

    /// Takes an entry into the log; one that changes the members counts from now on.
    fn take_in(&mut self, term: Term, entry: Arc<E>, at: Micros) -> Lsn {
        let membership = entry.membership().cloned();
        let lsn = self.log.push(term, entry, at);
        if let Some(membership) = membership {
            self.memberships.push_back((lsn, membership));
            self.renew_alone();
        }
        lsn
    }

    fn renew_alone(&mut self) {
        let membership = self.membership();
        self.alone = membership.is_alone() && membership.voters.contains(&self.me);
    }

    /// Follows somebody, or nobody yet.
    fn follow(&mut self, now: Micros, leader: Option<MemberId>) {
        let due = self.election_due(now);
        let mut following = Following::new(now, due, self.watermark);
        (following.leader, following.look_due) = (leader, now.plus(self.settings.look_every()));
        self.role = Role::Following(following);
    }

    fn election_due(&mut self, now: Micros) -> Micros {
        let spread = self.draw(self.settings.election_spread.0);
        now.plus(self.settings.election_after).plus(Micros(spread))
    }

    /// A number below `bound`, from the seed.
    fn draw(&mut self, bound: u64) -> u64 {
        self.random.draw() % bound.max(1)
    }

    /// Members other than this one.
    fn others(&self) -> BTreeSet<MemberId> {
        let mut members = self.membership().members();
        members.remove(&self.me);
        members
    }
}
