//! Old versions, and what leads back to former schedules, go when nobody needs them or the budget has no room for them (R17).
//!
//! Each member prunes by itself; it is no part of the fold, so two members may keep different old versions. It refuses
//! to drop what an entry that is not stable superseded: undoing that entry needs it (R7).

use super::State;
use crate::Chain;
use driftmesh_model::limits::OUTCOME_KEEP;
use driftmesh_model::{GroupId, Micros, ObjectId, Timestamp};

/// Versions pruned at most when an object is looked at or written: a step stays short even for a hot object.
const PRUNED_PER_LOOK: usize = 16;
/// Beyond the budget a write, which adds one version, prunes so many of the same object.
const PRUNED_PER_WRITE_OVER_BUDGET: usize = 2;

/// Prunes a chain that was just written to: up to the horizon, and beyond the budget a bit more. `cost` is what all
/// superseded versions of the group cost, bytes. Returns what was freed.
pub(super) fn while_written(
    chain: &mut Chain,
    cost: usize,
    horizon: Timestamp,
    stable: Timestamp,
    budget: usize,
) -> usize {
    let freed = chain.prune(horizon, PRUNED_PER_LOOK);
    let excess = cost.saturating_sub(freed.saturating_add(budget));
    freed + chain.prune_excess(excess, stable, PRUNED_PER_WRITE_OVER_BUDGET)
}

impl State {
    /// What was superseded at or before this may go. Commit timestamps climb along the journal, so a version that was
    /// superseded at or below the last stable commit is needed by no undo.
    pub(super) fn horizon(&self) -> Timestamp {
        self.prune_below.min(self.stable_marks.commit)
    }

    /// Sets up to which commit timestamp superseded versions are not needed any more (R17).
    /// Beyond a cost of `budget` bytes together, older versions go whether needed or not. What is not stable stays.
    pub const fn set_prune_below(&mut self, below: Timestamp, budget: usize) {
        self.prune_below = below;
        self.prune_budget = budget;
    }

    /// Looks at the next `steps` owned objects and prunes a few versions of each that are not needed any more, or
    /// that the budget has no room for.
    ///
    /// A hand that goes round, rather than a queue of versions: a version costs nothing until it goes.
    pub fn prune(&mut self, steps: usize) {
        if self.superseded_cost == 0 && !self.has_outcomes {
            return;
        }
        let outcomes_from = Micros(self.stable_marks.commit.wall().0.saturating_sub(OUTCOME_KEEP.0));
        let (horizon, stable) = (self.horizon(), self.stable_marks.commit);
        let slots = self.objects.slots();
        for _ in 0..steps.min(slots) {
            self.prune_hand = (self.prune_hand + 1) % slots;
            let excess = self.superseded_cost.saturating_sub(self.prune_budget);
            let Some(stored) = self.objects.at_mut(self.prune_hand) else { continue };
            let mut freed = stored.chain.prune(horizon, PRUNED_PER_LOOK);
            freed += stored.chain.prune_excess(excess.saturating_sub(freed), stable, PRUNED_PER_LOOK);
            if let Some(outcomes) = &mut stored.outcomes {
                // R21: those that nobody asks for any more.
                outcomes.forget_before(outcomes_from);
                let former = outcomes.former_mut();
                freed += former.prune(horizon);
                freed += former.prune_excess(excess.saturating_sub(freed), stable);
            }
            self.superseded_cost -= freed;
        }
    }

    /// Prunes the versions of an object that is about to leave that were superseded at or before `below`, and more of the
    /// oldest to at most `budget` bytes (R17). What is not stable stays.
    pub fn prune_object(&mut self, object: ObjectId, below: Timestamp, budget: usize) {
        let stable = self.stable_marks.commit;
        if let Some((_, stored)) = self.objects.get_mut(object) {
            self.superseded_cost -= stored.chain.prune(below.min(stable), usize::MAX);
            self.superseded_cost -= stored.chain.prune_to_budget(budget, stable);
            if let Some(outcomes) = &mut stored.outcomes {
                self.superseded_cost -= outcomes.former_mut().prune(below.min(stable));
            }
        }
    }

    /// The same for an object that has left and whose grant is about to be sent: what was not stable when it left is by
    /// then.
    pub fn prune_in_transit(&mut self, to: GroupId, number: u64, budget: usize) {
        let stable = self.stable_marks.commit;
        if let Some(transit) = self.in_transit.get_mut(&(to, number)) {
            transit.chain.prune_to_budget(budget, stable);
        }
    }

    /// What all superseded versions and ways back to former schedules cost together, bytes.
    #[must_use]
    pub const fn superseded_cost(&self) -> usize {
        self.superseded_cost
    }
}
