//! The smallest program: start a peer, store an object, change it in a transaction, read it.
//!
//! `cargo run --package driftmesh --example hello`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use driftmesh::{Mesh, Object};
use serde::{Deserialize, Serialize};

/// Any serde type can be an object. The name is stored with each value and outlives the Rust type's own name.
#[derive(Serialize, Deserialize)]
struct Player {
    name: String,
    gold: u64,
}

impl Object for Player {
    const TYPE_NAME: &'static str = "player";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // No configuration: this peer founds a mesh of its own and listens on loopback.
    let mesh = Mesh::builder().start().await?;

    // A transaction is a closure. It may run several times, so it has no effects besides those through `tx`.
    let ada = mesh.transact(|tx| async move { tx.create(&Player { name: "Ada".into(), gold: 10 }) }).await?;

    let gold = mesh
        .transact(|tx| async move {
            let mut player = tx.get_mut(ada).await?;
            player.gold += 5;
            Ok(player.gold)
        })
        .await?;

    let player = mesh.transact(|tx| async move { tx.get(ada).await }).await?;
    println!("{} has {gold} gold, as object {ada}", player.name);
    assert_eq!((player.gold, gold), (15, 15));
    Ok(())
}
