//! Who else is in the mesh, as far as this peer can reach them.

use crate::message::{GroupRecord, Introduction, Message};
use crate::metrics::RareEvent;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_directory::Reachable;
use driftmesh_model::{GroupId, Incarnation, Micros, Now, ObjectId, PeerId, Timestamp};
use driftmesh_object_store::MemberId;
use std::collections::VecDeque;

/// A member that asked or answered something within this hears every heartbeat.
const IN_USE_FOR: Micros = Micros::from_millis(2_000);
/// Any other member hears one of so many.
const IDLE_HEARTBEATS: u64 = 10;
/// Peers that are remembered when they are gone, the last ones (R24).
const GONE_MAX: usize = 256;
/// A member whose clock is further from ours is not given objects that it did not ask for.
pub(crate) const CLOCK_NEAR: Micros = Micros::from_millis(250);

/// A member of the mesh.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) incarnation: Incarnation,
    pub(crate) group: GroupId,
    pub(crate) connected: bool,
    pub(crate) oldest_snapshot: Option<Timestamp>,
    /// Its wall clock when it said that; zero if it never did.
    pub(crate) heard_wall: Micros,
    pub(crate) heard_at: Micros,
    /// Its wall clock minus ours, microseconds, by its last heartbeat and what it said of ours: where both ways take
    /// the same time, that cancels out.
    pub(crate) clock_offset: Option<i64>,
    /// The offset nearest to zero that these two allow, however long either was on its way.
    pub(crate) clock_offset_least: Option<i64>,
    /// Its wall clock minus ours as its last heartbeat looked; what the heartbeat took is part of it.
    offset_heard: Option<i64>,
    /// How many objects its group owns, as it last said in this incarnation.
    pub(crate) owned: Option<u64>,
    /// How many groups of others it follows, as it last said.
    pub(crate) followed: u64,
    /// How many bytes of objects it has room for, and how much the groups take that it leads, as it last said.
    pub(crate) room: u64,
    pub(crate) led_bytes: u64,
    /// Its present attempt to leave; zero while it stays.
    pub(crate) draining: u64,
    /// The number of its last heartbeat.
    heartbeat: u64,
    /// When it was last asked or answered anything.
    used_at: Micros,
    /// Once it knows that this peer is leaving: how many of its grants to this peer are not settled.
    pub(crate) unsettled_to_us: Option<u64>,
    /// What fails together with it.
    pub(crate) domain: u64,
    /// What it knows of groups, as its last heartbeat said.
    pub(crate) groups_digest: Option<u64>,
    /// When it was last told all that this peer knows of groups.
    pub(crate) told_groups_at: Micros,
    /// It is an old copy of what was met before: nothing that it says counts (R11).
    pub(crate) is_old_copy: bool,
}

impl Member {
    /// Whether it may be given objects that it did not ask for: reachable, and with a clock near ours (R18).
    pub(crate) fn is_trusted(&self) -> bool {
        self.connected
            && self.draining == 0
            && self.clock_offset.is_some_and(|offset| offset.unsigned_abs() <= CLOCK_NEAR.0)
    }
}

/// Peers that are gone, and how much of them was heard: an old copy of one may come to life long after (R11).
#[derive(Clone, Debug, Default)]
pub(crate) struct Gone {
    heard: VecDeque<(PeerId, Incarnation, u64)>,
}

impl Gone {
    fn note(&mut self, peer: PeerId, incarnation: Incarnation, heartbeats: u64) {
        if self.heard.len() >= GONE_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back((peer, incarnation, heartbeats));
    }

    /// The last start of a peer that is remembered, and how many heartbeats of it were heard.
    fn last(&self, peer: PeerId) -> Option<(Incarnation, u64)> {
        let of = self.heard.iter().rev().find(|(gone, _, _)| *gone == peer);
        of.map(|(_, incarnation, heartbeats)| (*incarnation, *heartbeats))
    }

    /// How many heartbeats of this start of a peer were heard.
    fn heard(&self, peer: PeerId, incarnation: Incarnation) -> u64 {
        let of = self.heard.iter().rev().find(|(gone, start, _)| (*gone, *start) == (peer, incarnation));
        of.map_or(0, |(_, _, heartbeats)| *heartbeats)
    }
}

