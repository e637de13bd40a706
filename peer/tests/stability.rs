//! R6: nothing that depends on a journal entry leaves before that entry is stable; a local commit answers at once.

mod harness;

use driftmesh_model::Lsn;
use driftmesh_peer::{Message, RareEvent, Stability};
use harness::{
    Flight, Mesh, Rule, amount, is_grant, is_grant_answer, is_heartbeat, is_own, is_publish, is_read, is_read_answer,
    ready, seen_amount, small,
};

/// Peers whose journals are stable as far as the test says; all of what they have so far is.
fn reported(peers: usize) -> Mesh {
    let mesh = Mesh::with(peers, |_, setup| setup.config.stability = Stability::Reported);
    for at in 0..peers {
        mesh.hold_journal(at);
    }
    mesh.run(120);
    mesh
}

fn from_the_first(flight: &Flight) -> bool {
    flight.from == 0
}

/// Reports everything at every peer, until nothing is left to do.
fn hold_all(mesh: &Mesh) {
    for _ in 0..6 {
        for at in 0..mesh.len() {
            mesh.hold_journal(at);
        }
        mesh.settle();
    }
}

#[test]
fn a_local_commit_answers_at_once_and_says_how_far_the_journal_has_grown() {
    let mesh = reported(2);
    let object = mesh.create(0, 1);
    let first = mesh.put(0, object, 2);
    let second = mesh.put(0, object, 3);
    assert!(!first.awaited_message && first.receipt.lsn.next() == second.receipt.lsn);
    assert_eq!(mesh.appended(0).last(), Some(&second.receipt.lsn));
    assert_eq!(mesh.look(0, |peer| peer.group().journal().watermark()).next().next().next(), second.receipt.lsn);
    let reader = mesh.begin(0, "reader");
    assert_eq!(mesh.read_wait(reader, object), Ok(Some(3)));
}

#[test]
fn nothing_at_all_leaves_a_peer_whose_journal_is_ahead_of_what_is_held() {
    let mesh = reported(3);
    let object = mesh.create(0, 1);
    hold_all(&mesh);
    mesh.run(50);
    hold_all(&mesh);
    let elsewhere = mesh.create(1, 1);
    hold_all(&mesh);
    mesh.run(50);

    let unstable = mesh.put(0, object, 2);
    mesh.clear_log();
    // A read and a request of others, a request of its own, heartbeats, records: all of it waits.
    let (reader, writer) = (mesh.begin(1, "reader"), mesh.begin(2, "writer"));
    assert!(mesh.read(reader, object).is_pending());
    assert!(mesh.intend(writer, &[object]).is_pending());
    let own = mesh.begin(0, "own");
    assert!(mesh.read(own, elsewhere).is_pending() && mesh.intend(own, &[elsewhere]).is_pending());
    mesh.create(0, 9);
    mesh.settle();
    mesh.run(99);
    assert!(mesh.sent(from_the_first).is_empty(), "{:?}", mesh.sent(from_the_first));
    assert!(mesh.rare(0, RareEvent::HeldByBarrier) >= 5);

    // The commit that the read saw is held: its answer may leave, what came later may not.
    mesh.step(0, |peer, now| peer.journal_held(now, unstable.receipt.lsn));
    assert!(mesh.sent(|flight| from_the_first(flight) && is_grant(flight)).is_empty());
    hold_all(&mesh);
    for kind in [is_read_answer, is_grant, is_read, is_own, is_publish] {
        assert!(!mesh.sent(|flight| from_the_first(flight) && kind(flight)).is_empty());
    }
    assert!(mesh.read(reader, object).is_ready());
    ready(mesh.intend(writer, &[object])).unwrap();
}

#[test]
fn a_read_answer_waits_for_the_version_it_shows() {
    let mesh = reported(2);
    let object = mesh.create(0, 1);
    hold_all(&mesh);
    mesh.run(20);
    hold_all(&mesh);
    mesh.put(0, object, 2);
    mesh.run(1);
    let reader = mesh.begin(1, "reader");
    assert!(mesh.read(reader, object).is_pending());
    mesh.run(900);
    assert!(mesh.read(reader, object).is_pending() && mesh.sent(is_read_answer).is_empty());
    mesh.hold_journal(0);
    mesh.settle();
    let read = ready(mesh.read(reader, object)).unwrap();
    assert_eq!(read.value.as_ref().map(amount), Some(2));
}

#[test]
fn a_grant_waits_for_its_entry_and_an_acknowledgement_for_the_adoption() {
    let mesh = reported(2);
    let object = mesh.create(0, 1);
    hold_all(&mesh);
    let writer = mesh.begin(1, "writer");
    assert!(mesh.intend(writer, &[object]).is_pending());
    mesh.settle();
    assert!(mesh.look(0, |peer| peer.group().in_transit(object).is_some()));
    assert!(mesh.sent(is_grant).is_empty());
    mesh.hold_journal(0);
    mesh.settle();
    assert_eq!(mesh.sent(is_grant).len(), 1);
    // The new owner may use it at once; only the word that it has it must wait.
    ready(mesh.intend(writer, &[object])).unwrap();
    mesh.commit_amount(writer, object, 2).unwrap();
    mesh.settle();
    assert!(mesh.sent(is_grant_answer).is_empty());
    assert!(mesh.look(0, |peer| peer.group().in_transit(object).is_some()));
    mesh.hold_journal(1);
    mesh.settle();
    assert_eq!(mesh.sent(is_grant_answer).len(), 1);
    assert!(mesh.look(0, |peer| peer.group().in_transit(object).is_none()));
}

