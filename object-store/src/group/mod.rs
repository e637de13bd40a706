//! One member's part in a replica group: consensus on its journal, and the state that is a fold over it.
//!
//! A leader applies an entry as it appends it, before it is stable; a follower applies what is stable and nothing else
//! (R7). A leader that is deposed rolls back to the watermark, so a member's state is always a prefix of the journal.
//! It refuses to send, to read a clock, and to decide who may write: locks are `txn`'s, places `directory`'s.

mod closed;
mod copying;

pub use closed::Closed;
pub use copying::{CopyDone, CopySlice, GroupMessage};

use crate::consensus::{CannotChange, Consensus, MemberId, Membership, Message, Promises, Settings};
use crate::state::{State, Stored};
use crate::{Entry, Fate};
use closed::ClosedTimes;
use copying::{CopyIn, CopyOut};
use driftmesh_model::{Epoch, Generation, GroupId, Lsn, Micros, ObjectId, Term};
use std::ops::{Deref, DerefMut};

/// A replica group, as one of its members sees it.
#[derive(Clone, Debug)]
pub struct Group {
    id: GroupId,
    consensus: Consensus<Entry>,
    state: State,
    copy_out: Option<CopyOut>,
    /// Copies that this member has begun to send.
    copies_begun: u64,
    copy_in: Option<CopyIn>,
    /// What was said of places by entries that were rolled back: each object with the group and the epoch.
    undone: Vec<(ObjectId, GroupId, Epoch)>,
    /// What arrived by entries that were rolled back, and at which epochs.
    unarrived: Vec<(ObjectId, Epoch)>,
    /// Why this member applies nothing any more.
    halted: Option<String>,
    /// At which snapshots the state can be read.
    closed: ClosedTimes,
    #[cfg(feature = "sabotage")]
    sabotage_close: bool,
}

/// What a member can answer about objects; it changes by entries of the journal alone.
impl Deref for Group {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

/// For pruning, which is no part of the journal.
impl DerefMut for Group {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Group {
    /// A new group, led by its founder, whose journal begins with the first term.
    #[must_use]
    pub fn found(id: GroupId, me: MemberId, settings: Settings, seed: u64, now: Micros) -> Self {
        let consensus = Consensus::found(me, settings, seed, now);
        let mut group = Self::with(id, consensus);
        // The first entry may be stable and gone already.
        group.state.apply_stable(Lsn::ZERO.next(), &Entry::TermStart { term: group.consensus.term() });
        group.settle(now);
        group
    }

    /// A group that this peer was told to follow, of which it knows nothing but what it promised when it followed it before.
    #[must_use]
    pub fn join(id: GroupId, me: MemberId, settings: Settings, seed: u64, now: Micros, promises: Promises) -> Self {
        Self::with(id, Consensus::join(me, settings, seed, now, promises))
    }

    fn with(id: GroupId, consensus: Consensus<Entry>) -> Self {
        Self {
            id,
            consensus,
            state: State::new(),
            copy_out: None,
            copies_begun: 0,
            copy_in: None,
            undone: Vec::new(),
            unarrived: Vec::new(),
            halted: None,
            closed: ClosedTimes::default(),
            #[cfg(feature = "sabotage")]
            sabotage_close: false,
        }
    }

    /// Breaks a rule of consensus from now on.
    #[cfg(feature = "sabotage")]
    pub const fn sabotage(&mut self, rule: crate::BrokenRule) {
        self.consensus.sabotage(rule);
    }

    /// Appends an entry to the journal and applies it. Returns its position.
    ///
    /// # Panics
    /// When this member does not lead, or the entry does not fit the state: callers look first.
    pub fn append(&mut self, now: Micros, entry: Entry) -> Lsn {
        let lsn = self.state.applied().next();
        if self.consensus.is_alone() {
            self.state.apply_stable(lsn, &entry);
        } else {
            self.state.apply(lsn, &entry);
        }
        let appended = self.consensus.append(now, entry);
        assert_eq!(appended, lsn, "a leader's state is the fold of its whole journal");
        if self.consensus.tail() > lsn {
            self.settle(now);
        }
        lsn
    }

    /// Takes in what another member said.
    pub fn received(&mut self, now: Micros, from: MemberId, message: GroupMessage) {
        match message {
            GroupMessage::Consensus(message) => self.consensus_received(now, from, message),
            GroupMessage::Slice(slice) => self.slice_received(from, slice),
            GroupMessage::CopyDone(done) => self.copy_done(now, from, done),
            GroupMessage::Closed(closed) => self.closed_told(now, from, &closed),
            GroupMessage::SliceTaken { copy, at, number } => {
                if let Some(out) = &mut self.copy_out {
                    out.taken(now, from, (copy, at), number);
                    self.copy_on(now);
                }
            }
        }
    }

