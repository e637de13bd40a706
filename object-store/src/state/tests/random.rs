//! Random journals against a group's state: what is undone was never there, a copy is the state at the entry at which it
//! began, whatever happens meanwhile, and both go on like everybody else.
//!
//! The reference is always a fold of the journal from its first entry, without undo, copies and pruning.

use crate::{
    Arrival, CatchUp, Departure, Entry, GrantSeen, Imported, MemberId, Membership, Outcomes, Progress, ReadAt,
    Schedule, ScheduleChange, ScheduleStep, Schedules, Slice, State, TaskOutcome, Version, Work, Write,
};
use driftmesh_model::{
    Epoch, GroupId, Incarnation, Lsn, Micros, ObjectId, PeerId, TaskId, TaskKey, Term, Timestamp, Value, codec,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// One thing that happens to a group's state.
#[derive(Clone, Debug)]
enum Step {
    /// An entry, made sound by looking at the state.
    Append(Wish),
    /// So much of what is not stable becomes stable, in percent.
    Stable(u8),
    /// So much of what is not stable is undone, in percent.
    Undo(u8),
    /// Old versions go: the horizon in percent of the time so far, and the budget.
    Prune(u8, u16),
    PruneObject(u8),
    BeginCopy,
    /// A slice of so many bytes is taken.
    CopySlice(u16),
}

#[derive(Clone, Debug)]
enum Wish {
    Commit(Vec<(u8, Option<u8>)>),
    TransferOut(Vec<u8>, u8),
    /// Objects, each with how far beyond the next number and when its versions were committed, back from now; a sender.
    TransferIn(Vec<(u8, u8, Vec<u8>)>, u8),
    Refused(u8, u8),
    Handed(Vec<u8>),
    TakenBack(u8),
    TermStart,
    Window(u16),
    Members,
    Imported(Vec<u8>),
}

const OBJECTS: u8 = 24;
const GROUPS: u8 = 3;

fn object(number: u8) -> ObjectId {
    ObjectId::from_u128(u128::from(number % OBJECTS) + 1)
}

fn group(number: u8) -> GroupId {
    GroupId::from_u128(u128::from(number % GROUPS) + 100)
}

fn value(number: u8) -> Value {
    Value::from_slice(&[number; 16])
}

/// A change of one of three schedules that an object can have.
fn change(object: ObjectId, seed: u64) -> ScheduleChange {
    let number = seed % 3;
    let panicked_at = (0..seed % 4 / 2 * 2).map(|at| PeerId::from_bytes([u8::try_from(at).unwrap(); 32])).collect();
    let progress = Progress { due: Micros(seed % 50), ran: seed, failed: 0, panicked_at };
    let work = Work { name: "tick".to_owned(), version: 1, body: value(1) };
    let catch_up = CatchUp::Once;
    let step = match seed % 5 {
        0..3 => ScheduleStep::Begin(Box::new(Schedule {
            number,
            work,
            period: None,
            catch_up,
            after_stable: seed.is_multiple_of(2),
            progress,
        })),
        3 => ScheduleStep::Go { number, progress },
        _ => ScheduleStep::End { number },
    };
    ScheduleChange { object, step }
}

/// What an object keeps of tasks that arrives with some schedules, or with nothing.
fn arriving(object: ObjectId, seed: u64) -> Option<Box<Outcomes>> {
    let mut outcomes = Outcomes::default();
    for more in 0..seed % 4 {
        outcomes.change_schedules(at(seed - 4 + more), [change(object, seed + more).step]);
    }
    (!seed.is_multiple_of(4)).then(|| Box::new(outcomes))
}

fn wishes() -> impl Strategy<Value = Wish> {
    let write = (any::<u8>(), proptest::option::weighted(0.9, any::<u8>()));
    let times = proptest::collection::vec(1..40_u8, 1..4);
    let few = || proptest::collection::vec(any::<u8>(), 1..4);
    prop_oneof![
        8 => proptest::collection::vec(write, 1..4).prop_map(Wish::Commit),
        4 => (few(), any::<u8>()).prop_map(|(objects, to)| Wish::TransferOut(objects, to)),
        4 => (proptest::collection::vec((any::<u8>(), 0..5_u8, times), 1..4), any::<u8>())
            .prop_map(|(objects, from)| Wish::TransferIn(objects, from)),
        1 => (any::<u8>(), 0..5_u8).prop_map(|(from, ahead)| Wish::Refused(from, ahead)),
        2 => few().prop_map(Wish::Handed),
        2 => any::<u8>().prop_map(Wish::TakenBack),
        1 => Just(Wish::TermStart),
        1 => any::<u16>().prop_map(Wish::Window),
        1 => Just(Wish::Members),
        1 => few().prop_map(Wish::Imported),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => wishes().prop_map(Step::Append),
        2 => (0..=100_u8).prop_map(Step::Stable),
        2 => (0..=100_u8).prop_map(Step::Undo),
        2 => (0..=120_u8, any::<u16>()).prop_map(|(below, budget)| Step::Prune(below, budget)),
        1 => any::<u8>().prop_map(Step::PruneObject),
        1 => Just(Step::BeginCopy),
        6 => (1..600_u16).prop_map(Step::CopySlice),
    ];
    proptest::collection::vec(step, 1..200)
}

/// A member whose state is put to the test.
struct Run {
    state: State,
    /// All entries that are applied.
    journal: Vec<Entry>,
    /// The schedules of the owned objects after each of them.
    scheduled: Vec<BTreeMap<ObjectId, Schedules>>,
    stable: usize,
    /// Climbs by one a step.
    time: u64,
    copy: Option<(State, Vec<Slice>)>,
    /// A member that began with a copy; it applies what is stable.
    follower: Option<State>,
    finished_copies: usize,
    undone: usize,
}

fn at(time: u64) -> Timestamp {
    Timestamp::from_u64(time)
}

fn lsn(entries: usize) -> Lsn {
    Lsn::from_u64(entries as u64)
}

fn replay(entries: &[Entry]) -> State {
    let mut state = State::new();
    for (index, entry) in entries.iter().enumerate() {
        state.check(entry).unwrap();
        state.apply_stable(lsn(index + 1), entry);
    }
    state
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            state: State::new(),
            journal: Vec::new(),
            scheduled: Vec::new(),
            stable: 0,
            time: 100,
            copy: None,
            follower: None,
            finished_copies: 0,
            undone: 0,
        };
        run.append(Entry::TermStart { term: Term::from_u64(1) });
        run
    }

    fn append(&mut self, entry: Entry) {
        self.state.check(&entry).unwrap();
        self.state.apply(lsn(self.journal.len() + 1), &entry);
        self.journal.push(entry);
        let of = |object: ObjectId| (object, self.state.schedules(object).cloned().unwrap_or_default());
        self.scheduled.push(self.state.owned_from(0).map(|(_, stored)| of(stored.object)).collect());
    }

    fn undo(&mut self) {
        let entry = self.journal.pop().unwrap();
        self.scheduled.pop();
        self.state.undo(lsn(self.journal.len() + 1), &entry);
    }

    /// Where an object left by a grant.
    fn departure(&self, object: ObjectId, group: GroupId, number: u64) -> Option<usize> {
        let left = |entry: &Entry| {
            let Entry::TransferOut { to, first, departures, .. } = entry else { return false };
            *to == group && departures.iter().zip(*first..).any(|(left, at)| (left.object, at) == (object, number))
        };
        self.journal.iter().rposition(left)
    }

    /// What a snapshot sees of schedules is what the last commit before it had left, or unknown.
    fn the_past_is_known(&self) -> Result<(), TestCaseError> {
        for (_, stored) in self.state.owned_from(0) {
            let (object, Some(kept)) = (stored.object, &stored.outcomes) else { continue };
            let present = kept.at(at(self.time)).ok_or_else(|| TestCaseError::fail("the present is unknown"))?;
            prop_assert_eq!(present.schedules(), kept.schedules());
            let mut index = self.journal.len();
            while let Some(before) = index.checked_sub(1) {
                index = before;
                match &self.journal[index] {
                    // What it was elsewhere, or before.
                    Entry::TransferIn { arrivals, .. } if arrivals.iter().any(|arrival| arrival.object == object) => {
                        break;
                    }
                    Entry::Imported { kept } if kept.iter().any(|kept| kept.object == object) => break,
                    // It is what it was when it left by this grant, whatever came and went meanwhile.
                    Entry::TakenBack { to, number } => index = self.departure(object, *to, *number).unwrap_or(index),
                    Entry::Commit { commit, .. } => {
                        let is_there = matches!(stored.chain.read_at(*commit), ReadAt::Version(_));
                        let Some(scheduled) = self.scheduled[index].get(&object).filter(|_| is_there) else { continue };
                        let Some(then) = kept.at(*commit) else { break };
                        prop_assert_eq!(then.schedules(), scheduled, "of {} at {}", object, commit);
                    }
                    Entry::TermStart { .. }
                    | Entry::TransferOut { .. }
                    | Entry::TransferIn { .. }
                    | Entry::Handed { .. }
                    | Entry::Refused { .. }
                    | Entry::Window { .. }
                    | Entry::Members(_)
                    | Entry::Retired
                    | Entry::Imported { .. } => {}
                }
            }
        }
        Ok(())
    }

    /// The entry that is wished for, if it can be.
    fn entry(&self, wish: &Wish) -> Option<Entry> {
        let state = &self.state;
        let unsettled = |number: u8| {
            let all: Vec<_> = state.all_unsettled().map(|(to, number, grant)| (to, number, grant.object)).collect();
            all.get(usize::from(number) % all.len().max(1)).copied()
        };
        // Numbers are answered in any order.
        let number = |from: GroupId, ahead: u8| {
            (1..).filter(|number| state.grant_seen(from, *number) == GrantSeen::New).nth(usize::from(ahead)).unwrap()
        };
        Some(match wish {
            Wish::Commit(wished) => {
                let mut writes: Vec<Write> = Vec::new();
                for (number, byte) in wished {
                    let object = object(*number);
                    let may = state.owned(object).is_some() || state.in_transit(object).is_none();
                    if may && writes.iter().all(|write| write.object != object) {
                        writes.push(Write { object, value: byte.map(value) });
                    }
                }
                let (issued, before) = (Micros(self.time), Micros(self.time.saturating_sub(self.time % 7)));
                let (key, oldest) = match self.time % 3 {
                    0 => (TaskKey::of_caller(issued, 1), Micros(0)),
                    number => (TaskKey::of_peer(issued, number), before),
                };
                let of = |write: &Write| TaskId { anchor: write.object, key };
                let task = writes.first().map(of).filter(|_| self.time.is_multiple_of(2));
                let outcome = task.map(|task| Box::new(TaskOutcome { task, answer: value(1), oldest }));
                // Of objects that are written, and of others.
                let may = |object: &ObjectId| {
                    state.owned(*object).is_some() || writes.iter().any(|write| write.object == *object)
                };
                let changed =
                    wished.iter().map(|(number, _)| object(number.wrapping_add(u8::from(self.time.is_multiple_of(3)))));
                let changed = changed.filter(may).filter(|_| self.time % 4 != 1).zip(self.time * 7..);
                let schedules = changed.map(|(object, seed)| change(object, seed)).collect();
                Entry::Commit { commit: at(self.time), writes, outcome, schedules }
            }
            Wish::TransferOut(numbers, to) => {
                let to = group(*to);
                let mut departures: Vec<Departure> = Vec::new();
                for object in numbers.iter().map(|number| object(*number)) {
                    let is_new = departures.iter().all(|departure| departure.object != object);
                    let stored = state.owned(object).filter(|_| is_new);
                    departures.extend(stored.map(|stored| Departure { object, epoch: stored.epoch.next() }));
                }
                let first = state.next_grant(to).filter(|_| !departures.is_empty())?;
                Entry::TransferOut { to, first, floor: at(self.time), departures }
            }
            Wish::TransferIn(wished, from) => {
                let from = group(*from);
                let mut arrivals: Vec<Arrival> = Vec::new();
                for (wished, ahead, times) in wished {
                    let number = number(from, *ahead);
                    let is_new = |arrival: &Arrival| arrival.object != object(*wished) && arrival.number < number;
                    if state.owned(object(*wished)).is_none() && arrivals.iter().all(is_new) {
                        arrivals.push(self.arrival(*wished, number, times));
                    }
                }
                let unsettled_from = arrivals.first()?.number.saturating_sub(3);
                Entry::TransferIn { from, unsettled_from, arrivals }
            }
            Wish::Refused(from, ahead) => {
                let (from, number) = (group(*from), number(group(*from), *ahead));
                Entry::Refused { from, number, unsettled_from: number.saturating_sub(2) }
            }
            Wish::Handed(wished) => {
                let (to, _, _) = unsettled(wished[0])?;
                let grants = wished.iter().filter_map(|number| unsettled(*number)).filter(|(its, ..)| *its == to);
                let numbers: BTreeSet<u64> = grants.map(|(_, number, _)| number).collect();
                Entry::Handed { to, numbers: numbers.into_iter().collect() }
            }
            Wish::TakenBack(number) => {
                let (to, number, object) = unsettled(*number)?;
                state.owned(object).is_none().then_some(Entry::TakenBack { to, number })?
            }
            Wish::TermStart => Entry::TermStart { term: state.term().next() },
            Wish::Window(ahead) => Entry::Window { until: at(self.time + u64::from(*ahead)) },
            Wish::Members => {
                let me = MemberId { peer: PeerId::from_bytes([1; 32]), incarnation: Incarnation::from_u64(self.time) };
                Entry::Members(Membership::alone(me))
            }
            Wish::Imported(numbers) => {
                let objects: BTreeSet<ObjectId> = numbers.iter().map(|number| object(*number)).collect();
                let is_blank = |object: &ObjectId| {
                    let stored = state.owned(*object);
                    stored.is_some_and(|stored| stored.outcomes.as_ref().is_none_or(|kept| kept.is_blank()))
                };
                let kept = |object: ObjectId| {
                    let outcomes = arriving(object, self.time)?;
                    Some(Imported { object, outcomes: Box::new(outcomes.moved_to(at(self.time))) })
                };
                let kept: Vec<_> = objects.into_iter().filter(is_blank).filter_map(kept).collect();
                (!kept.is_empty()).then_some(Entry::Imported { kept })?
            }
        })
    }

    fn arrival(&self, wished: u8, number: u64, times: &[u8]) -> Arrival {
        let object = object(wished);
        let mut commits: Vec<_> = times.iter().map(|back| self.time - u64::from(*back)).collect();
        commits.sort_unstable();
        commits.dedup();
        let version = |commit: &u64| Version { commit: at(*commit), value: Some(value(wished)) };
        let versions: Vec<_> = commits.iter().map(version).collect();
        let (low_water, floor) = (versions[0].commit, at(self.time));
        let epoch = self.state.in_transit(object).map_or(Epoch::from_u64(2), |(_, transit)| transit.epoch.next());
        Arrival { object, epoch, number, versions, outcomes: arriving(object, self.time), low_water, floor }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.time += 1;
        let unstable = self.journal.len() - self.stable;
        let part = |percent: u8| unstable * usize::from(percent) / 100;
        match step {
            Step::Append(wish) => {
                if let Some(entry) = self.entry(wish) {
                    self.append_as_foretold(entry)?;
                }
            }
            Step::Stable(percent) => {
                let from = self.stable;
                self.stable += part(*percent);
                self.state.stable(lsn(self.stable));
                self.follow(from)?;
            }
            Step::Undo(percent) => {
                for _ in 0..part(*percent) {
                    self.undo();
                    self.undone += 1;
                }
                self.is_a_replay()?;
                self.the_past_is_known()?;
            }
            Step::Prune(below, budget) => {
                let below = self.time * u64::from(*below) / 100;
                self.state.set_prune_below(at(below), usize::from(*budget));
                self.the_past_is_known()?;
                self.state.prune(16);
                self.the_past_is_known()?;
            }
            Step::PruneObject(number) => self.state.prune_object(object(*number), at(self.time / 2), 80),
            Step::BeginCopy => {
                prop_assert_eq!(self.state.begin_copy(), Some(lsn(self.journal.len())));
                self.copy = Some((replay(&self.journal), Vec::new()));
            }
            Step::CopySlice(bytes) => self.take_slice(usize::from(*bytes))?,
        }
        self.costs_add_up()
    }

    /// A commit grows the state as it was said to before.
    fn append_as_foretold(&mut self, entry: Entry) -> Result<(), TestCaseError> {
        let before = self.state.held();
        let growth = if let Entry::Commit { writes, schedules, .. } = &entry {
            Some(self.state.growth(writes, schedules))
        } else {
            None
        };
        self.append(entry);
        if let Some(growth) = growth {
            prop_assert_eq!(before + growth.taken - growth.freed, self.state.held());
        }
        Ok(())
    }

    /// The state is that of a member which never saw what was undone.
    fn is_a_replay(&self) -> Result<(), TestCaseError> {
        self.state.same_content(&replay(&self.journal)).map_err(TestCaseError::fail)
    }

    fn take_slice(&mut self, bytes: usize) -> Result<(), TestCaseError> {
        let Some((reference, slices)) = &mut self.copy else {
            prop_assert!(self.state.copy_slice(bytes).is_none());
            return Ok(());
        };
        let slice = self.state.copy_slice(bytes).ok_or_else(|| TestCaseError::fail("a copy ended early"))?;
        let is_last = slice.is_last();
        slices.push(codec::decode(&codec::encode(&slice).unwrap()).unwrap());
        if is_last {
            prop_assert!(self.state.copy_slice(bytes).is_none());
            let copied =
                State::from_slices(std::mem::take(slices)).map_err(|bad| TestCaseError::fail(bad.to_string()))?;
            copied.same_content(reference).map_err(TestCaseError::fail)?;
            self.finished_copies += 1;
            self.copy = None;
            self.adopt(copied)?;
        }
        Ok(())
    }

    /// A member goes on with a copy, if all that is in it is or becomes stable.
    fn adopt(&mut self, copied: State) -> Result<(), TestCaseError> {
        let held = usize::try_from(copied.applied().as_u64()).unwrap();
        if held <= self.stable && copied.same_content(&replay(&self.journal[..held])).is_ok() {
            self.follower = Some(copied);
            self.follow(held)?;
            self.lead_for_a_while()?;
        }
        Ok(())
    }

    /// The follower applies what became stable, and is what the leader was there.
    fn follow(&mut self, from: usize) -> Result<(), TestCaseError> {
        let Some(follower) = &mut self.follower else { return Ok(()) };
        for (index, entry) in self.journal[..self.stable].iter().enumerate().skip(from) {
            follower.check(entry).map_err(|bad| TestCaseError::fail(bad.to_string()))?;
            follower.apply_stable(lsn(index + 1), entry);
        }
        follower.same_content(&replay(&self.journal[..self.stable])).map_err(TestCaseError::fail)
    }

    /// The follower acts on entries that are not stable, and goes back, as a leader does that is deposed.
    fn lead_for_a_while(&mut self) -> Result<(), TestCaseError> {
        let Some(follower) = &mut self.follower else { return Ok(()) };
        let ahead: Vec<_> = self.journal.iter().enumerate().skip(self.stable).collect();
        for (index, entry) in &ahead {
            follower.apply(lsn(index + 1), entry);
        }
        follower.same_content(&self.state).map_err(TestCaseError::fail)?;
        for (index, entry) in ahead.iter().rev() {
            follower.undo(lsn(index + 1), entry);
        }
        follower.same_content(&replay(&self.journal[..self.stable])).map_err(TestCaseError::fail)
    }

    fn costs_add_up(&self) -> Result<(), TestCaseError> {
        let cost: usize = self.state.owned_from(0).map(|(_, stored)| stored.superseded_cost()).sum();
        prop_assert_eq!(cost, self.state.superseded_cost());
        prop_assert_eq!(self.state.held_by_a_walk(), self.state.held());
        prop_assert_eq!(self.state.owned_from(0).count(), self.state.owned_count());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 768, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_state_is_a_fold_of_its_journal_whatever_was_undone_copied_and_pruned(steps in steps()) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step)?;
        }
        run.is_a_replay()?;
        run.the_past_is_known()?;
        while run.copy.is_some() {
            run.take_slice(100)?;
        }
        // Back to what is stable, as a deposed leader does.
        while run.journal.len() > run.stable {
            run.undo();
        }
        run.is_a_replay()?;
    }

    #[test]
    fn what_passes_the_check_can_be_applied_and_undone(steps in steps(), wild in proptest::collection::vec(wild_entries(), 1..60)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step)?;
        }
        for entry in &wild {
            if run.state.check(entry).is_ok() {
                run.append(entry.clone());
            }
        }
        run.state.same_content(&replay(&run.journal)).map_err(TestCaseError::fail)?;
        while run.journal.len() > run.stable {
            run.undo();
        }
        run.is_a_replay()?;
    }

    #[test]
    fn damaged_slices_are_an_error_or_a_state_that_can_be_used(
        steps in steps(),
        damage in proptest::collection::vec((any::<usize>(), any::<usize>(), any::<u8>()), 1..4),
        wild in proptest::collection::vec(wild_entries(), 1..20),
    ) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step)?;
        }
        run.state.begin_copy();
        let mut slices: Vec<_> =
            std::iter::from_fn(|| run.state.copy_slice(300)).map(|slice| codec::encode(&slice).unwrap()).collect();
        for (which, place, byte) in &damage {
            let count = slices.len();
            let slice = &mut slices[which % count];
            let length = slice.len();
            slice[place % length] = *byte;
        }
        let Ok(slices) = slices.iter().map(|slice| codec::decode(slice)).collect::<Result<Vec<Slice>, _>>() else {
            return Ok(());
        };
        let Ok(mut state) = State::from_slices(slices) else { return Ok(()) };
        let mut applied = Vec::new();
        for entry in &wild {
            if state.check(entry).is_ok() {
                let lsn = state.applied().next();
                state.apply(lsn, entry);
                applied.push((lsn, entry));
            }
        }
        for (lsn, entry) in applied.into_iter().rev() {
            state.undo(lsn, entry);
        }
    }
}

