//! Copies of a group's state for members that lack too much of the journal: in slices, exact as of one entry, while
//! commits go on.
//!
//! The leader sends a few slices ahead of their acknowledgements, and at the end how many there were, once the entry
//! that the copy ends with is stable. A copy belongs to one lead: when that ends, the next leader begins anew.

use super::Closed;
use crate::consensus::{MemberId, Membership, Message};
use crate::state::{BadSlice, Slice, State};
use crate::{Entry, Group};
use driftmesh_model::{Generation, Lsn, Micros, Term};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// About how much one slice carries, bytes: making one must stay well below a millisecond.
const SLICE_BYTES: usize = 48 << 10;
/// Slices under way at once.
const SLICES_AHEAD: usize = 8;
/// What was not acknowledged is sent again after this.
const RESEND_AFTER: Micros = Micros::from_millis(200);
/// A receiver that acknowledges nothing for this long gets no further.
const GIVE_UP_AFTER: Micros = Micros::from_millis(3_000);

/// What the members of a group say to each other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum GroupMessage {
    /// Of consensus.
    Consensus(Message<Entry>),
    /// A part of the state.
    Slice(CopySlice),
    /// The receiver has all slices of a copy up to this one.
    SliceTaken {
        /// The copy's number.
        copy: u64,
        /// The entry that the copy ends with.
        at: Lsn,
        /// How many slices it has.
        number: u64,
    },
    /// There are no more slices, and the copy is stable.
    CopyDone(CopyDone),
    /// No commit beyond a position takes effect at or below a timestamp.
    Closed(Closed),
}

/// A part of a copy of the state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopySlice {
    /// The leader's generation.
    pub generation: Generation,
    /// And its term.
    pub term: Term,
    /// The copy's number: the leader may begin another one of the same entry, which is cut in other places.
    pub copy: u64,
    /// The entry that the copy ends with.
    pub at: Lsn,
    /// The slice's number, from 0.
    pub number: u64,
    /// What it holds.
    pub slice: Slice,
}

/// The end of a copy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyDone {
    /// The leader's generation.
    pub generation: Generation,
    /// And its term.
    pub term: Term,
    /// The copy's number.
    pub copy: u64,
    /// The entry that the copy ends with.
    pub at: Lsn,
    /// The term of that entry.
    pub at_term: Term,
    /// Who belonged to the group then, and since which entry.
    pub membership: (Lsn, Membership),
    /// How many slices there were.
    pub slices: u64,
}

/// A copy on its way out.
#[derive(Clone, Debug)]
pub(crate) struct CopyOut {
    to: MemberId,
    /// Its number among the copies that this member has begun.
    copy: u64,
    at: Lsn,
    at_term: Term,
    membership: (Lsn, Membership),
    /// Made and not acknowledged, oldest first.
    under_way: VecDeque<CopySlice>,
    made: u64,
    all_made: bool,
    done_told: bool,
    moved_at: Micros,
    sent_at: Micros,
    out: Vec<GroupMessage>,
}

impl CopyOut {
    pub(crate) fn taken(&mut self, now: Micros, from: MemberId, (copy, at): (u64, Lsn), number: u64) {
        if (from, copy, at) != (self.to, self.copy, self.at) {
            return;
        }
        while self.under_way.front().is_some_and(|slice| slice.number < number) {
            self.under_way.pop_front();
            // The next step of the copy is due at once.
            (self.moved_at, self.sent_at) = (now, Micros(0));
        }
    }

    pub(crate) fn take_messages(&mut self) -> Vec<(MemberId, GroupMessage)> {
        let to = self.to;
        std::mem::take(&mut self.out).into_iter().map(|message| (to, message)).collect()
    }

    pub(crate) fn next_tick(&self) -> Option<Micros> {
        Some(if !self.all_made && self.under_way.len() < SLICES_AHEAD {
            Micros(0)
        } else {
            self.sent_at.plus(RESEND_AFTER)
        })
    }
}

/// A copy on its way in.
#[derive(Clone, Debug)]
pub(crate) struct CopyIn {
    from: MemberId,
    period: (Generation, Term),
    copy: u64,
    at: Lsn,
    taken: u64,
    /// Slices that came before those they follow, by number: messages of different sizes overtake each other. No more
    /// than may be under way (R24).
    early: BTreeMap<u64, Slice>,
    state: State,
    out: Vec<GroupMessage>,
}

impl CopyIn {
    /// Takes a slice, and those that waited for it.
    fn take_in(&mut self, number: u64, slice: Slice) -> Result<(), BadSlice> {
        if number >= self.taken && number - self.taken < SLICES_AHEAD as u64 {
            self.early.insert(number, slice);
        }
        while let Some(next) = self.early.remove(&self.taken) {
            self.state.install_slice(next)?;
            self.taken += 1;
        }
        Ok(())
    }

    /// How much room the objects take that it has brought so far, bytes.
    pub(crate) const fn held(&self) -> usize {
        self.state.held()
    }

    pub(crate) fn take_messages(&mut self) -> Vec<(MemberId, GroupMessage)> {
        let to = self.from;
        std::mem::take(&mut self.out).into_iter().map(|message| (to, message)).collect()
    }
}

