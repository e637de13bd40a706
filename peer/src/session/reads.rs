//! A session of read-only transactions that may read a little in the past, where copies at this peer can answer.

use super::error::{Error, Result};
use super::host::Host;
use super::snapshot::Snapshot;
use crate::recent::{Recent, STALENESS};
use crate::steps::Receipt;
use driftmesh_model::{Micros, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a session was told: none of its snapshots lies below. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Told(Arc<AtomicU64>);

impl Told {
    pub(super) fn raise(&self, to: Timestamp) {
        self.0.fetch_max(to.as_u64(), Ordering::AcqRel);
    }

    fn get(&self) -> Timestamp {
        Timestamp::from_u64(self.0.load(Ordering::Acquire))
    }
}

/// Read-only transactions of one session. Their snapshots are at most 50 ms old unless set otherwise, so that copies can
/// answer: those that this peer follows or is subscribed to. What no copy can answer is asked of its owner.
///
/// A session never goes back: each snapshot sees everything that former ones showed, everything that this peer committed
/// or read before the session began, and whatever the session was told since ([`Reads::saw`]). Clones are the same
/// session. Make one for each player or view, not one for everything: what one was told keeps the others from reading
/// older copies.
#[derive(Clone)]
pub struct Reads<H: Host> {
    host: H,
    told: Told,
    staleness: Micros,
}

impl<H: Host> std::fmt::Debug for Reads<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reads").field("not_before", &self.told.get()).finish_non_exhaustive()
    }
}

impl<H: Host> Reads<H> {
    /// Begins a session, which knows of everything that happened at this peer so far.
    pub fn begin(host: H) -> Self {
        let now = host.step(|peer, now| peer.clock_now(now));
        Self { host, told: Told(Arc::new(AtomicU64::new(now.as_u64()))), staleness: STALENESS }
    }

    /// The same session, with snapshots so old at most, by this peer's clock: 50 ms unless set. With zero each snapshot is
    /// as of now, and only what this peer owns is read without a message.
    #[must_use]
    pub fn staleness(mut self, at_most: Micros) -> Self {
        self.staleness = at_most;
        self
    }

    /// Takes a snapshot: the newest that all copies in use here can answer, of those that are recent enough.
    ///
    /// # Errors
    /// `Busy`, `Leaving`, `ClockOff`.
    pub fn snapshot(&self) -> Result<Snapshot<H>> {
        let recent = Recent { not_before: self.told.get(), staleness: self.staleness };
        Snapshot::take_recent(self.host.clone(), "recent snapshot", recent, self.told.clone())
    }

    /// From now on the session sees what was committed with this receipt, here or anywhere.
    pub fn saw(&self, receipt: &Receipt) {
        self.told.raise(receipt.commit);
    }

    /// What the session has been told so far: for a session elsewhere that goes on with it.
    #[must_use]
    pub fn told(&self) -> Timestamp {
        self.told.get()
    }

    /// From now on the session sees all that another one had been told, at this peer or elsewhere.
    ///
    /// # Errors
    /// `ClockOff` when that lies more than 500 ms ahead of this peer's clock.
    pub fn go_on_from(&self, told: Timestamp) -> Result<()> {
        let checked = self.host.step(|peer, now| peer.check_told(now, told));
        checked.map_err(Error::of_begin)?;
        self.told.raise(told);
        Ok(())
    }
}
