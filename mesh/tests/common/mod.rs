//! What the tests share: objects, meshes in one process, and a bound on every wait.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

use driftmesh::{Builder, Mesh, Object, Ref};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// No test waits longer for anything. It says that something hangs, never that it is slow.
pub const HANGS: Duration = Duration::from_secs(90);

#[derive(Clone, Serialize, Deserialize, PartialEq, Eq, Debug)]
pub struct Player {
    pub name: String,
    pub gold: u64,
    #[serde(default)]
    pub sword: Option<Ref<Sword>>,
}

impl Object for Player {
    const TYPE_NAME: &'static str = "player";
}

impl Player {
    pub fn new(name: &str, gold: u64) -> Self {
        Self { name: name.to_owned(), gold, sword: None }
    }
}

#[derive(Clone, Serialize, Deserialize, PartialEq, Eq, Debug)]
pub struct Sword {
    pub damage: u32,
}

impl Object for Sword {
    const TYPE_NAME: &'static str = "sword";
}

/// Fails the test when the future does not end.
pub async fn bounded<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(HANGS, future).await.expect("nothing hangs")
}

/// Waits until something is true.
pub async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(HANGS, async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

/// A port that can be named before anything listens at it; outside of the range from which port 0 is chosen.
pub fn unused_address() -> String {
    loop {
        let port = 16_384 + u16::try_from(driftmesh::transport::random_incarnation() % 16_384).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
}

/// A mesh of so many peers, each connected to all others.
pub async fn meshes(count: usize) -> Vec<Mesh> {
    meshes_of(Mesh::builder, count).await
}

/// The same of peers that are built so.
pub async fn meshes_of(builder: impl Fn() -> Builder, count: usize) -> Vec<Mesh> {
    let founder = bounded(builder().start()).await.unwrap();
    let address = founder.addresses().remove(0);
    let mut all = vec![founder];
    for _ in 1..count {
        all.push(bounded(builder().join(&address).start()).await.unwrap());
    }
    for mesh in &all {
        bounded(mesh.wait_for_peers(count - 1)).await;
    }
    all
}
