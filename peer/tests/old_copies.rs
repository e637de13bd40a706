//! R11: a copy of a peer's memory as it was some time ago, with the same key and the same incarnation, takes no part: it has
//! forgotten what it voted and acknowledged since.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::harness::{Mesh, Rule, is_entries, peer_id};
use driftmesh_model::{GroupId, Incarnation, Lsn, Micros, Timestamp};
use driftmesh_object_store::Group;
use driftmesh_peer::{Begin, Envelope, Introduction, Message, Peer, RareEvent, StepError, TaskKind};

#[test]
fn an_old_copy_is_refused_falls_silent_and_its_group_goes_on_without_it() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(500);
    let image = mesh.image(0);
    // What the copy does not know of: two commits, and that the object left.
    mesh.add(0, object, 1);
    mesh.add(1, object, 1);
    mesh.run(1_500);
    mesh.kill(0);
    mesh.run(50);
    mesh.clear_log();
    mesh.set_back(0, image);
    mesh.run(50);
    assert!(mesh.look(0, Peer::is_superseded));
    for at in [1, 2] {
        assert_eq!(mesh.rare(at, RareEvent::OldCopyRefused), 1);
    }
    // It believes to own the object, and may not write it.
    assert_eq!(mesh.owners_of(object), [0, 1]);
    let begin = Begin {
        kind: TaskKind::new("too late"),
        deadline: Micros::from_millis(100),
        age: None,
        read_only: false,
        recent: None,
        task: None,
    };
    assert_eq!(mesh.step(0, |peer, now| peer.begin(now, begin)), Err(StepError::Superseded));
    mesh.clear_log();
    mesh.run(3_000);
    assert!(mesh.sent(|flight| flight.from == 0).is_empty(), "it speaks");
    // The others replace it, and a start of its own is admitted as always.
    mesh.restart(0);
    mesh.run(3_000);
    mesh.add(0, object, 1);
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (0, Some(4)));
}

/// R11, R19: what a peer made after an image was taken of it is none of what the image makes when it comes to life.
#[test]
fn an_old_copy_makes_no_object_with_an_id_that_its_former_self_has_used() {
    let mesh = Mesh::replicated(3, 2);
    mesh.run(500);
    let image = mesh.image(0);
    let draw = |mesh: &Mesh| mesh.step(0, |peer, _| peer.new_object_id());
    mesh.run(10);
    let drawn = [draw(&mesh), draw(&mesh)];
    mesh.kill(0);
    mesh.run(50);
    mesh.set_back(0, image);
    mesh.run(10);
    for _ in 0..4 {
        assert!(!drawn.contains(&draw(&mesh)));
    }
}

#[test]
fn nothing_that_an_old_copy_says_is_heard() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(500);
    let image = mesh.image(0);
    mesh.run(1_500);
    mesh.kill(0);
    // Nobody tells it: it goes on to believe in itself.
    mesh.rule(Rule::Drop, |flight| flight.to == 0);
    mesh.set_back(0, image);
    assert!(!mesh.look(0, Peer::is_superseded));
    let group = mesh.group_id(0);
    mesh.put(0, object, 5);
    let entry = mesh.journal(0).last().cloned().unwrap();
    mesh.run(2_000);
    assert!(!mesh.sent(|flight| flight.from == 0 && is_entries(flight)).is_empty(), "it says nothing to be refused");
    for at in 1..3 {
        let has_it = |of: &Group| of.entries_from(Lsn::ZERO).any(|(_, held)| *held == entry);
        assert_ne!(mesh.look_at_group(at, group, has_it), Some(true));
    }
}

#[test]
fn an_old_copy_is_told_until_it_hears_it() {
    let mesh = Mesh::replicated(3, 2);
    mesh.create_known(0, 1);
    mesh.run(500);
    let image = mesh.image(0);
    mesh.run(1_500);
    mesh.kill(0);
    mesh.set_back(0, image);
    // The first time it is lost.
    let lost = mesh.intercept(|flight| matches!(flight.message(), Message::Forgotten { .. }));
    assert_eq!(lost.len(), 2);
    assert!(!mesh.look(0, Peer::is_superseded));
    mesh.run(2_500);
    assert!(mesh.look(0, Peer::is_superseded));
}

