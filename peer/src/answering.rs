//! Answering what others ask about objects: from this group's state, never from a hint (R1).

use crate::message::{LocateRequest, Located, Message, OwnRequest, Queued, ReadAnswer, ReadRequest, Seen};
use crate::metrics::RareEvent;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_directory::Holds;
use driftmesh_model::{Epoch, HybridClock, Micros, ObjectId, PeerId, Timestamp};
use driftmesh_object_store::{Chain, ReadAt};
use driftmesh_txn::{Acquired, Other, RemoteWaiter};

/// How long a request waits for an object that is said to be on its way here.
const PARK_FOR: Micros = Micros::from_millis(50);
/// Most requests parked for one object, and most objects with parked requests (R24).
const PARKED_PER_OBJECT_MAX: usize = 64;
const PARKED_OBJECTS_MAX: usize = 4_096;
/// A queued request for ownership that is not repeated within this counts as given up.
const QUEUED_FOR: Micros = Micros::from_millis(1_000);

/// A request that waits for its object to arrive.
#[derive(Clone, Debug)]
pub(crate) struct ParkedRequest {
    from: PeerId,
    until: Micros,
    what: Parked,
}

#[derive(Clone, Debug)]
enum Parked {
    Read(Timestamp),
    Own(OwnRequest),
}

fn seen_in(chain: &Chain, snapshot: Timestamp) -> Seen {
    match chain.read_at(snapshot) {
        ReadAt::Version(version) => Seen::Version { commit: version.commit, value: version.value.clone() },
        ReadAt::NotYetCreated => Seen::NotYetCreated,
        ReadAt::TooOld(_) => Seen::TooOld,
    }
}

impl Peer {
    /// What a snapshot sees of an object, if this group can say: it owns it, or it is sending it and the snapshot
    /// lies at or below the floor (R16).
    pub(crate) fn seen_here(&mut self, object: ObjectId, snapshot: Timestamp) -> Option<(Epoch, Seen)> {
        let found = if let Some(stored) = self.group.owned(object) {
            Some((stored.epoch, seen_in(&stored.chain, snapshot), stored.chain.versions().next().cloned()))
        } else if let Some((_, transit)) = self.group.in_transit(object)
            && (snapshot <= transit.floor || self.broken(Sabotage::Hint))
        {
            // The epoch at which it was owned here: the next one is the destination's.
            let owned_at = Epoch::from_u64(transit.epoch.as_u64().saturating_sub(1));
            let seen = (owned_at, seen_in(&transit.chain, snapshot), transit.chain.versions().next().cloned());
            self.metrics.note(RareEvent::ReadInTransit);
            Some(seen)
        } else {
            None
        };
        if let Some((epoch, seen, oldest)) = found {
            if seen == Seen::TooOld
                && self.broken(Sabotage::OldVersions)
                && let Some(oldest) = oldest
            {
                return Some((epoch, Seen::Version { commit: oldest.commit, value: oldest.value }));
            }
            return Some((epoch, seen));
        }
        if self.broken(Sabotage::Hint)
            && let Some((commit, value)) = self.copies.get(object)
            && *commit <= snapshot
        {
            return Some((Epoch::ZERO, Seen::Version { commit: *commit, value: Some(value.clone()) }));
        }
        None
    }

    /// R18: a request from the future is refused before anything of it is used.
    fn refuse_ahead(&mut self, from: PeerId, named: Timestamp, objects: impl Iterator<Item = ObjectId>) -> bool {
        if self.broken(Sabotage::ClockGuard) {
            self.clock.raise_above(named);
            return false;
        }
        let Err(ahead) = HybridClock::guard(named, self.now.wall) else { return false };
        self.metrics.note(RareEvent::ClockRefused);
        self.send(from, Message::ClockAhead { objects: objects.collect(), receiver: ahead.receiver });
        true
    }

    pub(crate) fn read_asked(&mut self, from: PeerId, snapshot: Timestamp, objects: Vec<ReadRequest>) {
        if self.refuse_ahead(from, snapshot, objects.iter().map(|request| request.object)) {
            return;
        }
        // R16: the clock follows the snapshot first, so no later commit can slip below it.
        if !self.broken(Sabotage::SnapshotClock) {
            self.clock.raise_above(snapshot);
        }
        for request in objects {
            self.answer_read(from, snapshot, request);
        }
    }

    fn answer_read(&mut self, from: PeerId, snapshot: Timestamp, request: ReadRequest) {
        let object = request.object;
        if let Some((epoch, seen)) = self.seen_here(object, snapshot) {
            let bytes = match &seen {
                Seen::Version { value: Some(value), .. } => value.len(),
                Seen::Version { value: None, .. } | Seen::NotYetCreated | Seen::TooOld => 0,
            };
            if let Some(full) = self.outbox.answer(from, snapshot, bytes, ReadAnswer { object, epoch, seen }) {
                self.send(from, full);
            }
        } else if !self.park(from, object, request.epoch, Parked::Read(snapshot)) {
            self.say_where(from, object);
        }
    }

