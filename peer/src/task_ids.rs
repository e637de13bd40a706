//! The ids of tasks that a peer makes, and which of them somebody here still waits for.
//!
//! With each task goes the oldest one with its anchor that is waited for, so that the anchor keeps the outcomes of those
//! longest (`object-store/src/outcomes.rs`). It refuses to know of ids that others have made.

use driftmesh_model::{Micros, ObjectId, TaskId, TaskKey, TxnId};
use std::collections::{BTreeMap, BTreeSet};

/// A clock that was set back by more than this makes a peer begin anew as another maker: its ids would be from ahead of the
/// clocks of others (R18).
const SET_BACK_MAX: Micros = Micros::from_millis(100);

/// Most tasks that are spoken of (R24); of more nothing is said, and their outcomes may be forgotten sooner.
const WAITED_FOR_MAX: usize = 1 << 16;

/// The ids of a peer's tasks.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskIds {
    /// Of the ids that it makes; none before the first.
    maker: Option<u64>,
    /// When the latest of them was issued.
    last: Micros,
    /// The tasks with such ids that are waited for, by their anchors.
    waited_for: BTreeSet<(ObjectId, Micros, TxnId)>,
    by_waiter: BTreeMap<TxnId, (ObjectId, Micros)>,
}

impl TaskIds {
    /// A new key, later than all before. `None` if it has to be the first of a maker.
    pub(crate) fn make(&mut self, wall: Micros) -> Option<TaskKey> {
        let issued = wall.max(self.last.plus(Micros(1)));
        let number = self.maker.filter(|_| issued <= wall.plus(SET_BACK_MAX))?;
        self.last = issued;
        Some(TaskKey::of_peer(issued, number))
    }

    /// The first key of a maker with a random number.
    pub(crate) fn begin(&mut self, wall: Micros, random: u64) -> TaskKey {
        let key = TaskKey::of_peer(wall, random);
        self.maker = key.maker();
        self.last = wall;
        // What was made before is not spoken of any more.
        self.waited_for.clear();
        self.by_waiter.clear();
        key
    }

    fn is_ours(&self, key: TaskKey) -> bool {
        key.maker().is_some() && key.maker() == self.maker
    }

    /// Somebody waits for a task.
    pub(crate) fn wait_for(&mut self, waiter: TxnId, task: &TaskId) {
        if self.is_ours(task.key) && self.by_waiter.len() < WAITED_FOR_MAX {
            self.waited_for.insert((task.anchor, task.key.issued, waiter));
            self.by_waiter.insert(waiter, (task.anchor, task.key.issued));
        }
    }

    /// Who waited for a task has been told how it ended, or waits no more.
    pub(crate) fn is_told(&mut self, waiter: TxnId) {
        if let Some((anchor, issued)) = self.by_waiter.remove(&waiter) {
            self.waited_for.remove(&(anchor, issued, waiter));
        }
    }

    /// When the oldest task with the same anchor was issued that is waited for. Zero for a task with an id of others.
    pub(crate) fn oldest(&self, task: &TaskId) -> Micros {
        let first = (task.anchor, Micros(0), TxnId::from_u64(0));
        let oldest = self.waited_for.range(first..).next().filter(|(anchor, ..)| *anchor == task.anchor);
        match oldest {
            _ if !self.is_ours(task.key) => Micros(0),
            Some((_, issued, _)) => task.key.issued.min(*issued),
            None => task.key.issued,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(key: TaskKey, anchor: u128) -> TaskId {
        TaskId { anchor: ObjectId::from_u128(anchor), key }
    }

    #[test]
    fn no_two_keys_have_the_same_time_whatever_the_clock_does() {
        let mut ids = TaskIds::default();
        assert_eq!(ids.make(Micros(1_000_000)), None);
        let first = ids.begin(Micros(1_000_000), 7);
        let second = ids.make(Micros(1_000_000)).expect("it has begun");
        let third = ids.make(Micros(999_000)).expect("set back a little");
        assert_eq!([first.issued, second.issued, third.issued].map(|time| time.0), [1_000_000, 1_000_001, 1_000_002]);
        assert_eq!((first.maker(), third.maker()), (second.maker(), second.maker()));
        assert_eq!(ids.make(Micros(500_000)), None, "set back far");
        assert_eq!(ids.begin(Micros(500_000), 8).issued, Micros(500_000));
        assert_eq!(ids.make(Micros(2_000_000)).map(|key| key.issued), Some(Micros(2_000_000)));
    }

    #[test]
    fn the_oldest_that_is_waited_for_is_that_of_the_same_anchor() {
        let mut ids = TaskIds::default();
        let keys: Vec<TaskKey> = std::iter::once(ids.begin(Micros(10), 7))
            .chain((0..3).map(|_| ids.make(Micros(20)).expect("it has begun")))
            .collect();
        let [one, two, three, four] = keys[..] else { panic!("four keys") };
        for (number, task) in [task(one, 1), task(two, 2), task(three, 1), task(four, 1)].iter().enumerate() {
            ids.wait_for(TxnId::from_u64(number as u64), task);
        }
        assert_eq!(ids.oldest(&task(four, 1)), one.issued);
        assert_eq!(ids.oldest(&task(two, 2)), two.issued);
        ids.is_told(TxnId::from_u64(0));
        assert_eq!(ids.oldest(&task(four, 1)), three.issued);
        assert_eq!(ids.oldest(&task(two, 1)), two.issued, "never later than the task itself");
        assert_eq!(ids.oldest(&task(four, 9)), four.issued, "nothing is waited for there");
        assert_eq!(ids.oldest(&task(TaskKey::of_peer(Micros(30), 8), 1)), Micros(0), "of another peer");
        ids.begin(Micros(1), 9);
        assert_eq!(ids.oldest(&task(four, 1)), Micros(0), "it was another maker");
        assert!(ids.waited_for.is_empty() && ids.by_waiter.is_empty());
    }
}
