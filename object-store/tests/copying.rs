//! Copies of a group's state on links that lose and reorder slices: a member that joins late catches up soon, whatever
//! came first.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use driftmesh_model::{GroupId, Incarnation, Micros, ObjectId, PeerId, Timestamp, Value};
use driftmesh_object_store::{Entry, Group, GroupMessage, MemberId, Membership, Settings, Write};

/// So much is written that a copy takes many more slices than may be under way at once.
const OBJECTS: u128 = 5_000;

fn member(number: usize) -> MemberId {
    let number = u8::try_from(number).unwrap();
    MemberId { peer: PeerId::from_bytes([number; 32]), incarnation: Incarnation::from_u64(u64::from(number) + 1) }
}

fn write(group: &mut Group, object: u128) {
    let writes = vec![Write { object: ObjectId::from_u128(object), value: Some(Value::from_slice(&[7; 1_000])) }];
    group.append(
        Micros(0),
        Entry::Commit { commit: Timestamp::from_wall(Micros(1)), writes, outcome: None, schedules: Vec::new() },
    );
}

/// How many milliseconds a new member takes to catch up. `links` says what becomes of the messages that leave in one
/// millisecond.
fn time_to_catch_up(mut links: impl FnMut(Vec<GroupMessage>) -> Vec<GroupMessage>) -> u64 {
    let (id, settings) = (GroupId::from_u128(1), Settings::default());
    let mut leader = Group::found(id, member(0), settings, 1, Micros(0));
    let mut newcomer = Group::join(id, member(1), settings, 2, Micros(0));
    (0..OBJECTS).for_each(|object| write(&mut leader, object));
    let learners = [(member(1), false)].into();
    leader.propose(Micros(0), Membership { learners, ..Membership::alone(member(0)) }).unwrap();
    for millis in 1..60_000 {
        let now = Micros(millis * 1_000);
        leader.tick(now);
        let sent = leader.take_messages(now, true).into_iter().map(|(_, message)| message).collect();
        links(sent).into_iter().for_each(|message| newcomer.received(now, member(0), message));
        newcomer.tick(now);
        for (_, message) in newcomer.take_messages(now, true) {
            leader.received(now, member(1), message);
        }
        if newcomer.watermark() == leader.watermark() && newcomer.owned_count() == leader.owned_count() {
            newcomer.same_content(&leader).unwrap();
            return millis;
        }
    }
    panic!("the member never caught up");
}

#[test]
fn slices_that_overtake_each_other_do_not_slow_a_copy_down() {
    let in_order = time_to_catch_up(|sent| sent);
    let reversed = time_to_catch_up(|sent| sent.into_iter().rev().collect());
    assert!(reversed <= 2 * in_order + 100, "{reversed} ms instead of {in_order} ms");
}

#[test]
fn a_slice_that_is_lost_costs_one_repetition() {
    let in_order = time_to_catch_up(|sent| sent);
    let mut slices = 0;
    let lossy = time_to_catch_up(|mut sent| {
        sent.retain(|message| {
            slices += u64::from(matches!(message, GroupMessage::Slice(_)));
            !(matches!(message, GroupMessage::Slice(_)) && slices == 3)
        });
        sent
    });
    assert!(lossy <= in_order + 500, "{lossy} ms instead of {in_order} ms");
}
