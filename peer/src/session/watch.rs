//! Watching one object: a handle that is told its newest stable version since it was told last.

use super::error::{Error, Result};
use super::host::Host;
use super::tx::decode_shared;
use crate::watching::Sighting;
use driftmesh_model::{GroupId, Object, ObjectId, Ref, Timestamp, TxnId};
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Poll;

/// What is new of a watched object.
#[derive(Debug)]
pub enum Watched<T> {
    /// Its newest stable version.
    Version {
        /// The value.
        value: Arc<T>,
        /// When it was committed: climbs from one to the next.
        commit: Timestamp,
    },
    /// It is deleted.
    Deleted {
        /// When.
        commit: Timestamp,
    },
    /// It is nowhere in the mesh: it never was, or its creation was never stable.
    Missing,
    /// It was lost with its group, which an operator gave up.
    Lost {
        /// The group.
        group: GroupId,
    },
}

/// The watchers of one handle, of any number of objects. They end with it.
pub(super) struct Watcher<H: Host> {
    host: H,
    id: TxnId,
}

impl<H: Host> Watcher<H> {
    pub(super) fn begin(host: H) -> Result<Self> {
        let id = host.step(|peer, _| peer.begin_watching()).ok_or(Error::TooManyWatches)?;
        Ok(Self { host, id })
    }

    pub(super) fn add(&self, object: ObjectId) -> Result<()> {
        let id = self.id;
        let has_room = self.host.step(|peer, now| peer.watch(now, id, object));
        if has_room { Ok(()) } else { Err(Error::TooManyWatches) }
    }

    pub(super) fn remove(&self, object: ObjectId) {
        let id = self.id;
        self.host.step(|peer, now| peer.unwatch(now, id, object));
    }

    pub(super) fn try_next(&self) -> Option<(ObjectId, Sighting)> {
        let id = self.id;
        self.host.step(|peer, _| peer.take_sighting(id))
    }

    /// What was given out last of an object, if nothing is newer.
    pub(super) fn told_last(&self, object: ObjectId) -> Option<Sighting> {
        let id = self.id;
        self.host.step(|peer, _| peer.told_last(id, object))
    }

    /// Cancel safe: what was not given out stays.
    pub(super) async fn next(&self) -> (ObjectId, Sighting) {
        let id = self.id;
        poll_fn(|context| {
            self.host.poll_step(id, context, |peer, _| match peer.await_sighting(id) {
                Some(sighting) => Poll::Ready(sighting),
                None => Poll::Pending,
            })
        })
        .await
    }
}

impl<H: Host> Drop for Watcher<H> {
    fn drop(&mut self) {
        let id = self.id;
        self.host.step(|peer, now| peer.end_watching(now, id));
    }
}

pub(super) fn seen_as<T: Object>(object: ObjectId, sighting: Sighting) -> Result<Watched<T>> {
    Ok(match sighting {
        Sighting::Version { commit, value: Some(value) } => {
            Watched::Version { value: decode_shared(object, &value)?, commit }
        }
        Sighting::Version { commit, value: None } => Watched::Deleted { commit },
        Sighting::Missing => Watched::Missing,
        Sighting::Lost { group } => Watched::Lost { group },
    })
}

/// Watches one object, wherever it is and goes. Each call gives the newest stable version since the last one; versions in
/// between may be passed over, the last one never. What was told is never taken back by a crash. Dropping the handle
/// ends it.
pub struct Watch<H: Host, T> {
    watcher: Watcher<H>,
    reference: Ref<T>,
    object_type: PhantomData<fn() -> T>,
}

impl<H: Host, T> std::fmt::Debug for Watch<H, T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watch").field("object", &self.reference.id()).finish_non_exhaustive()
    }
}

impl<H: Host, T: Object> Watch<H, T> {
    /// Begins to watch. The first thing told is the version that there is.
    ///
    /// # Errors
    /// `TooManyWatches`.
    pub fn begin(host: H, reference: Ref<T>) -> Result<Self> {
        let watcher = Watcher::begin(host)?;
        watcher.add(reference.id())?;
        Ok(Self { watcher, reference, object_type: PhantomData })
    }

    /// The object.
    #[must_use]
    pub const fn reference(&self) -> Ref<T> {
        self.reference
    }

    /// What is new since the last call, if anything is known to be. Never waits, beyond the end of another's step of the
    /// core: for a loop that runs once a frame.
    ///
    /// # Errors
    /// `Object` when the value is not a `T`. The watch goes on.
    pub fn try_next(&mut self) -> Result<Option<Watched<T>>> {
        self.watcher.try_next().map(|(object, sighting)| seen_as(object, sighting)).transpose()
    }

    /// Waits for what is new since the last call. Cancel safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// `Object` when the value is not a `T`. The watch goes on.
    pub async fn next(&mut self) -> Result<Watched<T>> {
        let (object, sighting) = self.watcher.next().await;
        seen_as(object, sighting)
    }
}
