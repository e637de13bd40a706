//! A game's rule, tested on simulated peers with lost messages, partitions and peers that stand still.
//!
//! In a game, `item_changes_hands` stays where it is and the two tests below stand in `#[cfg(test)]`; here they are
//! also called by `main`, so that the example can be run.
//!
//! `cargo run --package driftmesh --features test --example test_with_faults`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use driftmesh::test::{Faults, Options, World, simulate, simulate_seeds};
use driftmesh::{Mesh, Object, Ref, Result, Tx};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Serialize, Deserialize)]
struct Player {
    items: Vec<Ref<Item>>,
}

impl Object for Player {
    const TYPE_NAME: &'static str = "player";
}

#[derive(Serialize, Deserialize)]
struct Item;

impl Object for Item {
    const TYPE_NAME: &'static str = "item";
}

/// Production code: nothing in it knows of tests. An item is in exactly one bag.
async fn item_changes_hands(tx: Tx, from: Ref<Player>, to: Ref<Player>) -> Result<()> {
    let mut giver = tx.get_mut(from).await?;
    let item = giver.items.pop().ok_or_else(|| tx.reject("nothing to give"))?;
    tx.get_mut(to).await?.items.push(item);
    Ok(())
}

/// A player with five items. Under faults even this may need longer than usual.
async fn new_player(mesh: &Mesh) -> Ref<Player> {
    let create = |tx: Tx| async move {
        let items = (0..5).map(|_| tx.create(&Item)).collect::<Result<Vec<_>>>()?;
        tx.create(&Player { items })
    };
    mesh.task("create").deadline(Duration::from_secs(30)).run(create).await.expect("creating needs no other peer")
}

/// Every peer gives items away at once, while the network fails; then the items are counted.
async fn give_and_count(peers: Vec<Mesh>, world: World) -> usize {
    let mut players = Vec::new();
    for mesh in &peers {
        players.push(new_player(mesh).await);
    }
    let mut givers = Vec::new();
    for (number, mesh) in peers.iter().cloned().enumerate() {
        let (players, world_there) = (players.clone(), world.clone());
        givers.push(world.spawn(async move {
            for round in 0..10 {
                let (from, to) = (players[(number + round) % players.len()], players[(number + 1) % players.len()]);
                if from != to {
                    // It may end with `Deadline` while the peers cannot reach each other: then nothing happened.
                    let _ = mesh.transact(|tx| item_changes_hands(tx, from, to)).await;
                }
                world_there.sleep(Duration::from_millis(50)).await;
            }
        }));
    }
    for giver in givers {
        giver.join().await;
    }
    world.heal();
    let all = &players;
    let count = peers[0]
        .task("count")
        .deadline(Duration::from_secs(30))
        .run(|tx| async move { Ok(tx.get_many(all).await?.iter().map(|player| player.items.len()).sum()) });
    count.await.expect("without faults everything is found")
}

#[cfg_attr(test, test)]
fn no_item_is_lost_or_doubled_whatever_the_network_does() {
    // When one fails, its message says the seed, and how to replay just that one.
    let runs = simulate_seeds(0..50, Options::seed(0).peers(3).faults(Faults::all()), give_and_count);
    assert!(runs.iter().all(|run| run.value == 15));
    println!("{} seeds, {} transfers, no item lost", runs.len(), runs.iter().map(|run| run.transfers).sum::<u64>());
}

#[cfg_attr(test, test)]
fn a_seed_gives_the_same_run_again() {
    let run = || simulate(Options::seed(7).peers(4).faults(Faults::network()), give_and_count);
    let (first, second) = (run(), run());
    assert_eq!(first, second);
    println!("seed {} took {:?} of virtual time, and has the trace {}", first.seed, first.elapsed, first.trace_hash);
}

fn main() {
    no_item_is_lost_or_doubled_whatever_the_network_does();
    a_seed_gives_the_same_run_again();
}
