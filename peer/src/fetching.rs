//! Fetching what is elsewhere: reads at a snapshot and ownership, through the search for the owner.

use crate::copies::COPY_BYTES_MIN;
use crate::explaining::Place;
use crate::message::{LocateRequest, OwnRequest, Queued, ReadAnswer, ReadRequest, Seen};
use crate::metrics::RareEvent;
use crate::rare_branches::RareBranch;
use crate::seeking::Seek;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_directory::{Answer, Holds, Lookup, Next, Record};
use driftmesh_model::{Epoch, GroupId, Micros, ObjectId, PeerId, Timestamp, TxnId, TxnTimestamp};
use driftmesh_txn::{Cause, Intent, Other, Read, RemoteRead};
use std::collections::{BTreeMap, BTreeSet};

/// A request that is not answered is sent again after this.
const ASK_AGAIN_AFTER: Micros = Micros::from_millis(200);
/// Peers asked where an object is are given this long.
const LOCATE_WAIT: Micros = Micros::from_millis(100);
/// After nobody had the object, the search begins again after this; without news it doubles up to the most.
const PAUSE_MIN: Micros = Micros::from_millis(20);
const PAUSE_MAX: Micros = Micros::from_millis(500);
/// Without any word about an object for this long its waiters are told `Unavailable` (R14).
pub(crate) const UNAVAILABLE_AFTER: Micros = Micros::from_millis(1_000);

/// One object on its way here, or being read elsewhere, and who waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    pub(crate) lookup: Lookup,
    /// Transactions that wait for ownership, oldest first.
    pub(crate) owners: BTreeMap<TxnTimestamp, TxnId>,
    /// Transactions that wait for a version, by snapshot.
    readers: BTreeSet<(Timestamp, TxnId)>,
    /// The group that was asked last.
    pub(crate) asked: Option<GroupId>,
    /// The age that ownership was asked with.
    pub(crate) asked_age: Option<TxnTimestamp>,
    /// Whether it was asked for with the choice that it stays where it is.
    asked_freely: bool,
    /// Who has the object, as its owner last said.
    pub(crate) behind: Option<Other>,
    pub(crate) last_heard: Micros,
    pause: Micros,
    due: Micros,
}

impl Peer {
    fn fetch_of(&mut self, object: ObjectId) -> (bool, &mut Fetch) {
        let created = !self.fetches.contains_key(&object);
        let best = if created { self.best_record(object) } else { None };
        let now = self.now.mono;
        self.lookups += u64::from(created);
        let number = self.lookups;
        let begun = || Fetch {
            lookup: Lookup::new(object, best, number),
            owners: BTreeMap::new(),
            readers: BTreeSet::new(),
            asked: None,
            asked_age: None,
            asked_freely: false,
            behind: None,
            last_heard: now,
            pause: PAUSE_MIN,
            due: now,
        };
        let fetch = self.fetches.entry(object).or_insert_with(|| Box::new(begun()));
        (created, fetch)
    }

    /// A transaction needs an object's master here.
    pub(crate) fn want_ownership(&mut self, object: ObjectId, id: TxnId) {
        let Some(timestamp) = self.txns.get(id).map(|txn| txn.timestamp) else { return };
        let (created, fetch) = self.fetch_of(object);
        fetch.owners.insert(timestamp, id);
        let (former, asked_freely) = (fetch.asked_age, fetch.asked_freely);
        if created {
            self.begin_lookup(object);
            return;
        }
        // R14: a fetch in flight has the age of its oldest waiter and is sent again when that changes; else a
        // young fetch that an old transaction joined would wait behind what the old one may wound.
        let raise = match former {
            Some(asked) => timestamp.is_older_than(&asked) && !self.broken(Sabotage::FetchAge),
            None => true,
        };
        // Nor would it get what stays where it is for those who can go there.
        let binds = asked_freely && self.pull_of(id).is_none();
        if raise || binds {
            if raise && former.is_some() {
                self.metrics.note(RareEvent::FetchAgeRaised);
            }
            self.ask_again(object);
        }
    }

    /// A transaction needs the version of an object at a snapshot.
    pub(crate) fn want_read(&mut self, object: ObjectId, snapshot: Timestamp, id: TxnId) {
        let (created, fetch) = self.fetch_of(object);
        let new = fetch.readers.insert((snapshot, id));
        if created {
            self.begin_lookup(object);
        } else if new {
            self.ask_again(object);
        }
    }

