//! R19 and R20: one owner or in transit, and a grant takes effect once, whatever becomes of its messages.

use crate::harness::{
    Flight, Mesh, Rule, amount, heavy, is_grant, is_grant_answer, is_own, large, ready, shifted, small,
};
use driftmesh_model::{Epoch, ObjectId, Timestamp, limits};
use driftmesh_object_store::Entry;
use driftmesh_peer::{Message, RareEvent, StepError};

/// How often a peer has adopted an object.
fn adoptions(mesh: &Mesh, at: usize, object: ObjectId) -> usize {
    let adopted = |entry: &Entry| {
        let Entry::TransferIn { arrivals, .. } = entry else { return 0 };
        arrivals.iter().filter(|arrival| arrival.object == object).count()
    };
    mesh.journal(at).iter().map(adopted).sum()
}

/// Whether all grants are settled everywhere.
fn nothing_in_transit(mesh: &Mesh) -> bool {
    (0..mesh.len()).all(|at| mesh.look(at, |peer| peer.group().in_transit_count()) == 0)
}

/// Lets a peer ask for an object, and catches the grant.
fn caught_grant(mesh: &Mesh, to: usize, object: ObjectId) -> (crate::harness::Txn, Flight) {
    let txn = mesh.begin_for(to, "fetch", 10_000);
    assert!(mesh.intend(txn, &[object]).is_pending());
    for _ in 0..10 {
        mesh.deliver(|flight| !is_grant(flight));
    }
    let mut grants = mesh.intercept(is_grant);
    assert_eq!(grants.len(), 1);
    (txn, grants.remove(0))
}

#[test]
fn a_lost_grant_is_repeated_until_it_arrives() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 5);
    mesh.rule(Rule::Drop, is_grant);
    let txn = mesh.begin_for(1, "fetch", 10_000);
    assert!(mesh.intend(txn, &[object]).is_pending());
    mesh.run(650);
    assert!(mesh.look(0, |peer| peer.group().in_transit(object).is_some()));
    assert!(mesh.rare(0, RareEvent::RepeatedGrant) >= 2);
    mesh.release();
    mesh.intend_wait(txn, &[object]).unwrap();
    mesh.commit_amount(txn, object, 6).unwrap();
    mesh.settle();
    assert_eq!((mesh.owner_of(object), mesh.newest(object), adoptions(&mesh, 1, object)), (1, Some(6), 1));
    assert!(nothing_in_transit(&mesh));
}

#[test]
fn a_duplicated_grant_is_adopted_once_and_answered_twice() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 5);
    let (txn, grant) = caught_grant(&mesh, 1, object);
    mesh.hand(grant.clone());
    ready(mesh.intend(txn, &[object])).unwrap();
    mesh.commit_amount(txn, object, 6).unwrap();
    mesh.hand(grant);
    assert_eq!(mesh.in_flight(is_grant_answer).len(), 2);
    mesh.settle();
    assert_eq!((mesh.owner_of(object), mesh.newest(object), adoptions(&mesh, 1, object)), (1, Some(6), 1));
    assert_eq!(mesh.rare(1, RareEvent::LateDuplicateGrant), 1);
    assert!(nothing_in_transit(&mesh));
}

/// How many grants each message with grants carries.
fn gathered(mesh: &Mesh) -> Vec<usize> {
    let count = |flight: &Flight| if let Message::Grants { grants, .. } = flight.message() { grants.len() } else { 0 };
    mesh.sent(is_grant).iter().map(count).collect()
}

