//! The version store against a list of all versions that ever were: whatever is committed, undone, pruned, sent away, brought
//! back and refused in whatever order, a snapshot sees the newest version at or below it, or is told that it is too old and
//! never something else (R16, R17); and it is too old only where pruning was allowed to make it so.
//!
//! `src/state/tests/random.rs` compares a state with a replay by the same code; this reference shares no code with it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use driftmesh_model::{Epoch, GroupId, Lsn, ObjectId, Term, Timestamp, Value};
use driftmesh_object_store::{Arrival, Chain, Departure, Entry, ReadAt, State, Version, Write};
use proptest::prelude::*;

const OBJECTS: u8 = 5;
/// Where objects go to, and come from.
const FAR: GroupId = GroupId::from_u128(9);

#[derive(Clone, Debug)]
enum Step {
    /// Objects, each with a value or a deletion.
    Commit(Vec<(u8, Option<u8>)>),
    Out(u8),
    /// What is on its way has arrived, or was refused.
    Settle(u8, bool),
    /// An object comes, with so many of its newest versions, of which some were committed elsewhere.
    In(u8, usize, Vec<u8>),
    /// So much of what is not stable becomes stable, in percent.
    Stable(u8),
    /// So much of what is not stable is undone, in percent.
    Undo(u8),
    /// The horizon, in percent of the time so far, and the budget in bytes if there is one.
    Horizon(u8, Option<u16>),
    Prune(usize),
    /// The same of one object.
    PruneObject(u8, u8, Option<u16>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let object = || 0..OBJECTS;
    let write = move || (object(), proptest::option::weighted(0.9, any::<u8>()));
    let step = prop_oneof![
        10 => prop::collection::vec(write(), 1..4).prop_map(Step::Commit),
        2 => object().prop_map(Step::Out),
        2 => (object(), any::<bool>()).prop_map(|(object, arrived)| Step::Settle(object, arrived)),
        2 => (object(), 1..6_usize, prop::collection::vec(any::<u8>(), 0..3))
            .prop_map(|(object, versions, far)| Step::In(object, versions, far)),
        3 => (0..=100_u8).prop_map(Step::Stable),
        2 => (0..=100_u8).prop_map(Step::Undo),
        2 => (0..=100_u8, proptest::option::of(0..600_u16)).prop_map(|(below, budget)| Step::Horizon(below, budget)),
        2 => (1..12_usize).prop_map(Step::Prune),
        1 => (object(), 0..=100_u8, proptest::option::of(0..300_u16))
            .prop_map(|(object, below, budget)| Step::PruneObject(object, below, budget)),
    ];
    prop::collection::vec(step, 1..150)
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    Nowhere,
    Here,
    /// On its way, by the grant of this number; it left at this time.
    OnTheWay(u64, Timestamp),
    Away,
}

/// All of one object that ever was.
#[derive(Clone, Debug)]
struct Truth {
    place: Place,
    epoch: Epoch,
    /// Oldest first; nothing ever goes.
    versions: Vec<Version>,
    /// What came with it from elsewhere answers nothing below this.
    arrived_with: Timestamp,
}

impl Truth {
    fn at(&self, snapshot: Timestamp) -> Option<&Version> {
        self.versions.iter().rev().find(|version| version.commit <= snapshot)
    }
}

/// What is so as of an entry.
#[derive(Clone, Debug)]
struct Model {
    objects: Vec<Truth>,
    answered: u64,
}

struct Run {
    state: State,
    journal: Vec<Entry>,
    /// What was so before each entry of the journal.
    formers: Vec<Model>,
    model: Model,
    stable: usize,
    time: u64,
    /// The horizon that pruning was ever given, and whether it ever had a budget.
    horizon: Timestamp,
    had_budget: bool,
}

fn object(number: u8) -> ObjectId {
    ObjectId::from_u128(u128::from(number) + 1)
}

fn at(time: u64) -> Timestamp {
    Timestamp::from_u64(time)
}

fn value(byte: u8) -> Value {
    Value::from_slice(&vec![byte; usize::from(byte) / 4])
}

impl Run {
    fn new() -> Self {
        let truth =
            Truth { place: Place::Nowhere, epoch: Epoch::ZERO, versions: Vec::new(), arrived_with: Timestamp::ZERO };
        let model = Model { objects: vec![truth; usize::from(OBJECTS)], answered: 0 };
        let mut run = Self {
            state: State::new(),
            journal: Vec::new(),
            formers: Vec::new(),
            model: model.clone(),
            stable: 0,
            time: 10,
            horizon: Timestamp::ZERO,
            had_budget: false,
        };
        run.append(Entry::TermStart { term: Term::from_u64(1) }, model);
        run
    }

