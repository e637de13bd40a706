//! Copies answer recent snapshots: a follower's state up to what its leader has closed (R16), and nothing that it lacks.

use crate::harness::{Flight, Gold, GoldRef, Mesh, Rule, SeatHost, heavy, is_entries, is_heartbeat, is_read};
use driftmesh_model::{Micros, ObjectId, Timestamp};
use driftmesh_object_store::GroupMessage;
use driftmesh_peer::session::Reads;
use driftmesh_peer::{Message, RareEvent};

/// A follower of a peer's group, and somebody who is none.
fn follower_of(mesh: &Mesh, at: usize) -> usize {
    mesh.followers(mesh.group_id(at))[0]
}

fn is_closed(flight: &Flight) -> bool {
    matches!(flight.message(), Message::Group { message: GroupMessage::Closed(_), .. })
}

/// Reads a number at a recent snapshot; says at which.
fn read(mesh: &Mesh, reads: &Reads<SeatHost>, object: ObjectId) -> (Option<u64>, Timestamp) {
    let snapshot = reads.snapshot().expect("neither busy nor leaving");
    let job = mesh.spawn(async move {
        let reference: GoldRef = driftmesh_model::Ref::from_id(object);
        let value = snapshot.get::<Gold>(reference).await;
        (value.ok().map(|gold| gold.amount), snapshot.timestamp())
    });
    mesh.finish(&job, 1_000)
}

/// A mesh of three in which a follower reads an object of peer 0 until its copy answers.
fn warm() -> (Mesh, usize, ObjectId, Reads<SeatHost>) {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    let at = follower_of(&mesh, 0);
    let reads = Reads::begin(mesh.host(at));
    let answered = mesh.metrics(at).reads_followed;
    mesh.run_until("the copy answers", 1_000, || {
        mesh.run(5);
        assert_eq!(read(&mesh, &reads, object).0, Some(1));
        mesh.metrics(at).reads_followed > answered
    });
    (mesh, at, object, reads)
}

#[test]
fn a_follower_answers_recent_snapshots_without_a_message() {
    let (mesh, at, object, reads) = warm();
    mesh.clear_log();
    for number in 0..100_u64 {
        mesh.run(5);
        if number.is_multiple_of(10) {
            mesh.put(0, object, number + 1);
        }
        let now = Timestamp::from_wall(mesh.now(at).wall);
        let (amount, snapshot) = read(&mesh, &reads, object);
        assert!(amount.is_some() && snapshot <= now);
        assert!(snapshot.wall().plus(Micros::from_millis(50)) >= now.wall(), "not older than 50 ms");
    }
    assert!(mesh.sent(|flight| flight.from == at && is_read(flight)).is_empty());
    assert!(mesh.rare(at, RareEvent::ReadAtFollower) >= 100);
    mesh.run(50);
    assert_eq!(read(&mesh, &reads, object).0, Some(91));
}

#[test]
fn nothing_is_closed_while_nobody_reads() {
    let (mesh, _, _, _) = warm();
    mesh.run(6_000);
    mesh.clear_log();
    mesh.run(1_000);
    assert!(mesh.sent(is_closed).is_empty());
}

#[test]
fn a_copy_that_lacks_entries_does_not_answer_though_the_time_is_closed() {
    let (mesh, at, object, reads) = warm();
    // Entries reach this follower no more, closed timestamps do; the other follower makes them stable.
    mesh.rule(Rule::Drop, move |flight| flight.to == at && is_entries(flight));
    mesh.put(0, object, 2);
    mesh.run(60);
    let behind = mesh.rare(at, RareEvent::CopyBehind);
    assert_eq!(read(&mesh, &reads, object).0, Some(2), "its owner answers");
    assert!(mesh.rare(at, RareEvent::CopyBehind) > behind);
    mesh.release();
    mesh.run(1_500);
    assert_eq!(read(&mesh, &reads, object).0, Some(2));
}

#[test]
fn a_session_reads_what_it_was_told_and_never_goes_back() {
    let (mesh, at, object, reads) = warm();
    let receipt = mesh.put(0, object, 2).receipt;
    // The follower's copy is not that far yet.
    reads.saw(&receipt);
    let (amount, snapshot) = read(&mesh, &reads, object);
    assert_eq!(amount, Some(2));
    assert!(snapshot >= receipt.commit);
    // What one session saw of the owner, its next snapshot sees too; another session goes its own way.
    assert!(reads.told() >= receipt.commit);
    let other = Reads::begin(mesh.host(at)).staleness(Micros::from_millis(0));
    let (_, now) = read(&mesh, &other, object);
    assert!(now >= Timestamp::from_wall(mesh.now(at).wall));
    assert!(other.go_on_from(Timestamp::from_wall(mesh.now(at).wall.plus(Micros::from_millis(900)))).is_err());
}