impl Peer {
    /// How this peer introduces itself.
    #[must_use]
    pub const fn introduction(&self) -> Introduction {
        Introduction {
            incarnation: self.config.incarnation,
            group: self.group.id(),
            generation: self.group.generation(),
            term: self.group.term(),
            domain: self.config.domain,
            heartbeats: self.heartbeats,
        }
    }

    /// A peer was admitted, or its connection is back.
    pub fn joined(&mut self, now: Now, peer: PeerId, introduction: Introduction) {
        self.now = now;
        if peer == self.config.peer || introduction.group == self.group.id() {
            self.metrics.malformed += 1;
            return;
        }
        let same = self.members.get(&peer).filter(|former| former.incarnation == introduction.incarnation);
        let heard = same.map_or_else(|| self.gone.heard(peer, introduction.incarnation), |former| former.heartbeat);
        if heard > introduction.heartbeats && !self.broken(Sabotage::OldCopies) {
            self.refuse_old_copy(peer, introduction.incarnation, heard);
            return;
        }
        if same.is_none() {
            self.feeding.forget_subscriber(peer);
        }
        let owned = same.and_then(|former| former.owned);
        let heartbeat = same.map_or(0, |former| former.heartbeat);
        let member = Member {
            incarnation: introduction.incarnation,
            group: introduction.group,
            connected: true,
            oldest_snapshot: same.and_then(|former| former.oldest_snapshot),
            heard_wall: same.map_or(Micros(0), |former| former.heard_wall),
            heard_at: now.mono,
            clock_offset: same.and_then(|former| former.clock_offset),
            clock_offset_least: same.and_then(|former| former.clock_offset_least),
            offset_heard: same.and_then(|former| former.offset_heard),
            owned,
            followed: same.map_or(0, |former| former.followed),
            room: same.map_or(u64::MAX, |former| former.room),
            led_bytes: same.map_or(0, |former| former.led_bytes),
            draining: 0,
            heartbeat,
            used_at: now.mono,
            unsettled_to_us: None,
            domain: introduction.domain,
            groups_digest: None,
            told_groups_at: now.mono,
            is_old_copy: false,
        };
        let former = self.members.insert(peer, member);
        if let Some(former) = &former
            && former.incarnation != introduction.incarnation
        {
            self.groups.leaderless(former.group, peer);
        }
        let Introduction { group, generation, term, .. } = introduction;
        self.learn_group(&GroupRecord { group, generation, term, leader: Some(peer), ended: None });
        self.tell_groups(peer);
        let new_incarnation = former.as_ref().is_some_and(|former| former.incarnation != introduction.incarnation);
        if new_incarnation {
            // R4: what it was told as a home went with its former incarnation.
            self.forget_home(&peer);
        }
        self.ring.add(peer);
        if former.as_ref().is_some_and(|former| !former.connected && former.incarnation == introduction.incarnation) {
            self.tell_peer_back(peer);
        }
        if former.is_none_or(|former| !former.connected) || new_incarnation {
            self.begin_republishing();
        }
        // R4: a newcomer begins to work when it knows that somebody knows it, and so may be asked about what it makes.
        self.heartbeats += 1;
        self.send_heartbeats_to(&[peer]);
        self.repeat_grants_to(introduction.group);
        self.searches_for_group(introduction.group);
    }

    /// R11: what was heard of this start of a peer is more than it knows of. It is a copy of that peer's memory as it was
    /// some time ago, of a virtual machine that was set back or started twice, and may have forgotten what it voted and
    /// acknowledged since: it takes no part.
    fn refuse_old_copy(&mut self, peer: PeerId, incarnation: Incarnation, heartbeats: u64) {
        self.metrics.note(RareEvent::OldCopyRefused);
        if let Some(member) = self.members.get_mut(&peer) {
            member.is_old_copy = true;
        }
        self.send_now(peer, Message::Forgotten { incarnation, heartbeats });
    }

    /// Whether what a peer says counts: it was met, and is no old copy of itself.
    pub(crate) fn counts(&self, peer: &PeerId) -> bool {
        self.members.get(peer).is_some_and(|member| !member.is_old_copy)
    }