/// Entries as a faulty peer might make them.
fn wild_entries() -> impl Strategy<Value = Entry> {
    let number = || prop_oneof![8 => 0..8_u64, 1 => Just(u64::MAX), 1 => any::<u64>()];
    let time = move || prop_oneof![6 => 0..600_u64, 1 => number()].prop_map(at);
    let objects = || any::<u8>().prop_map(object);
    let groups = || any::<u8>().prop_map(group);
    let epoch = move || number().prop_map(Epoch::from_u64);
    let writes = proptest::collection::vec(objects().prop_map(|object| Write { object, value: None }), 0..4);
    let versions = proptest::collection::vec(time().prop_map(|commit| Version { commit, value: None }), 0..3);
    let task = move |(anchor, issued, number)| TaskId { anchor, key: TaskKey { issued: Micros(issued), number } };
    let task = (objects(), number(), number()).prop_map(task);
    let outcome = (task, number())
        .prop_map(|(task, oldest)| Box::new(TaskOutcome { task, answer: value(1), oldest: Micros(oldest) }));
    let outcome = proptest::option::of(outcome);
    let schedules =
        proptest::collection::vec((objects(), any::<u64>()).prop_map(|(object, seed)| change(object, seed)), 0..3);
    let departure = (objects(), epoch()).prop_map(|(object, epoch)| Departure { object, epoch });
    let arrival = (objects(), epoch(), number(), versions, time(), time()).prop_map(
        |(object, epoch, number, versions, low_water, floor)| Arrival {
            object,
            epoch,
            number,
            versions,
            outcomes: None,
            low_water,
            floor,
        },
    );
    prop_oneof![
        number().prop_map(|term| Entry::TermStart { term: Term::from_u64(term) }),
        (time(), writes, outcome, schedules).prop_map(|(commit, writes, outcome, schedules)| Entry::Commit {
            commit,
            writes,
            outcome,
            schedules
        }),
        (groups(), number(), time(), proptest::collection::vec(departure, 0..4))
            .prop_map(|(to, first, floor, departures)| Entry::TransferOut { to, first, floor, departures }),
        (groups(), number(), proptest::collection::vec(arrival, 0..4))
            .prop_map(|(from, unsettled_from, arrivals)| Entry::TransferIn { from, unsettled_from, arrivals }),
        (groups(), proptest::collection::vec(number(), 0..4)).prop_map(|(to, numbers)| Entry::Handed { to, numbers }),
        (groups(), number(), number()).prop_map(|(from, number, unsettled_from)| Entry::Refused {
            from,
            number,
            unsettled_from
        }),
        (groups(), number()).prop_map(|(to, number)| Entry::TakenBack { to, number }),
        time().prop_map(|until| Entry::Window { until }),
        Just(Entry::Retired),
        proptest::collection::vec((objects(), 4..600_u64), 0..3).prop_map(|all| {
            let one = |(object, seed): (ObjectId, u64)| Imported {
                object,
                outcomes: arriving(object, seed).unwrap_or_default(),
            };
            Entry::Imported { kept: all.into_iter().map(one).collect() }
        }),
    ]
}
