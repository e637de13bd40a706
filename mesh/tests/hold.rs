//! The hook by which the testnet makes a crash lose what was not sent yet.

use driftmesh::{Mesh, Object};
use std::time::{Duration, Instant};

#[derive(serde::Serialize, serde::Deserialize)]
struct Thing;

impl Object for Thing {
    const TYPE_NAME: &'static str = "thing";
}

#[tokio::test(flavor = "multi_thread")]
async fn held_traffic_goes_out_later_and_callers_are_answered_meanwhile() {
    const HOLD: Duration = Duration::from_millis(300);
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
