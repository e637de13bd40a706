//! Leading a group in place of its founder: what it owns is handed out, by transfer and behind the barrier, until it
//! owns nothing and ends.

use crate::harness::{Flight, Mesh, Rule, is_entries, is_grant, small};
use driftmesh_object_store::Entry;
use driftmesh_peer::Message;

fn of_group(flight: &Flight, id: driftmesh_model::GroupId) -> bool {
    matches!(flight.message(), Message::Group { group, .. } if *group == id)
}

#[test]
fn an_heir_gives_nothing_to_its_own_group_before_the_departure_is_stable() {
    // F1 b: two groups on one peer are two groups.
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 5);
    mesh.run(200);
    let former = mesh.group_id(0);
    mesh.kill(0);
    let heir = mesh.leader_within(former, 2_000, 0);
    mesh.settle();
    let confirmed = mesh.look_at_group(heir, former, |group| group.consensus().is_confirmed()).unwrap();
    assert!(confirmed);
    mesh.rule(Rule::Hold, move |flight| of_group(flight, former) && is_entries(flight));
    let writer = mesh.begin_for(heir, "writer", 20_000);
    assert!(mesh.intend(writer, &[object]).is_pending());
    mesh.run(300);
    assert!(mesh.look_at_group(heir, former, |group| group.in_transit(object).is_some()).unwrap());
    assert!(mesh.intend(writer, &[object]).is_pending(), "the heir's own group has it before it has left");
    assert!(mesh.look(heir, |peer| peer.group().owned(object).is_none()));
    mesh.release();
    mesh.run(20);
    assert!(mesh.intend(writer, &[object]).is_ready());
    mesh.commit_wait(writer, &[(object, Some(small(6)))]).unwrap();
    mesh.run(2_000);
    assert!(mesh.is_ended_everywhere(former));
    assert_eq!(mesh.get(heir, object), Some(6));
}

#[test]
fn nothing_is_ever_committed_to_a_group_in_place_of_its_founder() {
    let mesh = Mesh::replicated(5, 2);
    let objects = mesh.create_values(0, &(0..20).map(small).collect::<Vec<_>>());
    mesh.run(200);
    let former = mesh.group_id(0);
    let founders = mesh.tail(0);
    mesh.kill(0);
    let heir = mesh.leader_within(former, 2_000, 0);
    let mut seen = 0;
    for turn in 0..200_usize {
        let at = mesh.alive()[turn % 4];
        mesh.add(at, objects[turn % 20], 1);
        let commits = mesh.look_at_group(heir, former, |group| {
            let later = group.entries_from(founders.next());
            later.filter(|(_, entry)| matches!(entry, Entry::Commit { .. } | Entry::TransferIn { .. })).count()
        });
        seen += usize::from(commits.is_some());
        assert_eq!(commits.unwrap_or(0), 0);
    }
    assert!(seen > 0);
    assert_eq!(mesh.sum(&objects), 190 + 200);
}

#[test]
fn a_group_larger_than_the_grant_window_is_handed_out_to_the_end() {
    let mesh = Mesh::replicated(4, 2);
    let mut objects = Vec::new();
    for batch in 0..6 {
        objects.extend(mesh.create_values(0, &(0..500).map(|number| small(batch * 500 + number)).collect::<Vec<_>>()));
        mesh.run(5);
    }
    mesh.run(300);
    let former = mesh.group_id(0);
    mesh.kill(0);
    mesh.run_until("the group has ended", 15_000, || mesh.is_ended_everywhere(former));
    let owned: usize = mesh.alive().iter().flat_map(|at| mesh.look_at_led(*at, |group| group.owned_count())).sum();
    assert_eq!(owned, 3_000);
    for (number, object) in objects.iter().enumerate().step_by(331) {
        assert_eq!(mesh.get(1 + number % 3, *object), Some(number as u64));
    }
}

#[test]
fn what_others_ask_for_is_not_moved_to_the_heir_first() {
    let mesh = Mesh::replicated(4, 2);
    let objects = mesh.create_values(0, &(0..400).map(small).collect::<Vec<_>>());
    mesh.run(300);
    let former = mesh.group_id(0);
    mesh.kill(0);
    let heir = mesh.leader_within(former, 2_000, 0);
    let arrived_before = mesh.look(heir, |peer| peer.metrics().arrived);
    let asker = mesh.alive().into_iter().find(|at| *at != heir).unwrap();
    // One after the other, for longer than the background would need for all of them.
    for object in &objects[..100] {
        mesh.add(asker, *object, 1);
        mesh.run(10);
    }
    assert_eq!(mesh.look(heir, |peer| peer.metrics().arrived), arrived_before, "the heir moved what others asked for");
    assert!(objects[..100].iter().all(|object| mesh.owners_of(*object) == [asker]));
    // Nobody asks any more: what is left goes to the heir.
    mesh.run_until("the group has ended", 3_000, || mesh.is_ended_everywhere(former));
    assert!(objects[100..].iter().all(|object| mesh.owners_of(*object) == [heir]));
}

