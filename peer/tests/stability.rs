//! R6: nothing that depends on a journal entry leaves before that entry is stable; a local commit answers at once.

use crate::harness::{
    Flight, GoldRef, Job, Mesh, Rule, amount, is_entries, is_grant, is_grant_answer, is_heartbeat, is_locate,
    is_located, is_own, is_publish, is_read, is_read_answer, ready, seen_amount, small, wire,
};
use driftmesh_model::{Micros, ObjectId};
use driftmesh_peer::session::{Done, Error, Options, Outcome, transact};
use driftmesh_peer::{FateTold, Message, Peer, RareEvent};
use std::task::Poll;

fn from_the_first(flight: &Flight) -> bool {
    flight.from == 0
}

/// How far a peer's journal is ahead of what is stable.
fn lag(mesh: &Mesh, at: usize) -> u64 {
    mesh.tail(at).as_u64() - mesh.watermark(at).as_u64()
}

#[test]
fn a_local_commit_answers_at_once_and_says_that_it_is_not_stable_yet() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    mesh.hold_entries(0);
    let first = mesh.put(0, object, 2);
    let second = mesh.put(0, object, 3);
    assert!(!first.awaited_message && !first.stable && !second.stable);
    assert_eq!(first.receipt.lsn.next(), second.receipt.lsn);
    mesh.settle();
    assert_eq!(lag(&mesh, 0), 2);
    let reader = mesh.begin(0, "reader");
    assert_eq!(ready(mesh.read(reader, object)).unwrap().value.as_ref().map(amount), Some(3));

    let waiter = mesh.step(0, |peer, _| peer.new_waiter());
    let told = |mesh: &Mesh| mesh.step(0, |peer, now| peer.stable(now, waiter, &second.receipt));
    assert_eq!(told(&mesh), Poll::Pending);
    mesh.run(50);
    assert!(!mesh.woken(crate::harness::Txn { at: 0, id: waiter }));
    mesh.release();
    mesh.settle();
    assert!(mesh.woken(crate::harness::Txn { at: 0, id: waiter }));
    assert!(matches!(told(&mesh), Poll::Ready(FateTold::Stable { copies: 2.. })));
    assert_eq!(lag(&mesh, 0), 0);
}

#[test]
fn a_group_of_one_is_stable_at_once() {
    let mesh = Mesh::new(2);
    let object = mesh.create(0, 1);
    assert!(mesh.put(0, object, 2).stable);
    assert_eq!(lag(&mesh, 0), 0);
}

#[test]
fn an_answer_waits_for_what_it_shows_and_what_is_stable_waits_for_nothing() {
    let mesh = Mesh::replicated(3, 2);
    let (changed, quiet) = (mesh.create_known(0, 1), mesh.create_known(0, 7));
    // A read before, so that a window of time is agreed on.
    assert_eq!(mesh.get(1, quiet), Some(7));
    mesh.run(20);
    mesh.hold_entries(0);
    mesh.put(0, changed, 2);
    mesh.run(1);
    mesh.clear_log();
    let (waits, waits_not) = (mesh.begin(1, "waits"), mesh.begin(1, "waits not"));
    assert!(mesh.read(waits, changed).is_pending() && mesh.read(waits_not, quiet).is_pending());
    mesh.settle();
    assert_eq!(ready(mesh.read(waits_not, quiet)).unwrap().value.as_ref().map(amount), Some(7));
    mesh.run(150);
    assert!(mesh.read(waits, changed).is_pending());
    let shown = |flight: &Flight| {
        let Message::ReadAnswers { answers, .. } = flight.message() else { return false };
        answers.iter().any(|answer| answer.object == changed)
    };
    assert!(mesh.sent(shown).is_empty());
    assert!(mesh.rare(0, RareEvent::HeldByBarrier) > 0);
    mesh.release();
    mesh.settle();
    assert_eq!(ready(mesh.read(waits, changed)).unwrap().value.as_ref().map(amount), Some(2));
}

#[test]
fn questions_wait_for_nothing() {
    let mesh = Mesh::replicated(3, 2);
    let (here, there, other) = (mesh.create_known(0, 1), mesh.create_known(1, 5), mesh.create_known(1, 6));
    mesh.hold_entries(0);
    mesh.put(0, here, 2);
    mesh.clear_log();
    let own = mesh.begin(0, "own");
    assert!(mesh.read(own, there).is_pending() && mesh.intend(own, &[other]).is_pending());
    mesh.settle();
    for kind in [is_read, is_own] {
        assert!(!mesh.sent(|flight| from_the_first(flight) && kind(flight)).is_empty());
    }
    assert_eq!(ready(mesh.read(own, there)).unwrap().value.as_ref().map(amount), Some(5));
    ready(mesh.intend(own, &[other])).unwrap();
    // What nobody knows is asked for at once, too.
    let lost = mesh.begin(0, "lost");
    assert!(mesh.read(lost, ObjectId::from_u128(0xdead)).is_pending());
    assert!(!mesh.in_flight(|flight| from_the_first(flight) && is_locate(flight)).is_empty());
}

