//! What an object keeps of tasks: what became of those whose anchor it is (R21), its schedules, and what leads back to what
//! these were.
//!
//! All of it is in one box, so that whatever carries an object carries it. Outcomes are bounded, and honest about what is
//! forgotten.
//! Of each task that ever ended at its anchor the outcome is kept, or it was issued at or before a mark of what is forgotten.
//! So whoever finds nothing knows whether it never ran, without trusting any clock. Each peer that makes ids has its own mark,
//! and says with each task which of its earlier ones it still waits for: the outcomes of those are the last to go (after RIFL,
//! Lee et al., SOSP 2015). So a task that waits its turn at a busy anchor is not forgotten for those that overtake it.
//! It refuses to look into answers.

use crate::former::Former;
use crate::{ScheduleStep, Schedules};
use driftmesh_model::limits::{
    OUTCOME_KEEP, OUTCOME_MAKERS_MAX, OUTCOMES_BYTES_MAX, OUTCOMES_MAX, OUTCOMES_UNTOLD_BYTES_MAX, OUTCOMES_UNTOLD_MAX,
    TASK_ANSWER_BYTES_MAX,
};
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
    /// What was issued before this by the peer that made the id, with this anchor, that peer does not wait for. Zero if
    /// nothing is known.
    #[serde(default, skip_serializing_if = "Micros::is_zero")]
    pub oldest: Micros,
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

/// What an anchor knows of a peer that makes ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Maker {
    number: u64,
    /// It waits for nothing that was issued before this; zero if it has never said so.
    oldest: Micros,
    /// When the latest of its forgotten tasks was issued.
    forgotten: Micros,
}

/// The outcomes that an object keeps, by their keys, and its schedules.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Outcomes {
    kept: Vec<Kept>,
    /// When the latest of the forgotten tasks was issued whose ids no peer has made.
    forgotten: Micros,
    /// Peers that have made ids of tasks that ended here, by their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    makers: Vec<Maker>,
    /// When the latest of the forgotten tasks was issued that were made by other peers than those.
    #[serde(default, skip_serializing_if = "Micros::is_zero")]
    forgotten_of_others: Micros,
    #[serde(default, skip_serializing_if = "Schedules::is_empty")]
    schedules: Schedules,
    /// What leads back from the schedules to what they were.
    #[serde(default, skip_serializing_if = "Former::is_blank")]
    former: Former,
}

impl Outcomes {
    /// The schedules of the object.
    #[must_use]
    pub const fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    /// A commit changes the schedules. Returns what they were.
    pub(crate) fn change_schedules(
        &mut self,
        commit: Timestamp,
        steps: impl IntoIterator<Item = ScheduleStep>,
    ) -> Schedules {
        let before = self.schedules.clone();
        let back: Vec<ScheduleStep> = steps.into_iter().filter_map(|step| self.schedules.apply(&step)).collect();
        self.former.push(commit, back);
        before
    }

    /// Takes back what the last commit has changed of the schedules.
    pub(crate) fn undo_schedules(&mut self, commit: Timestamp, before: Schedules) {
        self.schedules = before;
        self.former.undo(commit);
    }

    pub(crate) const fn former_mut(&mut self) -> &mut Former {
        &mut self.former
    }

    /// What the way back to former schedules weighs, bytes.
    #[must_use]
    pub fn former_cost(&self) -> usize {
        self.former.cost()
    }

    /// The latest commit that is known to have changed schedules; zero if none is.
    #[must_use]
    pub fn last_scheduled(&self) -> Timestamp {
        self.former.newest()
    }

    /// What a snapshot sees: the outcomes of what was committed before it, and the schedules as they were. Of what has been
    /// forgotten since nobody knows, and it counts as forgotten. `None` if what the schedules were is not kept any more (R17).
    #[must_use]
    pub fn at(&self, snapshot: Timestamp) -> Option<Self> {
        let schedules = self.former.lead_back(&self.schedules, snapshot)?;
        Some(Self {
            kept: self.kept.iter().filter(|kept| kept.commit <= snapshot).cloned().collect(),
            forgotten: self.forgotten,
            makers: self.makers.clone(),
            forgotten_of_others: self.forgotten_of_others,
            schedules,
            former: Former::default(),
        })
    }

