//! R1, R2, R4, R14: hints are only hints, every search ends, and `NotFound` is never said of what may exist.

use crate::harness::wire::Wire;
use crate::harness::{GoldRef, Mesh, Rule, Txn, is_learned, is_locate, is_own, is_publish, is_read, ready};
use driftmesh_directory::{HOP_LIMIT, HomeRing, Record};
use driftmesh_model::{Epoch, Micros, ObjectId};
use driftmesh_peer::session::{Error, Options, Snapshot, transact};
use driftmesh_peer::{Cause, Peer, RareEvent, StepError};
use std::num::NonZeroUsize;

const NOWHERE: ObjectId = ObjectId::from_u128(0xdead);

/// A record that says that a peer's group has an object.
fn record(mesh: &Mesh, object: ObjectId, at: usize, epoch: u64) -> Record {
    let group = mesh.look(at, |peer| peer.group().id());
    Record { object, group, epoch: Epoch::from_u64(epoch) }
}

/// Lets a peer believe that another one has an object.
fn hint(mesh: &Mesh, at: usize, object: ObjectId, says: usize, epoch: u64) {
    let from = (0..mesh.len()).find(|other| *other != at).expect("there are others");
    let records = vec![record(mesh, object, says, epoch)];
    mesh.forge(from, at, Wire::Learned { records }.message());
}

/// A mesh in which nobody remembers where more than one object is, and an object that all memory is spent on.
fn forgetful_mesh(peers: usize) -> Mesh {
    Mesh::with(peers, |_, setup| {
        setup.config.records_max = NonZeroUsize::MIN;
        setup.config.pointer_grace = Micros(0);
        setup.config.heartbeat = Micros::from_millis(2);
    })
}

fn requests_sent(mesh: &Mesh) -> usize {
    mesh.sent(|flight| is_read(flight) || is_own(flight) || is_locate(flight)).len()
}

#[test]
fn a_wrong_hint_costs_time_only() {
    for epoch in [1, 2, 1_000, u64::MAX] {
        let mesh = Mesh::new(4);
        let object = mesh.create_known(0, 5);
        hint(&mesh, 3, object, 1, epoch);
        assert_eq!(mesh.get(3, object), Some(5));
        hint(&mesh, 2, object, 1, epoch);
        mesh.put(2, object, 6);
        assert_eq!((mesh.owner_of(object), mesh.newest(object)), (2, Some(6)));
        assert_eq!(mesh.get(3, object), Some(6));
        assert_eq!(mesh.rare(2, RareEvent::NotFound) + mesh.rare(3, RareEvent::NotFound), 0);
    }
}

#[test]
fn a_hint_that_names_the_asker_itself_or_an_unknown_group_does_no_harm() {
    for says_itself in [true, false] {
        let mesh = Mesh::new(3);
        let object = mesh.create_known(0, 5);
        let mut wrong = record(&mesh, object, 2, 50);
        if !says_itself {
            wrong.group = driftmesh_model::GroupId::from_u128(99);
        }
        mesh.forge(1, 2, Wire::Learned { records: vec![wrong] }.message());
        assert_eq!(mesh.get(2, object), Some(5));
        mesh.put(2, object, 6);
        assert_eq!(mesh.newest(object), Some(6));
    }
}

#[test]
fn stale_hints_in_a_cycle_with_equal_epochs_end_in_the_truth() {
    for epoch in [1, 7] {
        let mesh = Mesh::new(5);
        let object = mesh.create_known(0, 5);
        for (at, says) in [(1, 2), (2, 1), (3, 1), (4, 2)] {
            hint(&mesh, at, object, says, epoch);
        }
        mesh.clear_log();
        let begun = mesh.mono_us();
        assert_eq!(mesh.get(3, object), Some(5));
        assert!(mesh.mono_us() - begun < 500_000);
        assert!(requests_sent(&mesh) < 20, "{} requests", requests_sent(&mesh));
        mesh.clear_log();
        mesh.put(4, object, 6);
        assert!(requests_sent(&mesh) < 20, "{} requests", requests_sent(&mesh));
        assert_eq!((mesh.owner_of(object), mesh.get(1, object)), (4, Some(6)));
    }
}