    pub(crate) fn withdraw_owner(&mut self, object: ObjectId, timestamp: &TxnTimestamp) {
        if let Some(fetch) = self.fetches.get_mut(&object) {
            fetch.owners.remove(timestamp);
        }
    }

    pub(crate) fn withdraw_reader(&mut self, object: ObjectId, snapshot: Timestamp, id: TxnId) {
        if let Some(fetch) = self.fetches.get_mut(&object) {
            fetch.readers.remove(&(snapshot, id));
        }
    }

    pub(crate) fn begin_lookup(&mut self, object: ObjectId) {
        // Most searches begin at the owner: whom else they could ask matters only after that.
        let first = self.fetches.get_mut(&object).and_then(|fetch| fetch.lookup.begin_at_best());
        let next = first.or_else(|| {
            let reachable = self.reachable(object);
            Some(self.fetches.get_mut(&object)?.lookup.begin(&reachable))
        });
        if let Some(next) = next {
            self.act(object, next);
        }
    }

    /// Sends the request again to whom it went last, with what has changed.
    pub(crate) fn ask_again(&mut self, object: ObjectId) {
        if let Some(group) = self.fetches.get(&object).and_then(|fetch| fetch.asked)
            && let Some(leader) = self.leader_of(group)
        {
            self.send_request(object, leader);
        }
    }

    /// Does what a lookup wants done next.
    fn act(&mut self, object: ObjectId, mut next: Next) {
        // A group out of reach is passed over at once, which never happens twice in a row.
        for _ in 0..2 {
            match next {
                Next::Ask(group) => {
                    if group != self.group.id()
                        && let Some(leader) = self.leader_of(group)
                    {
                        if let Some(fetch) = self.fetches.get_mut(&object) {
                            fetch.asked = Some(group);
                        }
                        self.send_request(object, leader);
                        self.set_fetch_timer(object, ASK_AGAIN_AFTER);
                        return;
                    }
                    let reachable = self.reachable(object);
                    let Some(fetch) = self.fetches.get_mut(&object) else { return };
                    next = fetch.lookup.cannot_ask(&reachable);
                }
                Next::Locate(peers) => {
                    self.locate(object, &peers);
                    return;
                }
                Next::Wait => return,
                Next::Pause => {
                    self.pause(object);
                    return;
                }
                Next::NotFound => {
                    self.not_found(object);
                    return;
                }
            }
        }
        self.pause(object);
    }

    fn pause(&mut self, object: ObjectId) {
        let Some(fetch) = self.fetches.get_mut(&object) else { return };
        let pause = fetch.pause;
        fetch.pause = Micros(pause.0 * 2).min(PAUSE_MAX);
        self.set_fetch_timer(object, pause);
    }

    fn locate(&mut self, object: ObjectId, peers: &BTreeSet<PeerId>) {
        let everyone = self.fetches.get(&object).is_some_and(|fetch| fetch.lookup.asks_everyone());
        self.metrics.note(if everyone { RareEvent::EveryoneAsked } else { RareEvent::HomesAsked });
        if everyone {
            // The owner, or a home that knows it, may be a peer that this one has never met.
            self.seek(Seek::Near(object));
        }
        let Some(fetch) = self.fetches.get_mut(&object) else { return };
        fetch.asked = None;
        let request = LocateRequest { object, round: fetch.lookup.round() };
        for peer in peers {
            self.outbox.locate(*peer, request);
        }
        self.set_fetch_timer(object, LOCATE_WAIT);
    }

    /// Lets a search go on in a step of its own.
    pub(crate) fn fetch_soon(&mut self, object: ObjectId) {
        self.set_fetch_timer(object, Micros(0));
    }

    fn set_fetch_timer(&mut self, object: ObjectId, after: Micros) {
        let early = after > Micros(0) && self.rarely(RareBranch::AskAgainEarly);
        let due = self.now.mono.plus(if early { Micros(1) } else { after });
        if let Some(fetch) = self.fetches.get_mut(&object) {
            // Nearly always the answer comes first, and a timer that nobody wants any more still wakes a thread.
            self.timers.clear(std::mem::replace(&mut fetch.due, due), Timer::Fetch(object));
            self.timers.set(due, Timer::Fetch(object));
        }
    }