    /// Who was not met says nothing; an old copy can introduce itself again, and is told again what it is: it may not have
    /// heard it.
    pub(crate) fn hear_who_does_not_count(&mut self, from: PeerId, message: Message) {
        if let Message::Introduced(introduction) = message {
            self.introduced_again(from, introduction);
            return;
        }
        self.metrics.malformed += 1;
        if matches!(message, Message::Heartbeat { .. }) {
            let heard = self.members.get(&from).map(|member| (member.incarnation, member.heartbeat));
            if let Some((incarnation, heartbeats)) = heard.or_else(|| self.gone.last(from)) {
                self.send_now(from, Message::Forgotten { incarnation, heartbeats });
            }
        }
    }

    /// A member says that this peer is an old copy of itself.
    pub(crate) fn told_forgotten(&mut self, from: PeerId, incarnation: Incarnation, heartbeats: u64) {
        if incarnation != self.config.incarnation {
            return;
        }
        if heartbeats > self.heartbeats {
            // R9: what it would do now may contradict what it has done.
            self.superseded(self.now);
        } else {
            // An introduction was under way while it said more.
            self.send_now(from, Message::Introduced(self.introduction()));
        }
    }

    /// A peer that was refused for an old copy of itself introduces itself again.
    pub(crate) fn introduced_again(&mut self, from: PeerId, introduction: Introduction) {
        let was_met = match self.members.get(&from) {
            Some(member) => member.is_old_copy && member.incarnation == introduction.incarnation,
            None => self.gone.heard(from, introduction.incarnation) > 0,
        };
        if was_met {
            self.joined(self.now, from, introduction);
        }
    }

    /// This peer turned out to be the founder of its mesh, which it could not know at its start
    /// ([`Founding`](crate::Founding)).
    pub fn founded(&mut self, now: Now) {
        self.now = now;
        if !std::mem::replace(&mut self.config.founder, true) {
            self.create_directory();
        }
    }

    /// A peer is out of reach; with `clean` it said goodbye, and what it owns is what it last said.
    pub fn left(&mut self, now: Now, peer: PeerId, clean: bool) {
        self.now = now;
        let Some(member) = self.members.get_mut(&peer) else { return };
        let was_connected = std::mem::take(&mut member.connected);
        let (group, owned) = (member.group, member.owned);
        let gone = MemberId { peer, incarnation: member.incarnation };
        self.ring.remove(&peer);
        self.forget_home(&peer);
        self.outbox.forget(peer);
        self.stop_feeding_to(peer);
        self.tasks_lose(peer);
        for id in self.followed.keys().copied().collect::<Vec<_>>() {
            self.with_group(id, |group, now| group.member_is_gone(now, gone));
        }
        if self.groups.ended(group).is_some() {
            // What it led has ended: nothing of it can come any more.
            self.forget_member(peer);
        } else if was_connected && !(clean && owned == Some(0)) {
            self.tell_peer_gone(peer, owned);
        }
        let stalled = self.stalled.remove(&group).unwrap_or_default().take();
        self.hand_overs.extend(stalled.chain(self.stalled_for_pointers.take()));
        self.begin_republishing();
    }

    /// A member has refused this peer, because a newer process with its key was admitted after it, or because it is an old
    /// copy of itself. R9: the mesh counts on another one; whatever this one leads is led by others, or soon is, and what it
    /// did from now on would be lost. It says nothing more to anybody.
    pub fn superseded(&mut self, now: Now) {
        self.now = now;
        self.is_superseded = true;
        // Whoever waits in a step hears it in the next one.
        self.wakes.extend(self.txns.iter().map(|txn| txn.id));
    }

    /// Whether another process counts as this peer now ([`Peer::superseded`]).
    #[must_use]
    pub const fn is_superseded(&self) -> bool {
        self.is_superseded
    }

    /// A group has ended: its founder need not be remembered if it is gone too.
    pub(crate) fn forget_members_of(&mut self, group: GroupId) {
        let of_group = |(_, member): &(&PeerId, &Member)| !member.connected && member.group == group;
        for peer in self.members.iter().filter(of_group).map(|(peer, _)| *peer).collect::<Vec<_>>() {
            self.forget_member(peer);
        }
    }

    fn forget_member(&mut self, peer: PeerId) {
        if let Some(member) = self.members.remove(&peer) {
            self.gone.note(peer, member.incarnation, member.heartbeat);
        }
    }

    /// What a home was told, or was to be told, is gone.
    pub(crate) fn forget_home(&mut self, peer: &PeerId) {
        self.publisher.forget(peer);
        self.republish.forget(*peer);
        self.pointers.home_gone(peer);
    }

