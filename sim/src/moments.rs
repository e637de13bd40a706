//! Faults in the moments in which they hurt most: when something has begun and is not safe yet.
//!
//! Faults at random times hardly ever meet these. It refuses to judge anything.

use crate::observer::Opening;
use crate::options::Aim;
use crate::world::{Event, Simulation};
use driftmesh_model::{GroupId, PeerId};
use driftmesh_peer::Peer;
use driftmesh_peer::session::Host;

/// Longest time between a moment and the fault, us.
const STRIKE_WITHIN_US: u64 = 25_000;
/// One moment in so many is used.
const ONE_OF: u8 = 6;
/// One of so many steps is used where a moment lasts.
const ONE_STEP_OF: u8 = 30;
/// How long links are cut at most after a leader that was cut off has woken up, us.
const CUT_FOR_US: u64 = 300_000;
/// How long a group has to go on without its leader and a follower, us.
const LEFT_BEHIND_MAX_US: u64 = 4_000_000;

/// A leader that is cut off from everybody, and does not know that its group has another one.
pub(crate) struct LeftBehind {
    leader: usize,
    group: GroupId,
    /// A follower of both, which leaves the group and drops its journal.
    dropper: Option<usize>,
    until_us: u64,
}

impl Opening {
    const fn is(self, aim: Aim) -> bool {
        match self {
            Self::Commit => matches!(aim, Aim::Commit),
            Self::Out(_) => matches!(aim, Aim::Out),
            Self::In(_) => matches!(aim, Aim::In),
            Self::Elected => matches!(aim, Aim::Election),
            Self::Joint => matches!(aim, Aim::Joint),
            Self::Retired => matches!(aim, Aim::Retired),
        }
    }
}

impl Simulation {
    /// Looks at what has just opened, and strikes now and then.
    pub(crate) fn use_moments(&mut self) {
        let moments = std::mem::take(&mut self.moments);
        if !self.network.faulty {
            return;
        }
        let Some(aim) = self.options.aim else { return };
        let hits = moments.into_iter().filter(|(_, _, opening)| opening.is(aim)).collect::<Vec<_>>();
        for (index, group, opening) in hits {
            // Commits are plenty.
            let one_of = if aim == Aim::Commit { 30 * ONE_OF } else { ONE_OF };
            if self.rng.u8(..one_of) == 0 {
                // Often others have just enough time to act upon what is not safe.
                let after = if self.rng.bool() { 0 } else { self.rng.u64(..STRIKE_WITHIN_US) };
                let life = self.peers[index].life;
                self.schedule(self.now_us() + after, Event::Strike { index, life, group, opening });
            }
        }
        if aim == Aim::Copy {
            for index in 0..self.peers.len() {
                let copies = |peer: &mut Peer| peer.groups().any(|group| group.is_copying());
                if !self.peers[index].gone && self.peers[index].host.look(copies) && self.rng.u8(..ONE_STEP_OF) == 0 {
                    self.strike(index, GroupId::from_u128(0), Opening::Commit);
                }
            }
        }
        if aim == Aim::Close && self.network.is_whole() && self.rng.u8(..ONE_STEP_OF) == 0 {
            self.part_leader_from_followers();
        }
        if aim == Aim::Dropped {
            self.leave_leader_behind();
        }
    }

    /// A leader is cut off; its group goes on under another one, and lets a follower go, which drops the journal. Then the
    /// former leader hears and tells that one alone: R11, what it has promised to the later leader binds it all the same.
    fn leave_leader_behind(&mut self) {
        let now_us = self.now_us();
        match self.left_behind.take() {
            None => {
                if self.network.is_whole() && self.rng.u8(..ONE_STEP_OF) == 0 {
                    self.left_behind = self.cut_some_leader_off();
                }
            }
            Some(LeftBehind { leader, dropper, until_us, .. }) if now_us >= until_us || self.peers[leader].gone => {
                self.network.mend();
                dropper.into_iter().for_each(|index| self.stay(index));
            }
            Some(behind @ LeftBehind { dropper: None, .. }) => {
                let dropper = self.follower_of_two(&behind);
                if let Some(index) = dropper {
                    self.peers[index].host.step(Peer::drain);
                    self.collect(index, "drain");
                }
                self.left_behind = Some(LeftBehind { dropper, ..behind });
            }
            Some(behind @ LeftBehind { leader, group, dropper: Some(index), .. }) => {
                if self.peers[index].host.look(|peer| peer.groups().any(|held| held.id() == group)) {
                    self.left_behind = Some(behind);
                    return;
                }
                self.stay(index);
                self.network.mend();
                for other in (0..self.peers.len()).filter(|other| *other != leader && *other != index) {
                    self.network.cut_both(leader, other);
                }
                let mended = now_us + self.rng.u64(..CUT_FOR_US);
                self.schedule(mended, Event::Mend);
            }
        }
    }

