//! R18: requests from the future are refused before they are merged, grants never are; who is off itself begins nothing.

use crate::harness::{Flight, Mesh, Rule, is_clock_ahead, is_grant, is_heartbeat, is_read_answer, wire};
use driftmesh_model::{Micros, ObjectId, Timestamp, TxnTimestamp};
use driftmesh_peer::{Begin, Cause, Envelope, Message, RareEvent, StepError, TaskKind};

/// A timestamp so many milliseconds ahead of a peer's wall clock.
fn ahead_of(mesh: &Mesh, at: usize, millis: u64) -> Timestamp {
    Timestamp::from_wall(mesh.now(at).wall.plus(Micros::from_millis(millis)))
}

/// Hands the first peer a message of the second one that left at this clock.
fn hand(mesh: &Mesh, clock: Timestamp, message: Message) {
    mesh.hand(Flight { from: 1, to: 0, envelope: Envelope { clock, message } });
}

fn own_of(mesh: &Mesh, object: ObjectId, time: Timestamp) -> Message {
    wire::own(mesh.group_id(1), object, TxnTimestamp { time, incarnation: 2, sequence: 1 })
}

#[test]
fn a_request_501_ms_ahead_is_refused_with_the_receivers_time_and_not_merged() {
    type Make = fn(&Mesh, ObjectId, Timestamp) -> Message;
    let read: Make = |_, object, snapshot| wire::read(object, snapshot);
    let scan: Make = |_, _, snapshot| Message::Scan { snapshot, cursor: 0 };
    for (make, objects) in [(read, 1), (own_of as Make, 1), (scan, 0)] {
        let mesh = Mesh::new(2);
        let object = mesh.create_known(0, 1);
        let named = ahead_of(&mesh, 0, 501);
        mesh.clear_log();
        hand(&mesh, Timestamp::ZERO, make(&mesh, object, named));
        let refusals = mesh.in_flight(is_clock_ahead);
        assert_eq!(refusals.len(), 1);
        assert_eq!(mesh.sent(|_| true).len(), 1, "nothing else is said");
        let Message::ClockAhead { objects: refused, receiver } = refusals[0].message() else { panic!("no refusal") };
        assert_eq!((refused.len(), *receiver), (objects, mesh.now(0).wall));
        let after = mesh.put(0, object, 2);
        assert!(after.receipt.commit < named && after.receipt.commit < ahead_of(&mesh, 0, 1));
        assert_eq!(mesh.owner_of(object), 0);
    }
}

#[test]
fn a_request_499_ms_ahead_is_accepted_and_the_clock_follows_it() {
    for millis in [499, 500] {
        let mesh = Mesh::new(2);
        let object = mesh.create_known(0, 1);
        let named = ahead_of(&mesh, 0, millis);
        hand(&mesh, Timestamp::ZERO, wire::read(object, named));
        assert_eq!(mesh.in_flight(is_read_answer).len(), 1);
        assert!(mesh.put(0, object, 2).receipt.commit > named);
        hand(&mesh, Timestamp::ZERO, own_of(&mesh, object, ahead_of(&mesh, 0, millis)));
        assert_eq!(mesh.in_flight(is_grant).len(), 1);
        assert_eq!(mesh.rare(0, RareEvent::ClockRefused), 0);
    }
}

#[test]
fn a_message_that_left_at_a_clock_too_far_ahead_is_heard_but_its_clock_is_not_followed() {
    for (millis, followed) in [(499, true), (501, false)] {
        let mesh = Mesh::new(2);
        let object = mesh.create_known(0, 1);
        let clock = ahead_of(&mesh, 0, millis);
        hand(&mesh, clock, wire::read(object, Timestamp::from_wall(mesh.now(0).wall)));
        assert_eq!(mesh.in_flight(is_read_answer).len(), 1);
        assert_eq!(mesh.put(0, object, 2).receipt.commit > clock, followed);
    }
}

#[test]
fn a_peer_whose_clock_is_too_far_ahead_is_told_and_may_try_again_once_it_is_right() {
    for (offset, refused) in [(499_000, false), (501_000, true)] {
        let mesh = Mesh::with(2, |at, setup| setup.wall_offset_us = if at == 1 { offset } else { 0 });
        let object = mesh.create_known(0, 1);
        let reader = mesh.begin(1, "reader");
        let read = mesh.read_wait(reader, object);
        let writer = mesh.begin(1, "writer");
        let locked = mesh.intend_wait(writer, &[object]);
        if refused {
            let expected = StepError::Failed(Cause::ClockAhead { object, receiver: mesh.now(0).wall });
            assert_eq!((read, locked), (Err(expected.clone()), Err(expected)));
            assert_eq!(mesh.rare(0, RareEvent::ClockRefused), 2);
            // Retries are refused too, and do no harm: the transaction ends at its deadline.
            let end = mesh.mono_us() + 5_000_000;
            let mut attempts = 0;
            while mesh.retry_wait(reader).is_ok() {
                assert!(mesh.read_wait(reader, object).is_err());
                attempts += 1;
            }
            assert!(mesh.mono_us() >= end && attempts > 100 && attempts <= 250, "{attempts} attempts");
            assert!(mesh.put(0, object, 2).receipt.commit < ahead_of(&mesh, 0, 501));
        } else {
            assert_eq!((read, locked), (Ok(Some(1)), Ok(())));
            mesh.commit_amount(writer, object, 2).unwrap();
        }
        assert_eq!(mesh.newest(object), Some(2));
    }
}

