//! What an object keeps of tasks: what became of those whose anchor it is (R21), and its schedules.
//!
//! Both are in one box, so that whatever carries an object carries both. Outcomes are bounded, and honest about what is
//! forgotten.
//! Of each task that ever ended at its anchor the outcome is kept, or it was issued at or before `forgotten`. So whoever
//! finds nothing knows whether it never ran, without trusting any clock. It refuses to look into answers.

use crate::Schedules;
use driftmesh_model::limits::{OUTCOME_KEEP, OUTCOMES_BYTES_MAX, OUTCOMES_MAX, TASK_ANSWER_BYTES_MAX};
use driftmesh_model::{Micros, ObjectId, TaskId, TaskKey, Timestamp, Value};
use serde::{Deserialize, Serialize};

/// What an outcome weighs beside its answer, bytes.
const OVERHEAD: usize = 48;

/// The outcome of a task, as its commit journals it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskOutcome {
    /// The task.
    pub task: TaskId,
    /// What its caller is told.
    pub answer: Value,
}

impl TaskOutcome {
    /// About how much it weighs, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        OVERHEAD + self.answer.len()
    }

    /// The object that keeps it.
    #[must_use]
    pub const fn anchor(&self) -> ObjectId {
        self.task.anchor
    }
}

/// One outcome that is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// The task.
    pub key: TaskKey,
    /// When it was committed.
    pub commit: Timestamp,
    /// What its caller is told.
    pub answer: Value,
}

/// What an anchor says about a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskSeen<'a> {
    /// It has not ended here, and nothing of it took effect.
    New,
    /// It has ended.
    Ended(&'a Kept),
    /// It may have: outcomes that old are not kept any more.
    Forgotten,
}

/// The outcomes that an object keeps, by their keys, and its schedules.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Outcomes {
    kept: Vec<Kept>,
    /// When the latest of the forgotten tasks was issued.
    forgotten: Micros,
    #[serde(default, skip_serializing_if = "Schedules::is_empty")]
    schedules: Schedules,
}

impl Outcomes {
    /// The schedules of the object.
    #[must_use]
    pub const fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    pub(crate) const fn schedules_mut(&mut self) -> &mut Schedules {
        &mut self.schedules
    }

