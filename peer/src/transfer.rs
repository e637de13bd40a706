//! Ownership transfer: grants out and in, numbered, repeated until answered, answered once (R19, R20).

use crate::copies::COPY_BYTES_MIN;
use crate::message::{Grant, GrantAnswer, GrantReply, GrantedValue, GrantedVersion, Message};
use crate::metrics::RareEvent;
use crate::rare_branches::RareBranch;
use crate::surveying::AdoptedGrant;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_directory::Record;
use driftmesh_model::limits::CHAIN_TRANSFER_BYTES_MAX;
use driftmesh_model::{Generation, GroupId, Hash, Lsn, Micros, ObjectId, PeerId, Timestamp, TxnTimestamp};
use driftmesh_object_store::{Arrival, Chain, Entry, GrantSeen, Group, InTransit, TRANSFERS_MAX, Version};
use driftmesh_txn::{RemoteWaiter, TaskKind};
use std::collections::BTreeSet;

/// A grant that is not answered is sent again after this.
const REPEAT_GRANT_AFTER: Micros = Micros::from_millis(300);
/// The same, where that is tried on purpose.
const REPEAT_GRANT_EARLY: Micros = Micros::from_millis(1);
/// A grant to a group that has ended waits so long for its departure to be stable, again and again.
const SETTLE_AGAIN_AFTER: Micros = Micros::from_millis(20);
/// What is let go and not free by then stays.
const LET_GO_WITHIN: Micros = Micros::from_millis(1_000);
/// Incarnation and number of the transaction that waits for what is let go: there is none.
const NOBODY: u64 = u64::MAX;
/// Grants of one group to another that one step sends again.
const REPEATED_AT_ONCE: usize = 256;
/// What arrives by one entry weighs about so much, bytes: a batch of entries is not held up by one that is large.
const ARRIVALS_BYTES: usize = 64 << 10;

/// The groups of a grant: the sender's, the receiver's.
type Way = (GroupId, GroupId);

/// Whether nobody has asked for what leaves with this age: the object was let go.
pub(crate) const fn is_let_go(age: &TxnTimestamp) -> bool {
    age.incarnation == NOBODY && age.sequence == NOBODY
}

/// What one message brings from one group, to arrive by one entry.
#[derive(Default)]
struct Arriving {
    /// The group, and below which number it has settled all its grants, as it said with each of these.
    sender: Option<(GroupId, u64)>,
    arrivals: Vec<Arrival>,
    objects: BTreeSet<ObjectId>,
    cost: usize,
}

impl Arriving {
    /// Whether this one belongs to another entry than those before it. What comes twice is judged after them.
    fn must_end_before(&self, grant: &Grant) -> bool {
        let Some(last) = self.arrivals.last() else { return false };
        let follows = self.sender.is_some_and(|(from, _)| from == grant.from) && last.number < grant.number;
        let is_full = self.cost >= ARRIVALS_BYTES || self.arrivals.len() >= TRANSFERS_MAX;
        !follows || is_full || self.objects.contains(&grant.object)
    }

    fn add(&mut self, from: GroupId, unsettled_from: u64, arrival: Arrival) {
        let (_, settled) = self.sender.get_or_insert((from, unsettled_from));
        *settled = unsettled_from.min(*settled);
        self.objects.insert(arrival.object);
        self.cost += arrival.cost();
        self.arrivals.push(arrival);
    }
}

/// The message for an object in transit, what its values weigh in it, and whether a value was spared.
fn granted(
    (from, to): Way,
    (number, unsettled_from): (u64, u64),
    transit: &InTransit,
    have: Option<Hash>,
) -> (Grant, usize, bool) {
    let (mut spared, mut bytes) = (false, 0);
    let version = |version: &Version| {
        let value = match &version.value {
            None => GrantedValue::Deleted,
            Some(value) if have.is_some() && value.len() >= COPY_BYTES_MIN && have == Some(value.hash()) => {
                spared = true;
                GrantedValue::Hash(value.hash())
            }
            Some(value) => {
                bytes += value.len();
                GrantedValue::Whole(value.clone())
            }
        };
        GrantedVersion { commit: version.commit, value }
    };
    let versions = transit.chain.versions().map(version).collect();
    let grant = Grant {
        from,
        to,
        number,
        unsettled_from,
        object: transit.object,
        epoch: transit.epoch,
        versions,
        outcomes: transit.outcomes.clone(),
        low_water: transit.chain.low_water(),
        floor: transit.floor,
    };
    bytes += grant.outcomes.as_ref().map_or(0, |outcomes| outcomes.cost());
    (grant, bytes, spared)
}

