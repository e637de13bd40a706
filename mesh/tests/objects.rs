//! Objects between peers of one process: created here, used there, owned by one.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::common::{HANGS, Player, Sword, bounded, meshes};
use driftmesh::{Error, Mesh, ObjectError, ObjectId, Outcome, Ref, limits};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

async fn create(mesh: &Mesh, gold: u64) -> Ref<Player> {
    bounded(mesh.transact(|tx| async move { tx.create(&Player::new("Ada", gold)) })).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_created_here_read_changed_and_deleted_there() {
    let all = meshes(2).await;
    let player = create(&all[0], 10).await;
    let read = bounded(all[1].transact(|tx| async move { tx.get(player).await })).await.unwrap();
    assert_eq!(*read, Player::new("Ada", 10));
    assert!(all[0].is_owned(player.id()), "reads copy");

    let changed = all[1].transact(|tx| async move {
        tx.get_mut(player).await?.gold += 5;
        Ok(())
    });
    bounded(changed).await.unwrap();
    assert!(all[1].is_owned(player.id()) && !all[0].is_owned(player.id()), "writes move");
    assert_eq!((all[0].status().owned, all[1].status().owned), (limits::NAME_BUCKETS, 1));

    let gold = bounded(all[0].transact(|tx| async move { Ok(tx.get(player).await?.gold) })).await.unwrap();
    assert_eq!(gold, 15);
    bounded(all[0].transact(|tx| async move { tx.delete(player).await })).await.unwrap();
    for mesh in &all {
        let error = bounded(mesh.transact(|tx| async move { tx.get(player).await })).await.unwrap_err();
        assert!(matches!(error, Error::Dangling { object } if object == player.id()), "{error}");
        assert_eq!(error.outcome(), Outcome::Aborted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn references_inside_objects_lead_to_others() {
    let all = meshes(2).await;
    let player = bounded(all[0].transact(|tx| async move {
        let sword = tx.create(&Sword { damage: 7 })?;
        tx.create(&Player { sword: Some(sword), ..Player::new("Ada", 1) })
    }));
    let player = player.await.unwrap();
    let damage = bounded(all[1].transact(|tx| async move {
        let sword = tx.get(player).await?.sword.ok_or_else(|| tx.reject("no sword"))?;
        let mut sword = tx.get_mut(sword).await?;
        sword.damage += 1;
        Ok(sword.damage)
    }));
    assert_eq!(damage.await.unwrap(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_types_and_unknown_objects_are_typed_errors() {
    let all = meshes(2).await;
    let player = create(&all[0], 1).await;
    let as_sword: Ref<Sword> = Ref::from_id(player.id());
    for mesh in &all {
        let error = bounded(mesh.transact(|tx| async move { tx.get(as_sword).await })).await.unwrap_err();
        assert!(matches!(&error, Error::Object { error: ObjectError::WrongType { .. }, .. }), "{error}");
        assert!(error.to_string().contains("it is a `player`, not a `sword`"), "{error}");
    }
    let nowhere: Ref<Player> = Ref::from_id(ObjectId::from_u128(77));
    let error = bounded(all[1].transact(|tx| async move { tx.get(nowhere).await })).await.unwrap_err();
    assert!(matches!(error, Error::Dangling { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_objects_are_read_and_taken_in_one_round() {
    let all = meshes(3).await;
    let mut players = Vec::new();
    for mesh in &all {
        for gold in 0..20 {
            players.push(create(mesh, gold).await);
        }
    }
    let players = &players;
    let sum =
        bounded(all[2].transact(|tx| async move {
            Ok(tx.get_many(players).await?.iter().map(|player| player.gold).sum::<u64>())
        }));
    assert_eq!(sum.await.unwrap(), 3 * 190);
    let doubled = bounded(all[2].transact(|tx| async move {
        for mut player in tx.get_mut_many(players).await? {
            player.gold *= 2;
        }
        Ok(tx.get_many(players).await?.iter().map(|player| player.gold).sum::<u64>())
    }));
    assert_eq!(doubled.await.unwrap(), 6 * 190);
    assert!(players.iter().all(|player| all[2].is_owned(player.id())));

    let twice = &[players[0], players[0]];
    let error = bounded(all[2].transact(|tx| async move { tx.get_mut_many(twice).await.map(|_| ()) })).await;
    assert!(matches!(error, Err(Error::GuardHeld { object }) if object == players[0].id()), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_created_is_not_looked_for_elsewhere() {
    let all = meshes(2).await;
    let done = bounded(all[1].task("create and read").run_with_receipt(|tx| async move {
        let players = [tx.create(&Player::new("Ada", 1))?, tx.create(&Player::new("Bob", 2))?];
        for mut player in tx.get_mut_many(&players).await? {
            player.gold += 10;
        }
        Ok(tx.get_many(&players).await?.iter().map(|player| player.gold).sum::<u64>())
    }));
    let done = done.await.unwrap();
    assert_eq!((done.value, done.committed.awaited_message), (23, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_closure_leaves_nothing() {
    #[derive(Debug, thiserror::Error)]
    #[error("the gate is closed")]
    struct GateClosed;

    let all = meshes(2).await;
    let player = create(&all[0], 10).await;
    let created = std::sync::Mutex::new(None);
    let created_there = &created;
    let rejected = all[1].transact(|tx| async move {
        tx.get_mut(player).await?.gold = 0;
        *created_there.lock().unwrap() = Some(tx.create(&Sword { damage: 1 })?);
        Err::<(), _>(tx.reject(GateClosed))
    });
    let error = bounded(rejected).await.unwrap_err();
    assert!(error.rejection::<GateClosed>().is_some());
    assert_eq!((error.to_string().as_str(), error.outcome()), ("rejected: the gate is closed", Outcome::Aborted));
    let gold = bounded(all[0].transact(|tx| async move { Ok(tx.get(player).await?.gold) })).await.unwrap();
    assert_eq!(gold, 10);
    let sword = created.lock().unwrap().unwrap();
    for mesh in &all {
        let error = bounded(mesh.transact(|tx| async move { tx.get(sword).await })).await.unwrap_err();
        assert!(matches!(error, Error::Dangling { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_a_typed_error_and_leaves_nothing() {
    let mesh = bounded(Mesh::builder().start()).await.unwrap();
    let huge = &Player::new(&"x".repeat(limits::OBJECT_BYTES_MAX), 1);
    let error = bounded(mesh.transact(|tx| async move { tx.create(huge) })).await.unwrap_err();
    assert!(matches!(&error, Error::Object { error: ObjectError::TooLarge { .. }, .. }), "{error}");

    let player = create(&mesh, 1).await;
    let grown = mesh.transact(|tx| async move {
        tx.get_mut(player).await?.name = "x".repeat(limits::OBJECT_BYTES_MAX);
        Ok(())
    });
    let error = bounded(grown).await.unwrap_err();
    assert!(matches!(&error, Error::Object { object, .. } if *object == player.id()), "{error}");

    let large = &Player::new(&"x".repeat(limits::OBJECT_BYTES_MAX - 100), 1);
    let error = bounded(mesh.transact(|tx| async move {
        for _ in 0..=limits::TRANSACTION_BYTES_MAX / limits::OBJECT_BYTES_MAX {
            tx.create(large)?;
        }
        Ok(())
    }));
    let error = error.await.unwrap_err();
    assert!(matches!(error, Error::TransactionTooLarge { .. }), "{error}");

    // Of many objects what is written beside their values counts: all of it is one message to each follower.
    let many = 55_000;
    let medium = &Player::new(&"x".repeat(250), 1);
    let error = bounded(mesh.task("flood").deadline(HANGS).run(|tx| async move {
        for _ in 0..many {
            tx.create(medium)?;
        }
        Ok(())
    }));
    let error = error.await.unwrap_err();
    let Error::TransactionTooLarge { bytes } = error else { panic!("{error}") };
    assert!(bytes - many * limits::WRITE_OVERHEAD_BYTES < limits::TRANSACTION_BYTES_MAX, "{bytes}");

    let small = &Sword { damage: 1 };
    let error = bounded(mesh.task("flood").deadline(HANGS).run(|tx| async move {
        for _ in 0..=limits::TRANSACTION_OBJECTS_MAX {
            tx.create(small)?;
        }
        Ok(())
    }));
    let error = error.await.unwrap_err();
    assert!(matches!(error, Error::TooManyObjects), "{error}");
    assert_eq!(mesh.status().owned, 1 + limits::NAME_BUCKETS);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_object_and_many_of_them_move() {
    let all = meshes(2).await;
    let large = &Player::new(&"x".repeat(limits::OBJECT_BYTES_MAX - 100), 1);
    let players =
        bounded(all[0].transact(|tx| async move { (0..15).map(|_| tx.create(large)).collect::<Result<Vec<_>, _>>() }));
    let players = &players.await.unwrap();
    let taken = all[1].task("take").deadline(HANGS).run(|tx| async move {
        for mut player in tx.get_mut_many(players).await? {
            player.gold += 1;
        }
        Ok(())
    });
    bounded(taken).await.unwrap();
    assert!(players.iter().all(|player| all[1].is_owned(player.id())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_kept_beyond_its_closure_is_of_no_use() {
    let mesh = bounded(Mesh::builder().start()).await.unwrap();
    let kept = bounded(mesh.transact(|tx| async move { Ok(tx) })).await.unwrap();
    assert!(matches!(kept.create(&Sword { damage: 1 }), Err(Error::Ended)));
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_and_metrics_tell_what_happened() {
    let mesh = bounded(Mesh::builder().start()).await.unwrap();
    let task = mesh.task("forge");
    let first = bounded(task.run_with_receipt(|tx| async move { tx.create(&Sword { damage: 1 }) })).await.unwrap();
    let sword = first.value;
    let second = bounded(task.run_with_receipt(|tx| async move {
        tx.get_mut(sword).await?.damage += 1;
        Ok(())
    }));
    let second = second.await.unwrap();
    assert!(second.committed.receipt > first.committed.receipt);
    assert!(!second.committed.awaited_message);
    assert_eq!(second.committed.attempts, 1);
    assert_eq!(mesh.metrics().commits, 2);
    let status = mesh.status();
    let json = serde_json::to_value(&status).unwrap();
    let owned = 1 + limits::NAME_BUCKETS;
    assert_eq!((status.owned, json["owned"].as_u64()), (owned, Some(owned as u64)));
    assert_eq!(json["replication"]["held_commits"], status.replication.held_commits);
    assert!(mesh.addresses()[0].ends_with(json["peer"].as_str().unwrap()));
}

#[tokio::test]
async fn transactions_that_never_wait_let_others_of_their_thread_run() {
    let mesh = Mesh::builder().start().await.unwrap();
    let player = mesh.transact(|tx| async move { tx.create(&Player::new("Ada", 1)) }).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let (busy, ends) = (Arc::clone(&is_over), Instant::now() + Duration::from_secs(10));
    let worker = tokio::spawn(async move {
        while !busy.load(Ordering::Relaxed) && Instant::now() < ends {
            mesh.transact(|tx| async move { tx.get_mut(player).await.map(|_| ()) }).await.unwrap();
        }
        busy.load(Ordering::Relaxed)
    });
    tokio::task::yield_now().await;
    is_over.store(true, Ordering::Relaxed);
    assert!(worker.await.unwrap(), "nothing else of the thread ran");
}
