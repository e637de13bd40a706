//! The game world of the testnet: players with gold and items, created so that its totals are known.
//!
//! It refuses to know how the world is worked in, and how it is audited.

use anyhow::{Context, Result};
use driftmesh::{Mesh, Object, ObjectId, Ref};
use serde::{Deserialize, Serialize};

/// Gold of each player at first.
pub(crate) const GOLD_AT_FIRST: u64 = 100;
/// Items of each player at first.
pub(crate) const ITEMS_AT_FIRST: u64 = 2;
/// Players in one creating transaction: with their items some hundreds of objects.
const PLAYERS_PER_TRANSACTION: u64 = 100;

/// A player: an object whose gold and inventory change with each trade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Player {
    /// What others call him.
    pub(crate) name: String,
    /// His gold.
    pub(crate) gold: u64,
    /// His items. Each of them names him as its holder.
    pub(crate) inventory: Vec<Ref<Item>>,
    /// How many trades he took part in.
    pub(crate) trades: u64,
    /// The marks of these trades, added up: tells which trades they are.
    pub(crate) sum: u64,
}

impl Object for Player {
    const TYPE_NAME: &'static str = "testnet.player";
}

/// An item: an object of its own that moves between inventories.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Item {
    /// In whose inventory it is.
    pub(crate) holder: Ref<Player>,
    /// What it is.
    pub(crate) kind: String,
}

impl Object for Item {
    const TYPE_NAME: &'static str = "testnet.item";
}

/// What a world was created with: all that its audit knows of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Totals {
    /// How many players.
    pub(crate) players: u64,
    /// Their gold together.
    pub(crate) gold: u64,
    /// How many items.
    pub(crate) items: u64,
}

impl Totals {
    /// The totals of a world of so many players.
    pub(crate) const fn of_players(players: u64) -> Self {
        Self { players, gold: players * GOLD_AT_FIRST, items: players * ITEMS_AT_FIRST }
    }
}

/// What a trade with this number adds to the sums of its players: another 64 bits for each number, so that no two sets
/// of trades have the same sum but by a chance of one in 2^64 (the finisher of splitmix64).
pub(crate) const fn mark(id: u64) -> u64 {
    let mut mark = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mark = (mark ^ (mark >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mark = (mark ^ (mark >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mark ^ (mark >> 31)
}

/// Splits `players` evenly: how many are created at the peer with this number of `peers`.
pub(crate) const fn share(players: u64, peers: u64, number: u64) -> u64 {
    players / peers + if number < players % peers { 1 } else { 0 }
}

/// Creates players with their belongings at this peer.
pub(crate) async fn create_players(mesh: &Mesh, peer_number: u64, players: u64) -> Result<Vec<ObjectId>> {
    let mut created = Vec::new();
    let task = mesh.task("create players");
    let mut next = 0;
    while next < players {
        let numbers = next..players.min(next + PLAYERS_PER_TRANSACTION);
        next = numbers.end;
        let batch = task.run(|tx| {
            let numbers = numbers.clone();
            async move {
                let mut batch = Vec::new();
                for number in numbers {
                    let name = format!("player {peer_number}.{number}");
                    let mut player = Player { name, gold: GOLD_AT_FIRST, inventory: Vec::new(), trades: 0, sum: 0 };
                    let reference = tx.create(&player)?;
                    for kind in 0..ITEMS_AT_FIRST {
                        let item = Item { holder: reference, kind: format!("sword {kind}") };
                        player.inventory.push(tx.create(&item)?);
                    }
                    tx.put(reference, &player).await?;
                    batch.push(reference.id());
                }
                Ok(batch)
            }
        });
        created.append(&mut batch.await.context("cannot create players")?);
    }
    Ok(created)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_add_up() {
        for (players, peers) in [(10_000, 5), (10, 3), (2, 5), (7, 7)] {
            let shares: Vec<u64> = (0..peers).map(|number| share(players, peers, number)).collect();
            assert_eq!(shares.iter().sum::<u64>(), players);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
