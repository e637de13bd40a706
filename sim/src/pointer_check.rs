//! R3 from outside: whatever left a group is found through the group's forwarding pointer, or through the records
//! that others keep, at every moment.

use crate::world::SimPeer;
use driftmesh_model::{Epoch, GroupId, ObjectId};
use driftmesh_object_store::Group;
use std::collections::BTreeMap;

/// The departures that nobody has come back from, by group and object: the epoch, and how many peers had restarted.
#[derive(Default)]
pub(crate) struct Departures {
    open: BTreeMap<(GroupId, ObjectId), (Epoch, usize)>,
}

impl Departures {
    /// An object left a group.
    pub(crate) fn left(&mut self, group: GroupId, object: ObjectId, epoch: Epoch, restarts: usize) {
        self.open.insert((group, object), (epoch, restarts));
    }

    /// An object is owned by a group again.
    pub(crate) fn arrived(&mut self, group: GroupId, object: ObjectId) {
        self.open.remove(&(group, object));
    }

    /// What is wrong with the departures of some peers. A restart may have destroyed records, so what left before it
    /// proves nothing.
    pub(crate) fn check(&self, peers: &[SimPeer], which: &[usize], restarts: usize) -> Option<String> {
        for index in which.iter().filter(|index| !peers[**index].gone) {
            let (group, term) = peers[*index].host.look(|peer| (peer.group().id(), peer.group().term()));
            let is_newer = |other: &Group| other.id() == group && other.term() > term;
            let mut alive = peers.iter().filter(|peer| !peer.gone);
            if alive.any(|peer| peer.host.look(|peer| peer.groups().any(is_newer) || peer.has_ended(group))) {
                // Its leader was deposed and does not know it yet; whoever led it last has its pointers.
                continue;
            }
            let of_group = (group, ObjectId::from_u128(0))..=(group, ObjectId::from_u128(u128::MAX));
            for ((_, object), (epoch, _)) in self.open.range(of_group).filter(|(_, (_, then))| *then == restarts) {
                let pointer = peers[*index].host.look(|peer| peer.pointer(*object));
                // It may be back, and that not stable yet.
                let is_back = peers[*index].host.look(|peer| peer.group().owned(*object).is_some());
                let points = is_back || pointer.is_some_and(|record| record.epoch >= *epoch);
                let keeps = |peer: &SimPeer| {
                    !peer.gone
                        && peer.host.look(|peer| peer.kept_record(*object)).is_some_and(|record| record.epoch >= *epoch)
                };
                if !points && !peers.iter().any(keeps) {
                    return Some(format!(
                        "object {object} left group {group} for epoch {epoch}; the group has no pointer, and no peer a record"
                    ));
                }
            }
        }
        None
    }
}
