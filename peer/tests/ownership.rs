//! What subscribers are told about ownership: everything once and in order, nothing while nobody asks, and one word
//! when too much was not taken.

use crate::harness::{Gold, Mesh, peer_id, small};
use driftmesh_model::{ObjectId, Value};
use driftmesh_peer::session::{Error, Owned, Ownership};
use driftmesh_peer::{OWNERSHIP_EVENTS_MAX, OwnershipEvent, Peer, SUBSCRIPTIONS_MAX};
use std::collections::BTreeSet;

type Seat = Ownership<crate::harness::SeatHost>;

fn subscribe(mesh: &Mesh, at: usize) -> Seat {
    Ownership::subscribe(mesh.host(at)).expect("few are open")
}

fn taken(subscriber: &mut Seat) -> Vec<OwnershipEvent> {
    std::iter::from_fn(|| subscriber.try_next()).collect()
}

/// The events as short words.
fn told(subscriber: &mut Seat) -> Vec<String> {
    let word = |event: OwnershipEvent| match event {
        OwnershipEvent::Arrived(arrival) => {
            let gold = arrival.decode::<Gold>().expect("it decodes").map(|(_, gold)| gold.amount);
            format!("arrived {} {gold:?}", arrival.object)
        }
        OwnershipEvent::Left { object, to } => format!("left {object} {}", to.is_some_and(|to| to == peer_id(1))),
        OwnershipEvent::Deleted { object } => format!("deleted {object}"),
        OwnershipEvent::PeerGone { peer, .. } => format!("lost {peer}"),
        OwnershipEvent::PeerBack { peer } => format!("regained {peer}"),
        OwnershipEvent::Missed => "missed".to_owned(),
        _ => "an event of a later release".to_owned(),
    };
    taken(subscriber).into_iter().map(word).collect()
}

#[test]
fn creation_departure_return_and_deletion_are_told_in_order() {
    let mesh = Mesh::new(2);
    let before = mesh.create_known(0, 1);
    let mut here = subscribe(&mesh, 0);
    let mut there = subscribe(&mesh, 1);
    let object = mesh.create_known(0, 5);
    mesh.add(0, object, 1);
    assert_eq!(told(&mut here), [format!("arrived {object} Some(6)")], "a change is no arrival; the value is today's");
    mesh.add(1, object, 1);
    mesh.settle();
    assert_eq!(told(&mut here), [format!("left {object} true")]);
    assert_eq!(told(&mut there), [format!("arrived {object} Some(7)")]);
    mesh.add(0, object, 1);
    mesh.put_values(0, &[(object, None)]);
    mesh.settle();
    let here = told(&mut here);
    assert_eq!(here, [format!("arrived {object} None"), format!("deleted {object}")], "gone when it was looked at");
    assert_eq!(told(&mut there), [format!("left {object} false")]);
    assert_eq!(mesh.owner_of(before), 0);
}

#[test]
fn what_remains_of_a_deleted_object_moves_without_a_word() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 5);
    mesh.put_values(0, &[(object, None)]);
    let (mut here, mut there) = (subscribe(&mesh, 0), subscribe(&mesh, 1));
    mesh.step(0, |peer, now| peer.drain(now));
    mesh.run_until("it moved", 5_000, || mesh.owner_of(object) == 1);
    assert!(told(&mut here).is_empty() && told(&mut there).is_empty());
}

#[test]
fn a_slow_subscriber_is_told_once_that_it_missed_something() {
    let mesh = Mesh::new(1);
    let (mut slow, mut fast) = (subscribe(&mesh, 0), subscribe(&mesh, 0));
    let mut met = 0;
    for _ in 0..OWNERSHIP_EVENTS_MAX / 64 + 1 {
        mesh.create_values(0, &vec![small(1); 64]);
        met += taken(&mut fast).len();
    }
    assert_eq!(met, OWNERSHIP_EVENTS_MAX + 64, "somebody else's slowness costs this one nothing");
    let events = taken(&mut slow);
    assert_eq!((events[0].clone(), events.len()), (OwnershipEvent::Missed, 65));
    assert!(!events[1..].contains(&OwnershipEvent::Missed));
    let owned = Owned::<_, Gold>::walk(mesh.host(0)).count();
    assert_eq!(owned, OWNERSHIP_EVENTS_MAX + 64);
}

