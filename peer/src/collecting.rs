//! Collecting forwarding pointers: their homes are asked to hold what they say, then they go (R3).

use crate::Peer;
use crate::timers::Timer;
use driftmesh_directory::{HomeRing, Record};
use driftmesh_model::{Micros, ObjectId, PeerId};
use std::collections::{BTreeSet, VecDeque};

/// A slice looks for the homes of so many pointers, divided by the number of peers among which they are chosen.
const HOMES_PER_SLICE: usize = 8_192;
/// While objects wait for room, pointers are collected as often as this.
const COLLECT_AGAIN: Micros = Micros::from_millis(10);

/// How many objects a step may look for the homes of, when it may compare so many distances.
pub(crate) fn slice_of(distances: usize, ring: &HomeRing) -> usize {
    (distances / ring.len().max(1)).max(8)
}

/// Objects that wait before they leave, in the order in which they came, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stalled {
    queue: VecDeque<ObjectId>,
    known: BTreeSet<ObjectId>,
}

impl Stalled {
    pub(crate) fn push(&mut self, object: ObjectId) {
        if self.known.insert(object) {
            self.queue.push_back(object);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<ObjectId> {
        let object = self.queue.pop_front()?;
        self.known.remove(&object);
        Some(object)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn take(&mut self) -> impl Iterator<Item = ObjectId> + use<> {
        std::mem::take(self).queue.into_iter()
    }
}

impl Peer {
    /// Asks the homes of pointers that are older than the grace period; a leaving peer asks at once.
    pub(crate) fn collect_pointers(&mut self) {
        let grace = if self.draining { Micros(0) } else { self.config.pointer_grace };
        let before = Micros(self.now.mono.0.saturating_sub(grace.0));
        for record in self.pointers.due(before, slice_of(HOMES_PER_SLICE, &self.ring)) {
            if self.is_sending(record.object) {
                // R6: its departure may not be stable yet. What has arrived has left, so the records below, this peer's
                // own too, are true when the pointer goes.
                self.pointers.not_asked(record.object);
                continue;
            }
            let mut homes: BTreeSet<PeerId> = self.ring.homes(record.object).into_iter().collect();
            if homes.remove(&self.config.peer) {
                self.homes.learn(record);
            }
            let mut all_asked = true;
            for home in &homes {
                all_asked &= self.publish_to(*home, record);
            }
            if all_asked {
                self.pointers.asked(record.object, homes);
            } else {
                self.pointers.not_asked(record.object);
            }
        }
        self.use_pointer_room();
    }

    /// A home holds records at least as new as these: pointers that say no more may go (R3).
    pub(crate) fn pointers_confirmed(&mut self, home: &PeerId, records: &[Record]) {
        for dropped in self.pointers.confirmed(home, records) {
            self.metrics.note(crate::RareEvent::PointerCollected);
            // As a hint it still saves a stale asker the way over the homes, for as long as there is room.
            self.hints.learn(dropped);
        }
        self.use_pointer_room();
    }

    /// Whether an object may leave after so many others: each departure needs a pointer (R3, R24).
    pub(crate) fn has_pointer_room(&self, object: ObjectId, others: usize) -> bool {
        self.pointers.len() + others < self.config.pointers_max || self.pointers.get(object).is_some()
    }

    /// An object waits before it leaves, until there is room for its pointer.
    pub(crate) fn stall_for_pointer(&mut self, object: ObjectId) {
        self.stalled_for_pointers.push(object);
        self.set_collect_timer();
    }

    /// As many objects may leave as there is room for, in the order in which they had to wait; while some still wait,
    /// more pointers are collected in a moment.
    fn use_pointer_room(&mut self) {
        let mut room = self.config.pointers_max.saturating_sub(self.pointers.len());
        while room > 0
            && let Some(object) = self.stalled_for_pointers.pop()
        {
            self.hand_overs.push_back(object);
            room -= 1;
        }
        if !self.stalled_for_pointers.is_empty() {
            self.set_collect_timer();
        }
    }

    fn set_collect_timer(&mut self) {
        if !self.collect_timer_set {
            self.collect_timer_set = true;
            self.timers.set(self.now.mono.plus(COLLECT_AGAIN), Timer::Collect);
        }
    }

    pub(crate) fn collect_due(&mut self) {
        self.collect_timer_set = false;
        self.collect_pointers();
    }

    /// The forwarding pointer of an object that left.
    #[must_use]
    pub fn pointer(&self, object: ObjectId) -> Option<Record> {
        self.pointers.get(object)
    }

    /// The record of an object that this peer keeps for others, whether or not it is one of its homes now.
    pub fn kept_record(&mut self, object: ObjectId) -> Option<Record> {
        self.homes.get(object)
    }
}