    fn end_fetch(&mut self, object: ObjectId) -> Option<Box<Fetch>> {
        let fetch = self.fetches.remove(&object)?;
        self.timers.clear(fetch.due, Timer::Fetch(object));
        Some(fetch)
    }

    /// Sends what the waiters need to a group's leader.
    fn send_request(&mut self, object: ObjectId, leader: PeerId) {
        let keep_age = self.broken(Sabotage::FetchAge);
        let have =
            self.copies.get(object).filter(|(_, value)| value.len() >= COPY_BYTES_MIN).map(|(_, value)| value.hash());
        let Some(fetch) = self.fetches.get_mut(&object) else { return };
        let epoch = fetch.lookup.best().map_or(Epoch::ZERO, |record| record.epoch);
        let snapshots: BTreeSet<Timestamp> = fetch.readers.iter().map(|(snapshot, _)| *snapshot).collect();
        for snapshot in snapshots {
            self.outbox.read(leader, snapshot, ReadRequest { object, epoch });
        }
        let Some((oldest, txn)) = fetch.owners.first_key_value() else { return };
        let age = if keep_age { fetch.asked_age.unwrap_or(*oldest) } else { *oldest };
        fetch.asked_age = Some(age);
        let Some(kind) = self.txns.get(*txn).map(|txn| txn.kind.clone()) else { return };
        let owners: Vec<TxnId> = fetch.owners.values().copied().collect();
        let pull = self.common_pull(&owners);
        if let Some(fetch) = self.fetches.get_mut(&object) {
            fetch.asked_freely = pull.is_some();
        }
        self.outbox.own(leader, OwnRequest { object, epoch, age, kind, have, pull });
    }

    /// A record came that a search may follow.
    pub(crate) fn follow(&mut self, record: Record) {
        if let Some(fetch) = self.fetches.get_mut(&record.object)
            && let Some(next) = fetch.lookup.learn(record)
        {
            self.act(record.object, next);
        }
    }

    /// R1: whether a peer was asked for an object, so that what it says of the request counts.
    pub(crate) fn was_asked_for(&self, object: ObjectId, peer: PeerId) -> bool {
        let leads = |group: &GroupId| self.groups.leader(*group) == Some(peer);
        // A search may have gone on meanwhile.
        self.fetches.get(&object).is_some_and(|fetch| fetch.asked.iter().chain(fetch.lookup.path()).any(leads))
    }

    pub(crate) fn queued(&mut self, from: PeerId, objects: Vec<Queued>) {
        for queued in objects {
            if self.was_asked_for(queued.object, from)
                && let Some(fetch) = self.fetches.get_mut(&queued.object)
            {
                fetch.last_heard = self.now.mono;
                fetch.lookup.heard();
                fetch.behind = queued.behind.map(|(timestamp, kind)| Other { timestamp, kind });
            }
        }
    }

    pub(crate) fn located(&mut self, from: PeerId, answers: Vec<crate::message::Located>) {
        for located in answers {
            let object = located.object;
            // An answer about another object than its record's comes from a faulty peer (R25).
            let record = located.record.filter(|record| record.object == object && record.is_sound());
            if let Some(record) = record {
                self.hints.learn(record);
            }
            if let (Some(record), Some(leader)) = (record, located.leader)
                && self.leader_of(record.group).is_none()
            {
                self.seek(Seek::Peer(leader));
            }
            let Some(fetch) = self.fetches.get(&object) else { continue };
            let best = fetch.lookup.best();
            let asked = fetch.asked.filter(|group| self.groups.leader(*group) == Some(from));
            // R14: only news of the object counts as word of it; that nobody knows anything does not, nor that it is still
            // on its way to where it was before: a group that cannot make it stable may never take it.
            let news = match located.holds {
                Holds::Owns => true,
                Holds::Sending | Holds::No => {
                    record.is_some_and(|record| best.is_none_or(|best| record.outranks(&best)))
                }
            };
            let (now, digest) = (self.now.mono, self.groups.digest());
            let Some(fetch) = self.fetches.get_mut(&object) else { continue };
            if news {
                fetch.last_heard = now;
                fetch.pause = PAUSE_MIN;
            }
            let answer = Answer {
                peer: from,
                holds: located.holds,
                record,
                moves: located.moves,
                round: located.round,
                groups_digest: located.groups_digest,
            };
            let next = fetch.lookup.told(answer, asked, digest);
            if fetch.lookup.path().len() > 3 {
                self.metrics.note(RareEvent::ChainOfThreePointers);
            }
            // Whom else it can ask matters only when it goes on: who asks many gets many answers.
            let next = next.or_else(|| {
                let reachable = self.reachable(object);
                Some(self.fetches.get_mut(&object)?.lookup.go_on(&reachable))
            });
            if let Some(next) = next {
                self.act(object, next);
            }
        }
    }

