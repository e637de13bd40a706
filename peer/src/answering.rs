//! Answering what others ask about objects: from this group's state, never from a hint (R1).

use crate::message::{LocateRequest, Located, Message, OwnRequest, Queued, ReadAnswer, ReadRequest, Seen};
use crate::metrics::RareEvent;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_directory::Holds;
use driftmesh_model::{Epoch, GroupId, HybridClock, Lsn, Micros, ObjectId, PeerId, Timestamp};
use driftmesh_object_store::{Chain, Group, ReadAt};
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
    Own(GroupId, OwnRequest),
}

fn seen_in(chain: &Chain, snapshot: Timestamp) -> Seen {
    match chain.read_at(snapshot) {
        ReadAt::Version(version) => Seen::Version { commit: version.commit, value: version.value.clone() },
        ReadAt::NotYetCreated => Seen::NotYetCreated,
        ReadAt::TooOld(_) => Seen::TooOld,
    }
}

/// What a group can say of an object at a snapshot.
struct Answerable {
    group: GroupId,
    /// The entry that last changed the object there.
    changed: Lsn,
    epoch: Epoch,
    seen: Seen,
}

impl Peer {
    /// What a snapshot sees of an object, if this peer's own group can say.
    pub(crate) fn seen_here(&mut self, object: ObjectId, snapshot: Timestamp) -> Option<(Epoch, Seen)> {
        let found = self.seen_in_group(self.group.id(), object, snapshot);
        if found.is_none()
            && self.broken(Sabotage::Hint)
            && let Some((commit, value)) = self.copies.get(object)
            && *commit <= snapshot
        {
            return Some((Epoch::ZERO, Seen::Version { commit: *commit, value: Some(value.clone()) }));
        }
        found.map(|found| (found.epoch, found.seen))
    }

    /// What a snapshot sees of an object, if a group that this peer leads can say: it owns it, or it is sending it and
    /// the snapshot lies at or below the floor (R16).
    fn seen_in_group(&mut self, id: GroupId, object: ObjectId, snapshot: Timestamp) -> Option<Answerable> {
        let group = self.led(id)?;
        let mut in_transit = false;
        let (changed, epoch, chain) = if let Some(stored) = group.owned(object) {
            (stored.changed, group.epoch_of(stored), &stored.chain)
        } else {
            let (_, transit) = group.in_transit(object)?;
            if snapshot > transit.floor && !self.broken(Sabotage::Hint) {
                return None;
            }
            in_transit = true;
            // The epoch at which it was owned here: the next one is the destination's.
            (transit.changed, Epoch::from_u64(transit.epoch.as_u64().saturating_sub(1)), &transit.chain)
        };
        let mut seen = seen_in(chain, snapshot);
        if seen == Seen::TooOld
            && self.broken(Sabotage::OldVersions)
            && let Some(oldest) = chain.versions().next()
        {
            seen = Seen::Version { commit: oldest.commit, value: oldest.value.clone() };
        }
        // R8: before a leader's first entry is stable it promises nothing.
        let changed = if group.consensus().is_confirmed() { changed } else { group.tail() };
        if in_transit {
            self.metrics.note(RareEvent::ReadInTransit);
        }
        Some(Answerable { group: id, changed, epoch, seen })
    }

    /// What any group that this peer leads can say.
    fn seen_in_any(&mut self, object: ObjectId, snapshot: Timestamp) -> Option<Answerable> {
        if let Some(found) = self.seen_in_group(self.group.id(), object, snapshot) {
            return Some(found);
        }
        if self.broken(Sabotage::Hint)
            && let Some((epoch, seen)) = self.seen_here(object, snapshot)
        {
            return Some(Answerable { group: self.group.id(), changed: Lsn::ZERO, epoch, seen });
        }
        let caretaken: Vec<GroupId> = self.caretaken().map(Group::id).collect();
        caretaken.into_iter().find_map(|id| self.seen_in_group(id, object, snapshot))
    }

    /// The group led here that owns an object in place of its founder.
    fn caretaken_owner(&self, object: ObjectId) -> Option<GroupId> {
        self.caretaken().find(|group| group.owned(object).is_some()).map(Group::id)
    }

    /// Whether a group led here is sending the object.
    pub(crate) fn is_sending(&self, object: ObjectId) -> bool {
        self.led_groups().any(|group| group.in_transit(object).is_some())
    }

