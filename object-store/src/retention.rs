//! When superseded versions may go (R17): a queue of them in the order they were superseded, and a byte budget.

use driftmesh_model::{ObjectId, Timestamp};
use std::collections::VecDeque;

/// Superseded versions in the order in which they may be pruned, and what they cost together.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// (commit timestamp of the superseding version, object).
    queue: VecDeque<(Timestamp, ObjectId)>,
    cost: usize,
}

impl Retention {
    /// A version of `object` was superseded by one committed at `successor`; it costs `cost` bytes.
    pub fn superseded(&mut self, object: ObjectId, successor: Timestamp, cost: usize) {
        self.queue.push_back((successor, object));
        self.cost += cost;
    }

    /// The versions of an object went elsewhere, or were pruned: `cost` bytes less.
    pub const fn freed(&mut self, cost: usize) {
        self.cost = self.cost.saturating_sub(cost);
    }

    /// What all superseded versions cost together, bytes.
    #[must_use]
    pub const fn cost(&self) -> usize {
        self.cost
    }

    /// The next object to prune, and up to which commit timestamp: its oldest version was superseded at or before
    /// `horizon`, or the budget of `budget` bytes is exceeded.
    pub fn next_due(&mut self, horizon: Timestamp, budget: usize) -> Option<(ObjectId, Timestamp)> {
        let (successor, object) = *self.queue.front()?;
        if successor > horizon && self.cost <= budget {
            return None;
        }
        self.queue.pop_front();
        Some((object, successor))
    }
}
