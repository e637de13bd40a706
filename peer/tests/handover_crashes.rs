//! H1 to H3, F5, F6, R19, R20: an object is on its way while one end, or both, die at each point. It exists exactly once.

use crate::harness::{Flight, Mesh, Rule, is_entries, is_grant, is_grant_answer, large, ready, small};
use driftmesh_model::{GroupId, ObjectId, Value};
use driftmesh_object_store::Entry;
use driftmesh_peer::{FateTold, Message, RareEvent};

/// Where a transfer from the first peer to the second one is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// The departure is in the sender's memory alone.
    DepartureUnstable,
    /// The departure is stable, the grant under way.
    GrantUnderWay,
    /// The arrival is in the receiver's memory alone.
    ArrivalUnstable,
    /// The arrival is stable, the acknowledgement under way.
    AnswerUnderWay,
    /// The sender has it, in its memory alone.
    HandedUnstable,
    Done,
}

const STOPS: [Stop; 6] = [
    Stop::DepartureUnstable,
    Stop::GrantUnderWay,
    Stop::ArrivalUnstable,
    Stop::AnswerUnderWay,
    Stop::HandedUnstable,
    Stop::Done,
];

/// The first two are on one machine, so that neither follows the other and both may die.
fn apart(peers: usize) -> Mesh {
    Mesh::replicated_with(peers, 2, |at, setup| setup.config.domain = at.max(1) as u64)
}

/// A mesh in which a transfer from the first to the second peer has come so far.
fn stopped(stop: Stop, value: Value) -> (Mesh, ObjectId) {
    let mesh = apart(7);
    let object = mesh.create_values(0, &[value])[0];
    mesh.run(200);
    let hold = |kind: fn(&Entry) -> bool| mesh.rule(Rule::Hold, move |flight| crate::harness::carries(flight, kind));
    match stop {
        Stop::DepartureUnstable => hold(|entry| matches!(entry, Entry::TransferOut { .. })),
        Stop::GrantUnderWay => mesh.rule(Rule::Hold, is_grant),
        Stop::ArrivalUnstable => hold(|entry| matches!(entry, Entry::TransferIn { .. })),
        Stop::AnswerUnderWay => mesh.rule(Rule::Hold, is_grant_answer),
        Stop::HandedUnstable => hold(|entry| matches!(entry, Entry::Handed { .. })),
        Stop::Done => {}
    }
    let writer = mesh.begin_for(1, "writer", 300);
    let _ = mesh.intend(writer, &[object]);
    mesh.run(60);
    mesh.end(writer);
    (mesh, object)
}

/// Once all has come to rest the object exists once, with this number, and can be changed from everywhere.
fn exists_once(mesh: &Mesh, object: ObjectId, expected: u64, what: &str) {
    mesh.run(8_000);
    for at in mesh.alive() {
        assert_eq!(mesh.get(at, object), Some(expected), "{what}, read at {at}");
    }
    assert_eq!(mesh.owners_of(object).len(), 1, "{what}");
    let turns = mesh.alive();
    for at in &turns {
        mesh.add(*at, object, 1);
    }
    assert_eq!(mesh.newest(object), Some(expected + turns.len() as u64), "{what}");
    let in_transit: usize =
        mesh.alive().iter().flat_map(|at| mesh.look_at_led(*at, |group| group.in_transit_count())).sum();
    assert_eq!(in_transit, 0, "{what}");
}

#[test]
fn one_end_or_both_die_at_each_point_of_a_transfer() {
    for stop in STOPS {
        for dead in [&[0][..], &[1], &[0, 1]] {
            for delivered in [false, true] {
                let (mesh, object) = stopped(stop, small(5));
                mesh.kill_all(dead);
                if delivered {
                    // What was under way from the dead still arrives, in the end.
                    let held = mesh.take_held();
                    mesh.release();
                    mesh.run(700);
                    for flight in held.into_iter().filter(|flight| mesh.lives(flight.to)) {
                        let from_a_member = mesh
                            .status(flight.to)
                            .members
                            .iter()
                            .any(|member| member.peer == crate::harness::peer_id(flight.from));
                        if from_a_member {
                            mesh.hand(flight);
                        }
                    }
                } else {
                    mesh.take_held();
                    mesh.release();
                }
                exists_once(&mesh, object, 5, &format!("{stop:?}, {dead:?} dead, delivered: {delivered}"));
            }
        }
    }
}

