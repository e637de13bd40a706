//! R10: what is not stable is bounded in time and bytes; beyond it commits wait where a wound still works.

use crate::harness::{Mesh, ready, small};
use driftmesh_model::{Micros, Value};
use driftmesh_peer::{Cause, StepError};
use std::task::Poll;

#[test]
fn commits_wait_when_the_oldest_is_unstable_for_too_long_and_go_on_when_a_follower_is_back() {
    let mesh = Mesh::replicated(3, 2);
    let (object, other) = (mesh.create_known(0, 0), mesh.create_known(0, 0));
    mesh.run(100);
    for follower in [1, 2] {
        mesh.pause(follower);
    }
    mesh.put(0, object, 1);
    mesh.run(990);
    let in_time = mesh.begin_for(0, "in time", 60_000);
    ready(mesh.intend(in_time, &[object])).unwrap();
    assert!(mesh.try_commit(in_time, &[(object, Some(small(2)))]).is_ready());
    mesh.run(20);
    let late = mesh.begin_for(0, "late", 60_000);
    ready(mesh.intend(late, &[object])).unwrap();
    assert!(mesh.try_commit(late, &[(object, Some(small(3)))]).is_pending());
    assert_eq!(mesh.metrics(0).held_commits, 1);
    // What only reads goes on, and what waits holds its locks.
    let reader = mesh.begin(0, "reader");
    assert_eq!(mesh.read_wait(reader, object), Ok(Some(2)));
    assert!(mesh.commit(reader, &[]).is_ok());
    let behind = mesh.begin_for(0, "behind", 60_000);
    assert!(mesh.intend(behind, &[object]).is_pending());
    ready(mesh.intend(behind, &[other])).unwrap();
    mesh.run(5_000);
    assert!(!mesh.woken(late) && mesh.try_commit(late, &[(object, Some(small(3)))]).is_pending());
    mesh.resume(1);
    mesh.settle();
    assert!(mesh.woken(late));
    ready(mesh.try_commit(late, &[(object, Some(small(3)))])).unwrap();
    mesh.run(100);
    assert_eq!((mesh.watermark(0), mesh.newest(object)), (mesh.tail(0), Some(3)));
}

#[test]
fn a_wound_ends_a_commit_that_waits_and_so_does_its_deadline() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 0);
    mesh.run(100);
    let old = mesh.begin_for(0, "old", 60_000);
    mesh.run(1);
    let young = mesh.begin_for(0, "young", 60_000);
    for follower in [1, 2] {
        mesh.pause(follower);
    }
    mesh.put(0, object, 1);
    mesh.run(1_050);
    mesh.end(young);
    let young = mesh.begin_for(0, "young", 60_000);
    ready(mesh.intend(young, &[object])).unwrap();
    assert!(mesh.try_commit(young, &[(object, Some(small(2)))]).is_pending());
    // R12: the older one takes the lock at once.
    let taken = mesh.intend(old, &[object]);
    assert!(matches!(mesh.failure(young), Some(Cause::Wounded { .. })));
    assert!(mesh.woken(young));
    assert!(matches!(mesh.try_commit(young, &[(object, Some(small(2)))]), Poll::Ready(Err(StepError::Failed(_)))));
    assert!(taken.is_ready());
    mesh.end(old);
    let brief = mesh.begin_for(0, "brief", 300);
    ready(mesh.intend(brief, &[object])).unwrap();
    assert!(mesh.try_commit(brief, &[(object, Some(small(4)))]).is_pending());
    mesh.run(301);
    assert!(mesh.woken(brief));
    assert_eq!(mesh.try_commit(brief, &[(object, Some(small(4)))]), Poll::Ready(Err(StepError::Expired)));
    mesh.resume(1);
    mesh.resume(2);
    mesh.run(200);
    assert_eq!(mesh.newest(object), Some(1));
}

#[test]
fn commits_wait_when_too_many_bytes_are_unstable() {
    let mesh = Mesh::replicated_with(3, 2, |_, setup| {
        setup.config.unstable_bytes_max = 100_000;
        setup.config.unstable_max = Micros::from_millis(60_000);
    });
    let object = mesh.create_known(0, 0);
    mesh.run(100);
    mesh.hold_entries(0);
    let big = Value::from_slice(&vec![7; 10_000]);
    let mut committed = 0;
    let held = loop {
        let writer = mesh.begin_for(0, "writer", 60_000);
        ready(mesh.intend(writer, &[object])).unwrap();
        if mesh.try_commit(writer, &[(object, Some(big.clone()))]).is_pending() {
            break writer;
        }
        committed += 1;
        assert!(committed < 20, "nothing stops it");
    };
    assert!((9..=11).contains(&committed), "{committed} commits of 10 kB");
    assert!(mesh.status(0).unstable_bytes >= 100_000);
    mesh.release();
    mesh.settle();
    assert!(mesh.woken(held));
    assert!(ready(mesh.try_commit(held, &[(object, Some(big))])).is_ok());
}

#[test]
fn transactions_that_give_up_while_they_wait_leave_nothing_behind() {
    let mesh = Mesh::replicated(3, 2);
    let objects = mesh.create_values(0, &[small(1), small(2)]);
    mesh.run(100);
    mesh.pause(1);
    mesh.pause(2);
    mesh.put(0, objects[0], 3);
    mesh.run(1_100);
    for _ in 0..100 {
        let writer = mesh.begin_for(0, "writer", 60_000);
        ready(mesh.intend(writer, &[objects[1]])).unwrap();
        assert!(mesh.try_commit(writer, &[(objects[1], Some(small(9)))]).is_pending());
        mesh.end(writer);
    }
    let last = mesh.begin_for(0, "last", 60_000);
    ready(mesh.intend(last, &[objects[1]])).unwrap();
    assert!(mesh.try_commit(last, &[(objects[1], Some(small(4)))]).is_pending());
    mesh.resume(1);
    mesh.resume(2);
    mesh.run(50);
    assert!(ready(mesh.try_commit(last, &[(objects[1], Some(small(4)))])).is_ok());
    assert_eq!(mesh.newest(objects[1]), Some(4));
}

#[test]
fn many_held_commits_all_go_on_when_a_follower_is_back() {
    let mesh = Mesh::replicated(3, 2);
    let objects: Vec<_> = (0..200).map(|_| mesh.create(0, 0)).collect();
    mesh.run(100);
    for follower in [1, 2] {
        mesh.pause(follower);
    }
    mesh.put(0, objects[0], 1);
    mesh.run(1_010);
    let mut held: Vec<_> = objects.iter().map(|object| (mesh.begin_for(0, "held", 60_000), *object)).collect();
    for (txn, object) in &held {
        ready(mesh.intend(*txn, &[*object])).unwrap();
        assert!(mesh.try_commit(*txn, &[(*object, Some(small(2)))]).is_pending());
    }
    mesh.resume(1);
    // Those who are woken first give up: nothing of them becomes stable that could wake the others.
    let mut give_up = 150;
    for _ in 0..2_000 {
        mesh.run(1);
        held.retain(|(txn, object)| {
            if !mesh.woken(*txn) {
                return true;
            }
            if give_up > 0 {
                give_up -= 1;
                mesh.end(*txn);
                return false;
            }
            mesh.try_commit(*txn, &[(*object, Some(small(2)))]).is_pending()
        });
    }
    assert_eq!(held.len(), 0, "nobody wakes them");
}