#[test]
fn nothing_is_closed_above_the_stable_window() {
    let (mesh, at, object, reads) = warm();
    mesh.hold_entries(0);
    mesh.clear_log();
    for _ in 0..60 {
        mesh.run(5);
        let _ = reads.snapshot().map(drop);
    }
    let window = mesh.look(0, |peer| peer.group().window());
    let stable = mesh.look_at_group(at, mesh.group_id(0), |group| group.window()).unwrap();
    assert!(window > stable, "it wants more than it may");
    let closed = mesh.sent(is_closed).into_iter().map(|flight| {
        let Message::Group { message: GroupMessage::Closed(closed), .. } = flight.envelope.message else { panic!() };
        closed.at
    });
    let closed: Vec<_> = closed.collect();
    assert!(!closed.is_empty() && closed.iter().all(|at| *at <= stable), "{closed:?} {stable}");
    mesh.release();
    assert_eq!(read(&mesh, &reads, object).0, Some(1));
}

#[test]
fn an_object_that_is_newer_than_the_snapshot_is_met_by_a_newer_one() {
    let (mesh, at, object, reads) = warm();
    let fresh = mesh.create(0, 7);
    let (amount, snapshot) = read(&mesh, &reads, fresh);
    assert_eq!(amount, Some(7));
    assert!(snapshot >= Timestamp::from_wall(mesh.now(at).wall.plus(Micros(0))) || amount.is_some());
    assert_eq!(read(&mesh, &reads, object).0, Some(1));
    assert_eq!(mesh.in_flight(|flight| !is_heartbeat(flight)).len(), 0);
}

#[test]
fn what_left_a_group_is_not_read_from_its_copies_beyond_the_floor() {
    let (mesh, at, object, reads) = warm();
    let other = (1..3).find(|other| *other != at).unwrap();
    mesh.put(other, object, 2);
    for amount in 3..40 {
        mesh.put(other, object, amount);
        mesh.run(3);
        let (seen, _) = read(&mesh, &reads, object);
        assert!(seen.unwrap() + 30 >= amount);
    }
    mesh.run(60);
    assert_eq!(read(&mesh, &reads, object).0, Some(39));
}

/// A mesh of five in which a peer that follows nothing of peer 0 reads an object of it until a subscription answers.
fn warm_subscriber() -> (Mesh, usize, ObjectId, Reads<SeatHost>) {
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    let followers = mesh.followers(mesh.group_id(0));
    let at = (1..5).find(|at| !followers.contains(at)).expect("three of five follow at most");
    let reads = Reads::begin(mesh.host(at));
    mesh.run_until("the subscription answers", 2_000, || {
        mesh.run(5);
        assert_eq!(read(&mesh, &reads, object).0, Some(1));
        mesh.metrics(at).reads_subscribed > 0
    });
    (mesh, at, object, reads)
}

fn is_feed(flight: &Flight) -> bool {
    matches!(flight.message(), Message::Feed { .. })
}

#[test]
fn who_often_reads_elsewhere_is_fed_and_needs_no_message() {
    let (mesh, at, object, reads) = warm_subscriber();
    mesh.clear_log();
    for number in 0..100_u64 {
        mesh.run(5);
        if number.is_multiple_of(10) {
            mesh.put(0, object, number + 1);
        }
        assert!(read(&mesh, &reads, object).0.is_some());
    }
    let asked = mesh.sent(|flight| flight.from == at && is_read(flight)).len();
    assert!(asked <= 2, "{asked} reads went to the owner");
    mesh.run(60);
    assert_eq!(read(&mesh, &reads, object).0, Some(91));
}

#[test]
fn what_is_not_read_any_more_is_not_fed_any_more() {
    let (mesh, _, _, _) = warm_subscriber();
    mesh.run(14_000);
    mesh.clear_log();
    mesh.run(2_000);
    assert!(mesh.sent(is_feed).is_empty());
    assert_eq!(mesh.status(0).fed, 0);
}

#[test]
fn nothing_is_fed_before_it_is_stable() {
    let (mesh, at, object, reads) = warm_subscriber();
    mesh.hold_entries(0);
    mesh.put(0, object, 2);
    for _ in 0..10 {
        mesh.run(10);
        let snapshot = reads.snapshot().unwrap();
        let job = mesh.spawn(async move { snapshot.get::<Gold>(driftmesh_model::Ref::from_id(object)).await });
        mesh.run(1);
        assert!(job.take().is_none_or(|seen| seen.is_ok_and(|gold| gold.amount == 1)));
    }
    mesh.release();
    mesh.run(100);
    assert_eq!(read(&mesh, &reads, object).0, Some(2));
    assert!(mesh.rare(at, RareEvent::ReadAtSubscriber) > 0);
}

