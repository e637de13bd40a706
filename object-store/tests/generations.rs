//! A group that is founded anew from what one member holds (R11, R22): members of the former generation count for nothing
//! until they have what the new one has, whatever they hold as stable.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use driftmesh_model::{Generation, GroupId, Incarnation, Lsn, Micros, ObjectId, PeerId, Term, Timestamp, Value};
use driftmesh_object_store::{
    CannotChange, Closed, Entry, Fate, Group, GroupMessage, MemberId, Membership, Promises, Settings, Write,
};

fn member(number: usize) -> MemberId {
    let number = u8::try_from(number).unwrap();
    MemberId { peer: PeerId::from_bytes([number; 32]), incarnation: Incarnation::from_u64(u64::from(number) + 1) }
}

/// Members of one group, and which of them can reach nobody.
struct World {
    groups: Vec<Group>,
    cut_off: Vec<usize>,
    now: u64,
    commits: u64,
}

impl World {
    /// A group of three voters.
    fn new() -> Self {
        let settings = Settings { keep_bytes: u64::MAX, ..Settings::default() };
        let id = GroupId::from_u128(1);
        let mut groups = vec![Group::found(id, member(0), settings, 1, Micros(0))];
        groups.extend((1..3).map(|number| {
            Group::join(id, member(number), settings, 1 + number as u64, Micros(0), Promises::default())
        }));
        let mut world = Self { groups, cut_off: Vec::new(), now: 0, commits: 0 };
        // Who has just been added does not count yet.
        let learners = (1..3).map(|number| (member(number), false)).collect();
        world.propose(0, Membership { learners, ..Membership::alone(member(0)) });
        let voters = (0..3).map(member).collect();
        world.propose(0, Membership { voters, ..Membership::default() });
        world
    }

    fn propose(&mut self, at: usize, membership: Membership) {
        self.groups[at].propose(Micros(self.now), membership).unwrap();
        self.run(300);
    }

    /// Lets time pass, a millisecond at a time.
    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += 1_000;
            let now = Micros(self.now);
            for at in 0..self.groups.len() {
                if self.groups[at].next_tick().is_some_and(|next| next <= now) {
                    self.groups[at].tick(now);
                }
                for (to, message) in self.groups[at].take_messages(now, true) {
                    self.deliver(at, to, message);
                }
            }
        }
    }

    fn deliver(&mut self, from: usize, to: MemberId, message: GroupMessage) {
        let to = usize::from(to.peer.as_bytes()[0]);
        if !self.cut_off.contains(&from) && !self.cut_off.contains(&to) {
            self.groups[to].received(Micros(self.now), member(from), message);
        }
    }

    /// Writes an object; returns where that stands.
    fn write(&mut self, at: usize, object: u128) -> (Term, Lsn) {
        self.commits += 1;
        let writes = vec![Write { object: ObjectId::from_u128(object), value: Some(Value::from_slice(b"value")) }];
        let commit = Timestamp::from_wall(Micros(self.commits));
        let lsn = self.groups[at]
            .append(Micros(self.now), Entry::Commit { commit, writes, outcome: None, schedules: Vec::new() });
        (self.groups[at].term(), lsn)
    }

    fn owns(&self, at: usize, object: u128) -> bool {
        self.groups[at].owned(ObjectId::from_u128(object)).is_some()
    }

    fn assert_same(&self, one: usize, other: usize) {
        assert_eq!(self.groups[one].watermark(), self.groups[other].watermark());
        self.groups[one].same_content(&self.groups[other]).unwrap();
    }

    /// The first two go on without the third; then that is all that is left, and goes on by itself.
    fn with_one_that_lags() -> (Self, (Term, Lsn), (Term, Lsn)) {
        let mut world = Self::new();
        let kept = world.write(0, 1);
        world.run(100);
        world.cut_off = vec![2];
        let beyond = (2..40).map(|object| world.write(0, object)).last().unwrap();
        world.run(100);
        assert_eq!(world.groups[0].fate(beyond.0, beyond.1), Fate::Stable);
        world.cut_off = vec![0, 1];
        world.run(1_000);
        let now = Micros(world.now);
        world.groups[2].refound(now, Generation::from_u64(1), Membership::alone(member(2)));
        (world, kept, beyond)
    }
}

#[test]
fn what_the_member_holds_counts_at_once_and_the_next_generation_outranks() {
    let (mut world, kept, beyond) = World::with_one_that_lags();
    let group = &world.groups[2];
    assert!(group.is_leading() && group.generation().as_u64() == 1 && group.watermark() == group.tail());
    assert_eq!((group.fate(kept.0, kept.1), group.fate(beyond.0, beyond.1)), (Fate::Stable, Fate::Lost));
    assert!(world.owns(2, 1) && !world.owns(2, 5));
    let after = world.write(2, 100);
    assert_eq!(world.groups[2].fate(after.0, after.1), Fate::Stable);
    // No leader of a former generation can have had its term.
    assert!(after.0.as_u64() >= 1 << 32);
}