#[test]
fn a_record_that_comes_late_replaces_no_newer_one() {
    let mesh = Mesh::new(4);
    let object = mesh.create_known(0, 0);
    for (amount, at) in [1, 2, 3, 0, 2].into_iter().enumerate() {
        mesh.put(at, object, amount as u64);
        mesh.run(30);
        assert_eq!(mesh.get((at + 1) % 4, object), Some(amount as u64));
    }
    let homes = |mesh: &Mesh| -> Vec<Option<Record>> {
        (0..4).map(|at| mesh.step(at, |peer, _| peer.kept_record(object).filter(|_| peer.is_home(object)))).collect()
    };
    let truth = record(&mesh, object, 2, 6);
    let before = homes(&mesh);
    assert!(before.iter().flatten().count() >= 2 && before.iter().flatten().all(|record| *record == truth));
    // All that was ever said of where it is comes again, the newest first.
    for late in mesh.sent(|flight| is_publish(flight) || is_learned(flight)).into_iter().rev() {
        mesh.hand(late);
    }
    mesh.settle();
    assert_eq!(homes(&mesh), before);
    for at in [0, 1, 3] {
        mesh.clear_log();
        assert_eq!(mesh.get(at, object), Some(4));
        assert!(mesh.sent(|flight| is_read(flight) && flight.from == at).len() <= 2);
    }
}

#[test]
fn a_chain_of_pointers_longer_than_the_hop_limit_ends_at_the_homes_or_with_everyone() {
    const LIARS: usize = 14;
    let mesh = Mesh::new(LIARS + 2);
    let object = mesh.create_known(0, 5);
    for at in 1..=LIARS {
        // Each says that the next one has it, at ever higher epochs.
        hint(&mesh, at, object, at % LIARS + 1, 100 + at as u64);
    }
    hint(&mesh, LIARS + 1, object, 1, 100);
    mesh.clear_log();
    assert_eq!(mesh.get(LIARS + 1, object), Some(5));
    let reads = mesh.sent(|flight| is_read(flight) && flight.from == LIARS + 1).len();
    assert!(reads <= 2 * HOP_LIMIT + 2, "{reads} groups were asked");
    assert!(mesh.rare(LIARS + 1, RareEvent::ChainOfThreePointers) > 0);
}

#[test]
fn a_true_chain_of_pointers_is_followed_and_everybody_on_it_learns_the_end() {
    let mesh = Mesh::new(8);
    let object = mesh.create_known(0, 0);
    assert_eq!(mesh.get(7, object), Some(0));
    // Nobody tells anybody where it goes; only the forwarding pointers know.
    mesh.rule(Rule::Drop, is_learned);
    for at in 1..=6 {
        mesh.put(at, object, at as u64);
        mesh.run(1);
    }
    mesh.release();
    assert_eq!(mesh.get(7, object), Some(6));
    mesh.run(20);
    // The path is short now, from everywhere.
    for at in [0, 7] {
        mesh.clear_log();
        assert_eq!(mesh.get(at, object), Some(6));
        assert_eq!(mesh.sent(|flight| is_read(flight) && flight.from == at).len(), 1);
    }
}

#[test]
fn objects_are_found_when_all_pointers_and_records_are_forgotten() {
    let mesh = forgetful_mesh(5);
    let objects: Vec<ObjectId> = (0..12).map(|index| mesh.create(index % 5, 0)).collect();
    mesh.run(50);
    for round in 0..4 {
        for (index, object) in objects.iter().enumerate() {
            mesh.add((index * 3 + round * 2) % 5, *object, 1);
        }
    }
    for (index, object) in objects.iter().enumerate() {
        assert_eq!(mesh.get((index + 1) % 5, *object), Some(4));
    }
    let not_found: u64 = (0..5).map(|at| mesh.rare(at, RareEvent::NotFound)).sum();
    assert_eq!(not_found, 0);
}

