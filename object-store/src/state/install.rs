//! Taking in a copy of a state, slice by slice: how a member catches up.
//!
//! Slices come from another peer: whatever does not fit is a typed error, and then the state is to be thrown away. It
//! refuses to be used before the last slice: `is_whole` says whether it came.

use super::check::NUMBER_MAX;
use super::slice::{CopiedObject, CopiedTransit, Head, Slice};
use super::{InTransit, Marks, State, Stored};
use crate::{Chain, NotClimbing, Outcomes};
use driftmesh_model::{Epoch, GroupId, Lsn, ObjectId};

/// A copy that is being taken in.
#[derive(Clone, Debug)]
pub(super) struct Installing {
    /// The number of the next slice.
    next: u64,
    head: Head,
}

/// Why a slice cannot be taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSlice {
    /// A copy is taken in by an empty state only.
    #[error("the state is not empty")]
    NotEmpty,
    /// Slices come one after the other.
    #[error("slice {found} came, slice {expected} was next")]
    OutOfOrder {
        /// The number of the slice that is next.
        expected: u64,
        /// The number of the slice that came.
        found: u64,
    },
    /// The first slice, and no other, says what the copy is of.
    #[error("slice {0} has a head and should not, or has none and should")]
    Head(u64),
    /// A position, timestamp, epoch or number near the end of its range could not climb any more.
    #[error("a number in slice {0} is at the end of its range")]
    Range(u64),
    /// The highest timestamp is below another one: of commits, of the window, or the floor of a grant. Whoever came to lead would
    /// begin below what was promised (R8, R16).
    #[error("a timestamp of the copy is above its highest")]
    Highest,
    /// The copy ended before its last slice.
    #[error("the last slice is missing")]
    Incomplete,
    /// The term table does not climb, or goes beyond the copy.
    #[error("the term table is wrong: {0}")]
    Terms(NotClimbing),
    /// The grants of a group are told twice, or are such as no grants could make.
    #[error("the grant numbers of group {0} are wrong")]
    Grants(GroupId),
    /// A grant under way is told twice, or was never sent.
    #[error("grant {1} to group {0} is wrong")]
    InTransit(GroupId, u64),
    /// An object is told twice.
    #[error("object {0} is told twice")]
    Twice(ObjectId),
    /// The versions of an object are not in order, or newer than the copy.
    #[error("the versions of object {0} are wrong")]
    Versions(ObjectId),
    /// The outcomes of tasks that an object keeps are such as no commits could make.
    #[error("the outcomes of tasks at object {0} are wrong")]
    Outcomes(ObjectId),
}

impl State {
    /// A state made of all slices of a copy.
    ///
    /// # Errors
    /// When a slice does not fit, or the last one is missing.
    pub fn from_slices(slices: impl IntoIterator<Item = Slice>) -> Result<Self, BadSlice> {
        let (mut state, mut ended) = (Self::new(), false);
        for slice in slices {
            ended = slice.last;
            state.install_slice(slice)?;
        }
        if ended { Ok(state) } else { Err(BadSlice::Incomplete) }
    }

