//! The life of a group's state, as an input chooses it: sound entries and wild ones, what becomes stable, what is undone,
//! what is pruned, and copies that are made meanwhile.
//!
//! The reference is always a fold of the journal from its first entry, without undo, copies and pruning. It refuses to look
//! into a state otherwise than a peer does.

use crate::choices::Choices;
use crate::imagine::Draws;
use driftmesh_model::limits::GRANT_WINDOW;
use driftmesh_model::{
    Epoch, GroupId, Incarnation, Lsn, Micros, ObjectId, PeerId, TaskId, TaskKey, Term, Timestamp, Value, codec,
};
use driftmesh_object_store::{
    Arrival, CatchUp, Departure, Entry, GrantSeen, Imported, MemberId, Membership, Outcomes, Progress, Schedule,
    ScheduleChange, ScheduleStep, Slice, State, TaskOutcome, Version, Work, Write,
};
use std::collections::BTreeSet;

/// Most steps of one life: each may have to be replayed.
const STEPS_MAX: usize = 300;
/// Most comparisons with a replay in the middle of a life.
const REPLAYS_MAX: usize = 6;
const OBJECTS: usize = 12;
const GROUPS: usize = 3;

fn object(choices: &mut Choices<'_>) -> ObjectId {
    ObjectId::from_u128(choices.below(OBJECTS) as u128 + 1)
}

fn group(choices: &mut Choices<'_>) -> GroupId {
    GroupId::from_u128(choices.below(GROUPS) as u128 + 100)
}

fn value(choices: &mut Choices<'_>) -> Option<Value> {
    match choices.below(8) {
        0 => None,
        1 => Some(Value::from_slice(&[choices.byte(); 300])),
        _ => Some(Value::from_slice(&[choices.byte()])),
    }
}

fn at(time: u64) -> Timestamp {
    Timestamp::from_u64(time)
}

fn lsn(entries: usize) -> Lsn {
    Lsn::from_u64(entries as u64)
}

/// A fold of a journal and nothing else.
pub(crate) fn replay(entries: &[Entry]) -> State {
    let mut state = State::new();
    for (index, entry) in entries.iter().enumerate() {
        state.check(entry).expect("what was applied fits a replay too");
        state.apply_stable(lsn(index + 1), entry);
    }
    state
}

/// A group's state in the hands of an input.
pub(crate) struct Life {
    pub(crate) state: State,
    /// All entries that are applied.
    pub(crate) journal: Vec<Entry>,
    stable: usize,
    /// Climbs by one a step.
    time: u64,
    replays: usize,
    /// What the copy must hold that is being made, and its slices so far.
    copy: Option<(State, Vec<Slice>)>,
    /// A member that began with a copy, and applies what is stable.
    follower: Option<State>,
}

impl Life {
    pub(crate) fn new() -> Self {
        let (state, journal) = (State::new(), Vec::new());
        let mut life = Self { state, journal, stable: 0, time: 100, replays: 0, copy: None, follower: None };
        life.append(Entry::TermStart { term: Term::from_u64(1) });
        life
    }

    /// Lives as long as the choices last.
    pub(crate) fn live(&mut self, choices: &mut Choices<'_>) {
        for _ in 0..STEPS_MAX {
            if choices.is_over() {
                break;
            }
            self.step(choices);
            is_sound(&self.state);
            for (to, number, _) in self.state.all_unsettled() {
                let window = number - self.state.unsettled_from(to);
                assert!(window < GRANT_WINDOW, "R24: no more are unsettled than can be remembered");
            }
        }
    }

