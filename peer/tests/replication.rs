//! R7, R11: groups form with the members of the table in `docs/architecture.md`, and followers hold what is stable.

use crate::harness::{Mesh, Rule, amount, is_entries, wire};
use driftmesh_model::{Lsn, Timestamp, TxnTimestamp};
use driftmesh_peer::RareEvent;

/// Voters and learners of a peer's own group.
fn members(mesh: &Mesh, at: usize) -> (usize, usize) {
    let status = mesh.status(at);
    (status.groups[0].voters, status.groups[0].learners)
}

#[test]
fn groups_form_as_the_table_says() {
    for (peers, replicas, voters, learners) in [
        (1, 2, 1, 0),
        (2, 1, 1, 1),
        (2, 2, 1, 1),
        (3, 0, 1, 0),
        (3, 1, 1, 1),
        (3, 2, 3, 0),
        (4, 2, 3, 0),
        (4, 3, 3, 1),
        (4, 4, 3, 1),
        (5, 2, 3, 0),
        (5, 4, 5, 0),
        (6, 4, 5, 0),
        (7, 6, 7, 0),
    ] {
        let mesh = Mesh::replicated(peers, replicas);
        mesh.run(2_000);
        for at in 0..peers {
            assert_eq!(members(&mesh, at), (voters, learners), "{peers} peers, {replicas} replicas, peer {at}");
            let may_lose = mesh.status(at).groups[0].may_lose_one;
            assert_eq!(may_lose, voters > 1, "{peers} peers, {replicas} replicas, peer {at}");
        }
    }
}

#[test]
fn groups_grow_as_peers_join_and_stay_as_they_are_when_nearer_ones_do() {
    let mesh = Mesh::replicated(1, 2);
    let object = mesh.create(0, 1);
    let mut joined = vec![0];
    for (voters, learners) in [(1, 1), (3, 0), (3, 0), (3, 0)] {
        joined.push(mesh.join(|setup| {
            setup.config.replicas = 2;
            setup.config.domain = 77 + setup.config.incarnation.as_u64();
        }));
        mesh.run(2_000);
        for at in &joined {
            assert_eq!(members(&mesh, *at), (voters, learners), "{} peers, peer {at}", joined.len());
        }
    }
    let group = mesh.group_id(0);
    let followers: Vec<usize> = (1..5).filter(|at| mesh.look_at_group(*at, group, |_| ()).is_some()).collect();
    assert_eq!(followers, [1, 2], "who came first stays");
    assert_eq!(mesh.get(4, object), Some(1));
}

#[test]
fn followers_are_chosen_on_other_machines_first_and_then_by_distance() {
    let mesh = Mesh::replicated_with(6, 2, |at, setup| setup.config.domain = [1, 1, 1, 1, 2, 3][at]);
    for at in 0..4 {
        let group = mesh.group_id(at);
        for follower in [4, 5] {
            assert!(mesh.look_at_group(follower, group, |_| ()).is_some(), "{follower} follows {at}");
        }
    }
    // Two others on the same machine are nearer by id, and not chosen: peer 4 takes one of machine 1 and the peer on 3.
    let fifth = mesh.group_id(4);
    assert!(mesh.look_at_group(5, fifth, |_| ()).is_some());
}

#[test]
fn a_follower_holds_the_leaders_state_once_it_is_stable_and_never_what_is_not() {
    let mesh = Mesh::replicated(3, 2);
    mesh.rule(Rule::Delay(3_000), is_entries);
    let objects: Vec<_> = (0..20).map(|number| mesh.create(0, number)).collect();
    let group = mesh.group_id(0);
    for round in 0..200_u64 {
        mesh.put(0, objects[usize::try_from(round % 20).unwrap()], 1_000 + round);
        mesh.run(1);
        let stable = mesh.watermark(0);
        for follower in [1, 2] {
            let applied = mesh.look_at_group(follower, group, |group| group.applied()).unwrap();
            assert!(applied <= stable, "follower {follower} shows {applied}, stable is {stable}");
        }
    }
    mesh.run(200);
    assert!(mesh.watermark(0) > Lsn::from_u64(200));
    for follower in [1, 2] {
        for (number, object) in objects.iter().enumerate() {
            let value = mesh.look_at_group(follower, group, |group| group.owned(*object)?.chain.newest().value.clone());
            assert_eq!(value.flatten().as_ref().map(amount), Some(1_180 + number as u64));
        }
    }
}

#[test]
fn following_evens_out_and_then_stays_as_it_is() {
    let mesh = Mesh::with(5, |at, setup| {
        setup.config.replicas = 2;
        setup.config.domain = at as u64;
    });
    let object = mesh.create(0, 1);
    let follows = |at: usize| {
        let others = (0..5).filter(|other| *other != at);
        others.filter(|other| mesh.look_at_group(at, mesh.group_id(*other), |_| ()).is_some()).count()
    };
    mesh.run(5_000);
    // All chose before they knew what the others did.
    assert!((0..5).map(follows).any(|follows| follows > 2));
    mesh.run(120_000);
    assert_eq!((0..5).map(follows).collect::<Vec<_>>(), [2; 5]);
    let changed = || (0..5).map(|at| mesh.rare(at, RareEvent::MembersChanged)).sum::<u64>();
    let before = changed();
    mesh.run(120_000);
    assert_eq!(changed(), before);
    assert_eq!((0..5).map(|at| members(&mesh, at)).collect::<Vec<_>>(), [(3, 0); 5]);
    assert_eq!(mesh.get(4, object), Some(1));
}

