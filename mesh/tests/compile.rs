//! The shapes in which users write transactions: each must compile, and run.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::common::{Player, bounded};
use driftmesh::{Mesh, Ref, Result, Tx};

fn assert_send<T: Send>(value: T) -> T {
    value
}

async fn alone() -> Mesh {
    bounded(Mesh::builder().start()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_a_spawned_task() {
    let mesh = alone().await;
    let task = tokio::spawn({
        let mesh = mesh.clone();
        async move {
            let player = mesh.transact(|tx| async move { tx.create(&Player::new("Ada", 1)) }).await?;
            mesh.task("pay")
                .run(move |tx| async move {
                    tx.get_mut(player).await?.gold += 1;
                    Ok(())
                })
                .await?;
            mesh.transact(move |tx| async move { Ok(tx.get(player).await?.gold) }).await
        }
    });
    assert_eq!(bounded(task).await.unwrap().unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_future_is_send_and_does_not_borrow_the_mesh() {
    let future = {
        let mesh = alone().await;
        assert_send(mesh.transact(|tx| async move { tx.create(&Player::new("Ada", 1)) }))
    };
    // It also keeps the peer running.
    bounded(tokio::spawn(future)).await.unwrap().unwrap();
    let mesh = alone().await;
    let task = mesh.task("named");
    let done = assert_send(task.run_with_receipt(|tx| async move { Ok(tx.attempt()) }));
    drop((task, mesh));
    assert_eq!(bounded(done).await.unwrap().value, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_borrows_what_is_around_it() {
    let mesh = alone().await;
    let (name, prices) = ("Ada".to_owned(), vec![3, 4]);
    let mut calls = 0;
    let player = mesh.transact(|tx| {
        calls += 1;
        let (name, prices) = (&name, &prices);
        async move {
            let player = tx.create(&Player::new(name, 100))?;
            for price in prices {
                tx.get_mut(player).await?.gold -= price;
            }
            Ok(player)
        }
    });
    let player = bounded(player).await.unwrap();
    let gold = bounded(mesh.transact(|tx| async move { Ok(tx.get(player).await?.gold) })).await;
    assert_eq!((gold.unwrap(), name.as_str(), calls), (93, "Ada", 1));
}

/// A user's helper, generic over the closure.
async fn twice<T, F, Fut>(mesh: &Mesh, mut body: F) -> Result<(T, T)>
where
    F: FnMut(Tx) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let first = mesh.transact(&mut body).await?;
    Ok((first, mesh.task("second").run(body).await?))
}

/// A user's helper that takes part in a transaction.
async fn pay(tx: &Tx, from: Ref<Player>, to: Ref<Player>, gold: u64) -> Result<()> {
    let mut from = tx.get_mut(from).await?;
    from.gold = from.gold.checked_sub(gold).ok_or_else(|| tx.reject("not enough gold"))?;
    tx.get_mut(to).await?.gold += gold;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn helpers_are_generic_over_the_closure_and_over_nothing_else() {
    let mesh = alone().await;
    let (from, to) = bounded(twice(&mesh, |tx| async move { tx.create(&Player::new("Ada", 10)) })).await.unwrap();
    let paid = mesh.transact(|tx| async move { pay(&tx, from, to, 7).await });
    bounded(assert_send(paid)).await.unwrap();
    let refused = bounded(mesh.transact(|tx| async move { pay(&tx, from, to, 7).await })).await.unwrap_err();
    assert_eq!(refused.to_string(), "rejected: not enough gold");
    let both = mesh.transact(|tx| async move {
        let both = tx.get_many(&[from, to]).await?;
        Ok((both[0].gold, both[1].gold))
    });
    assert_eq!(bounded(both).await.unwrap(), (3, 17));
}

#[tokio::test]
async fn on_a_single_threaded_runtime_with_a_closure_that_is_not_send() {
    let mesh = alone().await;
    let local = std::rc::Rc::new(5);
    let created = mesh.transact(|tx| {
        let local = std::rc::Rc::clone(&local);
        async move { tx.create(&Player::new("Ada", *local)) }
    });
    bounded(created).await.unwrap();
}