    pub(crate) fn read_answered(&mut self, from: PeerId, at: (Timestamp, GroupId), answers: Vec<ReadAnswer>) {
        for answer in answers {
            self.one_read_answered(from, at, answer);
        }
    }

    fn one_read_answered(&mut self, from: PeerId, (snapshot, group): (Timestamp, GroupId), answer: ReadAnswer) {
        let object = answer.object;
        let record = Record { group, ..self.own_record(object, answer.epoch) };
        // R25: a hint with the last of all epochs would never be replaced.
        if !record.is_sound() {
            self.metrics.note_impossible();
            return;
        }
        // Nobody but its leader answers for a group.
        if self.group.owned(object).is_none() && self.groups.leader(group) == Some(from) {
            self.hints.learn(record);
        }
        if let Seen::Version { commit, value: Some(value) } = &answer.seen {
            self.copies.keep(object, *commit, value, self.broken(Sabotage::Hint));
        }
        self.copy_located(object, group, snapshot, &answer.seen);
        let Some(fetch) = self.fetches.get_mut(&object) else { return };
        fetch.last_heard = self.now.mono;
        fetch.lookup.heard();
        let least = TxnId::from_u64(0);
        let most = TxnId::from_u64(u64::MAX);
        let readers: Vec<(Timestamp, TxnId)> =
            fetch.readers.range((snapshot, least)..=(snapshot, most)).copied().collect();
        for reader in &readers {
            fetch.readers.remove(reader);
        }
        let path = fetch.lookup.path().to_vec();
        let done = fetch.owners.is_empty() && fetch.readers.is_empty();
        let ids: Vec<TxnId> = readers.iter().map(|(_, id)| *id).collect();
        self.note_found(object, &ids, Place::At { peer: from, group, epoch: answer.epoch });
        for id in ids {
            self.deliver_read(id, object, answer.seen.clone());
        }
        self.tell_the_path(object, &path, group, answer.epoch, None);
        if done {
            self.end_fetch(object);
        }
    }

    fn deliver_read(&mut self, id: TxnId, object: ObjectId, seen: Seen) {
        match self.read_of(object, seen) {
            Ok(read) => {
                if let Some(txn) = self.txns.get_mut(id) {
                    let remote = Some(RemoteRead::Value(read.value));
                    txn.reads.insert(object, Read { commit: read.commit, remote });
                    self.wakes.push(id);
                }
            }
            Err(cause) => self.fail(id, cause),
        }
    }

    /// Path compression: every group that a search passed learns where it ended, but for the one that sent the object there
    /// itself.
    fn tell_the_path(
        &mut self,
        object: ObjectId,
        path: &[GroupId],
        group: GroupId,
        epoch: Epoch,
        sender: Option<GroupId>,
    ) {
        let hops = path.len().saturating_sub(1) as u64;
        self.metrics.found += 1;
        self.metrics.hops += hops;
        self.metrics.chain_max = self.metrics.chain_max.max(hops);
        let record = Record { group, ..self.own_record(object, epoch) };
        let end = self.leader_of(group);
        for passed in path {
            let leader = self.leader_of(*passed).filter(|leader| *leader != self.config.peer && Some(*leader) != end);
            if let Some(leader) = leader
                && *passed != group
                && Some(*passed) != sender
            {
                self.outbox.learned(leader, record);
            }
        }
    }

    pub(crate) fn clock_refused(&mut self, from: PeerId, objects: &[ObjectId], receiver: Micros) {
        for object in objects {
            if !self.was_asked_for(*object, from) {
                continue;
            }
            let Some(fetch) = self.end_fetch(*object) else { continue };
            for id in fetch.waiters() {
                self.fail(id, Cause::ClockAhead { object: *object, receiver });
            }
        }
    }