    fn consensus_received(&mut self, now: Micros, from: MemberId, message: Message<Entry>) {
        if self.consensus.would_depose(&message) {
            // R9: what only this leader acted on is not the group's.
            self.roll_back();
        }
        self.consensus.handle(now, from, message);
        self.settle(now);
    }

    /// Applies all that this member holds, stable or not: what the group would be if it were founded anew from here. To be
    /// followed by [`Group::refound`] or by [`Group::give_up_tail`] in the same step (R7).
    pub fn apply_all(&mut self) {
        self.apply_up_to(self.consensus.tail());
    }

    /// Undoes what [`Group::apply_all`] did. Nobody was told of it.
    pub fn give_up_tail(&mut self) {
        if !self.consensus.is_leading() {
            self.roll_back_for_a_moment();
        }
    }

    /// Undoes what is not stable and says nothing of it: it is done again at once, or nobody was told of it.
    pub(crate) fn roll_back_for_a_moment(&mut self) {
        let before = (std::mem::take(&mut self.undone), std::mem::take(&mut self.unarrived));
        self.roll_back();
        (self.undone, self.unarrived) = before;
    }

    /// What the group was before this generation is over; see [`Consensus::supersede`]. A member that leads a former one
    /// leads no more, and what only it acted on is undone (R9).
    pub fn supersede(&mut self, now: Micros, generation: Generation) {
        if generation > self.generation() {
            self.roll_back();
            self.consensus.supersede(now, generation);
            self.settle(now);
        }
    }

    /// The highest generation that an object here has been in. Looks at all of them.
    #[must_use]
    pub fn highest_generation(&self) -> Generation {
        let owned = self.owned_slice(0, usize::MAX).0.map(|(_, stored)| stored.epoch);
        let leaving = self.all_unsettled().map(|(_, _, transit)| transit.epoch);
        owned.chain(leaving).map(Epoch::generation).max().unwrap_or_default().max(self.generation())
    }

    /// The epoch of an object that the group owns: above all that a former generation of the group can have said of it (R2).
    #[must_use]
    pub const fn epoch_of(&self, stored: &Stored) -> Epoch {
        stored.epoch.of_generation(self.generation())
    }

    /// Founds the group anew from what this member holds, which must not be halted; see [`Consensus::refound`].
    pub fn refound(&mut self, now: Micros, generation: Generation, membership: Membership) {
        self.copy_in = None;
        self.consensus.refound(now, generation, membership);
        self.settle(now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Micros) {
        self.consensus.tick(now);
        self.settle(now);
    }

    /// When `tick` or `take_messages` has something to do next, monotonic.
    #[must_use]
    pub fn next_tick(&self) -> Option<Micros> {
        let copy = self.copy_out.as_ref().and_then(CopyOut::next_tick);
        [self.consensus.next_tick(), copy].into_iter().flatten().min()
    }

    /// Takes what this member wants said to others. Entries wait for the batching interval, unless `urgent`.
    pub fn take_messages(&mut self, now: Micros, urgent: bool) -> Vec<(MemberId, GroupMessage)> {
        let messages = self.consensus.take_messages(now, urgent);
        let mut messages: Vec<_> =
            messages.into_iter().map(|(to, message)| (to, GroupMessage::Consensus(message))).collect();
        if let Some(copy) = &mut self.copy_out {
            messages.append(&mut copy.take_messages());
        }
        if let Some(copy) = &mut self.copy_in {
            messages.append(&mut copy.take_messages());
        }
        messages
    }

    /// Brings the state to where consensus stands.
    fn settle(&mut self, now: Micros) {
        if self.consensus.take_emptied() {
            self.state = State::new();
            self.copy_in = None;
            self.halted = None;
            self.consensus.set_fit(now, true);
            self.closed = ClosedTimes::default();
        }
        if !self.consensus.is_leading() {
            // R7: a state never holds more than what is stable, unless its member leads.
            self.roll_back();
            self.end_copy_out();
        }
        self.apply_on();
        if self.halted.is_some() {
            self.consensus.set_fit(now, false);
            self.roll_back();
        }
        let applied = self.state.applied();
        self.state.stable(self.consensus.watermark().min(applied));
        self.advance_closed();
        self.consensus.trim(applied);
        self.copy_on(now);
    }

    /// Applies what the journal holds: all of it at a leader, else what is stable.
    pub(crate) fn apply_on(&mut self) {
        let limit = if self.consensus.is_leading() { self.consensus.tail() } else { self.consensus.watermark() };
        self.apply_up_to(limit);
    }

    fn apply_up_to(&mut self, limit: Lsn) {
        while self.state.applied() < limit && self.halted.is_none() {
            let next = self.state.applied().next();
            let Some(entry) = self.consensus.entry(next).cloned() else { break };
            if let Err(bad) = self.state.check(&entry) {
                // R25: an entry that does not fit stops this member's part in the group, not the process.
                self.halted = Some(format!("entry {next} of group {} does not fit: {bad}", self.id));
                break;
            }
            self.state.apply(next, &entry);
        }
    }

    /// Undoes what is not stable, newest first.
    pub(crate) fn roll_back(&mut self) {
        while self.state.applied() > self.consensus.watermark() {
            let last = self.state.applied();
            let Some(entry) = self.consensus.entry(last).cloned() else { return };
            self.state.undo(last, &entry);
            self.note_undone(&entry);
        }
    }

    fn note_undone(&mut self, entry: &Entry) {
        match entry {
            Entry::TransferOut { to, departures, .. } => {
                self.undone.extend(departures.iter().map(|departure| (departure.object, *to, departure.epoch)));
            }
            Entry::TakenBack { to, number } => {
                let transit = self.state.unsettled(*to, *number);
                self.undone.extend(transit.map(|transit| (transit.object, self.id, transit.epoch.next())));
            }
            // R3: what arrived here and did not after all is on its way here all the same: grants leave when the departure
            // is stable, so that other groups' pointers to here stay true.
            Entry::TransferIn { arrivals, .. } => {
                self.unarrived.extend(arrivals.iter().map(|arrival| (arrival.object, arrival.epoch)));
            }
            Entry::TermStart { .. }
            | Entry::Commit { .. }
            | Entry::Handed { .. }
            | Entry::Refused { .. }
            | Entry::Window { .. }
            | Entry::Members(_)
            | Entry::Retired
            | Entry::Imported { .. } => {}
        }
    }

    /// Rolls back what is not stable: this member has learnt that it does not lead, though not by consensus (R9).
    pub fn give_up(&mut self) {
        self.roll_back();
    }

    /// Takes what entries that were rolled back had said of places: objects, each with the group and the epoch that are
    /// not true.
    pub fn take_undone(&mut self) -> Vec<(ObjectId, GroupId, Epoch)> {
        std::mem::take(&mut self.undone)
    }

    /// Takes what arrived by entries that were rolled back: objects on their way here, each with the epoch that it will have.
    pub fn take_unarrived(&mut self) -> Vec<(ObjectId, Epoch)> {
        std::mem::take(&mut self.unarrived)
    }

    /// How much room all objects here take, those of a copy that is being taken in included, bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state.held() + self.copy_in.as_ref().map_or(0, CopyIn::held)
    }

