//! The hooks by which the testnet makes a crash lose what was not sent yet, and peers on one machine seem far away.

use crate::common::bounded;
use driftmesh::{Mesh, Object};
use std::time::{Duration, Instant};

#[derive(serde::Serialize, serde::Deserialize)]
struct Thing;

impl Object for Thing {
    const TYPE_NAME: &'static str = "thing";
}

#[tokio::test(flavor = "multi_thread")]
async fn held_traffic_goes_out_later_and_callers_are_answered_meanwhile() {
    const HOLD: Duration = Duration::from_secs(3);
    let first = Mesh::builder().start().await.unwrap();
    let second = Mesh::builder().join(&first.addresses()[0]).start().await.unwrap();
    second.wait_for_peers(1).await;
    let thing = first.transact(|tx| async move { tx.create(&Thing) }).await.unwrap();
    second.transact(|tx| async move { tx.get(thing).await }).await.unwrap();
    let begun = Instant::now();
    first.hold_outgoing(HOLD);
    first.transact(|tx| async move { tx.get(thing).await }).await.unwrap();
    assert!(begun.elapsed() < HOLD, "a caller of the held peer had to wait");
    second.ping(first.peer_id()).await.unwrap();
    assert!(begun.elapsed() >= HOLD, "something went out in spite of the hold");
    // Nothing was lost: the same connection goes on.
    second.transact(|tx| async move { tx.get(thing).await }).await.unwrap();
    assert_eq!(second.peers(), [first.peer_id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_holds_for_each_way_and_ends() {
    const DELAY: Duration = Duration::from_millis(60);
    let first = Mesh::builder().start().await.unwrap();
    let second = Mesh::builder().join(&first.addresses()[0]).start().await.unwrap();
    second.wait_for_peers(1).await;
    first.delay_outgoing(DELAY);
    second.delay_outgoing(DELAY);
    let far = second.ping(first.peer_id()).await.unwrap();
    assert!(far >= 2 * DELAY, "{far:?}");
    let thing = first.transact(|tx| async move { tx.create(&Thing) }).await.unwrap();
    second.transact(|tx| async move { tx.get(thing).await }).await.unwrap();
    first.delay_outgoing(Duration::ZERO);
    second.delay_outgoing(Duration::ZERO);
    // What was on its way arrives first.
    second.ping(first.peer_id()).await.unwrap();
    bounded(async { while second.ping(first.peer_id()).await.unwrap() >= 2 * DELAY {} }).await;
    assert_eq!(second.peers(), [first.peer_id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn round_trips_that_many_make_at_once_in_both_directions_all_end() {
    let first = Mesh::builder().start().await.unwrap();
    let second = Mesh::builder().join(&first.addresses()[0]).start().await.unwrap();
    second.wait_for_peers(1).await;
    first.wait_for_peers(1).await;
    let mut loops = tokio::task::JoinSet::new();
    for (from, to) in [(&first, &second), (&second, &first)].repeat(8) {
        let (from, to) = (from.clone(), to.peer_id());
        loops.spawn(async move {
            for _ in 0..200 {
                from.ping(to).await.unwrap();
            }
        });
    }
    bounded(loops.join_all()).await;
}
