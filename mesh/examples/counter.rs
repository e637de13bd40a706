//! One object that many tasks change at once: no increment is lost, and no lock is written by hand.
//!
//! `cargo run --package driftmesh --example counter`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use driftmesh::{Mesh, Object, Ref, Result};
use serde::{Deserialize, Serialize};

const TASKS: u64 = 8;
const INCREMENTS: u64 = 200;

#[derive(Serialize, Deserialize)]
struct Counter(u64);

impl Object for Counter {
    const TYPE_NAME: &'static str = "counter";
}

/// The handle is cheap to clone, so every task gets its own.
async fn count(mesh: Mesh, counter: Ref<Counter>) -> Result<()> {
    for _ in 0..INCREMENTS {
        let add = mesh.transact(|tx| async move {
            // Locks the object; whoever comes later waits, in the order of age.
            tx.get_mut(counter).await?.0 += 1;
            Ok(())
        });
        add.await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mesh = Mesh::builder().start().await?;
    let counter = mesh.transact(|tx| async move { tx.create(&Counter(0)) }).await?;

    let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(count(mesh.clone(), counter))).collect();
    for task in tasks {
        task.await??;
    }

    let total = mesh.transact(|tx| async move { Ok(tx.get(counter).await?.0) }).await?;
    println!("{TASKS} tasks counted to {total}; {} attempts were retried", mesh.metrics().aborts);
    assert_eq!(total, TASKS * INCREMENTS);
    Ok(())
}
