//! Copies, watches and names between live peers.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::common::{HANGS, Player, bounded, meshes, until};
use driftmesh::{Cause, Error, Mesh, NameNews, Ref, Watch, Watched};
use std::collections::BTreeMap;
use std::time::Duration;

async fn create(mesh: &Mesh, gold: u64) -> Ref<Player> {
    bounded(mesh.transact(|tx| async move { tx.create(&Player::new("Ada", gold)) })).await.unwrap()
}

async fn set(mesh: &Mesh, player: Ref<Player>, gold: u64) {
    let task = mesh.task("set").deadline(HANGS).stable();
    let done = task.run(|tx| async move {
        tx.get_mut(player).await?.gold = gold;
        Ok(())
    });
    bounded(done).await.unwrap();
}

/// Waits until a watch has told this amount; says how often it told anything.
async fn told(watch: &mut Watch<Player>, gold: u64) -> usize {
    let mut told = 0;
    loop {
        match bounded(watch.next()).await.unwrap() {
            Watched::Version { value, .. } => {
                told += 1;
                assert!(value.gold <= gold, "it never goes back, and nothing else was written");
                if value.gold == gold {
                    return told;
                }
            }
            other @ (Watched::Deleted { .. } | Watched::Missing | Watched::Lost { .. }) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_answer_what_is_often_read() {
    let all = meshes(5).await;
    until("all groups are whole", || all.iter().all(|peer| peer.status().may_stop)).await;
    let player = create(&all[0], 1).await;
    for peer in &all[1..] {
        // Until then a snapshot may lie before its creation.
        let found = peer.task("find").deadline(HANGS).run(|tx| async move { Ok(tx.get(player).await?.gold) });
        assert_eq!(bounded(found).await.unwrap(), 1);
        let reads = peer.reads();
        let before = peer.status().reads;
        let answered = || {
            let reads = peer.status().reads;
            reads.followed + reads.subscribed - before.followed - before.subscribed
        };
        let warm = tokio::time::timeout(HANGS, async {
            while answered() < 20 {
                let snapshot = reads.snapshot().unwrap();
                match snapshot.get(player).await {
                    Ok(player) => assert_eq!(player.gold, 1),
                    // Nobody has answered for a second.
                    Err(Error::SnapshotRead(Cause::Unavailable { .. })) => {}
                    Err(error) => panic!("{error}"),
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        assert!(warm.await.is_ok(), "no copy answers: {:?}", peer.status().reads);
    }
    let done = all[0].task("earn").run_with_receipt(|tx| async move {
        tx.get_mut(player).await?.gold = 2;
        Ok(())
    });
    let receipt = bounded(done).await.unwrap().committed.receipt;
    for peer in &all {
        let reads = peer.reads();
        reads.saw(&receipt);
        let snapshot = reads.snapshot().unwrap();
        assert_eq!(bounded(snapshot.get(player)).await.unwrap().gold, 2, "a session sees what it was told");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_follows_its_object_over_moves_and_a_crash() {
    let all = meshes(4).await;
    until("all groups are whole", || all.iter().all(|peer| peer.status().may_stop)).await;
    let player = create(&all[0], 1).await;
    let mut watches: Vec<Watch<Player>> = all.iter().map(|peer| peer.watch(player).unwrap()).collect();
    for watch in &mut watches {
        told(watch, 1).await;
    }
    for gold in 2..=9 {
        set(&all[usize::try_from(gold % 4).unwrap()], player, gold).await;
    }
    for watch in &mut watches {
        let told = told(watch, 9).await;
        assert!(told <= 8);
        assert!(watch.try_next().unwrap().is_none());
    }
    set(&all[0], player, 10).await;
    watches.remove(0);
    // A goodbye without handing anything over is what a crash is to the others.
    bounded(all[0].shutdown()).await;
    set(&all[2], player, 11).await;
    for watch in &mut watches {
        told(watch, 11).await;
    }
    let deleted = all[3].task("delete").deadline(HANGS).run(|tx| async move { tx.delete(player).await });
    bounded(deleted).await.unwrap();
    for watch in &mut watches {
        assert!(matches!(bounded(watch.next()).await.unwrap(), Watched::Deleted { .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_told_as_they_come_change_and_go() {
    let all = meshes(3).await;
    let bind = |peer: usize, name: &'static str, gold: u64| {
        let task = all[peer].task("bind").deadline(HANGS);
        async move {
            let bound = task.run(|tx| async move {
                let player = tx.create(&Player::new(name, gold))?;
                tx.bind(name, player).await?;
                Ok(player)
            });
            bounded(bound).await.unwrap()
        }
    };
    let ada = bind(0, "guild/ada", 1).await;
    let mut names = all[2].watch_names::<Player>("guild/").unwrap();
    bind(1, "guild/bob", 2).await;
    bind(1, "tavern/eve", 3).await;
    let mut known: BTreeMap<String, u64> = BTreeMap::new();
    let mut follow = async |known: &mut BTreeMap<String, u64>, is_there: &dyn Fn(&BTreeMap<String, u64>) -> bool| {
        while !is_there(known) {
            match bounded(names.next()).await.unwrap() {
                NameNews::Bound { name, .. } => drop(known.insert(name, 0)),
                NameNews::Unbound { name, .. } => drop(known.remove(&name)),
                NameNews::Changed { name, seen: Watched::Version { value, .. }, .. } => {
                    known.insert(name, value.gold);
                }
                NameNews::Changed { seen, .. } => panic!("{seen:?}"),
            }
        }
    };
    let both = |ada: u64| BTreeMap::from([("guild/ada".to_owned(), ada), ("guild/bob".to_owned(), 2)]);
    follow(&mut known, &|known| *known == both(1)).await;
    set(&all[1], ada, 7).await;
    follow(&mut known, &|known| *known == both(7)).await;
    let freed = all[0].task("free").deadline(HANGS).run(|tx| async move { tx.unbind("guild/ada").await });
    bounded(freed).await.unwrap();
    follow(&mut known, &|known| known.len() == 1 && known["guild/bob"] == 2).await;
}