#[test]
fn what_one_step_grants_leaves_in_one_message_when_the_last_departure_is_stable_and_is_answered_in_one() {
    let mesh = Mesh::replicated(4, 2);
    let objects: Vec<ObjectId> = (0..5).map(|amount| mesh.create_known(0, amount)).collect();
    mesh.run(100);
    // It knows where they are, so it asks for them at once.
    objects.iter().for_each(|object| assert!(mesh.get(3, *object).is_some()));
    mesh.hold_entries(0);
    let txn = mesh.begin(3, "all");
    assert!(mesh.intend(txn, &objects).is_pending());
    mesh.settle();
    assert_eq!(gathered(&mesh), [0; 0], "no departure is stable");
    mesh.take_held().into_iter().for_each(|flight| mesh.hand(flight));
    mesh.release();
    mesh.intend_wait(txn, &objects).unwrap();
    mesh.run(10);
    assert_eq!((gathered(&mesh), mesh.sent(is_grant_answer).len()), (vec![5], 1));
    // And each of it is one entry.
    mesh.run(100);
    assert_eq!((moved(&mesh, 0), moved(&mesh, 3)), ([vec![5], vec![], vec![5]], [vec![], vec![5], vec![]]));
}

/// How many objects each entry moves by which they leave, arrive, and have arrived elsewhere.
fn moved(mesh: &Mesh, at: usize) -> [Vec<usize>; 3] {
    let mut moved = [Vec::new(), Vec::new(), Vec::new()];
    for entry in mesh.journal(at) {
        if let Entry::TransferOut { departures, .. } = &entry {
            moved[0].push(departures.len());
        }
        if let Entry::TransferIn { arrivals, .. } = &entry {
            moved[1].push(arrivals.len());
        }
        if let Entry::Handed { numbers, .. } = &entry {
            moved[2].push(numbers.len());
        }
    }
    moved
}

#[test]
fn a_message_of_grants_may_bring_the_same_twice_and_one_that_is_refused() {
    let mesh = Mesh::new(2);
    let objects: Vec<ObjectId> = (0..3).map(|amount| mesh.create_known(0, amount)).collect();
    let txn = mesh.begin_for(1, "all", 10_000);
    assert!(mesh.intend(txn, &objects).is_pending());
    for _ in 0..10 {
        mesh.deliver(|flight| !is_grant(flight));
    }
    let mut flight = mesh.intercept(is_grant).remove(0);
    let Message::Grants { grants, .. } = &mut flight.envelope.message else { panic!("these are grants") };
    let [first, second, third] = [0, 1, 2].map(|index| grants[index].clone());
    // The second number comes with the first one's object: a faulty peer says so.
    let mut bad = first.clone();
    bad.number = second.number;
    *grants = vec![first.clone(), first.clone(), bad, third.clone(), third.clone()];
    mesh.hand(flight);
    mesh.settle();
    let adopted = [first.object, second.object, third.object].map(|object| adoptions(&mesh, 1, object));
    assert_eq!((adopted, moved(&mesh, 1)[1].clone()), ([1, 0, 1], vec![1, 1]));
    assert_eq!((mesh.rare(1, RareEvent::GrantRefused), mesh.rare(1, RareEvent::LateDuplicateGrant)), (1, 2));
    assert!(nothing_in_transit(&mesh));
}

#[test]
fn a_message_of_grants_is_cut_where_it_is_large() {
    let mesh = Mesh::new(2);
    let value = |byte: u8| driftmesh_model::Value::from_slice(&vec![byte; 150 << 10]);
    let objects = mesh.create_values(0, &(1..=5).map(value).collect::<Vec<_>>());
    let txn = mesh.begin(1, "all");
    mesh.intend_wait(txn, &objects).unwrap();
    assert_eq!(gathered(&mesh), [2, 2, 1]);
}

#[test]
fn a_lost_acknowledgement_is_given_again() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 5);
    mesh.rule(Rule::Drop, is_grant_answer);
    mesh.put(1, object, 6);
    mesh.run(1_000);
    assert!(!nothing_in_transit(&mesh));
    assert_eq!(adoptions(&mesh, 1, object), 1);
    mesh.release();
    mesh.run(400);
    assert!(nothing_in_transit(&mesh));
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (1, Some(6)));
    let handed = mesh.journal(0).iter().filter(|entry| matches!(entry, Entry::Handed { .. })).count();
    assert_eq!(handed, 1);
}

