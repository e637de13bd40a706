//! Faults in the moments in which they hurt most: when something has begun and is not safe yet.
//!
//! Faults at random times hardly ever meet these. It refuses to judge anything.

use crate::observer::Opening;
use crate::options::Aim;
use crate::world::{Event, Simulation};
use driftmesh_model::{GroupId, PeerId};

/// Longest time between a moment and the fault, us.
const STRIKE_WITHIN_US: u64 = 25_000;
/// One moment in so many is used.
const ONE_OF: u8 = 6;
/// One of so many steps is used where a moment lasts.
const ONE_STEP_OF: u8 = 30;
/// How long links are cut at most after a leader that was cut off has woken up, us.
const CUT_FOR_US: u64 = 300_000;

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
                let copies = |peer: &mut driftmesh_peer::Peer| peer.groups().any(|group| group.is_copying());
                if !self.peers[index].gone && self.peers[index].host.look(copies) && self.rng.u8(..ONE_STEP_OF) == 0 {
                    self.strike(index, GroupId::from_u128(0), Opening::Commit);
                }
            }
        }
        if aim == Aim::Close && self.network.is_whole() && self.rng.u8(..ONE_STEP_OF) == 0 {
            self.part_leader_from_followers();
        }
    }

    /// A leader and its followers are parted until those have another leader, while somebody outside of the group whom it
    /// tells what it closes goes on to believe it. Either it goes on as well, among all others; or it stands still, cut off
    /// from all others too, and wakes up in the belief that it still leads.
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
        let stands_still = self.rng.bool();
        let at = self.peers.iter().position(|peer| peer.id == reader);
        for other in (0..self.peers.len()).filter(|other| *other != leader) {
            let id = self.peers[other].id;
            let is_member = members.contains(&id);
            if is_member || (stands_still && id != reader) {
                self.network.cut_both(leader, other);
            }
            if let Some(at) = at.filter(|_| is_member && stands_still) {
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
        self.faults += 1;
        match self.rng.u8(..6) {
            0..=2 => self.crash_if_allowed(at),
            3 if self.rng.bool() => self.network.isolate(at, self.peers.len()),
            3 => self.cut_from_followers(at, group),
            4 if self.options.stalls => self.pause(at),
            5 => match other_end {
                // Both ends.
                Some(other) => {
                    self.crash_if_allowed(at);
                    self.crash_if_allowed(other);
                }
                None => self.cut_from_followers(at, group),
            },
            _ => {}
        }
    }
}
