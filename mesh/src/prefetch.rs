//! Fetching objects before they are needed: the ordinary machinery of transactions, in the background.
//!
//! It refuses to promise anything: what was fetched may have left again, and what fails is given up without a word.

use crate::host::{LiveHost, Shared};
use crate::{Error, Mesh};
use driftmesh_model::{Micros, ObjectId};
use driftmesh_peer::session::{self, Options};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Most objects that wait to be prefetched by one peer (R24).
pub const PREFETCH_MAX: usize = 65_536;
/// Objects fetched in one round. Their transaction holds those that have come until the last has.
const BATCH: usize = 64;
/// Objects looked at in one step of the core.
const LOOKED_AT_PER_STEP: usize = 1_024;
/// How long a batch may take. Shorter than an ordinary deadline: nobody waits for it, but others may because of it.
const BATCH_DEADLINE: Micros = Micros::from_millis(2_000);

/// Too many objects wait to be prefetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("at most {PREFETCH_MAX} objects can wait to be prefetched by a peer; name fewer, or wait until some have come")]
pub struct PrefetchBusy;

/// The objects that wait; they stop counting one by one, or all when the task is dropped.
struct Reserved {
    shared: Weak<Shared>,
    count: usize,
}

impl Reserved {
    fn release(&mut self, count: usize) {
        self.count -= count;
        if let Some(shared) = self.shared.upgrade() {
            shared.prefetching.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.release(self.count);
    }
}

impl Mesh {
    /// Begins to fetch the *ownership* of objects, and returns at once. Objects that are here already cost nothing.
    ///
    /// The rest come in rounds of 64, each in a background transaction that writes nothing and lets go of its locks
    /// when its objects are here; a transaction that wants one of them meanwhile waits for the round, 2 s at most.
    /// Nothing keeps them here afterwards: another peer that writes them takes them. Objects that do not exist or
    /// cannot be reached in time are left out silently; a transaction that needs them says why. Prefetch what this
    /// peer is about to *write*: for reading alone it would take objects away from those who write them.
    ///
    /// # Errors
    /// [`PrefetchBusy`] when more than 65,536 would wait; nothing was begun then.
    pub fn prefetch(&self, objects: impl IntoIterator<Item = ObjectId>) -> Result<(), PrefetchBusy> {
        let shared = &self.host.shared;
        let mut wanted: Vec<ObjectId> = objects.into_iter().take(PREFETCH_MAX + 1).collect();
        if wanted.len() > PREFETCH_MAX {
            return Err(PrefetchBusy);
        }
        wanted.sort_unstable();
        wanted.dedup();
        let mut elsewhere = Vec::new();
        for slice in wanted.chunks(LOOKED_AT_PER_STEP) {
            let is_elsewhere =
                |peer: &mut driftmesh_peer::Peer, object: &ObjectId| peer.group().owned(*object).is_none();
            shared.step(|peer, _| elsewhere.extend(slice.iter().copied().filter(|object| is_elsewhere(peer, object))));
        }
        let count = elsewhere.len();
        if count == 0 {
            return Ok(());
        }
        let add = |waiting: usize| waiting.checked_add(count).filter(|sum| *sum <= PREFETCH_MAX);
        shared.prefetching.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map_err(|_| PrefetchBusy)?;
        let reserved = Reserved { shared: Arc::downgrade(shared), count };
        shared.spawn(fetch_all(reserved, elsewhere));
        Ok(())
    }
}

async fn fetch_all(mut reserved: Reserved, objects: Vec<ObjectId>) {
    for batch in objects.chunks(BATCH) {
        // Between rounds the task does not keep the peer running.
        let Some(shared) = reserved.shared.upgrade() else { return };
        fetch(LiveHost { shared }, batch.to_vec()).await;
        reserved.release(batch.len());
    }
}

/// One round. What does not exist is left out and the rest tried again, so this ends after as many rounds as objects.
async fn fetch(host: LiveHost, mut batch: Vec<ObjectId>) {
    let options = Options { deadline: BATCH_DEADLINE, ..Options::new("prefetch") };
    loop {
        let wanted = &batch;
        let fetched = session::transact(host.clone(), options.clone(), |tx| async move { tx.acquire(wanted).await });
        match fetched.await {
            Err(Error::Dangling { object } | Error::ObjectLost { object, .. }) if batch.contains(&object) => {
                batch.retain(|other| *other != object)
            }
            Ok(_) | Err(_) => return,
        }
    }
}
