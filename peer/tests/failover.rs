//! A leader dies: a follower serves what it owned, moves it on, and the group ends; nothing stable is lost, nothing
//! exists twice.

use crate::harness::{Mesh, Rule, is_entries, small};
use driftmesh_peer::{FateTold, RareEvent};

#[test]
fn after_a_crash_everything_stable_is_served_by_a_follower() {
    let mesh = Mesh::replicated(4, 2);
    let objects = mesh.create_values(0, &(0..30).map(small).collect::<Vec<_>>());
    mesh.run(100);
    let group = mesh.group_id(0);
    mesh.kill(0);
    let killed_at = mesh.mono_us();
    mesh.run_until("somebody leads", 1_000, || (1..4).any(|at| mesh.leads(at, group)));
    for at in 1..4 {
        for (number, object) in objects.iter().enumerate().skip(4) {
            assert_eq!(mesh.get(at, *object), Some(number as u64));
        }
        mesh.add(at, objects[at], 100);
    }
    let after = (mesh.mono_us() - killed_at) / 1_000;
    assert!(after < 250, "all that took {after} ms");
    assert_eq!(mesh.sum(&objects), 435 + 300);
    mesh.run(3_000);
    assert_eq!(mesh.sum(&objects), 435 + 300);
    assert!(mesh.is_ended_everywhere(group));
    for at in 1..4 {
        assert!(mesh.look(at, driftmesh_peer::Peer::is_quiet));
        assert!(mesh.status(at).leaderless.is_empty());
    }
    assert!(mesh.all_whole());
}

#[test]
fn a_leader_that_dies_before_anybody_holds_its_commit_loses_that_alone() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let kept = mesh.put(0, object, 2).receipt;
    mesh.run(100);
    mesh.hold_entries(0);
    let lost = mesh.put(0, object, 3).receipt;
    let (unheard, created) = {
        let (made, done) = mesh.create_with_receipt(0, &[small(9)]);
        (done.receipt, made[0])
    };
    mesh.settle();
    mesh.kill(0);
    mesh.take_held();
    mesh.release();
    mesh.run(5_000);
    for at in 1..4 {
        assert_eq!(mesh.get(at, object), Some(2));
        assert_eq!(mesh.get(at, created), None);
        assert!(mesh.is_kept(at, &kept));
        assert_eq!(mesh.fate(at, &lost), FateTold::Lost);
        assert_eq!(mesh.fate(at, &unheard), FateTold::Lost);
    }
    // Another crash, of whoever took over, changes no verdict.
    let heir = mesh.owner_of(object);
    mesh.kill(heir);
    mesh.run(5_000);
    for at in mesh.alive() {
        assert_eq!(mesh.get(at, object), Some(2));
        assert!(mesh.is_kept(at, &kept));
        assert_eq!(mesh.fate(at, &lost), FateTold::Lost);
    }
}

#[test]
fn three_failovers_in_a_row_lose_nothing_and_nobody_is_refused_for_its_clock() {
    let mesh = Mesh::replicated_with(6, 2, |at, setup| setup.wall_offset_us = 40_000 * (at as i64 % 3));
    let objects = mesh.create_values(0, &(1..=20).map(small).collect::<Vec<_>>());
    mesh.run(100);
    for _ in 0..3 {
        let owner = mesh.owner_of(objects[0]);
        mesh.kill(owner);
        // Readers and writers all the while.
        for round in 0..4 {
            mesh.run(100);
            let at = mesh.alive()[round % mesh.alive().len()];
            mesh.add(at, objects[round], 0);
            assert_eq!(mesh.get(at, objects[19]), Some(20));
        }
        mesh.run_until("all groups are whole again", 15_000, || mesh.all_whole());
    }
    assert_eq!(mesh.sum(&objects), 210);
    for at in mesh.alive() {
        assert_eq!(mesh.rare(at, RareEvent::ClockRefused), 0);
    }
}

#[test]
fn the_heir_dies_before_its_first_entry_is_stable_and_nobody_was_told_a_verdict() {
    // F8: five members, so that two may go.
    let mesh = Mesh::replicated(6, 4);
    let object = mesh.create_known(0, 1);
    let group = mesh.group_id(0);
    mesh.run(100);
    let followers: Vec<usize> = (1..6).filter(|at| mesh.look_at_group(*at, group, |_| ()).is_some()).collect();
    assert_eq!(followers.len(), 4);
    // One follower alone gets the last commit, and its word of that is lost: it will win or lose the election.
    let lucky = followers[0];
    mesh.rule(Rule::Drop, move |flight| flight.from == 0 && flight.to != lucky && is_entries(flight));
    mesh.rule(Rule::Drop, move |flight| flight.to == 0 && crate::harness::is_held_word(flight));
    let receipt = mesh.put(0, object, 2).receipt;
    mesh.settle();
    mesh.kill(0);
    mesh.release();
    // Whoever is elected reaches nobody with its entries, and dies too.
    mesh.rule(Rule::Drop, move |flight| {
        is_entries(flight)
            && matches!(flight.message(), driftmesh_peer::Message::Group { group: of, .. } if *of == group)
    });
    mesh.run_until("somebody leads", 2_000, || followers.iter().any(|at| mesh.leads(*at, group)));
    let heir = followers.iter().copied().find(|at| mesh.leads(*at, group)).unwrap();
    mesh.run(50);
    for at in mesh.alive() {
        assert_eq!(mesh.fate(at, &receipt), FateTold::Unknown, "peer {at} tells a verdict");
    }
    mesh.kill(heir);
    mesh.release();
    mesh.run(5_000);
    let value = mesh.get(mesh.alive()[0], object);
    for at in mesh.alive() {
        assert_eq!(mesh.get(at, object), value);
        match mesh.fate(at, &receipt) {
            FateTold::Stable { .. } => assert_eq!(value, Some(2)),
            FateTold::Lost => assert_eq!(value, Some(1)),
            FateTold::Unknown => panic!("still unknown at {at}"),
        }
    }
}

#[test]
fn followers_whose_leader_is_gone_do_not_split_the_vote() {
    for (victim, delay_us) in (0..6).flat_map(|victim| [0, 5_000, 20_000].map(|delay_us| (victim, delay_us))) {
        let mesh = Mesh::replicated(6, 4);
        mesh.run(3_000);
        mesh.rule(Rule::Delay(delay_us), crate::harness::is_group);
        let group = mesh.group_id(victim);
        let term = mesh.look_at_group(victim, group, |group| group.term()).unwrap();
        mesh.kill(victim);
        let leader = || mesh.alive().into_iter().find(|at| mesh.leads(*at, group));
        // Sooner than anybody would try again.
        mesh.run_until("somebody leads", 380, || leader().is_some());
        let elected = leader().and_then(|at| mesh.look_at_group(at, group, |group| group.term()));
        assert_eq!(elected, Some(term.next()), "peer {victim}, {delay_us} us: one election is enough");
    }
}
