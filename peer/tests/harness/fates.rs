//! Receipts, and whom objects add up at.

use super::world::Mesh;
use driftmesh_model::{GroupId, ObjectId};
use driftmesh_peer::{FateTold, Receipt};
use std::task::Poll;

impl Mesh {
    /// What a peer tells of a receipt, once it tells anything; letting time pass.
    pub(crate) fn fate(&self, at: usize, receipt: &Receipt) -> FateTold {
        let waiter = self.step(at, |peer, _| peer.new_waiter());
        for _ in 0..10_000 {
            if let Poll::Ready(told) = self.step(at, |peer, now| peer.fate(now, waiter, receipt)) {
                return told;
            }
            self.tick();
        }
        panic!("nobody answers");
    }

    /// Whether a peer tells that a commit is stable.
    pub(crate) fn is_kept(&self, at: usize, receipt: &Receipt) -> bool {
        matches!(self.fate(at, receipt), FateTold::Stable { .. })
    }

    /// The sum of objects, each read at some living peer.
    pub(crate) fn sum(&self, objects: &[ObjectId]) -> u64 {
        let alive = self.alive();
        let read = |(turn, object): (usize, &ObjectId)| self.get(alive[turn % alive.len()], *object).unwrap_or(0);
        objects.iter().enumerate().map(read).sum()
    }

    /// The living peers that belong to a group and do not lead it.
    pub(crate) fn followers(&self, group: GroupId) -> Vec<usize> {
        let follows = |at: &usize| self.look_at_group(*at, group, |group| group.is_leading()) == Some(false);
        self.alive().into_iter().filter(follows).collect()
    }

    /// The living peer that leads a group, once there is one; letting at most so many milliseconds pass.
    pub(crate) fn leader_within(&self, group: GroupId, millis: u64, but: usize) -> usize {
        let leads = |at: &usize| *at != but && self.leads(*at, group);
        self.run_until("somebody else leads", millis, || self.alive().iter().any(leads));
        self.alive().into_iter().find(leads).expect("somebody leads")
    }

    /// Whether every living peer knows that a group has ended, and none belongs to it.
    pub(crate) fn is_ended_everywhere(&self, group: GroupId) -> bool {
        self.alive().into_iter().all(|at| {
            self.look_at_group(at, group, |_| ()).is_none() && self.look(at, |peer| peer.remains_of(group).is_some())
        })
    }
}
