//! Copies of a group's state on links that lose and reorder slices: a member that joins late catches up soon, whatever
//! came first.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use driftmesh_model::{GroupId, Incarnation, Lsn, Micros, ObjectId, PeerId, Term, Timestamp, Value};
use driftmesh_object_store::{
    Body, Closed, CopySlice, Departure, Entry, Group, GroupMessage, MemberId, Membership, Message, Promises, Settings,
    Write,
};
use std::collections::BTreeSet;

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
    let mut newcomer = Group::join(id, member(1), settings, 2, Micros(0), Promises::default());
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

/// A leader of many objects, each with a version before the present one, and a member that needs a copy.
fn leader_and_newcomer() -> (Group, Group) {
    let (id, settings) = (GroupId::from_u128(1), Settings::default());
    let mut leader = Group::found(id, member(0), settings, 1, Micros(0));
    let newcomer = Group::join(id, member(1), settings, 2, Micros(0), Promises::default());
    for time in [1, 2] {
        for object in 0..OBJECTS / 4 {
            let writes =
                vec![Write { object: ObjectId::from_u128(object), value: Some(Value::from_slice(&[7; 1_000])) }];
            let commit = Timestamp::from_wall(Micros(time));
            leader.append(Micros(0), Entry::Commit { commit, writes, outcome: None, schedules: Vec::new() });
        }
    }
    let learners = [(member(1), false)].into();
    leader.propose(Micros(0), Membership { learners, ..Membership::alone(member(0)) }).unwrap();
    (leader, newcomer)
}

/// Lets messages of each millisecond pass as `links` says, both ways; the leader's come with the time.
fn pass(
    leader: &mut Group,
    newcomer: &mut Group,
    millis: std::ops::Range<u64>,
    mut links: impl FnMut(bool, GroupMessage) -> Option<GroupMessage>,
) {
    for now in millis.map(|millis| Micros(millis * 1_000)) {
        leader.tick(now);
        let sent = leader.take_messages(now, true).into_iter().filter_map(|(_, message)| links(true, message));
        sent.collect::<Vec<_>>().into_iter().for_each(|message| newcomer.received(now, member(0), message));
        newcomer.tick(now);
        let sent = newcomer.take_messages(now, true).into_iter().filter_map(|(_, message)| links(false, message));
        sent.collect::<Vec<_>>().into_iter().for_each(|message| leader.received(now, member(1), message));
    }
}

#[test]
fn slices_of_two_copies_never_make_one_state() {
    let (mut leader, mut newcomer) = leader_and_newcomer();
    let mut slices = 0;
    let mut few = |_, message| match message {
        GroupMessage::Slice(_) => {
            slices += 1;
            Some(message).filter(|_| slices <= 2)
        }
        // What it says of slices is lost, until the leader gives up and begins another copy of the same entry.
        GroupMessage::SliceTaken { .. } => None,
        GroupMessage::Consensus(_) | GroupMessage::CopyDone(_) | GroupMessage::Closed(_) => Some(message),
    };
    pass(&mut leader, &mut newcomer, 1..2_000, &mut few);
    // Meanwhile the leader has forgotten old versions: the other copy is cut in other places.
    leader.set_prune_below(Timestamp::from_wall(Micros(5)), usize::MAX);
    leader.prune(usize::MAX);
    pass(&mut leader, &mut newcomer, 2_000..2_950, &mut few);
    pass(&mut leader, &mut newcomer, 2_950..12_000, |_, message| Some(message));
    assert_eq!(newcomer.watermark(), leader.watermark());
    assert_eq!(newcomer.owned_count(), leader.owned_count());
    newcomer.same_content(&leader).unwrap();
}

#[test]
fn a_copy_that_says_it_ends_elsewhere_is_not_taken_for_a_state() {
    let (mut leader, mut newcomer) = leader_and_newcomer();
    pass(&mut leader, &mut newcomer, 1..2_000, |_, mut message| {
        match &mut message {
            GroupMessage::Slice(slice) => slice.at = Lsn::from_u64(slice.at.as_u64() + 5),
            GroupMessage::CopyDone(done) => done.at = Lsn::from_u64(done.at.as_u64() + 5),
            GroupMessage::SliceTaken { at, .. } => *at = Lsn::from_u64(at.as_u64() - 5),
            GroupMessage::Consensus(_) | GroupMessage::Closed(_) => {}
        }
        Some(message)
    });
    assert_eq!(newcomer.owned_count(), 0, "nothing of it was taken in");
    assert_eq!(newcomer.applied(), Lsn::ZERO);
}

