//! One snapshot, and the record of what was read at it.
//!
//! What was read of a leader that was deposed may be no part of the mesh after all: what is wrong counts unless one of
//! the receipts is lost that the snapshot rests on. It refuses to know what the values mean.

use crate::client::Client;
use crate::game::Marked;
use crate::history::{Recorder, TxnLog};
use crate::host::SimHost;
use crate::ledger::Depends;
use driftmesh_model::{Object, Ref};
use driftmesh_peer::session::{Error, Snapshot};
use std::sync::Arc;

/// A snapshot that is read.
pub(crate) struct Look {
    snapshot: Snapshot<SimHost>,
    host: SimHost,
    recorder: Recorder,
    log: TxnLog,
    depends: Depends,
    wrong: Vec<String>,
    has_seen: bool,
}

impl Client {
    /// Takes a snapshot of the present, which counts as a transaction; `None` when none can begin here.
    pub(crate) fn look(&self, kind: &str) -> Option<Look> {
        let log = self.world.recorder.transaction(self.session, kind);
        match Snapshot::take(self.host.clone(), kind) {
            Ok(snapshot) => Some(self.look_at(snapshot, log)),
            Err(_) => {
                log.aborted();
                None
            }
        }
    }

    /// Reads at a snapshot that was taken elsewhere.
    pub(crate) fn look_at(&self, snapshot: Snapshot<SimHost>, log: TxnLog) -> Look {
        Look {
            snapshot,
            host: self.host.clone(),
            recorder: self.world.recorder.clone(),
            log,
            depends: Depends::default(),
            wrong: Vec::new(),
            has_seen: false,
        }
    }
}

impl Look {
    /// Reads an object of those that were there when the clients began. A client learns of these without a message: a
    /// snapshot may lie before their creation.
    pub(crate) async fn first_sees<T: Marked>(&mut self, reference: Ref<T>) -> Option<Arc<T>> {
        match self.snapshot.get(reference).await {
            Err(Error::CreatedLater { .. }) => None,
            other => self.note(reference, other),
        }
    }

    /// Reads an object that another one refers to, which is seen already: it exists.
    pub(crate) async fn sees<T: Marked>(&mut self, reference: Ref<T>) -> Option<Arc<T>> {
        let read = self.snapshot.get(reference).await;
        self.note(reference, read)
    }

    /// A read may be too old or unavailable for now, but it finds what it must find.
    fn note<T: Marked>(&mut self, reference: Ref<T>, read: Result<Arc<T>, Error>) -> Option<Arc<T>> {
        match read {
            Ok(value) => {
                // What copies say is stable; what this peer's own group says may be lost.
                if self.snapshot.reads_own_group() {
                    self.depends.on(&self.host);
                }
                self.log.saw(reference, &*value);
                self.has_seen = true;
                Some(value)
            }
            Err(Error::Dangling { object } | Error::CreatedLater { object }) => {
                self.wrong(format!("refers to object {object}, which it does not see"));
                None
            }
            Err(_) => None,
        }
    }

    /// Reads an object that tasks change, whose reads are in no history; `None` if that cannot be read for now.
    pub(crate) async fn sees_of_tasks<T: Object>(&mut self, reference: Ref<T>) -> Option<Arc<T>> {
        let value = self.snapshot.get(reference).await.ok()?;
        if self.snapshot.reads_own_group() {
            self.depends.on(&self.host);
        }
        self.has_seen = true;
        Some(value)
    }

    /// Reads many of them; `None` if any cannot be read.
    pub(crate) async fn see_all_of_tasks<T: Object + Clone>(&mut self, references: &[Ref<T>]) -> Option<Vec<T>> {
        let mut all = Vec::with_capacity(references.len());
        for reference in references {
            all.push(T::clone(&*self.sees_of_tasks(*reference).await?));
        }
        Some(all)
    }

    /// The snapshot shows something that cannot be.
    pub(crate) fn wrong(&mut self, text: impl std::fmt::Display) {
        self.wrong.push(format!("a snapshot at {} {text}", self.snapshot.timestamp()));
    }

    /// Whether anything that cannot be was seen.
    pub(crate) fn is_wrong(&self) -> bool {
        !self.wrong.is_empty()
    }

    /// It came to nothing, and is no part of the history.
    pub(crate) fn forget(self) {
        self.log.aborted();
    }

    /// Records what was read. Returns its number in the ledger, if anything was.
    pub(crate) fn end(self) -> Option<usize> {
        if !self.has_seen && self.wrong.is_empty() {
            self.forget();
            return None;
        }
        let Self { log, depends, wrong, recorder, .. } = self;
        let number = log.committed(depends.receipts(), false);
        recorder.lock().ledger.wrong_unless_lost(number, wrong);
        Some(number)
    }
}