    pub(crate) fn fetch_due(&mut self, object: ObjectId) {
        let Some(fetch) = self.fetches.get(&object) else { return };
        if self.now.mono < fetch.due {
            return;
        }
        if fetch.owners.is_empty() && fetch.readers.is_empty() {
            self.end_fetch(object);
            return;
        }
        if self.now.mono.since(fetch.last_heard) >= UNAVAILABLE_AFTER {
            self.unavailable(object);
            return;
        }
        let reachable = self.reachable(object);
        if let Some(fetch) = self.fetches.get_mut(&object) {
            let next = fetch.lookup.timed_out(&reachable);
            self.act(object, next);
        }
    }

    /// R14: waiters of what nobody answers for give up their locks and try again without any.
    fn unavailable(&mut self, object: ObjectId) {
        self.metrics.note(RareEvent::Unavailable);
        self.note_ended(object, Place::Unavailable);
        let Some(fetch) = self.end_fetch(object) else { return };
        for id in fetch.waiters() {
            self.fail(id, Cause::Unavailable { object });
        }
    }

    fn not_found(&mut self, object: ObjectId) {
        self.metrics.note(RareEvent::NotFound);
        let lost_with = self.lost_with(object);
        self.tell_absent(object, lost_with);
        self.note_ended(object, lost_with.map_or(Place::Nowhere, |group| Place::Lost { group }));
        let Some(fetch) = self.end_fetch(object) else { return };
        for id in fetch.waiters() {
            if let Some(txn) = self.txns.get_mut(id) {
                if let Some(intent) = txn.intents.get_mut(&object) {
                    *intent = Intent::Missing;
                }
                if let Some(read) = txn.reads.get_mut(&object) {
                    read.remote = Some(RemoteRead::Value(None));
                }
                txn.lock_first.remove(&object);
                self.wakes.push(id);
            }
        }
    }

    /// A search ended without an owner.
    fn note_ended(&mut self, object: ObjectId, place: Place) {
        let readers: Vec<TxnId> =
            self.fetches.get(&object).iter().flat_map(|fetch| &fetch.readers).map(|(_, id)| *id).collect();
        self.note_found(object, &readers, place);
    }

    /// The object is here now, from a group: whoever waited for it goes on, the oldest first.
    pub(crate) fn arrived(&mut self, object: ObjectId, epoch: Epoch, from: GroupId) {
        if let Some(fetch) = self.end_fetch(object) {
            self.uses.note_came(object, self.now.mono);
            self.pin_for_fetcher(object, &fetch);
            for id in fetch.owners.values() {
                if self.queue_local(*id, object).is_err()
                    && let Some(txn) = self.txns.get_mut(*id)
                {
                    // The queue is full: it asks again when it wakes, and is told so if there is still no room.
                    txn.intents.remove(&object);
                }
            }
            for (_, id) in &fetch.readers {
                if let Some(txn) = self.txns.get_mut(*id) {
                    txn.reads.remove(&object);
                    self.wakes.push(*id);
                }
            }
            for id in fetch.owners.values() {
                // Much that one transaction waits for arrives in one step.
                if self.wakes.last() != Some(id) {
                    self.wakes.push(*id);
                }
            }
            self.tell_the_path(object, fetch.lookup.path(), self.group.id(), epoch, Some(from));
        }
        self.answer_parked(object);
        self.hand_overs.push_back(object);
    }

    /// How much the transactions that wait for an object would have to leave here; `None` unless all of them can go to it.
    fn common_pull(&self, owners: &[TxnId]) -> Option<u64> {
        owners.iter().try_fold(0, |sum: u64, id| Some(sum.saturating_add(self.pull_of(*id)?)))
    }

    /// R14: on arrival the object is pinned for the transaction that fetched it, over its attempts.
    fn pin_for_fetcher(&mut self, object: ObjectId, fetch: &Fetch) {
        let waiting = fetch.owners.first_key_value().map(|(timestamp, _)| *timestamp);
        let Some(fetcher) = waiting.or(fetch.asked_age) else { return };
        if let Some(txn) = self.txns.get_mut(TxnId::from_u64(fetcher.sequence))
            && txn.timestamp == fetcher
        {
            txn.pins.push(object);
            self.locks.pin(object, fetcher);
        }
    }
}

impl Fetch {
    fn waiters(&self) -> Vec<TxnId> {
        self.owners.values().copied().chain(self.readers.iter().map(|(_, id)| *id)).collect()
    }
}