    fn append(&mut self, entry: Entry, model: Model) {
        self.state.check(&entry).unwrap();
        self.journal.push(entry.clone());
        self.state.apply(Lsn::from_u64(self.journal.len() as u64), &entry);
        self.formers.push(std::mem::replace(&mut self.model, model));
    }

    fn commit(&mut self, wished: &[(u8, Option<u8>)]) {
        let (mut model, commit) = (self.model.clone(), at(self.time));
        let mut writes: Vec<Write> = Vec::new();
        for (number, byte) in wished {
            let truth = &mut model.objects[usize::from(*number)];
            let twice = writes.iter().any(|write| write.object == object(*number));
            if twice || !matches!(truth.place, Place::Nowhere | Place::Here) {
                continue;
            }
            if truth.place == Place::Nowhere {
                (truth.place, truth.epoch) = (Place::Here, Epoch::from_u64(1));
            }
            let version = Version { commit, value: byte.map(value) };
            writes.push(Write { object: object(*number), value: version.value.clone() });
            truth.versions.push(version);
        }
        self.append(Entry::Commit { commit, writes, outcome: None, schedules: Vec::new() }, model);
    }

    fn send(&mut self, number: u8) {
        let mut model = self.model.clone();
        let truth = &mut model.objects[usize::from(number)];
        let Some(grant) = self.state.next_grant(FAR).filter(|_| truth.place == Place::Here) else { return };
        let floor = at(self.time);
        truth.epoch = truth.epoch.next();
        truth.place = Place::OnTheWay(grant, floor);
        let departures = vec![Departure { object: object(number), epoch: truth.epoch }];
        let entry = Entry::TransferOut { to: FAR, first: grant, floor, departures };
        self.append(entry, model);
    }

    fn settle(&mut self, number: u8, has_arrived: bool) {
        let mut model = self.model.clone();
        let truth = &mut model.objects[usize::from(number)];
        let Place::OnTheWay(grant, _) = truth.place else { return };
        let entry = if has_arrived {
            truth.place = Place::Away;
            Entry::Handed { to: FAR, numbers: vec![grant] }
        } else {
            // R19: one epoch above the refused one.
            (truth.place, truth.epoch) = (Place::Here, truth.epoch.next());
            Entry::TakenBack { to: FAR, number: grant }
        };
        self.append(entry, model);
    }

    fn bring(&mut self, number: u8, most: usize, far: &[u8]) {
        let mut model = self.model.clone();
        let truth = &mut model.objects[usize::from(number)];
        if !matches!(truth.place, Place::Nowhere | Place::Away) {
            return;
        }
        for byte in far {
            self.time += 1;
            truth.versions.push(Version { commit: at(self.time), value: Some(value(*byte)) });
        }
        self.time += 1;
        let dropped = truth.versions.len().saturating_sub(most);
        let versions = truth.versions[dropped..].to_vec();
        let Some(first) = versions.first() else { return };
        let low_water = if dropped == 0 { Timestamp::ZERO } else { first.commit };
        truth.epoch = truth.epoch.next().next();
        truth.place = Place::Here;
        truth.arrived_with = low_water;
        model.answered += 1;
        let arrival = Arrival {
            object: object(number),
            epoch: truth.epoch,
            number: model.answered,
            versions,
            outcomes: None,
            low_water,
            floor: at(self.time),
        };
        let unsettled_from = model.answered;
        self.append(Entry::TransferIn { from: FAR, unsettled_from, arrivals: vec![arrival] }, model);
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.time += 1;
        let unstable = self.journal.len() - self.stable;
        let part = |percent: u8| unstable * usize::from(percent) / 100;
        match step {
            Step::Commit(wished) => self.commit(wished),
            Step::Out(number) => self.send(*number),
            Step::Settle(number, arrived) => self.settle(*number, *arrived),
            Step::In(number, most, far) => self.bring(*number, *most, far),
            Step::Stable(percent) => {
                self.stable += part(*percent);
                self.state.stable(Lsn::from_u64(self.stable as u64));
            }
            Step::Undo(percent) => {
                for _ in 0..part(*percent) {
                    let entry = self.journal.pop().unwrap();
                    self.state.undo(Lsn::from_u64(self.journal.len() as u64 + 1), &entry);
                    self.model = self.formers.pop().unwrap();
                }
            }
            Step::Horizon(percent, budget) => {
                let below = at(self.time * u64::from(*percent) / 100);
                self.horizon = self.horizon.max(below);
                self.had_budget |= budget.is_some();
                self.state.set_prune_below(below, budget.map_or(usize::MAX, usize::from));
            }
            Step::Prune(steps) => self.state.prune(*steps),
            Step::PruneObject(number, percent, budget) => {
                let below = at(self.time * u64::from(*percent) / 100);
                self.horizon = self.horizon.max(below);
                self.had_budget |= budget.is_some();
                self.state.prune_object(object(*number), below, budget.map_or(usize::MAX, usize::from));
            }
        }
        self.looks_like_the_model()
    }

