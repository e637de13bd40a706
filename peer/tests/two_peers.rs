//! F3: a group of one voter is stable only with the learners of its sync set, and says so when it has only itself.

use crate::harness::{Mesh, Rule, is_read_answer, small};
use driftmesh_peer::{FateTold, Peer};

fn in_sync(mesh: &Mesh) -> Vec<bool> {
    mesh.look(0, |peer| peer.group().consensus().membership().learners.values().copied().collect())
}

#[test]
fn with_two_peers_nothing_is_stable_before_the_learner_has_it() {
    let mesh = Mesh::replicated(2, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(200);
    assert_eq!(in_sync(&mesh), [true]);
    mesh.hold_entries(0);
    let put = mesh.put(0, object, 2);
    assert!(!put.stable);
    let reader = mesh.begin(1, "reader");
    assert!(mesh.read(reader, object).is_pending());
    mesh.run(500);
    assert!(mesh.read(reader, object).is_pending(), "what only the leader has is shown to nobody");
    assert_eq!(mesh.fate(0, &put.receipt), FateTold::Unknown);
    mesh.release();
    mesh.run(50);
    assert!(mesh.read(reader, object).is_ready());
    assert_eq!(mesh.fate(0, &put.receipt), FateTold::Stable { copies: 2 });
}

#[test]
fn a_silent_learner_leaves_the_sync_set_after_the_grace_and_returns_when_it_has_caught_up() {
    let mesh = Mesh::replicated(2, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(200);
    mesh.pause(1);
    let put = mesh.put(0, object, 2);
    mesh.run(900);
    assert!(!mesh.look(0, |peer| peer.is_stable(&put.receipt)));
    mesh.run(300);
    assert_eq!(in_sync(&mesh), [false]);
    assert_eq!(mesh.fate(0, &put.receipt), FateTold::Stable { copies: 1 });
    // It works on, and each commit is stable at once, with one copy.
    let put = mesh.put(0, object, 3);
    assert_eq!(mesh.fate(0, &put.receipt), FateTold::Stable { copies: 1 });
    mesh.resume(1);
    mesh.run(3_000);
    assert_eq!(in_sync(&mesh), [true]);
    let put = mesh.put(0, object, 4);
    mesh.run(50);
    assert_eq!(mesh.fate(0, &put.receipt), FateTold::Stable { copies: 2 });
    assert_eq!(mesh.get(1, object), Some(4));
    assert!(!mesh.sent(is_read_answer).is_empty());
}

#[test]
fn a_learner_is_not_elected_by_itself_and_the_founder_comes_back_to_what_it_had() {
    let mesh = Mesh::replicated(2, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(200);
    let group = mesh.group_id(0);
    mesh.disconnect(0, 1);
    mesh.run(5_000);
    assert!(!mesh.leads(1, group) && mesh.leads(0, group));
    mesh.put(0, object, 2);
    mesh.connect(0, 1);
    mesh.run(3_000);
    assert_eq!(mesh.get(1, object), Some(2));
    assert_eq!(in_sync(&mesh), [true]);
    assert_eq!((mesh.metrics(0).deposed, mesh.metrics(1).taken_over), (0, 0));
}

#[test]
fn a_third_peer_makes_voters_of_both_and_then_one_may_die() {
    let mesh = Mesh::replicated(2, 2);
    let object = mesh.create_known(0, 1);
    let third = mesh.join(|setup| {
        setup.config.replicas = 2;
        setup.config.domain = 9;
    });
    mesh.run_until("the group has three voters", 3_000, || mesh.status(0).groups[0].voters == 3);
    mesh.put_values(0, &[(object, Some(small(2)))]);
    mesh.run(200);
    mesh.rule(Rule::Drop, |_| false);
    mesh.kill(0);
    mesh.run(2_000);
    for at in [1, third] {
        assert_eq!(mesh.get(at, object), Some(2));
    }
}

#[test]
fn a_peer_knows_whether_another_one_in_reach_has_copies() {
    let mesh = Mesh::replicated(2, 1);
    mesh.create_known(0, 1);
    mesh.run(500);
    assert!(mesh.look(0, Peer::has_copies));
    mesh.kill(1);
    assert!(!mesh.look(0, Peer::has_copies), "who is gone has none");
    let alone = Mesh::new(2);
    assert!(!alone.look(0, Peer::has_copies));
}
