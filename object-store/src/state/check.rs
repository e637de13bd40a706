//! Whether an entry that came from elsewhere can be applied: one that cannot stops its group, not the process (R25).
//!
//! It refuses to judge who wrote an entry and whether it was wise: it is enough that `apply` is sound with it.

use super::State;
use crate::{
    Arrival, Chain, Departure, Entry, GrantSeen, Imported, Outcomes, ScheduleChange, Schedules, TRANSFERS_MAX,
    TaskOutcome, Write,
};
use driftmesh_model::limits::TASK_ANSWER_BYTES_MAX;
use driftmesh_model::{Epoch, GroupId, ObjectId, Term, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Epochs and other counters beyond are no sound peer's: they could stop climbing.
pub(super) const NUMBER_MAX: u64 = u64::MAX / 2;

/// Why an entry cannot be applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadEntry {
    /// A leader's first entry must be of a higher term than the one before.
    #[error("term {0} is not above the group's last one")]
    TermNotAbove(Term),
    /// Commit timestamps climb along a journal.
    #[error("commit {0} is not above all versions that the group holds or held")]
    CommitNotAbove(Timestamp),
    /// A commit writes each object once.
    #[error("object {0} is written twice by one commit")]
    WrittenTwice(ObjectId),
    /// An entry moves each object once.
    #[error("object {0} is moved twice by one entry")]
    MovedTwice(ObjectId),
    /// An entry moves something, and no more than one step could (R24).
    #[error("{0} objects cannot be moved by one entry")]
    Transfers(usize),
    /// The grants of an entry are in the order of their numbers, each once.
    #[error("the grants from or to group {0} are not in order")]
    GrantOrder(GroupId),
    /// Nobody commits to what is in transit (R19).
    #[error("object {0} is in transit")]
    InTransit(ObjectId),
    /// Only what is owned can leave.
    #[error("object {0} is not owned")]
    NotOwned(ObjectId),
    /// What is owned cannot arrive (R19).
    #[error("object {0} is owned already")]
    OwnedAlready(ObjectId),
    /// An object leaves for the next epoch, and no epoch comes near the end of its range.
    #[error("object {object} cannot have epoch {epoch}")]
    Epoch {
        /// The object.
        object: ObjectId,
        /// The epoch of the entry.
        epoch: Epoch,
    },
    /// Grants to a group are numbered one by one, within a window (R20).
    #[error("the next grant to group {0} cannot have number {1}")]
    GrantNumber(GroupId, u64),
    /// The grant lies outside of the window, or was answered already (R20).
    #[error("grant {1} of group {0} cannot be answered")]
    GrantAnswered(GroupId, u64),
    /// No such grant is under way.
    #[error("grant {1} to group {0} is not under way")]
    GrantUnknown(GroupId, u64),
    /// The versions are not in order, or above the floor, or below the low-water mark.
    #[error("the versions of object {0} are not in order")]
    Versions(ObjectId),
    /// Outcomes of tasks are kept by owned objects, within bounds (R21).
    #[error("object {0} cannot keep such outcomes of tasks")]
    Outcomes(ObjectId),
    /// Schedules belong to owned objects, within bounds.
    #[error("object {0} cannot have such schedules")]
    Schedules(ObjectId),
    /// A floor lies at or above all versions of its object (R16).
    #[error("the floor of object {0} lies below its newest version")]
    Floor(ObjectId),
    /// No clock of a sound peer says so much.
    #[error("timestamp {0} is at the end of its range")]
    Timestamp(Timestamp),
    /// The group has ended.
    #[error("the group has ended")]
    Retired,
}

