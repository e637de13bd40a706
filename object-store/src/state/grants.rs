//! Grants from and to a group: what is in transit, under which number, and which numbers were answered (R19, R20).

use super::{GrantKey, InTransit, State};
use crate::{GrantLog, GrantSeen};
use driftmesh_model::limits::GRANT_WINDOW;
use driftmesh_model::{GroupId, ObjectId};

/// Most numbers that are looked through for those that were not answered.
const UNANSWERED_MAX: u64 = 64 * GRANT_WINDOW;

impl State {
    /// An object is in transit under this grant; `indexed` if the grant is its last one.
    pub(super) fn insert_transit(&mut self, key: GrantKey, transit: InTransit, indexed: bool) {
        self.transit_changes(key);
        if indexed {
            self.index_transit(transit.object, Some(key));
        }
        self.held += transit.held();
        if let Some(former) = self.in_transit.insert(key, transit) {
            self.held -= former.held();
        }
    }

    /// A grant was answered. Returns also whether it was the last one of its object: that may have come back and left
    /// again meanwhile, then the index speaks of the later grant and stays.
    pub(super) fn remove_transit(&mut self, key: GrantKey) -> Option<(InTransit, bool)> {
        self.transit_changes(key);
        let transit = self.in_transit.remove(&key)?;
        self.held -= transit.held();
        let indexed = self.transit_index.get(&transit.object) == Some(&key);
        if indexed {
            self.transit_index.remove(&transit.object);
        }
        Some((transit, indexed))
    }

    /// Sets which grant is the last one of an object in transit.
    pub(super) fn index_transit(&mut self, object: ObjectId, key: Option<GrantKey>) {
        let former = self.transit_index.get(&object).copied();
        former.into_iter().chain(key).for_each(|key| self.transit_changes(key));
        match key {
            Some(key) => self.transit_index.insert(object, key),
            None => self.transit_index.remove(&object),
        };
    }

    /// Before the grant or its place in the index changes.
    fn transit_changes(&mut self, key: GrantKey) {
        if let Some(copy) = &mut self.copy {
            copy.transit_changes(key, &self.in_transit, &self.transit_index);
        }
    }

    /// The object, if it is in transit from here, and to which group.
    #[must_use]
    pub fn in_transit(&self, object: ObjectId) -> Option<(GroupId, &InTransit)> {
        let key = self.transit_index.get(&object)?;
        self.in_transit.get(key).map(|transit| (key.0, transit))
    }

    /// How many objects are in transit from here.
    #[must_use]
    pub fn in_transit_count(&self) -> usize {
        self.in_transit.len()
    }

    /// The grant with this number to this group, while it is not settled.
    #[must_use]
    pub fn unsettled(&self, to: GroupId, number: u64) -> Option<&InTransit> {
        self.in_transit.get(&(to, number))
    }

    /// All grants that are not settled: destination, number, object.
    pub fn all_unsettled(&self) -> impl Iterator<Item = (GroupId, u64, &InTransit)> {
        self.in_transit.iter().map(|((to, number), transit)| (*to, *number, transit))
    }

    /// The numbers of the grants to this group that are not settled.
    pub fn unsettled_to(&self, to: GroupId) -> impl Iterator<Item = u64> {
        self.in_transit.range((to, 0)..=(to, u64::MAX)).map(|((_, number), _)| *number)
    }

    /// The lowest number of an unsettled grant to this group, or the next one to be given.
    #[must_use]
    pub fn unsettled_from(&self, to: GroupId) -> u64 {
        self.unsettled_to(to).next().unwrap_or_else(|| self.last_grant(to).saturating_add(1))
    }

    /// The number for the next grant to this group, or `None` while too many are unsettled (R20, R24).
    #[must_use]
    pub fn next_grant(&self, to: GroupId) -> Option<u64> {
        (self.grant_room(to) > 0).then(|| self.last_grant(to).saturating_add(1))
    }

    /// How many grants to this group can be given now.
    #[must_use]
    pub fn grant_room(&self, to: GroupId) -> usize {
        let next = self.last_grant(to).saturating_add(1);
        let used = next - self.unsettled_from(to).min(next);
        usize::try_from(GRANT_WINDOW.saturating_sub(used)).unwrap_or(usize::MAX)
    }

    fn last_grant(&self, to: GroupId) -> u64 {
        self.sent.get(&to).copied().unwrap_or(0)
    }

    /// The number of the last grant to this group; zero if it never got one.
    #[must_use]
    pub fn last_grant_to(&self, to: GroupId) -> u64 {
        self.last_grant(to)
    }

    /// The numbers below this one of grants of this group that were not answered here, so many at most as a faulty peer
    /// could make up without harm (R25).
    pub fn unanswered_below(&self, from: GroupId, below: u64) -> impl Iterator<Item = u64> {
        let first = self.received.get(&from).map_or(0, GrantLog::contiguous).saturating_add(1);
        (first..below.min(first.saturating_add(UNANSWERED_MAX)))
            .filter(move |number| matches!(self.grant_seen(from, *number), GrantSeen::New | GrantSeen::BeyondWindow))
    }

    /// The number of the last grant to each group that ever got one.
    pub fn grants_sent(&self) -> impl Iterator<Item = (GroupId, u64)> {
        self.sent.iter().map(|(to, number)| (*to, *number))
    }

    /// Which grants of each other group were answered here.
    pub fn grants_received(&self) -> impl Iterator<Item = (GroupId, &GrantLog)> {
        self.received.iter().map(|(from, log)| (*from, log))
    }

    /// What a grant of this group and number means here (R20).
    #[must_use]
    pub fn grant_seen(&self, from: GroupId, number: u64) -> GrantSeen {
        self.received.get(&from).map_or_else(|| GrantLog::default().look_up(number), |log| log.look_up(number))
    }
}