#[test]
fn a_group_ends_however_much_is_asked_for() {
    let mesh = Mesh::replicated(4, 2);
    let objects = mesh.create_values(0, &(0..2_000).map(small).collect::<Vec<_>>());
    mesh.run(300);
    let former = mesh.group_id(0);
    mesh.kill(0);
    let heir = mesh.leader_within(former, 2_000, 0);
    let asker = mesh.alive().into_iter().find(|at| *at != heir).unwrap();
    let mut asked = 0;
    while !mesh.is_ended_everywhere(former) {
        mesh.add(asker, objects[asked], 1);
        mesh.run(10);
        asked += 1;
        assert!(asked < 1_000, "the background waits for ever");
    }
    assert!(mesh.look(heir, |peer| peer.metrics().arrived) > 0);
}

#[test]
fn where_pointers_have_little_room_the_group_is_handed_out_more_slowly() {
    let mesh = Mesh::replicated_with(4, 2, |_, setup| {
        setup.config.pointers_max = 20;
        setup.config.pointer_grace = driftmesh_model::Micros::from_millis(100);
    });
    let objects = mesh.create_values(0, &(0..100).map(small).collect::<Vec<_>>());
    mesh.run(300);
    let former = mesh.group_id(0);
    mesh.kill(0);
    mesh.run_until("the group has ended", 30_000, || {
        assert!(mesh.alive().iter().all(|at| mesh.status(*at).pointers <= 20));
        mesh.is_ended_everywhere(former)
    });
    assert_eq!(mesh.sum(&objects), 4_950);
}

#[test]
fn an_heir_that_dies_in_the_midst_of_handing_out_is_followed_by_another_one() {
    for after in [0, 20, 60, 70, 80, 100, 150] {
        let mesh = Mesh::replicated_with(6, 4, |_, setup| setup.config.journal.batch_bytes = 2_000);
        mesh.rule(Rule::Delay(1_000), |_| true);
        let objects = mesh.create_values(0, &(0..300).map(small).collect::<Vec<_>>());
        mesh.run(500);
        let former = mesh.group_id(0);
        mesh.kill(0);
        let heir = mesh.leader_within(former, 2_000, 0);
        mesh.run(after);
        mesh.kill(heir);
        mesh.run(10_000);
        assert!(mesh.is_ended_everywhere(former), "after {after} ms");
        assert_eq!(mesh.sum(&objects), 44_850, "after {after} ms");
        for object in &objects {
            assert_eq!(mesh.owners_of(*object).len(), 1);
        }
    }
}

#[test]
fn an_heir_that_leaves_hands_out_to_others() {
    let mesh = Mesh::replicated(5, 2);
    let objects = mesh.create_values(0, &(0..50).map(small).collect::<Vec<_>>());
    mesh.run(300);
    let former = mesh.group_id(0);
    mesh.kill(0);
    let heir = mesh.leader_within(former, 2_000, 0);
    mesh.step(heir, |peer, now| peer.drain(now));
    mesh.run_until("it may go", 20_000, || mesh.look(heir, driftmesh_peer::Peer::is_drained));
    mesh.kill(heir);
    mesh.run(2_000);
    assert_eq!(mesh.sum(&objects), 1_225);
    assert!(mesh.is_ended_everywhere(former));
}

