//! Whether two states hold the same: for tests and checkers.
//!
//! It refuses to compare what each member has for itself: the order of slots, old versions that one of them pruned, and
//! counters of moves.

use super::{InTransit, State};
use crate::{Chain, GrantLog, Outcomes};
use driftmesh_model::ObjectId;
use std::fmt::Debug;

impl State {
    /// Whether both say the same of everything that the journal says.
    ///
    /// # Errors
    /// What differs, in words.
    pub fn same_content(&self, other: &Self) -> Result<(), String> {
        same("position", &self.applied, &other.applied)?;
        same("term table", &self.terms, &other.terms)?;
        same("window", &self.window, &other.window)?;
        same("highest timestamps", &self.marks, &other.marks)?;
        same("retired", &self.retired, &other.retired)?;
        same("grants sent", &self.sent, &other.sent)?;
        let answered = |state: &Self| {
            let logs = state.received.iter().filter(|(_, log)| **log != GrantLog::default());
            logs.map(|(from, log)| (*from, log.clone())).collect::<Vec<_>>()
        };
        same("grants received", &answered(self), &answered(other))?;
        self.same_in_transit(other)?;
        same("bytes held", &self.held, &other.held)?;
        same("number of owned objects", &self.owned_count(), &other.owned_count())?;
        for (_, stored) in self.owned_from(0) {
            let object = stored.object;
            let theirs = other.owned(object).ok_or_else(|| format!("object {object} is owned by one of them only"))?;
            let what = format!("epoch and last change of object {object}");
            same(&what, &(stored.epoch, stored.changed), &(theirs.epoch, theirs.changed))?;
            same_chain(&format!("object {object}"), &stored.chain, &theirs.chain)?;
            same_outcomes(object, stored.outcomes.as_deref(), theirs.outcomes.as_deref())?;
        }
        if !self.scheduled.same(&other.scheduled) {
            return Err(format!("what is scheduled: {:?} here, {:?} there", self.scheduled, other.scheduled));
        }
        Ok(())
    }

    fn same_in_transit(&self, other: &Self) -> Result<(), String> {
        same("number of objects in transit", &self.in_transit.len(), &other.in_transit.len())?;
        for ((key, ours), (their_key, theirs)) in self.in_transit.iter().zip(&other.in_transit) {
            same("grant", key, their_key)?;
            let (object, what) = (ours.object, format!("object {} in transit", ours.object));
            let fields = |transit: &InTransit| (transit.object, transit.epoch, transit.changed, transit.floor);
            same(&what, &fields(ours), &fields(theirs))?;
            same(&what, &self.transit_index.get(&object), &other.transit_index.get(&object))?;
            same_chain(&what, &ours.chain, &theirs.chain)?;
            same_outcomes(object, ours.outcomes.as_deref(), theirs.outcomes.as_deref())?;
        }
        Ok(())
    }
}

fn same_outcomes(object: ObjectId, ours: Option<&Outcomes>, theirs: Option<&Outcomes>) -> Result<(), String> {
    Outcomes::same(ours, theirs).map_err(|text| format!("outcomes at object {object}: {text}"))
}

/// The same versions, as far as both keep them.
fn same_chain(what: &str, ours: &Chain, theirs: &Chain) -> Result<(), String> {
    let mark = ours.low_water().max(theirs.low_water());
    let kept = |chain: &Chain| chain.versions().filter(|version| version.commit >= mark).cloned().collect::<Vec<_>>();
    same(what, ours.newest(), theirs.newest())?;
    same(&format!("versions of {what}"), &kept(ours), &kept(theirs))
}

fn same<T: PartialEq + Debug>(what: &str, ours: &T, theirs: &T) -> Result<(), String> {
    if ours == theirs { Ok(()) } else { Err(format!("{what}: {ours:?} here, {theirs:?} there")) }
}
