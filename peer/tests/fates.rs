//! R22: whoever holds a receipt is told what became of it, by any peer, also after the group has ended.

use crate::harness::{Flight, Mesh, Rule, is_entries, small};
use driftmesh_peer::session::{Fate, Fates, Settled};
use driftmesh_peer::{FateTold, Message, Receipt};
use std::task::Poll;

/// Somebody who has nothing to do with a peer's own group.
fn outside_of(mesh: &Mesh, leader: usize) -> usize {
    let inside = mesh.followers(mesh.group_id(leader));
    (0..mesh.len()).find(|at| *at != leader && !inside.contains(at)).expect("somebody is outside")
}

fn told_here(mesh: &Mesh, at: usize, receipt: &Receipt) -> Poll<FateTold> {
    let waiter = mesh.step(at, |peer, _| peer.new_waiter());
    let told = mesh.step(at, |peer, now| peer.fate(now, waiter, receipt));
    mesh.step(at, |peer, _| peer.forget_waiter(waiter));
    told
}

#[test]
fn any_peer_tells_also_one_that_has_nothing_to_do_with_the_group() {
    let mesh = Mesh::replicated(6, 2);
    let object = mesh.create_known(0, 1);
    let kept = mesh.put(0, object, 2).receipt;
    mesh.run(100);
    for at in 0..6 {
        assert!(mesh.is_kept(at, &kept), "{at}");
    }
    // A receipt of nobody is unknown, and stays so.
    let nobodys = Receipt { group: driftmesh_model::GroupId::from_u128(7), ..kept };
    for at in 0..6 {
        assert_eq!(mesh.fate(at, &nobodys), FateTold::Unknown);
    }
    let not_yet = Receipt { lsn: driftmesh_model::Lsn::from_u64(1_000), ..kept };
    for at in 0..6 {
        assert_eq!(mesh.fate(at, &not_yet), FateTold::Unknown);
    }
}

#[test]
fn lost_is_exactly_what_is_absent_whatever_was_held_by_whom() {
    // Each round another number of commits reaches the followers before the leader dies.
    for heard in 0..=4_usize {
        let mesh = Mesh::replicated(5, 2);
        let objects = mesh.create_values(0, &vec![small(0); 6]);
        mesh.run(100);
        let mut receipts = Vec::new();
        for (number, object) in objects.iter().enumerate() {
            if number == heard {
                mesh.hold_entries(0);
            }
            receipts.push(mesh.put(0, *object, 1).receipt);
            mesh.run(2);
        }
        mesh.kill(0);
        mesh.take_held();
        mesh.release();
        mesh.run(5_000);
        for at in mesh.alive() {
            for (number, (object, receipt)) in objects.iter().zip(&receipts).enumerate() {
                let there = mesh.get(at, *object) == Some(1);
                assert_eq!(there, number < heard, "commit {number} of {heard} that were heard");
                assert_eq!(mesh.is_kept(at, receipt), there);
                assert_eq!(mesh.fate(at, receipt) == FateTold::Lost, !there);
            }
        }
        // A newcomer is told what remains of the group, and tells it.
        let newcomer = mesh.join(|_| {});
        mesh.run(1_500);
        for (number, receipt) in receipts.iter().enumerate() {
            assert_eq!(mesh.is_kept(newcomer, receipt), number < heard);
            assert!(told_here(&mesh, newcomer, receipt).is_ready(), "it knows without asking");
        }
    }
}

#[test]
fn a_fate_is_not_told_before_it_is_stable() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    mesh.hold_entries(0);
    let receipt = mesh.put(0, object, 2).receipt;
    mesh.run(50);
    for at in 0..4 {
        assert_eq!(mesh.fate(at, &receipt), FateTold::Unknown);
    }
    mesh.release();
    mesh.run(100);
    for at in 0..4 {
        assert!(mesh.is_kept(at, &receipt));
    }
}

#[test]
fn a_question_that_nobody_answers_ends_and_costs_nothing() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let receipt = mesh.put(0, object, 2).receipt;
    let outside = outside_of(&mesh, 0);
    mesh.rule(Rule::Drop, |flight: &Flight| matches!(flight.message(), Message::AskFate { .. }));
    let begun = mesh.mono_us();
    assert_eq!(mesh.fate(outside, &receipt), FateTold::Unknown);
    assert!(mesh.mono_us() - begun <= 400_000);
    assert!(mesh.look(outside, |peer| peer.open_questions().is_empty()));
    // Who gives up waiting leaves nothing either.
    let waiter = mesh.step(outside, |peer, _| peer.new_waiter());
    assert!(mesh.step(outside, |peer, now| peer.fate(now, waiter, &receipt)).is_pending());
    assert_eq!(mesh.look(outside, |peer| peer.open_questions().len()), 1);
    mesh.step(outside, |peer, _| peer.forget_waiter(waiter));
    assert!(mesh.look(outside, |peer| peer.open_questions().is_empty()));
}