/// Two objects of one peer with the same homes, in a mesh where no search tells where it ended: what is remembered of
/// the second replaces what was remembered of the first.
fn object_and_decoy(mesh: &Mesh, at: usize) -> (ObjectId, ObjectId) {
    mesh.rule(Rule::Drop, is_learned);
    let mut ring = HomeRing::default();
    for index in 0..mesh.len() {
        ring.add(crate::harness::peer_id(index));
    }
    let homes = |object: ObjectId| {
        let mut homes = ring.homes(object);
        homes.sort();
        homes
    };
    let object = mesh.create(at, 7);
    for _ in 0..1_000 {
        let decoy = mesh.create(at, 8);
        // Records travel in the order of their objects.
        if homes(decoy) == homes(object) && decoy > object {
            return (object, decoy);
        }
    }
    panic!("no object with the same homes");
}

/// Moves an object, and then another one by the same way, so that the only record kept anywhere is the other's.
fn move_unnoticed(mesh: &Mesh, object: ObjectId, decoy: ObjectId, to: usize) {
    for (id, amount) in [(object, 7), (decoy, 8)] {
        mesh.put(to, id, amount);
    }
    assert_eq!((mesh.owner_of(object), mesh.owner_of(decoy)), (to, to));
    // The pointers go as soon as the homes have been told, which forget them in turn.
    mesh.run(20);
}

#[test]
fn an_object_that_dodges_every_question_is_never_declared_absent() {
    // The seeker asks; before each question arrives, the object moves to a peer that has answered already.
    const SEEKER: usize = 4;
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let mesh = forgetful_mesh(5);
        let (object, decoy) = object_and_decoy(&mesh, order[3]);
        mesh.run(50);
        mesh.rule(Rule::Hold, |flight| {
            (is_locate(flight) || is_read(flight) || is_own(flight)) && flight.from == SEEKER
        });
        let seeker = mesh.begin_for(SEEKER, "seeker", 30_000);
        assert!(mesh.intend(seeker, &[object]).is_pending());
        let mut dodged = 0;
        for _ in 0..100 {
            if dodged >= 10 {
                break;
            }
            if mesh.failure(seeker).is_some() {
                mesh.retry(seeker).unwrap();
            }
            if mesh.prepare(seeker).is_ready() {
                let _ = mesh.intend(seeker, &[object]);
            }
            mesh.settle();
            let mut questions = mesh.take_held();
            questions.sort_by_key(|flight| order.iter().position(|at| *at == flight.to));
            let mut answered: Vec<usize> = Vec::new();
            for question in questions {
                if mesh.owner_of(object) == question.to {
                    // To one that has denied already, or for the first question to the one that is asked last.
                    let refuge = answered.last().copied().unwrap_or(order[3]);
                    if refuge != question.to {
                        move_unnoticed(&mesh, object, decoy, refuge);
                        dodged += 1;
                    }
                }
                answered.push(question.to);
                mesh.hand(question);
                mesh.settle();
                assert_eq!(mesh.rare(SEEKER, RareEvent::NotFound), 0, "a live object was declared absent");
            }
            mesh.run(25);
        }
        assert!(dodged >= 10, "it dodged only {dodged} questions");
        mesh.release();
        if mesh.failure(seeker).is_some() {
            mesh.retry_wait(seeker).unwrap();
        }
        mesh.intend_wait(seeker, &[object]).unwrap();
        mesh.commit_amount(seeker, object, 9).unwrap();
        assert_eq!((mesh.owner_of(object), mesh.newest(object)), (SEEKER, Some(9)));
    }
}

#[test]
fn an_object_in_transit_is_never_declared_absent() {
    let mesh = forgetful_mesh(4);
    let (object, decoy) = object_and_decoy(&mesh, 0);
    mesh.run(50);
    mesh.rule(Rule::Hold, crate::harness::is_grant);
    let fetcher = mesh.begin_for(1, "fetcher", 20_000);
    mesh.step(1, |peer, now| peer.intend(now, fetcher.id, &[object, decoy]).is_ready());
    mesh.run(1);
    for _ in 0..3 {
        let reader = mesh.begin_for(3, "reader", 1_500);
        // Whether it is told that nobody answers or waits for its deadline: no verdict.
        read_until_deadline(&mesh, reader, object);
        mesh.end(reader);
    }
    assert_eq!(mesh.rare(3, RareEvent::NotFound), 0);
    mesh.release();
    assert_eq!(mesh.get(3, object), Some(7));
}

