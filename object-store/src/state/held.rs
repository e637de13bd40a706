//! How much room the objects of a group take: what is owned or in transit, deleted or not, by its newest version, with its
//! schedules (R24).
//!
//! One number that changes with each change, exact also when entries are undone: nothing walks the objects to know it. It
//! refuses to count what has bounds of its own: superseded versions (`prune`), outcomes of tasks, the journal.

use super::{InTransit, State, Stored};
use crate::{Chain, Outcomes, ScheduleChange, Schedules, Write};
use driftmesh_model::{GroupId, ObjectId, Value};
use std::collections::BTreeMap;

/// What an object takes beside its bytes: its places in maps, its chain, the allocation of its value. A deleted one takes it
/// too, for its owner remembers it.
pub const OBJECT_OVERHEAD: usize = 256;

/// What a change takes, and what it gives back, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Growth {
    /// What is written.
    pub taken: usize,
    /// What that replaces.
    pub freed: usize,
}

fn schedules_cost(outcomes: Option<&Outcomes>) -> usize {
    outcomes.map_or(0, |outcomes| outcomes.schedules().cost())
}

/// What one object takes.
pub(super) fn cost_of(chain: &Chain, outcomes: Option<&Outcomes>) -> usize {
    OBJECT_OVERHEAD + chain.newest().value_len() + schedules_cost(outcomes)
}

impl Stored {
    /// How much room the object takes, bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        cost_of(&self.chain, self.outcomes.as_deref())
    }
}

impl InTransit {
    /// How much room the object takes until its receiver has it, bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        cost_of(&self.chain, self.outcomes.as_deref())
    }
}

impl Write {
    /// How much room the object takes with this value, without its schedules, bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        OBJECT_OVERHEAD + self.value.as_ref().map_or(0, Value::len)
    }
}

impl State {
    /// How much room all objects here take, bytes.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// The same by a look at each of them: for tests and checkers.
    #[must_use]
    pub fn held_by_a_walk(&self) -> usize {
        let owned = self.owned_from(0).map(|(_, stored)| stored.held());
        owned.chain(self.in_transit.values().map(InTransit::held)).sum()
    }

    /// How much room what is on its way to a group will take there, bytes.
    #[must_use]
    pub fn held_on_the_way(&self, to: GroupId) -> usize {
        self.in_transit.range((to, 0)..=(to, u64::MAX)).map(|(_, transit)| transit.held()).sum()
    }

    /// How a commit would change that. It looks at what is written and at nothing else.
    #[must_use]
    pub fn growth(&self, writes: &[Write], changes: &[ScheduleChange]) -> Growth {
        let mut growth = Growth::default();
        let mut after: BTreeMap<ObjectId, Schedules> = BTreeMap::new();
        for ScheduleChange { object, step } in changes {
            let schedules = || self.schedules(*object).cloned().unwrap_or_default();
            after.entry(*object).or_insert_with(schedules).apply(step);
        }
        for write @ Write { object, value } in writes {
            growth.taken += write.held();
            if let Some(stored) = self.owned(*object) {
                growth.freed += OBJECT_OVERHEAD + stored.chain.newest().value_len();
            }
            if value.is_none() {
                // They end with it.
                after.insert(*object, Schedules::default());
            }
        }
        for (object, schedules) in after {
            growth.taken += schedules.cost();
            growth.freed += self.schedules(object).map_or(0, Schedules::cost);
        }
        growth
    }
}
