//! Leaving with replica groups: what is owned goes, the groups it belonged to go on, its own group ends and is known.

use crate::harness::{Mesh, Rule, is_entries, is_groups, small};
use driftmesh_object_store::Entry;
use driftmesh_peer::{FateTold, Peer};

fn drain(mesh: &Mesh, at: usize) {
    mesh.step(at, |peer, now| peer.drain(now));
}

fn leave(mesh: &Mesh, at: usize) {
    drain(mesh, at);
    mesh.run_until("it may go", 20_000, || mesh.look(at, Peer::is_drained));
    mesh.kill(at);
}

#[test]
fn peers_leave_one_after_the_other_down_to_the_last_and_nothing_is_lost() {
    let mesh = Mesh::replicated(4, 2);
    let objects = mesh.create_values(0, &(1..=20).map(small).collect::<Vec<_>>());
    let receipt = mesh.put(0, objects[0], 1).receipt;
    for at in 0..3 {
        leave(&mesh, at);
        assert_eq!(mesh.sum(&objects), 210);
    }
    assert_eq!(mesh.alive(), [3]);
    assert!(mesh.is_kept(3, &receipt));
    assert!(mesh.status(3).leaderless.is_empty());
    assert!(mesh.put(3, objects[0], 2).stable, "it is alone now");
}

#[test]
fn a_group_that_ended_by_leaving_tells_its_receipts_as_before() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let kept = mesh.put(0, object, 2).receipt;
    leave(&mesh, 0);
    for at in 1..4 {
        assert!(mesh.is_kept(at, &kept));
        let never = driftmesh_peer::Receipt { lsn: driftmesh_model::Lsn::from_u64(1_000), ..kept };
        assert!(mesh.fate(at, &never) != FateTold::Stable { copies: 1 });
    }
}

#[test]
fn who_stays_after_all_works_on_in_another_group() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let former = mesh.group_id(0);
    drain(&mesh, 0);
    mesh.run_until("it may go", 20_000, || mesh.look(0, Peer::is_drained));
    mesh.step(0, |peer, now| peer.stay(now));
    mesh.run(3_000);
    assert_ne!(mesh.group_id(0), former);
    mesh.add(0, object, 1);
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (0, Some(2)));
    assert!(mesh.all_whole());
    let kept = mesh.put(0, object, 3).receipt;
    mesh.run(100);
    mesh.kill(0);
    mesh.run(3_000);
    assert!(mesh.is_kept(1, &kept));
    assert_eq!(mesh.get(2, object), Some(3));
}

#[test]
fn staying_before_the_end_is_stable_leaves_no_group_without_a_word() {
    // The last entry is journalled, and the others have not heard it when the peer decides to stay.
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let former = mesh.group_id(0);
    mesh.run(200);
    mesh.rule(Rule::Hold, |flight| crate::harness::carries(flight, |entry| matches!(entry, Entry::Retired)));
    drain(&mesh, 0);
    mesh.run_until("it ends its group", 20_000, || mesh.look(0, |peer| peer.group().is_retired()));
    mesh.step(0, |peer, now| peer.stay(now));
    mesh.take_held();
    mesh.release();
    mesh.run(10_000);
    assert_eq!(mesh.add(0, object, 1).receipt.group, mesh.group_id(0));
    for at in 0..4 {
        assert!(mesh.status(at).leaderless.is_empty(), "{at}: {:?} was {former}", mesh.status(at).leaderless);
    }
    assert!(mesh.is_ended_everywhere(former));
}

#[test]
fn half_of_the_peers_leave_at_once() {
    let mesh = Mesh::replicated(6, 2);
    let mut objects = Vec::new();
    for at in 0..6 {
        objects.extend(mesh.create_values(at, &(1..=10).map(small).collect::<Vec<_>>()));
    }
    mesh.run(500);
    for at in [0, 1, 2] {
        drain(&mesh, at);
    }
    mesh.run_until("all three may go", 30_000, || [0, 1, 2].iter().all(|at| mesh.look(*at, Peer::is_drained)));
    mesh.kill_all(&[0, 1, 2]);
    mesh.run(3_000);
    assert_eq!(mesh.sum(&objects), 330);
    assert!(mesh.all_whole());
}