#[test]
fn an_id_that_was_never_committed_is_not_found_within_a_few_rounds() {
    for peers in [1, 2, 5] {
        // Who is alone and did not found the mesh declares nothing absent.
        let mesh = Mesh::with(peers, |index, setup| setup.config.founder = index == 0);
        let last = peers - 1;
        let reader = mesh.begin(last, "reader");
        let begun = mesh.mono_us();
        assert_eq!(mesh.read_wait(reader, NOWHERE), Ok(None));
        let writer = mesh.begin(last, "writer");
        assert_eq!(mesh.intend_wait(writer, &[NOWHERE]), Err(StepError::Missing(NOWHERE)));
        assert!(mesh.mono_us() - begun < 100_000);
        assert!(mesh.rare(last, RareEvent::NotFound) >= 2);

        // An id that was drawn, and whose transaction was rejected.
        let drawn = mesh.step(0, |peer, _| peer.new_object_id());
        assert_eq!(mesh.get(last, drawn), None);
    }
}

#[test]
fn a_closure_is_told_that_a_reference_dangles() {
    let mesh = Mesh::new(3);
    let gold = GoldRef::from_id(NOWHERE);
    let job = mesh.spawn(transact(mesh.host(0), Options::new("loot"), move |tx| async move {
        assert!(!tx.exists(gold).await?);
        tx.get_mut(gold).await?.amount += 1;
        Ok(())
    }));
    let error = mesh.finish(&job, 1_000).unwrap_err();
    assert!(matches!(error, Error::Dangling { object: NOWHERE }), "{error}");
    let host = mesh.host(1);
    let job = mesh.spawn(async move { Snapshot::take(host, "audit")?.get(gold).await.map(|_| ()) });
    let error = mesh.finish(&job, 1_000).unwrap_err();
    assert!(matches!(error, Error::Dangling { object: NOWHERE }), "{error}");
}

