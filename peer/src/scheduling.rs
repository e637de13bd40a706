//! What is due of the schedules of this peer's objects: found by the index of its group's state, and given to the host to
//! run, a few at a time.
//!
//! Nothing here decides that an occurrence takes effect: the transaction of its run asks the object under its lock, and moves
//! the schedule on in its own commit (R21). So what is noted here may be lost at any time. It refuses to run anything, and to
//! touch the objects of groups that are led for others: a caretaker commits nothing, and hands out first what is due.

use crate::steps::{StepError, Stepped};
use crate::tasking::Run;
use crate::timers::Timer;
use crate::{Peer, Sabotage, TaskAbort};
use driftmesh_model::{GroupId, Lsn, Micros, Now, ObjectId, ScheduleId, TxnId};
use driftmesh_object_store::{Due, Schedule, Schedules, Work};
use driftmesh_txn::Intent;
use std::collections::BTreeMap;
use std::task::Poll;

/// Most occurrences that run at once at a peer (R24).
pub const SCHEDULES_RUNNING_MAX: usize = 256;
/// Most messages to the world outside that are being delivered at once at a peer, and most of one type: whoever is outside may take
/// long, and the others need room too (R24).
pub const DELIVERIES_MAX: usize = 64;
/// See [`DELIVERIES_MAX`].
pub const DELIVERIES_PER_TYPE_MAX: usize = 16;
/// Most schedules that are remembered to be left alone for a while; of one more the one whose time is next is looked at again.
pub const SCHEDULES_PUT_OFF_MAX: usize = 4_096;
/// Most follow-ups that wait until the commit that made them is stable; more of them begin to wait later.
pub const FOLLOW_UPS_WAITING_MAX: usize = 4_096;
/// Most of what cannot run here that the status names.
pub const SCHEDULES_NAMED_MAX: usize = 16;
/// Most schedules that one step looks at.
const LOOKS_PER_STEP: usize = 256;
/// Most late schedules that the status counts.
const LATE_COUNTED_MAX: usize = 10_000;
/// What is due for so long and does not run is late.
const LATE_AFTER: Micros = Micros::from_millis(1_000);
/// When something is tried again that could not run for a reason that may pass.
const TRY_AGAIN_AFTER: Micros = Micros::from_millis(100);
/// When something is looked at again that cannot run at this peer.
const WAITS_FOR: Micros = Micros::from_millis(5_000);
/// The clocks of timers and of schedules are different ones: nothing is slept for longer.
const LOOK_AGAIN_AFTER: Micros = Micros::from_millis(1_000);

/// An occurrence: which schedule, and the time that it is intended for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OccurrenceKey {
    /// The schedule.
    pub id: ScheduleId,
    /// When it is intended to run, wall clock.
    pub due: Micros,
}

/// An occurrence that is to be run: a host does that, and says how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScheduleRun {
    /// Which one.
    pub key: OccurrenceKey,
    /// The task.
    pub work: Work,
}

/// How a run ended for its schedule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ScheduleEnd {
    /// The occurrence is over.
    Done,
    /// It was over already, or the object is not here any more.
    Gone,
    /// It did not run, for a reason that may pass.
    Again,
    /// It is to be tried again after so long.
    Later(Micros),
    /// It cannot run at this peer: the schedule waits until its object is elsewhere.
    Waits(TaskAbort),
}

/// Why a schedule does not run at a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaitingSchedule {
    /// The schedule.
    pub id: ScheduleId,
    /// The name of its task.
    pub name: String,
    /// Why.
    pub why: ScheduleWaits,
}

/// See [`WaitingSchedule`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScheduleWaits {
    /// This peer does not know the type of its task, or another version of it.
    #[error("this peer does not know such tasks, or another version of them: {0:?}")]
    NotHere(TaskAbort),
    /// Its task, which runs once, panicked here: it waits for another peer.
    #[error("it panicked here, and waits for another peer")]
    Panicked,
    /// Its task panicked at two peers: it runs nowhere any more. Cancel it, and schedule it anew when it is mended.
    #[error("it panicked at two peers, and is parked")]
    Parked,
}