impl Peer {
    /// A grant is to be sent at a time.
    pub(crate) fn grant_is_due(&mut self, from: GroupId, to: GroupId, number: u64, at: Micros) {
        if let Some(at) = self.grants_due.set((from, to), number, at) {
            self.timers.set(at, Timer::Grants(from, to));
        }
    }

    /// Sends grants, with hashes for what the receiver said it has.
    pub(crate) fn send_grants(&mut self, (from, to): Way, grants: &[(u64, Option<Hash>)]) {
        for (number, _) in grants {
            let again = if self.rarely(RareBranch::RepeatGrant) { REPEAT_GRANT_EARLY } else { REPEAT_GRANT_AFTER };
            self.grant_is_due(from, to, *number, self.now.mono.plus(again));
        }
        let is_guarded = !self.broken(Sabotage::BarrierGrants);
        let leader = self.leader_of(to);
        let (own, followed) = (&self.group, &self.followed);
        let group = if own.id() == from { Some(own) } else { followed.get(&from).map(|followed| &followed.group) };
        let (Some(leader), Some(group)) = (leader, group.filter(|group| group.is_leading())) else { return };
        // R6: leaves when it is stable that the object has left, and what `unsettled_from` says: the receiver forgets by it
        // what it refused.
        let is_stable = group.tail() <= group.watermark();
        let needs = if is_guarded && !is_stable { group.tail() } else { Lsn::ZERO };
        let unsettled_from = group.unsettled_from(to);
        let (mut held, mut spared) = (0, 0);
        for (number, have) in grants {
            let Some(transit) = group.unsettled(to, *number) else { continue };
            let (grant, bytes, is_spared) = granted((from, to), (*number, unsettled_from), transit, *have);
            spared += u64::from(is_spared);
            held += self.outbox.grant(leader, (group.generation(), needs), bytes, grant);
        }
        for _ in 0..spared {
            self.metrics.note(RareEvent::ValueSpared);
        }
        self.note_held(held);
    }

    /// Step 4: until acknowledged, grants are repeated to whoever leads the destination.
    pub(crate) fn grants_due(&mut self, from: GroupId, to: GroupId) {
        for number in self.grants_due.take((from, to), self.now.mono, REPEATED_AT_ONCE) {
            self.grant_due(from, to, number);
        }
        if let Some(at) = self.grants_due.next((from, to)) {
            // What is left of those that are due now comes in a step of its own.
            self.timers.set(at.max(self.now.mono.plus(Micros(1))), Timer::Grants(from, to));
        }
    }

    fn grant_due(&mut self, from: GroupId, to: GroupId, number: u64) {
        if self.led(from).is_none_or(|group| group.unsettled(to, number).is_none()) {
            self.grants_due.remove((from, to), number);
            return;
        }
        if self.groups.ended(to).is_some() {
            self.settle_grant_to_ended(from, to, number);
            return;
        }
        if self.broken(Sabotage::OneOwner) {
            self.take_back(from, to, number);
            return;
        }
        let is_unstable =
            |group: &Group| group.unsettled(to, number).is_some_and(|transit| transit.changed > group.watermark());
        if self.outbox.is_pressed() && self.led(from).is_some_and(is_unstable) {
            // R24: it waits for its departure to be stable, as the last one does.
            self.grant_is_due(from, to, number, self.now.mono.plus(REPEAT_GRANT_AFTER));
            return;
        }
        self.metrics.note(RareEvent::RepeatedGrant);
        if let Some(group) = self.led_mut(from) {
            // R24: what was not stable when it left made it longer than a message may be.
            group.prune_in_transit(to, number, CHAIN_TRANSFER_BYTES_MAX);
        }
        self.send_grants((from, to), &[(number, None)]);
    }

    /// The leader of a group is reachable again, or another one: what it has not answered is repeated.
    pub(crate) fn repeat_grants_to(&mut self, to: GroupId) {
        let of = |group: &Group| group.unsettled_to(to).map(|number| (group.id(), number)).collect::<Vec<_>>();
        let unsettled: Vec<(GroupId, u64)> = self.led_groups().flat_map(of).collect();
        for (from, number) in unsettled {
            self.grant_is_due(from, to, number, self.now.mono);
        }
    }

