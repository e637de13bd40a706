//! Stories of changing members: growth, the dead replaced, and a crash at every moment of a change.

use crate::membership::{Mending, safe_without};
use crate::network::Quality;
use crate::ours::Ours;
use crate::port::Port;
use crate::stories::{all_alike, group, millis, voters};
use crate::world::{World, member};
use driftmesh_model::Micros;
use driftmesh_object_store::{MemberId, Settings};

/// Grows the group, and mends it, while commits go on.
fn mend_until<P: Port>(world: &mut World<P>, mending: &Mending, within: Micros, whole: impl Fn(&World<P>) -> bool) {
    let until = world.now.plus(within);
    while !whole(world) {
        assert!(world.now < until && world.broken.is_none(), "not whole in time: {:?}", world.broken);
        world.run_for(Micros(1_000));
        if let Some(leader) = world.leader() {
            world.append_many(leader, 3);
            mending.mend(world, leader);
        }
    }
}

fn has_voters<P: Port>(count: usize) -> impl Fn(&World<P>) -> bool {
    move |world| {
        let settled = |leader: MemberId| {
            let membership = world.port(leader).membership();
            let live = membership.voters.iter().all(|voter| world.is_live(voter));
            live && membership.voters.len() == count && world.port(leader).may_change()
        };
        world.leader().is_some_and(settled)
    }
}

#[test]
fn a_group_grows_from_one_to_three_to_five_and_replaces_the_dead_while_commits_go_on() {
    let mut world = World::<Ours>::new(3, Settings::default(), Quality::GOOD);
    world.found(member(0, 0));
    world.append_many(member(0, 0), 100);
    let mut mending = Mending::new(3, 5);
    mend_until(&mut world, &mending, millis(1_000), has_voters(3));
    mending.wanted = 5;
    mend_until(&mut world, &mending, millis(1_000), has_voters(5));
    assert_eq!(world.leaders(), vec![member(0, 0)], "nobody was unseated");
    let dead = member(3, 0);
    world.crash(dead);
    mend_until(&mut world, &mending, millis(3_000), has_voters(5));
    let leader = world.leader().unwrap();
    assert!(!world.port(leader).membership().contains(&dead));
    world.crash(leader);
    mend_until(&mut world, &mending, millis(5_000), has_voters(5));
    assert!(world.run_until(millis(1_000), all_alike));
    world.expect_sound();
}

#[test]
fn a_newcomer_counts_only_when_it_has_caught_up() {
    let (mut world, members) = group::<Ours>(1, Settings::default(), Quality::GOOD);
    let newcomer = member(1, 0);
    world.append_many(members[0], 1_000);
    assert!(!world.propose(members[0], voters(&[members[0], newcomer])), "R11: nobody has heard of it");
    world.join(newcomer);
    let mut target = voters(&members);
    target.learners.insert(newcomer, true);
    assert!(!world.propose(members[0], target.clone()), "nor does it join the sync set at once");
    target.learners.insert(newcomer, false);
    assert!(world.propose(members[0], target));
    assert!(!world.propose(members[0], voters(&[members[0], newcomer])), "it has nothing yet");
    assert!(world.run_until(millis(1_000), all_alike));
    assert!(world.propose(members[0], voters(&[members[0], newcomer])));
    world.expect_sound();
}

#[test]
fn one_change_at_a_time() {
    let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
    assert!(world.propose(members[0], voters(&members[..2])));
    assert!(!world.propose(members[0], voters(&members[..1])), "R11: the last one is not stable");
    assert!(world.run_until(millis(1_000), |world| world.port(members[0]).may_change()));
    assert!(world.propose(members[0], voters(&members[..1])));
    assert!(!world.propose(members[1], voters(&members[..1])), "only a leader changes anything");
    world.expect_sound();
}

