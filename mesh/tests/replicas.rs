//! Replica groups between live peers: copies, failover, what became of commits.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::common::{HANGS, Player, bounded, meshes, until};
use driftmesh::{Fate, Mesh, Receipt, Ref};

async fn whole(peers: &[Mesh]) {
    until("all groups are whole", || peers.iter().all(|peer| peer.status().may_stop)).await;
}

async fn create(mesh: &Mesh, gold: u64) -> Ref<Player> {
    bounded(mesh.transact(|tx| async move { tx.create(&Player::new("Ada", gold)) })).await.unwrap()
}

async fn gold(mesh: &Mesh, player: Ref<Player>) -> u64 {
    let task = mesh.task("read").deadline(HANGS);
    bounded(task.run(|tx| async move { Ok(tx.get(player).await?.gold) })).await.unwrap()
}

async fn earn(mesh: &Mesh, player: Ref<Player>) -> Receipt {
    let task = mesh.task("earn").deadline(HANGS).stable();
    let done = task.run_with_receipt(|tx| async move {
        tx.get_mut(player).await?.gold += 1;
        Ok(())
    });
    let done = bounded(done).await.unwrap();
    assert!(done.committed.stable);
    done.committed.receipt
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stable_outlives_the_peer_that_made_it() {
    let all = meshes(3).await;
    whole(&all).await;
    let player = create(&all[0], 7).await;
    let receipt = earn(&all[0], player).await;
    // A goodbye without handing anything over is what a crash is to the others.
    bounded(all[0].shutdown()).await;
    let others = &all[1..];
    let mut fates = others[0].fates();
    fates.follow(receipt, "earned").unwrap();
    let settled = bounded(fates.next()).await.unwrap();
    assert!(settled.tag == "earned" && matches!(settled.fate, Fate::Stable { .. }), "{settled:?}");
    assert_eq!(bounded(fates.next()).await, None);
    assert_eq!(gold(&others[0], player).await, 8);
    earn(&others[1], player).await;
    assert!(others[1].is_owned(player.id()));
    for peer in others {
        assert!(matches!(bounded(peer.fate(&receipt)).await, Fate::Stable { .. }));
    }
    until("the lost peer's group has ended", || others.iter().all(|peer| peer.status().leaderless.is_empty())).await;
    whole(others).await;
    for peer in others {
        assert!(matches!(bounded(peer.fate(&receipt)).await, Fate::Stable { .. }));
        assert_eq!(gold(peer, player).await, 9);
    }
}