/// Reads until the deadline. Returns what the attempts ended with, and that they ended with the deadline.
fn read_until_deadline(mesh: &Mesh, txn: Txn, object: ObjectId) -> Vec<Cause> {
    let mut causes = Vec::new();
    loop {
        match mesh.read_wait(txn, object) {
            Err(StepError::Failed(cause)) => causes.push(cause),
            Err(StepError::Expired) => return causes,
            other => panic!("a verdict on what may exist: {other:?}"),
        }
        match mesh.retry_wait(txn) {
            Ok(()) => {}
            Err(StepError::Expired) => return causes,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn nothing_is_declared_absent_while_a_member_is_out_of_reach() {
    let mesh = Mesh::new(4);
    let object = mesh.create_known(3, 5);
    for other in 0..3 {
        mesh.disconnect(other, 3);
    }
    for id in [object, NOWHERE] {
        let reader = mesh.begin_for(0, "reader", 3_500);
        let causes = read_until_deadline(&mesh, reader, id);
        assert!(causes.iter().all(|cause| *cause == Cause::Unavailable { object: id }), "{causes:?}");
    }
    assert_eq!(mesh.rare(0, RareEvent::NotFound), 0);
    // It was only away: then everything is as before.
    for other in 0..3 {
        mesh.connect(other, 3);
    }
    assert_eq!(mesh.get(0, object), Some(5));
    assert_eq!(mesh.get(0, NOWHERE), None);
}

#[test]
fn nothing_is_declared_absent_after_a_member_came_back_as_another_incarnation() {
    let mesh = Mesh::new(4);
    let object = mesh.create_known(3, 5);
    mesh.kill(3);
    mesh.run(100);
    mesh.restart(3);
    mesh.run(100);
    for at in [0, 1] {
        for id in [object, NOWHERE] {
            let reader = mesh.begin_for(at, "reader", 2_500);
            let causes = read_until_deadline(&mesh, reader, id);
            assert!(causes.iter().all(|cause| *cause == Cause::Unavailable { object: id }), "{causes:?}");
        }
        assert_eq!(mesh.rare(at, RareEvent::NotFound), 0);
    }
    // What is elsewhere goes on.
    let other = mesh.create_known(1, 6);
    assert_eq!(mesh.get(3, other), Some(6));
}

#[test]
fn a_peer_that_said_goodbye_and_owns_nothing_stands_in_nobodys_way() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(2, 5);
    mesh.run(200);
    mesh.step(2, |peer, now| peer.drain(now));
    mesh.run_until("the drain", 2_000, || mesh.look(2, Peer::is_drained));
    mesh.settle();
    for other in 0..2 {
        mesh.cut(2, other);
        mesh.step(other, |peer, now| peer.left(now, crate::harness::peer_id(2), true));
    }
    assert_eq!(mesh.get(0, NOWHERE), None);
    assert_eq!((mesh.get(0, object), mesh.get(1, object)), (Some(5), Some(5)));
}

#[test]
fn what_a_dead_peer_had_is_unavailable_within_a_second_however_many_others_deny_it() {
    for peers in [2, 3, 6] {
        let mesh = Mesh::new(peers);
        let object = mesh.create_known(1, 5);
        mesh.kill(1);
        for id in [object, NOWHERE] {
            let reader = mesh.begin(0, "reader");
            let begun = mesh.mono_us();
            assert_eq!(mesh.read_wait(reader, id), Err(StepError::Failed(Cause::Unavailable { object: id })));
            assert!(mesh.mono_us() - begun < 1_300_000, "{peers} peers, {} us", mesh.mono_us() - begun);
        }
    }
}

#[test]
fn unavailable_releases_the_locks_and_a_younger_one_goes_on() {
    let mesh = Mesh::new(3);
    let (held, lost) = (mesh.create_known(0, 1), mesh.create_known(2, 1));
    let old = mesh.begin_for(0, "old", 10_000);
    ready(mesh.intend(old, &[held])).unwrap();
    mesh.kill(2);
    assert!(mesh.intend(old, &[lost]).is_pending());
    mesh.run(1);
    let young = mesh.begin_for(0, "young", 10_000);
    let remote = mesh.begin_for(1, "remote", 10_000);
    assert!(mesh.intend(young, &[held]).is_pending());
    assert!(mesh.intend(remote, &[held]).is_pending());
    mesh.run(900);
    assert!(mesh.intend(young, &[held]).is_pending());
    mesh.run(300);
    assert_eq!(mesh.failure(old), Some(Cause::Unavailable { object: lost }));
    ready(mesh.intend(young, &[held])).unwrap();
    mesh.commit_amount(young, held, 2).unwrap();
    mesh.intend_wait(remote, &[held]).unwrap();
    mesh.commit_amount(remote, held, 3).unwrap();
    assert_eq!(mesh.newest(held), Some(3));
}

#[test]
fn the_retry_of_an_unavailable_one_waits_without_any_lock() {
    let mesh = Mesh::new(3);
    let (held, lost) = (mesh.create_known(0, 1), mesh.create_known(2, 1));
    let old = mesh.begin_for(0, "old", 10_000);
    ready(mesh.intend(old, &[held])).unwrap();
    mesh.kill(2);
    assert!(mesh.intend_wait(old, &[lost]).is_err());
    mesh.retry(old).unwrap();
    mesh.run(21);
    assert!(mesh.prepare(old).is_pending());
    // It waits for what is out of reach; what is here is free meanwhile.
    let young = mesh.begin_for(0, "young", 10_000);
    ready(mesh.intend(young, &[held])).unwrap();
    mesh.commit_amount(young, held, 2).unwrap();
}

#[test]
fn a_deadline_error_says_that_no_owner_answers() {
    let mesh = Mesh::new(3);
    let lost = GoldRef::from_id(mesh.create_known(2, 1));
    mesh.kill(2);
    let options = Options { deadline: Micros::from_millis(2_300), ..Options::new("loot") };
    let job = mesh.spawn(transact(mesh.host(0), options, move |tx| async move {
        tx.get_mut(lost).await?.amount += 1;
        Ok(())
    }));
    let error = mesh.finish(&job, 3_000).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Deadline { .. }) && text.contains(&lost.id().to_string()), "{text}");
}