#[derive(Clone, Debug)]
struct PutOff {
    until: Micros,
    why: Option<TaskAbort>,
}

/// What is under way of schedules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scheduling {
    /// What the state had counted when it was looked at.
    seen: Option<(GroupId, u64)>,
    /// Where the next look begins.
    cursor: Option<Due>,
    /// When each was due, and of a message its type.
    running: BTreeMap<ScheduleId, (Micros, Option<String>)>,
    /// The types of messages that are delivered here, and how many of each are under way.
    messages: BTreeMap<String, usize>,
    put_off: BTreeMap<ScheduleId, PutOff>,
    /// Up to where the journal must be stable before these begin.
    unstable: BTreeMap<ScheduleId, Lsn>,
    armed: Option<Micros>,
}

impl Scheduling {
    /// Whether one more of this name may run, if it is a message.
    fn has_room_for(&self, name: &str) -> bool {
        let is_few = |under_way: &usize| {
            *under_way < DELIVERIES_PER_TYPE_MAX && self.messages.values().sum::<usize>() < DELIVERIES_MAX
        };
        self.messages.get(name).is_none_or(is_few)
    }

    /// Leaves a schedule alone for a while. Returns whether another one had to be let go for that.
    fn put_off(&mut self, id: ScheduleId, put_off: PutOff) -> bool {
        let is_full = self.put_off.len() >= SCHEDULES_PUT_OFF_MAX;
        if is_full && let Some(next) = self.put_off.iter().min_by_key(|(_, put_off)| put_off.until).map(|(id, _)| *id) {
            self.put_off.remove(&next);
        }
        self.put_off.insert(id, put_off);
        is_full
    }
}

/// How many schedules there are at a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScheduleCounts {
    /// All that are not parked.
    pub scheduled: usize,
    /// Those that run now.
    pub running: usize,
    /// Those that should have run a second ago and do not run, 10,000 at most.
    pub late: usize,
    /// Those that do not run any more.
    pub parked: usize,
}

/// What becomes of a schedule that is looked at.
#[derive(PartialEq, Eq)]
enum Look {
    Starts,
    Waits,
    NoRoom,
}

impl Peer {
    /// Whether schedules here have changed, come or gone since they were looked at.
    pub(crate) fn schedules_have_changed(&self) -> bool {
        let seen = self.scheduling.seen;
        seen != Some((self.group.id(), self.group.schedule_changes()))
            && (seen.is_some() || self.group.schedule_changes() > 0)
    }

    pub(crate) fn schedules_due(&mut self) {
        if self.scheduling.armed.is_some_and(|armed| armed > self.now.mono) {
            return;
        }
        self.scheduling.armed = None;
        self.look_at_schedules();
    }

    /// Follow-ups may be ready, because more is stable.
    pub(crate) fn more_is_stable(&mut self) {
        if !self.scheduling.unstable.is_empty() {
            self.look_at_schedules();
        }
    }

