//! The last tasks that panicked at this peer, so that somebody sees them.
//!
//! It refuses to decide anything: a panic is journalled under the task's id like any other end, and no other peer runs that
//! task (R21, R26); a schedule says itself where it panicked.

use driftmesh_model::{Micros, ObjectId};
use std::collections::VecDeque;

/// Most that are listed (R24).
pub const PANICKED_LISTED_MAX: usize = 16;

/// Tasks of one name, with one object as their anchor or of its schedules, that panicked here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PanickedTask {
    /// Their name.
    pub name: String,
    /// The object.
    pub object: ObjectId,
    /// How often, since they are listed.
    pub times: u64,
    /// What the last one said.
    pub message: String,
    /// When that was, wall clock.
    pub last: Micros,
}

/// Those that panicked last, the newest at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panicked {
    listed: VecDeque<PanickedTask>,
}

impl Panicked {
    pub(super) fn note(&mut self, now: Micros, name: &str, object: ObjectId, message: &str) {
        let before = self.listed.iter().position(|listed| listed.object == object && listed.name == name);
        let times = before.and_then(|index| self.listed.remove(index)).map_or(0, |listed| listed.times) + 1;
        if self.listed.len() >= PANICKED_LISTED_MAX {
            self.listed.pop_front();
        }
        let (name, message) = (name.to_owned(), message.to_owned());
        self.listed.push_back(PanickedTask { name, object, times, message, last: now });
    }

    pub(crate) fn listed(&self) -> Vec<PanickedTask> {
        self.listed.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_listed_the_newest_first_and_those_alike_are_one() {
        let mut panicked = Panicked::default();
        for number in 0..20 {
            panicked.note(Micros(number), "burn", ObjectId::from_u128(number.into()), "as it was asked to");
        }
        panicked.note(Micros(20), "burn", ObjectId::from_u128(10), "once more");
        panicked.note(Micros(21), "melt", ObjectId::from_u128(10), "it too");
        let listed = panicked.listed();
        let seen: Vec<_> = listed.iter().map(|one| (one.object.as_u128(), one.times, one.last.0)).collect();
        assert_eq!(seen[..3], [(10, 1, 21), (10, 2, 20), (19, 1, 19)]);
        assert_eq!((listed[1].message.as_str(), listed.len(), seen[15].0), ("once more", PANICKED_LISTED_MAX, 5));
    }
}
