//! Old copies of a peer's memory that come to life in its place: a virtual machine that is set back to an image of itself, with
//! the same key and the same incarnation (F8 of the fault model, with old state).
//!
//! It refuses to judge: that such a copy is noticed and does no harm shows in journals, histories and final states.

use crate::hearing::Heard;
use crate::lives::MadeAt;
use crate::world::{Event, Simulation};
use driftmesh_model::PeerId;
use driftmesh_peer::Peer;
use driftmesh_peer::session::Host;
use std::sync::Arc;

/// A copy is at least so old when it comes to life, us: as long as it takes until all members have heard from each other.
/// What a younger one has forgotten since, no heartbeat proves.
const OLD_MIN_US: u64 = 1_500_000;
/// And no older than this plus the least, us.
const OLD_SPREAD_US: u64 = 4_000_000;
/// How long it takes to set a machine back, us.
const AWAY_MAX_US: u64 = 600_000;

/// An image of a peer.
pub(crate) struct Image {
    index: usize,
    /// The start of the peer that it was taken of.
    life: u64,
    peer: Box<Peer>,
    /// When somebody uses it.
    used_at_us: u64,
}

impl Simulation {
    /// Takes an image of some peer, or sets a peer back to the image that was taken of it.
    pub(crate) fn use_image(&mut self) {
        match self.image.take() {
            None => {
                let index = self.rng.usize(..self.peers.len());
                // The only voter of a group decides alone, before it meets anybody who knows better.
                let is_alone =
                    |peer: &mut Peer| peer.groups().any(|group| group.consensus().membership().voters.len() == 1);
                let is_one = !self.peers[index].gone && !self.peers[index].mad;
                if is_one && !self.peers[index].host.look(is_alone) {
                    let (life, used_at_us) = (self.peers[index].life, self.now_us() + OLD_MIN_US);
                    let used_at_us = used_at_us + self.rng.u64(..OLD_SPREAD_US);
                    let peer = Box::new(self.peers[index].host.look(|peer| peer.clone()));
                    self.image = Some(Image { index, life, peer, used_at_us });
                }
            }
            Some(Image { index, life, .. }) if self.peers[index].life != life || self.peers[index].gone => {}
            Some(image) if self.now_us() < image.used_at_us => self.image = Some(image),
            Some(image) => {
                // As with a crash, the group must be able to go on without it; and a fault of the network beside would leave
                // nobody who could know better.
                let is_whole = self.network.is_whole() && self.down.is_empty() && self.all_whole();
                if is_whole && self.lost_with(&[image.index]).is_empty() {
                    self.faults += 1;
                    self.end_life(image.index, false);
                    let after = self.rng.u64(10_000..AWAY_MAX_US);
                    self.schedule(self.now_us() + after, Event::SetBack(image.index, image.peer));
                } else {
                    self.image = Some(image);
                }
            }
        }
    }

    /// The copy comes to life. Its connections are those of long ago, and broken; it makes new ones.
    pub(crate) fn set_back(&mut self, index: usize, peer: Peer) {
        if !self.peers[index].gone || !self.network.faulty {
            return;
        }
        let id = self.peers[index].id;
        if !self.peers[index].missed {
            self.tell_others(index, false);
        }
        self.observer.set_back(peer.group().consensus().me());
        let made_at = MadeAt { index, clock: Arc::clone(&self.clock), requests: self.requests.clone() };
        self.begin_with(index, id, made_at.host_of(self.peers[index].wall_clock.clone(), |_| peer));
        let others: Vec<PeerId> = self.peers.iter().map(|peer| peer.id).filter(|other| *other != id).collect();
        for other in others {
            self.hear(index, Heard::Left(other, false), "left");
        }
        // Those who worked there are gone with the memory of what they did.
        self.peers[index].host.step(Peer::end_all);
        for other in (0..self.peers.len()).filter(|other| *other != index) {
            self.meet(index, other);
        }
        self.collect(index, "set back");
    }

    /// A peer that was told that it does not count any more is started anew by whoever runs it.
    pub(crate) fn replace_superseded(&mut self, index: usize) {
        if !self.peers[index].gone && self.peers[index].host.look(|peer| peer.is_superseded()) {
            self.end_life(index, false);
            let after = self.rng.u64(10_000..AWAY_MAX_US);
            let as_itself = self.rng.bool();
            self.schedule(self.now_us() + after, Event::Return(index, as_itself));
        }
    }
}