#[test]
fn requests_for_what_an_heir_cannot_give_yet_are_answered_later() {
    // Everybody wants the same object at once, before the heir's first entry is stable.
    let mesh = Mesh::replicated(5, 2);
    let object = mesh.create_known(0, 0);
    mesh.run(200);
    let former = mesh.group_id(0);
    mesh.kill(0);
    mesh.rule(Rule::Hold, move |flight| of_group(flight, former) && is_entries(flight));
    mesh.leader_within(former, 2_000, 0);
    let writers: Vec<_> = mesh.alive().into_iter().map(|at| mesh.begin_for(at, "writer", 20_000)).collect();
    for writer in &writers {
        assert!(mesh.intend(*writer, &[object]).is_pending());
    }
    mesh.run(300);
    assert!(mesh.sent(|flight| is_grant(flight) && flight.from != 0).is_empty());
    mesh.release();
    for writer in writers {
        loop {
            let done = mesh
                .intend_wait(writer, &[object])
                .and_then(|()| mesh.read_wait(writer, object))
                .and_then(|read| mesh.commit_wait(writer, &[(object, Some(small(read.unwrap_or(0) + 1)))]));
            match done {
                Ok(_) => break,
                Err(driftmesh_peer::StepError::Failed(_)) => mesh.retry_wait(writer).unwrap(),
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert_eq!(mesh.newest(object), Some(4));
}

#[test]
fn who_leads_in_place_of_a_founder_is_known_also_when_that_one_comes_back() {
    let mesh = Mesh::replicated(4, 2);
    let objects = mesh.create_values(0, &(0..1_000).map(small).collect::<Vec<_>>());
    mesh.run(500);
    let former = mesh.group_id(0);
    mesh.kill(0);
    mesh.leader_within(former, 2_000, 0);
    mesh.run(30);
    mesh.restart(0);
    mesh.run(20);
    assert!(!mesh.is_ended_everywhere(former), "nobody leads it any more");
    for at in mesh.alive() {
        let leaderless = mesh.step(at, |peer, now| peer.status(now).leaderless);
        assert!(leaderless.is_empty(), "{at} knows nobody who leads {leaderless:?}");
    }
    mesh.run_until("the group has ended", 10_000, || mesh.is_ended_everywhere(former));
    mesh.add(0, objects[0], 1);
    assert_eq!(mesh.newest(objects[0]), Some(1));
}

#[test]
fn homes_hear_nothing_of_a_departure_to_a_group_that_ends_before_it_is_stable() {
    // R6: an object that is on its way to such a group comes back, but a new leader may know neither.
    for heir_dies in [false, true] {
        let grace = driftmesh_model::Micros::from_millis(20);
        let mesh = Mesh::replicated_with(9, 4, |_, setup| {
            setup.config.pointer_grace = grace;
            // The heir goes on, though its followers hear no entries for a while.
            setup.config.journal.election_after = driftmesh_model::Micros::from_millis(10_000);
        });
        let objects = mesh.create_values(0, &(0..100).map(small).collect::<Vec<_>>());
        mesh.run(200);
        let former = mesh.group_id(0);
        mesh.kill(0);
        let heir = mesh.leader_within(former, 30_000, 0);
        let others: Vec<usize> =
            mesh.alive().into_iter().filter(|at| mesh.look_at_group(*at, former, |_| ()).is_none()).collect();
        let (asker, destination) = (others[0], mesh.group_id(others[0]));
        mesh.rule(Rule::Hold, move |flight| of_group(flight, former) && is_entries(flight));
        let writer = mesh.begin_for(asker, "writer", 20_000);
        assert!(mesh.intend(writer, &objects[..1]).is_pending());
        mesh.run(20);
        let sends = || mesh.look_at_group(heir, former, |group| group.unsettled_to(destination).count()).unwrap();
        assert_eq!(sends(), 1);
        mesh.kill(asker);
        let mut asked = objects[1..].iter();
        let mut keep_busy = || {
            // What nobody asks for stays where it is.
            let writer = mesh.begin_for(others[1], "another", 20_000);
            assert!(mesh.intend(writer, &[*asked.next().unwrap()]).is_pending());
            mesh.run(30);
        };
        while !mesh.is_ended_everywhere(destination) {
            keep_busy();
        }
        (0..10).for_each(|_| keep_busy());
        for at in mesh.alive() {
            let known = mesh.step(at, |peer, _| peer.kept_record(objects[0]));
            assert!(known.is_none_or(|record| record.group != destination), "{at} was told of an unstable departure");
        }
        assert_eq!(mesh.look_at_group(heir, former, driftmesh_object_store::Group::is_leading), Some(true));
        assert_eq!(sends(), 1, "what may not have left is not settled");
        if heir_dies {
            mesh.kill(heir);
            mesh.take_held();
        }
        mesh.release();
        mesh.run_until("the group has ended", 10_000, || mesh.is_ended_everywhere(former));
        mesh.run(1_000);
        let owner = mesh.group_id(mesh.owner_of(objects[0]));
        for at in mesh.alive().into_iter().filter(|at| mesh.look(*at, |peer| peer.is_home(objects[0]))) {
            assert_eq!(mesh.step(at, |peer, _| peer.kept_record(objects[0])).map(|record| record.group), Some(owner));
        }
        assert_eq!(mesh.newest(objects[0]), Some(0));
    }
}
