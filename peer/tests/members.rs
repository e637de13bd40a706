//! R11: members are replaced when they are gone for good, a new one counts when it has caught up, and who lost its state
//! is somebody new.

use crate::harness::{Flight, Mesh, Rule, is_held_word, small};
use driftmesh_model::{Micros, ObjectId};
use driftmesh_object_store::{GroupMessage, MemberId};
use driftmesh_peer::Message;
use std::sync::atomic::{AtomicUsize, Ordering};

fn is_slice(flight: &Flight) -> bool {
    matches!(flight.message(), Message::Group { message: GroupMessage::Slice(_), .. })
}

fn voters(mesh: &Mesh, at: usize) -> usize {
    mesh.status(at).groups[0].voters
}

/// Whether one member holds exactly what the leader of a peer's own group does.
fn holds_all(mesh: &Mesh, leader: usize, follower: usize, objects: &[ObjectId]) -> bool {
    let group = mesh.group_id(leader);
    let newest = |at: usize, object: ObjectId| {
        mesh.look_at_group(at, group, |group| group.owned(object).map(|stored| stored.chain.newest().clone())).flatten()
    };
    objects
        .iter()
        .all(|object| newest(leader, *object).is_some() && newest(leader, *object) == newest(follower, *object))
}

#[test]
fn a_dead_follower_is_replaced_after_the_grace_and_a_paused_one_is_not() {
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 1);
    let group = mesh.group_id(0);
    let before = mesh.followers(group);
    mesh.pause(before[0]);
    mesh.run(1_500);
    mesh.resume(before[0]);
    mesh.run(3_000);
    assert_eq!(mesh.followers(group), before, "a pause replaces nobody");
    mesh.kill(before[0]);
    mesh.run(1_000);
    assert_eq!(mesh.followers(group), before[1..], "not before the grace");
    mesh.run(4_000);
    let after = mesh.followers(group);
    assert!(after.len() == 2 && after.contains(&before[1]), "{after:?}");
    assert!(mesh.all_whole() && mesh.status(0).groups[0].may_lose_one);
    // Now the leader and the new one count: the old follower may go too.
    let kept = mesh.put(0, object, 2).receipt;
    mesh.run(100);
    mesh.kill(before[1]);
    mesh.put(0, object, 3);
    mesh.run(100);
    assert!(mesh.is_kept(0, &kept));
    assert_eq!(mesh.watermark(0), mesh.tail(0));
}

#[test]
fn a_new_member_gets_a_large_state_in_slices_while_commits_go_on() {
    let mesh = Mesh::with(4, |at, setup| {
        setup.config.replicas = 2;
        setup.config.domain = at as u64;
        setup.config.journal.keep_bytes = 1 << 16;
        setup.config.journal.lag_bytes = 1 << 15;
    });
    mesh.run_until("all groups are whole", 10_000, || mesh.all_whole());
    let mut objects = Vec::new();
    for batch in 0..24 {
        objects.extend(mesh.create_values(0, &(0..500).map(|number| small(batch * 500 + number)).collect::<Vec<_>>()));
        mesh.run(5);
    }
    mesh.run(500);
    let group = mesh.group_id(0);
    let before = mesh.followers(group);
    let outside = (1..4).find(|at| !before.contains(at)).unwrap();
    mesh.rule(Rule::Delay(1_000), is_slice);
    // Some words that slices have arrived are lost: the next one speaks of several.
    let words = AtomicUsize::new(0);
    mesh.rule(Rule::Drop, move |flight| {
        let is_word = matches!(flight.message(), Message::Group { message: GroupMessage::SliceTaken { .. }, .. });
        is_word && !words.fetch_add(1, Ordering::Relaxed).is_multiple_of(3)
    });
    mesh.clear_log();
    mesh.kill(before[0]);
    let mut number = 0_usize;
    while !(mesh.followers(group).contains(&outside) && mesh.all_whole()) {
        number += 1;
        assert!(number < 3_000, "it never catches up");
        let object = objects[number * 37 % objects.len()];
        assert!(!mesh.put(0, object, 1_000_000 + number as u64).awaited_message);
        mesh.run(5);
    }
    assert!(mesh.sent(is_slice).len() > 10, "{} slices", mesh.sent(is_slice).len());
    assert_eq!(mesh.metrics(0).held_commits, 0);
    mesh.run(500);
    assert!(holds_all(&mesh, 0, outside, &objects));
    assert_eq!(voters(&mesh, 0), 3);
    // And it serves them all.
    mesh.kill(0);
    mesh.run(5_000);
    let alive = mesh.alive();
    for (turn, object) in objects.iter().enumerate().step_by(997) {
        assert!(mesh.get(alive[turn % 2], *object).is_some());
    }
    let owned: usize = alive.iter().flat_map(|at| mesh.look_at_led(*at, |group| group.owned_count())).sum();
    assert_eq!(owned, objects.len());
}

