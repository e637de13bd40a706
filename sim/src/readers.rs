//! Clients that only read, at snapshots a little in the past: what copies answer is judged like everything else.
//!
//! Each is a session of its own. They refuse to write, and end with the other clients.

use crate::client::Client;
use crate::host::SimHost;
use crate::ledger::Depends;
use driftmesh_model::Micros;
use driftmesh_peer::session::{Reads, Snapshot};

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
    async fn count_recently(&mut self, reads: &Reads<SimHost>) {
        let Ok(snapshot) = reads.snapshot() else { return };
        let log = self.world.recorder.observation(self.session, "count recently");
        let mut look = self.look_at(snapshot, log);
        let counted = self.count(&mut look, None).await;
        if counted.is_none() && !look.is_wrong() {
            look.forget();
        } else {
            look.end();
        }
    }

    /// Looks at a few purses at one recent snapshot.
    async fn glance(&mut self, reads: &Reads<SimHost>) {
        let Ok(snapshot) = reads.snapshot() else { return };
        let log = self.world.recorder.observation(self.session, "glance");
        let mut look = self.look_at(snapshot, log);
        for _ in 0..self.rng.usize(1..=4) {
            let purse = self.purse();
            if look.first_sees(purse).await.is_none() {
                break;
            }
            if self.rng.u8(..8) == 0 {
                let pause = self.rng.u64(..2_000);
                self.world.clock.sleep(pause).await;
            }
        }
        look.end();
    }

    /// What copies say is stable; what this peer's own group says may be lost.
    pub(crate) fn rests_on(&self, snapshot: &Snapshot<SimHost>, depends: &mut Depends) {
        if snapshot.reads_own_group() {
            depends.on(&self.host);
        }
    }
}