#[test]
fn who_has_no_room_says_so_and_somebody_else_is_asked() {
    let mesh = Mesh::with(5, |at, setup| {
        setup.config.replicas = 2;
        setup.config.domain = at as u64;
        // The two that are nearest to the first peer take nobody.
        setup.config.followed_max = if [1, 2].contains(&at) { 0 } else { 16 };
    });
    mesh.run(5_000);
    let group = mesh.group_id(0);
    for (at, follows) in [(1, false), (2, false), (3, true), (4, true)] {
        assert_eq!(mesh.look_at_group(at, group, |_| ()).is_some(), follows, "peer {at}");
    }
    assert_eq!(members(&mesh, 0), (3, 0));
    assert!(mesh.rare(0, RareEvent::NoRoom) >= 2);
}

#[test]
fn who_comes_later_from_elsewhere_takes_the_place_of_one_of_two_that_would_fail_together() {
    let domains = [1, 2, 2];
    let mesh = Mesh::with(3, |at, setup| {
        setup.config.replicas = 2;
        setup.config.domain = domains[at];
    });
    let object = mesh.create(0, 1);
    mesh.run(2_000);
    assert_eq!(members(&mesh, 0), (3, 0), "there was nobody else to choose");
    let elsewhere = mesh.join(|setup| {
        setup.config.replicas = 2;
        setup.config.domain = 3;
    });
    let follows = |at: usize| mesh.look_at_group(at, mesh.group_id(0), |_| ()).is_some();
    mesh.run_until("one of the two went", 60_000, || follows(elsewhere) && !(follows(1) && follows(2)));
    mesh.run(2_000);
    assert_eq!(members(&mesh, 0), (3, 0));
    assert_eq!(mesh.owner_of(object), 0);
    mesh.run(60_000);
    assert!(follows(elsewhere) && (follows(1) || follows(2)), "and now it stays so");
}

#[test]
fn when_nobody_has_room_the_group_works_on_alone_and_asks_now_and_then() {
    let mesh = Mesh::with(3, |_, setup| {
        setup.config.replicas = 2;
        setup.config.followed_max = 0;
    });
    mesh.run(5_000);
    let object = mesh.create(0, 1);
    mesh.clear_log();
    mesh.run(60_000);
    assert!(mesh.put(0, object, 2).stable, "there is nobody to wait for");
    let asked = mesh.sent(|flight| flight.from == 0 && crate::harness::is_group(flight)).len();
    assert!(asked < 60, "{asked} messages to who has no room");
}

#[test]
fn where_only_one_more_would_have_been_wanted_and_nobody_has_room_one_may_stop() {
    let with_room = |room: [usize; 4]| {
        let mesh = Mesh::with(4, |at, setup| {
            setup.config.replicas = 3;
            setup.config.followed_max = room[at];
        });
        mesh.run(5_000);
        mesh.status(0)
    };
    let short = with_room([16, 16, 16, 0]);
    assert_eq!((short.groups[0].whole, short.groups[0].wanted, short.may_stop), (3, 4, true));
    // A crash would leave nobody, or none who could go on.
    let alone = with_room([16, 16, 0, 0]);
    assert_eq!((alone.groups[0].whole, alone.may_stop), (2, false));
}

#[test]
fn beside_who_has_just_come_no_peer_may_stop_that_is_the_only_one_with_its_objects() {
    let mesh = Mesh::with(1, |_, setup| setup.config.replicas = 2);
    let object = mesh.create(0, 1);
    assert!(mesh.status(0).may_stop, "there is nobody who could take anything");
    let newcomer = mesh.join(|setup| setup.config.replicas = 2);
    let (mut beside, mut alone) = (0, 0);
    for _ in 0..5_000 {
        let holds = mesh.look_at_group(newcomer, mesh.group_id(0), |group| group.owned(object).is_some());
        let status = mesh.status(0);
        assert_eq!(status.members.len(), 1);
        assert!(holds == Some(true) || !status.may_stop, "its objects would go with it");
        alone += u32::from(holds != Some(true));
        beside += u32::from(status.may_stop);
        mesh.run(1);
    }
    assert!(alone > 0 && beside > 0, "{alone} ms without a copy, {beside} ms with one");
}

#[test]
fn what_the_barrier_waits_for_leaves_at_once_and_then_shares_batches() {
    let mesh = Mesh::replicated(4, 2);
    let objects: Vec<_> = (0..10).map(|number| mesh.create(0, number)).collect();
    mesh.run(100);
    // Longer than the batching interval: no answer comes within it.
    mesh.rule(Rule::Delay(3_000), crate::harness::is_group);
    mesh.clear_log();
    let batches = || mesh.sent(|flight| flight.from == 0 && flight.to == 1 && is_entries(flight)).len();
    let time = Timestamp::from_wall(mesh.now(3).wall);
    for (sequence, object) in (1..).zip(&objects) {
        let age = TxnTimestamp { time, incarnation: 4, sequence };
        mesh.forge(3, 0, wire::own(mesh.group_id(3), *object, age));
        mesh.settle();
        assert_eq!(batches(), 1, "the first waits for nobody, the others for each other");
        mesh.run_us(50);
    }
    mesh.run(2);
    assert_eq!(batches(), 2, "and no longer than the batching interval");
    mesh.run(500);
    assert!(objects.iter().all(|object| mesh.owner_of(*object) == 3));
}

#[test]
fn commits_leave_within_the_batching_interval_however_many_come() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create(0, 0);
    mesh.run(100);
    mesh.clear_log();
    let mut last = Lsn::ZERO;
    for number in 0..200 {
        last = mesh.put(0, object, number).receipt.lsn;
        mesh.run_us(50);
    }
    let batches = mesh.sent(|flight| flight.from == 0 && flight.to == 1 && is_entries(flight)).len();
    assert!((5..=30).contains(&batches), "{batches} batches in 10 ms");
    mesh.run(3);
    assert!(mesh.watermark(0) >= last);
}
