//! What operators do to groups that lost their majority: `promote` goes on from what is left, `forget` gives them up.
//! Nothing exists twice after either, and whoever holds a receipt is told the truth.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::harness::wire::Wire;
use crate::harness::{GoldRef, Mesh, Rule, is_entries, is_grant, small};
use driftmesh_model::{Generation, GroupId, Lsn, ObjectId, Term, codec};
use driftmesh_object_store::GrantLog;
use driftmesh_peer::session::{self, Error, Options};
use driftmesh_peer::{Beyond, Ended, FateTold, GroupRecord, Message, OperatorError, Peer, Promoted, Receipt, Standing};
use std::collections::BTreeSet;
use std::task::Poll;

fn answer<T>(mesh: &Mesh, mut step: impl FnMut() -> Poll<T>) -> T {
    for _ in 0..10_000 {
        if let Poll::Ready(answer) = step() {
            return answer;
        }
        mesh.tick();
    }
    panic!("no answer");
}

fn fate(mesh: &Mesh, at: usize, receipt: &Receipt) -> FateTold {
    let waiter = mesh.step(at, |peer, _| peer.new_waiter());
    answer(mesh, || mesh.step(at, |peer, now| peer.fate(now, waiter, receipt)))
}

fn forget(mesh: &Mesh, at: usize, group: GroupId, force: bool) -> Result<(), OperatorError> {
    let waiter = mesh.step(at, |peer, _| peer.new_waiter());
    answer(mesh, || mesh.step(at, |peer, now| peer.forget_group(now, waiter, group, force)))
}

fn promote(mesh: &Mesh, at: usize, group: GroupId, accept_loss: bool) -> Result<Promoted, OperatorError> {
    let waiter = mesh.step(at, |peer, _| peer.new_waiter());
    answer(mesh, || mesh.step(at, |peer, now| peer.promote(now, waiter, group, accept_loss)))
}

/// Founds a group anew at the peer that holds most of it.
fn promote_where_most_is(mesh: &Mesh, at: usize, group: GroupId, accept_loss: bool) -> Promoted {
    let done = match promote(mesh, at, group, accept_loss) {
        Err(OperatorError::AskPeer { member, .. }) => {
            promote(mesh, usize::from(member.as_bytes()[0]), group, accept_loss)
        }
        done => done,
    };
    mesh.run(200);
    done.unwrap()
}

/// What a user gets who reads an object at a peer.
fn read(mesh: &Mesh, at: usize, object: ObjectId) -> Result<u64, Error> {
    let host = mesh.host(at);
    let reference = GoldRef::from_id(object);
    let read = move |tx: session::Tx<crate::harness::SeatHost>| async move { Ok(tx.get(reference).await?.amount) };
    let job = mesh.spawn(async move { Ok(session::transact(host, Options::new("read"), read).await?.value) });
    mesh.finish(&job, 10_000)
}

fn is_lost_with(read: &Result<u64, Error>, of: GroupId) -> bool {
    matches!(read, Err(Error::ObjectLost { group, .. }) if *group == of)
}

/// The peers that follow a group.
fn followers(mesh: &Mesh, of: GroupId) -> Vec<usize> {
    let follows = |at: &usize| mesh.look_at_group(*at, of, |group| !group.is_leading()) == Some(true);
    mesh.alive().into_iter().filter(follows).collect()
}

/// Every object has one owner, and nothing is under way.
fn assert_settled(mesh: &Mesh, objects: &[ObjectId]) {
    for object in objects {
        mesh.owner_of(*object);
    }
    for at in mesh.alive() {
        assert!(mesh.look(at, Peer::is_quiet), "peer {at} has something under way");
        assert!(
            mesh.status(at).groups.iter().all(|group| group.halted.is_none()),
            "{at}: {:?}",
            mesh.status(at).groups
        );
        assert!(mesh.status(at).leaderless.is_empty(), "{at}: {:?}", mesh.status(at).leaderless);
    }
}

#[test]
fn a_group_that_is_wholly_gone_is_given_up_by_an_operator_alone() {
    let mesh = Mesh::new(3);
    let (object, other) = (mesh.create_known(0, 1), mesh.create_known(1, 2));
    let receipt = mesh.put(0, object, 3).receipt;
    let (group, living) = (mesh.group_id(0), mesh.group_id(2));
    assert_eq!(
        forget(&mesh, 1, living, false),
        Err(OperatorError::HasLeader { group: living, leader: crate::harness::peer_id(2) })
    );
    mesh.kill(0);
    mesh.run(30_000);
    assert!(matches!(read(&mesh, 1, object), Err(Error::Deadline { .. })), "nobody gives it up by itself");
    assert_eq!(fate(&mesh, 2, &receipt), FateTold::Unknown);
    let unknown = GroupId::from_u128(7);
    assert_eq!(forget(&mesh, 1, unknown, true), Err(OperatorError::Unknown { group: unknown }));

    assert_eq!(forget(&mesh, 1, group, false), Ok(()));
    mesh.run(500);
    for at in [1, 2] {
        assert!(is_lost_with(&read(&mesh, at, object), group), "{:?}", read(&mesh, at, object));
        assert_eq!(fate(&mesh, at, &receipt), FateTold::Lost);
        assert_eq!(read(&mesh, at, other).unwrap(), 2);
        assert_eq!(forget(&mesh, at, group, true), Err(OperatorError::Ended { group, lost: true }));
        assert!(matches!(read(&mesh, at, ObjectId::from_u128(0xdead)), Err(Error::Dangling { .. })));
    }
    assert_settled(&mesh, &[other]);
    // A peer that comes later learns it too.
    let late = mesh.join(|_| {});
    mesh.run(1_000);
    assert!(is_lost_with(&read(&mesh, late, object), group));
}