    pub(crate) fn is_connected(&self, peer: &PeerId) -> bool {
        self.members.get(peer).is_some_and(|member| member.connected)
    }

    pub(crate) fn connected_members(&self) -> Vec<PeerId> {
        self.members.iter().filter(|(_, member)| member.connected).map(|(peer, _)| *peer).collect()
    }

    /// Whom a lookup of this object can ask.
    pub(crate) fn reachable(&self, object: ObjectId) -> Reachable {
        let mut homes: std::collections::BTreeSet<_> = self.ring.homes(object).into_iter().collect();
        homes.remove(&self.config.peer);
        let everyone = self.connected_members().into_iter().collect();
        let out_of_reach = |peer: &PeerId| *peer != self.config.peer && !self.is_connected(peer);
        Reachable {
            homes,
            everyone,
            someone_missing: self.groups.leaders().any(|(_, leader)| leader.as_ref().is_none_or(out_of_reach))
                || self.some_group_is_silent()
                || self.names_unknown_group(object)
                || (self.members.is_empty() && !self.config.founder),
            groups_digest: self.groups.digest(),
            held_here: self
                .led_groups()
                .any(|group| group.owned(object).is_some() || group.in_transit(object).is_some()),
            moves_here: self.moves_near(object),
        }
    }

    /// Members that may be given objects they did not ask for: reachable, and with a clock near ours (R18).
    pub(crate) fn trusted_members(&self) -> impl Iterator<Item = (&PeerId, &Member)> {
        self.members.iter().filter(|(_, member)| member.is_trusted())
    }

    /// The groups that these lead.
    pub(crate) fn trusted_groups(&self) -> Vec<GroupId> {
        self.trusted_members().map(|(_, member)| member.group).collect()
    }

    pub(crate) fn heartbeat_due(&mut self) {
        self.timers.set(self.now.mono.plus(self.config.heartbeat), Timer::Heartbeat);
        self.sought.heartbeat();
        self.watch_clock();
        self.send_heartbeats(false);
        self.renew_prune_below();
        self.prune_with_heartbeat();
        self.collect_pointers();
        self.publish_due();
        self.mend_groups();
        self.drop_strays();
        self.place();
    }

