//! Ownership transfer: grants out and in, numbered, repeated until answered, answered once (R19, R20).

use crate::message::{Grant, GrantReply, GrantedValue, GrantedVersion, Message};
use crate::metrics::RareEvent;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_directory::Record;
use driftmesh_model::limits::CHAIN_TRANSFER_BYTES_MAX;
use driftmesh_model::{GroupId, Hash, Micros, Now, ObjectId, PeerId, Timestamp, TxnTimestamp};
use driftmesh_object_store::{Chain, Entry, GrantSeen, Version};
use driftmesh_txn::{RemoteWaiter, TaskKind};

/// A grant that is not answered is sent again after this.
const REPEAT_GRANT_AFTER: Micros = Micros::from_millis(300);
/// Objects handed away in one slice when the peer leaves, and the pause between slices.
const DRAIN_SLICE: usize = 256;
const DRAIN_PAUSE: Micros = Micros::from_millis(10);

impl Peer {
    /// Step 2 of a transfer: journals that the object leaves, and sends it when that is stable.
    pub(crate) fn transfer_out(&mut self, object: ObjectId, age: TxnTimestamp, waiter: RemoteWaiter) {
        let to = waiter.group;
        let Some(number) = self.group.next_grant(to) else {
            // The grant window towards that group is full: go on when it has answered (R24).
            self.timers.set(waiter.expires, Timer::HandOver(object));
            self.locks.queue_remote(object, age, waiter);
            self.stalled.entry(to).or_default().insert(object);
            return;
        };
        if !self.has_pointer_room(object) {
            // R3: a pointer is never dropped early to make room; the object leaves when one may go.
            self.metrics.note(RareEvent::PointersFull);
            self.locks.queue_remote(object, age, waiter);
            self.stall_for_pointer(object);
            return;
        }
        self.group.prune_object(object, CHAIN_TRANSFER_BYTES_MAX);
        let Some(stored) = self.group.owned(object) else { return };
        let epoch = stored.epoch.next();
        // R16: the floor is at or above all that this group ever answered for the object.
        let floor = if self.broken(Sabotage::SnapshotClock) {
            stored.chain.newest().commit
        } else {
            self.clock.now(self.now.wall)
        };
        self.tell_leaving(object, to);
        self.group.append(Entry::TransferOut { object, epoch, to, number, floor });
        self.metrics.left += 1;
        let record = Record { group: to, ..self.own_record(object, epoch) };
        if !self.broken(Sabotage::Pointers) {
            self.pointers.set(record, self.now.mono);
        }
        self.send_grant(to, number, waiter.have);
        self.redirect_waiters(object, record);
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

    /// Sends a grant, with hashes for what the receiver said it has.
    fn send_grant(&mut self, to: GroupId, number: u64, have: Option<Hash>) {
        let Some(leader) = self.leader_of(to) else { return };
        let Some(transit) = self.group.unsettled(to, number) else { return };
        let mut spared = false;
        let mut granted = |version: &Version| {
            let value = match &version.value {
                None => GrantedValue::Deleted,
                Some(value) if have.is_some() && value.len() >= 256 && have == Some(value.hash()) => {
                    spared = true;
                    GrantedValue::Hash(value.hash())
                }
                Some(value) => GrantedValue::Whole(value.clone()),
            };
            GrantedVersion { commit: version.commit, value }
        };
        let grant = Grant {
            from: self.group.id(),
            to,
            number,
            unsettled_from: self.group.unsettled_from(to),
            object: transit.object,
            epoch: transit.epoch,
            versions: transit.chain.versions().map(&mut granted).collect(),
            low_water: transit.chain.low_water(),
            floor: transit.floor,
        };
        if spared {
            self.metrics.note(RareEvent::ValueSpared);
        }
        self.send(leader, Message::Grant(grant));
        let due = self.now.mono.plus(REPEAT_GRANT_AFTER);
        self.grants_due.insert((to, number), due);
        self.timers.set(due, Timer::Grant(to, number));
    }

    /// Step 4: until acknowledged, the grant is repeated to whoever leads the destination.
    pub(crate) fn grant_due(&mut self, to: GroupId, number: u64) {
        if self.group.unsettled(to, number).is_none() {
            self.grants_due.remove(&(to, number));
            return;
        }
        // A timer that a later sending has overtaken.
        if self.grants_due.get(&(to, number)).is_some_and(|due| self.now.mono < *due) {
            return;
        }
        if self.broken(Sabotage::OneOwner) {
            self.take_back(to, number);
            return;
        }
        self.metrics.note(RareEvent::RepeatedGrant);
        self.send_grant(to, number, None);
    }

    /// The leader of a group is reachable again: what it has not answered is repeated.
    pub(crate) fn repeat_grants_to(&mut self, to: GroupId) {
        let numbers: Vec<u64> = self.group.unsettled_to(to).collect();
        for number in numbers {
            self.grants_due.insert((to, number), self.now.mono);
            self.timers.set(self.now.mono, Timer::Grant(to, number));
        }
    }

    /// Step 3 of a transfer, at the destination.
    pub(crate) fn granted(&mut self, from: PeerId, grant: Grant) {
        let sender = self.members.get(&from).map(|member| member.group);
        if grant.to != self.group.id() || sender != Some(grant.from) {
            self.metrics.malformed += 1;
            return;
        }
        self.group.settle_grants_below(grant.from, grant.unsettled_from);
        // R20: a number is answered once; a late duplicate gets the same answer again.
        match self.group.grant_seen(grant.from, grant.number) {
            GrantSeen::New => {}
            GrantSeen::Adopted if self.broken(Sabotage::Once) => {}
            GrantSeen::Adopted => {
                self.metrics.note(RareEvent::LateDuplicateGrant);
                self.answer_grant(from, &grant, GrantReply::Adopted);
                return;
            }
            GrantSeen::Refused => {
                self.metrics.note(RareEvent::LateDuplicateGrant);
                self.answer_grant(from, &grant, GrantReply::Refused);
                return;
            }
            GrantSeen::BeyondWindow => return,
        }
        let Some(versions) = self.whole_versions(&grant) else {
            self.metrics.note(RareEvent::ValuesMissing);
            self.answer_grant(from, &grant, GrantReply::NeedsValues);
            return;
        };
        // R25: a time or an epoch at the end of its range would stop this peer's own from climbing.
        let in_range = grant.floor < Timestamp::SOUND_MAX && grant.epoch.as_u64() < u64::MAX / 2;
        let sound = in_range
            && (self.group.owned(grant.object).is_none() || self.broken(Sabotage::Once))
            && Chain::from_versions(versions.clone(), grant.low_water)
                .is_some_and(|chain| chain.newest().commit <= grant.floor || self.broken(Sabotage::SnapshotClock));
        if self.draining || !sound {
            self.metrics.malformed += u64::from(!sound);
            self.refuse(from, &grant);
            return;
        }
        self.adopt(from, &grant, versions);
    }

    /// The versions of a grant with every hash replaced by the value it names, if all are at hand. The journal gets
    /// whole values: the group's followers have no cache.
    fn whole_versions(&mut self, grant: &Grant) -> Option<Vec<Version>> {
        let mut versions = Vec::with_capacity(grant.versions.len());
        for version in &grant.versions {
            let value = match &version.value {
                GrantedValue::Deleted => None,
                GrantedValue::Whole(value) => Some(value.clone()),
                GrantedValue::Hash(hash) => {
                    let (_, copy) = self.copies.get(grant.object)?;
                    if copy.hash() != *hash {
                        return None;
                    }
                    Some(copy.clone())
                }
            };
            versions.push(Version { commit: version.commit, value });
        }
        Some(versions)
    }

    fn adopt(&mut self, from: PeerId, grant: &Grant, versions: Vec<Version>) {
        // R16: commits here lie above the floor. A grant is never refused for its time (R18).
        let follow = if self.broken(Sabotage::SnapshotClock) {
            versions.last().map_or(Timestamp::ZERO, |version| version.commit)
        } else {
            grant.floor
        };
        self.clock.raise_above(follow);
        self.group.append(Entry::TransferIn {
            object: grant.object,
            epoch: grant.epoch,
            from: grant.from,
            number: grant.number,
            versions,
            low_water: grant.low_water,
            floor: grant.floor,
        });
        self.metrics.arrived += 1;
        self.answer_grant(from, grant, GrantReply::Adopted);
        let record = self.own_record(grant.object, grant.epoch);
        self.settled_here(record);
    }

    /// The object is owned here at this record's epoch: older claims go, homes are told, waiters go on.
    fn settled_here(&mut self, record: Record) {
        self.pointers.forget_up_to(&record);
        self.hints.forget_up_to(&record);
        self.publish(record.object);
        self.tell_arrived(record.object);
        self.arrived(record.object, record.epoch);
    }

    /// R19: what cannot be taken is refused, for ever and by a journal entry; then its sender takes it back.
    fn refuse(&mut self, from: PeerId, grant: &Grant) {
        self.metrics.note(RareEvent::GrantRefused);
        self.group.append(Entry::Refused { from: grant.from, number: grant.number });
        self.answer_grant(from, grant, GrantReply::Refused);
    }

    fn answer_grant(&mut self, to: PeerId, grant: &Grant, reply: GrantReply) {
        let answer = Message::GrantAnswer { from: grant.from, to: grant.to, number: grant.number, reply };
        // R6: leaves when the entry that it speaks of is stable.
        self.send(to, answer);
    }

    /// The destination has answered.
    pub(crate) fn grant_answered(&mut self, peer: PeerId, from: GroupId, to: GroupId, number: u64, reply: GrantReply) {
        let speaks_for = self.members.get(&peer).map(|member| member.group);
        if from != self.group.id() || speaks_for != Some(to) {
            self.metrics.malformed += 1;
            return;
        }
        let Some(transit) = self.group.unsettled(to, number) else { return };
        match reply {
            GrantReply::Adopted => {
                let newest = transit.chain.newest().clone();
                let object = transit.object;
                self.group.append(Entry::Handed { to, number });
                if let Some(value) = &newest.value {
                    self.copies.keep(object, newest.commit, value, self.broken(Sabotage::Hint));
                }
            }
            GrantReply::Refused => self.take_back(to, number),
            GrantReply::NeedsValues => self.send_grant(to, number, None),
        }
        self.grants_due.remove(&(to, number));
        if self.draining && self.group.owned_count() + self.group.in_transit_count() == 0 {
            // So that a goodbye right after this leaves nobody waiting for what this group might own.
            self.send_heartbeats(true);
        }
        for object in self.stalled.remove(&to).unwrap_or_default() {
            self.hand_overs.push_back(object);
        }
    }

    /// R19: only after a stable refusal the object is owned here again, one epoch above the refused one.
    fn take_back(&mut self, to: GroupId, number: u64) {
        let Some(transit) = self.group.unsettled(to, number) else { return };
        let record = self.own_record(transit.object, transit.epoch.next());
        self.metrics.note(RareEvent::TakenBack);
        self.group.append(Entry::TakenBack { to, number });
        self.settled_here(record);
    }

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
        }
        self.timers.set(now.mono, Timer::Drain);
    }

    /// Takes objects again after `drain`: the peer stays.
    pub const fn stay(&mut self) {
        self.draining = false;
    }

    /// Whether nothing is owned or in transit any more, every member knows that it must send nothing, and the homes
    /// know what the forwarding pointers say, which go with this peer (R3).
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let empty = self.group.owned_count() == 0 && self.group.in_transit_count() == 0;
        empty && self.pointers.is_empty() && self.nothing_is_coming()
    }

    pub(crate) fn drain_due(&mut self) {
        if !self.draining || self.group.owned_count() == 0 && self.pointers.is_empty() {
            return;
        }
        self.collect_pointers();
        self.timers.set(self.now.mono.plus(DRAIN_PAUSE), Timer::Drain);
        let targets = self.trusted_groups();
        if targets.is_empty() {
            return;
        }
        let slice: Vec<(usize, ObjectId)> = self
            .group
            .owned_from(self.drain_from)
            .take(DRAIN_SLICE)
            .map(|(next, stored)| (next, stored.object))
            .collect();
        // After the last slot it begins again: what was locked may be free now.
        self.drain_from = slice.last().map_or(0, |(next, _)| *next);
        // Younger than every transaction there is: running ones finish first.
        let time = self.clock.now(self.now.wall);
        let age = TxnTimestamp { time, incarnation: u64::MAX, sequence: u64::MAX };
        let expires = self.now.mono.plus(Micros::from_millis(1_000));
        for (_, object) in slice {
            if self.locks.is_waited_for(object) {
                continue;
            }
            let index = usize::try_from(object.as_u128() % targets.len() as u128).unwrap_or(0);
            let waiter = RemoteWaiter { group: targets[index], kind: TaskKind::new("drain"), have: None, expires };
            self.locks.queue_remote(object, age, waiter);
            self.hand_overs.push_back(object);
        }
    }
}