    /// Appends an entry if it fits.
    pub(crate) fn append(&mut self, entry: Entry) {
        if self.state.check(&entry).is_ok() {
            self.state.apply(lsn(self.journal.len() + 1), &entry);
            self.journal.push(entry);
        }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        self.time += 1;
        match choices.below(32) {
            0..18 => {
                if let Some(entry) = self.sound_entry(choices) {
                    let fits = self.state.check(&entry);
                    // Wild entries may have left no room for schedules.
                    let may_not = matches!(&entry, Entry::Commit { schedules, .. } if !schedules.is_empty());
                    assert!(fits.is_ok() || may_not, "{entry:?} does not fit: {fits:?}");
                    self.append(entry);
                }
            }
            18..22 => {
                let entry = self.wild_entry(choices);
                self.append(entry);
            }
            22 => {
                if let Ok(entry) = Draws::new(choices.some_bytes().to_vec()).imagine() {
                    self.append(entry);
                }
            }
            23 | 24 => self.become_stable(choices),
            25 | 26 => self.undo(choices),
            27 => {
                let below = self.time * choices.below(121) as u64 / 100;
                self.state.set_prune_below(at(below), usize::from(choices.byte()) * 64);
                self.state.prune(16);
            }
            28 => match choices.below(2) {
                0 => self.state.prune_object(object(choices), at(self.time / 2), 80),
                _ => {
                    let (to, number) = (group(choices), choices.number());
                    self.state.prune_in_transit(to, number, usize::from(choices.byte()));
                }
            },
            29 => {
                assert_eq!(self.state.begin_copy(), Some(lsn(self.journal.len())));
                self.copy = Some((replay(&self.journal), Vec::new()));
            }
            _ => {
                let bytes = choices.number();
                self.take_slice(usize::try_from(bytes).unwrap_or(usize::MAX));
            }
        }
    }

    fn become_stable(&mut self, choices: &mut Choices<'_>) {
        let (from, unstable) = (self.stable, self.journal.len() - self.stable);
        self.stable += choices.below(unstable + 1);
        self.state.stable(lsn(self.stable));
        self.follow(from);
    }

    fn undo(&mut self, choices: &mut Choices<'_>) {
        let unstable = self.journal.len() - self.stable;
        for _ in 0..choices.below(unstable + 1) {
            self.undo_last();
        }
        if self.replays < REPLAYS_MAX {
            self.replays += 1;
            self.is_a_replay();
        }
    }

    fn undo_last(&mut self) {
        if let Some(entry) = self.journal.pop() {
            self.state.undo(lsn(self.journal.len() + 1), &entry);
        }
    }

    /// The state is that of a member which never saw what was undone.
    pub(crate) fn is_a_replay(&self) {
        let reference = replay(&self.journal);
        is_sound(&reference);
        self.state.same_content(&reference).expect("what was undone was never there");
    }

    /// Back to what is stable, as a deposed leader does.
    pub(crate) fn roll_back(&mut self) {
        while self.journal.len() > self.stable {
            self.undo_last();
        }
    }

    /// Takes the rest of a copy that is under way.
    pub(crate) fn finish_copy(&mut self) {
        while self.copy.is_some() {
            self.take_slice(500);
        }
    }

    fn take_slice(&mut self, bytes: usize) {
        let Some((reference, slices)) = &mut self.copy else {
            assert!(self.state.copy_slice(bytes).is_none(), "a slice of no copy");
            return;
        };
        let slice = self.state.copy_slice(bytes).expect("a copy goes on to its last slice");
        let is_last = slice.is_last();
        slices.push(codec::decode(&codec::encode(&slice).expect("encodes")).expect("decodes"));
        assert_eq!(slices.last(), Some(&slice));
        if is_last {
            let copied = State::from_slices(std::mem::take(slices)).expect("a copy of a sound state is taken in");
            is_sound(&copied);
            copied.same_content(reference).expect("a copy is the state where it began");
            self.copy = None;
            self.adopt(copied);
        }
    }

    /// A member goes on with a copy, if all that is in it is or becomes stable.
    fn adopt(&mut self, copied: State) {
        let held = usize::try_from(copied.applied().as_u64()).unwrap_or(usize::MAX);
        if held <= self.stable && copied.same_content(&replay(&self.journal[..held])).is_ok() {
            self.follower = Some(copied);
            self.follow(held);
        }
    }