    pub(crate) fn own_asked(&mut self, from: PeerId, requests: Vec<OwnRequest>) {
        for request in requests {
            let object = request.object;
            if !self.refuse_ahead(from, request.age.time, std::iter::once(object)) {
                self.answer_own(from, request);
            }
        }
    }

    fn answer_own(&mut self, from: PeerId, request: OwnRequest) {
        let object = request.object;
        if self.group.owned(object).is_none() {
            if !self.park(from, object, request.epoch, Parked::Own(request)) {
                self.say_where(from, object);
            }
            return;
        }
        let Some(group) = self.members.get(&from).map(|member| member.group) else { return };
        let by = Other { timestamp: request.age, kind: request.kind.clone() };
        let expires = self.now.mono.plus(QUEUED_FOR);
        let waiter = RemoteWaiter { group, kind: request.kind, have: request.have, expires };
        match self.locks.queue_remote(object, request.age, waiter) {
            Acquired::Waits { wound } => {
                self.wound_or_watch(object, wound, by);
                if self.locks.holder(object).is_some() || self.locks.pinned_for(object).is_some() {
                    let behind = self.holder_of(object).map(|other| (other.timestamp, other.kind));
                    self.outbox.queued(from, Queued { object, behind });
                }
                self.hand_overs.push_back(object);
            }
            // R24: too many wait; the asker repeats its request.
            Acquired::Busy | Acquired::Granted => {}
        }
    }

    /// Lets a request wait that names a higher epoch than is known here: the object is on its way.
    fn park(&mut self, from: PeerId, object: ObjectId, epoch: Epoch, what: Parked) -> bool {
        let known = self.pointers.get(object).map_or(Epoch::ZERO, |record| record.epoch);
        let full = self.parked.len() >= PARKED_OBJECTS_MAX && !self.parked.contains_key(&object);
        if epoch <= known || full || self.group.in_transit(object).is_some() {
            return false;
        }
        let until = self.now.mono.plus(PARK_FOR);
        let parked = self.parked.entry(object).or_default();
        if parked.len() >= PARKED_PER_OBJECT_MAX {
            return false;
        }
        parked.push(ParkedRequest { from, until, what });
        self.timers.set(until, Timer::Parked(object));
        self.metrics.note(RareEvent::RequestParked);
        true
    }

    /// The object has arrived: what waited for it is answered.
    pub(crate) fn answer_parked(&mut self, object: ObjectId) {
        for parked in self.parked.remove(&object).unwrap_or_default() {
            match parked.what {
                Parked::Read(snapshot) => {
                    let request = ReadRequest { object, epoch: Epoch::ZERO };
                    self.answer_read(parked.from, snapshot, request);
                }
                Parked::Own(request) => self.answer_own(parked.from, request),
            }
        }
    }

    pub(crate) fn parked_due(&mut self, object: ObjectId) {
        let now = self.now.mono;
        let Some(parked) = self.parked.get_mut(&object) else { return };
        let (over, waiting): (Vec<_>, Vec<_>) = std::mem::take(parked).into_iter().partition(|one| one.until <= now);
        if waiting.is_empty() {
            self.parked.remove(&object);
        } else {
            *parked = waiting;
        }
        for one in over {
            self.say_where(one.from, object);
        }
    }

    pub(crate) fn locate_asked(&mut self, from: PeerId, requests: Vec<LocateRequest>) {
        for request in requests {
            self.answer_where(from, request);
        }
    }

    /// Answers a request for an object that this group has not.
    pub(crate) fn say_where(&mut self, to: PeerId, object: ObjectId) {
        self.answer_where(to, LocateRequest { object, round: 0 });
    }

    /// Says what this peer knows of an object: its own group's word first, then its best record.
    fn answer_where(&mut self, to: PeerId, request: LocateRequest) {
        let LocateRequest { object, round } = request;
        let holds = if self.group.owned(object).is_some() {
            Holds::Owns
        } else if self.group.in_transit(object).is_some() {
            Holds::Sending
        } else {
            Holds::No
        };
        let record = self.best_record(object).map(|(_, record)| record);
        let leader = record.and_then(|record| self.leaders.get(&record.group).copied());
        let moves = self.group.moves_near(object);
        let groups_digest = self.groups_digest;
        self.outbox.located(to, Located { object, holds, record, leader, moves, round, groups_digest });
    }
}