    /// What is known of a task.
    #[must_use]
    pub fn look_up(&self, key: TaskKey) -> TaskSeen<'_> {
        match self.kept.binary_search_by_key(&key, |kept| kept.key) {
            Ok(index) => TaskSeen::Ended(&self.kept[index]),
            Err(_) if key.issued <= self.forgotten => TaskSeen::Forgotten,
            Err(_) => TaskSeen::New,
        }
    }

    /// Adds an outcome, and forgets the earliest ones that there is no room or no need for any more. One that is there
    /// already stands.
    pub(crate) fn add(&mut self, key: TaskKey, commit: Timestamp, answer: &Value) {
        if let Err(index) = self.kept.binary_search_by_key(&key, |kept| kept.key) {
            self.kept.insert(index, Kept { key, commit, answer: answer.clone() });
        }
        self.forget_before(Micros(commit.wall().0.saturating_sub(OUTCOME_KEEP.0)));
        let mut bytes = self.bytes();
        while self.kept.len() > OUTCOMES_MAX || (bytes > OUTCOMES_BYTES_MAX && self.kept.len() > 1) {
            let earliest = self.kept.remove(0);
            bytes -= earliest.answer.len();
            self.forgotten = self.forgotten.max(earliest.key.issued);
        }
    }

    /// Takes back what one commit has added. What that had displaced stays forgotten.
    pub(crate) fn undo(&mut self, key: TaskKey, commit: Timestamp) {
        if let Ok(index) = self.kept.binary_search_by_key(&key, |kept| kept.key)
            && self.kept[index].commit == commit
        {
            self.kept.remove(index);
        }
    }

    /// Forgets what ended before a time.
    pub(crate) fn forget_before(&mut self, time: Micros) {
        let Self { kept, forgotten, schedules: _ } = self;
        kept.retain(|kept| {
            let is_needed = kept.commit.wall() >= time;
            if !is_needed {
                *forgotten = (*forgotten).max(kept.key.issued);
            }
            is_needed
        });
        if kept.is_empty() {
            kept.shrink_to_fit();
        }
    }

    fn bytes(&self) -> usize {
        self.kept.iter().map(|kept| kept.answer.len()).sum()
    }

    /// About how much they weigh, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        OVERHEAD * (self.kept.len() + 1) + self.bytes() + self.schedules.cost()
    }

    /// How many are kept.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// All of them, the earliest first.
    pub fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter()
    }

    /// Whether a sound peer could have said so (R25).
    #[must_use]
    pub fn are_sound(&self) -> bool {
        let kept = &self.kept;
        let is_sound = |kept: &Kept| {
            kept.answer.len() <= TASK_ANSWER_BYTES_MAX
                && kept.commit < Timestamp::SOUND_MAX
                && kept.key.issued < Timestamp::SOUND_MAX.wall()
        };
        kept.len() <= OUTCOMES_MAX
            && (self.bytes() <= OUTCOMES_BYTES_MAX || kept.len() == 1)
            && kept.is_sorted_by(|left, right| left.key < right.key)
            && kept.iter().all(is_sound)
            && self.forgotten < Timestamp::SOUND_MAX.wall()
            && self.schedules.are_sound()
    }

    /// Whether both say the same, as far as both remember.
    ///
    /// # Errors
    /// What differs, in words.
    pub(crate) fn same(ours: Option<&Self>, theirs: Option<&Self>) -> Result<(), String> {
        let none = Self::default();
        let (ours, theirs) = (ours.unwrap_or(&none), theirs.unwrap_or(&none));
        if ours.schedules != theirs.schedules {
            return Err(format!("{:?} here, {:?} there", ours.schedules, theirs.schedules));
        }
        let mark = ours.forgotten.max(theirs.forgotten);
        let of = |outcomes: &Self| outcomes.iter().filter(|kept| kept.key.issued > mark).cloned().collect::<Vec<_>>();
        let (ours, theirs) = (of(ours), of(theirs));
        if ours == theirs { Ok(()) } else { Err(format!("{ours:?} here, {theirs:?} there")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(issued: u64) -> TaskKey {
        TaskKey { issued: Micros(issued), number: issued }
    }

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_wall(Micros(micros))
    }

    fn answer(bytes: usize) -> Value {
        Value::from_slice(&vec![7; bytes])
    }

    fn is_new(outcomes: &Outcomes, issued: u64) -> bool {
        outcomes.look_up(key(issued)) == TaskSeen::New
    }

    #[test]
    fn an_outcome_from_far_ahead_is_not_sound() {
        let mut outcomes = Outcomes::default();
        outcomes.add(key(1), at(1), &answer(1));
        assert!(outcomes.are_sound());
        outcomes.add(key(u64::MAX), at(1), &answer(1));
        assert!(!outcomes.are_sound());
    }

    #[test]
    fn of_each_task_the_outcome_is_kept_or_it_counts_as_forgotten() {
        let mut outcomes = Outcomes::default();
        let count = OUTCOMES_MAX as u64 + 10;
        for issued in 1..=count {
            assert!(is_new(&outcomes, issued));
            outcomes.add(key(issued), at(issued), &answer(1));
        }
        assert_eq!(outcomes.len(), OUTCOMES_MAX);
        for issued in 1..=count {
            let forgotten = outcomes.look_up(key(issued)) == TaskSeen::Forgotten;
            assert_eq!(forgotten, issued <= 10, "{issued}");
        }
        // Never seen, but as old as one that is forgotten.
        assert_eq!(outcomes.look_up(TaskKey { issued: Micros(10), number: 99 }), TaskSeen::Forgotten);
        assert!(outcomes.are_sound());
    }

    #[test]
    fn bytes_and_time_are_bounds_too() {
        let mut outcomes = Outcomes::default();
        for issued in 1..=5 {
            outcomes.add(key(issued), at(issued), &answer(TASK_ANSWER_BYTES_MAX));
        }
        assert_eq!((outcomes.len(), outcomes.look_up(key(1))), (4, TaskSeen::Forgotten));
        let later = OUTCOME_KEEP.0 + 10;
        outcomes.add(key(later), at(later), &answer(1));
        assert_eq!((outcomes.len(), outcomes.look_up(key(5))), (1, TaskSeen::Forgotten));
    }

    #[test]
    fn an_outcome_that_stands_is_not_replaced_and_not_undone_by_another_commit() {
        let mut outcomes = Outcomes::default();
        outcomes.add(key(1), at(1), &answer(1));
        outcomes.add(key(1), at(2), &answer(2));
        outcomes.undo(key(1), at(2));
        assert!(matches!(outcomes.look_up(key(1)), TaskSeen::Ended(kept) if kept.commit == at(1)));
        outcomes.undo(key(1), at(1));
        assert!(is_new(&outcomes, 1));
    }

    #[test]
    fn what_no_sound_peer_says_is_not_sound() {
        let kept = |issued, bytes| Kept { key: key(issued), commit: at(1), answer: answer(bytes) };
        let sound = |kept: Vec<Kept>, forgotten| {
            let schedules = Schedules::default();
            Outcomes { kept, forgotten: Micros(forgotten), schedules }.are_sound()
        };
        assert!(sound(vec![kept(1, 1), kept(2, 1)], 0));
        assert!(!sound(vec![kept(2, 1), kept(1, 1)], 0), "out of order");
        assert!(!sound(vec![kept(1, 1), kept(1, 1)], 0), "twice");
        assert!(!sound(vec![kept(1, TASK_ANSWER_BYTES_MAX + 1)], 0));
        assert!(!sound((0..=OUTCOMES_MAX as u64).map(|issued| kept(issued, 0)).collect(), 0));
        assert!(!sound(Vec::new(), u64::MAX), "nothing could ever run there again");
    }
}
