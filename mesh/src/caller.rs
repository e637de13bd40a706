//! One caller among several at a peer: it has so much under way at most, and leaves room for the others.
//!
//! It refuses early, before anything of a call is begun, and lets a call wait for another one of the same caller only where it
//! may rest on an answer of that one which is not certain.

use crate::doubt::Doubts;
use crate::{Error, Mesh, Result, Submit, Task, TaskError, Tx};
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many tasks of a batch are under way at once: as many as another peer runs of one.
const BATCH_AT_ONCE: usize = driftmesh_peer::TASKS_RUNNING_PER_PEER_MAX;

/// What is kept of one caller: how much it may have under way, and what it was told that may not stay.
#[derive(Debug)]
pub(crate) struct Seat {
    most: usize,
    under_way: AtomicUsize,
    doubts: Doubts,
}

/// The room that one call takes, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Taken(Arc<Seat>);

impl Seat {
    fn new(most: usize) -> Self {
        Self { most, under_way: AtomicUsize::new(0), doubts: Doubts::default() }
    }

    /// Takes a place; `None` if there is none.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Taken> {
        let one_more = |under_way: usize| (under_way < self.most).then_some(under_way + 1);
        let taken = self.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.ok().map(|_| Taken(Arc::clone(self)))
    }

    /// How many calls it has room for.
    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    /// What it was told that may not stay.
    pub(crate) const fn doubts(&self) -> &Doubts {
        &self.doubts
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of several callers at this peer, such as a player's connection: what it calls beyond its share is refused at once,
/// so that it cannot take the room of others. Clones share the share.
#[derive(Clone, Debug)]
pub struct Caller {
    mesh: Mesh,
    pub(crate) seat: Arc<Seat>,
}

impl Caller {
    /// As [`Mesh::transact`].
    ///
    /// # Errors
    /// As [`Mesh::transact`]; `CallerBusy` when this caller has as much under way as it may, `ToldOtherwise` when something
    /// that it was told by [`Caller::provisional`] did not stay or is not certain in time. Nothing was begun then.
    pub fn transact<T, F, Fut>(&self, body: F) -> impl Future<Output = Result<T>> + use<T, F, Fut>
    where
        F: FnMut(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let taken = self.seat.take().ok_or(Error::CallerBusy { most: self.seat.most });
        let (doubts, host) = (self.seat.doubts.clone(), self.mesh.host.clone());
        let transaction = self.mesh.transact(body);
        async move {
            let _taken = taken?;
            // As long as the transaction may take then.
            let deadline = Duration::from_micros(host.shared.default_options.deadline.0);
            let settled = doubts.settled_before(host.shared.sleep(deadline)).await;
            settled.map_err(|name| Error::ToldOtherwise { name: name.to_owned() })?;
            transaction.await
        }
    }

    /// As [`Mesh::submit`]; awaited, it ends with `CallerBusy` when this caller has as much under way as it may, and with
    /// `ToldOtherwise` when something that it was told by [`Caller::provisional`] did not stay.
    pub fn submit<T: Task>(&self, task: T) -> Submit<T> {
        self.mesh.submit(task).of_caller(Arc::clone(&self.seat))
    }

    /// How many transactions and tasks it has under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.seat.under_way.load(Ordering::Relaxed)
    }

    /// The peer.
    #[must_use]
    pub const fn mesh(&self) -> &Mesh {
        &self.mesh
    }
}

impl Mesh {
    /// One of several callers at this peer, with so many transactions and tasks under way at most, one at least.
    #[must_use]
    pub fn caller(&self, most: usize) -> Caller {
        Caller { mesh: self.clone(), seat: Arc::new(Seat::new(most.max(1))) }
    }

    /// Submits many tasks, 256 of them at once, each as [`Mesh::submit`] does: they take effect one by one, in no order.
    /// Returns how each ended, in the order of the tasks.
    ///
    /// Cancel safe: dropped before it is ready, each task takes effect once or not at all.
    pub async fn submit_all<T: Task>(&self, tasks: impl IntoIterator<Item = T>) -> Vec<Result<T::Output, TaskError>> {
        let submitted: Vec<_> = tasks.into_iter().map(|task| self.submit(task).into_future()).collect();
        futures::stream::iter(submitted).buffered(BATCH_AT_ONCE).collect().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_makes_room() {
        let seat = Arc::new(Seat::new(2));
        let taken = [seat.take(), seat.take()];
        assert!(taken.iter().all(Option::is_some) && seat.take().is_none());
        drop(taken);
        assert!(seat.take().is_some());
    }
}
