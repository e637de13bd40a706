//! What the session needs from whoever owns the core.

use crate::Peer;
use driftmesh_model::{LookupMap, Now, TxnId};
use std::task::{Context, Poll, Waker};

/// Lends the core for one step, ships the commands that the step produced, and keeps wakers. Cheap to clone.
pub trait Host: Clone + Send + Sync + 'static {
    /// Takes one step.
    fn step<R>(&self, step: impl FnOnce(&mut Peer, Now) -> R) -> R;

    /// Takes one step that needs no time, and either does nothing or causes nothing to be done outside the core: a
    /// host may save the reading of its clock and the look for commands.
    fn step_at_hand<R>(&self, step: impl FnOnce(&mut Peer) -> Option<R>) -> Option<R> {
        self.step(|peer, _| step(peer))
    }

    /// Takes one step of a transaction; if it says "not yet", the waker is kept until the core wakes the
    /// transaction. Keeping it and the step are one atomic act, so no wake is lost.
    fn poll_step<R>(
        &self,
        txn: TxnId,
        context: &mut Context<'_>,
        step: impl FnOnce(&mut Peer, Now) -> Poll<R>,
    ) -> Poll<R>;
}

/// The wakers of parked steps, by transaction. One transaction may wait in several places at once.
#[derive(Debug, Default)]
pub struct Wakers {
    parked: LookupMap<TxnId, Vec<Waker>>,
}

impl Wakers {
    /// Keeps a waker.
    pub fn park(&mut self, txn: TxnId, waker: &Waker) {
        let wakers = self.parked.or_insert_with(txn, Vec::new);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    /// Takes the wakers of a transaction. Wake them after the core is given back.
    #[must_use]
    pub fn take(&mut self, txn: TxnId) -> Vec<Waker> {
        self.parked.remove(&txn).unwrap_or_default()
    }
}