#[test]
fn a_peer_whose_group_was_given_up_while_it_stood_still_begins_anew() {
    let mesh = Mesh::new(3);
    let (object, moving) = (mesh.create_known(0, 1), mesh.create_known(0, 5));
    let group = mesh.group_id(0);
    // On its way from there, and not adopted yet.
    mesh.rule(Rule::Hold, is_grant);
    let writer = mesh.begin(1, "writer");
    assert!(mesh.intend(writer, &[moving]).is_pending());
    mesh.settle();
    assert!(mesh.held(is_grant) > 0);
    mesh.pause(0);
    assert_eq!(forget(&mesh, 1, group, false), Ok(()));
    mesh.run(500);
    let open = mesh.begin_for(0, "open", 60_000);
    mesh.release();
    mesh.resume(0);
    mesh.run(2_000);
    assert_ne!(mesh.group_id(0), group);
    assert!(mesh.failure(open).is_some());
    mesh.end(open);
    mesh.end(writer);
    for at in 0..3 {
        assert!(is_lost_with(&read(&mesh, at, object), group));
        assert!(
            matches!(read(&mesh, at, moving), Err(Error::Dangling { .. } | Error::ObjectLost { .. })),
            "what is said to be lost stays so"
        );
    }
    assert!(mesh.owners_of(object).is_empty() && mesh.owners_of(moving).is_empty());
    let fresh = mesh.create_known(0, 9);
    assert_eq!(read(&mesh, 2, fresh).unwrap(), 9);
    assert_settled(&mesh, &[fresh]);
}

#[test]
fn what_was_on_its_way_to_a_group_that_is_given_up_does_not_come_back() {
    let mesh = Mesh::new(3);
    let (bag, purse) = (mesh.create_known(1, 10), mesh.create_known(1, 0));
    let group = mesh.group_id(0);
    // Both go to peer 0, which moves the gold from one to the other; then one goes on, and no word of all that is heard.
    mesh.rule(Rule::Drop, |flight| flight.to == 1 && crate::harness::is_grant_answer(flight));
    let writer = mesh.begin(0, "writer");
    mesh.intend_wait(writer, &[bag, purse]).unwrap();
    mesh.commit(writer, &[(bag, Some(small(0))), (purse, Some(small(10)))]).unwrap();
    mesh.settle();
    let taker = mesh.begin(2, "taker");
    mesh.intend_wait(taker, &[purse]).unwrap();
    mesh.commit(taker, &[]).unwrap();
    mesh.kill(0);
    mesh.release();
    assert_eq!(forget(&mesh, 2, group, false), Ok(()));
    mesh.run(2_000);
    assert_eq!(read(&mesh, 1, purse).unwrap(), 10);
    assert!(is_lost_with(&read(&mesh, 1, bag), group), "with its gold it would be there twice");
    assert_settled(&mesh, &[purse]);
}

#[test]
fn one_of_two_goes_on_without_the_other_and_the_other_gives_way_when_it_wakes() {
    let mesh = Mesh::replicated(2, 2);
    let objects = mesh.create_values(0, &(1..=20).map(small).collect::<Vec<_>>());
    mesh.run(100);
    let group = mesh.group_id(0);
    assert_eq!(
        promote(&mesh, 1, group, false),
        Err(OperatorError::HasLeader { group, leader: crate::harness::peer_id(0) })
    );
    mesh.hold_entries(0);
    let unheard = mesh.put(0, objects[0], 100).receipt;
    mesh.settle();
    mesh.pause(0);
    mesh.run(30_000);
    assert!(matches!(read(&mesh, 1, objects[1]), Err(Error::Deadline { .. })), "nobody takes over by itself");
    let promoted = promote(&mesh, 1, group, false).unwrap();
    assert_eq!((promoted.generation.as_u64(), promoted.owned, promoted.beyond), (1, 20, None));
    for (number, object) in objects.iter().enumerate() {
        assert_eq!(read(&mesh, 1, *object).unwrap(), number as u64 + 1);
    }
    mesh.add(1, objects[1], 50);
    mesh.take_held();
    mesh.release();
    mesh.resume(0);
    mesh.run(5_000);
    assert_ne!(mesh.group_id(0), group);
    for at in 0..2 {
        assert_eq!(fate(&mesh, at, &unheard), FateTold::Lost);
        let sum: u64 = objects.iter().map(|object| read(&mesh, at, *object).unwrap()).sum();
        assert_eq!(sum, 210 + 50);
    }
    assert_settled(&mesh, &objects);
    mesh.run_until("all groups are whole again", 10_000, || mesh.all_whole());
}

