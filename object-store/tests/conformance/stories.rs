//! Stories of elections: who is cut off, who leads then, and what becomes of what the former leader appended.

use crate::network::Quality;
use crate::ours::Ours;
use crate::port::Port;
use crate::world::{World, member};
use driftmesh_model::{Lsn, Micros};
use driftmesh_object_store::{MemberId, Membership, Settings};
use std::collections::BTreeSet;

pub(crate) const fn millis(millis: u64) -> Micros {
    Micros::from_millis(millis)
}

pub(crate) fn voters(members: &[MemberId]) -> Membership {
    Membership { voters: members.iter().copied().collect(), ..Membership::default() }
}

/// A group of this many voters, all alike, led by the first.
pub(crate) fn group<P: Port>(count: u8, settings: Settings, quality: Quality) -> (World<P>, Vec<MemberId>) {
    group_with(count, settings, quality, |_| ())
}

fn group_with<P: Port>(
    count: u8,
    settings: Settings,
    quality: Quality,
    prepare: fn(&mut P),
) -> (World<P>, Vec<MemberId>) {
    let mut world = World::<P>::new(u64::from(count), settings, quality);
    world.prepare = prepare;
    let members: Vec<MemberId> = (0..count).map(|peer| member(peer, 0)).collect();
    world.found(members[0]);
    let mut learners = voters(&members[..1]);
    for other in &members[1..] {
        world.join(*other);
        learners.learners.insert(*other, false);
    }
    if count > 1 {
        assert!(world.propose(members[0], learners));
        assert!(world.run_until(millis(1_000), |world| world.port(members[0]).may_change() && all_alike(world)));
        assert!(world.propose(members[0], voters(&members)));
        let whole = |world: &World<P>| all_alike(world) && world.port(members[0]).membership() == voters(&members);
        assert!(world.run_until(millis(1_000), whole));
    }
    world.expect_sound();
    (world, members)
}

/// Whether all that live hold the same, all of it stable.
pub(crate) fn all_alike<P: Port>(world: &World<P>) -> bool {
    let live = world.live();
    let at: BTreeSet<(Lsn, Lsn)> =
        live.iter().map(|me| (world.port(*me).tail(), world.port(*me).watermark())).collect();
    at.len() == 1 && at.iter().all(|(tail, watermark)| tail == watermark && *tail > Lsn::ZERO)
}

fn isolate<P: Port>(world: &mut World<P>, one: MemberId) {
    for other in world.live() {
        world.network.cut_both(one, other);
    }
}

/// A leader of the others, whoever it is.
fn other_leader<P: Port>(world: &World<P>, than: MemberId) -> Option<MemberId> {
    world.leaders().into_iter().find(|leader| *leader != than)
}

#[test]
fn one_voter_holds_what_it_appends_and_that_is_stable_at_once() {
    let (mut world, members) = group::<Ours>(1, Settings::default(), Quality::GOOD);
    for _ in 0..100 {
        let lsn = world.append(members[0], 100).unwrap();
        assert_eq!(world.port(members[0]).watermark(), lsn);
    }
    world.run_for(millis(1_000));
    assert_eq!(world.port(members[0]).next_tick(), None, "nobody is to be told, and nothing is due");
    assert_eq!(world.traffic.messages, 0);
    assert_eq!(world.port(members[0]).base(), world.port(members[0]).tail(), "nothing is kept for nobody");
    world.expect_sound();
}

#[test]
fn what_a_cut_off_leader_appends_is_never_stable_and_is_reported_as_overwritten() {
    let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
    let former = members[0];
    isolate(&mut world, former);
    let before = world.port(former).watermark();
    let kept = world.values;
    world.append_many(former, 10);
    assert!(world.run_until(millis(1_500), |world| other_leader(world, former).is_some()), "the others elect");
    let leader = other_leader(&world, former).unwrap();
    world.append_many(leader, 5);
    world.run_for(millis(1_000));
    assert!(world.port(former).is_leading(), "it cannot know yet");
    assert_eq!(world.port(former).watermark(), before, "a leader without a majority makes nothing stable");
    let tail = world.port(former).tail();
    assert_eq!(tail.as_u64(), before.as_u64() + 10);
    // The world checks that exactly this range is reported, and that the deposing message says so before.
    let overwritten = world.watch.overwritten;
    world.network.heal();
    assert!(world.run_until(millis(2_000), all_alike), "the former leader catches up");
    assert!(!world.port(former).is_leading());
    assert_eq!(world.port(former).leader(), Some(leader));
    assert_eq!(world.watch.overwritten, overwritten + 1);
    let stable = world.watch.values();
    assert!((kept..kept + 10).all(|number| !stable.contains(&number)), "none of it became stable");
    assert!((kept + 10..kept + 15).all(|number| stable.contains(&number)), "what the new leader appended did");
    world.expect_sound();
}