#[test]
fn a_copy_of_a_peer_whose_group_has_ended_meanwhile_is_known_too() {
    let mesh = Mesh::replicated(4, 2);
    mesh.create_known(0, 1);
    mesh.run(500);
    let image = mesh.image(0);
    mesh.run(1_500);
    // It leaves in order, and its group ends.
    mesh.step(0, Peer::drain);
    mesh.run_until("it has left", 20_000, || mesh.look(0, |peer| peer.is_drained() && peer.is_quiet()));
    mesh.kill(0);
    mesh.run(2_000);
    mesh.set_back(0, image);
    mesh.run(50);
    assert!(mesh.look(0, Peer::is_superseded));
}

#[test]
fn who_is_refused_by_an_introduction_that_is_out_of_date_introduces_itself_again() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(500);
    let outdated = mesh.look(0, Peer::introduction);
    mesh.run(1_500);
    mesh.disconnect(0, 1);
    mesh.connect(0, 1);
    mesh.disconnect(0, 1);
    mesh.heal(0, 1);
    let introduction = mesh.look(1, Peer::introduction);
    mesh.step(0, |peer, now| peer.joined(now, peer_id(1), introduction));
    mesh.step(1, |peer, now| peer.joined(now, peer_id(0), outdated));
    assert_eq!(mesh.rare(1, RareEvent::OldCopyRefused), 1);
    mesh.run(500);
    assert!(!mesh.look(0, Peer::is_superseded));
    assert!(!mesh.sent(|flight| matches!(flight.message(), Message::Introduced(_))).is_empty());
    mesh.add(1, object, 1);
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (1, Some(2)));
}

#[test]
fn a_word_about_another_start_of_a_peer_does_not_silence_this_one() {
    let mesh = Mesh::replicated(3, 2);
    let forgotten = |incarnation| Message::Forgotten { incarnation, heartbeats: u64::MAX };
    mesh.forge(1, 0, forgotten(Incarnation::from_u64(77)));
    assert!(!mesh.look(0, Peer::is_superseded));
    mesh.forge(1, 0, forgotten(mesh.look(0, Peer::introduction).incarnation));
    assert!(mesh.look(0, Peer::is_superseded));
}

#[test]
fn a_stranger_does_not_become_a_member_by_introducing_itself() {
    let mesh = Mesh::new(2);
    let known = mesh.look(1, Peer::introduction);
    let introduction = Introduction { incarnation: Incarnation::from_u64(77), group: GroupId::from_u128(77), ..known };
    let envelope = Envelope { clock: Timestamp::ZERO, message: Message::Introduced(introduction) };
    mesh.step(0, |peer, now| peer.received(now, peer_id(77), envelope));
    assert_eq!(mesh.status(0).members.len(), 1);
    assert!(mesh.intercept(|flight| flight.to == 77).is_empty());
}

#[test]
fn nobody_is_admitted_as_this_peer_or_as_the_leader_of_its_group() {
    let mesh = Mesh::new(2);
    let own = mesh.look(0, Peer::introduction);
    let other = Introduction { incarnation: Incarnation::from_u64(77), group: GroupId::from_u128(77), ..own };
    let before = mesh.metrics(0).malformed;
    // R5: of two who lead one group, one would write what the other owns.
    mesh.step(0, |peer, now| peer.joined(now, peer_id(0), other));
    mesh.step(0, |peer, now| peer.joined(now, peer_id(1), own));
    assert_eq!(mesh.metrics(0).malformed, before + 2);
    let members: Vec<_> = mesh.status(0).members.iter().map(|member| (member.peer, member.group)).collect();
    assert_eq!(members, [(peer_id(1), mesh.group_id(1))]);
}
