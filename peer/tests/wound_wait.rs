//! R12, R13, R14: who waits for whom, who is wounded, and what ends a wait.

use crate::harness::{GoldRef, Mesh, Rule, Txn, is_grant, is_own, ready, small};
use driftmesh_model::Micros;
use driftmesh_object_store::Entry;
use driftmesh_peer::session::{Error, Options, transact};
use driftmesh_peer::{Cause, RareEvent, StepError};
use std::task::Poll;

fn wounded_by(mesh: &Mesh, victim: Txn) -> Option<String> {
    match mesh.failure(victim)? {
        Cause::Wounded { by, .. } => Some(by.kind.as_str().to_owned()),
        Cause::Conflict { .. }
        | Cause::SnapshotTooOld { .. }
        | Cause::CreatedLater { .. }
        | Cause::Waited { .. }
        | Cause::UsedElsewhere { .. }
        | Cause::Unavailable { .. }
        | Cause::ClockAhead { .. }
        | Cause::Deposed { .. } => None,
    }
}

#[test]
fn an_older_one_wounds_a_younger_parked_holder_which_is_woken_and_retried_under_its_age() {
    let mesh = Mesh::new(2);
    let (here, there) = (mesh.create_known(0, 1), mesh.create_known(1, 2));
    let (old, young) = (mesh.begin(0, "old"), mesh.begin(0, "young"));
    let age = mesh.attempt(young).0;
    ready(mesh.intend(young, &[here])).unwrap();
    assert!(mesh.intend(young, &[there]).is_pending());
    mesh.woken(young);

    ready(mesh.intend(old, &[here])).unwrap();
    assert!(mesh.woken(young));
    assert_eq!(wounded_by(&mesh, young).as_deref(), Some("old"));
    assert_eq!(mesh.failure(young).unwrap().object(), Some(here));
    assert_eq!(mesh.rare(0, RareEvent::WoundOfParkedHolder), 1);

    mesh.retry(young).unwrap();
    assert_eq!(mesh.attempt(young), (age, 2));
    mesh.settle();
    assert!(mesh.prepare(young).is_pending());
    mesh.woken(young);
    mesh.commit_amount(old, here, 10).unwrap();
    assert!(mesh.woken(young));
    mesh.wait(young, |peer, now, id| peer.prepare(now, id)).unwrap();
    mesh.intend_wait(young, &[here, there]).unwrap();
    let committed = mesh.commit(young, &[(here, Some(small(20))), (there, Some(small(30)))]).unwrap();
    assert_eq!((committed.attempts, committed.receipt.txn), (2, age));
    assert_eq!((mesh.get(1, here), mesh.get(1, there)), (Some(20), Some(30)));
}

#[test]
fn a_younger_one_waits_and_the_older_holder_notices_nothing() {
    let mesh = Mesh::new(1);
    let object = mesh.create(0, 1);
    let (old, young) = (mesh.begin(0, "old"), mesh.begin(0, "young"));
    ready(mesh.intend(old, &[object])).unwrap();
    assert!(mesh.intend(young, &[object]).is_pending());
    mesh.run(500);
    assert!(mesh.intend(young, &[object]).is_pending());
    assert_eq!(mesh.failure(old), None);
    mesh.commit_amount(old, object, 2).unwrap();
    assert!(mesh.woken(young));
    // It had read nothing: its snapshot moves past the other's commit.
    ready(mesh.intend(young, &[object])).unwrap();
    mesh.commit_amount(young, object, 3).unwrap();
    assert_eq!((mesh.metrics(0).wounds, mesh.metrics(0).aborts), (0, 0));
    assert_eq!(mesh.get(0, object), Some(3));
}

#[test]
fn a_wounded_transaction_cannot_commit() {
    let mesh = Mesh::new(1);
    let (first, second) = (mesh.create(0, 1), mesh.create(0, 1));
    let (old, young) = (mesh.begin(0, "old"), mesh.begin(0, "young"));
    ready(mesh.intend(young, &[first, second])).unwrap();
    ready(mesh.intend(old, &[first])).unwrap();
    let entries = mesh.journal(0).len();
    let writes = [(first, Some(small(7))), (second, Some(small(7)))];
    assert!(matches!(mesh.commit(young, &writes), Err(StepError::Failed(Cause::Wounded { .. }))));
    assert!(matches!(mesh.commit(young, &[]), Err(StepError::Failed(Cause::Wounded { .. }))));
    assert_eq!(mesh.journal(0).len(), entries);
    mesh.commit_amount(old, first, 2).unwrap();
    assert_eq!((mesh.get(0, first), mesh.get(0, second)), (Some(2), Some(1)));
}