#[test]
fn who_comes_back_as_another_incarnation_is_somebody_new() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    let group = mesh.group_id(0);
    let lost = mesh.followers(group)[0];
    let other = mesh.followers(group)[1];
    let former = mesh.look(lost, |peer| peer.introduction().incarnation);
    mesh.kill(lost);
    // The other one is silent: only the one that came back could make anything stable.
    mesh.pause(other);
    mesh.restart_with(lost, |setup| {
        setup.config.replicas = 2;
        setup.config.domain = 50;
    });
    let put = mesh.put(0, object, 2).receipt;
    mesh.run(700);
    assert!(!mesh.look(0, |peer| peer.is_stable(&put)), "an acknowledgement of one that lost its state counted");
    mesh.resume(other);
    mesh.run(5_000);
    assert!(mesh.look(0, |peer| peer.is_stable(&put)));
    let members = mesh.look(0, |peer| peer.group().consensus().membership().clone());
    assert_eq!(members.voters.len(), 3);
    assert!(members.members().iter().all(|member| member.incarnation != former));
    assert!(holds_all(&mesh, 0, lost, &[object]));
}

#[test]
fn restarting_all_one_by_one_as_soon_as_it_may_be_loses_nothing() {
    // F11.
    let mesh = Mesh::replicated(4, 2);
    let objects = mesh.create_values(0, &(1..=40).map(small).collect::<Vec<_>>());
    for (turn, object) in objects.iter().enumerate() {
        mesh.add(turn % 4, *object, 0);
    }
    mesh.run(500);
    for at in 0..4 {
        mesh.run_until("another one may stop", 20_000, || mesh.alive().iter().all(|at| mesh.status(*at).may_stop));
        mesh.kill(at);
        mesh.restart_with(at, |setup| {
            setup.config.replicas = 2;
            setup.config.domain = at as u64;
        });
        for turn in 0..5 {
            mesh.add((at + 1 + turn) % 4, objects[turn * 7], 0);
        }
    }
    mesh.run_until("all is whole at last", 20_000, || mesh.all_whole());
    assert_eq!(mesh.sum(&objects), 820);
}

#[test]
fn a_replaced_follower_that_comes_back_learns_that_it_belongs_no_more() {
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 1);
    let group = mesh.group_id(0);
    let out = mesh.followers(group)[0];
    for other in (0..5).filter(|other| *other != out) {
        mesh.disconnect(out, other);
    }
    mesh.run(5_000);
    assert!(!mesh.look(0, |peer| {
        peer.group().consensus().membership().members().iter().any(|member| member.peer == crate::harness::peer_id(out))
    }));
    let term = mesh.look(0, |peer| peer.group().term());
    for other in (0..5).filter(|other| *other != out) {
        mesh.connect(out, other);
    }
    mesh.run(5_000);
    assert!(mesh.look_at_group(out, group, |_| ()).is_none());
    assert_eq!(mesh.look(0, |peer| peer.group().term()), term, "it unseated nobody");
    mesh.put(0, object, 2);
    assert_eq!(mesh.get(out, object), Some(2));
}

#[test]
fn late_words_of_a_follower_that_was_replaced_do_not_count() {
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 1);
    let group = mesh.group_id(0);
    let (dead, stays) = (mesh.followers(group)[0], mesh.followers(group)[1]);
    mesh.put(0, object, 2);
    mesh.run(100);
    mesh.pause(dead);
    mesh.run(6_000);
    let new = mesh.followers(group).into_iter().find(|at| ![dead, stays].contains(at)).expect("it was replaced");
    mesh.pause(stays);
    mesh.pause(new);
    let put = mesh.put(0, object, 3).receipt;
    mesh.resume(dead);
    mesh.rule(Rule::Drop, move |flight| flight.from != dead && is_held_word(flight));
    mesh.run(800);
    assert!(!mesh.look(0, |peer| peer.is_stable(&put)));
}