#[test]
fn a_transfer_by_hash_leaves_the_value_with_the_followers_of_its_receiver() {
    // F5: the receiver has the value in its cache, its followers have not.
    let mesh = apart(6);
    let object = mesh.create_values(0, &[large(5)])[0];
    mesh.run(200);
    assert_eq!(mesh.get(1, object), Some(5));
    mesh.clear_log();
    let writer = mesh.begin(1, "writer");
    mesh.intend_wait(writer, &[object]).unwrap();
    mesh.run_until("it is acknowledged", 100, || !mesh.sent(is_grant_answer).is_empty());
    let by_hash = |flight: &Flight| {
        let Message::Grants { grants, .. } = flight.message() else { return false };
        grants.iter().any(|grant| format!("{:?}", grant.versions).contains("Hash("))
    };
    assert!(!mesh.sent(by_hash).is_empty(), "the value was spared");
    mesh.settle();
    mesh.kill_all(&[1, 0]);
    exists_once(&mesh, object, 5, "by hash");
}

#[test]
fn a_destination_that_begins_to_leave_refuses_and_the_object_comes_back_also_after_a_crash_of_the_sender() {
    for crash in [false, true] {
        let (mesh, object) = stopped(Stop::GrantUnderWay, small(5));
        mesh.step(1, |peer, now| peer.drain(now));
        mesh.settle();
        if crash {
            mesh.kill(0);
            mesh.take_held();
        }
        mesh.release();
        mesh.run(8_000);
        assert!(mesh.owner_of(object) != 1);
        assert!(mesh.look(1, driftmesh_peer::Peer::is_drained), "it waits for nothing");
        exists_once_without(&mesh, object, 5, 1);
    }
}

fn exists_once_without(mesh: &Mesh, object: ObjectId, expected: u64, but: usize) {
    for at in mesh.alive().into_iter().filter(|at| *at != but) {
        assert_eq!(mesh.get(at, object), Some(expected), "read at {at}");
    }
    assert_eq!(mesh.owners_of(object).len(), 1);
}

#[test]
fn a_destination_that_has_ended_gives_the_object_back() {
    // F6: the sender stands still while its destination's group dies, is handed out and retired.
    for adopted in [false, true] {
        let stop = if adopted { Stop::AnswerUnderWay } else { Stop::GrantUnderWay };
        let (mesh, object) = stopped(stop, small(5));
        let destination = mesh.group_id(1);
        mesh.kill(1);
        mesh.take_held();
        mesh.run_until("its group has ended", 5_000, || {
            mesh.alive()
                .into_iter()
                .filter(|at| *at != 0)
                .all(|at| mesh.look(at, |peer| peer.remains_of(destination).is_some()))
        });
        mesh.release();
        exists_once(&mesh, object, 5, &format!("adopted: {adopted}"));
    }
}

#[test]
fn late_duplicates_of_every_grant_adopt_nothing_after_retirement() {
    // R20.
    let mesh = Mesh::replicated(5, 2);
    let objects = mesh.create_values(0, &(0..10).map(small).collect::<Vec<_>>());
    mesh.run(200);
    for object in &objects {
        mesh.put(1, *object, 7);
    }
    let grants = mesh.sent(is_grant);
    assert!(grants.len() >= 10);
    mesh.run(100);
    let destination: GroupId = mesh.group_id(1);
    mesh.kill(1);
    mesh.run(6_000);
    assert!(mesh.is_ended_everywhere(destination));
    let epochs: Vec<u64> = objects.iter().map(|object| mesh.epoch_of(*object)).collect();
    for at in mesh.alive() {
        for grant in &grants {
            for from in mesh.alive().into_iter().filter(|from| *from != at) {
                mesh.hand(Flight { from, to: at, ..grant.clone() });
            }
        }
        mesh.settle();
    }
    mesh.run(1_000);
    for (object, epoch) in objects.iter().zip(epochs) {
        assert_eq!((mesh.epoch_of(*object), mesh.newest(*object)), (epoch, Some(7)));
    }
}