    fn cut_some_leader_off(&mut self) -> Option<LeftBehind> {
        let leader = self.rng.choice(0..self.peers.len()).filter(|index| !self.peers[*index].gone)?;
        let (group, members) = self.peers[leader].host.look(|peer| {
            let group = peer.group();
            (group.id(), group.consensus().membership().members().len())
        });
        if members < 3 {
            // Nobody could go on without it.
            return None;
        }
        self.faults += 1;
        self.network.isolate(leader, self.peers.len());
        Some(LeftBehind { leader, group, dropper: None, until_us: self.now_us() + LEFT_BEHIND_MAX_US })
    }

    /// A member that follows the new leader of a group, once there is one.
    fn follower_of_two(&mut self, behind: &LeftBehind) -> Option<usize> {
        let members = |peer: &mut Peer| {
            let led = peer.groups().find(|group| group.id() == behind.group && group.is_leading());
            led.map(|group| group.consensus().membership().members())
        };
        let others = (0..self.peers.len()).filter(|index| *index != behind.leader && !self.peers[*index].gone);
        let (heir, members) = others.clone().find_map(|index| Some((index, self.peers[index].host.look(members)?)))?;
        let follows = |index: &usize| members.iter().any(|member| member.peer == self.peers[*index].id);
        let followers: Vec<usize> = others.filter(|index| *index != heir && follows(index)).collect();
        self.rng.choice(followers)
    }

    /// A leader and its followers are parted until those have another leader, while somebody outside of the group whom it
    /// tells what it closes goes on to believe it. It goes on as well, among all others or for that one alone; or it stands
    /// still, cut off from all others too, and wakes up in the belief that it still leads.
    fn part_leader_from_followers(&mut self) {
        let Some(leader) = self.rng.choice(0..self.peers.len()) else { return };
        if self.peers[leader].gone || !self.options.stalls {
            return;
        }
        let (members, readers) = self.peers[leader].host.look(|peer| {
            let group = peer.group();
            let members: Vec<PeerId> =
                group.consensus().membership().members().into_iter().map(|member| member.peer).collect();
            // What is not stable keeps it from closing anything.
            let is_calm = group.watermark() == group.tail() && members.len() > 1;
            let readers = peer.told_closed(group.id()).filter(|reader| is_calm && !members.contains(reader));
            let readers: Vec<PeerId> = readers.collect();
            (members, readers)
        });
        let Some(reader) = self.rng.choice(readers) else { return };
        self.faults += 1;
        let (is_alone, stands_still) = [(false, false), (true, false), (true, true)][self.rng.usize(..3)];
        let at = self.peers.iter().position(|peer| peer.id == reader);
        for other in (0..self.peers.len()).filter(|other| *other != leader) {
            let id = self.peers[other].id;
            let is_member = members.contains(&id);
            if is_member || (is_alone && id != reader) {
                self.network.cut_both(leader, other);
            }
            if let Some(at) = at.filter(|_| is_member && is_alone) {
                self.network.cut_both(at, other);
            }
        }
        let election_us = self.options.election_after_us;
        let until = self.now_us() + election_us + self.rng.u64(..2 * election_us);
        if stands_still {
            self.peers[leader].paused_until = until;
        }
        let mended = until + self.rng.u64(..CUT_FOR_US);
        self.schedule(mended, Event::Mend);
    }

    /// A leader goes on among all others, while its followers hear nothing of it.
    fn cut_from_followers(&mut self, index: usize, group: GroupId) {
        let members = self.peers[index].host.look(|peer| {
            let of = peer.groups().find(|of| of.id() == group);
            of.map(|of| of.consensus().membership().members()).unwrap_or_default()
        });
        for other in 0..self.peers.len() {
            let id = self.peers[other].id;
            if other != index && members.iter().any(|member| member.peer == id) {
                self.network.cut_both(index, other);
            }
        }
    }

    /// A fault at a peer, or at the other end of a transfer.
    pub(crate) fn strike(&mut self, index: usize, group: GroupId, opening: Opening) {
        if !self.network.faulty {
            return;
        }
        let other_end = match opening {
            Opening::Out(other) | Opening::In(other) => (0..self.peers.len()).find(|index| {
                !self.peers[*index].gone && self.peers[*index].host.look(|peer| peer.group().id() == other)
            }),
            Opening::Commit | Opening::Elected | Opening::Joint | Opening::Retired => None,
        };
        let at = if self.rng.u8(..3) == 0 { other_end.unwrap_or(index) } else { index };
        if self.peers[at].gone {
            return;
        }
        // As with all faults, only what does something counts.
        let is_done = match self.rng.u8(..6) {
            0..=2 => self.crash_if_allowed(at),
            3 if self.rng.bool() => {
                self.network.isolate(at, self.peers.len());
                true
            }
            4 if self.options.stalls => {
                self.pause(at);
                true
            }
            5 if other_end.is_some() => {
                // Both ends.
                let crashed = [Some(at), other_end].into_iter().flatten().filter(|end| self.crash_if_allowed(*end));
                crashed.count() > 0
            }
            3 | 5 => {
                self.cut_from_followers(at, group);
                true
            }
            _ => false,
        };
        self.faults += u64::from(is_done);
    }
}
