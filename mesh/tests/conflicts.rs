//! Transactions that get in each other's way, at one peer and between peers.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::common::{HANGS, Player, bounded, meshes, until};
use driftmesh::{Cause, Error, Mesh, NameBucket, Ref, Result, Seen, Snapshot, Tx, decode_object, limits};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const PLAYERS: u64 = 6;
const GOLD: u64 = 100;

async fn players(mesh: &Mesh) -> Arc<[Ref<Player>]> {
    let created = mesh.transact(|tx| async move {
        (0..PLAYERS).map(|_| tx.create(&Player::new("Ada", GOLD))).collect::<Result<Vec<_>>>()
    });
    bounded(created).await.unwrap().into()
}

async fn pay(tx: &Tx, from: Ref<Player>, to: Ref<Player>) -> Result<()> {
    let mut from = tx.get_mut(from).await?;
    let mut to = tx.get_mut(to).await?;
    let gold = tx.random() % 10;
    if from.gold >= gold {
        from.gold -= gold;
        to.gold += gold;
    }
    Ok(())
}

/// Pays at random between few players until told to stop.
fn spawn_payments(
    mesh: &Mesh,
    players: &Arc<[Ref<Player>]>,
    stop: &Arc<AtomicBool>,
    paid: &Arc<AtomicU64>,
) -> tokio::task::JoinHandle<()> {
    let (mesh, players, stop, paid) = (mesh.clone(), Arc::clone(players), Arc::clone(stop), Arc::clone(paid));
    tokio::spawn(async move {
        let pay_once = mesh.task("pay").deadline(HANGS);
        let mut turn = 0;
        while !stop.load(Ordering::Relaxed) {
            turn += 1;
            let players = &players;
            let payment = pay_once.run(|tx| async move {
                let from = usize::try_from((tx.random() + turn) % PLAYERS).unwrap();
                let to = (from + 1 + usize::try_from(tx.random() % (PLAYERS - 1)).unwrap()) % players.len();
                pay(&tx, players[from], players[to]).await
            });
            payment.await.unwrap();
            paid.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn gold_is_conserved_between_three_peers_and_every_snapshot_sees_all_of_it() {
    let all = meshes(3).await;
    let players = players(&all[0]).await;
    let (stop, paid) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let payers: Vec<_> =
        all.iter().flat_map(|mesh| [mesh, mesh]).map(|mesh| spawn_payments(mesh, &players, &stop, &paid)).collect();

    let mut snapshots = 0;
    while paid.load(Ordering::Relaxed) < 300 || snapshots < 30 {
        let mesh = &all[snapshots % all.len()];
        let snapshot = mesh.snapshot().unwrap();
        // What commits after the snapshot must not be seen.
        tokio::time::sleep(Duration::from_millis(2)).await;
        if let Some(sum) = sum_at(&snapshot, &players).await {
            assert_eq!(sum, PLAYERS * GOLD, "snapshot {snapshots}");
            snapshots += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for payer in payers {
        bounded(payer).await.unwrap();
    }
    let players = &players;
    let sum =
        bounded(all[1].transact(|tx| async move {
            Ok(tx.get_many(players).await?.iter().map(|player| player.gold).sum::<u64>())
        }));
    assert_eq!(sum.await.unwrap(), PLAYERS * GOLD);
}

/// All gold at a snapshot; `None` when the owner's budget for old versions of one player is used up.
async fn sum_at(snapshot: &Snapshot, players: &[Ref<Player>]) -> Option<u64> {
    let mut sum = 0;
    for player in players {
        sum += loop {
            match bounded(snapshot.get(*player)).await {
                Ok(player) => break player.gold,
                Err(Error::SnapshotTooOld { .. }) => return None,
                // It is on its way.
                Err(Error::SnapshotRead(Cause::Unavailable { .. })) => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
    }
    Some(sum)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_of_all_peers_meets_every_object() {
    let all = meshes(3).await;
    let mut created = BTreeMap::new();
    for (index, mesh) in all.iter().enumerate() {
        for player in players(mesh).await.iter() {
            created.insert(player.id(), index);
        }
    }
    let snapshot = all[2].snapshot().unwrap();
    let (mut met, mut buckets) = (BTreeMap::new(), 0);
    for (index, mesh) in all.iter().enumerate() {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let page = bounded(snapshot.scan(mesh.peer_id(), from)).await.unwrap();
            for scanned in page.objects {
                let Seen::Version { value: Some(value), .. } = scanned.seen else { continue };
                if decode_object::<NameBucket>(&value).is_ok() {
                    buckets += 1;
                    continue;
                }
                assert_eq!(decode_object::<Player>(&value).unwrap().gold, GOLD);
                met.insert(scanned.object, index);
            }
            cursor = page.next;
        }
    }
    assert_eq!((met, buckets), (created, limits::NAME_BUCKETS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_names_the_object_the_other_transaction_and_both_kinds() {
    let all = meshes(2).await;
    let player = players(&all[0]).await[0];
    let other = all[0].clone();
    let slow = all[0].task("slow").deadline(Duration::from_secs(3));
    let error = bounded(slow.run(|tx| {
        let other = other.clone();
        async move {
            let _ = tx.get(player).await?;
            if tx.attempt() > 1 {
                std::future::pending::<()>().await;
            } else {
                other
                    .task("fast")
                    .run(|tx| async move {
                        tx.get_mut(player).await?.gold += 1;
                        Ok(())
                    })
                    .await?;
            }
            tx.get_mut(player).await?.gold += 1;
            Ok(())
        }
    }));
    let error = error.await.unwrap_err();
    assert!(matches!(error, Error::Deadline { last: Some(Cause::Conflict { .. }), .. }), "{error}");
    let text = error.to_string();
    for part in ["`slow`", "`fast`", &player.to_string(), "3000 ms", "2 attempts"] {
        assert!(text.contains(part), "{part} in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_transaction_takes_what_a_younger_one_holds() {
    let all = meshes(2).await;
    let player = players(&all[0]).await[0];
    let (older_began, younger_holds) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (began, holds) = (Arc::clone(&older_began), Arc::clone(&younger_holds));
    let older = all[0].task("older").deadline(HANGS).run(move |tx| {
        let (began, holds) = (Arc::clone(&began), Arc::clone(&holds));
        async move {
            if tx.attempt() == 1 {
                began.notify_one();
                holds.notified().await;
            }
            tx.get_mut(player).await?.gold += 1;
            Ok(())
        }
    });
    let older = tokio::spawn(older);
    bounded(older_began.notified()).await;
    let younger = all[0].task("younger").deadline(HANGS).run(|tx| {
        let younger_holds = Arc::clone(&younger_holds);
        async move {
            let mut player = tx.get_mut(player).await?;
            player.gold += 1;
            if tx.attempt() == 1 {
                younger_holds.notify_one();
                // Long enough for the older one to come; the outcome does not depend on it.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        }
    });
    bounded(younger).await.unwrap();
    bounded(older).await.unwrap().unwrap();
    let gold = bounded(all[1].transact(|tx| async move { Ok(tx.get(player).await?.gold) })).await.unwrap();
    assert_eq!(gold, GOLD + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_transaction_frees_what_it_held() {
    let all = meshes(2).await;
    let player = players(&all[0]).await[0];
    let holding = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&holding);
    let holder = tokio::spawn(all[0].task("holder").deadline(Duration::from_secs(60)).run(move |tx| {
        let held = Arc::clone(&held);
        async move {
            let _guard = tx.get_mut(player).await?;
            held.store(true, Ordering::Relaxed);
            std::future::pending::<Result<()>>().await
        }
    }));
    until("the lock is held", || holding.load(Ordering::Relaxed)).await;
    let waiter = all[1].task("waiter").deadline(Duration::from_secs(60)).run(move |tx| async move {
        tx.get_mut(player).await?.gold += 1;
        Ok(())
    });
    let waiter = tokio::spawn(waiter);
    until("the waiter waits", || all[1].status().fetching > 0).await;
    holder.abort();
    bounded(waiter).await.unwrap().unwrap();
    until("nothing is open", || all.iter().all(|mesh| mesh.status().transactions == 0)).await;
}