#[test]
fn every_grant_ever_sent_may_come_again_after_the_object_went_on_and_came_back() {
    let mesh = Mesh::new(4);
    let objects = [mesh.create_known(0, 0), mesh.create_known(1, 0)];
    let mut round = 0;
    for (which, to) in [(0, 1), (0, 2), (1, 2), (0, 0), (1, 0), (0, 1), (0, 0), (1, 1), (0, 3), (1, 3), (0, 0)] {
        round += 1;
        mesh.put(to, objects[which], round);
        mesh.run(1);
    }
    mesh.run(1_000);
    assert!(nothing_in_transit(&mesh));
    let look = |mesh: &Mesh| {
        let owned = objects.map(|object| (mesh.owner_of(object), mesh.epoch_of(object), mesh.newest(object)));
        let adopted: Vec<usize> = (0..4).flat_map(|at| objects.map(|object| adoptions(mesh, at, object))).collect();
        (owned, adopted)
    };
    let before = look(&mesh);
    assert_eq!((before.0[0].0, before.0[1].0), (0, 3));
    let grants = mesh.sent(is_grant);
    assert_eq!(grants.len(), 11);
    for grant in grants.iter().chain(grants.iter().rev()) {
        mesh.hand(grant.clone());
        mesh.settle();
        assert_eq!(look(&mesh), before);
    }
    // And once more while the objects go on moving.
    for (index, grant) in grants.iter().enumerate() {
        mesh.put(index % 4, objects[index % 2], 100 + index as u64);
        mesh.hand(grant.clone());
    }
    mesh.run(1_000);
    assert!(nothing_in_transit(&mesh));
    assert_eq!(objects.map(|object| mesh.newest(object)), [Some(110), Some(109)]);
}

#[test]
fn answers_to_grants_may_come_again_after_the_object_came_back_and_left() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 0);
    mesh.put(1, object, 1);
    mesh.put(0, object, 2);
    mesh.run(500);
    let answers = mesh.sent(is_grant_answer);
    // It is on its way to the second peer again, and the old answer says "adopted".
    let (txn, grant) = caught_grant(&mesh, 1, object);
    for answer in answers {
        mesh.hand(answer);
    }
    assert!(mesh.look(0, |peer| peer.group().in_transit(object).is_some()));
    mesh.hand(grant);
    mesh.intend_wait(txn, &[object]).unwrap();
    mesh.commit_amount(txn, object, 3).unwrap();
    mesh.settle();
    assert_eq!((mesh.owner_of(object), mesh.newest(object), mesh.epoch_of(object)), (1, Some(3), 4));
}

#[test]
fn what_a_leaving_peer_refuses_is_taken_back_two_epochs_on_and_stays_refused() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(0, 5);
    let epoch = mesh.epoch_of(object);
    let (txn, grant) = caught_grant(&mesh, 1, object);
    mesh.step(1, |peer, now| peer.drain(now));
    mesh.hand(grant.clone());
    assert!(mesh.journal(1).iter().any(|entry| matches!(entry, Entry::Refused { .. })));
    // It comes again before the refusal has arrived, and the peer would take objects again: still refused.
    mesh.step(1, |peer, now| peer.stay(now));
    mesh.hand(grant.clone());
    assert_eq!(mesh.in_flight(is_grant_answer).len(), 2);
    mesh.end(txn);
    mesh.settle();
    assert!(nothing_in_transit(&mesh));
    assert_eq!((mesh.owner_of(object), mesh.epoch_of(object), mesh.newest(object)), (0, epoch + 2, Some(5)));
    assert_eq!(mesh.rare(0, RareEvent::TakenBack), 1);
    assert_eq!(adoptions(&mesh, 1, object), 0);

    // The sender has settled it and grants another number; the old grant comes again, late.
    mesh.put(0, object, 6);
    mesh.put(1, object, 7);
    mesh.run(500);
    let owned = mesh.epoch_of(object);
    assert_eq!(owned, epoch + 3);
    mesh.hand(grant);
    mesh.settle();
    assert_eq!((mesh.owner_of(object), mesh.epoch_of(object), mesh.newest(object)), (1, owned, Some(7)));
    assert_eq!(adoptions(&mesh, 1, object), 1);
    assert_eq!(mesh.get(2, object), Some(7));
}

