//! A long read-only snapshot: the whole mesh as it was at one timestamp.

use super::error::{Error, Result};
use super::host::Host;
use super::tx::{decode_shared, read_all};
use crate::message::ScanPage;
use crate::steps::{Begin, StepError};
use driftmesh_model::limits::DEADLINE_MAX;
use driftmesh_model::{Object, ObjectId, PeerId, Ref, Timestamp, TxnId, Value};
use driftmesh_txn::{Cause, TaskKind};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

/// Reads at one timestamp, over all peers, without locks. Open for 60 s at most; owners keep the versions it needs
/// within their byte budget. Causal: it sees all that reached this peer before it was taken.
pub struct Snapshot<H: Host> {
    host: H,
    id: TxnId,
    timestamp: Timestamp,
}

impl<H: Host> std::fmt::Debug for Snapshot<H> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Snapshot").field("timestamp", &self.timestamp).finish()
    }
}

impl<H: Host> Snapshot<H> {
    /// Takes a snapshot now.
    ///
    /// # Errors
    /// `Busy`, `Leaving`, `ClockOff`.
    pub fn take(host: H, kind: &str) -> Result<Self> {
        let begin = Begin { kind: TaskKind::new(kind), deadline: DEADLINE_MAX, age: None, read_only: true };
        let begun = host.step(|peer, now| {
            let id = peer.begin(now, begin)?;
            Ok((id, peer.snapshot_of(id).unwrap_or_default()))
        });
        let (id, timestamp) = begun.map_err(Error::of_begin)?;
        Ok(Self { host, id, timestamp })
    }

    /// The timestamp it reads at.
    #[must_use]
    pub const fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Reads an object. Cancel safe.
    ///
    /// # Errors
    /// `Dangling` or `ObjectLost`, a wrong type, `SnapshotTooOld`, `SnapshotExpired`, or `SnapshotRead` (worth another try).
    pub async fn get<T: Object>(&self, reference: Ref<T>) -> Result<Arc<T>> {
        let object = reference.id();
        let value = self.value(object).await?.ok_or_else(|| Error::missing(&self.host, object))?;
        decode_shared(object, &value)
    }

    /// Reads an object's encoded value; `None` where it does not exist.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub async fn value(&self, object: ObjectId) -> Result<Option<Value>> {
        let id = self.id;
        let read = poll_fn(|context| self.host.poll_step(id, context, |peer, now| peer.read(now, id, object))).await;
        Ok(read.map_err(|error| self.error_of(error))?.value)
    }

    /// The encoded values of objects; those that are elsewhere cost one round together.
    pub(super) async fn values(&self, objects: &[ObjectId]) -> Result<Vec<Option<Value>>> {
        let id = self.id;
        let reads = poll_fn(|context| self.host.poll_step(id, context, |peer, now| read_all(peer, now, id, objects)));
        let reads = reads.await.map_err(|error| self.error_of(error))?;
        Ok(reads.into_iter().map(|read| read.value).collect())
    }

    fn error_of(&self, error: StepError) -> Error {
        match error {
            StepError::Failed(cause) => {
                self.reopen();
                match cause {
                    Cause::CreatedLater { object } => Error::CreatedLater { object },
                    Cause::SnapshotTooOld { object } => Error::SnapshotTooOld { object },
                    other @ (Cause::Wounded { .. }
                    | Cause::Conflict { .. }
                    | Cause::Waited { .. }
                    | Cause::Unavailable { .. }
                    | Cause::ClockAhead { .. }
                    | Cause::Deposed { .. }) => Error::SnapshotRead(other),
                }
            }
            StepError::Missing(object) => Error::missing(&self.host, object),
            StepError::TooManyObjects => Error::TooManyObjects,
            StepError::Expired
            | StepError::Ended
            | StepError::NotIntended(_)
            | StepError::ReadOnly
            | StepError::Busy
            | StepError::ClockOff { .. }
            | StepError::Leaving => Error::SnapshotExpired,
        }
    }

    /// A failed read does not end the snapshot: it reads on at the same timestamp.
    fn reopen(&self) {
        let id = self.id;
        self.host.step(|peer, now| peer.reopen_snapshot(now, id));
    }

    /// One page of everything that a peer owns. Begin at cursor 0. Cancel safe.
    ///
    /// # Errors
    /// `PeerUnreachable`.
    pub async fn scan(&self, owner: PeerId, cursor: u64) -> Result<ScanPage> {
        let id = self.id;
        poll_fn(|context| {
            self.host.poll_step(id, context, |peer, now| match peer.scan(now, id, owner, cursor) {
                Poll::Ready(Some(page)) => Poll::Ready(Ok(page)),
                Poll::Ready(None) => Poll::Ready(Err(Error::PeerUnreachable(owner))),
                Poll::Pending => Poll::Pending,
            })
        })
        .await
    }
}

impl<H: Host> Drop for Snapshot<H> {
    fn drop(&mut self) {
        let id = self.id;
        self.host.step(|peer, now| peer.end(now, id));
    }
}