    /// A member asked or answered something: it is told regularly how this peer is.
    pub(crate) fn note_use(&mut self, peer: PeerId) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.used_at = self.now.mono;
        }
    }

    /// Whether a member is told with this heartbeat. Members that have to do with each other hear each other at
    /// each one, the others now and then: often enough for old versions to be kept for their snapshots (R17).
    fn hears_now(&self, peer: &PeerId, member: &Member) -> bool {
        let in_use = self.now.mono.since(member.used_at) < IN_USE_FOR;
        let stagger = u64::from(peer.as_bytes()[0]);
        let turn = (self.heartbeats + stagger).is_multiple_of(IDLE_HEARTBEATS);
        in_use || turn || self.draining || member.draining != 0
    }

    /// Tells all members how this peer is, before it stops.
    pub fn announce(&mut self, now: Now) {
        self.now = now;
        self.send_heartbeats(true);
    }

    /// Tells members how this peer is: all of them, or those whose turn it is.
    pub(crate) fn send_heartbeats(&mut self, all: bool) {
        self.heartbeats += 1;
        let hears = |(peer, member): &(&PeerId, &Member)| member.connected && (all || self.hears_now(peer, member));
        let to: Vec<PeerId> = self.members.iter().filter(hears).map(|(peer, _)| *peer).collect();
        self.send_heartbeats_to(&to);
    }

    fn send_heartbeats_to(&mut self, to: &[PeerId]) {
        let oldest_snapshot = self.oldest_own_snapshot();
        let owned = (self.group.owned_count() + self.group.in_transit_count()) as u64;
        let (room, led_bytes) = (self.room(), self.led_bytes());
        for peer in to {
            let Some(member) = self.members.get(peer) else { continue };
            let heartbeat = Message::Heartbeat {
                wall: self.now.wall,
                oldest_snapshot,
                owned,
                sequence: self.heartbeats,
                draining: if self.draining { self.drains } else { 0 },
                unsettled: self.led_groups().map(|group| group.unsettled_to(member.group).count() as u64).sum(),
                heard_draining: member.draining,
                your_offset: member.offset_heard,
                group: self.group.id(),
                groups_digest: self.groups.digest(),
                followed: self.followed.len() as u64,
                room,
                led_bytes,
            };
            // R6: what it says of objects is true of what is not stable too: a new leader has at most more to settle.
            self.send_now(*peer, heartbeat);
        }
    }

    /// Whether a heartbeat is newer than all before; links may reorder.
    pub(crate) fn is_news(&mut self, from: PeerId, sequence: u64, group: GroupId) -> bool {
        let Some(member) = self.members.get_mut(&from) else { return false };
        let news = sequence > member.heartbeat;
        if news {
            member.group = group;
        }
        member.heartbeat = member.heartbeat.max(sequence);
        news
    }

    pub(crate) fn followed_told(&mut self, from: PeerId, followed: u64) {
        if let Some(member) = self.members.get_mut(&from) {
            member.followed = followed;
        }
    }

    /// What a heartbeat says of leaving: the sender's, and this peer's as the sender knows it.
    pub(crate) fn leaving_received(&mut self, from: PeerId, draining: u64, unsettled: u64, heard: u64) {
        // What was said of a former attempt may have been followed by grants when this peer stayed.
        let heard_this = self.draining && heard == self.drains;
        if let Some(member) = self.members.get_mut(&from) {
            member.draining = draining;
            member.unsettled_to_us = heard_this.then_some(unsettled);
        }
    }

    /// Whether a group can be sent an object: its leader is in reach and stays.
    pub(crate) fn takes_objects(&self, group: GroupId) -> bool {
        if group == self.group.id() {
            return !self.draining;
        }
        let member = self.leader_of(group).and_then(|leader| self.members.get(&leader));
        member.is_some_and(|member| member.draining == 0)
    }

    /// Whether nobody can still send this leaving peer anything, as everybody said. Who is out of reach may have
    /// sent something before, and counts too.
    pub(crate) fn nothing_is_coming(&self) -> bool {
        self.members.values().all(|member| member.unsettled_to_us == Some(0))
    }

    pub(crate) fn heartbeat_received(
        &mut self,
        from: PeerId,
        wall: Micros,
        oldest_snapshot: Option<Timestamp>,
        owned: u64,
        our_offset: Option<i64>,
    ) {
        let now = self.now;
        if let Some(member) = self.members.get_mut(&from) {
            member.oldest_snapshot = oldest_snapshot;
            member.heard_wall = wall;
            member.heard_at = now.mono;
            let (theirs, ours) = (i64::try_from(wall.0), i64::try_from(now.wall.0));
            let heard = theirs.unwrap_or(i64::MAX).saturating_sub(ours.unwrap_or(i64::MAX));
            member.offset_heard = Some(heard);
            // The way there is in what we heard, the way back in what they did, with the other sign.
            member.clock_offset = Some(our_offset.map_or(heard, |back| (heard / 2).saturating_sub(back / 2)));
            // R18: no message arrives before it was sent, so the offset is at least what we heard, and at most what they
            // heard, with the other sign. Who stood still, or was sent late words, finds no fault with any clock.
            let least = heard.max(0);
            member.clock_offset_least = Some(our_offset.map_or(least, |back| least.min(back.saturating_neg())));
            member.owned = Some(owned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_peers_that_are_gone_the_last_ones_are_remembered() {
        let mut gone = Gone::default();
        let peer = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            PeerId::from_bytes(bytes)
        };
        let start = Incarnation::from_u64(1);
        (0..=GONE_MAX).for_each(|number| gone.note(peer(number), start, 7));
        assert_eq!(gone.heard.len(), GONE_MAX, "R24");
        assert_eq!((gone.heard(peer(0), start), gone.last(peer(0))), (0, None));
        assert_eq!((gone.heard(peer(GONE_MAX), start), gone.last(peer(1))), (7, Some((start, 7))));
        // R11: of each start of a peer it is known how much was heard, and which was the last.
        let next = Incarnation::from_u64(2);
        gone.note(peer(GONE_MAX), next, 9);
        assert_eq!((gone.heard(peer(GONE_MAX), start), gone.heard(peer(GONE_MAX), next)), (7, 9));
        assert_eq!(gone.last(peer(GONE_MAX)), Some((next, 9)));
    }
}
