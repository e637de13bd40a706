//! The search for one object that moves while it is looked for: what answers say may be old when it comes, some never comes,
//! peers forget, and are out of reach for a while. While the object exists it is never called absent; once nothing moves and
//! nothing is lost, the search ends, and truly (R4).

use crate::{cases, group, object, peer};
use driftmesh_directory::{Answer, Holds, Lookup, Next, Reachable, Record, Source};
use driftmesh_model::{Epoch, GroupId, PeerId};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// The first one asks.
const PEERS: u8 = 4;
/// Steps without faults within which every search must end.
const QUIET_STEPS_MAX: usize = 400;

#[derive(Clone, Debug)]
enum Step {
    /// A question arrives, and is answered.
    Handle(usize),
    /// An answer arrives.
    Deliver(usize),
    LoseQuestion(usize),
    LoseAnswer(usize),
    /// An answer comes twice.
    Double(usize),
    /// The object leaves for another peer, arrives there, and its sender is told.
    Depart(u8),
    Arrive,
    Settle,
    /// Nothing came for a while.
    Timeout,
    /// A peer forgets what it knew of the object.
    Forget(u8),
    /// A peer hears where the object is, or was.
    Hear(u8, u8),
    OutOfReach(u8),
    InReach,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = any::<usize>;
    let step = prop_oneof![
        12 => number().prop_map(Step::Handle),
        12 => number().prop_map(Step::Deliver),
        1 => number().prop_map(Step::LoseQuestion),
        1 => number().prop_map(Step::LoseAnswer),
        4 => number().prop_map(Step::Double),
        3 => (0..PEERS).prop_map(Step::Depart),
        3 => Just(Step::Arrive),
        3 => Just(Step::Settle),
        2 => Just(Step::Timeout),
        2 => (0..PEERS).prop_map(Step::Forget),
        1 => (0..PEERS, 0..PEERS).prop_map(|(who, from)| Step::Hear(who, from)),
        1 => (1..PEERS).prop_map(Step::OutOfReach),
        3 => Just(Step::InReach),
    ];
    prop::collection::vec(step, 1..120)
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    /// It was deleted long ago, and its tombstone is gone; or it never was.
    Nowhere,
    At(u8),
    /// It left the first for the second.
    OnTheWay(u8, u8),
    /// It has arrived at the second, and the first does not know.
    Arrived(u8, u8),
}

#[derive(Clone, Copy, Debug)]
struct Question {
    to: u8,
    /// The group it was sent to, if the object itself was asked for.
    group: Option<GroupId>,
    round: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Found,
    NotFound,
}

struct World {
    place: Place,
    epoch: u64,
    moves: [u64; PEERS as usize],
    /// The best record that each peer knows.
    known: [Option<Record>; PEERS as usize],
    out_of_reach: Option<u8>,
    homes: BTreeSet<u8>,
    lookup: Lookup,
    questions: Vec<Question>,
    answers: Vec<(Answer, Option<GroupId>)>,
    end: Option<End>,
    /// The search waits for its timer.
    pauses: bool,
}

impl World {
    fn new(exists: bool, at: u8, knows: Option<u8>, homes: BTreeSet<u8>) -> Self {
        let place = match at {
            _ if !exists => Place::Nowhere,
            // What was here has just left.
            0 => Place::OnTheWay(0, 1),
            _ => Place::At(at),
        };
        let mut known = [None; PEERS as usize];
        let first = Record { object: object(0), group: group(at.max(1)), epoch: Epoch::from_u64(1) };
        if exists {
            known[usize::from(at)] = Some(first);
        }
        // An old hint, or one about an object that is no more.
        let hint = knows.map(|knows| (Source::Hint, Record { group: group(knows), epoch: Epoch::ZERO, ..first }));
        let mut world = Self {
            place,
            epoch: 1,
            moves: [0; PEERS as usize],
            known,
            out_of_reach: None,
            homes,
            lookup: Lookup::new(object(0), hint, 1),
            questions: Vec::new(),
            answers: Vec::new(),
            end: None,
            pauses: false,
        };
        let reachable = world.reachable();
        let next = world.lookup.begin(&reachable);
        world.obey(next);
        world
    }

    fn holds(&self, who: u8) -> Holds {
        match self.place {
            Place::At(at) if at == who => Holds::Owns,
            Place::Arrived(_, to) if to == who => Holds::Owns,
            Place::OnTheWay(from, _) | Place::Arrived(from, _) if from == who => Holds::Sending,
            Place::Nowhere | Place::At(_) | Place::OnTheWay(..) | Place::Arrived(..) => Holds::No,
        }
    }

    fn reachable(&self) -> Reachable {
        let reached = |who: &u8| *who != 0 && self.out_of_reach != Some(*who);
        Reachable {
            homes: self.homes.iter().copied().filter(reached).map(peer).collect(),
            everyone: (0..PEERS).filter(reached).map(peer).collect(),
            someone_missing: self.out_of_reach.is_some(),
            groups_digest: 0,
            held_here: self.holds(0) != Holds::No,
            moves_here: self.moves[0],
        }
    }

    fn number_of(who: PeerId) -> u8 {
        (0..PEERS).find(|number| peer(*number) == who).unwrap()
    }

