//! `Tx::add`: changes that commute do not end each other's attempts, and nothing of them is lost.

use crate::harness::{Gold, Job, Mesh};
use driftmesh_model::{ObjectId, Ref};
use driftmesh_peer::session::{Error, Options, transact};

/// Adds to a purse in one of two ways, after a pause in which others commit.
fn adds(mesh: &Mesh, at: usize, object: ObjectId, more: u64, reads: bool) -> Job<Result<u32, Error>> {
    let (host, purse) = (mesh.host(at), Ref::<Gold>::from_id(object));
    let world = mesh.clone();
    mesh.spawn(async move {
        let done = transact(host, Options::new("add"), |tx| {
            let world = world.clone();
            async move {
                if reads {
                    tx.get(purse).await?;
                }
                tx.add(purse, move |gold: &mut Gold| gold.amount += more)?;
                world.sleep(10).await;
                Ok(())
            }
        });
        Ok(done.await?.committed.attempts)
    })
}

#[test]
fn those_who_only_add_commit_at_the_first_attempt() {
    let mesh = Mesh::replicated(3, 2);
    let object = mesh.create_known(0, 1);
    let jobs: Vec<_> = (0..20).map(|more| adds(&mesh, 0, object, more, false)).collect();
    for job in &jobs {
        assert_eq!(mesh.finish(job, 2_000).expect("it commits"), 1);
    }
    assert_eq!(mesh.newest(object), Some(1 + (0..20).sum::<u64>()));
}

#[test]
fn who_has_read_what_it_adds_to_meets_conflicts_as_always() {
    let mesh = Mesh::new(1);
    let object = mesh.create_known(0, 1);
    let jobs: Vec<_> = (0..5).map(|_| adds(&mesh, 0, object, 1, true)).collect();
    let attempts: Vec<u32> = jobs.iter().map(|job| mesh.finish(job, 5_000).expect("it commits")).collect();
    assert!(attempts.iter().any(|attempts| *attempts > 1), "{attempts:?}");
    assert_eq!(mesh.newest(object), Some(6));
}

#[test]
fn what_is_elsewhere_is_fetched_and_what_is_nowhere_is_told() {
    let mesh = Mesh::new(3);
    let object = mesh.create_known(0, 1);
    let jobs: Vec<_> = (0..3).map(|at| adds(&mesh, at, object, 1, false)).collect();
    for job in &jobs {
        mesh.finish(job, 5_000).expect("it commits");
    }
    assert_eq!(mesh.newest(object), Some(4));
    let nowhere = mesh.finish(&adds(&mesh, 0, ObjectId::from_u128(7), 1, false), 20_000);
    assert!(matches!(nowhere, Err(Error::Dangling { .. })), "{nowhere:?}");
}

#[test]
fn who_reads_after_adding_sees_what_was_added() {
    let mesh = Mesh::new(1);
    let object = mesh.create_known(0, 1);
    let (host, purse) = (mesh.host(0), Ref::<Gold>::from_id(object));
    let job = mesh.spawn(async move {
        let done = transact(host, Options::new("add and look"), |tx| async move {
            tx.add(purse, |gold: &mut Gold| gold.amount += 2)?;
            tx.add(purse, |gold: &mut Gold| gold.amount *= 2)?;
            let seen = tx.get(purse).await?.amount;
            tx.add(purse, |gold: &mut Gold| gold.amount += 1)?;
            tx.get_mut(purse).await?.amount += 10;
            Ok(seen)
        });
        done.await.map(|done| done.value)
    });
    assert_eq!(mesh.finish(&job, 1_000).expect("it commits"), 6);
    assert_eq!(mesh.newest(object), Some(17));
}

#[test]
fn who_only_adds_to_it_does_not_care_what_else_it_has_read_became_of() {
    let mesh = Mesh::new(1);
    let (read, added) = (mesh.create_known(0, 1), mesh.create_known(0, 1));
    let (host, world) = (mesh.host(0), mesh.clone());
    let job = mesh.spawn(async move {
        let done = transact(host, Options::new("look and add"), |tx| {
            let world = world.clone();
            async move {
                let seen = tx.get(Ref::<Gold>::from_id(read)).await?.amount;
                tx.add(Ref::<Gold>::from_id(added), move |gold: &mut Gold| gold.amount += seen)?;
                world.sleep(20).await;
                Ok(())
            }
        });
        done.await.map(|done| done.committed.attempts)
    });
    mesh.run(5);
    // Its snapshot cannot move beyond the first, and the second is newer than it.
    mesh.put(0, read, 7);
    mesh.put(0, added, 10);
    assert_eq!(mesh.finish(&job, 1_000).expect("it commits"), 1);
    assert_eq!(mesh.newest(added), Some(11));
}