#[test]
fn the_oldest_is_never_wounded() {
    let mesh = Mesh::new(3);
    let objects: Vec<_> = (0..3).map(|at| mesh.create_known(at, 0)).collect();
    let oldest = mesh.begin(0, "oldest");
    let mut young = Vec::new();
    for at in 0..3 {
        mesh.run(1);
        for _ in 0..5 {
            let txn = mesh.begin(at, "young");
            for object in &objects {
                let _ = mesh.intend(txn, &[*object]);
            }
            young.push(txn);
        }
        mesh.settle();
        // It takes one object after the other from the midst of the others.
        mesh.intend_wait(oldest, &[objects[at]]).unwrap();
    }
    mesh.run(300);
    assert_eq!(mesh.attempt(oldest).1, 1);
    assert_eq!(mesh.failure(oldest), None);
    let writes: Vec<_> = objects.iter().map(|object| (*object, Some(small(9)))).collect();
    mesh.commit(oldest, &writes).unwrap();
    for txn in young {
        mesh.end(txn);
    }
    for object in objects {
        assert_eq!(mesh.get(1, object), Some(9));
    }
}

/// The steps of a transaction that moves one unit from `here` to `there`; returns whether it goes on.
fn one_step(mesh: &Mesh, txn: Txn, step: usize, here: GoldRef, there: GoldRef) -> Result<bool, StepError> {
    let (here, there) = (here.id(), there.id());
    match step {
        0 => mesh.read_wait(txn, here).map(|_| true),
        1 => mesh.intend_wait(txn, &[here]).map(|()| true),
        2 => mesh.read_wait(txn, there).map(|_| true),
        3 => mesh.intend_wait(txn, &[there]).map(|()| true),
        _ => {
            let (from, to) = (mesh.read_wait(txn, here)?, mesh.read_wait(txn, there)?);
            let writes = [(here, from.map(|gold| small(gold - 1))), (there, to.map(|gold| small(gold + 1)))];
            mesh.commit(txn, &writes).map(|_| false)
        }
    }
}