/// Connects these members with each other, and with nobody else.
fn only<P: Port>(world: &mut World<P>, together: &[MemberId]) {
    world.network.heal();
    for one in world.live() {
        for other in world.live() {
            if !(together.contains(&one) && together.contains(&other)) {
                world.network.cut(one, other);
            }
        }
    }
}

/// The story of figure 8 in Ongaro and Ousterhout 2014: an entry of a former term is on a majority, and is overwritten.
pub(crate) fn former_terms<P: Port>(prepare: fn(&mut P)) -> Option<String> {
    let settings = Settings { batch_bytes: 1, in_flight_bytes: 1, ..Settings::default() };
    let (mut world, members) = group_with::<P>(5, settings, Quality::GOOD, prepare);
    let [first, second, others @ ..] = &members[..] else { unreachable!() };
    // The first leader's entries reach one other member.
    only(&mut world, &[*first, *second]);
    let before = world.port(*first).tail();
    world.append_many(*first, 20);
    assert!(world.run_until(millis(500), |world| world.port(*second).tail() == world.port(*first).tail()));
    // Another leads, and nobody else holds its first entry.
    only(&mut world, others);
    world.starved = true;
    assert!(world.run_until(millis(3_000), |world| other_leader(world, *first).is_some()));
    let rival = other_leader(&world, *first).unwrap();
    let followers: Vec<MemberId> = others.iter().filter(|other| **other != rival).copied().collect();
    // One of the first two leads again, and brings what it has to more and more members, one entry after the other.
    only(&mut world, &[*first, *second, followers[0], followers[1]]);
    world.starved = false;
    let advanced = |world: &World<P>| followers.iter().any(|follower| world.port(*follower).tail() > before.next());
    assert!(world.run_until(millis(5_000), advanced));
    // But the rival has an entry of a later term.
    only(&mut world, &[rival, followers[0], followers[1]]);
    world.run_for(millis(5_000));
    world.network.heal();
    let whole = world.run_until(millis(5_000), all_alike);
    assert!(whole || world.broken.is_some());
    world.broken
}

#[test]
fn what_a_majority_holds_of_a_former_term_is_not_stable_by_that() {
    assert_eq!(former_terms::<Ours>(|_| ()), None);
}

#[test]
fn who_does_not_lead_appends_nothing() {
    let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
    let tail = world.port(members[1]).tail();
    assert_eq!(world.append(members[1], 100), None);
    world.run_for(millis(200));
    assert!(world.live().into_iter().all(|me| world.port(me).tail() == tail), "nobody proposes for another");
    world.expect_sound();
}

#[test]
fn a_member_that_was_cut_off_does_not_unseat_the_leader() {
    let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
    isolate(&mut world, members[2]);
    for _ in 0..30 {
        world.run_for(millis(100));
        world.append_many(members[0], 3);
    }
    let period = world.port(members[0]).period();
    world.network.heal();
    assert!(world.run_until(millis(2_000), all_alike));
    assert_eq!(world.leaders(), vec![members[0]]);
    assert_eq!(world.port(members[0]).period(), period, "its trials began no term");
    world.expect_sound();
}

#[test]
fn a_leader_whose_words_arrive_while_no_answer_does_makes_room_for_another() {
    let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
    world.network.cut(members[1], members[0]);
    world.network.cut(members[2], members[0]);
    world.append_many(members[0], 10);
    let elected = world.run_until(millis(4_000), |world| other_leader(world, members[0]).is_some());
    assert!(elected, "the others hear the leader no more, and elect");
    let leader = other_leader(&world, members[0]).unwrap();
    let lsn = world.append(leader, 100).unwrap();
    assert!(world.run_until(millis(500), |world| world.port(leader).watermark() >= lsn), "and go on");
    world.network.heal();
    assert!(world.run_until(millis(2_000), all_alike));
    world.expect_sound();
}

