//! R22: whoever holds a receipt is told what became of it, by any peer, also after the group has ended.

mod harness;

use driftmesh_peer::session::{Fate, Fates, Settled};
use driftmesh_peer::{FateTold, Message, Receipt};
use harness::{Flight, Mesh, Rule, small};
use std::task::Poll;

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
    let outside = (1..4).find(|at| !mesh.followers(receipt.group).contains(at)).unwrap();
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

#[test]
fn questions_are_bounded() {
    let mesh = Mesh::replicated(4, 2);
    let object = mesh.create_known(0, 1);
    let receipt = mesh.put(0, object, 2).receipt;
    let outside = (1..4).find(|at| !mesh.followers(receipt.group).contains(at)).unwrap();
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
