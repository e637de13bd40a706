//! The groups that this peer belongs to: their messages, their timers, and what follows when a lead begins or ends.

use crate::message::{Ended, GroupRecord, Message};
use crate::metrics::RareEvent;
use crate::outbox::{Needs, needs_of};
use crate::rare_branches::RareBranch;
use crate::timers::Timer;
use crate::{Config, Peer, Sabotage};
use driftmesh_directory::Record;
use driftmesh_model::{Generation, GroupId, Lsn, Micros, PeerId, TxnId};
use driftmesh_object_store::{Body, Entry, Group, GroupMessage, MemberId};
use driftmesh_txn::{Cause, LockTable};
use std::collections::BTreeMap;

/// The soonest that a group is looked at again.
const LOOK_AGAIN_AFTER: Micros = Micros(200);
/// A follower that nobody leads and nobody counts on is dropped after so long.
const STRAY_FOR: Micros = Micros::from_millis(10_000);

/// Most groups of which is remembered what this peer owes them (R24); it follows far fewer at once.
const DROPPED_MAX: usize = 1 << 16;

/// Most groups that one peer can make this one follow (R24): one member leaves room for the groups of others.
const FOLLOWED_PER_PEER_MAX: usize = 64;

/// A group that this peer follows, or leads in place of a founder that is gone.
#[derive(Clone, Debug)]
pub(crate) struct Followed {
    pub(crate) group: Group,
    /// Who made this peer follow it.
    pub(crate) asked_by: PeerId,
    /// When it was last seen to have members.
    seen_at: Micros,
    /// What of it is counted in what this peer holds, bytes.
    pub(crate) counted: u64,
}

impl Followed {
    const fn new(group: Group, asked_by: PeerId, now: Micros) -> Self {
        Self { group, asked_by, seen_at: now, counted: 0 }
    }
}

/// What of a group decides what follows.
#[derive(Clone, Copy)]
struct Standing {
    leads: bool,
    confirmed: bool,
    watermark: Lsn,
}

impl Standing {
    fn of(group: &Group) -> Self {
        let (leads, confirmed) = (group.is_leading(), group.consensus().is_confirmed());
        Self { leads, confirmed, watermark: group.watermark() }
    }
}

fn is_stable_in(own: &Group, followed: &BTreeMap<GroupId, Followed>, group: GroupId, lsn: Lsn) -> bool {
    if own.id() == group {
        return lsn <= own.watermark();
    }
    followed.get(&group).is_some_and(|followed| lsn <= followed.group.watermark())
}

impl Peer {
    /// This incarnation, as a member of groups.
    pub(crate) const fn me(&self) -> MemberId {
        MemberId { peer: self.config.peer, incarnation: self.config.incarnation }
    }

    /// A group that this peer belongs to.
    pub(crate) fn group_of(&self, id: GroupId) -> Option<&Group> {
        if self.group.id() == id {
            return Some(&self.group);
        }
        self.followed.get(&id).map(|followed| &followed.group)
    }