#[test]
fn a_grant_repeated_to_the_heir_of_its_destination_is_adopted_once() {
    // The arrival is stable, its acknowledgement lost: the heir says the same.
    let (mesh, object) = stopped(Stop::AnswerUnderWay, small(5));
    let destination = mesh.group_id(1);
    mesh.kill(1);
    mesh.take_held();
    mesh.release();
    mesh.run_until("somebody leads", 2_000, || mesh.alive().iter().any(|at| mesh.leads(*at, destination)));
    mesh.run(1_000);
    assert_eq!(mesh.look(0, |peer| peer.group().in_transit_count()), 0, "the sender knows that it arrived");
    exists_once(&mesh, object, 5, "acknowledged by the heir");
}

#[test]
fn a_heir_takes_nothing_in_and_says_so() {
    let (mesh, object) = stopped(Stop::GrantUnderWay, small(5));
    let destination = mesh.group_id(1);
    mesh.kill(1);
    mesh.take_held();
    // It cannot retire its group while the grant comes.
    let heir = mesh.leader_within(destination, 2_000, 1);
    mesh.release();
    mesh.run(2_000);
    let refused: u64 = mesh.alive().iter().map(|at| mesh.rare(*at, RareEvent::GrantRefused)).sum();
    let back = mesh.rare(0, RareEvent::TakenBack);
    assert!(back > 0, "refused {refused} times by {heir}, taken back {back} times");
    exists_once(&mesh, object, 5, "refused by the heir");
}

#[test]
fn objects_of_one_commit_stay_together_through_a_crash_of_both_ends() {
    // Either all that a commit wrote is there, or none of it, wherever the objects have moved since.
    for heard in [false, true] {
        let mesh = apart(7);
        let objects = mesh.create_values(0, &[small(100), small(0)]);
        mesh.run(200);
        if !heard {
            mesh.hold_entries(0);
        }
        let paid = mesh.put_values(0, &[(objects[0], Some(small(40))), (objects[1], Some(small(60)))]).receipt;
        let writer = mesh.begin_for(1, "writer", 300);
        let moved = mesh.intend(writer, &[objects[1]]);
        assert!(moved.is_pending());
        mesh.run(60);
        mesh.end(writer);
        mesh.kill_all(&[0, 1]);
        mesh.take_held();
        mesh.release();
        mesh.run(8_000);
        let expected = if heard { (Some(40), Some(60)) } else { (Some(100), Some(0)) };
        for at in mesh.alive() {
            assert_eq!((mesh.get(at, objects[0]), mesh.get(at, objects[1])), expected);
            assert_eq!(mesh.fate(at, &paid) == FateTold::Lost, !heard);
        }
    }
}

#[test]
fn the_receiver_works_on_an_unstable_arrival_and_loses_that_with_it() {
    // Section 3 of the model: an arrival is not stable, a commit follows it, the receiver dies: the repeated grant
    // brings the object back without that commit, and the commit is told lost.
    let mesh = Mesh::replicated(6, 2);
    let object = mesh.create_known(0, 5);
    mesh.run(200);
    mesh.hold_entries(1);
    let writer = mesh.begin(1, "writer");
    assert!(mesh.intend(writer, &[object]).is_pending());
    mesh.settle();
    ready(mesh.intend(writer, &[object])).unwrap();
    let lost = mesh.commit_amount(writer, object, 6).unwrap();
    assert!(!lost.stable);
    mesh.settle();
    mesh.kill(1);
    mesh.take_held();
    mesh.release();
    exists_once(&mesh, object, 5, "the arrival was lost");
    for at in mesh.alive() {
        assert_eq!(mesh.fate(at, &lost.receipt), FateTold::Lost);
    }
    assert!(!mesh.sent(is_entries).is_empty());
}