#[test]
fn what_has_left_and_is_not_stable_has_left_all_the_same_when_a_copy_begins() {
    let (mut leader, mut newcomer) = leader_and_newcomer();
    // The newcomer votes, so that nothing is stable without it.
    pass(&mut leader, &mut newcomer, 1..8_000, |_, message| Some(message));
    let voters: BTreeSet<_> = [member(0), member(1)].into();
    leader.propose(Micros(8_000_000), Membership { voters, ..Membership::default() }).unwrap();
    pass(&mut leader, &mut newcomer, 8_000..9_000, |_, message| Some(message));
    assert_eq!(leader.consensus().membership().voters.len(), 2);
    let learners = [(member(2), false)].into();
    let voters = leader.consensus().membership().voters.clone();
    leader.propose(Micros(9_000_000), Membership { voters, learners, ..Membership::default() }).unwrap();
    // An object leaves, and nobody has heard of it when the third member's copy begins.
    let (to, object) = (GroupId::from_u128(2), ObjectId::from_u128(1));
    let stored = leader.owned(object).unwrap();
    let departure = Departure { object, epoch: leader.epoch_of(stored).next() };
    let floor = Timestamp::from_wall(Micros(9));
    leader.append(Micros(9_000_000), Entry::TransferOut { to, first: 1, floor, departures: vec![departure] });
    let mut third = Group::join(leader.id(), member(2), Settings::default(), 3, Micros(0), Promises::default());
    let mut has_begun = false;
    for now in (9_000..9_300).map(|millis| Micros(millis * 1_000)) {
        leader.tick(now);
        for (to, message) in leader.take_messages(now, true) {
            has_begun |= matches!(message, GroupMessage::Slice(_));
            if to == member(2) {
                third.received(now, member(0), message);
            }
        }
        for (_, message) in third.take_messages(now, true) {
            leader.received(now, member(2), message);
        }
    }
    assert!(has_begun, "no copy began");
    assert!(leader.watermark() < leader.tail());
    assert_eq!(leader.take_undone(), [], "it has left");
}

/// How many milliseconds the newcomer takes until it has all that the leader has; `links` as in [`pass`].
fn millis_until_whole(
    (mut leader, mut newcomer): (Group, Group),
    from: u64,
    mut links: impl FnMut(bool, GroupMessage) -> Option<GroupMessage>,
) -> u64 {
    for millis in from..from + 60_000 {
        pass(&mut leader, &mut newcomer, millis..millis + 1, &mut links);
        if newcomer.watermark() == leader.watermark() && newcomer.owned_count() == leader.owned_count() {
            newcomer.same_content(&leader).unwrap();
            return millis - from;
        }
    }
    panic!("the member never caught up");
}

#[test]
fn what_a_member_says_of_a_former_copy_does_not_count_for_the_present_one() {
    let (mut leader, newcomer) = leader_and_newcomer();
    let mut lost = 0;
    let took = millis_until_whole((leader.clone(), newcomer.clone()), 1, |_, message| {
        let is_lost = matches!(message, GroupMessage::Slice(_)) && lost < 3;
        lost += u64::from(is_lost);
        Some(message).filter(|_| !is_lost)
    });
    // The same, and a late word of another copy says that all of it was taken.
    let (mut lost, mut late) = (0, None);
    let mut newcomer = newcomer;
    pass(&mut leader, &mut newcomer, 1..500, |_, message| {
        let GroupMessage::Slice(slice) = &message else { return Some(message) };
        if lost == 3 {
            return Some(message);
        }
        lost += 1;
        late = Some(GroupMessage::SliceTaken { copy: slice.copy + 1, at: slice.at, number: u64::MAX });
        None
    });
    assert_eq!(lost, 3, "no copy has begun");
    let before = leader.clone();
    leader.received(Micros(499_000), member(1), late.unwrap());
    let with_late = millis_until_whole((leader, newcomer.clone()), 500, |_, message| Some(message));
    assert_eq!(with_late, millis_until_whole((before, newcomer), 500, |_, message| Some(message)), "it counted");
    assert!(with_late <= took + 100, "{with_late} ms instead of {took} ms");
}