#[test]
fn members_that_held_more_as_stable_begin_with_nothing_and_follow() {
    for more in [0, 3, 80] {
        let (mut world, kept, beyond) = World::with_one_that_lags();
        for object in 100..100 + more {
            world.write(2, object);
        }
        // They meet again as members before they have heard of anything.
        let learners = (0..2).map(|number| (member(number), false)).collect();
        world.cut_off = Vec::new();
        world.propose(2, Membership { learners, ..Membership::alone(member(2)) });
        world.run(1_000);
        for at in 0..2 {
            world.assert_same(at, 2);
            assert!(!world.groups[at].is_leading() && !world.owns(at, 5) && world.owns(at, 1));
            assert_eq!(world.groups[at].fate(beyond.0, beyond.1), Fate::Lost);
            assert_eq!(world.groups[at].fate(kept.0, kept.1), Fate::Stable);
        }
    }
}

#[test]
fn a_member_that_held_less_keeps_what_it_has() {
    let mut world = World::new();
    world.write(0, 1);
    world.run(100);
    // One misses the last entries, the other has them, and is all that counts.
    world.cut_off = vec![1];
    world.write(0, 2);
    world.run(100);
    world.cut_off = vec![0];
    let membership = Membership { learners: [(member(1), true)].into(), ..Membership::alone(member(2)) };
    let now = Micros(world.now);
    world.groups[2].refound(now, Generation::from_u64(1), membership);
    let watermark = world.groups[1].watermark();
    for _ in 0..100 {
        world.run(1);
        assert!(world.groups[1].watermark() >= watermark, "it was emptied");
    }
    assert_eq!(world.groups[1].generation().as_u64(), 1);
    world.assert_same(1, 2);
    assert!(world.owns(1, 2));
}

#[test]
fn the_former_majority_does_not_elect_anybody_in_the_new_generation() {
    let (mut world, _, _) = World::with_one_that_lags();
    world.cut_off = Vec::new();
    // Both hear of it, then are alone with each other.
    world.run(2_000);
    world.cut_off = vec![2];
    for _ in 0..1_000 {
        world.run(10);
        assert!(!world.groups[0].is_leading() && !world.groups[1].is_leading());
    }
}

#[test]
fn a_generation_that_is_no_news_or_the_last_that_there_is_ends_no_lead() {
    let (mut world, _, _) = World::with_one_that_lags();
    let (now, group) = (Micros(world.now), &mut world.groups[2]);
    // R25: after the last one nobody could found the group anew.
    for generation in [Generation::ZERO, Generation::from_u64(1), Generation::END, Generation::from_u64(u64::MAX)] {
        group.supersede(now, generation);
        assert!(group.is_leading() && group.generation().as_u64() == 1, "{generation:?}");
    }
    group.supersede(now, Generation::from_u64(2));
    assert!(!group.is_leading());
}

#[test]
fn a_change_after_which_nobody_votes_is_refused() {
    let mut world = World::new();
    let learners = (0..3).map(|number| (member(number), true)).collect();
    let nobody = Membership { learners, ..Membership::default() };
    let (now, tail) = (Micros(world.now), world.groups[0].tail());
    assert_eq!(world.groups[0].propose(now, nobody), Err(CannotChange::NoVoters));
    assert_eq!(world.groups[0].tail(), tail, "R11: it is not journalled");
}

#[test]
fn what_a_former_generation_has_closed_does_not_count_in_the_next_one() {
    let mut world = World::new();
    world.write(0, 1);
    world.run(100);
    let closes = |world: &mut World, leader: usize, millis: u64| {
        let group = &world.groups[leader];
        let (at, lsn) = (Timestamp::from_wall(Micros::from_millis(millis)), group.tail());
        let closed =
            Closed { generation: group.generation(), term: group.term(), watermark: group.watermark(), at, lsn };
        world.groups[1].received(Micros(world.now), member(leader), GroupMessage::Closed(closed));
        at
    };
    let early = closes(&mut world, 0, 9_000);
    assert_eq!(world.groups[1].closed(), early);
    world.cut_off = vec![0, 1];
    let now = Micros(world.now);
    world.groups[2].refound(now, Generation::from_u64(1), Membership::alone(member(2)));
    let learners = (0..2).map(|number| (member(number), false)).collect();
    world.cut_off = Vec::new();
    world.propose(2, Membership { learners, ..Membership::alone(member(2)) });
    world.run(1_000);
    world.assert_same(1, 2);
    // R16: the new one began from less, and commits below what the former one had promised.
    assert_eq!(world.groups[1].closed(), Timestamp::ZERO);
    let next = closes(&mut world, 2, 5_000);
    assert_eq!(world.groups[1].closed(), next);
}
