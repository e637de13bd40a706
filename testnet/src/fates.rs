//! What a peer process asks its mesh about commits: whether they are stable, and what became of them.
//!
//! The one place that knows how the mesh answers this. As long as a group has one member, what its leader committed is
//! as stable as it will ever be, and what a dead peer committed is unknown for ever.

use driftmesh::{Builder, Committed, Mesh, Receipt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What became of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fate {
    /// It is kept.
    Stable,
    /// A crash undid it.
    Lost,
    /// Not decided yet.
    Unknown,
}

/// Asks for so many followers of the peer's group.
pub(crate) const fn with_replicas(builder: Builder, _replicas: usize) -> Builder {
    builder
}

/// What became of the commits with these receipts, in the same order.
pub(crate) fn fates(mesh: &Mesh, receipts: &[Receipt]) -> Vec<Fate> {
    let status = mesh.status();
    let connected = status.members.into_iter().filter(|member| member.connected).map(|member| member.group);
    let alive: BTreeSet<String> = connected.chain([status.group]).collect();
    let fate = |receipt: &Receipt| {
        if alive.contains(&receipt.group.to_string()) { Fate::Stable } else { Fate::Unknown }
    };
    receipts.iter().map(fate).collect()
}

/// Whether a commit was stable when its caller was told of it.
pub(crate) const fn is_stable(_committed: &Committed) -> bool {
    true
}

/// Whether every group that this peer knows of has all its members.
pub(crate) const fn is_whole(_mesh: &Mesh) -> bool {
    true
}

/// Waits until a commit is stable, or lost. Cancel safe.
pub(crate) async fn until_decided(mesh: &Mesh, receipt: &Receipt) -> Fate {
    loop {
        match fates(mesh, std::slice::from_ref(receipt)).first() {
            Some(fate @ (Fate::Stable | Fate::Lost)) => return *fate,
            Some(Fate::Unknown) | None => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
        }
    }
}
