//! Clients that only read, at snapshots a little in the past: what copies answer is judged like everything else.
//!
//! Each is a session of its own. They refuse to write, and end with the other clients.

use crate::client::{Client, settled};
use crate::game::Purse;
use crate::ledger::Depends;
use driftmesh_model::{Micros, Ref};
use driftmesh_peer::session::{Error, Reads, Snapshot};

/// Most snapshots that one reader takes: each is a part of the history that is searched for cycles.
const SNAPSHOTS_MAX: usize = 60;

impl Client {
    /// Reads until so many transactions were begun by the others.
    pub(crate) async fn only_read(mut self, until: u64) {
        let stalenesses = [50_000, 50_000, 200_000, 1_000];
        let staleness = Micros(stalenesses[self.rng.usize(..stalenesses.len())]);
        let reads = Reads::begin(self.host.clone()).staleness(staleness);
        for _ in 0..SNAPSHOTS_MAX {
            if self.world.recorder.lock().begun >= until {
                return;
            }
            if self.rng.u8(..3) == 0 {
                self.count_recently(&reads).await
            } else {
                self.glance(&reads).await
            }
            let pause = self.rng.u64(200..8_000);
            self.world.clock.sleep(pause).await;
        }
    }

    /// Counts everything at one recent snapshot.
    async fn count_recently(&mut self, reads: &Reads<crate::host::SimHost>) {
        let Ok(snapshot) = reads.snapshot() else { return };
        let log = self.world.recorder.observation(self.session, "count recently");
        let (mut depends, mut wrong) = (Depends::default(), Vec::new());
        let counted = self.count(&snapshot, &log, &mut depends, &mut wrong).await;
        if counted.is_none() && wrong.is_empty() {
            log.aborted();
            return;
        }
        let number = log.committed(depends.receipts(), false);
        self.world.recorder.lock().ledger.wrong_unless_lost(number, wrong);
    }

    /// Looks at a few purses at one recent snapshot.
    async fn glance(&mut self, reads: &Reads<crate::host::SimHost>) {
        let Ok(snapshot) = reads.snapshot() else { return };
        let log = self.world.recorder.observation(self.session, "glance");
        let (mut depends, mut wrong) = (Depends::default(), Vec::new());
        let count = self.rng.usize(1..=4);
        let mut seen = 0;
        for _ in 0..count {
            let purse: Ref<Purse> = self.purse();
            let value = match snapshot.get(purse).await {
                // A client learns of the purses without a message.
                Err(Error::CreatedLater { .. }) => None,
                other => settled(other, purse.id(), &mut wrong),
            };
            let Some(value) = value else { break };
            self.rests_on(&snapshot, &mut depends);
            log.saw(purse, &*value);
            seen += 1;
            if self.rng.u8(..8) == 0 {
                let pause = self.rng.u64(..2_000);
                self.world.clock.sleep(pause).await;
            }
        }
        if seen == 0 && wrong.is_empty() {
            log.aborted();
            return;
        }
        let number = log.committed(depends.receipts(), false);
        self.world.recorder.lock().ledger.wrong_unless_lost(number, wrong);
    }

    /// What copies say is stable; what this peer's own group says may be lost.
    pub(crate) fn rests_on(&self, snapshot: &Snapshot<crate::host::SimHost>, depends: &mut Depends) {
        if snapshot.reads_own_group() {
            depends.on(&self.host);
        }
    }
}