    /// Whether no copy is being taken in: the state is that after the last applied entry.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.installing.is_none()
    }

    /// Takes in the next slice of a copy; the first one needs an empty state. After the last one all entries up to the
    /// copy's position count as applied, and cannot be undone.
    ///
    /// # Errors
    /// When the slice does not fit; the state is to be thrown away then.
    pub fn install_slice(&mut self, slice: Slice) -> Result<(), BadSlice> {
        let Slice { number, head, terms, sent, received, in_transit, objects, last } = slice;
        let (expected, head) = match (self.installing.as_deref(), head) {
            (None, Some(head)) if self.is_untouched() => (0, head),
            (None, None) if self.is_untouched() => return Err(BadSlice::Head(number)),
            (None, Some(_) | None) => return Err(BadSlice::NotEmpty),
            (Some(installing), None) => (installing.next, installing.head),
            (Some(_), Some(_)) => return Err(BadSlice::Head(number)),
        };
        if number != expected {
            return Err(BadSlice::OutOfOrder { expected, found: number });
        }
        let numbers = sent.iter().map(|(_, number)| *number).chain(received.iter().map(|(_, log)| log.contiguous()));
        let epochs = in_transit.iter().map(|item| item.epoch).chain(objects.iter().map(|item| item.epoch));
        let in_range = numbers.chain(epochs.map(Epoch::as_u64)).all(|number| number < NUMBER_MAX);
        if !in_range || !head.is_in_range() {
            return Err(BadSlice::Range(number));
        }
        if head.window.max(head.commit) > head.highest {
            return Err(BadSlice::Highest);
        }
        self.installing = Some(Box::new(Installing { next: number.saturating_add(1), head }));
        for (term, start) in terms {
            let within = if start <= head.lsn { Ok(()) } else { Err(NotClimbing { term, start }) };
            within.and_then(|()| self.terms.push(term, start)).map_err(BadSlice::Terms)?;
        }
        for (to, number) in sent {
            if self.sent.insert(to, number).is_some() {
                return Err(BadSlice::Grants(to));
            }
        }
        for (from, log) in received {
            if !log.is_sound() || self.received.insert(from, log).is_some() {
                return Err(BadSlice::Grants(from));
            }
        }
        in_transit.into_iter().try_for_each(|item| self.install_transit(&head, item))?;
        objects.into_iter().try_for_each(|item| self.install_object(&head, item))?;
        if last {
            self.finish(&head);
        }
        Ok(())
    }

    /// Whether nothing was applied yet.
    fn is_untouched(&self) -> bool {
        self.applied == Lsn::ZERO && self.objects.slots() == 0
    }

    fn finish(&mut self, head: &Head) {
        self.installing = None;
        self.applied = head.lsn;
        self.window = head.window;
        self.retired = head.retired;
        self.marks = Marks { commit: head.commit, highest: head.highest };
        self.stable_marks = self.marks;
        self.prune_below = self.prune_below.max(head.prune_below);
    }

    fn install_transit(&mut self, head: &Head, item: CopiedTransit) -> Result<(), BadSlice> {
        let CopiedTransit { to, number, indexed, object, epoch, changed, versions, outcomes, low_water, floor } = item;
        let was_sent = number > 0 && self.sent.get(&to).is_some_and(|last| number <= *last);
        if !was_sent || self.in_transit.contains_key(&(to, number)) {
            return Err(BadSlice::InTransit(to, number));
        }
        if floor > head.highest {
            return Err(BadSlice::Highest);
        }
        if indexed && self.transit_index.contains_key(&object) {
            return Err(BadSlice::Twice(object));
        }
        let chain = Chain::from_versions(versions, low_water).ok_or(BadSlice::Versions(object))?;
        if chain.newest().commit > head.commit || changed > head.lsn {
            return Err(BadSlice::Versions(object));
        }
        check_outcomes(object, outcomes.as_deref())?;
        self.insert_transit((to, number), InTransit { object, epoch, changed, chain, outcomes, floor }, indexed);
        Ok(())
    }

    fn install_object(&mut self, head: &Head, item: CopiedObject) -> Result<(), BadSlice> {
        let CopiedObject { object, epoch, changed, versions, outcomes, low_water } = item;
        if self.objects.contains(object) {
            return Err(BadSlice::Twice(object));
        }
        let chain = Chain::from_versions(versions, low_water).ok_or(BadSlice::Versions(object))?;
        if chain.newest().commit > head.commit || changed > head.lsn {
            return Err(BadSlice::Versions(object));
        }
        check_outcomes(object, outcomes.as_deref())?;
        self.install(Stored { object, epoch, changed, chain, outcomes });
        Ok(())
    }
}

fn check_outcomes(object: ObjectId, outcomes: Option<&Outcomes>) -> Result<(), BadSlice> {
    if outcomes.is_none_or(Outcomes::are_sound) { Ok(()) } else { Err(BadSlice::Outcomes(object)) }
}