#[test]
fn a_leader_that_wakes_makes_nothing_stable_before_it_has_listened() {
    // The group anew lives for a while: what it owns stays locked up in it.
    let mesh = Mesh::replicated(2, 2);
    let objects = mesh.create_values(0, &(1..=3).map(small).collect::<Vec<_>>());
    mesh.run(100);
    let group = mesh.group_id(0);
    mesh.hold_entries(0);
    let unheard = mesh.put(0, objects[0], 100).receipt;
    mesh.settle();
    mesh.pause(0);
    mesh.run(3_000);
    promote(&mesh, 1, group, false).unwrap();
    mesh.take_held();
    mesh.resume(0);
    // Its timers are late, and fire before it hears anything.
    mesh.step(0, |peer, now| peer.timers_due(now));
    assert!(!mesh.look(0, |peer| peer.is_stable(&unheard)));
    mesh.release();
    mesh.run(5_000);
    assert_eq!(fate(&mesh, 0, &unheard), FateTold::Lost);
    assert_settled(&mesh, &objects);
}

#[test]
fn two_of_four_are_killed_and_what_they_led_goes_on_where_most_of_it_is() {
    let mesh = Mesh::replicated(4, 2);
    let mut objects = Vec::new();
    for at in 0..4 {
        objects.extend(mesh.create_values(at, &(1..=10).map(small).collect::<Vec<_>>()));
    }
    mesh.run(200);
    let group = mesh.group_id(0);
    let of = followers(&mesh, group);
    assert_eq!(of.len(), 2);
    let stranger = (1..4).find(|at| !of.contains(at)).unwrap();
    mesh.kill_all(&[0, of[0]]);
    mesh.run(3_000);
    let member = of[1];
    assert_eq!(
        promote(&mesh, stranger, group, false),
        Err(OperatorError::AskPeer { group, member: crate::harness::peer_id(member) })
    );
    assert!(matches!(forget(&mesh, stranger, group, false), Err(OperatorError::HasMember { .. })));
    let groups = mesh.status(member).leaderless;
    assert!(groups.contains(&group));
    for id in groups {
        assert_eq!(promote_where_most_is(&mesh, member, id, false).beyond, None);
    }
    mesh.run(5_000);
    let sum: u64 = objects
        .iter()
        .enumerate()
        .map(|(turn, object)| read(&mesh, [member, stranger][turn % 2], *object).unwrap())
        .sum();
    assert_eq!(sum, 4 * 55);
    assert_settled(&mesh, &objects);
    mesh.run_until("all groups are whole again", 10_000, || mesh.all_whole());
}

/// A mesh in which one of the two followers of the first peer's group, given last, lags behind what others have seen:
/// an object of it went to a peer that does not belong to it, and one came. The other two members are dead.
fn with_something_beyond(stop: impl Fn(&Mesh, &[usize])) -> (Mesh, GroupId, Vec<ObjectId>, usize, usize) {
    let mesh = Mesh::replicated(6, 2);
    let mut objects = mesh.create_values(0, &(1..=10).map(small).collect::<Vec<_>>());
    mesh.run(100);
    let group = mesh.group_id(0);
    let of = followers(&mesh, group);
    let (dies, lags) = (of[0], of[1]);
    // Its own group does not need the dead.
    let stranger = (1..6)
        .find(|at| {
            let members = followers(&mesh, mesh.group_id(*at));
            !(of.contains(at) || members.contains(&0) && members.contains(&dies))
        })
        .unwrap();
    let comes = mesh.create_known(stranger, 1_000);
    mesh.run(100);
    mesh.rule(Rule::Drop, move |flight| flight.from == 0 && flight.to == lags && is_entries(flight));
    mesh.put(stranger, objects[0], 100);
    mesh.run(20);
    mesh.put(stranger, objects[1], 200);
    mesh.put(0, comes, 2_000);
    mesh.run(200);
    assert!(mesh.look(stranger, Peer::is_quiet), "all that was said is stable and settled");
    stop(&mesh, &[0, dies]);
    mesh.release();
    mesh.run(3_000);
    objects.push(comes);
    for other in mesh.status(lags).leaderless.into_iter().filter(|other| *other != group) {
        promote_where_most_is(&mesh, lags, other, true);
    }
    (mesh, group, objects, lags, stranger)
}

#[test]
fn what_others_have_from_beyond_the_new_end_is_named_and_stays_with_them() {
    let (mesh, group, objects, lags, stranger) = with_something_beyond(Mesh::kill_all);
    let refused = promote(&mesh, lags, group, false);
    let Err(OperatorError::Beyond(beyond)) = refused else { panic!("{refused:?}") };
    let Beyond { handed_out, handed_out_count, unnamed, handed_in, .. } = &*beyond;
    assert_eq!((handed_out.clone(), *handed_out_count, *unnamed, *handed_in), (objects[..2].to_vec(), 2, 0, 1));
    assert!(beyond.to_string().contains(&objects[0].to_string()) && beyond.to_string().contains("--accept-loss"));
    assert!(!mesh.leads(lags, group), "nothing changed");

    let promoted = promote(&mesh, lags, group, true).unwrap();
    assert_eq!(promoted.beyond.as_ref(), Some(&*beyond));
    mesh.run(5_000);
    assert_eq!((mesh.owner_of(objects[0]), mesh.owner_of(objects[1])), (stranger, stranger));
    for at in mesh.alive() {
        assert_eq!((read(&mesh, at, objects[0]).unwrap(), read(&mesh, at, objects[1]).unwrap()), (100, 200));
        let rest: u64 = objects[2..10].iter().map(|object| read(&mesh, at, *object).unwrap()).sum();
        assert_eq!(rest, 55 - 3);
        assert!(matches!(read(&mesh, at, objects[10]), Err(Error::Dangling { .. })), "its only owner is gone");
    }
    assert_settled(&mesh, &objects[..10]);
}