#[test]
fn a_wound_at_every_step_of_a_transaction_loses_and_doubles_nothing() {
    for wound_after in 0..=4 {
        for elsewhere in [false, true] {
            let mesh = Mesh::new(2);
            let here = GoldRef::from_id(mesh.create_known(0, 100));
            let there = GoldRef::from_id(mesh.create_known(usize::from(elsewhere), 100));
            let (old, young) = (mesh.begin(0, "old"), mesh.begin(0, "young"));
            for step in 0..wound_after {
                assert!(one_step(&mesh, young, step, here, there).unwrap());
            }
            mesh.intend_wait(old, &[here.id()]).unwrap();
            let holds = wound_after > 1;
            assert_eq!(wounded_by(&mesh, young).is_some(), holds, "wound after step {wound_after}");
            let gold = mesh.read_wait(old, here.id()).unwrap().unwrap();
            mesh.commit_amount(old, here.id(), gold - 1).unwrap();

            let mut step = wound_after;
            loop {
                match one_step(&mesh, young, step, here, there) {
                    Ok(true) => step += 1,
                    Ok(false) => break,
                    Err(StepError::Failed(_)) => {
                        mesh.retry_wait(young).unwrap();
                        step = 0;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!((mesh.get(1, here.id()), mesh.get(1, there.id())), (Some(98), Some(101)));
            let taken = mesh.begin(0, "after");
            mesh.intend_wait(taken, &[here.id(), there.id()]).unwrap();
        }
    }
}

#[test]
fn commit_is_one_step_one_entry_and_past_it_nothing_wounds() {
    let mesh = Mesh::new(1);
    let objects = mesh.create_values(0, &[small(1), small(1), small(1)]);
    let (old, young) = (mesh.begin(0, "old"), mesh.begin(0, "young"));
    ready(mesh.intend(young, &objects[..2])).unwrap();
    let entries = mesh.journal(0).len();
    // A write that no lock covers: nothing of the commit happens, and the attempt goes on.
    let uncovered: Vec<_> = objects.iter().map(|object| (*object, Some(small(5)))).collect();
    assert_eq!(mesh.commit(young, &uncovered), Err(StepError::NotIntended(objects[2])));
    assert_eq!(mesh.journal(0).len(), entries);

    let committed = mesh.commit(young, &uncovered[..2]).unwrap();
    let journal = mesh.journal(0);
    assert_eq!(journal.len(), entries + 1);
    let Some(Entry::Commit { commit, writes, .. }) = journal.last() else { panic!("no commit in the journal") };
    assert_eq!(*commit, committed.receipt.commit);
    assert_eq!(writes.iter().map(|write| write.object).collect::<Vec<_>>(), objects[..2]);
    assert_eq!(mesh.tail(0), committed.receipt.lsn);
    // The locks are free in the same step, and the older one meets a commit, not a holder.
    ready(mesh.intend(old, &objects)).unwrap();
    assert_eq!(mesh.metrics(0).wounds, 0);
    assert_eq!(mesh.commit(young, &[]), Err(StepError::Ended));
}

#[test]
fn locks_are_handed_over_in_age_order_here_and_elsewhere() {
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 0);
    let ages: Vec<Txn> = [0, 0, 1, 0]
        .into_iter()
        .map(|at| {
            mesh.run(1);
            mesh.begin(at, "waiter")
        })
        .collect();
    ready(mesh.intend(ages[0], &[object])).unwrap();
    // They come in another order than that of their ages.
    for index in [3, 2, 1] {
        assert!(mesh.intend(ages[index], &[object]).is_pending());
        mesh.settle();
    }
    mesh.commit_amount(ages[0], object, 1).unwrap();
    mesh.settle();
    assert!(mesh.intend(ages[2], &[object]).is_pending() && mesh.intend(ages[3], &[object]).is_pending());
    ready(mesh.intend(ages[1], &[object])).unwrap();
    mesh.commit_amount(ages[1], object, 2).unwrap();
    mesh.settle();
    assert_eq!(mesh.owner_of(object), 1);
    assert!(mesh.intend(ages[3], &[object]).is_pending());
    ready(mesh.intend(ages[2], &[object])).unwrap();
    mesh.commit_amount(ages[2], object, 3).unwrap();
    mesh.intend_wait(ages[3], &[object]).unwrap();
    mesh.commit_amount(ages[3], object, 4).unwrap();
    assert_eq!((mesh.owner_of(object), mesh.get(1, object)), (0, Some(4)));
    assert_eq!(mesh.metrics(0).wounds + mesh.metrics(1).wounds, 0);
}

#[test]
fn a_remote_waiter_that_does_not_repeat_its_request_expires() {
    for repeats in [false, true] {
        let mesh = Mesh::new(2);
        let object = mesh.create_known(0, 0);
        let holder = mesh.begin_for(0, "holder", 20_000);
        ready(mesh.intend(holder, &[object])).unwrap();
        mesh.run(1);
        let waiter = mesh.begin_for(1, "waiter", 20_000);
        assert!(mesh.intend(waiter, &[object]).is_pending());
        mesh.settle();
        if !repeats {
            mesh.rule(Rule::Drop, is_own);
            mesh.end(waiter);
        }
        mesh.run(1_100);
        mesh.commit_amount(holder, object, 1).unwrap();
        mesh.settle();
        assert_eq!(mesh.sent(is_grant).len(), usize::from(repeats));
        assert_eq!(mesh.owner_of(object), usize::from(repeats));
    }
}

#[test]
fn a_deadline_ends_a_parked_transaction_and_frees_its_locks() {
    let mesh = Mesh::new(1);
    let (held, wanted) = (mesh.create(0, 1), mesh.create(0, 1));
    let old = mesh.begin_for(0, "old", 10_000);
    ready(mesh.intend(old, &[wanted])).unwrap();
    let parked = mesh.begin_for(0, "parked", 1_000);
    ready(mesh.intend(parked, &[held])).unwrap();
    assert!(mesh.intend(parked, &[wanted]).is_pending());
    let young = mesh.begin_for(0, "young", 10_000);
    assert!(mesh.intend(young, &[held]).is_pending());
    mesh.woken(parked);
    mesh.run(999);
    assert!(mesh.intend(young, &[held]).is_pending());
    mesh.run(1);
    // Nobody has polled it: its deadline frees what it held.
    ready(mesh.intend(young, &[held])).unwrap();
    assert!(mesh.woken(parked));
    assert_eq!(ready(mesh.intend(parked, &[wanted])), Err(StepError::Expired));
    assert_eq!(mesh.commit_amount(parked, held, 9), Err(StepError::Expired));
    assert_eq!(mesh.retry(parked), Err(StepError::Expired));
    // And it waits for nothing any more.
    mesh.commit_amount(old, wanted, 2).unwrap();
    let next = mesh.begin(0, "next");
    ready(mesh.intend(next, &[wanted])).unwrap();
}

#[test]
fn a_deadline_ends_an_idle_holder_for_whom_somebody_waits() {
    for at in [0, 1] {
        let mesh = Mesh::new(2);
        let object = mesh.create_known(0, 1);
        let idle = mesh.begin_for(0, "idle", 1_000);
        ready(mesh.intend(idle, &[object])).unwrap();
        mesh.run(1);
        let waiter = mesh.begin_for(at, "waiter", 10_000);
        assert!(mesh.intend(waiter, &[object]).is_pending());
        mesh.run(950);
        assert!(mesh.intend(waiter, &[object]).is_pending());
        mesh.run(60);
        ready(mesh.intend(waiter, &[object])).unwrap();
        mesh.commit_amount(waiter, object, 2).unwrap();
        assert_eq!(mesh.commit_amount(idle, object, 9), Err(StepError::Expired));
        assert_eq!(mesh.get(0, object), Some(2));
    }
}

#[test]
fn a_deadline_error_names_the_object_the_other_one_and_both_kinds_of_task() {
    for holder_at in [0, 1] {
        let mesh = Mesh::new(2);
        let gold = GoldRef::from_id(mesh.create_known(holder_at, 1));
        let holder = mesh.begin_for(holder_at, "trade", 30_000);
        ready(mesh.intend(holder, &[gold.id()])).unwrap();
        let held_by = mesh.attempt(holder).0;
        mesh.run(1);
        let options = Options { deadline: Micros::from_millis(700), ..Options::new("loot") };
        let job = mesh.spawn(transact(mesh.host(0), options, move |tx| async move {
            tx.get_mut(gold).await?.amount += 1;
            Ok(())
        }));
        let begun = mesh.mono_us();
        let error = mesh.finish(&job, 2_000).unwrap_err();
        assert_eq!(mesh.mono_us() - begun, 700_000);
        let text = error.to_string();
        let Error::Deadline { kind, attempts, last: Some(Cause::Waited { object, behind: Some(behind) }), .. } = error
        else {
            panic!("another error: {text}");
        };
        assert_eq!((kind.as_str(), attempts, object), ("loot", 1, gold.id()));
        assert_eq!((behind.kind.as_str(), behind.timestamp), ("trade", held_by));
        for part in ["`loot`", "`trade`", "700 ms", &gold.id().to_string(), &held_by.to_string()] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        mesh.commit_amount(holder, gold.id(), 5).unwrap();
        assert_eq!(mesh.get(0, gold.id()), Some(5));
    }
}

#[test]
fn who_finds_a_full_queue_on_arrival_is_told_so_and_does_not_sleep_until_its_deadline() {
    const WAITERS_MAX: usize = 4_096;
    let mesh = Mesh::new(2);
    let object = mesh.create_known(0, 1);
    let txns: Vec<Txn> = (0..WAITERS_MAX + 11).map(|_| mesh.begin(1, "rush")).collect();
    for txn in &txns {
        assert!(mesh.intend(*txn, &[object]).is_pending(), "the object is elsewhere");
    }
    mesh.run(100);
    let told = txns.iter().filter(|txn| matches!(mesh.intend(**txn, &[object]), Poll::Ready(Err(StepError::Busy))));
    assert_eq!(told.count(), 10, "one has the lock, and the others wait for it");
}
