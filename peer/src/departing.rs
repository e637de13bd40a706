//! Objects that leave a group led here. Those that one step hands out to one group leave by one journal entry.
//!
//! It refuses to wait for more: what is decided in a step is journalled in it, before anything else happens to the objects.

use crate::metrics::RareEvent;
use crate::rare_branches::RareBranch;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_directory::Record;
use driftmesh_model::limits::CHAIN_TRANSFER_BYTES_MAX;
use driftmesh_model::{GroupId, Hash, ObjectId, TxnTimestamp};
use driftmesh_object_store::{Departure, Entry, TRANSFERS_MAX};
use driftmesh_txn::RemoteWaiter;
use std::collections::{BTreeMap, BTreeSet};

/// The group that something leaves, and the one that it leaves for.
type Way = (GroupId, GroupId);

/// Objects whose departure is decided and not journalled yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Departing {
    /// Each with the hash of a value that the destination has.
    by_way: BTreeMap<Way, Vec<(ObjectId, Option<Hash>)>>,
    objects: BTreeSet<ObjectId>,
}

impl Departing {
    fn add(&mut self, way: Way, object: ObjectId, have: Option<Hash>) {
        if self.objects.insert(object) {
            self.by_way.entry(way).or_default().push((object, have));
        }
    }

    pub(crate) fn contains(&self, object: ObjectId) -> bool {
        self.objects.contains(&object)
    }

    fn on(&self, way: Way) -> usize {
        self.by_way.get(&way).map_or(0, Vec::len)
    }
}

impl Peer {
    /// Step 2 of a transfer: it is this group's turn to have an object of the own group.
    pub(crate) fn transfer_out(&mut self, object: ObjectId, age: TxnTimestamp, waiter: RemoteWaiter) {
        let to = waiter.group;
        let way = (self.group.id(), to);
        let is_full = self.rarely(RareBranch::FullGrantWindow) || self.group.grant_room(to) <= self.departing.on(way);
        if is_full {
            // The grant window towards that group is full: go on when it has answered (R24).
            self.timers.set(waiter.expires, Timer::HandOver(object));
            self.locks.queue_remote(object, age, waiter);
            self.stalled.entry(to).or_default().push(object);
            return;
        }
        if !self.may_leave(object) || self.rarely(RareBranch::FullPointers) {
            // R3: a pointer is never dropped early to make room; the object leaves when one may go.
            self.metrics.note(RareEvent::PointersFull);
            // R14: who waits behind it goes on when it has given up.
            self.timers.set(waiter.expires, Timer::HandOver(object));
            self.locks.queue_remote(object, age, waiter);
            self.stall_for_pointer(object);
            return;
        }
        self.note_move(object, to, &age, &waiter.kind);
        self.departing.add(way, object, waiter.have);
    }

    /// Begins to transfer an object of a group that this peer leads for another. Returns whether it does, or the object
    /// is not there any more. `depart` has to follow.
    pub(crate) fn hand_out(&mut self, id: GroupId, object: ObjectId, to: GroupId, have: Option<Hash>) -> bool {
        if self.departing.contains(object) {
            return true;
        }
        // R19: a founder that has not heard yet that it was deposed asks for its former group.
        if to == id || !self.may_leave(object) {
            return false;
        }
        let Some(group) = self.led(id) else { return true };
        if group.owned(object).is_none() {
            return true;
        }
        if group.grant_room(to) <= self.departing.on((id, to)) || !group.consensus().is_confirmed() {
            return false;
        }
        self.departing.add((id, to), object, have);
        true
    }

    /// Whether there will be room for its forwarding pointer (R3).
    fn may_leave(&self, object: ObjectId) -> bool {
        self.has_pointer_room(object, self.departing.objects.len())
    }

    /// Journals what was decided, and sends it when that is stable. Returns whether there was anything.
    pub(crate) fn depart(&mut self) -> bool {
        if self.departing.objects.is_empty() {
            return false;
        }
        let Departing { by_way, .. } = std::mem::take(&mut self.departing);
        for (way, objects) in by_way {
            for objects in objects.chunks(TRANSFERS_MAX) {
                self.depart_together(way, objects);
            }
        }
        true
    }

    fn depart_together(&mut self, (from, to): Way, objects: &[(ObjectId, Option<Hash>)]) {
        let is_own = from == self.group.id();
        // R16: the floor is at or above all that this group ever answered for the objects.
        let mut floor = self.clock.now(self.now.wall);
        let Some(first) = self.led(from).and_then(|group| group.next_grant(to)) else { return };
        if is_own {
            objects.iter().for_each(|(object, _)| self.tell_leaving(*object, to));
        }
        let below = self.needed_from();
        let is_floor_left_out = is_own && self.broken(Sabotage::SnapshotClock);
        let Some(group) = self.led_mut(from) else { return };
        let mut departures = Vec::with_capacity(objects.len());
        let mut haves = Vec::with_capacity(objects.len());
        let mut sent = 0;
        for (object, have) in objects {
            group.prune_object(*object, below, CHAIN_TRANSFER_BYTES_MAX);
            let Some(stored) = group.owned(*object) else { continue };
            sent += stored.held();
            haves.push((first + departures.len() as u64, *have));
            departures.push(Departure { object: *object, epoch: group.epoch_of(stored).next() });
        }
        if is_floor_left_out {
            let newest = departures.iter().filter_map(|departure| group.owned(departure.object));
            floor = newest.map(|stored| stored.chain.newest().commit).max().unwrap_or(floor);
        }
        if departures.is_empty() {
            return;
        }
        self.journal_of(from, Entry::TransferOut { to, first, floor, departures: departures.clone() });
        self.note_sent(to, sent);
        let count = departures.len() as u64;
        let metrics = &mut self.metrics;
        *(if is_own { &mut metrics.left } else { &mut metrics.handed_out }) += count;
        let points = !is_own || !self.broken(Sabotage::Pointers);
        for Departure { object, epoch } in departures.iter().filter(|_| points) {
            self.pointers.set(Record { object: *object, group: to, epoch: *epoch }, self.now.mono);
        }
        self.send_grants((from, to), &haves);
        if is_own {
            for Departure { object, epoch } in departures {
                self.redirect_waiters(object, Record { object, group: to, epoch });
            }
        }
    }

    /// The object has left: those who waited for it here wait for it there.
    fn redirect_waiters(&mut self, object: ObjectId, record: Record) {
        let waiters = self.locks.clear(object);
        for (_, id) in waiters.local {
            if let Some(txn) = self.txns.get_mut(id) {
                txn.awaited_message = true;
            }
            self.want_ownership(object, id);
        }
        for (_, waiter) in waiters.remote {
            if waiter.group != record.group
                && let Some(leader) = self.leader_of(waiter.group)
            {
                self.say_where(leader, object);
            }
        }
    }
}
