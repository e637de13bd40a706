//! Steps that are refused whatever was done before: what a snapshot may not do, what nobody holds the lock of, and what is
//! more than a peer or a transaction may have (R24). What is refused leaves no trace.

use crate::harness::{Mesh, is_heartbeat, ready, small};
use driftmesh_model::limits::TRANSACTION_OBJECTS_MAX;
use driftmesh_model::{Micros, ObjectId, TaskId, TaskKey};
use driftmesh_object_store::{TaskOutcome, Write};
use driftmesh_peer::{Begin, Peer, StepError, TaskFound, TaskKind, TxnWrites};

fn beginning(kind: &str) -> Begin {
    let (kind, deadline) = (TaskKind::new(kind), Micros::from_millis(60_000));
    Begin { kind, deadline, age: None, read_only: true, recent: None, task: None }
}

#[test]
fn a_snapshot_locks_and_writes_nothing() {
    let mesh = Mesh::new(1);
    let object = mesh.create(0, 1);
    let (snapshot, tail) = (mesh.begin_snapshot(0), mesh.tail(0));
    assert_eq!(ready(mesh.intend(snapshot, &[object])), Err(StepError::ReadOnly));
    assert_eq!(mesh.commit(snapshot, &[(object, Some(small(2)))]), Err(StepError::ReadOnly));
    assert_eq!((mesh.newest(object), mesh.tail(0)), (Some(1), tail));
}

#[test]
fn an_outcome_is_kept_only_by_who_holds_the_lock_of_its_anchor() {
    let mesh = Mesh::new(1);
    let object = mesh.create(0, 1);
    let task = TaskId { anchor: object, key: TaskKey { issued: mesh.now(0).wall, number: 1 } };
    let txn = mesh.begin(0, "task");
    let seen = || ready(mesh.step(0, |peer, now| peer.task_seen(now, txn.id, &task)));
    let commit = || {
        let outcome = Some(Box::new(TaskOutcome { task, answer: small(1), oldest: Micros(0) }));
        let mut writes = TxnWrites { writes: Vec::new(), created: Vec::new(), outcome, schedules: Vec::new() };
        ready(mesh.step(0, |peer, now| peer.commit(now, txn.id, &mut writes)))
    };
    let tail = mesh.tail(0);
    // R21: between the question and the commit another copy of the task could commit.
    assert_eq!(seen(), Err(StepError::NotIntended(object)));
    assert_eq!(commit(), Err(StepError::NotIntended(object)));
    assert_eq!(
        ready(mesh.step(0, |peer, now| peer.schedules_of(now, txn.id, object))),
        Err(StepError::NotIntended(object))
    );
    assert_eq!(mesh.tail(0), tail);
    ready(mesh.intend(txn, &[object])).unwrap();
    assert_eq!(seen(), Ok(TaskFound::New));
    commit().unwrap();
    assert_eq!(mesh.look(0, Peer::kept_outcomes), 1);
}

#[test]
fn a_transaction_touches_no_more_objects_than_it_may() {
    let mesh = Mesh::new(1);
    let values = vec![small(1); TRANSACTION_OBJECTS_MAX / 2 + 1];
    let objects = [mesh.create_values(0, &values), mesh.create_values(0, &values)].concat();
    let (some, more) = objects.split_at(TRANSACTION_OBJECTS_MAX);
    let (reader, writer) = (mesh.begin_for(0, "reader", 60_000), mesh.begin_for(0, "writer", 60_000));
    assert_eq!(ready(mesh.intend(writer, &objects)), Err(StepError::TooManyObjects));
    // It has locked none of them.
    let other = mesh.begin(0, "other");
    ready(mesh.intend(other, &more[..1])).unwrap();
    ready(mesh.intend(other, &some[..1])).unwrap();
    mesh.end(other);
    for object in some {
        ready(mesh.read(reader, *object)).unwrap();
        ready(mesh.intend(writer, &[*object])).unwrap();
    }
    for object in more {
        assert_eq!(ready(mesh.read(reader, *object)), Err(StepError::TooManyObjects));
        assert_eq!(ready(mesh.intend(writer, &[*object])), Err(StepError::TooManyObjects));
    }
    ready(mesh.read(reader, some[0])).unwrap();
}

#[test]
fn no_more_transactions_are_open_than_a_peer_has_room_for() {
    const OPEN_MAX: usize = 1 << 16;
    let mesh = Mesh::new(1);
    let object = mesh.create(0, 1);
    let begin = || mesh.step(0, |peer, now| peer.begin(now, beginning("open")));
    let open: Vec<_> = (0..OPEN_MAX).map(|_| begin().unwrap()).collect();
    assert_eq!(begin(), Err(StepError::Busy));
    mesh.step(0, |peer, now| peer.end(now, open[7]));
    let next = begin().unwrap();
    // Its place is another's now; its id is nobody's.
    assert!(!open.contains(&next));
    assert_eq!(ready(mesh.step(0, |peer, now| peer.read(now, open[7], object))).unwrap_err(), StepError::Ended);
    assert_eq!(begin(), Err(StepError::Busy));
}

#[test]
fn an_import_is_for_a_founder_that_has_met_nobody() {
    let object = ObjectId::from_u128(5);
    for (peers, founder, takes) in [(1, true, true), (1, false, false), (2, true, false)] {
        let mesh = Mesh::with(peers, |at, setup| setup.config.founder = founder && at == 0);
        let (writes, tail) = (vec![Write { object, value: Some(small(5)) }], mesh.tail(0));
        // R23, R19: anybody else may have the object already.
        assert_eq!(mesh.step(0, |peer, now| peer.import(now, writes, Vec::new())), takes);
        assert_eq!((mesh.newest_at(0, object), mesh.tail(0) > tail), (takes.then_some(5), takes));
    }
}

#[test]
fn what_a_peer_says_before_it_stops_goes_to_everybody_at_once() {
    let mesh = Mesh::new(3);
    mesh.run(3_000);
    mesh.step(0, |peer, now| peer.announce(now));
    assert_eq!(mesh.in_flight(|flight| flight.from == 0 && is_heartbeat(flight)).len(), 2);
}
