//! The owned objects of a state: found by id, each with a slot that it keeps while it is here.
//!
//! The order of slots repeats between runs, and is what slices, copies and pruning go by. Slots lie in chunks, and the
//! map grows by parts, so that a state that doubles costs no single step more than others. It refuses to know what its
//! objects mean.

use super::Stored;
use driftmesh_model::{LookupMap, ObjectId};

/// Slots in one piece of memory.
const CHUNK: usize = 1_024;

#[derive(Clone, Copy, Debug)]
enum Slot {
    Of(ObjectId),
    /// Free, as is the next one in this list.
    Free {
        next: Option<usize>,
    },
}

/// Objects by id and by slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Objects {
    objects: LookupMap<ObjectId, (usize, Stored)>,
    chunks: Vec<Vec<Slot>>,
    /// The slot that was freed last.
    free: Option<usize>,
}

impl Objects {
    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// How many slots there are, free ones included.
    pub(super) fn slots(&self) -> usize {
        let last = self.chunks.last().map_or(0, Vec::len);
        self.chunks.len().saturating_sub(1) * CHUNK + last
    }

    /// Whose slot it is.
    fn holder(&self, slot: usize) -> Option<ObjectId> {
        match self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)? {
            Slot::Of(object) => Some(*object),
            Slot::Free { .. } => None,
        }
    }

    /// The object in a slot.
    pub(super) fn at(&self, slot: usize) -> Option<&Stored> {
        self.get(self.holder(slot)?)
    }

    /// The object in a slot, to change it.
    pub(super) fn at_mut(&mut self, slot: usize) -> Option<&mut Stored> {
        let object = self.holder(slot)?;
        self.get_mut(object).map(|(_, stored)| stored)
    }

    /// An object.
    pub(super) fn get(&self, object: ObjectId) -> Option<&Stored> {
        self.objects.get(&object).map(|(_, stored)| stored)
    }

    /// An object, to change it, and its slot.
    pub(super) fn get_mut(&mut self, object: ObjectId) -> Option<(usize, &mut Stored)> {
        self.objects.get_mut(&object).map(|(slot, stored)| (*slot, stored))
    }

    /// Whether an object is here.
    pub(super) fn contains(&self, object: ObjectId) -> bool {
        self.objects.contains_key(&object)
    }

    /// Takes an object in. It gets the slot that was freed last, or a new one. Returns the slot, and what was here of
    /// that object before, with its own.
    pub(super) fn insert(&mut self, stored: Stored) -> (usize, Option<(usize, Stored)>) {
        let object = stored.object;
        let slot = self.take_slot(object);
        let former = self.objects.insert(object, (slot, stored));
        if let Some((former, _)) = &former {
            self.free_slot(*former);
        }
        (slot, former)
    }

    fn slot_mut(&mut self, slot: usize) -> Option<&mut Slot> {
        self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)
    }

    fn take_slot(&mut self, object: ObjectId) -> usize {
        let slot = self.free.unwrap_or_else(|| self.slots());
        if let Some(place) = self.slot_mut(slot) {
            if let Slot::Free { next } = std::mem::replace(place, Slot::Of(object)) {
                self.free = next;
            }
            return slot;
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(last) = self.chunks.last_mut() {
            last.push(Slot::Of(object));
        }
        slot
    }

    /// Takes an object out.
    pub(super) fn remove(&mut self, object: ObjectId) -> Option<(usize, Stored)> {
        let (slot, stored) = self.objects.remove(&object)?;
        self.free_slot(slot);
        Some((slot, stored))
    }

    fn free_slot(&mut self, slot: usize) {
        let next = self.free.replace(slot);
        if let Some(place) = self.slot_mut(slot) {
            *place = Slot::Free { next };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Chain, Version};
    use driftmesh_model::{Epoch, Lsn, Timestamp};

    fn stored(id: u128, epoch: u64) -> Stored {
        let chain = Chain::new(Version { commit: Timestamp::ZERO, value: None });
        Stored {
            object: ObjectId::from_u128(id),
            epoch: Epoch::from_u64(epoch),
            changed: Lsn::ZERO,
            chain,
            outcomes: None,
        }
    }

    #[test]
    fn slots_are_used_again_in_an_order_that_repeats() {
        let mut objects = Objects::default();
        for id in 0..2_500 {
            assert_eq!(objects.insert(stored(id, 1)), (usize::try_from(id).unwrap(), None));
        }
        assert_eq!((objects.len(), objects.slots()), (2_500, 2_500));
        for id in [5_u128, 1_300, 17] {
            let (slot, gone) = objects.remove(ObjectId::from_u128(id)).unwrap();
            assert_eq!((slot as u128, gone.object), (id, ObjectId::from_u128(id)));
            assert_eq!(objects.at(slot), None);
        }
        assert_eq!(objects.remove(ObjectId::from_u128(5)), None);
        let slots: Vec<usize> = (10_000..10_004).map(|id| objects.insert(stored(id, 1)).0).collect();
        assert_eq!(slots, [17, 1_300, 5, 2_500], "the last one freed comes first, then new ones");
        assert_eq!(objects.at(1_300).map(|stored| stored.object), Some(ObjectId::from_u128(10_001)));
        assert_eq!((objects.len(), objects.slots()), (2_501, 2_501));
    }

    #[test]
    fn an_object_that_comes_twice_stands_where_it_came_last() {
        let mut objects = Objects::default();
        objects.insert(stored(1, 1));
        let (slot, former) = objects.insert(stored(1, 2));
        assert_eq!((slot, former.map(|(slot, former)| (slot, former.epoch))), (1, Some((0, Epoch::from_u64(1)))));
        assert_eq!((objects.at(0), objects.slots()), (None, 2));
        assert_eq!(objects.get(ObjectId::from_u128(1)).map(|stored| stored.epoch), Some(Epoch::from_u64(2)));
        assert_eq!(objects.len(), 1);
        assert_eq!(objects.insert(stored(2, 1)).0, 0);
        assert_eq!(objects.insert(stored(3, 1)).0, 2);
    }
}