#[test]
fn a_grant_waits_for_its_entry_and_an_acknowledgement_for_the_adoption() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    mesh.hold_entries(0);
    mesh.hold_entries(1);
    let writer = mesh.begin(1, "writer");
    assert!(mesh.intend(writer, &[object]).is_pending());
    mesh.run(50);
    assert!(mesh.look(0, |peer| peer.group().in_transit(object).is_some()));
    assert!(mesh.sent(is_grant).is_empty());
    mesh.release();
    mesh.hold_entries(1);
    mesh.settle();
    assert_eq!(mesh.sent(is_grant).len(), 1);
    // The new owner may use it at once; only the word that it has it must wait.
    ready(mesh.intend(writer, &[object])).unwrap();
    assert!(!mesh.commit_amount(writer, object, 2).unwrap().stable);
    mesh.run(50);
    assert!(mesh.sent(is_grant_answer).is_empty());
    assert!(mesh.look(0, |peer| peer.group().in_transit(object).is_some()));
    mesh.release();
    mesh.settle();
    assert_eq!(mesh.sent(is_grant_answer).len(), 1);
    assert!(mesh.look(0, |peer| peer.group().in_transit(object).is_none()));
}

#[test]
fn a_refusal_waits_for_its_entry() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let writer = mesh.begin(1, "writer");
    mesh.rule(Rule::Hold, is_grant);
    assert!(mesh.intend(writer, &[object]).is_pending());
    mesh.settle();
    mesh.step(1, |peer, now| peer.drain(now));
    mesh.release();
    mesh.hold_entries(1);
    mesh.settle();
    assert!(mesh.rare(1, RareEvent::GrantRefused) > 0 && mesh.sent(is_grant_answer).is_empty());
    mesh.release();
    mesh.settle();
    assert_eq!(mesh.sent(is_grant_answer).len(), 1);
    assert_eq!((mesh.owner_of(object), mesh.epoch_of(object)), (0, 3));
}

#[test]
fn a_record_and_a_pointer_are_told_once_what_they_say_is_stable() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    mesh.hold_entries(0);
    mesh.clear_log();
    let made = mesh.create(0, 1);
    let writer = mesh.begin(1, "writer");
    assert!(mesh.intend(writer, &[object]).is_pending());
    mesh.run(50);
    let asked = wire::Wire::Locate { objects: vec![wire::WireLocate { object, round: 1 }] }.message();
    mesh.forge(3, 0, asked);
    mesh.run(100);
    let told = |kind: fn(&Flight) -> bool| mesh.sent(|flight| from_the_first(flight) && kind(flight));
    assert!(told(is_publish).is_empty() && told(is_located).is_empty());
    mesh.release();
    mesh.run(20);
    assert!(!told(is_publish).is_empty() && !told(is_located).is_empty());
    assert_eq!(mesh.get(3, made), Some(1));
}

/// What the answers to reads that have left so far show.
fn answers(mesh: &Mesh) -> Vec<u64> {
    let mut amounts = Vec::new();
    for flight in mesh.sent(is_read_answer) {
        if let Message::ReadAnswers { answers, .. } = flight.message() {
            amounts.extend(answers.iter().filter_map(|answer| seen_amount(&answer.seen)));
        }
    }
    amounts
}

#[test]
fn what_waited_leaves_only_as_far_as_the_journal_is_stable() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 0);
    assert_eq!(mesh.get(1, object), Some(0));
    mesh.run(20);
    mesh.clear_log();
    mesh.hold_entries(0);
    let mut lsns = Vec::new();
    for number in 1..=5 {
        lsns.push(mesh.put(0, object, number).receipt.lsn);
        mesh.run(2);
        let reader = mesh.begin_for(1, "reader", 20_000);
        assert!(mesh.read(reader, object).is_pending());
        mesh.settle();
    }
    assert!(answers(&mesh).is_empty());
    // One follower is given the entries one message after the other.
    let held = mesh.take_held();
    let mut seen = 0;
    for flight in held.into_iter().filter(|flight| flight.to == 1) {
        mesh.hand(flight);
        mesh.deliver(|flight| flight.from == 1 && flight.to == 0);
        let stable = mesh.watermark(0);
        let shown = answers(&mesh).into_iter().max().unwrap_or(0);
        let may_be_shown = lsns.iter().filter(|lsn| **lsn <= stable).count() as u64;
        assert!(shown <= may_be_shown, "{shown} is shown, {may_be_shown} are stable");
        seen += u64::from(shown > 0 && shown == may_be_shown);
    }
    assert!(seen >= 3, "the answers come as what they show becomes stable, not all at once");
    assert_eq!(answers(&mesh).into_iter().max(), Some(5));
}

