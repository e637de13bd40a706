//! R15: contention never aborts a transaction without end; each retry fails only on an object it had not met before.

use crate::harness::{GoldRef, Mesh, Txn, small};
use driftmesh_model::Micros;
use driftmesh_peer::session::{Done, Options, transact};
use driftmesh_peer::{Cause, StepError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Commits to an object again and again, whenever it can be had at once.
fn fast_writes(mesh: &Mesh, at: usize, object: driftmesh_model::ObjectId, times: usize) {
    for _ in 0..times {
        mesh.run(1);
        let fast = mesh.begin(at, "fast");
        if mesh.intend(fast, &[object]).is_ready() {
            mesh.commit_amount(fast, object, 1_000).expect("it holds the lock");
        } else {
            mesh.end(fast);
        }
    }
}

/// Reads everything, then writes everything, with fast writers at every gap. Returns how often it conflicted.
fn slow_attempts(mesh: &Mesh, slow: Txn, objects: &[driftmesh_model::ObjectId]) -> u32 {
    let mut conflicts = 0;
    loop {
        let attempt = || -> Result<(), StepError> {
            for object in objects {
                mesh.read_wait(slow, *object)?;
                for busy in objects {
                    fast_writes(mesh, slow.at, *busy, 10);
                }
            }
            for object in objects {
                mesh.intend_wait(slow, &[*object])?;
                for busy in objects {
                    fast_writes(mesh, slow.at, *busy, 10);
                }
            }
            let writes: Vec<_> = objects.iter().map(|object| (*object, Some(small(1)))).collect();
            mesh.commit(slow, &writes).map(|_| ())
        };
        match attempt() {
            Ok(()) => return conflicts,
            Err(StepError::Failed(cause)) => {
                assert!(matches!(cause, Cause::Conflict { .. }), "{cause}");
                conflicts += 1;
                assert!(conflicts as usize <= objects.len(), "{conflicts} conflicts on {} objects", objects.len());
                mesh.retry_wait(slow).expect("within the deadline");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_slow_reader_and_writer_conflicts_at_most_once_for_each_object_it_touches() {
    for count in 1..=4 {
        let mesh = Mesh::new(1);
        let objects: Vec<_> = (0..count).map(|_| mesh.create(0, 0)).collect();
        let slow = mesh.begin_for(0, "slow", 60_000);
        let conflicts = slow_attempts(&mesh, slow, &objects);
        assert!(conflicts >= 1, "the fast writers are not fast");
        for object in objects {
            assert_eq!(mesh.newest(object), Some(1));
        }
    }
}

#[test]
fn a_conflict_names_the_one_who_committed() {
    let mesh = Mesh::new(1);
    let object = mesh.create(0, 0);
    let slow = mesh.begin(0, "slow");
    mesh.read_wait(slow, object).unwrap();
    let fast = mesh.put(0, object, 5);
    let failed = mesh.intend_wait(slow, &[object]);
    let Err(StepError::Failed(Cause::Conflict { object: conflict, newer, by: Some(by) })) = failed else {
        panic!("no named conflict: {failed:?}");
    };
    assert_eq!((conflict, newer), (object, fast.receipt.commit));
    assert_eq!((by.timestamp, by.kind.as_str()), (fast.receipt.txn, "put"));
}

/// One slow closure against fast ones at all peers. Returns how the slow one ended, and how often the fast committed.
fn closures_against_each_other(peers: usize, writers: usize, objects: usize) -> (Done<u32>, u64, u64) {
    let mesh = Mesh::new(peers);
    let golds: Vec<GoldRef> = (0..objects).map(|index| GoldRef::from_id(mesh.create_known(index % peers, 0))).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let slow = {
        let (sleeper, golds) = (mesh.clone(), golds.clone());
        let options = Options { deadline: Micros::from_millis(60_000), ..Options::new("slow") };
        mesh.spawn(transact(mesh.host(0), options, move |tx| {
            let (sleeper, golds) = (sleeper.clone(), golds.clone());
            async move {
                let mut amounts = Vec::new();
                for gold in &golds {
                    amounts.push(tx.get(*gold).await?.amount);
                    sleeper.sleep(20).await;
                }
                for (gold, amount) in golds.iter().zip(amounts) {
                    let mut guard = tx.get_mut(*gold).await?;
                    assert_eq!(guard.amount, amount, "a read did not repeat");
                    guard.amount += 1;
                    sleeper.sleep(20).await;
                }
                Ok(tx.attempt())
            }
        }))
    };
    let fast: Vec<_> = (0..writers)
        .map(|writer| {
            let (sleeper, golds, stop) = (mesh.clone(), golds.clone(), Arc::clone(&stop));
            let host = mesh.host(writer % peers);
            mesh.spawn(async move {
                let mut commits = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let gold = golds[writer % golds.len()];
                    let options = Options { deadline: Micros::from_millis(60_000), ..Options::new("fast") };
                    transact(host.clone(), options, move |tx| async move {
                        tx.get_mut(gold).await?.amount += 1;
                        Ok(())
                    })
                    .await
                    .expect("within a minute");
                    commits += 1;
                    sleeper.sleep(1 + writer as u64 % 5).await;
                }
                commits
            })
        })
        .collect();
    let done = mesh.finish(&slow, 30_000).expect("within the deadline");
    stop.store(true, Ordering::Relaxed);
    let commits: u64 = fast.iter().map(|job| mesh.finish(job, 30_000)).sum();
    let total = golds.iter().filter_map(|gold| mesh.newest(gold.id())).sum();
    (done, commits, total)
}

#[test]
fn one_slow_closure_commits_against_fifty_fast_ones_within_objects_plus_one_attempts() {
    for (peers, objects) in [(1, 1), (1, 3), (3, 1), (3, 3)] {
        let (done, commits, total) = closures_against_each_other(peers, 50, objects);
        assert!(commits > 50, "the fast ones did not run");
        let attempts = done.committed.attempts;
        assert_eq!(done.value, attempts);
        assert!(attempts as usize <= objects + 1, "{attempts} attempts, {objects} objects, {peers} peers");
        assert_eq!(total, commits + objects as u64, "an addition was lost or doubled");
    }
}

#[test]
fn an_attempt_that_wrote_before_it_failed_takes_those_locks_first_too() {
    let mesh = Mesh::new(1);
    let (written, contended) = (mesh.create(0, 0), mesh.create(0, 0));
    let slow = mesh.begin(0, "slow");
    mesh.read_wait(slow, contended).unwrap();
    mesh.intend_wait(slow, &[written]).unwrap();
    mesh.put(0, contended, 1);
    assert!(mesh.intend_wait(slow, &[contended]).is_err());
    mesh.retry_wait(slow).unwrap();
    // Both are its own now: a younger one gets neither, and no newer version can appear.
    for object in [written, contended] {
        let fast = mesh.begin(0, "fast");
        assert!(mesh.intend(fast, &[object]).is_pending());
        mesh.end(fast);
    }
    mesh.commit(slow, &[(written, Some(small(7))), (contended, Some(small(7)))]).unwrap();
    assert_eq!((mesh.newest(written), mesh.newest(contended)), (Some(7), Some(7)));
}
