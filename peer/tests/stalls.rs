//! Objects that have to wait before they leave: for room in the grant window, and for their forwarding pointers.

use crate::harness::{Mesh, small};
use driftmesh_model::{Micros, ObjectId};
use driftmesh_peer::{Peer, RareEvent};

/// A mesh whose first peer may keep one forwarding pointer.
fn full_after_one(grace_ms: u64) -> Mesh {
    Mesh::with(3, move |at, setup| {
        if at == 0 {
            setup.config.pointers_max = 1;
            // No multiple of other intervals: timers of the same instant would hide each other.
            setup.config.heartbeat = Micros(100_137);
            setup.config.pointer_grace = Micros::from_millis(grace_ms);
        }
    })
}

#[test]
fn however_long_an_object_waits_for_room_the_timers_stay_few() {
    let mesh = full_after_one(30_000);
    mesh.run(31_000);
    let (first, second) = (mesh.create_known(0, 1), mesh.create_known(0, 2));
    mesh.put(1, first, 3);
    let txn = mesh.begin_for(1, "waits", 60_000);
    assert!(mesh.intend(txn, &[second]).is_pending());
    let mut fired = Vec::new();
    for _ in 0..10 {
        let end = mesh.mono_us() + 1_000_000;
        let mut instants = 0;
        while mesh.mono_us() < end {
            mesh.tick();
            instants += 1;
        }
        fired.push(instants);
    }
    assert!(fired[9] < 2 * fired[1], "instants with timers in each second: {fired:?}");
}

#[test]
fn who_waits_behind_one_that_had_to_wait_and_gave_up_goes_on() {
    for disconnect in [true, false] {
        let mesh = full_after_one(60_000);
        let (first, second) = (mesh.create_known(0, 1), mesh.create_known(0, 2));
        mesh.put(1, first, 3);
        let remote = mesh.begin_for(1, "remote", 60_000);
        mesh.run(1);
        let local = mesh.begin_for(0, "local", 10_000);
        assert!(mesh.intend(remote, &[second]).is_pending());
        mesh.settle();
        assert!(mesh.rare(0, RareEvent::PointersFull) > 0);
        assert!(mesh.intend(local, &[second]).is_pending());
        mesh.end(remote);
        if disconnect {
            mesh.disconnect(0, 1);
        }
        mesh.run(5_000);
        assert!(mesh.intend(local, &[second]).is_ready(), "nobody else wants it any more");
    }
}

#[test]
fn more_objects_than_the_grant_window_go_in_one_transaction() {
    const OBJECTS: usize = 3_000;
    let mesh = Mesh::new(2);
    let values: Vec<_> = (0..OBJECTS as u64).map(small).collect();
    let objects: Vec<ObjectId> = mesh.create_values(0, &values);
    mesh.run(100);
    let txn = mesh.begin_for(1, "takes all", 60_000);
    mesh.intend_wait(txn, &objects).unwrap();
    assert_eq!(mesh.look(1, |peer| peer.group().owned_count()), OBJECTS);
    assert_eq!(mesh.look(0, |peer| peer.group().owned_count()), 0);
    mesh.end(txn);
    mesh.run(10_000);
    assert!(mesh.look(0, Peer::is_quiet));
}
