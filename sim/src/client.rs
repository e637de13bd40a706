//! The clients: how they run ordinary closures through the same session as in a live mesh, and follow what becomes of it.
//!
//! What they do is in `workloads`; this file refuses to know it.

use crate::dumping::Dump;
use crate::game::{Pouch, Purse};
use crate::history::{Recorder, TxnLog};
use crate::host::{Clock, SimHost};
use crate::name_watchers::NameWatches;
use crate::options::Options;
use crate::watchers::Watches;
use crate::workloads::Grounds;
use crate::workloads::names::Names;
use driftmesh_model::{Micros, ObjectId, Ref};
use driftmesh_peer::session::{Error, Fates, Isolation, Options as TxnOptions, Result, Tx, transact};
use driftmesh_peer::{Cause, Committed};
use fastrand::Rng;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What all clients of a run share.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) clock: Arc<Clock>,
    pub(crate) recorder: Recorder,
    pub(crate) purses: Arc<[Ref<Purse>]>,
    pub(crate) options: Arc<Options>,
    pub(crate) names: Names,
    /// What the workloads of this seed have made.
    pub(crate) grounds: Arc<Grounds>,
    pub(crate) watches: Watches,
    pub(crate) name_watches: NameWatches,
    /// What is dumped for outside judges, if anything.
    pub(crate) dump: Option<Dump>,
    pub(crate) gold: u64,
    pub(crate) items: usize,
}

/// One client at one peer.
pub(crate) struct Client {
    pub(crate) host: SimHost,
    pub(crate) world: World,
    pub(crate) rng: Rng,
    pub(crate) session: u32,
    /// What becomes of its commits, by their numbers in the ledger.
    pub(crate) fates: Fates<SimHost, usize>,
    /// What it does counts for the check that everything ends well.
    pub(crate) sane: bool,
}

/// What a transaction came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Came {
    Committed,
    Rejected,
    /// Its deadline passed, or it could not begin.
    Nothing,
}

pub(crate) type SimTx = Tx<SimHost>;

/// The objects on which attempts of one transaction ended with a conflict.
#[derive(Clone, Default)]
struct Conflicts(Arc<Mutex<BTreeSet<ObjectId>>>);

impl Conflicts {
    /// Notes a conflict; says whether there was one on this object before.
    fn met_before(&self, object: ObjectId) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(object)
    }
}

/// A pause in the middle of a transaction, of so many us.
#[derive(Clone, Copy)]
pub(crate) struct Think(pub(crate) u64);

impl Think {
    pub(crate) async fn pause(self, world: &World) {
        if self.0 > 0 {
            world.clock.sleep(self.0).await;
        }
    }
}

impl Client {
    /// Works until so many transactions were begun by all clients together.
    pub(crate) async fn work(mut self, until: u64) {
        loop {
            if self.world.recorder.lock().begun >= until {
                return;
            }
            self.one().await;
            let pause = self.rng.u64(0..self.world.options.pace_us);
            self.world.clock.sleep(pause).await;
        }
    }

    pub(crate) fn purse(&mut self) -> Ref<Purse> {
        let options = &self.world.options;
        let bound = if self.rng.u8(..10) < 8 { options.hot_purses } else { options.purses };
        self.world.purses[self.rng.usize(..bound)]
    }

    pub(crate) fn think(&mut self) -> Think {
        if self.rng.u8(..100) < self.world.options.think_percent { Think(self.rng.u64(1..20_000)) } else { Think(0) }
    }