    /// A group has ended for good, and what it answered is known: what is on its way to it arrived, or comes back.
    pub(crate) fn settle_grants_to_ended(&mut self, to: GroupId) {
        let of = |group: &Group| group.unsettled_to(to).map(|number| (group.id(), number)).collect::<Vec<_>>();
        let unsettled: Vec<(GroupId, u64)> = self.led_groups().flat_map(of).collect();
        for (from, number) in unsettled {
            self.settle_grant_to_ended(from, to, number);
        }
    }

    /// One grant to a group that has ended: its object arrived, or comes back (R19).
    /// Of a group that was given up nobody knows what it took and did with it, so nothing comes back: beside newer states of
    /// what it was committed with there, an older state of it would be a world that never was.
    fn settle_grant_to_ended(&mut self, from: GroupId, to: GroupId, number: u64) {
        let Some(group) = self.led(from) else { return };
        let Some(transit) = group.unsettled(to, number) else { return };
        let Some(ended) = self.groups.ended(to) else { return };
        if transit.changed > group.watermark() {
            // R6: what is settled has left for certain, as it has where the destination answers. Pointers go by that.
            self.grant_is_due(from, to, number, self.now.mono.plus(SETTLE_AGAIN_AFTER));
            return;
        }
        let seen = match ended.received.get(&from) {
            Some(log) => log.look_up(number),
            None if ended.lost => GrantSeen::Adopted,
            None => GrantSeen::New,
        };
        match seen {
            GrantSeen::Adopted => self.handed((from, to), vec![number]),
            GrantSeen::New | GrantSeen::Refused | GrantSeen::BeyondWindow => self.take_back(from, to, number),
        }
        self.grants_due.remove((from, to), number);
    }

    /// Step 3 of a transfer, at the destination.
    pub(crate) fn granted(&mut self, from: PeerId, generation: Generation, grants: Vec<Grant>) {
        let mut arriving = Arriving::default();
        for grant in grants {
            // R19: what is over gives nothing any more: the object is where the next generation has it, or was settled before
            // the group ended, or is said to be lost.
            if !self.is_over(grant.from, generation) {
                if arriving.must_end_before(&grant) {
                    self.adopt(from, &mut arriving);
                }
                self.one_granted(from, grant, &mut arriving);
            }
        }
        self.adopt(from, &mut arriving);
    }

    fn one_granted(&mut self, from: PeerId, mut grant: Grant, arriving: &mut Arriving) {
        let Some(group) = self.led(grant.to) else {
            if let Some(record) = self.record_of_ended(grant.to) {
                self.send_now(from, Message::Groups { records: vec![record] });
            } else {
                self.metrics.note(RareEvent::GrantToFormerLeader);
            }
            return;
        };
        let is_numbered = grant.number > 0 && grant.unsettled_from <= grant.number;
        if grant.from == grant.to || !is_numbered {
            // R25: no sound group says so, and no answer to it could be journalled.
            self.metrics.note_impossible();
            return;
        }
        if group.is_retired() {
            // Its last entry is journalled: what it did not answer comes back when its end is told (R19).
            return;
        }
        let is_own = grant.to == self.group.id();
        let way = (grant.from, grant.to);
        // R20: a number is answered once; a late duplicate gets the same answer again.
        let seen = group.grant_seen(grant.from, grant.number);
        // Which entry answered it is not remembered; the whole journal is stable soon.
        let (tail, is_confirmed) = (group.tail(), group.consensus().is_confirmed());
        match seen {
            GrantSeen::New => {}
            GrantSeen::Adopted if self.broken(Sabotage::Once) && is_own => {}
            GrantSeen::Adopted | GrantSeen::Refused => {
                self.metrics.note(RareEvent::LateDuplicateGrant);
                let reply = if seen == GrantSeen::Adopted { GrantReply::Adopted } else { GrantReply::Refused };
                self.answer_grant(from, way, GrantAnswer { number: grant.number, reply }, tail);
                return;
            }
            GrantSeen::BeyondWindow => return,
        }
        if !is_own {
            // Nothing runs on a group that is led in place of its founder: it takes nothing in.
            if is_confirmed {
                self.refuse(from, &grant, arriving);
            }
            return;
        }
        let Some(versions) = self.whole_versions(grant.object, std::mem::take(&mut grant.versions)) else {
            self.metrics.note(RareEvent::ValuesMissing);
            let reply = GrantReply::NeedsValues;
            self.answer_grant(from, way, GrantAnswer { number: grant.number, reply }, Lsn::ZERO);
            return;
        };
        // R25: a time or an epoch at the end of its range would stop this peer's own from climbing: what it commits and sends on
        // afterwards must be such that its followers take it too.
        let in_range = grant.floor < Timestamp::ARRIVING_MAX && grant.epoch.generation() < Generation::END;
        let newest = versions.last().map(|version| version.commit);
        let sound = in_range
            && (self.group.owned(grant.object).is_none() || self.broken(Sabotage::Once))
            && grant
                .outcomes
                .as_deref()
                .is_none_or(|outcomes| outcomes.are_sound() && outcomes.last_scheduled() <= grant.floor)
            && Chain::are_sound(&versions, grant.low_water)
            && (newest.is_some_and(|newest| newest <= grant.floor) || self.broken(Sabotage::SnapshotClock));
        if self.draining || !sound || self.rarely(RareBranch::RefuseGrant) {
            self.metrics.malformed += u64::from(!sound);
            self.refuse(from, &grant, arriving);
            return;
        }
        let Grant { number, object, epoch, outcomes, low_water, floor, .. } = grant;
        let arrival = Arrival { object, epoch, number, versions, outcomes, low_water, floor };
        arriving.add(grant.from, grant.unsettled_from, arrival);
    }

