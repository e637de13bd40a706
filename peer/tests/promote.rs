//! What operators do to groups that lost their majority: `promote` goes on from what is left, `forget` gives them up.
//! Nothing exists twice after either, and whoever holds a receipt is told the truth.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

mod harness;

use driftmesh_model::{GroupId, ObjectId};
use driftmesh_peer::session::{self, Error, Options};
use driftmesh_peer::{Beyond, FateTold, OperatorError, Peer, Promoted, Receipt, Standing};
use harness::wire::Wire;
use harness::{GoldRef, Mesh, Rule, is_entries, is_grant, small};
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
    let read = move |tx: session::Tx<harness::SeatHost>| async move { Ok(tx.get(reference).await?.amount) };
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
        assert!(mesh.status(at).leaderless.is_empty());
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
        Err(OperatorError::HasLeader { group: living, leader: harness::peer_id(2) })
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
    mesh.rule(Rule::Drop, |flight| flight.to == 1 && harness::is_grant_answer(flight));
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
    assert_eq!(promote(&mesh, 1, group, false), Err(OperatorError::HasLeader { group, leader: harness::peer_id(0) }));
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
        Err(OperatorError::AskPeer { group, member: harness::peer_id(member) })
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

#[test]
fn an_object_that_nobody_remembers_by_name_is_not_risked_to_exist_twice() {
    let (mesh, group, _, lags, stranger) = with_something_beyond(Mesh::kill_all);
    // As if it had been handed out so long ago, or to a group led by another peer since.
    let theirs = mesh.group_id(stranger);
    mesh.rule(Rule::Hold, move |flight| {
        flight.from == stranger && matches!(flight.message(), driftmesh_peer::Message::Standing { .. })
    });
    let waiter = mesh.step(lags, |peer, _| peer.new_waiter());
    let asked = || mesh.step(lags, |peer, now| peer.promote(now, waiter, group, true));
    assert!(asked().is_pending());
    mesh.settle();
    for flight in mesh.take_held() {
        let driftmesh_peer::Message::Standing { ask, standing, .. } = flight.message().clone() else { continue };
        let standing = Standing { adopted: Vec::new(), ..*standing };
        assert!(standing.answered.contains_key(&theirs));
        mesh.forge(stranger, lags, Wire::Standing { ask, group, standing }.message());
    }
    let refused = answer(&mesh, asked);
    assert!(matches!(&refused, Err(OperatorError::Beyond(beyond)) if beyond.unnamed == 2), "{refused:?}");
}

#[test]
fn made_up_answers_to_a_survey_stop_no_peer() {
    let (mesh, group, objects, lags, stranger) = with_something_beyond(Mesh::kill_all);
    let waiter = mesh.step(lags, |peer, _| peer.new_waiter());
    let asked = || mesh.step(lags, |peer, now| peer.promote(now, waiter, group, true));
    mesh.rule(Rule::Drop, move |flight| {
        flight.from == stranger && matches!(flight.message(), driftmesh_peer::Message::Standing { .. })
    });
    assert!(asked().is_pending());
    let most = [(GroupId::from_u128(1), u64::MAX), (mesh.group_id(stranger), u64::MAX), (group, 3)];
    let standing = Standing { answered: most.into(), settled: most.into(), ..Standing::default() };
    mesh.forge(stranger, lags, Wire::Standing { ask: waiter.as_u64(), group, standing }.message());
    let refused = answer(&mesh, asked);
    assert!(matches!(&refused, Err(OperatorError::Beyond(beyond)) if beyond.unnamed > 1_000), "{refused:?}");
    mesh.release();
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
    promote(&mesh, lags, group, true).unwrap();
    mesh.run(50);
    assert!(mesh.leads(lags, group));
    gone.iter().for_each(|at| mesh.resume(*at));
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