    /// What pruning may have taken ends here: what was superseded later must still be there.
    fn pruned_below(&self) -> Timestamp {
        let stable = self.journal[..self.stable].iter().map(Entry::newest_commit).max().unwrap_or(Timestamp::ZERO);
        // R17: without a budget only what is below the horizon goes; with one, nothing that an undo may need.
        if self.had_budget { stable } else { self.horizon.min(stable) }
    }

    fn looks_like_the_model(&self) -> Result<(), TestCaseError> {
        let mut owned = 0;
        for (number, truth) in (0..).zip(&self.model.objects) {
            let stored = self.state.owned(object(number));
            let transit = self.state.in_transit(object(number));
            match truth.place {
                Place::Nowhere | Place::Away => prop_assert!(stored.is_none() && transit.is_none()),
                Place::Here => {
                    owned += 1;
                    let stored = stored.filter(|_| transit.is_none());
                    let stored = stored.ok_or_else(|| TestCaseError::fail("it is here"))?;
                    prop_assert_eq!(stored.epoch, truth.epoch);
                    self.chain_tells_the_truth(&stored.chain, truth, at(self.time + 1))?;
                }
                Place::OnTheWay(_, floor) => {
                    let transit = transit.filter(|_| stored.is_none());
                    let (to, transit) = transit.ok_or_else(|| TestCaseError::fail("it is on its way"))?;
                    prop_assert_eq!((to, transit.epoch, transit.floor), (FAR, truth.epoch, floor));
                    self.chain_tells_the_truth(&transit.chain, truth, floor)?;
                }
            }
        }
        prop_assert_eq!(self.state.owned_count(), owned);
        Ok(())
    }

    fn chain_tells_the_truth(&self, chain: &Chain, truth: &Truth, until: Timestamp) -> Result<(), TestCaseError> {
        let kept_from = truth.arrived_with.max(self.pruned_below());
        let edges = truth.versions.iter().flat_map(|version| {
            let commit = version.commit.as_u64();
            [at(commit - 1), at(commit)]
        });
        for snapshot in edges.chain([Timestamp::ZERO, kept_from, until]).filter(|snapshot| *snapshot <= until) {
            match chain.read_at(snapshot) {
                ReadAt::Version(version) => prop_assert_eq!(Some(version), truth.at(snapshot)),
                ReadAt::NotYetCreated => prop_assert_eq!(None, truth.at(snapshot)),
                ReadAt::TooOld(mark) => {
                    prop_assert!(snapshot < mark && mark == chain.low_water());
                    prop_assert!(snapshot < kept_from, "{:?} is too old, and {:?} is kept", snapshot, kept_from);
                }
            }
        }
        let cost: usize = chain.versions().map(Version::cost).sum();
        prop_assert_eq!(cost - chain.newest().cost(), chain.superseded_cost());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_sees_the_truth_or_is_too_old(steps in steps()) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step)?;
        }
    }

    #[test]
    fn what_a_chain_gives_away_tells_the_same(
        commits in prop::collection::btree_set(1..60_u64, 1..12),
        budget in 0..900_usize,
        horizon in 0..60_u64,
        most in 0..12_usize,
    ) {
        let versions: Vec<Version> =
            commits.iter().map(|commit| Version { commit: at(*commit), value: Some(value(*commit as u8)) }).collect();
        let mut chain = Chain::from_versions(versions.clone(), Timestamp::ZERO).unwrap();
        chain.prune(at(horizon), most);
        let (part, mark) = chain.newest_within(budget);
        let older: usize = part.iter().rev().skip(1).map(Version::cost).sum();
        prop_assert!(older <= budget && mark >= chain.low_water());
        let part = Chain::from_versions(part, mark).unwrap();
        for snapshot in (0..61).map(at) {
            let truth = versions.iter().rev().find(|version| version.commit <= snapshot);
            for read in [chain.read_at(snapshot), part.read_at(snapshot)] {
                match read {
                    ReadAt::Version(version) => prop_assert_eq!(Some(version), truth),
                    ReadAt::NotYetCreated => prop_assert_eq!(None, truth),
                    ReadAt::TooOld(_) => {}
                }
            }
            // Nobody needs what was superseded at or before the horizon, and everything else is there.
            let is_too_old = matches!(chain.read_at(snapshot), ReadAt::TooOld(_));
            prop_assert!(!is_too_old || snapshot < at(horizon));
        }
    }
}