    /// The versions of a grant with every hash replaced by the value it names, if all are at hand. The journal gets
    /// whole values: the group's followers have no cache.
    fn whole_versions(&mut self, object: ObjectId, granted: Vec<GrantedVersion>) -> Option<Vec<Version>> {
        let mut versions = Vec::with_capacity(granted.len());
        for GrantedVersion { commit, value } in granted {
            let value = match value {
                GrantedValue::Deleted => None,
                GrantedValue::Whole(value) => Some(value),
                GrantedValue::Hash(_) if self.rarely(RareBranch::MissingValues) => return None,
                GrantedValue::Hash(hash) => {
                    let (_, copy) = self.copies.get(object)?;
                    if copy.hash() != hash {
                        return None;
                    }
                    Some(copy.clone())
                }
            };
            versions.push(Version { commit, value });
        }
        Some(versions)
    }

    /// Journals what has arrived, and answers.
    fn adopt(&mut self, peer: PeerId, arriving: &mut Arriving) {
        let Arriving { sender, arrivals, .. } = std::mem::take(arriving);
        let Some((from, unsettled_from)) = sender else { return };
        // R16: commits here lie above the floor. A grant is never refused for its time (R18).
        let follow = if self.broken(Sabotage::SnapshotClock) {
            arrivals.iter().map(Arrival::newest_commit).max()
        } else {
            arrivals.iter().map(|arrival| arrival.floor).max()
        };
        self.clock.raise_above(follow.unwrap_or_default());
        let to = self.group.id();
        let of = |arrival: &Arrival| AdoptedGrant {
            to,
            number: arrival.number,
            object: arrival.object,
            epoch: arrival.epoch,
        };
        let adopted: Vec<AdoptedGrant> = arrivals.iter().map(of).collect();
        let lsn = self.journal(Entry::TransferIn { from, unsettled_from, arrivals });
        self.metrics.arrived += adopted.len() as u64;
        for grant in adopted {
            self.remember_adopted(from, grant);
            let answer = GrantAnswer { number: grant.number, reply: GrantReply::Adopted };
            self.answer_grant(peer, (from, to), answer, lsn);
            let record = self.own_record(grant.object, grant.epoch.of_generation(self.group.generation()));
            self.settled_here(record, from);
        }
    }

    /// The object is owned here at this record's epoch, and came from a group: older claims go, homes are told, waiters
    /// go on.
    fn settled_here(&mut self, record: Record, from: GroupId) {
        self.arrivals.push(record.object);
        // Higher ones too: they are lies, for nobody else can have had it at a higher epoch. One that stayed would hide where the
        // object goes from here (R3).
        self.pointers.forget(record.object);
        self.hints.forget(record.object);
        self.publish(record.object);
        self.tell_arrived(record.object);
        self.arrived(record.object, record.epoch, from);
    }

    /// R19: what cannot be taken is refused, for ever and by a journal entry; then its sender takes it back.
    fn refuse(&mut self, from: PeerId, grant: &Grant, arriving: &mut Arriving) {
        // Entries are in the order of the grants.
        self.adopt(from, arriving);
        self.metrics.note(RareEvent::GrantRefused);
        let (sender, number, unsettled_from) = (grant.from, grant.number, grant.unsettled_from);
        if let Some(lsn) = self.journal_of(grant.to, Entry::Refused { from: sender, number, unsettled_from }) {
            let answer = GrantAnswer { number, reply: GrantReply::Refused };
            self.answer_grant(from, (sender, grant.to), answer, lsn);
        }
    }