#[test]
fn a_drain_hands_everything_to_others_and_loses_nothing() {
    let mesh = Mesh::new(3);
    let values: Vec<_> = (0..700).map(small).collect();
    let objects = mesh.create_values(0, &values);
    mesh.run(300);
    mesh.step(0, |peer, now| peer.drain(now));
    mesh.run_until("the drain", 5_000, || mesh.look(0, driftmesh_peer::Peer::is_drained));
    for (index, object) in objects.iter().enumerate() {
        assert_ne!(mesh.owner_of(*object), 0);
        assert_eq!(mesh.newest(*object), Some(index as u64));
    }
    let spread = (1..3).map(|at| mesh.look(at, |peer| peer.group().owned_count())).collect::<Vec<_>>();
    assert!(spread.iter().all(|count| *count > 200), "{spread:?}");
}

#[test]
fn more_objects_move_than_the_grant_window_holds() {
    const COUNT: u64 = 2_500;
    let mesh = Mesh::new(2);
    let objects = mesh.create_values(0, &(0..COUNT).map(small).collect::<Vec<_>>());
    mesh.run(200);
    mesh.rule(Rule::Hold, is_grant_answer);
    let txn = mesh.begin_for(1, "all", 30_000);
    assert!(mesh.intend(txn, &objects).is_pending());
    mesh.run(150);
    // So many and no more are on their way while nothing is acknowledged.
    assert_eq!(mesh.look(0, |peer| peer.group().in_transit_count()), 1_024);
    assert_eq!(mesh.look(1, |peer| peer.group().owned_count()), 1_024);
    mesh.release();
    mesh.intend_wait(txn, &objects).unwrap();
    let writes: Vec<_> = objects.iter().map(|object| (*object, Some(small(9)))).collect();
    mesh.commit(txn, &writes).unwrap();
    mesh.run(500);
    assert!(nothing_in_transit(&mesh));
    assert!(objects.iter().all(|object| mesh.owner_of(*object) == 1 && mesh.newest(*object) == Some(9)));
    assert_eq!(mesh.look(0, |peer| peer.group().owned_count()), 0);
}

#[test]
fn grants_of_a_full_window_may_arrive_in_reverse_order_and_twice() {
    const COUNT: u64 = 1_100;
    let mesh = Mesh::new(2);
    let objects = mesh.create_values(0, &(0..COUNT).map(small).collect::<Vec<_>>());
    mesh.run(200);
    mesh.rule(Rule::Hold, is_grant);
    let txn = mesh.begin_for(1, "all", 30_000);
    assert!(mesh.intend(txn, &objects).is_pending());
    mesh.settle();
    let grants = mesh.release();
    assert_eq!(mesh.intercept(is_grant).len(), grants.len());
    for grant in grants.iter().rev().chain(&grants) {
        mesh.hand(grant.clone());
    }
    mesh.intend_wait(txn, &objects).unwrap();
    mesh.commit(txn, &[]).unwrap();
    mesh.run(500);
    for (index, object) in objects.iter().enumerate() {
        assert_eq!((mesh.owner_of(*object), adoptions(&mesh, 1, *object)), (1, 1));
        assert_eq!(mesh.newest(*object), Some(index as u64));
    }
}

#[test]
fn a_request_for_an_object_on_its_way_is_parked_and_answered_on_arrival() {
    let mesh = Mesh::new(4);
    let object = mesh.create_known(0, 5);
    let (txn, grant) = caught_grant(&mesh, 1, object);
    mesh.run(1);
    // A reader above the floor and a writer are sent on to where the object is not yet.
    let (reader, writer) = (mesh.begin(2, "reader"), mesh.begin(3, "writer"));
    assert!(mesh.read(reader, object).is_pending());
    assert!(mesh.intend(writer, &[object]).is_pending());
    mesh.settle();
    assert_eq!(mesh.rare(1, RareEvent::RequestParked), 2);
    assert!(mesh.read(reader, object).is_pending());
    mesh.hand(grant);
    mesh.settle();
    let seen = ready(mesh.read(reader, object)).unwrap();
    assert_eq!(seen.value.as_ref().map(amount), Some(5));
    mesh.intend_wait(txn, &[object]).unwrap();
    mesh.commit_amount(txn, object, 6).unwrap();
    mesh.intend_wait(writer, &[object]).unwrap();
    mesh.commit_amount(writer, object, 7).unwrap();
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (3, Some(7)));
}

