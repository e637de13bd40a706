//! How much room the objects take that this peer holds, its own and copies of others', and what is refused when there is no
//! more (R24). See decision 0035.
//!
//! What would make them grow is refused before anything of it is done: a commit before it is journalled, an object before it
//! is asked for, a group before it is followed. It refuses to refuse what is promised already: a grant is taken (R19), a copy
//! goes on (R10), and what a crash leaves to this peer it holds already.

use crate::membership::Member;
use crate::metrics::RareEvent;
use crate::steps::{StepError, TxnWrites};
use crate::{Peer, Sabotage};
use driftmesh_model::limits::{TRANSACTION_BYTES_MAX, TRANSACTION_OBJECTS_MAX};
use driftmesh_model::{GroupId, ObjectId, PeerId, TxnId};
use driftmesh_object_store::{Group, MemberId, OBJECT_OVERHEAD, ScheduleChange, Write};
use driftmesh_txn::Cause;
use serde::{Deserialize, Serialize};

/// What a peer holds takes as much room as it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error(
    "the objects that the peer holds, copies for others included, take {held} bytes, and may take {most}: delete some, let more peers join, or raise `held_bytes_max`"
)]
pub struct NoRoom {
    /// What its objects and copies take, bytes.
    pub held: u64,
    /// What they may take.
    pub most: u64,
}

const fn bytes(count: usize) -> u64 {
    count as u64
}

/// What the writes of one transaction take at most.
const COMMIT_TAKES_MAX: u64 = bytes(TRANSACTION_BYTES_MAX + TRANSACTION_OBJECTS_MAX * OBJECT_OVERHEAD);

/// What writes take at most, without a look at what they replace.
fn taken_at_most(all: &TxnWrites) -> u64 {
    let values: usize = all.writes.iter().map(Write::held).sum();
    bytes(values + all.schedules.iter().map(ScheduleChange::cost).sum::<usize>())
}

impl Peer {
    /// How much room the objects take that this peer holds, its own and copies of others', bytes.
    #[must_use]
    pub fn held(&self) -> u64 {
        bytes(self.group.held()).saturating_add(self.held_of_others)
    }