    fn answer_grant(&mut self, peer: PeerId, (from, to): Way, answer: GrantAnswer, lsn: Lsn) {
        // R6: leaves when the entry that it speaks of is stable.
        let early = self.broken(Sabotage::BarrierAnswers);
        let needs = if early { Lsn::ZERO } else { self.unless_stable(to, lsn) };
        let generation = self.led(to).map(Group::generation).unwrap_or_default();
        self.outbox.grant_answer(peer, (from, to), (generation, needs), answer);
    }

    /// What the destination has answered.
    pub(crate) fn grants_answered(
        &mut self,
        from: GroupId,
        (to, generation): (GroupId, Generation),
        answers: Vec<GrantAnswer>,
    ) {
        if self.is_over(to, generation) {
            // What it took is not with the next generation unless that says so, nor what remains of it unless it is told.
            return;
        }
        let mut adopted = Vec::with_capacity(answers.len());
        for GrantAnswer { number, reply } in answers {
            // Whoever says so: an answer leaves only when the entry that gave it is stable.
            if self.led(from).is_none_or(|group| group.unsettled(to, number).is_none()) {
                continue;
            }
            match reply {
                GrantReply::Adopted => {
                    self.grants_due.remove((from, to), number);
                    adopted.push(number);
                }
                GrantReply::Refused => {
                    // Its number may be among those before it, if whoever answers is faulty.
                    self.handed((from, to), std::mem::take(&mut adopted));
                    self.take_back(from, to, number);
                    self.grants_due.remove((from, to), number);
                }
                GrantReply::NeedsValues => self.send_grants((from, to), &[(number, None)]),
            }
        }
        self.handed((from, to), adopted);
        if self.draining && self.group.owned_count() + self.group.in_transit_count() == 0 {
            // So that a goodbye right after this leaves nobody waiting for what this group might own.
            self.send_heartbeats(true);
        }
        self.use_grant_room(to);
    }

    /// The destination has the objects of these grants.
    fn handed(&mut self, (from, to): Way, mut numbers: Vec<u64>) {
        let Some(group) = self.led(from) else { return };
        numbers.sort_unstable();
        numbers.dedup();
        numbers.retain(|number| group.unsettled(to, *number).is_some());
        if numbers.is_empty() {
            return;
        }
        let even_small = self.broken(Sabotage::Hint);
        let group =
            if from == self.group.id() { Some(&self.group) } else { self.followed.get(&from).map(|it| &it.group) };
        for transit in numbers.iter().filter_map(|number| group?.unsettled(to, *number)) {
            let newest = transit.chain.newest();
            if let Some(value) = &newest.value {
                self.copies.keep(transit.object, newest.commit, value, even_small);
            }
        }
        for numbers in numbers.chunks(TRANSFERS_MAX) {
            self.journal_of(from, Entry::Handed { to, numbers: numbers.to_vec() });
        }
    }

    /// As many objects that wait for the grant window may leave as there is room for.
    fn use_grant_room(&mut self, to: GroupId) {
        let room = self.group.grant_room(to);
        let Some(stalled) = self.stalled.get_mut(&to) else { return };
        self.hand_overs.extend(std::iter::from_fn(|| stalled.pop()).take(room));
        if stalled.is_empty() {
            self.stalled.remove(&to);
        }
    }

    /// R19: only after a stable refusal the object is owned by its sender again, one epoch above the refused one.
    fn take_back(&mut self, from: GroupId, to: GroupId, number: u64) {
        let Some(transit) = self.led(from).and_then(|group| group.unsettled(to, number)) else { return };
        let (object, epoch) = (transit.object, transit.epoch.next());
        self.metrics.note(RareEvent::TakenBack);
        self.journal_of(from, Entry::TakenBack { to, number });
        if from == self.group.id() {
            let record = self.own_record(object, epoch.of_generation(self.group.generation()));
            self.settled_here(record, to);
        }
    }

    /// Hands an object over to a group that has not asked for it, as soon as nobody here has it, within a second.
    pub(crate) fn let_go(&mut self, object: ObjectId, group: GroupId, kind: &TaskKind) {
        // Younger than every transaction there is: running ones finish first.
        let time = self.clock.now(self.now.wall);
        let age = TxnTimestamp { time, incarnation: NOBODY, sequence: NOBODY };
        let waiter = RemoteWaiter { group, kind: kind.clone(), have: None, expires: self.now.mono.plus(LET_GO_WITHIN) };
        self.locks.queue_remote(object, age, waiter);
        self.hand_overs.push_back(object);
    }
}