#[test]
fn a_request_parked_for_an_object_that_does_not_come_is_answered_with_where_to_ask() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(0, 5);
    mesh.rule(Rule::Hold, is_grant);
    let txn = mesh.begin(1, "fetch");
    assert!(mesh.intend(txn, &[object]).is_pending());
    mesh.run(1);
    let reader = mesh.begin(2, "reader");
    assert!(mesh.read(reader, object).is_pending());
    mesh.run(900);
    assert!(mesh.rare(1, RareEvent::RequestParked) > 1);
    assert_eq!((mesh.failure(reader), mesh.rare(2, RareEvent::NotFound)), (None, 0));
    mesh.release();
    assert_eq!(mesh.read_wait(reader, object), Ok(Some(5)));
}

/// The versions in the only adoption of an object at a peer.
fn adopted_amounts(mesh: &Mesh, at: usize, object: ObjectId) -> Vec<Option<u64>> {
    let mut amounts = Vec::new();
    for entry in mesh.journal(at) {
        if let Entry::TransferIn { arrivals, .. } = entry {
            let versions = arrivals.iter().filter(|arrival| arrival.object == object).flat_map(|one| &one.versions);
            amounts.extend(versions.map(|version| version.value.as_ref().map(amount)));
        }
    }
    amounts
}

fn size_of(flight: &Flight) -> usize {
    driftmesh_model::codec::encode(&flight.envelope).expect("encodes").len()
}

#[test]
fn a_value_that_the_receiver_has_is_named_by_its_hash_and_journalled_whole() {
    let mesh = Mesh::new(2);
    let object = mesh.create_values(0, &[large(5)])[0];
    assert_eq!(mesh.get(1, object), Some(5));
    let (txn, grant) = caught_grant(&mesh, 1, object);
    assert!(size_of(&grant) < large(5).len(), "the value was sent");
    assert_eq!(mesh.rare(0, RareEvent::ValueSpared), 1);
    mesh.hand(grant);
    ready(mesh.intend(txn, &[object])).unwrap();
    assert_eq!(adopted_amounts(&mesh, 1, object), [Some(5)]);
    mesh.commit(txn, &[(object, Some(large(6)))]).unwrap();
    mesh.settle();
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (1, Some(6)));
    // The first peer remembers only 5, which is superseded but still travels: again as a hash.
    let (txn, grant) = caught_grant(&mesh, 0, object);
    assert!(size_of(&grant) < 2 * large(5).len());
    mesh.hand(grant);
    ready(mesh.intend(txn, &[object])).unwrap();
    assert_eq!(adopted_amounts(&mesh, 0, object), [Some(5), Some(6)]);
    mesh.settle();
    assert!(nothing_in_transit(&mesh));
}

