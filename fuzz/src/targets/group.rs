//! Members of a group that say things to each other: delivered, lost, doubled, late, damaged, and made up.
//!
//! No message makes a member panic, and its state stays sound (R25). As long as none was damaged or made up, members that
//! have applied the same stable entries hold the same (R7).

use super::life::is_sound;
use crate::choices::Choices;
use crate::imagine::Draws;
use driftmesh_model::{Generation, GroupId, Incarnation, Micros, ObjectId, PeerId, Timestamp, Value, codec};
use driftmesh_object_store::{Departure, Entry, Group, GroupMessage, MemberId, Membership, Promises, Settings, Write};

const MEMBERS: usize = 3;
/// Most steps of one run.
const STEPS_MAX: usize = 400;
/// Most messages that are under way.
const UNDER_WAY_MAX: usize = 64;

/// A member, as the messages name it.
fn member(number: usize) -> MemberId {
    MemberId { peer: PeerId::from_bytes([number as u8; 32]), incarnation: Incarnation::from_u64(number as u64 + 1) }
}

/// The members, and what is on its way between them.
struct World {
    groups: Vec<Group>,
    now: Micros,
    commit: u64,
    /// From, to, and what.
    under_way: Vec<(usize, usize, GroupMessage)>,
    /// Whether everything that was said was meant.
    honest: bool,
}

impl World {
    fn new(choices: &mut Choices<'_>) -> Self {
        let settings = Settings {
            // So that members soon lack too much, and get copies.
            keep_bytes: [0, 500, 1 << 20][choices.below(3)],
            lag_bytes: [0, 2_000, 64 << 20][choices.below(3)],
            batch_bytes: [100, 32 << 10][choices.below(2)],
            ..Settings::default()
        };
        let (id, now) = (GroupId::from_u128(1), Micros(1_000_000));
        let first = Group::found(id, member(0), settings, 1, now);
        let others = (1..MEMBERS)
            .map(|number| Group::join(id, member(number), settings, number as u64 + 1, now, Promises::default()));
        let groups = std::iter::once(first).chain(others).collect();
        Self { groups, now, commit: 1, under_way: Vec::new(), honest: true }
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let at = choices.below(MEMBERS);
        match choices.below(16) {
            0..4 => self.append(at, choices),
            4 | 5 => {
                self.now = self.now.plus(Micros(u64::from(choices.byte()) * [10, 1_000, 5_000][choices.below(3)]));
                let now = self.now;
                self.groups[at].tick(now);
                self.collect(at, choices.is_one_of(2));
            }
            6..11 => self.deliver(choices),
            11 => {
                let membership = membership(choices);
                let now = self.now;
                // Not every change can be proposed.
                let _ = self.groups[at].propose(now, membership);
                self.collect(at, true);
            }
            12 => {
                if !self.under_way.is_empty() {
                    let which = choices.below(self.under_way.len());
                    drop(self.under_way.swap_remove(which));
                }
            }
            13 => {
                let (from, now) = (choices.below(MEMBERS), self.now);
                self.groups[at].member_is_gone(now, member(from));
                self.collect(at, false);
            }
            14 => self.make_up(at, choices),
            _ => {
                self.honest = false;
                let (now, generation) = (self.now, Generation::from_u64(choices.byte().into()));
                self.groups[at].supersede(now, generation);
                self.collect(at, false);
            }
        }
    }

    fn append(&mut self, at: usize, choices: &mut Choices<'_>) {
        let object = ObjectId::from_u128(choices.below(8) as u128);
        self.commit += 1;
        let group = &mut self.groups[at];
        let commit = Timestamp::from_u64(self.commit.max(group.newest_commit().as_u64() + 1));
        let value = Value::from_slice(&vec![choices.byte(); choices.below(4) * 100]);
        let entry = match choices.below(4) {
            0 => {
                let to = GroupId::from_u128(7);
                let epoch = group.owned(object).map_or_else(Default::default, |stored| stored.epoch.next());
                let first = group.next_grant(to).unwrap_or_default();
                Entry::TransferOut { to, first, floor: commit, departures: vec![Departure { object, epoch }] }
            }
            _ => {
                let writes = vec![Write { object, value: Some(value) }];
                Entry::Commit { commit, writes, outcome: None, schedules: Vec::new() }
            }
        };
        if group.is_leading() && group.halted().is_none() && group.check(&entry).is_ok() {
            group.append(self.now, entry);
        }
        self.collect(at, choices.is_one_of(2));
    }

    /// Takes what a member wants to say.
    fn collect(&mut self, at: usize, urgent: bool) {
        for (to, message) in self.groups[at].take_messages(self.now, urgent) {
            let to = (0..MEMBERS).find(|number| member(*number) == to);
            if let Some(to) = to.filter(|_| self.under_way.len() < UNDER_WAY_MAX) {
                self.under_way.push((at, to, message));
            }
        }
    }

    fn deliver(&mut self, choices: &mut Choices<'_>) {
        if self.under_way.is_empty() {
            return;
        }
        // Mostly the first one.
        let which = match choices.below(4) {
            0 => choices.below(self.under_way.len()),
            _ => 0,
        };
        let how = choices.below(16);
        let (from, to, message) = if how == 0 { self.under_way[which].clone() } else { self.under_way.remove(which) };
        let mut bytes = codec::encode(&message).expect("a message encodes");
        if how == 1 {
            self.honest = false;
            choices.damage(&mut bytes);
        }
        if let Ok(message) = codec::decode(&bytes) {
            self.groups[to].received(self.now, member(from), message);
            self.collect(to, choices.is_one_of(2));
        }
    }

    fn make_up(&mut self, at: usize, choices: &mut Choices<'_>) {
        let from = choices.below(MEMBERS + 1);
        if let Ok(message) = Draws::new(choices.some_bytes().to_vec()).imagine::<GroupMessage>() {
            self.honest = false;
            self.groups[at].received(self.now, member(from), message);
            self.collect(at, true);
        }
    }

    fn check(&self) {
        for group in &self.groups {
            is_sound(group);
            let (applied, tail, watermark) = (group.applied(), group.tail(), group.watermark());
            assert!(applied <= tail || group.halted().is_some() || !self.honest, "{applied} of {tail}");
            if !group.is_leading() {
                assert!(applied <= watermark || !self.honest, "R7: a follower applies what is stable");
            }
            assert!(self.honest || group.closed() < Timestamp::SOUND_MAX, "R25");
            if self.honest {
                assert_eq!(group.halted(), None, "what sound members say fits");
            }
        }
        if !self.honest {
            return;
        }
        for (number, one) in self.groups.iter().enumerate() {
            for other in &self.groups[number + 1..] {
                let stable = |group: &Group| group.applied() <= group.watermark();
                if one.applied() == other.applied() && stable(one) && stable(other) {
                    one.same_content(other).expect("R7: what is stable is the same everywhere");
                }
            }
        }
    }
}

fn membership(choices: &mut Choices<'_>) -> Membership {
    let mut membership = Membership::alone(member(0));
    let bits = choices.byte();
    for number in 0..MEMBERS {
        if bits >> number & 1 == 1 {
            membership.voters.insert(member(number));
        }
        if bits >> (number + 3) & 1 == 1 && !membership.voters.contains(&member(number)) {
            membership.learners.insert(member(number), bits >> 6 & 1 == 1);
        }
    }
    membership
}

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut world = World::new(&mut choices);
    for _ in 0..STEPS_MAX {
        if choices.is_over() {
            break;
        }
        world.step(&mut choices);
        world.check();
    }
}