#[test]
fn grants_go_on_by_their_numbers_after_a_group_was_founded_anew() {
    let (mesh, group, objects, lags, stranger) = with_something_beyond(Mesh::kill_all);
    promote(&mesh, lags, group, true).unwrap();
    // More of it goes where the next numbers would have been taken for those that went before.
    for (turn, object) in objects[2..10].iter().enumerate() {
        mesh.add(if turn % 2 == 0 { stranger } else { lags }, *object, 1);
    }
    mesh.run(5_000);
    let sum: u64 = objects[2..10].iter().map(|object| read(&mesh, stranger, *object).unwrap()).sum();
    assert_eq!(sum, 55 - 3 + 8);
    assert_settled(&mesh, &objects[..10]);
}

fn is_standing_of(at: usize) -> impl Fn(&crate::harness::Flight) -> bool {
    move |flight| flight.from == at && matches!(flight.message(), Message::Standing { .. })
}

/// Founds a group anew at a peer, while what another one says about it is changed on its way.
fn promote_told(
    mesh: &Mesh,
    at: usize,
    group: GroupId,
    liar: usize,
    change: impl Fn(&mut Standing),
) -> Result<Promoted, OperatorError> {
    mesh.rule(Rule::Hold, is_standing_of(liar));
    let waiter = mesh.step(at, |peer, _| peer.new_waiter());
    let done = answer(mesh, || {
        for flight in mesh.take_held() {
            let Message::Standing { ask, group, standing } = flight.message().clone() else { continue };
            let mut standing = *standing;
            change(&mut standing);
            mesh.forge(liar, at, Wire::Standing { ask, group, standing }.message());
        }
        mesh.step(at, |peer, now| peer.promote(now, waiter, group, true))
    });
    mesh.release();
    done
}

/// A log that has answered all numbers up to one, these of them with a refusal.
fn log(contiguous: u64, refused: &[u64]) -> GrantLog {
    #[derive(serde::Serialize)]
    struct Log<'a> {
        contiguous: u64,
        above: [u64; 0],
        refused: &'a [u64],
    }
    codec::decode(&codec::encode(&Log { contiguous, above: [], refused }).unwrap()).unwrap()
}

#[test]
fn an_object_that_nobody_remembers_by_name_is_not_risked_to_exist_twice() {
    let (mesh, group, _, lags, stranger) = with_something_beyond(Mesh::kill_all);
    let theirs = mesh.group_id(stranger);
    // As if it had been handed out so long ago, or to a group led by another peer since.
    let refused = promote_told(&mesh, lags, group, stranger, |standing| {
        assert_eq!(standing.received[&theirs].highest(), 2);
        standing.adopted.clear();
    });
    assert!(matches!(&refused, Err(OperatorError::Beyond(beyond)) if beyond.unnamed == 2), "{refused:?}");
}

#[test]
fn what_a_group_has_refused_for_certain_did_not_go_there() {
    let (mesh, group, _, lags, stranger) = with_something_beyond(Mesh::kill_all);
    let theirs = mesh.group_id(stranger);
    let promoted = promote_told(&mesh, lags, group, stranger, |standing| {
        standing.adopted.clear();
        standing.received.insert(theirs, log(2, &[1, 2]));
    });
    let promoted = promoted.unwrap();
    let beyond = promoted.beyond.unwrap();
    assert_eq!((beyond.unnamed, beyond.handed_out_count, beyond.handed_in), (0, 0, 1));
}

#[test]
fn an_answer_of_the_first_round_says_nothing_in_the_second() {
    let (mesh, group, _, lags, stranger) = with_something_beyond(Mesh::kill_all);
    mesh.rule(Rule::Hold, is_standing_of(stranger));
    let waiter = mesh.step(lags, |peer, _| peer.new_waiter());
    let asked = || mesh.step(lags, |peer, now| peer.promote(now, waiter, group, true));
    assert!(asked().is_pending());
    mesh.settle();
    let held = mesh.take_held();
    let [first] = &held[..] else { panic!("{} answers", held.len()) };
    for _ in 0..2 {
        // The second one comes when the second round has begun.
        mesh.forge(stranger, lags, first.message().clone());
        mesh.settle();
        assert!(asked().is_pending());
    }
    mesh.release();
    assert!(answer(&mesh, asked).is_ok());
}