#[test]
fn a_receiver_whose_copy_has_changed_asks_for_the_values() {
    // Its clock is slow, so that it reads at timestamps it was told.
    let mesh = Mesh::with(2, |at, setup| setup.wall_offset_us = if at == 1 { -400_000 } else { 0 });
    let object = mesh.create_values(0, &[large(5)])[0];
    mesh.run(150);
    assert_eq!(mesh.get(1, object), Some(5));
    // It asks while the object is held; the holder commits, so that the value it has is superseded.
    let long_ago = Some(shifted(Timestamp::from_wall(mesh.now(0).wall), -1_000_000));
    let holder = mesh.begin_as(0, "holder", 10_000, long_ago, false);
    ready(mesh.intend(holder, &[object])).unwrap();
    let txn = mesh.begin_for(1, "fetch", 10_000);
    mesh.rule(Rule::Hold, is_grant);
    assert!(mesh.intend(txn, &[object]).is_pending());
    mesh.settle();
    mesh.commit(holder, &[(object, Some(large(6)))]).unwrap();
    mesh.run(150);
    let reader = mesh.begin(1, "reader");
    assert_eq!(mesh.read_wait(reader, object), Ok(Some(6)));
    mesh.release();
    mesh.settle();
    assert!(mesh.rare(1, RareEvent::ValuesMissing) >= 1);
    ready(mesh.intend(txn, &[object])).unwrap();
    assert_eq!(adopted_amounts(&mesh, 1, object), [Some(5), Some(6)]);
    mesh.run(500);
    assert!(nothing_in_transit(&mesh));
}

#[test]
fn a_receiver_that_has_lost_its_copy_asks_for_the_value() {
    let mesh = Mesh::new(2);
    let object = mesh.create_values(0, &[large(5)])[0];
    let others = mesh.create_values(0, &(0..4_200).map(large).collect::<Vec<_>>());
    assert_eq!(mesh.get(1, object), Some(5));
    let (txn, grant) = caught_grant(&mesh, 1, object);
    // It reads more than it can keep before the grant comes.
    let reader = mesh.begin(1, "reader");
    let pending = others.iter().filter(|other| mesh.read(reader, **other).is_pending()).count();
    assert_eq!(pending, others.len());
    mesh.settle();
    assert!(others.iter().all(|other| mesh.read(reader, *other).is_ready()));
    mesh.hand(grant);
    assert_eq!(mesh.rare(1, RareEvent::ValuesMissing), 1);
    assert_eq!(adoptions(&mesh, 1, object), 0);
    mesh.settle();
    ready(mesh.intend(txn, &[object])).unwrap();
    assert_eq!(adopted_amounts(&mesh, 1, object), [Some(5)]);
    mesh.commit_amount(txn, object, 6).unwrap();
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (1, Some(6)));
}

#[test]
fn a_repeated_grant_carries_the_value_itself() {
    let mesh = Mesh::new(2);
    let object = mesh.create_values(0, &[large(5)])[0];
    assert_eq!(mesh.get(1, object), Some(5));
    let (txn, lost) = caught_grant(&mesh, 1, object);
    mesh.run_until("the repetition", 1_000, || mesh.sent(is_grant).len() > 1);
    let repeated = &mesh.sent(is_grant)[1];
    assert!(size_of(&lost) < large(5).len() && size_of(repeated) > large(5).len());
    mesh.intend_wait(txn, &[object]).unwrap();
    mesh.hand(lost);
    mesh.settle();
    assert_eq!(adoptions(&mesh, 1, object), 1);
}

#[test]
fn an_unsound_grant_is_refused_and_nothing_breaks() {
    type Spoil = fn(&mut Message);
    let unsorted: Spoil = |message| {
        if let Message::Grants { grants, .. } = message {
            grants[0].versions.reverse();
        }
    };
    let above_the_floor: Spoil = |message| {
        if let Message::Grants { grants, .. } = message {
            grants[0].floor = grants[0].versions[0].commit;
        }
    };
    let below_the_mark: Spoil = |message| {
        if let Message::Grants { grants, .. } = message {
            grants[0].low_water = Timestamp::MAX;
        }
    };
    let empty: Spoil = |message| {
        if let Message::Grants { grants, .. } = message {
            grants[0].versions.clear();
        }
    };
    let twice: Spoil = |message| {
        if let Message::Grants { grants, .. } = message {
            let again = grants[0].versions[0].clone();
            grants[0].versions.insert(0, again);
        }
    };
    for spoil in [unsorted, above_the_floor, below_the_mark, empty, twice] {
        let mesh = Mesh::new(2);
        let object = mesh.create_known(0, 5);
        mesh.put(0, object, 6);
        let (txn, mut grant) = caught_grant(&mesh, 1, object);
        let sound = grant.clone();
        spoil(&mut grant.envelope.message);
        mesh.hand(grant);
        assert_eq!((mesh.metrics(1).malformed, mesh.rare(1, RareEvent::GrantRefused)), (1, 1));
        // Refused is refused, also when the same number comes again in order.
        mesh.hand(sound);
        assert_eq!(adoptions(&mesh, 1, object), 0);
        mesh.settle();
        assert_eq!(mesh.rare(0, RareEvent::TakenBack), 1);
        // The object is where it was, two epochs on, and the next request gets it.
        mesh.intend_wait(txn, &[object]).unwrap();
        mesh.commit_amount(txn, object, 7).unwrap();
        mesh.run(500);
        assert_eq!((mesh.owner_of(object), mesh.epoch_of(object)), (1, Epoch::from_u64(4).as_u64()));
        assert_eq!((mesh.newest(object), mesh.get(0, object)), (Some(7), Some(7)));
        assert!(nothing_in_transit(&mesh));
    }
}