impl State {
    /// Whether `apply` would be sound with this entry next.
    ///
    /// # Errors
    /// When it would not; the reason.
    pub fn check(&self, entry: &Entry) -> Result<(), BadEntry> {
        ensure(entry.highest_timestamp() < Timestamp::SOUND_MAX, BadEntry::Timestamp(entry.highest_timestamp()))?;
        match entry {
            Entry::TermStart { term } => ensure(*term > self.term(), BadEntry::TermNotAbove(*term)),
            Entry::Commit { commit, writes, outcome, schedules } => {
                self.check_commit(*commit, writes)?;
                outcome.as_ref().map_or(Ok(()), |outcome| self.check_outcome(outcome, writes))?;
                self.check_schedules(schedules, writes)
            }
            Entry::TransferOut { to, first, floor, departures } => {
                self.check_departures((*to, *first), *floor, departures)
            }
            Entry::TransferIn { from, unsettled_from, arrivals } => {
                self.check_arrivals(*from, *unsettled_from, arrivals)
            }
            Entry::Handed { to, numbers } => {
                ensure(!numbers.is_empty() && numbers.len() <= TRANSFERS_MAX, BadEntry::Transfers(numbers.len()))?;
                ensure(numbers.is_sorted_by(|left, right| left < right), BadEntry::GrantOrder(*to))?;
                let unknown = numbers.iter().find(|number| self.unsettled(*to, **number).is_none());
                unknown.map_or(Ok(()), |number| Err(BadEntry::GrantUnknown(*to, *number)))
            }
            Entry::Refused { from, number, unsettled_from } => self.check_answer(*from, *number, *unsettled_from),
            Entry::TakenBack { to, number } => {
                let transit = self.unsettled(*to, *number).ok_or(BadEntry::GrantUnknown(*to, *number))?;
                ensure(self.owned(transit.object).is_none(), BadEntry::OwnedAlready(transit.object))
            }
            Entry::Window { .. } | Entry::Members(_) => Ok(()),
            Entry::Retired => ensure(!self.retired, BadEntry::Retired),
            Entry::Imported { kept } => self.check_imported(kept),
        }
    }

    fn check_imported(&self, kept: &[Imported]) -> Result<(), BadEntry> {
        ensure(!kept.is_empty() && kept.len() <= TRANSFERS_MAX, BadEntry::Transfers(kept.len()))?;
        if let Some(object) = named_twice(kept.iter().map(|kept| kept.object)) {
            return Err(BadEntry::MovedTwice(object));
        }
        for Imported { object, outcomes } in kept {
            let stored = self.owned(*object).ok_or(BadEntry::NotOwned(*object))?;
            // Undo leaves it blank again.
            let is_blank = stored.outcomes.as_ref().is_none_or(|outcomes| outcomes.is_blank());
            ensure(is_blank && outcomes.are_sound(), BadEntry::Outcomes(*object))?;
        }
        Ok(())
    }

    fn check_departures(
        &self,
        (to, first): (GroupId, u64),
        floor: Timestamp,
        departures: &[Departure],
    ) -> Result<(), BadEntry> {
        ensure(!departures.is_empty() && departures.len() <= TRANSFERS_MAX, BadEntry::Transfers(departures.len()))?;
        ensure(self.next_grant(to) == Some(first), BadEntry::GrantNumber(to, first))?;
        let last = first.saturating_add(departures.len() as u64 - 1);
        ensure(departures.len() <= self.grant_room(to), BadEntry::GrantNumber(to, last))?;
        if let Some(object) = named_twice(departures.iter().map(|departure| departure.object)) {
            return Err(BadEntry::MovedTwice(object));
        }
        for Departure { object, epoch } in departures {
            let stored = self.owned(*object).ok_or(BadEntry::NotOwned(*object))?;
            // A group that was founded anew leaves out the epochs of its former generations (R2).
            let climbs = *epoch > stored.epoch && epoch.as_u64() < NUMBER_MAX;
            ensure(climbs, BadEntry::Epoch { object: *object, epoch: *epoch })?;
            ensure(floor >= stored.chain.newest().commit, BadEntry::Floor(*object))?;
        }
        Ok(())
    }