    /// The same by a look at each of them: for tests and checkers.
    #[must_use]
    pub fn held_by_a_walk(&self) -> usize {
        self.state.held_by_a_walk() + self.copy_in.as_ref().map_or(0, CopyIn::held)
    }

    /// The group's id.
    #[must_use]
    pub const fn id(&self) -> GroupId {
        self.id
    }

    /// The group's generation.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.consensus.generation()
    }

    /// The present leadership period.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.consensus.term()
    }

    /// Who leads, who belongs, how far the journal is.
    #[must_use]
    pub const fn consensus(&self) -> &Consensus<Entry> {
        &self.consensus
    }

    /// Whether this member leads the group, as far as it knows.
    #[must_use]
    pub const fn is_leading(&self) -> bool {
        self.consensus.is_leading()
    }

    /// The position of the last entry.
    #[must_use]
    pub fn tail(&self) -> Lsn {
        self.consensus.tail()
    }

    /// Everything up to here is stable.
    #[must_use]
    pub const fn watermark(&self) -> Lsn {
        self.consensus.watermark()
    }

    /// The kept entries from a position on, each with its position.
    pub fn entries_from(&self, from: Lsn) -> impl Iterator<Item = (Lsn, &Entry)> {
        self.consensus.entries_from(from)
    }

    /// What became of the entry at a position of a term (R22).
    #[must_use]
    pub fn fate(&self, term: Term, lsn: Lsn) -> Fate {
        self.state.fate(term, lsn, self.consensus.watermark())
    }

    /// Why this member applies nothing any more, if so.
    #[must_use]
    pub fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    /// Proposes who shall belong to the group; see [`Consensus::propose`].
    ///
    /// # Errors
    /// When this member does not lead, or the last change is not stable yet.
    pub fn propose(&mut self, now: Micros, membership: Membership) -> Result<(), CannotChange> {
        self.consensus.propose(now, membership)?;
        self.settle(now);
        Ok(())
    }

    /// The transport says that a peer is out of reach; if it led, it is not waited for.
    pub fn member_is_gone(&mut self, now: Micros, member: MemberId) {
        if self.consensus.leader() == Some(member) && !self.is_leading() {
            self.consensus.leader_is_gone(now);
        }
    }
}
