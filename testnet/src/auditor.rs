//! The peer that audits: it joins after the work, and reads every owner's objects at one snapshot.
//!
//! It takes no part in the workload and knows only the totals that were created. It refuses a count in which objects
//! were on their way, or whose versions were gone: then it takes a new snapshot.

use crate::audit::{Findings, Tally};
use crate::world::Totals;
use anyhow::{Context, Result, bail};
use driftmesh::{Mesh, PeerId, Seen, Snapshot};
use std::time::Duration;

/// Snapshots taken before the audit gives up.
const SNAPSHOTS_MAX: u32 = 20;
/// Pause before another snapshot.
const PAUSE: Duration = Duration::from_millis(250);
/// How long the auditor waits for the peers, and for one page.
const LIMIT: Duration = Duration::from_secs(30);

/// The auditing peer.
#[derive(Debug)]
pub(crate) struct Auditor {
    mesh: Mesh,
}

/// Why a count cannot be used.
enum Unusable {
    InTransit(u64),
    VersionsGone(u64),
}

impl Auditor {
    /// Joins the mesh and waits until it sees all `peers`.
    pub(crate) async fn join(mesh: &str, secret: String, address: &str, peers: usize) -> Result<Self> {
        let builder = Mesh::builder().name(mesh).secret(secret).listen("127.0.0.1:0").join(address);
        let mesh = builder.start().await.context("the auditing peer cannot join")?;
        if tokio::time::timeout(LIMIT, mesh.wait_for_peers(peers)).await.is_err() {
            bail!("the auditing peer sees {} of {peers} peers", mesh.peers().len());
        }
        Ok(Self { mesh })
    }

    /// Counts the whole world once, at one snapshot.
    pub(crate) async fn audit(&self, created: Totals) -> Result<Findings> {
        let mut last = None;
        for _ in 0..SNAPSHOTS_MAX {
            // Also before the first: by then every peer has told its clock.
            tokio::time::sleep(PAUSE).await;
            match self.count().await? {
                Ok(tally) => return Ok(tally.judge(created)),
                Err(unusable) => last = Some(unusable),
            }
        }
        match last {
            Some(Unusable::InTransit(objects)) => {
                bail!("{objects} objects were still on their way after {SNAPSHOTS_MAX} snapshots")
            }
            Some(Unusable::VersionsGone(objects)) => {
                bail!("the versions of {objects} objects were gone at each of {SNAPSHOTS_MAX} snapshots")
            }
            None => bail!("no snapshot was taken"),
        }
    }

    async fn count(&self) -> Result<Result<Tally, Unusable>> {
        let snapshot = self.mesh.snapshot().context("cannot take a snapshot")?;
        let mut tally = Tally::default();
        let mut gone = 0;
        let mut owners = self.mesh.peers();
        // It should own nothing; if it does, that counts too.
        owners.push(self.mesh.peer_id());
        for owner in owners {
            let scanned = self.scan(&snapshot, owner, &mut tally, &mut gone);
            let in_transit = scanned.await.with_context(|| format!("cannot scan peer {owner}"))?;
            if in_transit > 0 {
                return Ok(Err(Unusable::InTransit(in_transit)));
            }
        }
        Ok(if gone > 0 { Err(Unusable::VersionsGone(gone)) } else { Ok(tally) })
    }

    /// Counts all pages of one owner; returns how many objects were on their way from it.
    async fn scan(&self, snapshot: &Snapshot, owner: PeerId, tally: &mut Tally, gone: &mut u64) -> Result<u64> {
        let name = owner.to_string();
        let mut cursor = Some(0);
        let mut in_transit = 0;
        while let Some(from) = cursor {
            let page =
                tokio::time::timeout(LIMIT, snapshot.scan(owner, from)).await.context("no page came in time")??;
            for scanned in page.objects {
                match scanned.seen {
                    Seen::Version { value: Some(value), .. } => tally.meet(&name, scanned.object, &value),
                    Seen::Version { value: None, .. } | Seen::NotYetCreated => {}
                    Seen::TooOld => *gone += 1,
                }
            }
            in_transit = in_transit.max(page.in_transit);
            cursor = page.next;
        }
        Ok(in_transit)
    }

    /// Leaves.
    pub(crate) async fn end(self) {
        self.mesh.shutdown().await;
    }
}