    /// R18: a request from the future is refused before anything of it is used.
    fn refuse_ahead(&mut self, from: PeerId, named: Timestamp, objects: impl Iterator<Item = ObjectId>) -> bool {
        if self.broken(Sabotage::ClockGuard) {
            self.clock.raise_above(named);
            return false;
        }
        let Err(ahead) = HybridClock::guard(named, self.now.wall) else { return false };
        self.metrics.note(RareEvent::ClockRefused);
        self.send_now(from, Message::ClockAhead { objects: objects.collect(), receiver: ahead.receiver });
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
        for (number, request) in objects.iter().enumerate() {
            if !self.answer_read(from, snapshot, *request) {
                self.read_later(from, snapshot, objects[number..].to_vec());
                return;
            }
        }
    }

    /// Answers a read, or says where the object is. `false` when this peer's clock must come nearer first.
    fn answer_read(&mut self, from: PeerId, snapshot: Timestamp, request: ReadRequest) -> bool {
        let object = request.object;
        let Some(found) = self.seen_in_any(object, snapshot) else {
            if !self.park(from, object, request.epoch, Parked::Read(snapshot)) {
                self.say_where(from, object);
            }
            return true;
        };
        let Some(window) = self.window_needs(found.group, snapshot) else { return false };
        // R6: what the answer shows, and that it shows nothing newer, must be stable; and below a stable window (R8).
        let barrier = !self.broken(Sabotage::BarrierReads);
        let unstable = self.led(found.group).is_some_and(|group| group.watermark() < found.changed);
        let needs = if barrier && unstable { found.changed.max(window) } else { window };
        let bytes = found.seen.value_bytes();
        let answer = ReadAnswer { object, epoch: found.epoch, seen: found.seen };
        if let Some(full) = self.outbox.answer(from, (snapshot, found.group, needs), bytes, answer) {
            let needs = if needs == Lsn::ZERO { Vec::new() } else { self.needs_of(found.group, needs) };
            self.send_when(needs, from, full);
        }
        true
    }

    pub(crate) fn own_asked(&mut self, from: PeerId, group: GroupId, requests: Vec<OwnRequest>) {
        for request in requests {
            let object = request.object;
            if !self.refuse_ahead(from, request.age.time, std::iter::once(object)) {
                self.answer_own(from, group, request);
            }
        }
        self.depart();
    }

    fn answer_own(&mut self, from: PeerId, group: GroupId, request: OwnRequest) {
        let object = request.object;
        if self.group.owned(object).is_none() {
            if let Some(caretaken) = self.caretaken_owner(object) {
                if !self.takes_objects(group) || !self.hand_out_to_asker(caretaken, object, group, request.have) {
                    // It asks again.
                    self.outbox.queued(from, Queued { object, behind: None });
                }
            } else if !self.park(from, object, request.epoch, Parked::Own(group, request)) {
                self.say_where(from, object);
            }
            return;
        }
        if group == self.group.id() {
            // It has come here meanwhile, out of a group that this peer leads for another; who waited for it goes on.
            return;
        }
        if let Some(pull) = request.pull
            && self.should_stay(object, pull, (from, group))
        {
            self.outbox.stays(from, object);
            return;
        }
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
        if epoch <= known || full || self.is_sending(object) {
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
                    self.read_asked(parked.from, snapshot, vec![ReadRequest { object, epoch: Epoch::ZERO }]);
                }
                Parked::Own(group, request) => self.answer_own(parked.from, group, request),
            }
        }
        self.depart();
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

    /// How many objects that share a counter with this one have come to or left this peer. While it stands still, the
    /// object has not moved here.
    pub(crate) fn moves_near(&self, object: ObjectId) -> u64 {
        self.led_groups().fold(self.moves_base, |moves, group| moves.wrapping_add(group.moves_near(object)))
    }

    pub(crate) fn locate_asked(&mut self, from: PeerId, requests: Vec<LocateRequest>) {
        let digest = self.digest_for_search();
        for request in requests {
            self.answer_where(from, request, digest);
        }
    }

    /// Answers a request for an object that this group has not.
    pub(crate) fn say_where(&mut self, to: PeerId, object: ObjectId) {
        let digest = self.digest_for_search();
        self.answer_where(to, LocateRequest { object, round: 0 }, digest);
    }

    /// Says what this peer knows of an object: its own group's word first, then its best record. `groups_digest` stands for
    /// what it knows of groups.
    fn answer_where(&mut self, to: PeerId, request: LocateRequest, groups_digest: u64) {
        let LocateRequest { object, round } = request;
        let holds = if self.led_groups().any(|group| group.owned(object).is_some()) {
            Holds::Owns
        } else if self.is_sending(object) {
            Holds::Sending
        } else {
            Holds::No
        };
        let record = self.best_record(object).map(|(_, record)| record);
        let leader = record.and_then(|record| self.groups.leader(record.group));
        let moves = self.moves_near(object);
        self.outbox.located(to, Located { object, holds, record, leader, moves, round, groups_digest });
    }
}