    /// Whether it says nothing: no object that keeps it differs from one that does not.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        *self == Self::default()
    }

    /// The same in another mesh, where it is there from this commit on: from then on time counts for it.
    #[must_use]
    pub fn moved_to(mut self, commit: Timestamp) -> Self {
        self.kept.iter_mut().for_each(|kept| kept.commit = commit);
        self.former = Former::from(commit);
        self
    }

    /// What is known of a task.
    #[must_use]
    pub fn look_up(&self, key: TaskKey) -> TaskSeen<'_> {
        match self.kept.binary_search_by_key(&key, |kept| kept.key) {
            Ok(index) => TaskSeen::Ended(&self.kept[index]),
            Err(_) if key.issued <= self.forgotten_up_to(key) => TaskSeen::Forgotten,
            Err(_) => TaskSeen::New,
        }
    }

    fn maker(&self, key: TaskKey) -> Option<&Maker> {
        let number = key.maker()?;
        let index = self.makers.binary_search_by_key(&number, |maker| maker.number).ok()?;
        self.makers.get(index)
    }

    /// When the latest of the forgotten tasks was issued that this could be one of.
    fn forgotten_up_to(&self, key: TaskKey) -> Micros {
        match (key.maker(), self.maker(key)) {
            (None, _) => self.forgotten,
            (Some(_), None) => self.forgotten_of_others,
            (Some(_), Some(maker)) => maker.forgotten,
        }
    }

    fn forget(&mut self, key: TaskKey) {
        let mark = match key.maker().map(|number| self.makers.binary_search_by_key(&number, |maker| maker.number)) {
            None => &mut self.forgotten,
            Some(Err(_)) => &mut self.forgotten_of_others,
            Some(Ok(index)) => &mut self.makers[index].forgotten,
        };
        *mark = key.issued.max(*mark);
    }

    /// Whether whoever made it waits for nothing that old any more, or has never said what it waits for.
    fn is_told(&self, key: TaskKey) -> bool {
        self.maker(key).is_none_or(|maker| key.issued < maker.oldest || maker.oldest == Micros(0))
    }

    /// Adds an outcome, and forgets the earliest ones that there is no room or no need for any more. One that is there
    /// already stands.
    pub(crate) fn add(&mut self, commit: Timestamp, outcome: &TaskOutcome) {
        let TaskOutcome { task: TaskId { anchor: _, key }, ref answer, oldest } = *outcome;
        if let Some(number) = key.maker() {
            self.hear(number, oldest);
        }
        if let Err(index) = self.kept.binary_search_by_key(&key, |kept| kept.key) {
            self.kept.insert(index, Kept { key, commit, answer: answer.clone() });
        }
        self.forget_before(Micros(commit.wall().0.saturating_sub(OUTCOME_KEEP.0)));
        self.make_room();
    }

    /// A peer says what it still waits for. Whoever said the earliest time makes room for another: mostly who was not heard of
    /// for longest.
    fn hear(&mut self, number: u64, oldest: Micros) {
        match self.makers.binary_search_by_key(&number, |maker| maker.number) {
            Ok(index) => self.makers[index].oldest = oldest.max(self.makers[index].oldest),
            Err(mut index) => {
                if self.makers.len() >= OUTCOME_MAKERS_MAX
                    && let Some(idlest) = (0..self.makers.len()).min_by_key(|index| self.makers[*index].oldest)
                {
                    index -= usize::from(idlest < index);
                    let idlest = self.makers.remove(idlest);
                    self.forgotten_of_others = self.forgotten_of_others.max(idlest.forgotten);
                }
                // It may have been among the others before.
                let maker = Maker { number, oldest, forgotten: self.forgotten_of_others };
                self.makers.insert(index, maker);
            }
        }
    }

    /// Forgets the earliest of those that were told, and beyond a larger bound the earliest of all.
    fn make_room(&mut self) {
        let mut bytes = self.bytes();
        if self.kept.len() > OUTCOMES_MAX || bytes > OUTCOMES_BYTES_MAX {
            let is_told: Vec<bool> = self.kept.iter().map(|kept| self.is_told(kept.key)).collect();
            let told = || self.kept.iter().zip(&is_told).filter(|(_, is_told)| **is_told).map(|(kept, _)| kept);
            let (mut count, mut weight) = (told().count(), told().map(|kept| kept.answer.len()).sum::<usize>());
            let mut gone = Vec::new();
            for kept in told() {
                if count <= OUTCOMES_MAX && (weight <= OUTCOMES_BYTES_MAX || count == 1) {
                    break;
                }
                count -= 1;
                weight -= kept.answer.len();
                bytes -= kept.answer.len();
                gone.push(kept.key);
            }
            self.kept.retain(|kept| gone.binary_search(&kept.key).is_err());
            gone.into_iter().for_each(|key| self.forget(key));
        }
        while self.kept.len() > OUTCOMES_UNTOLD_MAX || (bytes > OUTCOMES_UNTOLD_BYTES_MAX && self.kept.len() > 1) {
            let earliest = self.kept.remove(0);
            bytes -= earliest.answer.len();
            self.forget(earliest.key);
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
        if self.kept.iter().all(|kept| kept.commit.wall() >= time) {
            return;
        }
        let (needed, old) = std::mem::take(&mut self.kept).into_iter().partition(|kept| kept.commit.wall() >= time);
        self.kept = needed;
        let old: Vec<Kept> = old;
        old.into_iter().for_each(|kept| self.forget(kept.key));
        // No task that such a peer waits for is that old, so its mark may hold for all who are not known.
        let is_idle = |maker: &Maker| maker.oldest < time && maker.forgotten < time;
        for maker in self.makers.extract_if(.., |maker| is_idle(maker)) {
            self.forgotten_of_others = self.forgotten_of_others.max(maker.forgotten);
        }
    }

    fn bytes(&self) -> usize {
        self.kept.iter().map(|kept| kept.answer.len()).sum()
    }

    /// About how much they weigh, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        let makers = self.makers.len() * size_of::<Maker>();
        OVERHEAD * (self.kept.len() + 1) + self.bytes() + makers + self.schedules.cost() + self.former.cost()
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
        let is_time = |time: Micros| time < Timestamp::SOUND_MAX.wall();
        kept.len() <= OUTCOMES_UNTOLD_MAX
            && (self.bytes() <= OUTCOMES_UNTOLD_BYTES_MAX || kept.len() == 1)
            && kept.is_sorted_by(|left, right| left.key < right.key)
            && kept.iter().all(is_sound)
            && is_time(self.forgotten)
            && is_time(self.forgotten_of_others)
            && self.makers.len() <= OUTCOME_MAKERS_MAX
            && self.makers.is_sorted_by(|left, right| left.number < right.number)
            && self.makers.iter().all(|maker| is_time(maker.oldest) && is_time(maker.forgotten))
            && self.schedules.are_sound()
            && self.former.is_sound()
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
        let both = ours.former.low_water().max(theirs.former.low_water());
        if !ours.former.since(both).eq(theirs.former.since(both)) {
            return Err(format!("{:?} before here, {:?} there", ours.former, theirs.former));
        }
        let mark = |key: TaskKey| ours.forgotten_up_to(key).max(theirs.forgotten_up_to(key));
        let is_known = |kept: &&Kept| kept.key.issued > mark(kept.key);
        let of = |outcomes: &Self| outcomes.iter().filter(is_known).cloned().collect::<Vec<_>>();
        let (ours, theirs) = (of(ours), of(theirs));
        if ours == theirs { Ok(()) } else { Err(format!("{ours:?} here, {theirs:?} there")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(issued: u64) -> TaskKey {
        TaskKey::of_caller(Micros(issued), issued)
    }

    fn outcome(key: TaskKey, answer: Value, oldest: u64) -> TaskOutcome {
        TaskOutcome { task: TaskId { anchor: ObjectId::from_u128(1), key }, answer, oldest: Micros(oldest) }
    }

    impl Outcomes {
        fn told(&mut self, key: TaskKey, commit: Timestamp, answer: Value) {
            self.add(commit, &outcome(key, answer, 0));
        }
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
        outcomes.told(key(1), at(1), answer(1));
        assert!(outcomes.are_sound());
        outcomes.told(key(u64::MAX), at(1), answer(1));
        assert!(!outcomes.are_sound());
    }

    #[test]
    fn of_each_task_the_outcome_is_kept_or_it_counts_as_forgotten() {
        let mut outcomes = Outcomes::default();
        let count = OUTCOMES_MAX as u64 + 10;
        for issued in 1..=count {
            assert!(is_new(&outcomes, issued));
            outcomes.told(key(issued), at(issued), answer(1));
        }
        assert_eq!(outcomes.len(), OUTCOMES_MAX);
        for issued in 1..=count {
            let forgotten = outcomes.look_up(key(issued)) == TaskSeen::Forgotten;
            assert_eq!(forgotten, issued <= 10, "{issued}");
        }
        // Never seen, but as old as one that is forgotten.
        assert_eq!(outcomes.look_up(TaskKey::of_caller(Micros(10), 99)), TaskSeen::Forgotten);
        assert!(outcomes.are_sound());
    }

    /// A key of a peer.
    fn of_peer(issued: u64, peer: u64) -> TaskKey {
        TaskKey::of_peer(Micros(issued), peer)
    }

    #[test]
    fn what_a_peer_still_waits_for_is_not_forgotten_for_what_it_was_told() {
        let mut outcomes = Outcomes::default();
        // Ten of its tasks have ended, of which it has heard of none; and an eleventh waits its turn.
        for issued in 11..=20 {
            outcomes.add(at(issued), &outcome(of_peer(issued, 1), answer(1), 10));
        }
        for issued in 1_000..2_000 {
            outcomes.add(at(issued), &outcome(of_peer(issued, 2), answer(1), issued));
            outcomes.told(key(issued), at(issued), answer(1));
        }
        assert_eq!(outcomes.look_up(of_peer(10, 1)), TaskSeen::New, "it may run");
        for issued in 11..=20 {
            assert!(matches!(outcomes.look_up(of_peer(issued, 1)), TaskSeen::Ended(_)), "{issued}");
        }
        // Of those that are not waited for so many are kept as ever; and the last of the second peer.
        assert_eq!(outcomes.len(), 10 + OUTCOMES_MAX + 1);
        // Once it was told, they are the earliest.
        outcomes.add(at(2_000), &outcome(of_peer(2_000, 1), answer(1), 2_000));
        assert_eq!(outcomes.look_up(of_peer(20, 1)), TaskSeen::Forgotten);
        assert_eq!(outcomes.look_up(of_peer(10, 1)), TaskSeen::Forgotten, "it may have run after them");
        assert_eq!(outcomes.look_up(of_peer(21, 1)), TaskSeen::New);
        assert_eq!(outcomes.len(), OUTCOMES_MAX + 2);
        assert!(outcomes.are_sound());
    }

    #[test]
    fn what_nobody_has_been_told_is_bounded_too() {
        let mut outcomes = Outcomes::default();
        let count = OUTCOMES_UNTOLD_MAX as u64 + 10;
        for issued in 2..=count + 1 {
            outcomes.add(at(issued), &outcome(of_peer(issued, 1), answer(1), 1));
        }
        assert_eq!(outcomes.len(), OUTCOMES_UNTOLD_MAX);
        assert_eq!(outcomes.look_up(of_peer(11, 1)), TaskSeen::Forgotten);
        assert!(matches!(outcomes.look_up(of_peer(12, 1)), TaskSeen::Ended(_)));
        assert!(outcomes.are_sound());
        let heavy = TASK_ANSWER_BYTES_MAX;
        for issued in 0..20 {
            outcomes.add(at(5_000), &outcome(of_peer(5_000 + issued, 1), answer(heavy), 1));
        }
        assert_eq!(outcomes.len(), OUTCOMES_UNTOLD_BYTES_MAX / heavy);
        assert!(outcomes.are_sound());
    }

    /// Many peers, each waiting for its first task. What is said of peers that had to make room holds for all of them.
    #[test]
    fn of_each_peer_that_had_to_make_room_the_outcomes_are_kept_or_count_as_forgotten() {
        let mut outcomes = Outcomes::default();
        let peers = OUTCOME_MAKERS_MAX as u64 + 50;
        let mut ended = Vec::new();
        for round in 0..6 {
            for peer in 1..=peers {
                let issued = 10 + round * 1_000 + peer;
                ended.push(of_peer(issued, peer));
                outcomes.add(at(issued), &outcome(of_peer(issued, peer), answer(1), issued));
            }
        }
        assert_eq!(outcomes.makers.len(), OUTCOME_MAKERS_MAX);
        assert!(ended.iter().all(|key| outcomes.look_up(*key) != TaskSeen::New));
        assert!(outcomes.forgotten_of_others > Micros(0), "some had to make room");
        let latest = ended.last().expect("there is one").issued.0 + 1;
        assert!((1..=2 * peers).all(|peer| outcomes.look_up(of_peer(latest, peer)) == TaskSeen::New));
        // Long after that nobody is known any more, and nothing that has ended may run.
        let later = latest + OUTCOME_KEEP.0;
        outcomes.told(key(later), at(later), answer(1));
        assert_eq!((outcomes.len(), outcomes.makers.len()), (1, 0));
        assert!(ended.iter().all(|key| outcomes.look_up(*key) == TaskSeen::Forgotten));
    }

    #[test]
    fn bytes_and_time_are_bounds_too() {
        let mut outcomes = Outcomes::default();
        for issued in 1..=5 {
            outcomes.told(key(issued), at(issued), answer(TASK_ANSWER_BYTES_MAX));
        }
        assert_eq!((outcomes.len(), outcomes.look_up(key(1))), (4, TaskSeen::Forgotten));
        let later = OUTCOME_KEEP.0 + 10;
        outcomes.told(key(later), at(later), answer(1));
        assert_eq!((outcomes.len(), outcomes.look_up(key(5))), (1, TaskSeen::Forgotten));
    }

    #[test]
    fn a_snapshot_sees_the_outcomes_of_what_was_committed_before_it() {
        let mut outcomes = Outcomes::default();
        let count = OUTCOMES_MAX as u64 + 10;
        for issued in 1..=count {
            outcomes.told(key(issued), at(100 + issued), answer(1));
        }
        let then = outcomes.at(at(100 + 50)).unwrap();
        assert!(then.are_sound());
        for issued in 1..=count {
            // What is forgotten by now counts as forgotten then: it does not run twice.
            let expected = match issued {
                ..=10 => TaskSeen::Forgotten,
                11..=50 => outcomes.look_up(key(issued)),
                _ => TaskSeen::New,
            };
            assert_eq!(then.look_up(key(issued)), expected, "{issued}");
        }
        let moved = then.moved_to(at(1_000));
        assert!(moved.iter().all(|kept| kept.commit == at(1_000)));
        assert_eq!(moved.look_up(key(10)), TaskSeen::Forgotten);
        assert_eq!((moved.at(at(999)), moved.at(at(1_000)).map(|at| at.len())), (None, Some(40)));
    }

    #[test]
    fn an_outcome_that_stands_is_not_replaced_and_not_undone_by_another_commit() {
        let mut outcomes = Outcomes::default();
        outcomes.told(key(1), at(1), answer(1));
        outcomes.told(key(1), at(2), answer(2));
        outcomes.undo(key(1), at(2));
        assert!(matches!(outcomes.look_up(key(1)), TaskSeen::Ended(kept) if kept.commit == at(1)));
        outcomes.undo(key(1), at(1));
        assert!(is_new(&outcomes, 1));
    }

    #[test]
    fn what_no_sound_peer_says_is_not_sound() {
        let kept = |issued, bytes| Kept { key: key(issued), commit: at(1), answer: answer(bytes) };
        let sound = |kept: Vec<Kept>, forgotten| {
            Outcomes { kept, forgotten: Micros(forgotten), ..Outcomes::default() }.are_sound()
        };
        assert!(sound(vec![kept(1, 1), kept(2, 1)], 0));
        assert!(!sound(vec![kept(2, 1), kept(1, 1)], 0), "out of order");
        assert!(!sound(vec![kept(1, 1), kept(1, 1)], 0), "twice");
        assert!(!sound(vec![kept(1, TASK_ANSWER_BYTES_MAX + 1)], 0));
        assert!(!sound((0..=OUTCOMES_UNTOLD_MAX as u64).map(|issued| kept(issued, 0)).collect(), 0));
        assert!(!sound(Vec::new(), u64::MAX), "nothing could ever run there again");
        let sound = |makers: Vec<Maker>| Outcomes { makers, ..Outcomes::default() }.are_sound();
        let maker = |number, oldest, forgotten| Maker { number, oldest: Micros(oldest), forgotten: Micros(forgotten) };
        assert!(sound(vec![maker(1, 1, 1), maker(2, 1, 1)]));
        assert!(!sound(vec![maker(2, 1, 1), maker(1, 1, 1)]), "out of order");
        assert!(!sound(vec![maker(1, u64::MAX, 1)]));
        assert!(!sound(vec![maker(1, 1, u64::MAX)]));
        assert!(!sound((0..=OUTCOME_MAKERS_MAX as u64).map(|number| maker(number, 1, 1)).collect()));
        let forgotten_of_others = Micros(u64::MAX);
        assert!(!Outcomes { forgotten_of_others, ..Outcomes::default() }.are_sound());
    }
}
