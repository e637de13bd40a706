//! Two peers that may hold little: what would be more is refused, and what is deleted makes room.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use crate::common::{bounded, until};
use driftmesh::{Error, Mesh, Object, Ref};
use serde::{Deserialize, Serialize};

/// As much as each of the two may hold.
const MOST: u64 = 2 << 20;
/// What the tests create.
const CHUNK: usize = 100_000;

#[derive(Clone, Serialize, Deserialize)]
struct Chunk {
    terrain: String,
}

impl Object for Chunk {
    const TYPE_NAME: &'static str = "chunk";
}

async fn create(mesh: &Mesh, bytes: usize) -> Result<Ref<Chunk>, Error> {
    let chunk = Chunk { terrain: "x".repeat(bytes) };
    let done = mesh.transact(|tx| {
        let made = tx.create(&chunk);
        async move { made }
    });
    bounded(done).await
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::NoRoom(full) if full.most == MOST && full.held <= MOST)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_beyond_the_cap_is_refused_until_something_is_deleted() {
    let founder = bounded(Mesh::builder().held_bytes_max(MOST).start()).await.unwrap();
    let joins = Mesh::builder().join(&founder.addresses()[0]).held_bytes_max(MOST);
    let other = bounded(joins.start()).await.unwrap();
    until("both have copies", || [&founder, &other].iter().all(|peer| peer.status().may_stop)).await;
    let mut chunks = Vec::new();
    let refused = loop {
        match create(&founder, CHUNK).await {
            Ok(chunk) => chunks.push(chunk),
            Err(error) => break error,
        }
    };
    assert!(is_full(&refused), "{refused}");
    assert!(refused.to_string().contains("held_bytes_max"), "{refused}");
    assert!((15..21).contains(&chunks.len()), "{} chunks", chunks.len());
    let status = founder.status();
    assert!(status.held_bytes <= MOST && status.held_bytes_max == MOST && status.refused_for_room == 1);
    // The copies of all that fill the other one too, and it reads on.
    until("it holds the same", || other.status().held_bytes == founder.status().held_bytes).await;
    assert!(is_full(&create(&other, CHUNK).await.unwrap_err()));
    let first = chunks[0];
    let read = bounded(other.transact(|tx| async move { Ok(tx.get(first).await?.terrain.len()) })).await.unwrap();
    assert_eq!(read, CHUNK);
    // What it holds a copy of can be changed and deleted there.
    bounded(other.transact(|tx| async move { tx.delete(first).await })).await.unwrap();
    assert!(other.is_owned(first.id()));
    // Until it is settled that it has gone from where it was, it takes room there.
    until("there is room", || other.status().held_bytes + CHUNK as u64 + 1_000 <= MOST).await;
    create(&other, CHUNK).await.unwrap();
    until("it holds the same", || other.status().held_bytes == founder.status().held_bytes).await;
    // More room can be given while it runs.
    assert!(create(&founder, CHUNK).await.is_err());
    founder.set_held_bytes_max(2 * MOST);
    create(&founder, CHUNK).await.unwrap();
}