#[test]
fn copies_that_have_stopped_are_no_majority() {
    let mesh = Mesh::replicated(4, 2);
    mesh.create_values(0, &(0..2_000).map(small).collect::<Vec<_>>());
    mesh.run(100);
    let group = mesh.group_id(0);
    let of = followers(&mesh, group);
    mesh.kill(0);
    mesh.run_until("one of two leads", 3_000, || of.iter().any(|at| mesh.leads(*at, group)));
    let (leads, other) = if mesh.leads(of[0], group) { (of[0], of[1]) } else { (of[1], of[0]) };
    let has_leader = OperatorError::HasLeader { group, leader: crate::harness::peer_id(leads) };
    assert_eq!(promote(&mesh, leads, group, true), Err(has_leader));
    let promoted = promote_told(&mesh, leads, group, other, |standing| {
        standing.holds.get_mut(&group).unwrap().halted = true;
    });
    assert!(promoted.is_ok(), "{promoted:?}");
}

#[test]
fn made_up_answers_to_a_survey_stop_no_peer() {
    let (mesh, group, objects, lags, stranger) = with_something_beyond(Mesh::kill_all);
    let groups = [(GroupId::from_u128(1), u64::MAX), (mesh.group_id(stranger), u64::MAX), (group, 3)];
    let refused = promote_told(&mesh, lags, group, stranger, |standing| {
        standing.received = groups.map(|(group, number)| (group, log(number, &[]))).into();
        standing.adopted.clear();
        (standing.settled, standing.granted) = (groups.into(), groups.into());
    });
    assert!(matches!(&refused, Err(OperatorError::Beyond(beyond)) if beyond.unnamed > 1_000), "{refused:?}");
    assert!(promote(&mesh, lags, group, true).is_ok());
    mesh.run(3_000);
    assert_settled(&mesh, &objects[..10]);
}

#[test]
fn members_of_the_former_generation_that_held_more_of_it_begin_anew() {
    // Nobody died: both come back as they were, a majority of what the group was, with more than it has now.
    let (mesh, group, objects, lags, stranger) = with_something_beyond(|mesh, gone| {
        gone.iter().for_each(|at| mesh.pause(*at));
    });
    let gone: Vec<usize> = (0..6).filter(|at| mesh.stands_still(*at)).collect();
    assert_eq!(gone.len(), 2);
    let promoted = promote(&mesh, lags, group, true).unwrap();
    mesh.run(50);
    assert!(mesh.leads(lags, group));
    // What the other one led was held by too few as well: nobody can know what reached it, so it waits for an operator.
    let theirs = mesh.group_id(gone[1]);
    assert_eq!(promoted.fenced, [theirs]);
    gone.iter().for_each(|at| mesh.resume(*at));
    mesh.run(5_000);
    assert_eq!(mesh.status(lags).leaderless, [theirs]);
    assert_ne!(mesh.group_id(gone[1]), theirs);
    assert_eq!(promote_where_most_is(&mesh, lags, theirs, false).beyond, None);
    mesh.run(5_000);
    assert_eq!((mesh.owner_of(objects[0]), mesh.owner_of(objects[1])), (stranger, stranger));
    for at in 0..6 {
        assert_ne!(mesh.group_id(at), group);
        let rest: u64 = objects[2..10].iter().map(|object| read(&mesh, at, *object).unwrap()).sum();
        assert_eq!((rest, read(&mesh, at, objects[0]).unwrap()), (55 - 3, 100));
    }
    assert_settled(&mesh, &objects[..10]);
    mesh.run_until("all groups are whole again", 10_000, || mesh.all_whole());
}

/// A peer that follows nobody.
fn follows_none(setup: &mut crate::harness::Setup) {
    setup.config.followed_max = 0;
}

/// Four peers; the last one follows nobody. The first two of them and the third do not hear each other any more, the last
/// one hears all. The third has a copy of what the first leads, and the last does something before. Returns the first one's
/// group and what it owned.
fn with_a_side_that_lives(before: impl FnOnce(&Mesh, &[ObjectId])) -> (Mesh, GroupId, Vec<ObjectId>) {
    let mesh = Mesh::replicated_with(4, 2, |at, setup| {
        if at == LAST {
            follows_none(setup)
        }
    });
    let objects = mesh.create_values(0, &(1..=10).map(small).collect::<Vec<_>>());
    mesh.run(200);
    let group = mesh.group_id(0);
    assert_eq!(followers(&mesh, group), [1, THIRD]);
    before(&mesh, &objects);
    mesh.cut(0, THIRD);
    mesh.cut(1, THIRD);
    mesh.run(3_000);
    (mesh, group, objects)
}

const THIRD: usize = 2;
const LAST: usize = 3;

/// All hear each other again, and an operator lets all groups go on that wait for one.
fn reunite(mesh: &Mesh) {
    mesh.heal(0, THIRD);
    mesh.heal(1, THIRD);
    mesh.run(3_000);
    for group in mesh.status(LAST).leaderless {
        promote_where_most_is(mesh, LAST, group, false);
    }
    mesh.run(5_000);
}