#[test]
fn a_leaving_peer_is_replaced_in_every_group_before_it_goes() {
    let mesh = Mesh::replicated(5, 2);
    let objects = mesh.create_values(2, &(1..=30).map(small).collect::<Vec<_>>());
    mesh.run(300);
    let group = mesh.group_id(2);
    mesh.step(2, |peer, now| peer.drain(now));
    let mut always_enough = true;
    mesh.run_until("it may go", 20_000, || {
        for at in [0, 1, 3, 4] {
            always_enough &= voters(&mesh, at) == 3;
        }
        mesh.look(2, driftmesh_peer::Peer::is_drained)
    });
    assert!(always_enough, "no group was smaller meanwhile");
    for at in [0, 1, 3, 4] {
        let members = mesh.look(at, |peer| peer.group().consensus().membership().members());
        assert!(members.iter().all(|member| member.peer != crate::harness::peer_id(2)), "peer {at} still counts on it");
        assert!(mesh.status(at).groups[0].may_lose_one);
        assert!(mesh.look(at, |peer| peer.remains_of(group).is_some()));
    }
    mesh.kill(2);
    mesh.kill(0);
    mesh.run(3_000);
    assert_eq!(mesh.sum(&objects), 465);
}

#[test]
fn a_dead_voter_is_replaced_before_a_leaving_one_that_answers() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let group = mesh.group_id(0);
    let before = mesh.followers(group);
    let newcomer = (1..4).find(|at| !before.contains(at)).unwrap();
    mesh.rule(Rule::Delay(3_000), is_held_word);
    mesh.kill(before[0]);
    // The newcomer has begun to follow and does not count yet when the last one of those who answer wants to go.
    mesh.run_until("somebody follows in its place", 10_000, || mesh.status(0).groups[0].learners > 0);
    mesh.step(before[1], |peer, now| peer.drain(now));
    let dead = crate::harness::peer_id(before[0]);
    let is_joint = || mesh.look(0, |peer| peer.group().consensus().membership().incoming.clone());
    mesh.run_until("the voters change", 10_000, || is_joint().is_some());
    let incoming = is_joint().unwrap();
    assert!(incoming.iter().all(|member| member.peer != dead), "{incoming:?}");
    // So that one more crash leaves a majority of the former and of the new voters.
    mesh.kill(newcomer);
    let kept = mesh.put(0, object, 2).receipt;
    mesh.run(2_000);
    assert!(mesh.is_kept(0, &kept));
}

#[test]
fn nobody_is_counted_on_who_was_not_heard_since() {
    // One follower is slow to answer and its replacement is ready; then the other one and the replacement die. The
    // former voters still have a majority, the ones to be would have none.
    let mesh = Mesh::with(4, |at, setup| {
        setup.config.replicas = 3;
        setup.config.domain = at as u64;
        setup.config.replace_after = Micros::from_millis(300);
        setup.config.journal.heartbeat = Micros::from_millis(250);
        setup.config.journal.election_after = Micros::from_millis(1_000);
    });
    mesh.run_until("all groups are whole", 10_000, || mesh.all_whole());
    let object = mesh.create_known(0, 1);
    let membership = mesh.look(0, |peer| peer.group().consensus().membership().clone());
    let at_of = |member: &MemberId| (0..4).find(|at| crate::harness::peer_id(*at) == member.peer).unwrap();
    let learner = at_of(membership.learners.keys().next().unwrap());
    let voters: Vec<usize> = membership.voters.iter().map(at_of).filter(|at| *at != 0).collect();
    mesh.run(1_000);
    let slow = voters[0];
    mesh.rule(Rule::Hold, move |flight| flight.from == slow && flight.to == 0 && crate::harness::is_group(flight));
    mesh.clear_log();
    let has_answered =
        |at: usize| !mesh.sent(|flight| flight.from == at && flight.to == 0 && is_held_word(flight)).is_empty();
    mesh.run_until("the others answer", 1_000, || has_answered(voters[1]) && has_answered(learner));
    // Nobody notices at once.
    mesh.pause(voters[1]);
    mesh.pause(learner);
    mesh.run(600);
    mesh.release();
    let kept = mesh.put(0, object, 2).receipt;
    mesh.run(1_000);
    assert!(mesh.is_kept(0, &kept));
}