    fn check_arrivals(&self, from: GroupId, unsettled_from: u64, arrivals: &[Arrival]) -> Result<(), BadEntry> {
        ensure(!self.retired, BadEntry::Retired)?;
        ensure(!arrivals.is_empty() && arrivals.len() <= TRANSFERS_MAX, BadEntry::Transfers(arrivals.len()))?;
        ensure(arrivals.is_sorted_by(|left, right| left.number < right.number), BadEntry::GrantOrder(from))?;
        if let Some(object) = named_twice(arrivals.iter().map(|arrival| arrival.object)) {
            return Err(BadEntry::MovedTwice(object));
        }
        for arrival in arrivals {
            let Arrival { object, epoch, number, versions, outcomes, low_water, floor } = arrival;
            self.check_answer(from, *number, unsettled_from)?;
            ensure(self.owned(*object).is_none(), BadEntry::OwnedAlready(*object))?;
            ensure(epoch.as_u64() < NUMBER_MAX, BadEntry::Epoch { object: *object, epoch: *epoch })?;
            ensure(Chain::are_sound(versions, *low_water), BadEntry::Versions(*object))?;
            ensure(outcomes.as_deref().is_none_or(Outcomes::are_sound), BadEntry::Outcomes(*object))?;
            let scheduled = outcomes.as_ref().map_or(Timestamp::ZERO, |outcomes| outcomes.last_scheduled());
            ensure(*floor >= arrival.newest_commit().max(scheduled), BadEntry::Floor(*object))?;
        }
        Ok(())
    }

    fn check_commit(&self, commit: Timestamp, writes: &[Write]) -> Result<(), BadEntry> {
        ensure(!self.retired, BadEntry::Retired)?;
        // Undo and pruning rely on it, and so does R16.
        ensure(commit > self.marks.commit, BadEntry::CommitNotAbove(commit))?;
        if let Some(object) = named_twice(writes.iter().map(|write| write.object)) {
            return Err(BadEntry::WrittenTwice(object));
        }
        let in_transit = |write: &&Write| self.owned(write.object).is_none() && self.in_transit(write.object).is_some();
        writes.iter().find(in_transit).map_or(Ok(()), |write| Err(BadEntry::InTransit(write.object)))
    }

    fn check_outcome(&self, outcome: &TaskOutcome, writes: &[Write]) -> Result<(), BadEntry> {
        let anchor = outcome.anchor();
        let is_here = self.owned(anchor).is_some() || writes.iter().any(|write| write.object == anchor);
        let in_range = outcome.task.key.issued < Timestamp::SOUND_MAX.wall();
        let is_sound = is_here
            && in_range
            && outcome.oldest <= outcome.task.key.issued
            && outcome.answer.len() <= TASK_ANSWER_BYTES_MAX;
        ensure(is_sound, BadEntry::Outcomes(anchor))
    }

    fn check_schedules(&self, changes: &[ScheduleChange], writes: &[Write]) -> Result<(), BadEntry> {
        if changes.is_empty() {
            return Ok(());
        }
        let written: BTreeSet<ObjectId> = writes.iter().map(|write| write.object).collect();
        let mut after: BTreeMap<ObjectId, Schedules> = BTreeMap::new();
        for change in changes {
            let object = change.object;
            let is_here = self.owned(object).is_some() || written.contains(&object);
            ensure(is_here && change.is_sound(), BadEntry::Schedules(object))?;
            let after = after.entry(object).or_insert_with(|| self.schedules(object).cloned().unwrap_or_default());
            after.apply(&change.step);
            ensure(after.fit(), BadEntry::Schedules(object))?;
        }
        Ok(())
    }

    fn check_answer(&self, from: GroupId, number: u64, unsettled_from: u64) -> Result<(), BadEntry> {
        let is_new = number > 0 && unsettled_from <= number && self.grant_seen(from, number) == GrantSeen::New;
        ensure(is_new, BadEntry::GrantAnswered(from, number))
    }
}

fn ensure(holds: bool, error: BadEntry) -> Result<(), BadEntry> {
    if holds { Ok(()) } else { Err(error) }
}

/// An object that is named more than once. Most entries name one, or all in order.
fn named_twice(named: impl Iterator<Item = ObjectId> + Clone) -> Option<ObjectId> {
    if named.clone().is_sorted_by(|left, right| left < right) {
        return None;
    }
    let mut objects: Vec<_> = named.collect();
    objects.sort_unstable();
    objects.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}