    /// Gives what is due to the host, as much as there is room for.
    pub(crate) fn look_at_schedules(&mut self) {
        let group = self.group.id();
        if self.scheduling.seen.is_some_and(|(seen, _)| seen != group) {
            // What was noted is of another journal.
            self.scheduling.unstable.clear();
            self.scheduling.cursor = None;
        }
        self.scheduling.seen = Some((group, self.group.schedule_changes()));
        if self.group.scheduled_count() == 0 {
            self.scheduling.cursor = None;
            self.scheduling.unstable.clear();
            self.scheduling.put_off.clear();
            return;
        }
        if self.draining || self.is_superseded || self.group.is_retired() || self.clock_off_us().is_some() {
            self.look_again_at(self.now.mono.plus(LOOK_AGAIN_AFTER));
            return;
        }
        let (now, mono) = (self.now.wall, self.now.mono);
        self.scheduling.put_off.retain(|_, put_off| put_off.until > mono);
        let from = self.scheduling.cursor.take();
        let slice: Vec<Due> = self.group.due_after(from).take_while(|due| due.0 <= now).take(LOOKS_PER_STEP).collect();
        let is_whole = slice.len() < LOOKS_PER_STEP;
        for due in slice {
            if self.look_at_schedule(due) == Look::NoRoom {
                // Whoever ends looks again.
                return;
            }
            if !is_whole {
                self.scheduling.cursor = Some(due);
            }
        }
        if !is_whole {
            self.look_again_at(mono);
            return;
        }
        let next = self
            .group
            .due_after(Some((now, ObjectId::from_u128(u128::MAX), u64::MAX)))
            .next()
            .map(|due| due.0.since(now));
        // What was put off when a pass of several steps came by may not be so any more when it ends; but if all that is due has
        // to wait, the next pass must not begin at once: it would never end.
        let waits = from.is_some() || !self.scheduling.put_off.is_empty();
        let put_off = waits.then_some(TRY_AGAIN_AFTER);
        if let Some(after) = next.into_iter().chain(put_off).min() {
            self.look_again_at(mono.plus(after.min(LOOK_AGAIN_AFTER)));
        }
    }

    fn look_again_at(&mut self, at: Micros) {
        if self.scheduling.armed.is_none_or(|armed| at < armed) {
            self.scheduling.armed = Some(at);
            self.timers.set(at, Timer::Schedules);
        }
    }

    fn look_at_schedule(&mut self, (due, object, number): Due) -> Look {
        let id = ScheduleId { object, number };
        if self.scheduling.running.contains_key(&id) || self.scheduling.put_off.contains_key(&id) {
            return Look::Waits;
        }
        let Some(schedule) = self.group.schedules(object).and_then(|all| all.get(number)) else { return Look::Waits };
        if schedule.waits_for_another(&self.config.peer) {
            return Look::Waits;
        }
        if self.scheduling.running.len() >= SCHEDULES_RUNNING_MAX {
            return Look::NoRoom;
        }
        if !self.scheduling.has_room_for(&schedule.work.name) {
            // Whoever ends looks again.
            return Look::Waits;
        }
        let (after_stable, work) = (schedule.after_stable, schedule.work.clone());
        if after_stable && !self.may_follow(id) {
            return Look::Waits;
        }
        let message = match self.scheduling.messages.get_mut(&work.name) {
            Some(under_way) => {
                *under_way += 1;
                Some(work.name.clone())
            }
            None => None,
        };
        self.scheduling.running.insert(id, (due, message));
        self.tasks.starts.push(Run::Schedule(ScheduleRun { key: OccurrenceKey { id, due }, work }));
        Look::Starts
    }

    /// R6: whether the commit that made a follow-up is stable. It is seen in the same step in which it is journalled or
    /// arrives, so what is journalled then is enough.
    fn may_follow(&mut self, id: ScheduleId) -> bool {
        if self.broken(Sabotage::Outbox) {
            return true;
        }
        let (watermark, tail) = (self.group.watermark(), self.group.tail());
        let (unstable, group) = (&mut self.scheduling.unstable, &self.group);
        if unstable.len() >= FOLLOW_UPS_WAITING_MAX {
            // Those that have left.
            unstable.retain(|id, _| group.schedules(id.object).is_some_and(|all| all.get(id.number).is_some()));
        }
        let made = match unstable.get(&id) {
            Some(made) => *made,
            None if watermark >= tail => return true,
            None if unstable.len() >= FOLLOW_UPS_WAITING_MAX => return false,
            None => *unstable.entry(id).or_insert(tail),
        };
        if watermark < made {
            self.own_dirty = true;
            return false;
        }
        unstable.remove(&id);
        true
    }

    /// An occurrence is over that failed.
    pub(crate) const fn note_failed_occurrence(&mut self, failed: bool) {
        self.metrics.schedule_failures += failed as u64;
    }