#[test]
fn a_follower_that_hears_nothing_while_others_do_changes_nothing() {
    let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
    world.network.cut(members[0], members[2]);
    for _ in 0..20 {
        world.run_for(millis(100));
        let lsn = world.append(members[0], 100).unwrap();
        assert!(world.run_until(millis(100), |world| world.port(members[0]).watermark() >= lsn));
    }
    world.network.heal();
    assert!(world.run_until(millis(2_000), all_alike));
    assert_eq!(world.leaders(), vec![members[0]]);
    world.expect_sound();
}

#[test]
fn a_leader_that_nobody_reaches_for_a_moment_goes_on_where_it_was() {
    let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
    // All links are dead for so long that the leader falls silent, and nobody can be elected.
    for one in &members {
        isolate(&mut world, *one);
    }
    world.append_many(members[0], 10);
    world.run_for(millis(5_000));
    world.network.heal();
    assert!(world.run_until(millis(3_000), all_alike), "one of them leads again");
    world.expect_sound();
}

#[test]
fn bad_links_lose_double_and_reorder_and_everything_becomes_stable_in_order() {
    let (mut world, members) = group::<Ours>(5, Settings::default(), Quality::GOOD);
    world.network.quality = Quality::BAD;
    for _ in 0..100 {
        world.run_for(millis(10));
        if let Some(leader) = world.leader() {
            world.append_many(leader, 10);
        }
    }
    assert!(world.run_until(millis(5_000), all_alike));
    assert_eq!(world.watch.values().len() as u64, world.values, "not one is lost while the leader lives");
    assert_eq!(world.leaders(), vec![members[0]]);
    world.expect_sound();
}

#[test]
fn acknowledgements_count_for_the_incarnation_that_gave_them() {
    let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
    let leader = members[0];
    // Nothing arrives at the leader but what this test delivers.
    world.network.cut(members[1], leader);
    world.network.cut(members[2], leader);
    world.said = Some(Vec::new());
    let before = world.port(leader).watermark();
    let lsn = world.append(leader, 100).unwrap();
    world.run_for(millis(50));
    let acknowledged: Vec<_> = world.said.take().unwrap().into_iter().filter(|(_, to, _)| *to == leader).collect();
    assert!(!acknowledged.is_empty());
    for (from, _, message) in &acknowledged {
        let former = MemberId { incarnation: driftmesh_model::Incarnation::from_u64(77), ..*from };
        for stranger in [former, member(9, 0)] {
            world.deliver(stranger, leader, message.clone());
            assert_eq!(world.port(leader).watermark(), before, "R11: {stranger:?} does not belong");
        }
    }
    let (from, _, message) = acknowledged.last().unwrap().clone();
    world.deliver(from, leader, message);
    assert_eq!(world.port(leader).watermark(), lsn, "of a member the same acknowledgement counts");
    world.expect_sound();
}

#[test]
fn votes_count_for_the_incarnation_that_gave_them() {
    let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
    let [_, candidate, voter] = members[..] else { unreachable!() };
    world.crash(members[0]);
    world.network.cut(voter, candidate);
    // The voter cannot be elected: its words do not arrive.
    let (stranger, mut delivered) = (member(9, 0), 0);
    for _ in 0..3_000 {
        world.said = Some(Vec::new());
        world.run_for(Micros(1_000));
        for (from, to, message) in world.said.take().unwrap() {
            if (from, to) == (voter, candidate) {
                world.deliver(stranger, candidate, message);
                delivered += 1;
            }
        }
    }
    assert!(delivered > 2, "votes were given");
    assert!(!world.port(candidate).is_leading(), "R11: the vote of a stranger does not count");
    world.network.heal();
    assert!(world.run_until(millis(2_000), |world| world.leader().is_some()), "with the voter's own it is elected");
    world.expect_sound();
}

#[test]
fn when_all_stand_still_together_nobody_is_deposed() {
    // A machine that has no time for its processes: what all of them said waits to be heard when they go on.
    for together in [300, 450, 500, 550, 600, 1_000, 5_000].map(millis) {
        let (mut world, members) = group::<Ours>(3, Settings::default(), Quality::GOOD);
        let period = world.port(members[0]).period();
        for round in 0..30 {
            for (number, me) in (0..).zip(&members) {
                // They do not go on at the very same time.
                world.pause(*me, together.plus(millis((number * 7 + round) % 20)));
            }
            world.run_for(together.plus(millis(1_500 + 13 * round)));
            assert_eq!(
                world.port(members[0]).period(),
                period,
                "after they stood still for {together:?}, round {round}"
            );
            assert!(world.append(members[0], 100).is_some());
            assert!(world.run_until(millis(200), all_alike), "nothing becomes stable");
        }
        world.expect_sound();
    }
}
