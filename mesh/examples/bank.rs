//! Transfers between accounts: all or nothing, refused with an error of your own, and the sum never changes.
//!
//! `cargo run --package driftmesh --example bank`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use driftmesh::{Mesh, Object, Ref, Result, Tx};
use serde::{Deserialize, Serialize};

const ACCOUNTS: usize = 10;
const BALANCE_AT_FIRST: u64 = 100;
const TELLERS: usize = 4;
const TRANSFERS: usize = 100;

#[derive(Serialize, Deserialize)]
struct Account {
    owner: String,
    balance: u64,
}

impl Object for Account {
    const TYPE_NAME: &'static str = "account";
}

/// An error of the game, which comes back to the caller as it is.
#[derive(Debug, thiserror::Error)]
#[error("{owner} has {balance}, not {wanted}")]
struct TooPoor {
    owner: String,
    balance: u64,
    wanted: u64,
}

/// Takes part in a transaction of its caller: what it changes takes effect with everything else, or not at all.
async fn transfer(tx: &Tx, from: Ref<Account>, to: Ref<Account>, amount: u64) -> Result<()> {
    let mut payer = tx.get_mut(from).await?;
    if payer.balance < amount {
        return Err(tx.reject(TooPoor { owner: payer.owner.clone(), balance: payer.balance, wanted: amount }));
    }
    payer.balance -= amount;
    tx.get_mut(to).await?.balance += amount;
    Ok(())
}

/// Pays back and forth; returns how many transfers were refused.
async fn teller(mesh: Mesh, accounts: Vec<Ref<Account>>, number: usize) -> Result<usize> {
    let mut refused = 0;
    for round in 0..TRANSFERS {
        let from = accounts[(number + round) % ACCOUNTS];
        let to = accounts[(number + 3 * round + 1) % ACCOUNTS];
        if from == to {
            continue;
        }
        let amount = 20 + round as u64 % 60;
        match mesh.transact(|tx| async move { transfer(&tx, from, to, amount).await }).await {
            Ok(()) => {}
            Err(error) if error.rejection::<TooPoor>().is_some() => refused += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mesh = Mesh::builder().start().await?;
    let accounts = mesh
        .transact(|tx| async move {
            (0..ACCOUNTS)
                .map(|number| tx.create(&Account { owner: format!("client {number}"), balance: BALANCE_AT_FIRST }))
                .collect::<Result<Vec<_>>>()
        })
        .await?;

    let tellers: Vec<_> =
        (0..TELLERS).map(|number| tokio::spawn(teller(mesh.clone(), accounts.clone(), number))).collect();
    let mut refused = 0;
    for teller in tellers {
        refused += teller.await??;
    }

    // All balances at one moment: a transaction reads one snapshot.
    let all = &accounts;
    let balances = mesh.transact(|tx| async move { tx.get_many(all).await }).await?;
    let sum: u64 = balances.iter().map(|account| account.balance).sum();
    println!("{} transfers, {refused} of them refused; the bank holds {sum}", TELLERS * TRANSFERS);
    assert_eq!(sum, ACCOUNTS as u64 * BALANCE_AT_FIRST);
    assert!(refused > 0, "somebody was too poor");
    Ok(())
}
