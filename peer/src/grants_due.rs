//! When grants that are not answered are sent again. There is one timer for all of a pair of groups.
//!
//! It refuses to know whether they are answered: who is called looks.

use driftmesh_model::{GroupId, Micros};
use std::collections::BTreeMap;

/// Grants of one group to another.
#[derive(Clone, Debug, Default)]
struct Way {
    /// When each is due, by its number.
    due: BTreeMap<u64, Micros>,
    /// When the timer fires that was set last; none is set if it has.
    armed: Option<Micros>,
}

/// The grants that are not answered, by the group that sends them and the one that they are for.
#[derive(Clone, Debug, Default)]
pub(crate) struct GrantsDue {
    ways: BTreeMap<(GroupId, GroupId), Way>,
}

impl GrantsDue {
    /// A grant is due at a time. Returns when a timer must be set, if none fires by then.
    pub(crate) fn set(&mut self, way: (GroupId, GroupId), number: u64, at: Micros) -> Option<Micros> {
        let grants = self.ways.entry(way).or_default();
        grants.due.insert(number, at);
        if grants.armed.is_some_and(|armed| armed <= at) {
            return None;
        }
        grants.armed = Some(at);
        Some(at)
    }

    /// The grant is answered.
    pub(crate) fn remove(&mut self, way: (GroupId, GroupId), number: u64) {
        let Some(grants) = self.ways.get_mut(&way) else { return };
        grants.due.remove(&number);
        if grants.due.is_empty() {
            // A timer that is set finds nothing to do.
            self.ways.remove(&way);
        }
    }

    /// The group sends nothing any more.
    pub(crate) fn forget_from(&mut self, group: GroupId) {
        self.ways.retain(|(from, _), _| *from != group);
    }

    /// A timer has fired: takes at most `most` grants that are due. Each has to be set again or removed.
    pub(crate) fn take(&mut self, way: (GroupId, GroupId), now: Micros, most: usize) -> Vec<u64> {
        let Some(grants) = self.ways.get_mut(&way) else { return Vec::new() };
        if grants.armed.is_some_and(|armed| now < armed) {
            // One that an earlier one has overtaken.
            return Vec::new();
        }
        grants.armed = None;
        grants.due.iter().filter(|(_, at)| **at <= now).map(|(number, _)| *number).take(most).collect()
    }

    /// When the next timer must be set, if one is not yet, and something is left.
    pub(crate) fn next(&mut self, way: (GroupId, GroupId)) -> Option<Micros> {
        let grants = self.ways.get_mut(&way)?;
        let first = grants.due.values().min().copied()?;
        if grants.armed.is_some_and(|armed| armed <= first) {
            return None;
        }
        grants.armed = Some(first);
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_timer_serves_all_grants_of_a_pair_and_each_comes_at_its_time() {
        let way = (GroupId::from_u128(1), GroupId::from_u128(2));
        let mut due = GrantsDue::default();
        assert_eq!(due.set(way, 1, Micros(50)), Some(Micros(50)));
        assert_eq!(due.set(way, 2, Micros(60)), None, "the timer looks for the next one");
        assert_eq!(due.set(way, 3, Micros(40)), Some(Micros(40)), "it would come too late");
        assert_eq!(due.take(way, Micros(39), 9), [0; 0]);
        assert_eq!(due.take(way, Micros(40), 9), [3]);
        due.remove(way, 3);
        assert_eq!(due.next(way), Some(Micros(50)));
        assert_eq!(due.next(way), None);
        assert_eq!(due.take(way, Micros(70), 1), [1]);
        assert_eq!(due.set(way, 1, Micros(90)), Some(Micros(90)));
        assert_eq!(due.next(way), Some(Micros(60)));
        due.forget_from(way.0);
        assert_eq!((due.take(way, Micros(70), 9), due.next(way)), (Vec::new(), None));
    }

    #[test]
    fn a_way_without_grants_is_forgotten() {
        let way = (GroupId::from_u128(1), GroupId::from_u128(2));
        let mut due = GrantsDue::default();
        due.set(way, 1, Micros(50));
        due.remove(way, 1);
        assert!(due.ways.is_empty());
        assert_eq!(due.set(way, 2, Micros(80)), Some(Micros(80)));
    }
}