#[test]
fn a_peer_may_go_only_when_the_end_of_its_group_is_told() {
    let mesh = Mesh::replicated(4, 2);
    mesh.create_known(0, 1);
    mesh.run(200);
    mesh.rule(Rule::Hold, |flight| flight.from == 0 && is_entries(flight));
    drain(&mesh, 0);
    mesh.run(300);
    assert!(!mesh.look(0, Peer::is_drained), "what it journals is not stable");
    mesh.release();
    mesh.run_until("it may go", 20_000, || mesh.look(0, Peer::is_drained));
    let told = mesh.sent(|flight| flight.from == 0 && is_groups(flight));
    assert!(told.len() >= 3, "everybody is told");
}

#[test]
fn a_peer_that_crashes_while_it_leaves_is_like_any_other_that_crashes() {
    for after in [0, 5, 10, 20, 50, 100, 150, 200, 300] {
        let mesh = Mesh::replicated(5, 2);
        mesh.rule(Rule::Delay(2_000), |_| true);
        let objects = mesh.create_values(0, &(1..=40).map(small).collect::<Vec<_>>());
        mesh.run(500);
        let former = mesh.group_id(0);
        drain(&mesh, 0);
        mesh.run(after);
        mesh.kill(0);
        mesh.run(8_000);
        assert_eq!(mesh.sum(&objects), 820, "after {after} ms");
        assert!(mesh.is_ended_everywhere(former), "after {after} ms");
    }
}

#[test]
fn no_peer_may_stop_while_the_end_of_a_group_is_known_to_one() {
    let mesh = Mesh::replicated(4, 2);
    mesh.create_known(0, 1);
    mesh.run(200);
    let former = mesh.group_id(0);
    mesh.kill(0);
    mesh.run_until("somebody leads", 1_000, || (1..4).any(|at| mesh.leads(at, former)));
    let heir = (1..4).find(|at| mesh.leads(*at, former)).unwrap();
    mesh.rule(Rule::Drop, move |flight| flight.from == heir && is_groups(flight));
    mesh.run_until("it has ended", 5_000, || mesh.look(heir, |peer| peer.has_ended(former)));
    assert!((1..4).all(|at| at == heir || !mesh.look(at, |peer| peer.has_ended(former))));
    mesh.run(3_000);
    assert!(!mesh.status(heir).may_stop, "what remains of the group would go with it");
    mesh.release();
    mesh.run(3_000);
    assert!(mesh.is_ended_everywhere(former));
    assert!(mesh.all_whole() && mesh.status(heir).may_stop);
}

#[test]
fn the_end_of_a_group_is_told_once_and_not_for_as_long_as_its_peer_stays() {
    let mesh = Mesh::replicated(4, 2);
    mesh.create_known(0, 1);
    drain(&mesh, 0);
    mesh.run_until("it may go", 20_000, || mesh.look(0, Peer::is_drained));
    mesh.clear_log();
    mesh.run(1_000);
    let told = mesh.sent(|flight| flight.from == 0 && is_groups(flight));
    assert!(told.len() <= 6, "told {} times", told.len());
}

#[test]
fn what_was_told_of_the_end_of_a_group_is_its_end() {
    // R22: a receipt at a later position would be decided by nobody.
    for replicas in [1, 2] {
        let mesh = Mesh::replicated(4, replicas);
        mesh.create_known(0, 1);
        let group = mesh.group_id(0);
        drain(&mesh, 0);
        mesh.run_until("it may go", 20_000, || mesh.look(0, Peer::is_drained));
        let told = mesh.look(0, |peer| peer.remains_of(group).map(|ended| ended.tail));
        // It stays for a while, and somebody walks through what it owns.
        let walker = mesh.begin_snapshot(1);
        let _ = mesh.step(1, |peer, now| peer.scan(now, walker.id, crate::harness::peer_id(0), 0));
        mesh.run(3_000);
        assert_eq!(Some(mesh.tail(0)), told);
    }
}
