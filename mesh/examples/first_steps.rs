//! Joins a mesh that runs, finds an object by its name or creates it, changes it and leaves: run it twice.
//!
//! `cargo run --package driftmesh --example first_steps -- 127.0.0.1:4001` (without an address it founds a mesh of its
//! own, which ends with it)
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use driftmesh::{Mesh, Object};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is kept in the mesh.
#[derive(Serialize, Deserialize)]
struct Sword {
    damage: u32,
    /// How many programs have had it.
    owners: u32,
}

impl Object for Sword {
    const TYPE_NAME: &'static str = "sword";
}

const NAME: &str = "swords/excalibur";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = Mesh::builder();
    if let Some(address) = std::env::args().nth(1) {
        builder = builder.join(&address);
    }
    let mesh = builder.start().await?;

    // One transaction: nobody can bind the name in between, and the sword exists if and only if its name does.
    let sword = mesh
        .transact(|tx| async move {
            if let Some(known) = tx.lookup::<Sword>(NAME).await? {
                return Ok(known);
            }
            let new = tx.create(&Sword { damage: 7, owners: 0 })?;
            tx.bind(NAME, new).await?;
            Ok(new)
        })
        .await?;

    // The write moves the sword here, wherever it was.
    let owners = mesh
        .transact(|tx| async move {
            let mut sword = tx.get_mut(sword).await?;
            sword.owners += 1;
            Ok(sword.owners)
        })
        .await?;
    assert!(mesh.is_owned(sword.id()));
    println!("{NAME} is object {sword}, I am its owner number {owners}");

    // Leaving hands over what this peer owns. Dropped without it, the sword would be gone with this process.
    let left = mesh.leave(Duration::from_secs(10)).await;
    println!("left: {} objects handed over, {} lost", left.handed_over, left.stayed);
    Ok(())
}