    /// The follower applies what became stable, and is what the leader was there.
    fn follow(&mut self, from: usize) {
        let Some(follower) = &mut self.follower else { return };
        for (index, entry) in self.journal[..self.stable].iter().enumerate().skip(from) {
            follower.check(entry).expect("what fits the leader fits its follower");
            follower.apply_stable(lsn(index + 1), entry);
        }
        is_sound(follower);
        if self.stable == self.journal.len() {
            follower.same_content(&self.state).expect("a follower is what its leader was");
        }
    }

    /// The entry that is wished for, if it can be.
    fn sound_entry(&self, choices: &mut Choices<'_>) -> Option<Entry> {
        match choices.below(16) {
            0..6 => Some(self.commit(choices)),
            6..9 => self.transfer_out(choices),
            9..11 => self.transfer_in(choices),
            11 => {
                let from = group(choices);
                let number = self.unanswered(from, choices.below(5));
                let unsettled_from = number.saturating_sub(choices.below(4) as u64);
                Some(Entry::Refused { from, number, unsettled_from })
            }
            12 => {
                let (to, _, _) = self.unsettled(choices)?;
                let mut numbers = BTreeSet::new();
                for _ in 0..=choices.below(4) {
                    numbers.extend(self.unsettled(choices).filter(|(its, ..)| *its == to).map(|(_, number, _)| number));
                }
                (!numbers.is_empty()).then(|| Entry::Handed { to, numbers: numbers.into_iter().collect() })
            }
            13 => {
                let (to, number, object) = self.unsettled(choices)?;
                self.state.owned(object).is_none().then_some(Entry::TakenBack { to, number })
            }
            14 => {
                let term = self.state.term();
                (term.as_u64() < u64::MAX).then(|| Entry::TermStart { term: term.next() })
            }
            _ => match choices.below(4) {
                0 => Some(Entry::Members(members(choices))),
                1 => self.imported(choices),
                _ => Some(Entry::Window { until: at(self.time + choices.number() % 1_000) }),
            },
        }
        .filter(|entry| self.may_be_sound(entry))
    }

    /// What no wish can know: that a wild entry has ended the group, or brought a time or an epoch far ahead.
    fn may_be_sound(&self, entry: &Entry) -> bool {
        let climbs = entry.newest_commit() > self.state.newest_commit();
        if entry.highest_timestamp() >= Timestamp::SOUND_MAX {
            return false;
        }
        match entry {
            Entry::Commit { .. } => climbs && !self.state.is_retired(),
            Entry::TransferIn { .. } => !self.state.is_retired(),
            Entry::TransferOut { floor, departures, .. } => departures.iter().all(|Departure { object, epoch }| {
                let newest = self.state.owned(*object).map(|stored| stored.chain.newest().commit);
                newest.is_some_and(|newest| newest <= *floor) && epoch.as_u64() < u64::MAX / 2
            }),
            Entry::TermStart { .. }
            | Entry::Handed { .. }
            | Entry::Refused { .. }
            | Entry::TakenBack { .. }
            | Entry::Window { .. }
            | Entry::Members(_)
            | Entry::Retired
            | Entry::Imported { .. } => true,
        }
    }

    fn commit(&self, choices: &mut Choices<'_>) -> Entry {
        let state = &self.state;
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..choices.below(4) {
            let object = object(choices);
            let may = state.owned(object).is_some() || state.in_transit(object).is_none();
            if may && writes.iter().all(|write| write.object != object) {
                writes.push(Write { object, value: value(choices) });
            }
        }
        let outcome = writes.first().filter(|_| choices.is_one_of(3)).map(|write| {
            let issued = Micros(self.time.saturating_sub(choices.below(40) as u64));
            let key = match choices.below(2) {
                0 => TaskKey::of_caller(issued, choices.below(4) as u64),
                _ => TaskKey::of_peer(issued, choices.below(4) as u64),
            };
            let oldest = Micros(issued.0.saturating_sub(choices.below(20) as u64));
            let answer = Value::from_slice(&vec![7; choices.below(200) * choices.below(80)]);
            Box::new(TaskOutcome { task: TaskId { anchor: write.object, key }, answer, oldest })
        });
        let mut schedules: Vec<ScheduleChange> = Vec::new();
        for _ in 0..choices.below(3) {
            let object = object(choices);
            if state.owned(object).is_some() || writes.iter().any(|write| write.object == object) {
                schedules.push(ScheduleChange { object, step: step_of_schedule(choices) });
            }
        }
        Entry::Commit { commit: at(self.time.max(state.newest_commit().as_u64() + 1)), writes, outcome, schedules }
    }