    /// How much more they may take.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.config.held_bytes_max.saturating_sub(self.held())
    }

    /// What its objects may take, bytes.
    #[must_use]
    pub const fn held_bytes_max(&self) -> u64 {
        self.config.held_bytes_max
    }

    /// From now on its objects may take so much. What it holds beyond that stays.
    pub const fn set_held_bytes_max(&mut self, bytes: u64) {
        self.config.held_bytes_max = bytes;
    }

    /// What this peer holds, if that is more than it may.
    #[must_use]
    pub fn beyond_room(&self) -> Option<NoRoom> {
        let (held, most) = (self.held(), self.config.held_bytes_max);
        (held > most).then_some(NoRoom { held, most })
    }

    fn note_refused(&mut self) -> NoRoom {
        self.metrics.refused_for_room += 1;
        self.metrics.note(RareEvent::RefusedForRoom);
        NoRoom { held: self.held(), most: self.config.held_bytes_max }
    }

    /// A group that this peer did not found has changed, come or gone.
    pub(crate) fn count_followed(&mut self, id: GroupId) {
        if let Some(followed) = self.followed.get_mut(&id) {
            let held = bytes(followed.group.held());
            self.held_of_others = self.held_of_others - followed.counted + held;
            followed.counted = held;
        }
    }

    /// Refuses a commit that makes what is held more, and more than it may be. While there is room for the largest one, none is
    /// looked at; then most are told apart from that by what they write alone.
    pub(crate) fn refuse_growth(&mut self, all: &TxnWrites) -> Result<(), StepError> {
        let room = self.room();
        let fits = || all.schedules.is_empty() && COMMIT_TAKES_MAX <= room || taken_at_most(all) <= room;
        if fits() || self.broken(Sabotage::Bounds) {
            return Ok(());
        }
        let growth = self.group.growth(&all.writes, &all.schedules);
        if bytes(growth.taken.saturating_sub(growth.freed)) <= room {
            return Ok(());
        }
        Err(StepError::NoRoom(self.note_refused()))
    }

    /// Refuses to ask for an object that there is no room for: what is granted must be taken (R19). What is held here as a
    /// copy takes no more room than before. A task that has done nothing yet goes to the object instead.
    pub(crate) fn refuse_arrival(&mut self, id: TxnId, object: ObjectId) -> Result<(), StepError> {
        if self.room() > 0 || self.groups().any(|group| group.owned(object).is_some()) {
            return Ok(());
        }
        if self.pull_of(id).is_some()
            && let Some(at) = self.best_record(object).and_then(|(_, record)| self.leader_of(record.group))
            && at != self.config.peer
        {
            let cause = Cause::UsedElsewhere { object, at };
            self.fail(id, cause.clone());
            return Err(StepError::Failed(cause));
        }
        Err(StepError::NoRoom(self.note_refused()))
    }

    /// Whether a group that another peer leads can be followed here besides, as far as that peer has said how large its groups
    /// are. What is here of them already is counted.
    pub(crate) fn has_room_to_follow(&self, leader: &PeerId) -> bool {
        let led = self.members.get(leader).map_or(0, |member| member.led_bytes);
        let here =
            self.followed.values().filter(|followed| followed.asked_by == *leader).map(|followed| followed.counted);
        self.room() > 0 && led.saturating_sub(here.sum()) <= self.room()
    }

    /// What the groups take that this peer leads, bytes.
    pub(crate) fn led_bytes(&self) -> u64 {
        self.led_groups().map(|group| bytes(group.held())).sum()
    }

    /// How much of a group a member can be sent that it has not asked for. What it holds as a copy takes no more room.
    pub(crate) fn room_at(&self, peer: &PeerId, member: &Member, from: &Group) -> u64 {
        let copy = MemberId { peer: *peer, incarnation: member.incarnation };
        let is_copied = from.consensus().membership().contains(&copy) && self.has_caught_up(from, &copy);
        if is_copied { u64::MAX } else { member.room }
    }

    /// Who may be given objects of a group that it did not ask for, and how many bytes of them.
    pub(crate) fn receivers(&self, from: &Group) -> Vec<(GroupId, u64)> {
        self.members.keys().filter_map(|peer| self.receiver(peer, from)).collect()
    }

    /// The group of a member that may be given objects of a group that it did not ask for, and how many bytes of them.
    pub(crate) fn receiver(&self, peer: &PeerId, from: &Group) -> Option<(GroupId, u64)> {
        let member = self.members.get(peer).filter(|member| member.is_trusted())?;
        let room = self.room_at(peer, member, from);
        (room > 0).then_some((member.group, room))
    }

    /// Objects of so many bytes are on their way to a group: until its leader says how much room it has, it has so much
    /// less.
    pub(crate) fn note_sent(&mut self, to: GroupId, sent: usize) {
        if let Some(leader) = self.leader_of(to)
            && let Some(member) = self.members.get_mut(&leader)
        {
            member.room = member.room.saturating_sub(bytes(sent));
        }
    }

    /// What a member has said of its room, and of how large the groups are that it leads.
    pub(crate) fn room_told(&mut self, from: PeerId, room: u64, led_bytes: u64) {
        let Some(group) = self.members.get(&from).map(|member| member.group) else { return };
        // What it may not have counted yet.
        let coming: usize = self.led_groups().map(|led| led.held_on_the_way(group)).sum();
        if let Some(member) = self.members.get_mut(&from) {
            member.room = room.saturating_sub(bytes(coming));
            member.led_bytes = led_bytes;
        }
    }

    /// Whether the figures say what a look at all objects says: for tests and checkers.
    #[must_use]
    pub fn held_adds_up(&self) -> bool {
        let walked: usize = self.groups().map(|group| group.held_by_a_walk()).sum();
        bytes(walked) == self.held()
    }
}
