//! A long read-only snapshot: the whole mesh as it was at one timestamp.

use super::error::{Error, Result};
use super::host::Host;
use super::reads::Told;
use super::tx::{decode_shared, read_all};
use crate::Peer;
use crate::message::ScanPage;
use crate::recent::Recent;
use crate::steps::{Begin, StepError, Stepped, ValueRead};
use driftmesh_model::limits::DEADLINE_MAX;
use driftmesh_model::{Now, Object, ObjectId, PeerId, Ref, Timestamp, TxnId, Value};
use driftmesh_txn::{Cause, TaskKind};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

/// Reads at one timestamp, over all peers, without locks. Open for 60 s at most; owners keep the versions it needs
/// within their byte budget. Causal: it sees all that reached this peer before it was taken.
pub struct Snapshot<H: Host> {
    host: H,
    id: TxnId,
    timestamp: Timestamp,
    /// The session that it belongs to, if it may lie in the past: it is told what is read.
    told: Option<Told>,
    /// Whether anything was shown: then it stays where it is.
    has_shown: AtomicBool,
}

/// What a session was told by a read: the commit of the newest version shown.
trait Newest {
    fn newest(&self) -> Timestamp;
}

impl Newest for ValueRead {
    fn newest(&self) -> Timestamp {
        self.commit
    }
}

impl Newest for Vec<ValueRead> {
    fn newest(&self) -> Timestamp {
        self.iter().map(|read| read.commit).max().unwrap_or_default()
    }
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
        Self::take_at(host, kind, None, None)
    }

    /// Takes a snapshot that may lie a little in the past.
    pub(super) fn take_recent(host: H, kind: &str, recent: Recent, told: Told) -> Result<Self> {
        Self::take_at(host, kind, Some(recent), Some(told))
    }

    fn take_at(host: H, kind: &str, recent: Option<Recent>, told: Option<Told>) -> Result<Self> {
        let begin =
            Begin { kind: TaskKind::new(kind), deadline: DEADLINE_MAX, age: None, read_only: true, recent, task: None };
        let begun = host.step(|peer, now| {
            let id = peer.begin(now, begin)?;
            Ok((id, peer.snapshot_of(id).unwrap_or_default()))
        });
        let (id, timestamp) = begun.map_err(Error::of_begin)?;
        Ok(Self { host, id, timestamp, told, has_shown: AtomicBool::new(false) })
    }

    /// The timestamp it reads at. Of a recent one that met an object which is newer it may rise until something was read.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        if self.told.is_none() {
            return self.timestamp;
        }
        let id = self.id;
        self.host.step(|peer, _| peer.snapshot_of(id)).unwrap_or(self.timestamp)
    }

    /// Whether anything that it was told rests on what this peer's own group has not made stable. For tests.
    #[doc(hidden)]
    #[must_use]
    pub fn reads_own_group(&self) -> bool {
        let id = self.id;
        self.host.step(|peer, _| peer.has_read_here(id))
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
        Ok(self.reads(|peer, now, id| peer.read(now, id, object)).await?.value)
    }

    /// Takes a step that reads, until it answers. A recent snapshot that comes too early for the first thing it meets is
    /// taken anew.
    async fn reads<R: Newest>(&self, mut step: impl FnMut(&mut Peer, Now, TxnId) -> Stepped<R>) -> Result<R> {
        let id = self.id;
        loop {
            let read = poll_fn(|context| self.host.poll_step(id, context, |peer, now| step(peer, now, id))).await;
            match read {
                Ok(read) => {
                    if let Some(told) = &self.told {
                        self.has_shown.store(true, Ordering::Release);
                        told.raise(read.newest());
                    }
                    return Ok(read);
                }
                Err(StepError::Failed(Cause::CreatedLater { .. } | Cause::SnapshotTooOld { .. })) if self.renew() => {}
                Err(error) => return Err(self.error_of(error)),
            }
        }
    }

    fn renew(&self) -> bool {
        let id = self.id;
        let may = self.told.is_some() && !self.has_shown.load(Ordering::Acquire);
        may && self.host.step(|peer, now| peer.renew_snapshot(now, id))
    }

    /// The encoded values of objects; those that are elsewhere cost one round together.
    pub(super) async fn values(&self, objects: &[ObjectId]) -> Result<Vec<Option<Value>>> {
        let reads = self.reads(|peer, now, id| read_all(peer, now, id, objects)).await?;
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
                    | Cause::UsedElsewhere { .. }
                    | Cause::Unavailable { .. }
                    | Cause::ClockAhead { .. }
                    | Cause::Deposed { .. }) => Error::SnapshotRead(other),
                }
            }
            StepError::Missing(object) => Error::missing(&self.host, object),
            StepError::TooManyObjects => Error::TooManyObjects,
            StepError::NoRoom(_)
            | StepError::Expired
            | StepError::Ended
            | StepError::NotIntended(_)
            | StepError::ReadOnly => Error::SnapshotExpired,
            StepError::Busy => Error::Busy(StepError::Busy),
            StepError::Leaving => Error::Leaving,
            StepError::Superseded => Error::Superseded,
            StepError::ClockOff { ahead_ms } => Error::ClockOff { ahead_ms },
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