    fn transfer_out(&self, choices: &mut Choices<'_>) -> Option<Entry> {
        let to = group(choices);
        let mut departures: Vec<Departure> = Vec::new();
        for _ in 0..=choices.below(4) {
            let object = object(choices);
            let is_new = departures.iter().all(|departure| departure.object != object);
            let stored = self.state.owned(object).filter(|_| is_new);
            departures.extend(stored.map(|stored| Departure { object, epoch: stored.epoch.next() }));
        }
        let has_room = !departures.is_empty() && departures.len() <= self.state.grant_room(to);
        let first = self.state.next_grant(to).filter(|_| has_room)?;
        Some(Entry::TransferOut { to, first, floor: at(self.time), departures })
    }

    /// What objects kept elsewhere that keep nothing here.
    fn imported(&self, choices: &mut Choices<'_>) -> Option<Entry> {
        let mut kept: Vec<Imported> = Vec::new();
        for _ in 0..=choices.below(3) {
            let object = object(choices);
            let stored = self.state.owned(object);
            let is_blank = stored.is_some_and(|stored| stored.outcomes.as_ref().is_none_or(|kept| kept.is_blank()));
            if is_blank && kept.iter().all(|kept| kept.object != object) {
                let outcomes = arriving(choices, at(self.time)).moved_to(at(self.time));
                kept.push(Imported { object, outcomes: Box::new(outcomes) });
            }
        }
        (!kept.is_empty()).then_some(Entry::Imported { kept })
    }

    fn transfer_in(&self, choices: &mut Choices<'_>) -> Option<Entry> {
        let from = group(choices);
        let mut arrivals: Vec<Arrival> = Vec::new();
        for _ in 0..=choices.below(3) {
            let (object, number) = (object(choices), self.unanswered(from, choices.below(5)));
            let is_new = |arrival: &Arrival| arrival.object != object && arrival.number < number;
            if self.state.owned(object).is_none() && arrivals.iter().all(is_new) {
                arrivals.push(self.arrival(object, number, choices));
            }
        }
        let unsettled_from = arrivals.first()?.number.saturating_sub(choices.below(4) as u64);
        Some(Entry::TransferIn { from, unsettled_from, arrivals })
    }

    fn arrival(&self, object: ObjectId, number: u64, choices: &mut Choices<'_>) -> Arrival {
        let mut commits: Vec<u64> =
            (0..=choices.below(3)).map(|_| self.time.saturating_sub(choices.below(90) as u64 + 1)).collect();
        commits.sort_unstable();
        commits.dedup();
        let versions: Vec<Version> =
            commits.into_iter().map(|commit| Version { commit: at(commit), value: value(choices) }).collect();
        let low_water = versions[0].commit;
        let epoch = self.state.in_transit(object).map_or(Epoch::from_u64(2), |(_, transit)| transit.epoch);
        let epoch = if epoch.as_u64() < u64::MAX / 4 { epoch.next() } else { Epoch::from_u64(2) };
        let outcomes = choices.is_one_of(3).then(|| arriving(choices, at(self.time)));
        Arrival { object, epoch, number, versions, outcomes, low_water, floor: at(self.time) }
    }

    /// A number that the group has not answered; they are answered in any order.
    fn unanswered(&self, from: GroupId, ahead: usize) -> u64 {
        let is_new = |number: &u64| self.state.grant_seen(from, *number) == GrantSeen::New;
        let first =
            self.state.grants_received().find(|(group, _)| *group == from).map_or(0, |(_, log)| log.contiguous());
        (first + 1..first + GRANT_WINDOW).filter(is_new).nth(ahead).unwrap_or(first + 1)
    }