    /// A run has ended.
    pub fn schedule_ended(&mut self, now: Now, key: OccurrenceKey, end: ScheduleEnd) {
        self.now = now;
        if self.scheduling.running.get(&key.id).is_none_or(|(due, _)| *due != key.due) {
            return;
        }
        let ended = self.scheduling.running.remove(&key.id);
        if let Some(under_way) = ended.and_then(|(_, message)| self.scheduling.messages.get_mut(&message?)) {
            *under_way -= 1;
        }
        let (wait, why) = match end {
            ScheduleEnd::Done => {
                self.metrics.schedule_runs += 1;
                (None, None)
            }
            // The object may be on its way back already.
            ScheduleEnd::Gone => (None, None),
            ScheduleEnd::Again => (Some(TRY_AGAIN_AFTER), None),
            ScheduleEnd::Later(after) => (Some(after), None),
            ScheduleEnd::Waits(why) => (Some(WAITS_FOR), Some(why)),
        };
        if let Some(wait) = wait {
            let is_full = self.scheduling.put_off(key.id, PutOff { until: now.mono.plus(wait), why });
            if is_full {
                // What was let go for it must not begin at once: there would be no end to it at one instant.
                self.look_again_at(now.mono.plus(TRY_AGAIN_AFTER));
                return;
            }
        }
        self.look_at_schedules();
    }

    /// The types of messages to the world outside that are delivered here.
    pub fn deliver_messages(&mut self, types: impl IntoIterator<Item = String>) {
        self.scheduling.messages = types.into_iter().map(|name| (name, 0)).collect();
    }

    /// Whoever ran occurrences here is gone.
    pub(crate) fn end_all_occurrences(&mut self, now: Now) {
        for (id, (due, _)) in self.scheduling.running.clone() {
            self.schedule_ended(now, OccurrenceKey { id, due }, ScheduleEnd::Again);
        }
    }

