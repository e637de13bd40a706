//! What a peer process asks its mesh about commits: what became of them.

use driftmesh::{Mesh, Receipt};
use serde::{Deserialize, Serialize};

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

impl From<driftmesh::Fate> for Fate {
    fn from(fate: driftmesh::Fate) -> Self {
        match fate {
            driftmesh::Fate::Stable { .. } => Self::Stable,
            driftmesh::Fate::Lost { .. } => Self::Lost,
            driftmesh::Fate::Unknown { .. } => Self::Unknown,
        }
    }
}

/// What became of the commits with these receipts, in the same order.
pub(crate) async fn fates(mesh: &Mesh, receipts: &[Receipt]) -> Vec<Fate> {
    let mut fates = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        fates.push(mesh.fate(receipt).await.into());
    }
    fates
}

/// Waits until a commit is stable, or lost. Cancel safe.
pub(crate) async fn until_decided(mesh: &Mesh, receipt: &Receipt) -> Fate {
    mesh.settled(receipt).await.into()
}