    /// Runs one transaction and records it.
    pub(crate) async fn run<F, Fut>(&mut self, kind: &str, body: F) -> Came
    where
        F: FnMut(SimTx, TxnLog) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        self.run_isolated(kind, Isolation::Snapshot, body).await
    }

    pub(crate) async fn run_isolated<F, Fut>(&mut self, kind: &str, isolation: Isolation, body: F) -> Came
    where
        F: FnMut(SimTx, TxnLog) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        match self.run_with_receipt(kind, isolation, body).await {
            Ok(_) => Came::Committed,
            Err(came) => came,
        }
    }

    /// Runs one transaction and records it; returns what its closure returned, and its receipt.
    pub(crate) async fn run_for<R, F, Fut>(
        &mut self,
        kind: &str,
        isolation: Isolation,
        mut body: F,
    ) -> Result<(R, Committed, usize), Came>
    where
        F: FnMut(SimTx, TxnLog) -> Fut,
        Fut: Future<Output = Result<R>>,
    {
        let returned = Mutex::new(None);
        let slot = &returned;
        let done = self.run_with_receipt(kind, isolation, |tx, log| {
            let attempt = body(tx, log);
            async move {
                let value = attempt.await?;
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
                Ok(())
            }
        });
        let (committed, number) = done.await?;
        let returned = returned.into_inner().unwrap_or_else(PoisonError::into_inner);
        returned.map(|returned| (returned, committed, number)).ok_or(Came::Nothing)
    }

    /// Runs one transaction and records it; returns its receipt.
    pub(crate) async fn run_with_receipt<F, Fut>(
        &mut self,
        kind: &str,
        isolation: Isolation,
        mut body: F,
    ) -> Result<(Committed, usize), Came>
    where
        F: FnMut(SimTx, TxnLog) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let log = self.world.recorder.transaction(self.session, kind);
        if isolation == Isolation::Serializable {
            log.serializable();
        }
        let options = TxnOptions { deadline: Micros::from_millis(5_000), isolation, ..TxnOptions::new(kind) };
        let attempts = log.clone();
        let conflicts = Conflicts::default();
        let result = transact(self.host.clone(), options, |tx| {
            let attempt = body(tx, attempts.attempt());
            let (conflicts, recorder) = (conflicts.clone(), self.world.recorder.clone());
            async move {
                let result = attempt.await;
                if let Err(Error::AttemptEnded { cause: Cause::Conflict { object, .. }, .. }) = &result
                    && conflicts.met_before(*object)
                {
                    // R15: a retry can fail only on an object it had not met before.
                    recorder.violation(format!("a transaction was told twice of a conflict on object {object}"));
                }
                result
            }
        })
        .await;
        if let Err(error) = &result {
            log.aborted();
            if !matches!(error, Error::Deadline { .. }) {
                log.told();
            }
        }
        match result {
            Ok(done) => {
                let wrote = log.wrote_anything();
                let number = log.committed(vec![done.committed.receipt], done.committed.stable);
                self.follow(&done.committed, number, wrote, kind);
                return Ok((done.committed, number));
            }
            Err(Error::Rejected(_)) => return Err(Came::Rejected),
            Err(Error::Dangling { object }) => self.dangling(object, kind),
            Err(Error::Deadline { .. }) => {
                if self.sane {
                    self.world.recorder.lock().expired += 1;
                }
            }
            Err(Error::Leaving | Error::Busy(_)) => {}
            Err(Error::NoRoom(_)) if self.world.options.room_bytes.is_some() => {}
            // R18: only a clock that is wrong may be told so.
            Err(Error::ClockOff { .. }) if !self.sane => {}
            Err(other) => {
                self.world.recorder.violation(format!("`{kind}` ended with an error that nothing explains: {other}"));
            }
        }
        Err(Came::Nothing)
    }

    /// Follows what becomes of a commit, and hears what became of others.
    fn follow(&mut self, committed: &Committed, number: usize, wrote: bool, kind: &str) {
        while let Some(settled) = self.fates.try_next() {
            self.world.recorder.lock().ledger.told(settled.tag, 0, settled.fate.into(), "a stream of fates");
        }
        let group = committed.receipt.group;
        let undecided = self.fates.undecided().find(|told| wrote && told.group != group);
        if let Some(told) = undecided {
            // R6: nothing builds on what may be undone in another journal.
            let told = format!("{told:?}, which its session was told, is not decided");
            self.world.recorder.violation(format!("`{kind}` is committed in group {group}, though {told}"));
        }
        if !committed.stable && self.fates.follow(committed.receipt, number).is_err() {
            self.world.recorder.violation("a stream of fates is full".to_owned());
        }
    }

    /// Purses and items are never deleted.
    fn dangling(&self, object: ObjectId, kind: &str) {
        let purse = self.world.purses.iter().any(|purse| purse.id() == object);
        if purse {
            self.world.recorder.violation(format!("`{kind}` was told that purse {object} does not exist"));
        }
    }

    /// R18: a peer whose clock is wrong, and knows others, begins nothing.
    pub(crate) async fn stays_out(&mut self) {
        let log = self.world.recorder.transaction(self.session, "stay out");
        let created = transact(self.host.clone(), TxnOptions::new("stay out"), |tx| async move {
            tx.create(&Pouch { token: 0, gold: 0 })
        });
        let created = created.await;
        log.aborted();
        if !matches!(created, Err(Error::ClockOff { .. })) {
            let text = format!("a peer whose clock is ten minutes ahead was not told so: {:?}", created.map(|_| ()));
            self.world.recorder.violation(text);
        }
    }
}