    fn unsettled(&self, choices: &mut Choices<'_>) -> Option<(GroupId, u64, ObjectId)> {
        let all: Vec<_> =
            self.state.all_unsettled().map(|(to, number, transit)| (to, number, transit.object)).collect();
        all.get(choices.below(all.len())).copied()
    }

    /// An entry as a faulty peer might make it.
    fn wild_entry(&self, choices: &mut Choices<'_>) -> Entry {
        let time = |choices: &mut Choices<'_>| match choices.below(3) {
            0 => at(self.time),
            1 => at(self.time.saturating_sub(choices.below(100) as u64)),
            _ => at(choices.number()),
        };
        match choices.below(11) {
            0 => Entry::TermStart { term: Term::from_u64(choices.number()) },
            1 | 2 => {
                let commit = time(choices);
                let Entry::Commit { mut writes, outcome, mut schedules, .. } = self.commit(choices) else {
                    return Entry::Retired;
                };
                writes.push(Write { object: object(choices), value: value(choices) });
                schedules.push(ScheduleChange { object: object(choices), step: wild_step(choices) });
                Entry::Commit { commit, writes, outcome, schedules }
            }
            3 | 4 => {
                let (to, first, floor) = (group(choices), choices.number(), time(choices));
                let one = |choices: &mut Choices<'_>| Departure {
                    object: object(choices),
                    epoch: Epoch::from_u64(choices.number()),
                };
                let departures = (0..choices.below(4)).map(|_| one(choices)).collect();
                Entry::TransferOut { to, first, floor, departures }
            }
            5 | 6 => {
                let (from, unsettled_from) = (group(choices), choices.number());
                let mut arrivals = Vec::new();
                for _ in 0..choices.below(4) {
                    let (object, number) = (object(choices), choices.number());
                    let mut arrival = self.arrival(object, number, choices);
                    arrival.epoch = Epoch::from_u64(choices.number());
                    (arrival.low_water, arrival.floor) = (time(choices), time(choices));
                    if choices.is_one_of(3) {
                        let mut draws = Draws::new(choices.some_bytes().to_vec());
                        arrival.outcomes = draws.imagine::<Outcomes>().ok().map(Box::new);
                    }
                    arrivals.push(arrival);
                }
                Entry::TransferIn { from, unsettled_from, arrivals }
            }
            7 => {
                let to = group(choices);
                Entry::Handed { to, numbers: (0..choices.below(4)).map(|_| choices.number()).collect() }
            }
            8 => {
                let (from, number, unsettled_from) = (group(choices), choices.number(), choices.number());
                Entry::Refused { from, number, unsettled_from }
            }
            9 => Entry::TakenBack { to: group(choices), number: choices.number() },
            _ => match choices.below(5) {
                0 => Entry::Retired,
                2 => {
                    let outcomes = Draws::new(choices.some_bytes().to_vec()).imagine().unwrap_or_default();
                    let kept = vec![Imported { object: object(choices), outcomes: Box::new(outcomes) }];
                    Entry::Imported { kept }
                }
                1 => Entry::Members(Membership::default()),
                _ => Entry::Window { until: time(choices) },
            },
        }
    }
}

fn members(choices: &mut Choices<'_>) -> Membership {
    let peer = PeerId::from_bytes([choices.byte(); 32]);
    Membership::alone(MemberId { peer, incarnation: Incarnation::from_u64(choices.number()) })
}

