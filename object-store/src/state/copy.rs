//! A copy of a state, handed out in slices while the state changes on: for members that catch up.
//!
//! The copy is exact as of the entry at which it began. A cursor goes through the slots, and through the grants under
//! way; whatever changes before the cursor got there is set aside first, as it was, once. Small tables are copied at
//! the beginning. It refuses to wait, and costs a commit nothing but a look while no copy is being made.
//! Old versions that are pruned meanwhile are not in it; the low-water marks say so.

use super::slice::{CopiedObject, CopiedTransit, Head, PAIR_COST, Slice};
use super::{GrantKey, InTransit, State, Stored};
use crate::GrantLog;
use driftmesh_model::{GroupId, LookupMap, Lsn, ObjectId, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

/// What looking at a slot or a grant counts, bytes: a slice of a state with many free slots is no longer than others.
const LOOK_COST: usize = 16;

/// A copy that is being handed out.
#[derive(Clone, Debug)]
pub(super) struct Copying {
    /// The number of the next slice.
    number: u64,
    head: Head,
    terms: VecDeque<(Term, Lsn)>,
    sent: VecDeque<(GroupId, u64)>,
    received: VecDeque<(GroupId, GrantLog)>,
    grants: Grants,
    slots: Slots,
}

/// Where the copy is among the grants under way.
#[derive(Clone, Debug)]
struct Grants {
    /// The last grant to each group when the copy began: later ones are not part of it.
    sent: BTreeMap<GroupId, u64>,
    /// The last grant that was looked at.
    cursor: Option<GrantKey>,
    done: bool,
    /// Grants beyond the cursor that have changed since the copy began. At most those of the beginning.
    changed: BTreeSet<GrantKey>,
    /// What they were.
    images: VecDeque<CopiedTransit>,
}

/// Where the copy is among the slots.
#[derive(Clone, Debug)]
struct Slots {
    /// The next slot to look at.
    cursor: usize,
    /// How many there were when the copy began.
    end: usize,
    /// One bit a slot, set if it has changed since, or was looked at.
    changed: Vec<u64>,
    /// What they held.
    images: VecDeque<CopiedObject>,
}

impl Copying {
    /// Before an object in this slot changes, comes or goes.
    pub(super) fn object_changes(&mut self, slot: usize, stored: Option<&Stored>) {
        if self.slots.first_change(slot) {
            self.slots.images.extend(stored.map(CopiedObject::of));
        }
    }

    /// Before a grant or its place in the index changes.
    pub(super) fn transit_changes(
        &mut self,
        key: GrantKey,
        in_transit: &BTreeMap<GrantKey, InTransit>,
        index: &LookupMap<ObjectId, GrantKey>,
    ) {
        if self.grants.first_change(key) {
            self.grants.images.extend(in_transit.get(&key).map(|transit| copied(key, transit, index)));
        }
    }

    /// As many items of the small tables as fit, then as many grants and objects. Returns what room is left, bytes;
    /// none if there is more to come.
    fn fill(&mut self, slice: &mut Slice, room: usize, state: &State) -> Option<usize> {
        let room = take(&mut self.terms, &mut slice.terms, room, |_| PAIR_COST)?;
        let room = take(&mut self.sent, &mut slice.sent, room, |_| PAIR_COST)?;
        let room = take(&mut self.received, &mut slice.received, room, |(_, log)| log.cost())?;
        let room = self.grants.fill(slice, room, state)?;
        self.slots.fill(slice, room, state)
    }
}

impl Grants {
    /// Whether the grant was there when the copy began, has not been looked at, and changes for the first time. (One
    /// that was not there may pass for one that was, if its number was given and taken back: it has no image then.)
    fn first_change(&mut self, key: GrantKey) -> bool {
        let is_part = self.sent.get(&key.0).is_some_and(|last| key.1 <= *last);
        let is_ahead = !self.done && self.cursor.is_none_or(|cursor| key > cursor);
        is_part && is_ahead && self.changed.insert(key)
    }

    fn fill(&mut self, slice: &mut Slice, mut room: usize, state: &State) -> Option<usize> {
        if !self.done {
            let after = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
            for (key, transit) in state.in_transit.range((after, Bound::Unbounded)) {
                if room == 0 {
                    return None;
                }
                room = room.saturating_sub(LOOK_COST);
                self.cursor = Some(*key);
                let is_part = self.sent.get(&key.0).is_some_and(|last| key.1 <= *last);
                if is_part && !self.changed.remove(key) {
                    let item = copied(*key, transit, &state.transit_index);
                    room = room.saturating_sub(item.cost());
                    slice.in_transit.push(item);
                }
            }
            self.done = true;
            self.changed.clear();
        }
        take(&mut self.images, &mut slice.in_transit, room, CopiedTransit::cost)
    }
}

impl Slots {
    /// Whether the slot was there when the copy began, has not been looked at, and changes for the first time.
    fn first_change(&mut self, slot: usize) -> bool {
        if slot >= self.end {
            return false;
        }
        let (word, bit) = (slot / 64, 1_u64 << (slot % 64));
        let is_first = self.changed[word] & bit == 0;
        self.changed[word] |= bit;
        is_first
    }

    fn fill(&mut self, slice: &mut Slice, room: usize, state: &State) -> Option<usize> {
        // First what was set aside, so that it does not pile up.
        let mut room = take(&mut self.images, &mut slice.objects, room, CopiedObject::cost)?;
        while self.cursor < self.end {
            if room == 0 {
                return None;
            }
            room = room.saturating_sub(LOOK_COST);
            let slot = self.cursor;
            let is_part = self.first_change(slot);
            self.cursor += 1;
            if is_part && let Some(stored) = state.objects.at(slot) {
                let item = CopiedObject::of(stored);
                room = room.saturating_sub(item.cost());
                slice.objects.push(item);
            }
        }
        Some(room)
    }
}

impl State {
    /// Begins a copy of the state as it is now, after the last applied entry; a copy that is under way is given up.
    /// Returns the position of that entry, or `None` while this state is not whole itself.
    ///
    /// That entry need not be stable, but whoever takes the copy in cannot undo anything in it: until the watermark
    /// has passed it the copy does not count, and if the entry is undone the copy is worthless.
    pub fn begin_copy(&mut self) -> Option<Lsn> {
        if self.installing.is_some() {
            return None;
        }
        let head = Head {
            lsn: self.applied,
            window: self.window,
            commit: self.marks.commit,
            highest: self.marks.highest,
            retired: self.retired,
            prune_below: self.prune_below,
        };
        self.copy = Some(Box::new(Copying {
            number: 0,
            head,
            terms: self.terms.starts().iter().copied().collect(),
            sent: self.sent.iter().map(|(to, number)| (*to, *number)).collect(),
            received: self.received.iter().map(|(from, log)| (*from, log.clone())).collect(),
            grants: Grants {
                sent: self.sent.clone(),
                cursor: None,
                done: false,
                changed: BTreeSet::new(),
                images: VecDeque::new(),
            },
            slots: Slots {
                cursor: 0,
                end: self.objects.slots(),
                changed: vec![0; self.objects.slots().div_ceil(64)],
                images: VecDeque::new(),
            },
        }));
        Some(self.applied)
    }

    /// The next slice of the copy, of about `bytes`; one item may exceed it. `None` when all was taken, and when no
    /// copy was begun.
    pub fn copy_slice(&mut self, bytes: usize) -> Option<Slice> {
        let mut copy = self.copy.take()?;
        let mut slice = Slice::empty(copy.number);
        slice.head = (copy.number == 0).then_some(copy.head);
        copy.number += 1;
        slice.last = copy.fill(&mut slice, bytes.max(1), self).is_some();
        if !slice.last {
            self.copy = Some(copy);
        }
        Some(slice)
    }

    /// Gives up the copy that is under way, if any.
    pub fn end_copy(&mut self) {
        self.copy = None;
    }

    /// Whether a copy is under way.
    #[must_use]
    pub const fn is_copying(&self) -> bool {
        self.copy.is_some()
    }
}

fn copied(key: GrantKey, transit: &InTransit, index: &LookupMap<ObjectId, GrantKey>) -> CopiedTransit {
    CopiedTransit::of(key.0, key.1, index.get(&transit.object) == Some(&key), transit)
}

/// Moves items as long as there is room. Returns what is left of it, bytes; none if items are left.
fn take<T>(from: &mut VecDeque<T>, to: &mut Vec<T>, mut room: usize, cost: impl Fn(&T) -> usize) -> Option<usize> {
    while room > 0 {
        let Some(item) = from.pop_front() else { return Some(room) };
        room = room.saturating_sub(cost(&item));
        to.push(item);
    }
    from.is_empty().then_some(0)
}