fn is_fate(flight: &Flight) -> bool {
    matches!(flight.message(), Message::Fate { .. })
}

#[test]
fn an_answer_counts_for_the_receipt_that_was_asked_for_and_no_other() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let (first, outside) = (mesh.put(0, object, 2).receipt, outside_of(&mesh, 0));
    mesh.run(100);
    mesh.rule(Rule::Hold, |flight| flight.from == 0 && is_entries(flight) || is_fate(flight));
    let second = mesh.put(0, object, 3).receipt;
    assert_eq!((first.group, first.term), (second.group, second.term));
    let waiter = mesh.step(outside, |peer, _| peer.new_waiter());
    let asks = |receipt: &Receipt| mesh.step(outside, |peer, now| peer.stable(now, waiter, receipt));
    // What is told of the first comes when the second is asked for.
    assert!(asks(&first).is_pending());
    mesh.settle();
    assert!(asks(&second).is_pending());
    let (answers, _): (Vec<_>, Vec<_>) = mesh.take_held().into_iter().partition(is_fate);
    assert!(!answers.is_empty());
    answers.into_iter().for_each(|flight| mesh.hand(flight));
    assert!(asks(&second).is_pending(), "told of another receipt");
    assert!(!mesh.look(outside, |peer| peer.is_stable(&second)));
    // And when it has come already: it leaves no question behind.
    assert!(asks(&first).is_pending());
    mesh.settle();
    mesh.take_held().into_iter().filter(is_fate).for_each(|flight| mesh.hand(flight));
    assert!(matches!(asks(&first), Poll::Ready(FateTold::Stable { .. })));
    assert!(mesh.look(outside, |peer| peer.open_questions().is_empty()));
    assert!(asks(&second).is_pending(), "told of another receipt");
    mesh.kill(0);
    mesh.take_held();
    mesh.release();
    mesh.run(3_000);
    assert_eq!(asks(&second), Poll::Ready(FateTold::Lost));
}

#[test]
fn questions_are_bounded() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let receipt = mesh.put(0, object, 2).receipt;
    let outside = outside_of(&mesh, 0);
    mesh.rule(Rule::Drop, |flight: &Flight| matches!(flight.message(), Message::AskFate { .. }));
    for _ in 0..5_000 {
        let waiter = mesh.step(outside, |peer, _| peer.new_waiter());
        let _ = mesh.step(outside, |peer, now| peer.fate(now, waiter, &receipt));
    }
    assert!(mesh.look(outside, |peer| peer.open_questions().len()) <= 4_096);
    mesh.release();
    mesh.run(1_000);
}

#[test]
fn a_transaction_that_only_read_has_a_fate_too() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    mesh.hold_entries(0);
    mesh.put(0, object, 2);
    mesh.run(1);
    let reader = mesh.begin(0, "reader");
    assert_eq!(mesh.read_wait(reader, object), Ok(Some(2)));
    let done = mesh.commit(reader, &[]).unwrap();
    assert!(!done.stable);
    mesh.kill(0);
    mesh.take_held();
    mesh.release();
    mesh.run(3_000);
    for at in 1..4 {
        assert_eq!(mesh.fate(at, &done.receipt), FateTold::Lost, "it read what is lost");
    }
}

/// Follows receipts at a peer, tagged by their order, until all are told.
fn told_by_stream(mesh: &Mesh, at: usize, receipts: &[Receipt]) -> Vec<Settled<usize>> {
    let mut fates = Fates::new(mesh.host(at));
    for (tag, receipt) in receipts.iter().enumerate() {
        fates.follow(*receipt, tag).expect("there is room");
    }
    let job = mesh.spawn(async move {
        let mut told = Vec::new();
        while let Some(settled) = fates.next().await {
            told.push(settled);
        }
        told
    });
    let mut told = mesh.finish(&job, 10_000);
    told.sort_by_key(|settled| settled.tag);
    told
}