#[test]
fn a_late_slice_of_a_copy_that_was_given_up_does_not_end_the_present_one() {
    let (mut leader, mut newcomer) = leader_and_newcomer();
    let mut late = None;
    // The first copy leads to nothing, and is given up for a second one.
    pass(&mut leader, &mut newcomer, 1..20_000, |_, message| {
        let GroupMessage::Slice(slice) = &message else { return Some(message) };
        late.get_or_insert_with(|| slice.clone());
        None
    });
    let late = late.unwrap();
    // Of the second one the newcomer has taken some slices when one of the first arrives, or that is lost.
    let goes_on = |in_place_of_one: Option<&CopySlice>| {
        let mut slices = 0;
        let took = millis_until_whole((leader.clone(), newcomer.clone()), 20_000, |_, message| {
            let is_of_second = matches!(&message, GroupMessage::Slice(slice) if slice.copy > late.copy);
            slices += u64::from(is_of_second);
            if is_of_second && slices == 6 { in_place_of_one.cloned().map(GroupMessage::Slice) } else { Some(message) }
        });
        assert!(slices > 6);
        took
    };
    assert_eq!(goes_on(Some(&late)), goes_on(None), "the copy began anew");
}

#[test]
fn a_slice_that_does_not_fit_is_refused_and_the_copy_comes_to_its_end() {
    let (leader, newcomer) = leader_and_newcomer();
    let (mut second, mut swapped) = (None, false);
    millis_until_whole((leader, newcomer), 1, |_, message| {
        let GroupMessage::Slice(slice) = message else { return Some(message) };
        if slice.number == 1 && second.is_none() {
            second = Some(slice.slice.clone());
        }
        if slice.number == 2 && !swapped {
            // R25: it says what the one before said.
            swapped = true;
            return second.clone().map(|second| GroupMessage::Slice(CopySlice { slice: second, ..slice }));
        }
        Some(GroupMessage::Slice(slice))
    });
    assert!(swapped);
}

#[test]
fn what_a_former_term_calls_stable_is_not_believed() {
    let (id, settings) = (GroupId::from_u128(1), Settings { keep_bytes: u64::MAX, ..Settings::default() });
    let mut leader = Group::found(id, member(0), settings, 1, Micros(0));
    let mut follower = Group::join(id, member(1), settings, 2, Micros(0), Promises::default());
    let learners = [(member(1), false)].into();
    leader.propose(Micros(0), Membership { learners, ..Membership::alone(member(0)) }).unwrap();
    write(&mut leader, 1);
    // It holds all of it, and does not know what is stable.
    pass(&mut leader, &mut follower, 1..100, |_, mut message| {
        if let GroupMessage::Consensus(Message { body: Body::Append { watermark, .. }, .. }) = &mut message {
            *watermark = Lsn::ZERO;
        }
        Some(message)
    });
    assert_eq!((follower.tail(), follower.watermark()), (leader.tail(), Lsn::ZERO));
    let (generation, term) = (leader.generation(), leader.term());
    let closed = |term, generation| {
        let (watermark, at) = (leader.tail(), Timestamp::from_wall(Micros(1)));
        GroupMessage::Closed(Closed { generation, term, watermark, at, lsn: Lsn::ZERO })
    };
    // R7: what another term holds at these positions may be something else.
    follower.received(Micros(100_000), member(0), closed(Term::ZERO, generation));
    follower.received(Micros(100_000), member(0), closed(term.next(), generation));
    assert_eq!(follower.watermark(), Lsn::ZERO);
    follower.received(Micros(100_000), member(0), closed(term, generation));
    assert_eq!(follower.watermark(), leader.tail());
}