#[test]
fn a_grant_of_a_generation_that_is_over_gives_nothing_however_late_it_comes() {
    let mut late = Vec::new();
    let (mesh, group, objects) = with_a_side_that_lives(|mesh, objects| {
        mesh.rule(Rule::Drop, |flight| flight.from == 0 && flight.to == THIRD && is_entries(flight));
        mesh.rule(Rule::Hold, |flight| flight.from == 0 && flight.to == LAST && is_grant(flight));
        let taker = mesh.begin(LAST, "taker");
        assert!(mesh.intend(taker, &[objects[0]]).is_pending());
        mesh.run(100);
        mesh.end(taker);
    });
    let promoted = promote(&mesh, THIRD, group, false).unwrap();
    assert_eq!((promoted.owned, promoted.beyond), (10, None), "nobody has it from there, and now nobody can");
    late.append(&mut mesh.release());
    assert!(late.iter().any(is_grant), "it has left for good, as far as the former group's majority goes");
    late.into_iter().for_each(|flight| mesh.hand(flight));
    mesh.run(2_000);
    assert_eq!(mesh.owners_of(objects[0]), [THIRD]);
    reunite(&mesh);
    mesh.add(LAST, objects[0], 100);
    mesh.run(500);
    for at in 0..4 {
        let sum: u64 = objects.iter().map(|object| read(&mesh, at, *object).unwrap()).sum();
        assert_eq!(sum, 55 + 100);
    }
    assert_settled(&mesh, &objects);
}

#[test]
fn an_answer_of_a_generation_that_is_over_settles_nothing() {
    let mut comes = None;
    let (mesh, group, objects) = with_a_side_that_lives(|mesh, _| {
        let object = mesh.create_known(LAST, 500);
        mesh.run(100);
        mesh.rule(Rule::Drop, |flight| flight.from == 0 && flight.to == THIRD && is_entries(flight));
        mesh.rule(Rule::Hold, |flight| {
            flight.from == 0 && flight.to == LAST && crate::harness::is_grant_answer(flight)
        });
        mesh.put(0, object, 600);
        mesh.run(100);
        comes = Some(object);
    });
    let comes = comes.unwrap();
    assert_eq!(promote(&mesh, THIRD, group, false).unwrap().beyond, None, "it is still on its way there");
    let late = mesh.release();
    assert!(late.iter().any(crate::harness::is_grant_answer));
    late.into_iter().for_each(|flight| mesh.hand(flight));
    mesh.run(2_000);
    reunite(&mesh);
    for at in 0..4 {
        assert_eq!(read(&mesh, at, comes).unwrap(), 500, "what it was when it left is all that there is");
        let sum: u64 = objects.iter().map(|object| read(&mesh, at, *object).unwrap()).sum();
        assert_eq!(sum, 55);
    }
    assert_settled(&mesh, &[&objects[..], &[comes]].concat());
}

#[test]
fn whoever_led_a_former_generation_ends_it_by_what_a_third_tells() {
    // Alone in its group, the first peer needs nobody to make something stable.
    let mesh = Mesh::replicated_with(3, 1, |at, setup| {
        if at == 2 {
            follows_none(setup)
        }
    });
    let objects = mesh.create_values(0, &(1..=10).map(small).collect::<Vec<_>>());
    mesh.run(200);
    let group = mesh.group_id(0);
    assert_eq!(followers(&mesh, group), [1]);
    mesh.cut(0, 1);
    mesh.run(10_000);
    let receipt = mesh.put(0, objects[0], 7).receipt;
    mesh.run(100);
    assert!(mesh.look(0, |peer| peer.is_stable(&receipt)), "it goes on, for all that it knows");
    promote(&mesh, 1, group, false).unwrap();
    mesh.run(2_000);
    assert_ne!(mesh.group_id(0), group, "it has heard of the next generation from the third");
    for object in &objects {
        assert_eq!(mesh.owners_of(*object).len(), 1);
    }
    mesh.heal(0, 1);
    mesh.run(3_000);
    assert_eq!(fate(&mesh, 0, &receipt), FateTold::Lost);
    assert_eq!(read(&mesh, 0, objects[0]).unwrap(), 1);
    assert_settled(&mesh, &objects);
}

#[test]
fn what_is_not_in_reach_is_given_up_before_a_group_is_founded_anew_beside_it() {
    // Nobody but the first peer has what the first peer's group owns; and the third peer's has a copy at the second.
    let mesh = Mesh::with(3, |at, setup| {
        setup.config.replicas = usize::from(at == 2);
        setup.config.followed_max = usize::from(at == 1);
    });
    mesh.run(2_000);
    let (alone, held, at) = (mesh.group_id(0), mesh.group_id(2), 1);
    assert_eq!(followers(&mesh, held), [at]);
    let objects = mesh.create_values(2, &(1..=3).map(small).collect::<Vec<_>>());
    mesh.run(200);
    mesh.kill_all(&[0, 2]);
    mesh.run(3_000);
    let refused = promote(&mesh, at, held, true);
    let Err(OperatorError::Beyond(beyond)) = refused else { panic!("{refused:?}") };
    assert_eq!(beyond.silent, [alone]);
    assert!(beyond.to_string().contains("`forget` first") && !beyond.to_string().contains("--accept-loss"));
    forget(&mesh, at, alone, false).unwrap();
    let refused = promote(&mesh, at, held, false);
    assert!(matches!(&refused, Err(OperatorError::Beyond(beyond)) if beyond.given_up == [alone]), "{refused:?}");
    promote(&mesh, at, held, true).unwrap();
    mesh.run(2_000);
    assert_eq!(objects.iter().map(|object| read(&mesh, at, *object).unwrap()).sum::<u64>(), 6);
    assert_settled(&mesh, &objects);
}