    /// Locks the object of an occurrence, if it is here, and tells its schedule if that still is at this occurrence: nobody
    /// else can move it on before the transaction has ended. May be called again until it answers.
    pub fn occurrence(&mut self, now: Now, txn: TxnId, key: OccurrenceKey) -> Stepped<Option<Schedule>> {
        self.now = now;
        // Else the lock would fetch the object, and whoever has it runs what is due.
        if self.occurrence_here(key).is_none() {
            return Poll::Ready(Ok(None));
        }
        match self.intend(now, txn, &[key.id.object]) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(self.occurrence_here(key).cloned())),
            Poll::Ready(Err(StepError::Missing(_))) => Poll::Ready(Ok(None)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn occurrence_here(&self, key: OccurrenceKey) -> Option<&Schedule> {
        let schedule = self.group.schedules(key.id.object)?.get(key.id.number)?;
        Some(schedule).filter(|schedule| schedule.progress.due == key.due && !schedule.is_parked())
    }

    /// The schedules of an object whose lock a transaction holds.
    pub fn schedules_of(&mut self, now: Now, txn: TxnId, object: ObjectId) -> Stepped<Schedules> {
        self.now = now;
        let holds = self.txns.get(txn).and_then(|txn| txn.intents.get(&object)) == Some(&Intent::Checked);
        if !holds || self.group.owned(object).is_none() {
            return Poll::Ready(Err(StepError::NotIntended(object)));
        }
        Poll::Ready(Ok(self.group.schedules(object).cloned().unwrap_or_default()))
    }

    /// How many schedules this peer's objects have.
    #[must_use]
    pub fn schedule_counts(&self, now: Now) -> ScheduleCounts {
        let before = Micros(now.wall.0.saturating_sub(LATE_AFTER.0));
        let late = self.group.due_after(None).take_while(|due| due.0 < before);
        let runs = |due: &Due| self.scheduling.running.contains_key(&ScheduleId { object: due.1, number: due.2 });
        ScheduleCounts {
            scheduled: self.group.scheduled_count(),
            running: self.scheduling.running.len(),
            late: late.filter(|due| !runs(due)).take(LATE_COUNTED_MAX).count(),
            parked: self.group.parked_schedules().len(),
        }
    }

    /// Schedules here that do not run, some of them, and why.
    #[must_use]
    pub fn waiting_schedules(&self) -> Vec<WaitingSchedule> {
        let name = |id: ScheduleId| Some(self.group.schedules(id.object)?.get(id.number)?.work.name.clone());
        let of = |id: ScheduleId, why: ScheduleWaits| Some(WaitingSchedule { id, name: name(id)?, why });
        let parked = self.group.parked_schedules().map(|(object, number)| ScheduleId { object, number });
        let parked = parked.filter_map(|id| of(id, ScheduleWaits::Parked));
        let unknown = self.scheduling.put_off.iter().filter_map(|(id, put_off)| Some((*id, put_off.why.clone()?)));
        let unknown = unknown.filter_map(|(id, why)| of(id, ScheduleWaits::NotHere(why)));
        let due = self.group.due_after(None).take_while(|due| due.0 <= self.now.wall).take(LATE_COUNTED_MAX);
        let panicked = due.map(|(_, object, number)| ScheduleId { object, number }).filter(|id| {
            let schedule = self.group.schedules(id.object).and_then(|all| all.get(id.number));
            schedule.is_some_and(|schedule| schedule.waits_for_another(&self.config.peer))
        });
        let panicked = panicked.filter_map(|id| of(id, ScheduleWaits::Panicked));
        parked.chain(unknown).chain(panicked).take(SCHEDULES_NAMED_MAX).collect()
    }

    /// Whether nothing is due that could run here.
    pub(crate) fn schedules_are_quiet(&self) -> bool {
        let waits = |due: Due| {
            let id = ScheduleId { object: due.1, number: due.2 };
            let cannot = self.scheduling.put_off.get(&id).is_some_and(|put_off| put_off.why.is_some());
            let schedule = self.group.schedules(due.1).and_then(|all| all.get(due.2));
            cannot || schedule.is_none_or(|schedule| schedule.waits_for_another(&self.config.peer))
        };
        let mut due = self.group.due_after(None).take_while(|due| due.0 <= self.now.wall);
        self.scheduling.running.is_empty() && due.all(waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_type_and_of_all_are_bounded_and_other_work_is_not() {
        let types = DELIVERIES_MAX / DELIVERIES_PER_TYPE_MAX + 1;
        let name = |number: usize| number.to_string();
        let messages = (0..types).map(|number| (name(number), 0)).collect();
        let mut scheduling = Scheduling { messages, ..Scheduling::default() };
        for number in 0..types - 1 {
            for under_way in 0..DELIVERIES_PER_TYPE_MAX {
                assert!(scheduling.has_room_for(&name(number)));
                scheduling.messages.insert(name(number), under_way + 1);
            }
            assert!(!scheduling.has_room_for(&name(number)));
        }
        assert!(!scheduling.has_room_for(&name(types - 1)), "all together");
        assert!(scheduling.has_room_for("a task"));
    }

    #[test]
    fn of_too_many_that_are_put_off_the_one_whose_time_is_next_goes() {
        let id = |number| ScheduleId { object: ObjectId::from_u128(1), number };
        let mut scheduling = Scheduling::default();
        let most = SCHEDULES_PUT_OFF_MAX as u64;
        let mut put_off =
            |number: u64| scheduling.put_off(id(number), PutOff { until: Micros(2 * most - number), why: None });
        assert!((0..most).all(|number| !put_off(number)));
        assert!(put_off(most));
        let left: Vec<u64> = scheduling.put_off.keys().map(|id| id.number).collect();
        assert_eq!(left.len(), SCHEDULES_PUT_OFF_MAX);
        assert!(left.contains(&0) && left.contains(&most) && !left.contains(&(most - 1)));
    }
}
