//! Two peers of one mesh: an object moves to the peer that writes it, and the peer that leaves hands its objects over.
//!
//! `cargo run --package driftmesh --example two_peers`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use driftmesh::{Mesh, Object};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Serialize, Deserialize)]
struct Sword {
    sharpness: u32,
}

impl Object for Sword {
    const TYPE_NAME: &'static str = "sword";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Usually each peer is a process of its own, and `join` gets the address of any peer of the mesh.
    let east = Mesh::builder().start().await?;
    let west = Mesh::builder().join(&east.addresses()[0]).start().await?;

    let sword = east.transact(|tx| async move { tx.create(&Sword { sharpness: 1 }) }).await?;
    assert!(east.is_owned(sword.id()));

    // Reading copies: the sword stays in the east.
    let seen = west.transact(|tx| async move { Ok(tx.get(sword).await?.sharpness) }).await?;
    assert!(seen == 1 && east.is_owned(sword.id()));
    println!("read in the west, owned in the east");

    // Writing moves: from here on the west changes it without asking anybody.
    for round in 1..=3 {
        let done = west
            .task("sharpen")
            .run_with_receipt(|tx| async move {
                tx.get_mut(sword).await?.sharpness += 1;
                Ok(())
            })
            .await?;
        println!("write {round} in the west: awaited a message: {}", done.committed.awaited_message);
    }
    assert!(west.is_owned(sword.id()) && !east.is_owned(sword.id()));

    // A peer that leaves hands over what it owns.
    let left = west.leave(Duration::from_secs(10)).await;
    assert_eq!((left.handed_over, left.stayed), (1, 0));
    let sharpness = east.transact(|tx| async move { Ok(tx.get(sword).await?.sharpness) }).await?;
    println!("the west has left; in the east the sword's sharpness is {sharpness}");
    assert_eq!(sharpness, 4);
    Ok(())
}