#[test]
fn what_went_on_to_the_other_side_is_where_the_group_goes_on() {
    let mut moved = None;
    let (mesh, group, objects) = with_a_side_that_lives(|mesh, objects| {
        mesh.rule(Rule::Drop, |flight| flight.to == THIRD && is_entries(flight));
        // There and back again, and there: all know where it is, and the third peer has no copy of all that.
        for turn in 0..7 {
            mesh.add(if turn % 2 == 0 { 1 } else { 0 }, objects[1], 1_000);
            mesh.run(100);
        }
        moved = Some((mesh.group_id(1), objects[1]));
    });
    let (theirs, moved) = moved.unwrap();
    let promoted = promote(&mesh, THIRD, group, false).unwrap();
    assert_eq!((promoted.owned, promoted.beyond, &promoted.fenced[..]), (10, None, &[theirs][..]));
    mesh.release();
    mesh.run(2_000);
    mesh.heal(0, THIRD);
    mesh.heal(1, THIRD);
    mesh.run(3_000);
    assert_eq!(mesh.status(LAST).leaderless, [theirs]);
    let refused = promote(&mesh, 1, theirs, true);
    assert!(matches!(&refused, Err(OperatorError::Beyond(beyond)) if beyond.owned_twice > 0), "{refused:?}");
    forget(&mesh, LAST, theirs, true).unwrap();
    mesh.run(5_000);
    let (owner, mut homes) = (mesh.owner_of(moved), 0);
    for at in 0..4 {
        let sum: u64 = objects.iter().map(|object| read(&mesh, at, *object).unwrap()).sum();
        assert_eq!(sum, 55);
        // R2: what the former generation said of it is outranked.
        if let Some(record) = mesh.step(at, |peer, _| peer.kept_record(moved)) {
            assert_eq!(record.group, mesh.group_id(owner), "peer {at}");
            homes += 1;
        }
    }
    assert!(homes >= 2, "{homes}");
    assert_settled(&mesh, &objects);
}

/// Of the five members of the first peer's group the last two are left. Returns it, and what it owned.
fn two_of_five_are_left(
    set_up: impl FnMut(usize, &mut crate::harness::Setup),
    peers: usize,
) -> (Mesh, GroupId, Vec<ObjectId>) {
    let mesh = Mesh::replicated_with(peers, 4, set_up);
    let objects = mesh.create_values(0, &(1..=10).map(small).collect::<Vec<_>>());
    mesh.run(200);
    let group = mesh.group_id(0);
    assert_eq!(followers(&mesh, group), [1, 2, 3, 4]);
    mesh.kill_all(&[0, 1, 2]);
    mesh.run(1_000);
    (mesh, group, objects)
}

/// An operator promotes whatever waits for one, and all of it is there.
fn finish_promoting(mesh: &Mesh, objects: &[ObjectId]) {
    for other in mesh.status(3).leaderless {
        promote_where_most_is(mesh, 3, other, false);
    }
    mesh.run(5_000);
    assert_eq!(objects.iter().map(|object| read(mesh, 4, *object).unwrap()).sum::<u64>(), 55);
    assert_settled(mesh, objects);
}

type Told = Vec<Result<Promoted, OperatorError>>;

/// Two operators promote a group at two peers at once. Returns what those were told who founded it anew, and the others.
fn two_at_once(mesh: &Mesh, group: GroupId) -> (Told, Told) {
    let waiters: Vec<_> = [3, 4].iter().map(|at| (*at, mesh.step(*at, |peer, _| peer.new_waiter()))).collect();
    let mut done: Vec<Option<Result<Promoted, OperatorError>>> = vec![None, None];
    mesh.run_until("both have an answer", 10_000, || {
        for ((at, waiter), done) in waiters.iter().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(answer) = mesh.step(*at, |peer, now| peer.promote(now, *waiter, group, false))
            {
                *done = Some(answer);
            }
        }
        done.iter().all(Option::is_some)
    });
    done.into_iter().flatten().partition(Result::is_ok)
}

#[test]
fn of_two_operators_at_once_one_founds_the_group_anew() {
    let (mesh, group, objects) = two_of_five_are_left(|_, _| {}, 5);
    let (founded, refused) = two_at_once(&mesh, group);
    assert_eq!(founded.len(), 1, "{founded:?} {refused:?}");
    finish_promoting(&mesh, &objects);
}

#[test]
fn of_two_operators_who_share_only_a_third_peer_one_founds_the_group_anew() {
    let (mesh, group, objects) = two_of_five_are_left(
        |at, setup| {
            if at == 5 {
                follows_none(setup)
            }
        },
        6,
    );
    mesh.disconnect(3, 4);
    mesh.run(100);
    let (founded, refused) = two_at_once(&mesh, group);
    assert_eq!(founded.len(), 1, "{founded:?} {refused:?}");
    assert_eq!(
        refused,
        [Err(OperatorError::Unanswered { group, member: crate::harness::peer_id(5) })],
        "it told the other one"
    );
    mesh.connect(3, 4);
    mesh.run(2_000);
    finish_promoting(&mesh, &objects);
}

