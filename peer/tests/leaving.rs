//! A peer that leaves hands over everything, also what comes into its hands while it leaves.

use crate::harness::{Mesh, Rule, is_grant, ready, small};
use driftmesh_object_store::Write;
use driftmesh_peer::{Peer, TxnWrites};

#[test]
fn what_an_open_transaction_creates_while_its_peer_leaves_is_handed_over() {
    let mesh = Mesh::new(3);
    mesh.run(200);
    let txn = mesh.begin_for(0, "late", 30_000);
    mesh.step(0, |peer, now| peer.drain(now));
    mesh.run(1_000);
    let object = mesh.step(0, |peer, _| peer.new_object_id());
    let mut writes = TxnWrites {
        writes: vec![Write { object, value: Some(small(1)) }],
        created: vec![object],
        outcome: None,
        schedules: Vec::new(),
    };
    ready(mesh.step(0, |peer, now| peer.commit(now, txn.id, &mut writes))).unwrap();
    mesh.run(10_000);
    assert!(mesh.look(0, Peer::is_drained));
    assert_ne!(mesh.owner_of(object), 0);
}

#[test]
fn what_is_refused_and_taken_back_while_leaving_goes_to_another() {
    let mesh = Mesh::new(4);
    let object = mesh.create_known(0, 1);
    mesh.run(200);
    mesh.rule(Rule::Hold, is_grant);
    mesh.step(0, |peer, now| peer.drain(now));
    mesh.run(200);
    let (to, _) =
        mesh.look(0, |peer| peer.group().in_transit(object).map(|(group, transit)| (group, transit.epoch))).unwrap();
    let to = (1..4).find(|at| mesh.look(*at, |peer| peer.group().id()) == to).unwrap();
    // The one that it was sent to begins to leave too.
    mesh.step(to, |peer, now| peer.drain(now));
    mesh.release();
    mesh.run(10_000);
    assert!(mesh.look(0, Peer::is_drained));
    assert!(![0, to].contains(&mesh.owner_of(object)));
}