#[test]
fn a_grant_from_far_ahead_is_adopted_and_commits_lie_above_it() {
    let mesh = Mesh::with(3, |at, setup| setup.wall_offset_us = if at == 0 { 3_600_000_000 } else { 0 });
    let object = mesh.create_known(0, 1);
    let born = mesh.look(0, |peer| peer.group().owned(object).unwrap().chain.newest().commit);
    assert!(born > ahead_of(&mesh, 1, 3_000_000));
    let txn = mesh.begin(1, "fetch");
    mesh.intend_wait(txn, &[object]).unwrap();
    let committed = mesh.commit_amount(txn, object, 2).unwrap();
    assert!(committed.receipt.commit > born);
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (1, Some(2)));
    assert_eq!(mesh.rare(1, RareEvent::ClockRefused), 0);
    // And on to one whose clock is right.
    let txn = mesh.begin(2, "fetch");
    mesh.intend_wait(txn, &[object]).unwrap();
    assert!(mesh.commit_amount(txn, object, 3).unwrap().receipt.commit > committed.receipt.commit);
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (2, Some(3)));
}

#[test]
fn an_age_from_the_far_past_or_the_future_is_clamped_at_the_peer_that_admits_it() {
    let mesh = Mesh::new(1);
    let now = Timestamp::from_wall(mesh.now(0).wall);
    let minute_ago = Timestamp::from_wall(Micros(mesh.now(0).wall.0 - 60_000_000));
    for (asked, given) in [(Timestamp::ZERO, minute_ago), (Timestamp::MAX, now), (minute_ago.next(), minute_ago.next())]
    {
        let txn = mesh.begin_as(0, "aged", 5_000, Some(asked), false);
        assert_eq!(mesh.attempt(txn).0.time, given);
    }
}

#[test]
fn a_peer_whose_own_clock_is_off_from_most_begins_nothing_until_it_is_right_again() {
    let mesh = Mesh::with(3, |at, setup| {
        if at == 2 {
            setup.wall_offset_us = 300_000;
        }
    });
    mesh.run(2_500);
    let early = mesh.begin(2, "early");
    mesh.run(2_000);
    let begin = || Begin {
        kind: TaskKind::new("late"),
        deadline: Micros::from_millis(100),
        age: None,
        read_only: false,
        recent: None,
        task: None,
    };
    let refused = mesh.step(2, |peer, now| peer.begin(now, begin()));
    let Err(StepError::ClockOff { ahead_ms }) = refused else { panic!("{refused:?}") };
    assert!((295..=305).contains(&ahead_ms), "{ahead_ms}");
    assert!(mesh.step(2, |peer, now| peer.status(now).clock_off_us).is_some());
    // The two that agree go on, and what had begun may end.
    for at in [0, 1] {
        assert_eq!(mesh.step(at, |peer, _| peer.clock_off_us()), None);
        mesh.create(at, 1);
    }
    mesh.end(early);
    // With one of them gone nobody can tell who is wrong.
    mesh.cut(0, 2);
    mesh.run(3_000);
    assert!(mesh.step(2, |peer, now| peer.begin(now, begin())).is_ok());
}

#[test]
fn slow_links_are_no_wrong_clock() {
    let mesh = Mesh::new(3);
    mesh.run(200);
    mesh.rule(Rule::Hold, is_heartbeat);
    for _ in 0..80 {
        let held = mesh.take_held();
        mesh.run(300);
        for flight in held {
            mesh.hand(flight);
        }
    }
    for at in 0..3 {
        assert_eq!(mesh.step(at, |peer, _| peer.clock_off_us()), None);
    }
}

#[test]
fn who_hears_the_others_late_and_is_heard_at_once_finds_no_fault_with_its_clock() {
    let mesh = Mesh::new(4);
    mesh.run(200);
    let mut held = std::collections::VecDeque::new();
    mesh.rule(Rule::Hold, |flight| flight.to == 3 && is_heartbeat(flight));
    for _ in 0..80 {
        mesh.run(100);
        held.push_back(mesh.take_held());
        // Each heartbeat to the last peer takes 900 ms, as if it stood still most of the time; its own take no time.
        for flight in if held.len() > 9 { held.pop_front() } else { None }.into_iter().flatten() {
            mesh.hand(flight);
        }
    }
    let offset = mesh.step(3, |peer, now| peer.status(now).members[0].clock_offset_us);
    assert!(offset.is_some_and(|offset| offset < -350_000), "it looks as if it were ahead: {offset:?}");
    assert_eq!(mesh.step(3, |peer, _| peer.clock_off_us()), None);
    mesh.create(3, 1);
}