#[test]
fn subscriptions_are_bounded_and_end_when_they_are_dropped() {
    let mesh = Mesh::new(1);
    let all: Vec<Seat> = (0..SUBSCRIPTIONS_MAX).map(|_| subscribe(&mesh, 0)).collect();
    assert!(matches!(Ownership::subscribe(mesh.host(0)), Err(Error::TooManySubscriptions)));
    drop(all);
    let mut again = subscribe(&mesh, 0);
    let object = mesh.create(0, 1);
    assert_eq!(told(&mut again), [format!("arrived {object} Some(1)")], "a former subscriber's place is a fresh one");
}

#[test]
fn a_waiting_subscriber_is_woken_by_the_next_event() {
    let mesh = Mesh::new(2);
    let mut subscriber = subscribe(&mesh, 1);
    let job = mesh.spawn(async move { (subscriber.next().await, subscriber.next().await) });
    let object = mesh.create_known(0, 1);
    mesh.run(50);
    assert!(!job.is_done());
    mesh.add(1, object, 1);
    mesh.settle();
    assert!(!job.is_done(), "one event of two");
    mesh.add(0, object, 1);
    let (first, second) = mesh.finish(&job, 1_000);
    assert!(matches!(first, OwnershipEvent::Arrived(arrival) if arrival.object == object));
    assert_eq!(second, OwnershipEvent::Left { object, to: Some(peer_id(0)) });
}

#[test]
fn a_lost_peer_is_told_once_and_so_is_its_return() {
    let mesh = Mesh::new(3);
    mesh.create_known(1, 1);
    mesh.run(250);
    let mut subscriber = subscribe(&mesh, 0);
    mesh.disconnect(0, 1);
    assert_eq!(taken(&mut subscriber), [OwnershipEvent::PeerGone { peer: peer_id(1), objects: Some(1) }]);
    mesh.connect(0, 1);
    assert_eq!(taken(&mut subscriber), [OwnershipEvent::PeerBack { peer: peer_id(1) }]);
    // A clean goodbye of a peer that owns nothing loses nothing.
    mesh.step(2, |peer, now| peer.drain(now));
    mesh.run_until("the drain", 2_000, || mesh.look(2, Peer::is_drained));
    mesh.step(0, |peer, now| peer.left(now, peer_id(2), true));
    assert!(taken(&mut subscriber).is_empty());
}

#[test]
fn a_walk_meets_every_object_of_its_type_once_and_none_that_is_deleted() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Silver;
    impl driftmesh_model::Object for Silver {
        const TYPE_NAME: &'static str = "silver";
    }
    let mesh = Mesh::new(2);
    let mut values: Vec<Value> = (0..3_000).map(small).collect();
    values.push(driftmesh_model::encode_object(&Silver).unwrap());
    let objects = mesh.create_values(0, &values);
    mesh.run(20);
    mesh.put_values(0, &[(objects[0], None)]);
    mesh.put(1, objects[1], 7);
    mesh.settle();
    let met: Vec<_> = Owned::<_, Gold>::walk(mesh.host(0)).map(Result::unwrap).collect();
    let ids: BTreeSet<ObjectId> = met.iter().map(|(gold, _)| gold.id()).collect();
    let expected: BTreeSet<ObjectId> = objects[2..3_000].iter().copied().collect();
    assert_eq!((met.len(), ids), (2_998, expected));
    assert_eq!(Owned::<_, Silver>::walk(mesh.host(0)).count(), 1);
    let there: Vec<_> = Owned::<_, Gold>::walk(mesh.host(1)).map(Result::unwrap).collect();
    assert_eq!(there.iter().map(|(gold, value)| (gold.id(), value.amount)).collect::<Vec<_>>(), [(objects[1], 7)]);
}
