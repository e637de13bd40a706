//! Collecting forwarding pointers: their homes are asked to hold what they say, then they go (R3).

use crate::Peer;
use crate::timers::Timer;
use driftmesh_directory::Record;
use driftmesh_model::{Micros, ObjectId, PeerId};
use std::collections::BTreeSet;

/// Pointers collected with each heartbeat.
const COLLECT_SLICE: usize = 1_024;
/// While objects wait for room, pointers are collected as often as this.
const COLLECT_AGAIN: Micros = Micros::from_millis(10);

impl Peer {
    /// Asks the homes of pointers that are older than the grace period; a leaving peer asks at once.
    pub(crate) fn collect_pointers(&mut self) {
        let grace = if self.draining { Micros(0) } else { self.config.pointer_grace };
        let Some(before) = self.now.mono.0.checked_sub(grace.0).map(Micros) else { return };
        for record in self.pointers.due(before, COLLECT_SLICE) {
            let mut homes: BTreeSet<PeerId> = self.ring.homes(record.object).into_iter().collect();
            if homes.remove(&self.config.peer) {
                self.homes.learn(record);
            }
            for home in &homes {
                self.publish_to(*home, record);
            }
            self.pointers.asked(record.object, homes);
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

    /// Whether an object may leave: each departure needs a pointer (R3, R24).
    pub(crate) fn has_pointer_room(&self, object: ObjectId) -> bool {
        self.pointers.len() < self.config.pointers_max || self.pointers.get(object).is_some()
    }

    /// An object waits before it leaves, until there is room for its pointer.
    pub(crate) fn stall_for_pointer(&mut self, object: ObjectId) {
        if self.stalled_for_pointers.is_empty() {
            self.timers.set(self.now.mono.plus(COLLECT_AGAIN), Timer::Collect);
        }
        self.stalled_for_pointers.insert(object);
    }

    /// Objects that waited for room may leave now; else more pointers are collected in a moment.
    fn use_pointer_room(&mut self) {
        if self.stalled_for_pointers.is_empty() {
            return;
        }
        if self.pointers.len() < self.config.pointers_max {
            self.hand_overs.extend(std::mem::take(&mut self.stalled_for_pointers));
        } else {
            self.timers.set(self.now.mono.plus(COLLECT_AGAIN), Timer::Collect);
        }
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