impl Group {
    /// Goes on with the copy for a member that needs one, by a slice.
    pub(crate) fn copy_on(&mut self, now: Micros) {
        let Some(copy) = &self.copy_out else {
            self.begin_copy_out(now);
            return;
        };
        let lost_interest = !self.consensus.needs_copy(&copy.to) || now.since(copy.moved_at) >= GIVE_UP_AFTER;
        if lost_interest {
            self.end_copy_out();
            return;
        }
        let (generation, term, watermark) = (self.generation(), self.term(), self.watermark());
        let Some(copy) = &mut self.copy_out else { return };
        let due = now.since(copy.sent_at) >= RESEND_AFTER;
        if !copy.all_made && copy.under_way.len() < SLICES_AHEAD {
            copy.sent_at = now;
            if let Some(slice) = self.state.copy_slice(SLICE_BYTES) {
                let (number, at) = (copy.made, copy.at);
                let slice = CopySlice { generation, term, copy: copy.copy, at, number, slice };
                copy.made += 1;
                copy.out.push(GroupMessage::Slice(slice.clone()));
                copy.under_way.push_back(slice);
            } else {
                copy.all_made = true;
            }
        } else if due && let Some(first) = copy.under_way.front() {
            copy.sent_at = now;
            copy.out.push(GroupMessage::Slice(first.clone()));
        }
        let may_end = copy.all_made && copy.under_way.is_empty() && watermark >= copy.at;
        if may_end && (due || !copy.done_told) {
            (copy.done_told, copy.sent_at) = (true, now);
            copy.out.push(GroupMessage::CopyDone(CopyDone {
                generation,
                term,
                copy: copy.copy,
                at: copy.at,
                at_term: copy.at_term,
                membership: copy.membership.clone(),
                slices: copy.made,
            }));
        } else if due {
            copy.sent_at = now;
        }
    }

    fn begin_copy_out(&mut self, now: Micros) {
        let Some(to) = self.consensus.wants_copy() else { return };
        if self.halted.is_some() || !self.is_leading() {
            return;
        }
        // A copy of what is stable: it may take this very member to make more stable.
        self.roll_back_for_a_moment();
        self.state.begin_copy();
        let at = self.state.applied();
        self.apply_on();
        self.consensus.keep_after(Some(at));
        self.copies_begun += 1;
        self.copy_out = Some(CopyOut {
            to,
            copy: self.copies_begun,
            at,
            at_term: self.consensus.term_at(at).unwrap_or_default(),
            membership: self.consensus.stable_membership().clone(),
            under_way: VecDeque::new(),
            made: 0,
            all_made: false,
            done_told: false,
            moved_at: now,
            sent_at: Micros(0),
            out: Vec::new(),
        });
    }

    pub(crate) fn end_copy_out(&mut self) {
        if self.copy_out.take().is_some() {
            self.state.end_copy();
            self.consensus.keep_after(None);
        }
    }

    pub(crate) fn slice_received(&mut self, from: MemberId, slice: CopySlice) {
        let period = (slice.generation, slice.term);
        if period != (self.generation(), self.term()) || self.is_leading() || slice.at <= self.watermark() {
            return;
        }
        // R25: a state is the leader's to give, and one that says of itself that it ends elsewhere is none.
        let is_of_it = slice.slice.as_of().is_none_or(|at| at == slice.at);
        if !is_of_it || self.consensus.leader() != Some(from) {
            return;
        }
        let begun = self.copy_in.as_ref().filter(|copy| (copy.from, copy.period) == (from, period));
        if begun.is_some_and(|copy| slice.copy < copy.copy) {
            // Late, of a copy that was given up.
            return;
        }
        // R7: slices of two copies never make one state, though both end with the same entry.
        if begun.is_none_or(|copy| (copy.copy, copy.at) != (slice.copy, slice.at)) {
            let (copy, at, state, early) = (slice.copy, slice.at, State::default(), BTreeMap::new());
            self.copy_in = Some(CopyIn { from, period, copy, at, taken: 0, early, state, out: Vec::new() });
        }
        let Some(copy) = &mut self.copy_in else { return };
        if copy.take_in(slice.number, slice.slice).is_err() {
            // R25: it comes from a faulty peer; the copy is asked for anew by not being acknowledged.
            self.copy_in = None;
            return;
        }
        copy.out.push(GroupMessage::SliceTaken { copy: copy.copy, at: copy.at, number: copy.taken });
    }

    pub(crate) fn copy_done(&mut self, now: Micros, from: MemberId, done: CopyDone) {
        let period = (done.generation, done.term);
        if period != (self.generation(), self.term()) || self.is_leading() {
            return;
        }
        let CopyDone { copy, at, slices, .. } = done;
        let whole = |held: &CopyIn| {
            (held.from, held.period, held.copy, held.at, held.taken) == (from, period, copy, at, slices)
                && held.state.applied() == at
        };
        // R25: what a leader says of where the copy ends must be possible.
        let is_sound = done.at_term <= done.term && done.membership.0 <= at;
        if is_sound
            && self.copy_in.as_ref().is_some_and(whole)
            && let Some(copy) = self.copy_in.take()
            && done.at > self.watermark()
            && copy.state.is_whole()
        {
            self.state = copy.state;
            self.halted = None;
            self.consensus.set_fit(now, true);
            self.consensus.installed(now, done.at, done.at_term, done.membership);
            self.settle(now);
        }
    }
}
