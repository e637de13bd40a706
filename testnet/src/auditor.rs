//! The peer that audits: it joins after the work, and reads every owner's objects at one snapshot.
//!
//! It takes no part in the workload and knows only the totals that were created. It refuses to pass a count in
//! which objects were on their way, or whose versions were gone: it takes a new snapshot, and in the end tells so.

use crate::audit::{Findings, Tally};
use crate::net::{Machine, Network, RuntimeThere};
use crate::peers::{Meeting, Peers};
use crate::workloads::plan::Plan;
use crate::workloads::tally::{Count, Scene};
use crate::world::Totals;
use anyhow::{Context, Result, bail};
use driftmesh::{Mesh, ObjectId, PeerId, Seen, Snapshot, Value};
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
    /// Of its machine, where the peers are in a network.
    _runtime: Option<RuntimeThere>,
}

/// What was created, which is all that the auditor knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Created {
    /// The world that bots trade in.
    Trade(Totals),
    /// The world of a workload.
    Parts(Plan),
}

impl Default for Created {
    fn default() -> Self {
        Self::Trade(Totals::default())
    }
}

/// What an audit came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audited {
    /// The count.
    pub(crate) findings: Findings,
    /// Of a workload, everything that was seen.
    pub(crate) scene: Scene,
}

/// What keeps a count from being whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Gaps {
    in_transit: u64,
    versions_gone: u64,
}

impl Auditor {
    /// Joins the mesh of these peers and waits until it sees all that live.
    pub(crate) async fn join(peers: &mut Peers) -> Result<Self> {
        let (machine, live) = (peers.free_machine()?, peers.exchange.live().len());
        let listen = machine.as_ref().map_or_else(|| "127.0.0.1:0".to_owned(), Machine::listen);
        let Meeting { mesh, secret, .. } = &peers.meeting;
        let builder = Mesh::builder().name(mesh).secret(secret.clone()).listen(&listen);
        let builder = peers.addresses_to_join().iter().fold(builder, |builder, address| builder.join(address));
        let runtime = machine.as_ref().map(Network::runtime_on).transpose()?;
        let started = match &runtime {
            // All that it opens is opened by tasks that begin there.
            Some(there) => there.spawn(builder.start()).await.context("the auditing peer ended")?,
            None => builder.start().await,
        };
        let mesh = started.context("the auditing peer cannot join")?;
        if tokio::time::timeout(LIMIT, mesh.wait_for_peers(live)).await.is_err() {
            bail!("the auditing peer sees {} of {live} peers", mesh.peers().len());
        }
        Ok(Self { mesh, _runtime: runtime })
    }

    /// Counts the whole world once, at one snapshot. When something is always on its way, it tells so with what it found.
    pub(crate) async fn audit(&self, created: &Created) -> Result<Audited> {
        let mut snapshots = 1;
        loop {
            // Also before the first: by then every peer has told its clock.
            tokio::time::sleep(PAUSE).await;
            let (mut audited, gaps) = match created {
                Created::Trade(totals) => {
                    let mut tally = Tally::default();
                    let gaps = self.read_all(|owner, object, value| tally.meet(owner, object, value)).await?;
                    (Audited { findings: tally.judge(*totals), scene: Scene::default() }, gaps)
                }
                Created::Parts(plan) => {
                    let mut count = Count::default();
                    let gaps = self.read_all(|owner, object, value| count.meet(owner, object, value)).await?;
                    let (findings, scene) = count.judge(plan);
                    (Audited { findings, scene }, gaps)
                }
            };
            if gaps != Gaps::default() && snapshots < SNAPSHOTS_MAX {
                snapshots += 1;
                continue;
            }
            if gaps != Gaps::default() {
                audited.findings.told.push(format!(
                    "after {snapshots} snapshots {} objects were still on their way, and the versions of {} were gone",
                    gaps.in_transit, gaps.versions_gone
                ));
            }
            return Ok(audited);
        }
    }

    /// Shows all objects that are there at one snapshot, each with the name of its owner.
    pub(crate) async fn read_all(&self, mut meet: impl FnMut(&str, ObjectId, &Value)) -> Result<Gaps> {
        let snapshot = self.mesh.snapshot().context("cannot take a snapshot")?;
        let mut gaps = Gaps::default();
        let mut owners = self.mesh.peers();
        // It should own nothing; if it does, that counts too.
        owners.push(self.mesh.peer_id());
        for owner in owners {
            let scanned = scan(&snapshot, owner, &mut meet, &mut gaps);
            scanned.await.with_context(|| format!("cannot scan peer {owner}"))?;
        }
        Ok(gaps)
    }

    /// Leaves.
    pub(crate) async fn end(self) {
        self.mesh.shutdown().await;
    }
}

/// Shows all pages of one owner.
async fn scan(
    snapshot: &Snapshot,
    owner: PeerId,
    meet: &mut impl FnMut(&str, ObjectId, &Value),
    gaps: &mut Gaps,
) -> Result<()> {
    let name = owner.to_string();
    let mut cursor = Some(0);
    let mut in_transit = 0;
    while let Some(from) = cursor {
        let page = tokio::time::timeout(LIMIT, snapshot.scan(owner, from)).await.context("no page came in time")??;
        for scanned in page.objects {
            match scanned.seen {
                Seen::Version { value: Some(value), .. } => meet(&name, scanned.object, &value),
                Seen::Version { value: None, .. } | Seen::NotYetCreated => {}
                Seen::TooOld => gaps.versions_gone += 1,
            }
        }
        in_transit = in_transit.max(page.in_transit);
        cursor = page.next;
    }
    gaps.in_transit += in_transit;
    Ok(())
}