    /// All groups that this peer belongs to, its own first.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        std::iter::once(&self.group).chain(self.followed.values().map(|followed| &followed.group))
    }

    /// A group that this peer leads.
    pub(crate) fn led(&self, id: GroupId) -> Option<&Group> {
        self.group_of(id).filter(|group| group.is_leading())
    }

    pub(crate) fn led_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        let group = if self.group.id() == id { Some(&mut self.group) } else { self.followed_mut(id) };
        group.filter(|group| group.is_leading())
    }

    fn followed_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.followed.get_mut(&id).map(|followed| &mut followed.group)
    }

    /// The groups that this peer leads, its own first.
    pub(crate) fn led_groups(&self) -> impl Iterator<Item = &Group> {
        std::iter::once(&self.group).chain(self.caretaken())
    }

    /// The groups that this peer leads in place of their founders.
    pub(crate) fn caretaken(&self) -> impl Iterator<Item = &Group> {
        self.followed.values().map(|followed| &followed.group).filter(|group| group.is_leading())
    }

    /// Journals a change of this peer's own group.
    pub(crate) fn journal(&mut self, entry: Entry) -> Lsn {
        // Most commits find others that wait for the end of the batching interval.
        self.own_dirty |= self.now.mono >= self.own_batch_at;
        self.group.append(self.now.mono, entry)
    }

    /// Journals a change of a group that this peer leads; `None` if it does not.
    pub(crate) fn journal_of(&mut self, id: GroupId, entry: Entry) -> Option<Lsn> {
        if id == self.group.id() {
            return Some(self.journal(entry));
        }
        let now = self.now.mono;
        let lsn = self.led_mut(id)?.append(now, entry);
        self.count_followed(id);
        self.note_dirty(id);
        Some(lsn)
    }

    /// A group took a step that others may have to hear of.
    fn note_dirty(&mut self, id: GroupId) {
        self.dirty.insert(id);
    }

    /// R6: what anything that is said of this peer's groups as a whole depends on.
    pub(crate) fn needs_of_all(&self) -> Needs {
        let unstable = self.led_groups().filter(|group| group.watermark() < group.tail());
        unstable.map(|group| (group.id(), group.tail())).collect()
    }

    /// A position, if it is not stable; else zero.
    pub(crate) fn unless_stable(&self, group: GroupId, lsn: Lsn) -> Lsn {
        if is_stable_in(&self.group, &self.followed, group, lsn) { Lsn::ZERO } else { lsn }
    }

    /// What something that depends on one position needs.
    pub(crate) fn needs_of(&self, group: GroupId, lsn: Lsn) -> Needs {
        needs_of(group, self.unless_stable(group, lsn))
    }

    /// A member of a group has said something.
    pub(crate) fn group_received(&mut self, from: PeerId, id: GroupId, message: GroupMessage) {
        let Some(incarnation) = self.members.get(&from).map(|member| member.incarnation) else { return };
        if let Some(record) = self.record_of_ended(id) {
            self.send_now(from, Message::Groups { records: vec![record] });
            return;
        }
        if self.group_of(id).is_none() && !self.begin_to_follow(from, id, &message) {
            return;
        }
        let sender = MemberId { peer: from, incarnation };
        self.with_group(id, |group, now| group.received(now, sender, message));
    }

    /// A leader wants this peer to follow its group. Returns whether it does.
    fn begin_to_follow(&mut self, from: PeerId, id: GroupId, message: &GroupMessage) -> bool {
        let (leads, generation) = match message {
            GroupMessage::Consensus(message) => (matches!(message.body, Body::Append { .. }), message.generation),
            GroupMessage::Slice(_)
            | GroupMessage::SliceTaken { .. }
            | GroupMessage::CopyDone(_)
            | GroupMessage::Closed(_) => (false, Generation::ZERO),
        };
        if !leads {
            return false;
        }
        if self.is_over(id, generation) {
            // R9: what an operator has ended makes nothing stable here any more.
            self.tell_groups(from);
            return false;
        }
        let asked_by_it = self.followed.values().filter(|followed| followed.asked_by == from).count();
        // R11: what could not be remembered when the group is dropped again is not promised.
        let may_promise = self.dropped.len() < DROPPED_MAX || self.dropped.contains_key(&id);
        let is_full = self.followed.len() >= self.config.followed_max
            || asked_by_it >= FOLLOWED_PER_PEER_MAX
            || !may_promise
            || !self.has_room_to_follow(&from)
            || self.rarely(RareBranch::RefuseGroup);
        if self.draining || self.clock_off_us().is_some() || is_full {
            // R24: early and typed; the leader asks somebody else. R18: so does one whose clock is wrong, as it might come to lead.
            self.send_now(from, Message::NoRoom { group: id });
            return false;
        }
        let seed = self.draw_seed();
        // R11: what this incarnation ever acknowledged or voted binds it, though it has dropped the journal.
        let promises = if self.broken(Sabotage::Promises) { None } else { self.dropped.get(&id).copied() };
        let promises = promises.unwrap_or_default();
        let group = Group::join(id, self.me(), self.config.journal, seed, self.now.mono, promises);
        #[cfg(feature = "sabotage")]
        let group = self.sabotaged(group);
        self.followed.insert(id, Followed::new(group, from, self.now.mono));
        self.metrics.note(RareEvent::BeganToFollow);
        true
    }

    /// A number for what a group draws by chance.
    pub(crate) fn draw_seed(&mut self) -> u64 {
        let drawn = self.new_object_id().as_u128();
        u64::try_from(drawn >> 64).unwrap_or(0)
    }

    /// Lets a group take a step, and does what follows from it.
    pub(crate) fn with_group<R>(&mut self, id: GroupId, step: impl FnOnce(&mut Group, Micros) -> R) -> Option<R> {
        let now = self.now.mono;
        let is_own = self.group.id() == id;
        let group = if is_own { &mut self.group } else { &mut self.followed.get_mut(&id)?.group };
        let before = Standing::of(group);
        let result = step(group, now);
        let after = Standing::of(group);
        if is_own {
            self.own_dirty = true;
        } else {
            self.count_followed(id);
            self.note_dirty(id);
        }
        self.group_stepped(id, is_own, before, after);
        Some(result)
    }

    fn group_stepped(&mut self, id: GroupId, is_own: bool, before: Standing, after: Standing) {
        if after.watermark > before.watermark {
            self.watermark_moved(id, after.watermark);
        }
        match (is_own, before.leads, after.leads) {
            (true, true, false) => self.own_group_deposed(),
            (false, false, true) => self.begin_caretaking(id),
            (false, true, false) => self.end_caretaking(id),
            (_, true, true) | (_, false, false) | (true, false, true) => {}
        }
        if !is_own && after.leads && after.confirmed && !before.confirmed {
            self.caretaking_confirmed(id);
        }
        if !is_own && self.followed.get(&id).is_some_and(|followed| followed.group.consensus().is_excluded()) {
            self.drop_followed(id);
        }
    }

    /// More of a journal is stable: what waited for it may leave, and go on.
    pub(crate) fn watermark_moved(&mut self, id: GroupId, watermark: Lsn) {
        let (own, followed) = (&self.group, &self.followed);
        self.outbox.release(id, watermark, |group, lsn| is_stable_in(own, followed, group, lsn));
        self.tell_closed(id, watermark);
        if id == self.group.id() {
            self.wake_stable(watermark);
            self.wake_held_commits();
            self.retired_at_last();
            self.more_is_stable();
        }
    }

    pub(crate) fn group_due(&mut self, id: GroupId) {
        if self.armed.get(&id).is_some_and(|armed| self.now.mono < *armed) {
            // A timer that an earlier one has overtaken.
            return;
        }
        self.armed.remove(&id);
        if self.groups.ended(id).is_some() {
            // R22: what was told of its end is the end. Its followers are gone, and that they are silent is no news.
            return;
        }
        self.with_group(id, Group::tick);
    }

    /// R24: groups that do not count on this peer, and whose leader says nothing any more, take no room from others. A
    /// late message is enough to begin to follow.
    pub(crate) fn drop_strays(&mut self) {
        let now = self.now.mono;
        let mut strays = Vec::new();
        for (id, followed) in &mut self.followed {
            let consensus = followed.group.consensus();
            if consensus.hears_a_leader(now) || consensus.membership().contains(&consensus.me()) {
                followed.seen_at = now;
            } else if now.since(followed.seen_at) >= STRAY_FOR {
                strays.push(*id);
            }
        }
        for id in strays {
            self.drop_followed(id);
        }
    }

    /// Whether the own group took a step that others may have to hear of. A group of one has only former members to
    /// tell.
    pub(crate) const fn own_group_has_to_say(&self) -> bool {
        let consensus = self.group.consensus();
        self.own_dirty && (!consensus.is_alone() || consensus.has_words())
    }

    /// Sends what the groups that took a step want said.
    pub(crate) fn replicate(&mut self) {
        let has_to_say = self.own_group_has_to_say();
        self.own_dirty = false;
        if has_to_say {
            self.replicate_group(self.group.id());
        }
        for id in std::mem::take(&mut self.dirty) {
            self.replicate_group(id);
        }
    }

    fn replicate_group(&mut self, id: GroupId) {
        let now = self.now.mono;
        let awaited = self.outbox.waits_for(id);
        let group = if self.group.id() == id { Some(&mut self.group) } else { self.followed_mut(id) };
        let Some(group) = group else { return };
        // What the barrier waits for does not wait for a batch to fill too; but for the answer to the last one, if that comes
        // sooner (after Nagle, RFC 896): each batch costs all members a turn on their processors.
        let sent = group.consensus().sent();
        let urgent = awaited > sent && sent <= group.watermark();
        let messages = group.take_messages(now, urgent);
        let next = group.next_tick();
        let waits = group.consensus().sent() < group.tail();
        for (to, message) in messages {
            let same = self.members.get(&to.peer).is_some_and(|member| member.incarnation == to.incarnation);
            if same {
                self.outbox.now(to.peer, Message::Group { group: id, message });
            }
        }
        if let Some(next) = next {
            let at = next.max(now.plus(LOOK_AGAIN_AFTER));
            if self.armed.get(&id).is_none_or(|armed| at < *armed) {
                self.armed.insert(id, at);
                self.timers.set(at, Timer::Group(id));
            }
        }
        if id == self.group.id() {
            self.own_batch_at = self.armed.get(&id).copied().filter(|_| waits).unwrap_or_default();
        }
    }

    /// This peer does not belong to a group any more.
    pub(crate) fn drop_followed(&mut self, id: GroupId) {
        if let Some(mut followed) = self.followed.remove(&id) {
            self.held_of_others -= followed.counted;
            if self.groups.ended(id).is_none() && self.dropped.len() < DROPPED_MAX {
                self.dropped.insert(id, followed.group.consensus().promises());
            }
            if followed.group.is_leading() {
                followed.group.give_up();
                self.forget_undone(&mut followed.group);
                self.end_caretaking(id);
            }
            self.armed.remove(&id);
            self.outbox.forget_group(id);
            // What was counted with it is counted no more: a search must not take that for "nothing moved".
            self.moves_base = self.moves_base.wrapping_add(1 << 40);
        }
    }

    /// R9: another member leads this peer's group now. What runs here ends, what is not stable is unknown until the
    /// term table says (R22), and this peer founds another group for what it does from now on. See decision 0017.
    pub(crate) fn own_group_deposed(&mut self) {
        self.metrics.note(RareEvent::Deposed);
        self.metrics.deposed += 1;
        let former_id = self.group.id();
        let running: Vec<TxnId> = self.txns.iter().filter(|txn| !txn.read_only).map(|txn| txn.id).collect();
        let goes_on = self.broken(Sabotage::OneWriter);
        for id in running.into_iter().filter(|_| !goes_on) {
            self.fail(id, Cause::Deposed { group: former_id });
            if let Some(txn) = self.txns.get_mut(id) {
                txn.pins.clear();
            }
        }
        // R16: what a fixed snapshot saw here may be lost, and what it would see elsewhere now knows nothing of it.
        for id in std::mem::take(&mut self.snapshots_here) {
            self.expire(id);
        }
        if !goes_on {
            self.locks = LockTable::default();
        }
        self.hand_overs.clear();
        self.stalled.clear();
        self.stalled_for_pointers = crate::collecting::Stalled::default();
        self.forget_lead(former_id);
        let founded = self.found_group();
        let mut former = std::mem::replace(&mut self.group, founded);
        self.told.group_changed(former_id);
        former.give_up();
        self.forget_undone(&mut former);
        self.followed.insert(former_id, Followed::new(former, self.config.peer, self.now.mono));
        self.count_followed(former_id);
        self.dirty.insert(former_id);
        self.wake_fates(former_id);
        self.wakes.extend(std::mem::take(&mut self.held_commits));
        self.tell_missed();
        let own = self.group.id();
        if let Some(record) = self.record_of_led(own) {
            self.tell_all_about(&record);
        }
        self.send_heartbeats(true);
    }

    /// R2: what this peer noted of departures that are no part of the group's journal after all is forgotten, and so is
    /// what it was about to tell the homes. R3: what it noted of earlier ones is true again,
    /// and what arrived and did not after all is on its way to that group.
    pub(crate) fn forget_undone(&mut self, former: &mut Group) {
        // A search must not take what is not counted any more for "nothing moved".
        self.moves_base = self.moves_base.wrapping_add(1 << 40);
        for (object, group, epoch) in former.take_undone() {
            let claim = Record { object, group, epoch };
            self.pointers.undo(&claim, self.now.mono);
            if self.hints.get(object).is_some_and(|hint| (hint.group, hint.epoch) == (group, epoch)) {
                self.hints.forget_up_to(&claim);
            }
        }
        for (object, epoch) in former.take_unarrived() {
            // Whoever leads the group now takes it. What the pointer said that went with the arrival is older.
            self.pointers.set(Record { object, group: former.id(), epoch }, self.now.mono);
        }
        for peer in self.members.keys().copied().collect::<Vec<_>>() {
            self.forget_home(&peer);
        }
        self.begin_republishing();
    }

    /// This peer does not lead a group any more: what it was about to promise, to tell and to send as its leader is no more.
    pub(crate) fn forget_lead(&mut self, id: GroupId) {
        self.windows.remove(&id);
        self.stop_closing(id);
        self.outbox.forget_group(id);
        self.grants_due.forget_from(id);
    }

    /// A group for what this peer owns from now on.
    fn found_group(&mut self) -> Group {
        self.foundings += 1;
        self.own_batch_at = Micros(0);
        // Both are of the former group.
        self.recent_commits.clear();
        self.drain_from = 0;
        let Config { peer, incarnation, .. } = &self.config;
        let id = GroupId::of_founding(peer, *incarnation, self.foundings, self.now.wall);
        let seed = self.draw_seed();
        let group = Group::found(id, self.me(), self.config.journal, seed, self.now.mono);
        #[cfg(feature = "sabotage")]
        let group = self.sabotaged(group);
        group
    }

    /// The peer stays after it had retired its group, whose end may not be stable or told yet.
    pub(crate) fn found_again(&mut self) {
        let founded = self.found_group();
        let former = std::mem::replace(&mut self.group, founded);
        let former_id = former.id();
        self.told.group_changed(former_id);
        if self.groups.ended(former_id).is_none() {
            self.followed.insert(former_id, Followed::new(former, self.config.peer, self.now.mono));
            self.count_followed(former_id);
            self.dirty.insert(former_id);
            self.begin_caretaking(former_id);
        } else {
            self.forget_lead(former_id);
        }
        let own = self.group.id();
        if let Some(record) = self.record_of_led(own) {
            self.tell_all_about(&record);
        }
        self.send_heartbeats(true);
    }

    /// Journals that a group has ended; told to all when that is stable.
    pub(crate) fn retire(&mut self, id: GroupId) {
        if self.led(id).is_some_and(|group| !group.is_retired()) {
            self.journal_of(id, Entry::Retired);
        }
        if id == self.group.id() {
            self.retired_at_last();
        }
    }

    /// What remains of a group that this peer leads and has retired, once that is stable.
    pub(crate) fn remains(&self, id: GroupId) -> Option<GroupRecord> {
        let group = self.led(id).filter(|group| group.is_retired() && group.watermark() == group.tail())?;
        let received = group.grants_received().map(|(from, log)| (from, log.clone())).collect();
        let sent = group.grants_sent().collect();
        let ended = Ended { terms: group.terms().clone(), tail: group.tail(), received, sent, lost: false };
        let (generation, term) = (group.generation(), group.term());
        Some(GroupRecord { group: id, generation, term, leader: None, ended: Some(ended) })
    }

    /// Told once: whoever has not heard it says so with its heartbeats (`compare_groups`).
    fn retired_at_last(&mut self) {
        if self.draining
            && self.groups.ended(self.group.id()).is_none()
            && let Some(record) = self.remains(self.group.id())
        {
            self.tell_all_about(&record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh_model::{Incarnation, Now};

    fn at(time: u64) -> Now {
        Now { mono: Micros(time), wall: Micros(time) }
    }

    #[test]
    fn a_peer_and_an_image_of_it_found_different_groups() {
        let id = PeerId::from_bytes([7; 32]);
        let mut peer = Peer::new(Config::new(id, Incarnation::from_u64(1), [7; 32]), at(1));
        let mut image = peer.clone();
        (peer.now, image.now) = (at(2), at(3));
        assert_ne!(peer.found_group().id(), image.found_group().id());
    }
}