    fn obey(&mut self, next: Next) {
        self.pauses = false;
        match next {
            Next::Ask(of) => {
                let to = (0..PEERS).find(|number| group(*number) == of).unwrap();
                if to == 0 || self.out_of_reach == Some(to) {
                    let reachable = self.reachable();
                    let next = self.lookup.cannot_ask(&reachable);
                    assert!(!matches!(next, Next::Ask(_)), "it asks somebody else, or nobody");
                    self.obey(next);
                } else {
                    self.questions.push(Question { to, group: Some(of), round: 0 });
                }
            }
            Next::Locate(all) => {
                let round = self.lookup.round();
                self.questions.extend(all.into_iter().map(|who| Question {
                    to: Self::number_of(who),
                    group: None,
                    round,
                }));
            }
            Next::Wait => {}
            Next::Pause => self.pauses = true,
            Next::NotFound => self.end = Some(End::NotFound),
        }
    }

    /// A peer answers as of now.
    fn handle(&mut self, at: usize) {
        if self.questions.is_empty() {
            return;
        }
        let Question { to, group: asked, round } = self.questions.remove(at % self.questions.len());
        let holds = self.holds(to);
        if asked.is_some() && holds == Holds::Owns {
            self.end = Some(End::Found);
            return;
        }
        let (record, moves) = (self.known[usize::from(to)], self.moves[usize::from(to)]);
        self.answers.push((Answer { peer: peer(to), holds, record, moves, round, groups_digest: 0 }, asked));
    }

    fn deliver(&mut self, at: usize) {
        if self.answers.is_empty() {
            return;
        }
        let (answer, asked) = self.answers.remove(at % self.answers.len());
        let reachable = self.reachable();
        let next = self.lookup.told(answer, asked, reachable.groups_digest);
        let next = next.unwrap_or_else(|| self.lookup.go_on(&reachable));
        // An answer that changes nothing ends no pause.
        let paused = self.pauses && next == Next::Wait;
        self.obey(next);
        self.pauses |= paused;
    }

    fn timeout(&mut self) {
        let reachable = self.reachable();
        let next = self.lookup.timed_out(&reachable);
        self.obey(next);
    }

    fn record_at(&self, who: u8) -> Record {
        Record { object: object(0), group: group(who), epoch: Epoch::from_u64(self.epoch) }
    }

    fn hear(&mut self, who: u8, record: Record) {
        let known = &mut self.known[usize::from(who)];
        if known.is_none_or(|known| record.outranks(&known)) {
            *known = Some(record);
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Handle(at) => self.handle(at),
            Step::Deliver(at) => self.deliver(at),
            Step::LoseQuestion(at) => {
                if !self.questions.is_empty() {
                    self.questions.remove(at % self.questions.len());
                }
            }
            Step::LoseAnswer(at) => {
                if !self.answers.is_empty() {
                    self.answers.remove(at % self.answers.len());
                }
            }
            Step::Double(at) => {
                if !self.answers.is_empty() {
                    self.answers.push(self.answers[at % self.answers.len()]);
                }
            }
            Step::Depart(to) => {
                if let Place::At(from) = self.place
                    && from != to
                {
                    self.epoch += 1;
                    self.place = Place::OnTheWay(from, to);
                    self.hear(from, self.record_at(to));
                }
            }
            Step::Arrive => {
                if let Place::OnTheWay(from, to) = self.place {
                    self.place = Place::Arrived(from, to);
                    self.moves[usize::from(to)] += 1;
                    self.hear(to, self.record_at(to));
                    if to == 0 {
                        // The search is over when the object comes to who looks for it.
                        self.end = Some(End::Found);
                    }
                }
            }
            Step::Settle => {
                if let Place::Arrived(from, to) = self.place {
                    self.place = Place::At(to);
                    self.moves[usize::from(from)] += 1;
                }
            }
            Step::Timeout => self.timeout(),
            // Who has it, or sends it, knows.
            Step::Forget(who) if self.holds(who) == Holds::No => self.known[usize::from(who)] = None,
            Step::Forget(_) => {}
            Step::Hear(who, from) => {
                if let Some(record) = self.known[usize::from(from)] {
                    self.hear(who, record);
                    if who == 0
                        && let Some(next) = self.lookup.learn(record)
                    {
                        self.obey(next);
                    }
                }
            }
            Step::OutOfReach(who) => {
                self.out_of_reach = Some(who);
                self.questions.retain(|question| question.to != who);
            }
            Step::InReach => self.out_of_reach = None,
        }
    }

    /// Nothing moves and nothing is lost any more.
    fn goes_on_in_peace(&mut self) -> usize {
        self.out_of_reach = None;
        self.step(&Step::Arrive);
        self.step(&Step::Settle);
        for number in 0..QUIET_STEPS_MAX {
            if self.end.is_some() {
                return number;
            }
            if !self.answers.is_empty() {
                self.deliver(0);
            } else if !self.questions.is_empty() {
                self.handle(0);
            } else {
                self.timeout();
            }
        }
        QUIET_STEPS_MAX
    }
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn what_exists_is_found_and_never_called_absent(
        exists in proptest::bool::weighted(0.8),
        at in 0..PEERS,
        knows in proptest::option::of(0..PEERS),
        homes in prop::collection::btree_set(0..PEERS, 0..4),
        steps in steps(),
    ) {
        let mut world = World::new(exists, at, knows, homes);
        for step in &steps {
            if world.end.is_some() {
                break;
            }
            world.step(step);
            prop_assert!(!exists || world.end != Some(End::NotFound), "it is at {:?}", world.place);
        }
        let took = world.goes_on_in_peace();
        let expected = if exists { End::Found } else { End::NotFound };
        prop_assert_eq!(world.end, Some(expected), "after {} quiet steps: {:?}", took, world.lookup);
    }
}