#[test]
fn a_crash_at_any_moment_of_a_change_leaves_a_group_that_goes_on() {
    let newcomers = [member(3, 0), member(4, 0)];
    let mut crashed_at_work = 0;
    for moment in 0..40 {
        for victim in 0..5 {
            let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
            let mut target = voters(&members);
            for newcomer in newcomers {
                world.join(newcomer);
                target.learners.insert(newcomer, false);
            }
            assert!(world.propose(members[0], target));
            assert!(world.run_until(millis(1_000), all_alike));
            // Two of three are replaced, in half of the cases the leader too.
            let keep = if moment % 2 == 0 { members[0] } else { members[1] };
            assert!(world.propose(members[0], voters(&[keep, newcomers[0], newcomers[1]])));
            world.append_many(members[0], 5);
            world.run_for(Micros(moment * 97));
            let victim = world.live().into_iter().nth(victim).unwrap();
            if !safe_without(&world, victim) {
                continue;
            }
            crashed_at_work += u64::from(world.port(victim).is_leading());
            world.crash(victim);
            let goes_on = |world: &World<Ours>| world.leader().is_some_and(|leader| world.port(leader).may_change());
            let goes_on = world.run_until(millis(5_000), goes_on);
            assert!(goes_on, "moment {moment}, victim {victim:?}: {:?}", world.broken);
            let leader = world.leader().unwrap();
            let lsn = world.append(leader, 100).unwrap();
            assert!(world.run_until(millis(2_000), |world| world.watch.stable_end() >= lsn));
            world.expect_sound();
        }
    }
    assert!(crashed_at_work > 20);
}

#[test]
fn the_journal_stays_bounded_while_a_member_is_dead_and_who_replaces_it_gets_a_copy() {
    let settings = Settings { keep_bytes: 2_000, lag_bytes: 20_000, ..Settings::default() };
    let (mut world, members) = group::<Ours>(3, settings, Quality::GOOD);
    world.crash(members[2]);
    let mut most = 0;
    for _ in 0..100 {
        world.append_many(members[0], 10);
        world.run_for(Micros(2_000));
        let port = world.port(members[0]);
        most = most.max(port.tail().as_u64() - port.base().as_u64());
    }
    world.run_for(Settings::default().resend_unasked_after);
    assert!((190..=250).contains(&most), "about 20 kB are kept for who lags, in entries of 100 bytes: {most}");
    assert!(world.port(members[0]).needs_copy(&members[2]), "the rest it would have to get as a copy");
    // The newcomer is behind the journal's beginning, and commits go on.
    let mending = Mending::new(3, 3);
    mend_until(&mut world, &mending, millis(3_000), has_voters(3));
    assert!(world.traffic.copies > 0);
    assert!(world.run_until(millis(1_000), all_alike));
    world.expect_sound();
}

#[test]
fn a_copy_helps_even_when_nothing_becomes_stable_without_its_receiver() {
    let settings = Settings { keep_bytes: 1_000, lag_bytes: 2_000, ..Settings::default() };
    let (mut world, members) = group::<Ours>(3, settings, Quality::GOOD);
    world.network.cut_both(members[0], members[2]);
    world.network.cut_both(members[1], members[2]);
    for _ in 0..50 {
        world.append_many(members[0], 10);
        world.run_for(Micros(2_000));
    }
    world.crash(members[1]);
    world.append_many(members[0], 50);
    world.network.heal();
    assert!(world.run_until(millis(3_000), all_alike), "the two that live are a majority");
    assert!(world.traffic.copies > 0);
    world.expect_sound();
}

#[test]
fn a_dead_member_that_needs_a_copy_keeps_nobody_from_theirs() {
    let settings = Settings { keep_bytes: 1_000, lag_bytes: 2_000, ..Settings::default() };
    let (mut world, members) = group::<Ours>(5, settings, Quality::GOOD);
    world.crash(members[1]);
    for other in world.live() {
        world.network.cut_both(members[4], other);
    }
    for _ in 0..50 {
        world.append_many(members[0], 10);
        world.run_for(Micros(2_000));
    }
    world.run_for(Settings::default().resend_unasked_after);
    assert!(world.port(members[0]).needs_copy(&members[1]));
    world.network.heal();
    assert!(world.run_until(millis(1_000), all_alike));
    world.expect_sound();
}