#[test]
fn an_object_is_not_sent_to_a_group_that_went_out_of_reach_while_it_waited() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(0, 5);
    let holder = mesh.begin(0, "holder");
    ready(mesh.intend(holder, &[object])).unwrap();
    mesh.run(1);
    let waiter = mesh.begin(1, "waiter");
    assert!(mesh.intend(waiter, &[object]).is_pending());
    mesh.settle();
    assert!(!mesh.sent(is_own).is_empty());
    mesh.kill(1);
    mesh.commit_amount(holder, object, 6).unwrap();
    mesh.run(100);
    // It was never at the dead peer: that one's death must not take it along.
    assert_eq!((mesh.owner_of(object), mesh.newest(object)), (0, Some(6)));
    assert_eq!(mesh.get(2, object), Some(6));
    mesh.put(2, object, 7);
}

#[test]
fn a_grant_to_a_peer_out_of_reach_waits_for_it_and_arrives_once() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 5);
    let (txn, _lost) = caught_grant(&mesh, 1, object);
    mesh.disconnect(0, 1);
    mesh.run(2_000);
    assert!(matches!(ready(mesh.intend(txn, &[object])), Err(StepError::Failed(_))));
    assert!(mesh.look(0, |peer| peer.group().in_transit(object).is_some()));
    mesh.connect(0, 1);
    mesh.retry_wait(txn).unwrap();
    mesh.intend_wait(txn, &[object]).unwrap();
    mesh.commit_amount(txn, object, 6).unwrap();
    mesh.run(1_000);
    assert!(nothing_in_transit(&mesh));
    assert_eq!((mesh.owner_of(object), mesh.newest(object), adoptions(&mesh, 1, object)), (1, Some(6), 1));
}

#[test]
fn a_grant_that_is_repeated_leaves_out_what_was_only_kept_because_it_was_not_stable() {
    const BYTES: usize = 200_000;
    let mesh = Mesh::replicated(4, 2);
    let value = |amount| heavy(amount, BYTES);
    let object = mesh.create_values(0, &[value(0)])[0];
    mesh.run(200);
    mesh.hold_entries(0);
    for amount in 1..=10 {
        mesh.put_values(0, &[(object, Some(value(amount)))]);
    }
    let txn = mesh.begin_for(3, "fetch", 10_000);
    assert!(mesh.intend(txn, &[object]).is_pending());
    mesh.run(20);
    assert_eq!(mesh.look(0, |peer| peer.group().in_transit_count()), 1, "it has left, with all its versions");
    mesh.release();
    mesh.rule(Rule::Drop, is_grant);
    mesh.run(1_500);
    let sent: Vec<usize> = mesh.sent(is_grant).iter().map(size_of).collect();
    assert!(sent.len() > 1 && sent[0] > 10 * BYTES, "{sent:?}");
    let most = limits::CHAIN_TRANSFER_BYTES_MAX + BYTES + 4_096;
    assert!(sent.last().is_some_and(|last| *last <= most), "{sent:?}");
}