/// A change of one of three schedules that an object can have.
fn step_of_schedule(choices: &mut Choices<'_>) -> ScheduleStep {
    let number = choices.below(3) as u64;
    let panicked_at = (0..choices.below(3)).map(|at| PeerId::from_bytes([at as u8; 32])).collect();
    let progress = Progress { due: Micros(choices.below(50) as u64), ran: 0, failed: 0, panicked_at };
    match choices.below(4) {
        0 => ScheduleStep::Go { number, progress },
        1 => ScheduleStep::End { number },
        _ => {
            let body = Value::from_slice(&vec![1; choices.below(3) * 1_000]);
            let work = Work { name: "tick".to_owned(), version: 1, body };
            let (period, catch_up) = (None, CatchUp::Once);
            let after_stable = choices.is_one_of(2);
            ScheduleStep::Begin(Box::new(Schedule { number, work, period, catch_up, after_stable, progress }))
        }
    }
}

/// A change of a schedule that may break a bound.
fn wild_step(choices: &mut Choices<'_>) -> ScheduleStep {
    let step = step_of_schedule(choices);
    let ScheduleStep::Begin(mut schedule) = step else { return step };
    schedule.number = choices.number();
    schedule.period = choices.is_one_of(2).then(|| Micros(choices.number() << (choices.byte() % 40)));
    schedule.catch_up = CatchUp::Each { max: u32::from(choices.byte()) };
    schedule.progress.due = Micros(choices.number());
    ScheduleStep::Begin(schedule)
}

/// What an object keeps of tasks that arrives with a floor.
fn arriving(choices: &mut Choices<'_>, floor: Timestamp) -> Box<Outcomes> {
    let mut draws = Draws::new(choices.some_bytes().to_vec());
    let outcomes: Outcomes = draws.imagine().unwrap_or_default();
    let is_sound = outcomes.are_sound() && outcomes.last_scheduled() <= floor;
    Box::new(if is_sound { outcomes } else { Outcomes::default() })
}

/// What holds of every state.
pub(crate) fn is_sound(state: &State) {
    let mut superseded = 0;
    let (mut due, mut parked) = (BTreeSet::new(), BTreeSet::new());
    for (_, stored) in state.owned_from(0) {
        let chain = &stored.chain;
        superseded += stored.superseded_cost();
        let versions: Vec<Timestamp> = chain.versions().map(|version| version.commit).collect();
        assert!(versions.is_sorted_by(|left, right| left < right), "versions climb");
        assert!(versions[0] >= chain.low_water(), "R17: nothing lies below the mark");
        assert!(chain.newest().commit <= state.newest_commit(), "the newest commit is known");
        assert!(stored.changed <= state.applied(), "what is applied has changed it");
        assert!(state.owned(stored.object) == Some(stored), "it is found by its id");
        let kept = stored.outcomes.as_deref();
        assert!(kept.is_none_or(Outcomes::are_sound), "R21: bounds of what is kept of tasks: {kept:?}");
        for schedule in kept.iter().flat_map(|kept| kept.schedules().iter()) {
            if schedule.is_parked() {
                parked.insert((stored.object, schedule.number));
            } else {
                due.insert((schedule.progress.due, stored.object, schedule.number));
            }
        }
    }
    assert_eq!(state.superseded_cost(), superseded, "what is counted is what is there");
    assert_eq!(state.owned_count(), state.owned_from(0).count());
    assert!(state.due_after(None).eq(due.iter().copied()), "the index of schedules says what the objects say");
    assert!(state.parked_schedules().eq(parked.iter().copied()), "and so of those that are parked");
    assert_eq!(state.scheduled_count(), due.len());
    for (to, number, transit) in state.all_unsettled() {
        assert!(number > 0 && number <= state.last_grant_to(to), "R20: grants have numbers that were given");
        assert!(transit.chain.newest().commit <= state.newest_commit());
        let (_, last) = state.in_transit(transit.object).unwrap_or((to, transit));
        assert_eq!(last.object, transit.object, "R19: the index leads to its object");
    }
    for (from, log) in state.grants_received() {
        assert!(log.is_sound(), "R20: the log of group {from}");
    }
    assert!(state.term_table().is_sorted_by(|left, right| left.0 < right.0 && left.1 < right.1));
    assert!(state.window() <= state.highest() && state.newest_commit() <= state.highest());
}