#[test]
fn objects_move_to_and_fro_with_journals_that_are_stable_late() {
    let mesh = Mesh::replicated(3, 2);
    mesh.rule(Rule::Delay(7_000), is_entries);
    let object = mesh.create(0, 0);
    for round in 0..9 {
        mesh.add(round % 3, object, 1);
    }
    mesh.run(100);
    assert_eq!(mesh.newest(object), Some(9));
    for at in 0..3 {
        assert!(mesh.look(at, Peer::is_quiet) && lag(&mesh, at) == 0);
    }
    for at in 0..3 {
        assert_eq!(mesh.get(at, object), Some(9));
    }
}

#[test]
fn signs_of_life_say_nothing_of_what_is_not_stable() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    mesh.hold_entries(0);
    mesh.put(0, object, 2);
    mesh.create(0, 3);
    mesh.clear_log();
    mesh.run(150);
    let harmless = |flight: &Flight| is_heartbeat(flight) || matches!(flight.message(), Message::Group { .. });
    let said = mesh.sent(|flight| from_the_first(flight) && !harmless(flight));
    assert!(said.is_empty(), "{said:?}");
    // The followers' own state holds nothing of it either (R7).
    for at in [1, 2] {
        let group = mesh.group_id(0);
        let newest = mesh
            .look_at_group(at, group, |group| group.owned(object).map(|stored| stored.chain.newest().value.clone()));
        assert_eq!(newest, Some(Some(Some(small(1)))));
    }
}

#[test]
fn what_is_repeated_while_nothing_becomes_stable_leaves_room_for_others() {
    let mesh = Mesh::replicated(4, 2);
    let large = driftmesh_model::Value::from_slice(&vec![7; 600 << 10]);
    let create = |_| {
        // R10: so much must become stable before the next one.
        mesh.run(20);
        mesh.create_values(0, std::slice::from_ref(&large))[0]
    };
    let objects: Vec<_> = (0..60).map(create).collect();
    mesh.run(500);
    mesh.hold_entries(0);
    let taker = mesh.begin_for(3, "taker", 60_000);
    assert!(mesh.intend(taker, &objects).is_pending());
    // Grants are repeated several times in this while.
    mesh.run(3_000);
    let held = mesh.status(0).held_messages;
    // R24: each of them waits once.
    assert!((60..80).contains(&held), "{held} messages are held back");
    mesh.release();
    mesh.run_until("all have arrived", 5_000, || objects.iter().all(|object| mesh.owners_of(*object) == [3]));
}

/// A transaction that is to be stable when it ends, at peer 0, which may take so many milliseconds.
fn stable_put(mesh: &Mesh, object: ObjectId, millis: u64) -> Job<Result<Done<()>, Error>> {
    let (host, gold) = (mesh.host(0), GoldRef::from_id(object));
    let options = Options { stable: true, deadline: Micros::from_millis(millis), ..Options::new("stable") };
    mesh.spawn(async move {
        transact(host, options, |tx| async move {
            tx.get_mut(gold).await?.amount = 7;
            Ok(())
        })
        .await
    })
}

#[test]
fn a_transaction_that_is_to_be_stable_ends_when_it_is_or_says_what_became_of_it() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(500);
    let done = mesh.finish(&stable_put(&mesh, object, 5_000), 1_000).unwrap();
    assert!(done.committed.stable && mesh.look(0, |peer| peer.is_stable(&done.committed.receipt)));

    // R22: nobody has it within its time: unknown.
    mesh.rule(Rule::Drop, |flight| flight.from == 0 && is_entries(flight));
    let error = mesh.finish(&stable_put(&mesh, object, 200), 1_000).unwrap_err();
    assert!(matches!(error, Error::NotStable { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);

    // Somebody else leads its group before anybody has it: lost.
    let job = stable_put(&mesh, object, 20_000);
    mesh.run(20);
    assert_eq!((mesh.newest(object), job.is_done()), (Some(7), false));
    mesh.pause(0);
    mesh.run(2_000);
    mesh.release();
    mesh.resume(0);
    let error = mesh.finish(&job, 10_000).unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Lost);
}