#[test]
fn followers_of_a_group_that_was_founded_anew_go_on_with_it() {
    let (mesh, group, objects) = two_of_five_are_left(|_, _| {}, 5);
    for other in mesh.status(3).leaderless {
        promote(&mesh, 3, other, false).unwrap();
    }
    // What its leader journals when an object leaves its follower must be able to apply.
    let (mut owned, mut followed) = (BTreeSet::new(), 0);
    for _ in 0..600 {
        mesh.run(5);
        assert!(mesh.status(4).groups.iter().all(|group| group.halted.is_none()), "{:?}", mesh.status(4).groups);
        owned.extend(mesh.look_at_group(3, group, |group| group.owned_count()));
        followed += usize::from(mesh.look_at_group(4, group, |group| group.applied() > Lsn::ZERO) == Some(true));
    }
    assert!(owned.contains(&0) && followed > 0, "{owned:?} {followed}");
    // Those that the two led themselves had lost their majorities too, and were ended with it.
    finish_promoting(&mesh, &objects);
}

#[test]
fn what_a_member_holds_and_does_not_know_to_be_stable_is_part_of_what_is_left() {
    let (mesh, group, objects) = with_a_side_that_lives(|mesh, objects| {
        // The departure arrives at the third peer, and no word that it is stable.
        mesh.rule(Rule::Drop, |flight| flight.to == THIRD && crate::harness::is_group(flight) && !is_entries(flight));
        mesh.rule(Rule::Drop, |flight| flight.from == LAST && crate::harness::is_grant_answer(flight));
        let taker = mesh.begin(LAST, "taker");
        mesh.intend_wait(taker, &[objects[0]]).unwrap();
        mesh.end(taker);
        mesh.run(50);
    });
    assert_eq!(mesh.owners_of(objects[0]), [LAST]);
    let (applied, tail) = mesh.look_at_group(THIRD, group, |group| (group.applied(), group.tail())).unwrap();
    assert!(applied < tail, "{applied} of {tail}");
    let promoted = promote(&mesh, THIRD, group, false).unwrap();
    assert_eq!((promoted.owned, promoted.beyond), (9, None), "nothing is missing");
    mesh.release();
    reunite(&mesh);
    assert_eq!(objects.iter().map(|object| read(&mesh, 1, *object).unwrap()).sum::<u64>(), 55);
    assert_settled(&mesh, &objects);
}

#[test]
fn records_climb_after_an_object_went_through_a_group_that_was_founded_anew() {
    let mesh = Mesh::replicated(4, 2);
    let objects = mesh.create_values(0, &(1..=10).map(small).collect::<Vec<_>>());
    mesh.run(200);
    let group = mesh.group_id(0);
    let of = followers(&mesh, group);
    let (dies, goes_on) = (of[0], of[1]);
    let stranger = (1..4).find(|at| !of.contains(at)).unwrap();
    mesh.kill_all(&[0, dies]);
    mesh.run(3_000);
    for other in mesh.status(goes_on).leaderless {
        promote_where_most_is(&mesh, goes_on, other, false);
    }
    mesh.run(3_000);
    let former = mesh.epoch_of(objects[0]);
    // Through the hands of groups that were never founded anew.
    for turn in 0..6 {
        let to = if turn % 2 == 0 { stranger } else { goes_on };
        mesh.add(to, objects[0], 1);
        mesh.run(1_000);
        assert!(mesh.epoch_of(objects[0]) > former);
        let owner = mesh.group_id(mesh.owner_of(objects[0]));
        for at in mesh.alive() {
            if let Some(record) = mesh.step(at, |peer, _| peer.kept_record(objects[0])) {
                assert_eq!(record.group, owner, "peer {at} in turn {turn}");
            }
        }
    }
    assert_settled(&mesh, &objects);
}

#[test]
fn a_group_that_ends_while_an_operator_asks_is_neither_given_up_nor_founded_anew() {
    for is_promoted in [false, true] {
        let mesh = Mesh::replicated(4, 2);
        let group = mesh.group_id(3);
        let waiter = mesh.step(0, |peer, _| peer.new_waiter());
        let ask = || {
            mesh.step(0, |peer, now| {
                if is_promoted {
                    peer.promote(now, waiter, group, true).map(|done| done.map(drop))
                } else {
                    peer.forget_group(now, waiter, group, true)
                }
            })
        };
        assert!(ask().is_pending());
        // Meanwhile its own last entry has become stable, and others tell.
        let ended = Some(Ended::default());
        let record = GroupRecord { group, generation: Generation::ZERO, term: Term::ZERO, leader: None, ended };
        mesh.forge(1, 0, Message::Groups { records: vec![record] });
        mesh.settle();
        let done = answer(&mesh, ask);
        assert!(matches!(done, Err(OperatorError::Ended { lost: false, .. })), "{done:?}");
        assert_eq!(mesh.look(0, |peer| peer.remains_of(group).map(|ended| ended.lost)), Some(false));
    }
}

#[test]
fn operators_that_ask_at_once_are_bounded() {
    const SURVEYS_MAX: usize = 16;
    let mesh = Mesh::new(2);
    let group = mesh.group_id(1);
    let asks = || {
        let waiter = mesh.step(0, |peer, _| peer.new_waiter());
        mesh.step(0, |peer, now| peer.forget_group(now, waiter, group, false))
    };
    assert!((0..SURVEYS_MAX).all(|_| asks().is_pending()));
    assert!(matches!(asks(), Poll::Ready(Err(OperatorError::Busy))));
}