#[test]
fn a_refusal_waits_for_its_entry() {
    let mesh = reported(2);
    let object = mesh.create(0, 1);
    hold_all(&mesh);
    let writer = mesh.begin(1, "writer");
    assert!(mesh.intend(writer, &[object]).is_pending());
    mesh.settle();
    mesh.step(1, |peer, now| peer.drain(now));
    mesh.hold_journal(0);
    mesh.settle();
    assert!(mesh.sent(is_grant_answer).is_empty());
    mesh.hold_journal(1);
    mesh.settle();
    assert_eq!(mesh.sent(is_grant_answer).len(), 1);
    assert_eq!((mesh.owner_of(object), mesh.epoch_of(object)), (0, 3));
}

#[test]
fn a_record_is_published_once_what_it_says_is_stable() {
    let mesh = reported(3);
    mesh.create(0, 1);
    mesh.run(50);
    assert!(mesh.sent(|flight| from_the_first(flight) && is_publish(flight)).is_empty());
    mesh.hold_journal(0);
    assert!(!mesh.sent(|flight| from_the_first(flight) && is_publish(flight)).is_empty());
}

#[test]
fn what_waited_leaves_in_order_and_only_as_far_as_the_journal_is_held() {
    let mesh = reported(2);
    let object = mesh.create(0, 0);
    hold_all(&mesh);
    mesh.run(20);
    hold_all(&mesh);
    mesh.clear_log();
    mesh.rule(Rule::Hold, is_read_answer);
    let mut held_up_to: Vec<(Lsn, u64)> = Vec::new();
    for number in 1..=5 {
        let put = mesh.put(0, object, number);
        held_up_to.push((put.receipt.lsn, number));
        mesh.run(1);
        let reader = mesh.begin_for(1, "reader", 20_000);
        assert!(mesh.read(reader, object).is_pending());
        mesh.deliver(is_read);
    }
    let answers = |mesh: &Mesh| {
        let mut amounts = Vec::new();
        for flight in mesh.sent(is_read_answer) {
            if let Message::ReadAnswers { answers, .. } = flight.message() {
                amounts.extend(answers.iter().filter_map(|answer| seen_amount(&answer.seen)));
            }
        }
        amounts
    };
    assert!(answers(&mesh).is_empty());
    for (index, (lsn, _)) in held_up_to.iter().enumerate() {
        mesh.step(0, |peer, now| peer.journal_held(now, *lsn));
        // Each read was repeated for all readers before it: what counts is the highest number that got out.
        let seen = answers(&mesh);
        assert_eq!(seen.iter().max(), Some(&held_up_to[index].1));
        // An old report says nothing new.
        mesh.step(0, |peer, now| peer.journal_held(now, held_up_to[0].0));
        assert_eq!(answers(&mesh), seen);
    }
    let seen = answers(&mesh);
    let mut firsts: Vec<u64> = Vec::new();
    for number in seen {
        if !firsts.contains(&number) {
            firsts.push(number);
        }
    }
    assert_eq!(firsts, [1, 2, 3, 4, 5]);
}

#[test]
fn a_report_beyond_the_journal_counts_only_as_far_as_there_is_one() {
    let mesh = reported(2);
    mesh.step(0, |peer, now| peer.journal_held(now, Lsn::from_u64(u64::MAX)));
    let object = mesh.create(0, 1);
    mesh.run(120);
    mesh.clear_log();
    let reader = mesh.begin(1, "reader");
    assert!(mesh.read(reader, object).is_pending());
    mesh.run(500);
    assert!(mesh.sent(|flight| from_the_first(flight) && !is_heartbeat(flight)).is_empty());
    mesh.hold_journal(0);
    assert_eq!(mesh.read_wait(reader, object), Ok(Some(1)));
}

#[test]
fn objects_move_to_and_fro_with_a_journal_that_is_held_late() {
    let mesh = reported(3);
    let object = mesh.create(0, 0);
    for round in 0..9 {
        let at = round % 3;
        let adder = mesh.begin_for(at, "adder", 10_000);
        while mesh.step(at, |peer, now| peer.intend(now, adder.id, &[object]).is_pending()) {
            mesh.run(7);
            for holder in 0..3 {
                mesh.hold_journal(holder);
            }
        }
        let before = mesh.read_wait(adder, object).unwrap().unwrap();
        mesh.commit(adder, &[(object, Some(small(before + 1)))]).unwrap();
    }
    hold_all(&mesh);
    assert_eq!(mesh.newest(object), Some(9));
}