#[test]
fn a_lost_message_of_a_subscription_ends_in_a_new_one() {
    let (mesh, at, object, reads) = warm_subscriber();
    mesh.put(0, object, 2);
    mesh.run(60);
    assert_eq!(read(&mesh, &reads, object).0, Some(2));
    // The message with the next version is lost; those after it come.
    mesh.rule(Rule::Drop, move |flight| {
        matches!(flight.message(), Message::Feed { news, .. } if !news.is_empty()) && flight.to == at
    });
    mesh.put(0, object, 3);
    mesh.run(50);
    let (seen, _) = read(&mesh, &reads, object);
    assert!(
        seen == Some(2) || seen == Some(3),
        "its copy says nothing of a time of which it lacks a message: {seen:?}"
    );
    mesh.run(100);
    assert!(mesh.rare(at, RareEvent::FeedGap) > 0);
    mesh.release();
    mesh.run(1_500);
    let before = mesh.metrics(at).reads_subscribed;
    mesh.run_until("it is fed again", 2_000, || {
        mesh.run(5);
        assert_eq!(read(&mesh, &reads, object).0, Some(3));
        mesh.metrics(at).reads_subscribed > before
    });
}

fn is_subscribe(flight: &Flight) -> bool {
    matches!(flight.message(), Message::Subscribe { .. })
}

fn ends_something(flight: &Flight) -> bool {
    matches!(flight.message(), Message::Subscribe { ended, .. } if !ended.is_empty())
}

fn asks_for_something(flight: &Flight) -> bool {
    matches!(flight.message(), Message::Subscribe { wishes, .. } if !wishes.is_empty())
}

/// A subscriber that is fed two objects of peer 0, and has just said that it does not want the first one any more. What it
/// says from then on is held.
fn wants_no_more() -> (Mesh, usize, [ObjectId; 2], Reads<SeatHost>) {
    let (mesh, at, object, reads) = warm_subscriber();
    let other = mesh.create_known(0, 1);
    mesh.rule(Rule::Hold, ends_something);
    mesh.run_until("it is not wanted any more", 14_000, || {
        mesh.run(200);
        assert_eq!(read(&mesh, &reads, other).0, Some(1));
        mesh.held(ends_something) > 0
    });
    mesh.rule(Rule::Hold, is_subscribe);
    (mesh, at, [object, other], reads)
}

/// Reads an object until a copy is asked for.
fn want_again(mesh: &Mesh, reads: &Reads<SeatHost>, object: ObjectId) {
    mesh.run_until("it is wanted again", 1_000, || {
        mesh.run(5);
        let _ = read(mesh, reads, object);
        mesh.held(asks_for_something) > 0
    });
}

#[test]
fn a_late_word_that_a_copy_is_not_wanted_ends_none_that_is_wanted_again() {
    // R16: who relies on being told must not be forgotten.
    let (mesh, at, [object, other], reads) = wants_no_more();
    want_again(&mesh, &reads, object);
    let (ended, asked): (Vec<_>, Vec<_>) = mesh.take_held().into_iter().partition(ends_something);
    mesh.release();
    asked.into_iter().for_each(|flight| mesh.hand(flight));
    mesh.run(100);
    let before = mesh.metrics(at).reads_subscribed;
    assert_eq!(read(&mesh, &reads, object).0, Some(1));
    assert_eq!(mesh.metrics(at).reads_subscribed, before + 1, "it is fed again");
    ended.into_iter().for_each(|flight| mesh.hand(flight));
    mesh.put(0, object, 2);
    mesh.run(100);
    assert_eq!(read(&mesh, &reads, other).0, Some(1));
    assert_eq!(read(&mesh, &reads, object).0, Some(2));
}

#[test]
fn an_answer_to_a_former_wish_is_none_to_the_present_one() {
    // R16: between the two its leader does not look for what is new.
    let (mesh, _, [object, other], reads) = wants_no_more();
    mesh.rule(Rule::Hold, is_feed);
    mesh.put(0, object, 2);
    mesh.run(25);
    want_again(&mesh, &reads, object);
    let (said, told): (Vec<_>, Vec<_>) = mesh.take_held().into_iter().partition(is_subscribe);
    told.into_iter().for_each(|flight| mesh.hand(flight));
    // Now its leader hears that it is not wanted, and not yet that it is again.
    said.into_iter().filter(ends_something).for_each(|flight| mesh.hand(flight));
    mesh.put(0, object, 3);
    for _ in 0..10 {
        mesh.run(10);
        mesh.take_held().into_iter().filter(is_feed).for_each(|flight| mesh.hand(flight));
    }
    assert_eq!(read(&mesh, &reads, other).0, Some(1));
    assert_eq!(read(&mesh, &reads, object).0, Some(3));
}

#[test]
fn copies_of_large_objects_make_room_for_each_other() {
    const LARGE: usize = 900 << 10;
    let mesh = Mesh::new(2);
    let objects: Vec<_> = (0..20).map(|number| mesh.create_values(0, &[heavy(number, LARGE)])[0]).collect();
    mesh.run(100);
    let reads = Reads::begin(mesh.host(1));
    for _ in 0..6 {
        for (number, object) in (0..).zip(&objects) {
            assert_eq!(read(&mesh, &reads, *object).0, Some(number));
        }
        mesh.run(50);
    }
    // R24: 16 MiB at most.
    let kept = mesh.status(1).subscribed;
    assert!((1..=18).contains(&kept), "{kept} copies of {LARGE} bytes");
}
