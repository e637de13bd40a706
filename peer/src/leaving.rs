//! Leaving: a peer that is about to go takes nothing more, hands over what it owns, and knows when it may go.
//!
//! It refuses to decide when that is wanted, and to say goodbye: its host does.

use crate::Peer;
use crate::timers::Timer;
use driftmesh_model::{Micros, Now, ObjectId};
use driftmesh_txn::TaskKind;

/// Slots of owned objects looked at in one slice when the peer leaves, and the pause between slices.
const DRAIN_SLOTS: usize = 256;
const DRAIN_PAUSE: Micros = Micros::from_millis(10);

impl Peer {
    /// Begins to leave: no new transactions, no new objects, and everything owned goes to other members.
    pub fn drain(&mut self, now: Now) {
        self.now = now;
        if !self.draining {
            self.draining = true;
            self.drains += 1;
            for member in self.members.values_mut() {
                member.unsettled_to_us = None;
            }
            self.send_heartbeats(true);
            // One that a former leaving has left goes on.
            if !self.drain_is_armed {
                self.drain_is_armed = true;
                self.timers.set(now.mono, Timer::Drain);
            }
        }
    }

    /// Takes objects again after `drain`: the peer stays.
    pub fn stay(&mut self, now: Now) {
        self.now = now;
        self.draining = false;
        if self.group.is_retired() {
            self.found_again();
        }
    }

    /// Whether this peer may go: it owns nothing and nothing is on its way from or to it, it follows nobody any more,
    /// the homes know what its forwarding pointers say (R3), and what remains of its group is known to the others.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        // Who goes takes what it alone knows of groups with it.
        let all_know = self
            .members
            .values()
            .filter(|member| member.connected)
            .all(|member| member.groups_digest == Some(self.groups.digest()));
        let somebody_knows = self.members.is_empty() || !self.connected_members().is_empty();
        let is_told = somebody_knows && all_know && self.groups.ended(self.group.id()).is_some();
        self.draining && self.has_nothing_left() && is_told
    }

    fn has_nothing_left(&self) -> bool {
        let empty = self.group.owned_count() == 0 && self.group.in_transit_count() == 0;
        let belongs_nowhere = self.followed.is_empty() || self.connected_members().is_empty();
        empty && belongs_nowhere && self.pointers.is_empty() && self.nothing_is_coming()
    }

    pub(crate) fn drain_due(&mut self) {
        if !self.draining {
            self.drain_is_armed = false;
            return;
        }
        // It goes on while this peer leaves: what was sent may be refused, and open transactions may still create.
        self.timers.set(self.now.mono.plus(DRAIN_PAUSE), Timer::Drain);
        self.collect_pointers();
        if self.has_nothing_left() && self.txns.iter().all(|txn| txn.read_only) {
            // The last entry: what remains of the group goes to the others when it is stable.
            self.retire(self.group.id());
        }
        if self.group.owned_count() == 0 {
            return;
        }
        // R24: who has no room is spared. If nobody has any, what is left is left to those who hold copies of it.
        let mut targets = self.receivers(&self.group);
        if targets.is_empty() {
            return;
        }
        let (slice, next) = self.group.owned_slice(self.drain_from, DRAIN_SLOTS);
        let slice: Vec<(ObjectId, u64)> = slice.map(|(_, stored)| (stored.object, stored.held() as u64)).collect();
        // After the last slot it begins again: what was locked may be free now.
        self.drain_from = next.unwrap_or(0);
        let kind = TaskKind::new("drain");
        for (object, size) in slice {
            if self.locks.is_waited_for(object) {
                continue;
            }
            let first = usize::try_from(object.as_u128() % targets.len() as u128).unwrap_or(0);
            let (before, after) = targets.split_at_mut(first);
            if let Some((group, room)) = after.iter_mut().chain(before).find(|(_, room)| *room >= size) {
                *room -= size;
                let group = *group;
                self.let_go(object, group, &kind);
            }
        }
    }
}
