//! Watches the journals of all groups from outside: who may write each object, and when its versions were made.

use crate::pointer_check::Departures;
use driftmesh_model::{Epoch, GroupId, LookupMap, Lsn, ObjectId, Timestamp};
use driftmesh_object_store::{Entry, Group, Retain, Stability};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    At(GroupId, Epoch),
    OnTheWay { from: GroupId, to: GroupId, number: u64, epoch: Epoch },
}

/// What the journals have said so far.
#[derive(Default)]
pub(crate) struct Observer {
    places: LookupMap<ObjectId, Place>,
    newest: LookupMap<ObjectId, Timestamp>,
    on_the_way: BTreeMap<(GroupId, GroupId, u64), ObjectId>,
    refused: BTreeSet<(GroupId, GroupId, u64)>,
    seen: BTreeMap<GroupId, Lsn>,
    pub(crate) violations: Vec<String>,
    pub(crate) transfers: u64,
    pub(crate) departures: Departures,
    /// Peers that came back as somebody new so far.
    pub(crate) restarts: usize,
}

impl Observer {
    /// Looks at what a group has journalled since the last time. `latest` is the latest time its commits may carry.
    /// Returns whether anything left the group.
    pub(crate) fn watch(&mut self, group: &Group, latest: Timestamp) -> bool {
        let from = self.seen.get(&group.id()).copied().unwrap_or_default();
        if group.journal().tail() == from {
            return false;
        }
        let mut left = false;
        for (lsn, entry) in group.journal().entries_from(from.next()) {
            self.entry(group.id(), entry, latest);
            self.seen.insert(group.id(), lsn);
            left |= matches!(entry, Entry::TransferOut { .. });
        }
        left
    }

    pub(crate) fn wrong(&mut self, text: String) {
        if self.violations.len() < 16 {
            self.violations.push(text);
        }
    }

    fn entry(&mut self, group: GroupId, entry: &Entry, latest: Timestamp) {
        match entry {
            Entry::TermStart { .. } => {}
            Entry::Commit { commit, writes } => {
                if *commit > latest {
                    self.wrong(format!("group {group} committed at {commit}, far ahead of its own clock"));
                }
                for write in writes {
                    self.written(group, write.object, *commit);
                }
            }
            Entry::TransferOut { object, epoch, to, number, .. } => {
                match self.places.get(object) {
                    Some(Place::At(at, held)) if *at == group && held.next() == *epoch => {}
                    other => {
                        let text = format!("group {group} sent object {object} at epoch {epoch}, but it is {other:?}");
                        self.wrong(text);
                    }
                }
                let place = Place::OnTheWay { from: group, to: *to, number: *number, epoch: *epoch };
                self.places.insert(*object, place);
                self.on_the_way.insert((group, *to, *number), *object);
                self.departures.left(group, *object, *epoch, self.restarts);
            }
            Entry::TransferIn { object, epoch, from, number, .. } => {
                let expected = Place::OnTheWay { from: *from, to: group, number: *number, epoch: *epoch };
                if self.places.get(object) != Some(&expected) {
                    let place = self.places.get(object);
                    let text = format!("group {group} adopted object {object} at epoch {epoch}, but it is {place:?}");
                    self.wrong(text);
                }
                self.transfers += 1;
                self.departures.arrived(group, *object);
                self.places.insert(*object, Place::At(group, *epoch));
            }
            Entry::Handed { to, number } => {
                if let Some(object) = self.on_the_way.remove(&(group, *to, *number))
                    && matches!(self.places.get(&object), Some(Place::OnTheWay { from, to: there, number: sent, .. })
                        if *from == group && there == to && sent == number)
                {
                    self.wrong(format!("group {group} dropped object {object} before {to} adopted it"));
                }
            }
            Entry::Refused { from, number } => {
                self.refused.insert((*from, group, *number));
            }
            Entry::TakenBack { to, number } => self.taken_back(group, *to, *number),
        }
    }

    fn written(&mut self, group: GroupId, object: ObjectId, commit: Timestamp) {
        match self.places.get(&object) {
            None => {
                self.places.insert(object, Place::At(group, Epoch::ZERO.next()));
            }
            Some(Place::At(at, _)) if *at == group => {}
            Some(place) => {
                let text = format!("group {group} committed to object {object}, but it is {place:?}");
                self.wrong(text);
            }
        }
        let newest = self.newest.insert(object, commit);
        if newest.is_some_and(|newest| newest >= commit) {
            self.wrong(format!("object {object} was committed to at {commit}, below its newest version"));
        }
    }

    fn taken_back(&mut self, group: GroupId, to: GroupId, number: u64) {
        let Some(object) = self.on_the_way.remove(&(group, to, number)) else { return };
        self.departures.arrived(group, object);
        match self.places.get(&object) {
            Some(Place::OnTheWay { from, to: there, epoch, number: sent })
                if *from == group && *there == to && *sent == number && self.refused.contains(&(group, to, number)) =>
            {
                let epoch = epoch.next();
                self.places.insert(object, Place::At(group, epoch));
            }
            place => {
                let text = format!("group {group} took back object {object}, which {to} did not refuse: {place:?}");
                self.wrong(text);
                self.places.insert(object, Place::At(group, Epoch::ZERO));
            }
        }
    }
}

/// Replays a journal from its first entry and compares: the state of a group is a fold over its journal.
pub(crate) fn replay_differs(group: &Group) -> Option<String> {
    let mut replayed = Group::found(group.id(), Stability::OnAppend, Retain::Everything);
    let first = Lsn::ZERO.next();
    for (_, entry) in group.journal().entries_from(first.next()) {
        replayed.append(entry.clone());
    }
    let count = replayed.owned_count();
    if count != group.owned_count() || replayed.in_transit_count() != group.in_transit_count() {
        return Some(format!("group {} owns {} objects, its journal says {count}", group.id(), group.owned_count()));
    }
    for (_, stored) in group.owned_from(0) {
        let same = replayed
            .owned(stored.object)
            .is_some_and(|other| other.epoch == stored.epoch && other.chain.newest() == stored.chain.newest());
        if !same {
            return Some(format!("group {} and its journal differ in object {}", group.id(), stored.object));
        }
    }
    None
}