#[test]
fn a_stream_tells_each_receipt_once_at_any_peer() {
    let mesh = Mesh::replicated(6, 2);
    let objects = mesh.create_values(0, &vec![small(0); 9]);
    mesh.run(100);
    let mut receipts = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        if number == 5 {
            mesh.hold_entries(0);
        }
        receipts.push(mesh.put(0, *object, 1).receipt);
        mesh.run(2);
    }
    // Of another journal, in between.
    let object = mesh.create_known(1, 1);
    receipts.push(mesh.put(1, object, 2).receipt);
    mesh.kill(0);
    mesh.take_held();
    mesh.release();
    for at in mesh.alive() {
        let told = told_by_stream(&mesh, at, &receipts);
        assert_eq!(told.len(), receipts.len());
        for settled in told {
            assert_eq!(settled.receipt, receipts[settled.tag]);
            let is_kept = matches!(settled.fate, Fate::Stable { .. });
            assert_eq!(is_kept, settled.tag < 5 || settled.tag == 9, "{settled:?}");
            assert_eq!(mesh.is_kept(at, &settled.receipt), is_kept);
        }
    }
}

#[test]
fn a_stream_goes_on_while_its_peer_is_deposed() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    mesh.run(100);
    let mut fates = Fates::new(mesh.host(0));
    fates.follow(mesh.put(0, object, 2).receipt, "heard").unwrap();
    mesh.run(50);
    assert!(matches!(fates.try_next().unwrap().fate, Fate::Stable { .. }));
    assert!(fates.is_empty() && fates.try_next().is_none());
    mesh.hold_entries(0);
    fates.follow(mesh.put(0, object, 3).receipt, "unheard").unwrap();
    assert_eq!(fates.try_next(), None);
    let group = mesh.group_id(0);
    mesh.pause(0);
    mesh.leader_within(group, 2_000, 0);
    mesh.take_held();
    mesh.release();
    mesh.resume(0);
    let job = mesh.spawn(async move {
        let first = fates.next().await;
        (first, fates.next().await, fates)
    });
    let (first, none, mut fates) = mesh.finish(&job, 10_000);
    assert!(matches!(first, Some(Settled { tag: "unheard", fate: Fate::Lost { .. }, .. })), "{first:?}");
    assert_eq!(none, None);
    // The other group that it founded meanwhile.
    fates.follow(mesh.put(0, object, 4).receipt, "later").unwrap();
    let job = mesh.spawn(async move { fates.next().await });
    assert!(matches!(mesh.finish(&job, 10_000), Some(Settled { tag: "later", fate: Fate::Stable { .. }, .. })));
}

#[test]
fn a_stream_takes_what_is_told_of_one_receipt_for_no_later_one() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let (heard, outside) = (mesh.put(0, object, 2).receipt, outside_of(&mesh, 0));
    mesh.run(100);
    mesh.rule(Rule::Hold, |flight| flight.from == 0 && is_entries(flight) || is_fate(flight));
    let mut fates = Fates::new(mesh.host(outside));
    fates.follow(heard, "heard").unwrap();
    assert_eq!(fates.try_next(), None);
    mesh.settle();
    fates.follow(mesh.put(0, object, 3).receipt, "unheard").unwrap();
    mesh.take_held().into_iter().filter(is_fate).for_each(|flight| mesh.hand(flight));
    assert!(matches!(fates.try_next(), Some(Settled { tag: "heard", fate: Fate::Stable { .. }, .. })));
    assert_eq!(fates.try_next(), None, "nobody has told of it");
    mesh.kill(0);
    mesh.take_held();
    mesh.release();
    let job = mesh.spawn(async move { fates.next().await });
    let told = mesh.finish(&job, 10_000);
    assert!(matches!(told, Some(Settled { tag: "unheard", fate: Fate::Lost { .. }, .. })), "{told:?}");
}

#[test]
fn a_stream_that_is_given_more_faster_than_others_answer_tells_all_the_same() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let outside = outside_of(&mesh, 0);
    mesh.run(100);
    mesh.rule(Rule::Hold, is_fate);
    let mut fates = Fates::new(mesh.host(outside));
    let (mut told, mut answers) = (0, Vec::new());
    for number in 0..20 {
        let receipt = mesh.put(0, object, number).receipt;
        mesh.run(5);
        fates.follow(receipt, number).unwrap();
        told += std::iter::from_fn(|| fates.try_next()).count();
        // Answers take longer than the next receipt.
        std::mem::replace(&mut answers, mesh.take_held()).into_iter().for_each(|flight| mesh.hand(flight));
        mesh.settle();
    }
    assert!(told >= 15, "it told of {told}");
    let asked = |flight: &Flight| flight.from == outside && matches!(flight.message(), Message::AskFate { .. });
    assert!(mesh.sent(asked).len() <= 60, "one question at a time");
}
