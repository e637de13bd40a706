//! Between a game loop, which must never wait, and transactions, which may: submit now, look for results each frame.
//!
//! It refuses to run a closure on the caller's thread, and to take on more than a bounded number at once.

use crate::host::LiveHost;
use crate::{Committed, Error, Mesh, Ownership, OwnershipEvent, Result, Transactions, Tx};
use driftmesh_peer::TaskKind;
use driftmesh_peer::session::{self, Options};
use futures::FutureExt;
use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc;

/// Transactions in flight on one bridge, unless [`Bridge::limit`] sets another bound (R24).
pub const BRIDGE_IN_FLIGHT: usize = 1_024;
/// The highest bound that can be set: half of the transactions that may be open at a peer.
pub const BRIDGE_IN_FLIGHT_MAX: usize = 32_768;
/// Most ownership events given out in one frame, so that a frame stays short; the rest come in the next.
const OWNERSHIP_EVENTS_PER_FRAME: usize = 1_024;

/// A transaction that was submitted. Tickets of one bridge count up from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(u64);

/// Too many transactions are in flight on the bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{in_flight} transactions are in flight on this bridge, the most it takes; try again in a later frame")]
pub struct BridgeBusy {
    /// How many are in flight: submitted, and their result not given out yet.
    pub in_flight: usize,
}

/// What happened since the last frame.
#[derive(Debug)]
pub enum BridgeEvent<K, T> {
    /// A submitted transaction has ended.
    Finished {
        /// What `submit` returned.
        ticket: Ticket,
        /// What was given to `submit`.
        tag: K,
        /// What the closure returned, or why it failed: `Panicked` when the closure did. Nothing took effect then, but with
        /// [`Transactions::stable`] see there.
        result: Result<T>,
        /// Its receipt, if it committed, and whether it was stable by then: for [`Mesh::fates`], which a loop can look
        /// at each frame.
        committed: Option<Committed>,
    },
    /// What this peer owns has changed.
    Ownership(OwnershipEvent),
}

/// Runs transactions for a loop that never waits. Tags of type `K` say which transaction a result belongs to; all
/// closures return a `T`, usually an enum of the game.
///
/// Dropping the bridge does not stop what is in flight: it ends as it ends, and nobody is told.
#[derive(Debug)]
pub struct Bridge<K, T> {
    host: LiveHost,
    ownership: Ownership,
    results: mpsc::Receiver<BridgeEvent<K, T>>,
    sender: mpsc::Sender<BridgeEvent<K, T>>,
    in_flight: usize,
    limit: usize,
    submitted: u64,
}

impl Mesh {
    /// A bridge for a loop that must not wait. Ownership events are recorded from now on; to know everything that is
    /// owned, call [`Mesh::owned`] after this and then apply the events.
    ///
    /// # Errors
    /// `TooManySubscriptions`: a peer has at most 64 bridges and subscriptions.
    pub fn bridge<K: Send + 'static, T: Send + 'static>(&self) -> Result<Bridge<K, T>> {
        let (sender, results) = mpsc::channel();
        Ok(Bridge {
            host: self.host.clone(),
            ownership: self.ownership()?,
            results,
            sender,
            in_flight: 0,
            limit: BRIDGE_IN_FLIGHT,
            submitted: 0,
        })
    }
}

impl<K: Send + 'static, T: Send + 'static> Bridge<K, T> {
    /// Takes at most so many transactions at once: 1,024 unless set, at most 32,768.
    #[must_use]
    pub fn limit(mut self, in_flight: usize) -> Self {
        self.limit = in_flight.min(BRIDGE_IN_FLIGHT_MAX);
        self
    }

    /// Submits a transaction, as [`Mesh::transact`] would run it, and returns at once. It runs where the peer runs,
    /// never on the caller's thread, and [`Bridge::events`] tells how it ended.
    ///
    /// # Errors
    /// [`BridgeBusy`]; nothing was begun then.
    pub fn submit<F, Fut>(&mut self, tag: K, body: F) -> Result<Ticket, BridgeBusy>
    where
        F: FnMut(Tx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        let options = self.host.shared.default_options.clone();
        self.begin(tag, options, body)
    }

    /// As [`Bridge::submit`], with the kind and the deadline of a task.
    ///
    /// # Errors
    /// As [`Bridge::submit`].
    pub fn submit_as<F, Fut>(&mut self, task: &Transactions, tag: K, body: F) -> Result<Ticket, BridgeBusy>
    where
        F: FnMut(Tx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        self.begin(tag, task.options().clone(), body)
    }

    fn begin<F, Fut>(&mut self, tag: K, options: Options, body: F) -> Result<Ticket, BridgeBusy>
    where
        F: FnMut(Tx) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        if self.in_flight >= self.limit {
            return Err(BridgeBusy { in_flight: self.in_flight });
        }
        self.in_flight += 1;
        self.submitted += 1;
        let ticket = Ticket(self.submitted);
        let kind = options.kind.clone();
        let reply = Reply { sender: self.sender.clone(), ticket, tag: Some(tag), kind };
        let host = self.host.clone();
        self.host.shared.spawn(async move {
            // The core is never held while a closure runs, so a panic of one leaves nothing half done.
            let ended = AssertUnwindSafe(session::transact(host, options, body)).catch_unwind().await;
            reply.send(ended);
        });
        Ok(ticket)
    }

    /// What happened since the last call, ownership before the transactions that may have caused it. Call it once a
    /// frame. It waits for nothing but the end of another's step of the core (microseconds), and gives out a bounded
    /// number of events; more come with the next call.
    pub fn events(&mut self) -> std::vec::IntoIter<BridgeEvent<K, T>> {
        // Results first: what they changed is then among the events taken after them.
        let finished: Vec<_> = self.results.try_iter().take(self.limit).collect();
        self.in_flight -= finished.len();
        let mut events: Vec<_> = std::iter::from_fn(|| self.ownership.try_next())
            .take(OWNERSHIP_EVENTS_PER_FRAME)
            .map(BridgeEvent::Ownership)
            .collect();
        events.extend(finished);
        events.into_iter()
    }

    /// How many transactions are in flight: submitted, and their result not given out yet.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }
}

/// Tells the bridge how a transaction ended, also when its future is dropped before.
struct Reply<K, T> {
    sender: mpsc::Sender<BridgeEvent<K, T>>,
    ticket: Ticket,
    tag: Option<K>,
    kind: TaskKind,
}

impl<K, T> Reply<K, T> {
    fn send(mut self, ended: Result<Result<session::Done<T>>, Box<dyn Any + Send>>) {
        match ended {
            Ok(Ok(done)) => self.tell(Ok(done.value), Some(done.committed)),
            Ok(Err(error)) => self.tell(Err(error), None),
            Err(panic) => {
                let message = session::panic_text(panic.as_ref());
                let kind = self.kind.clone();
                self.tell(Err(Error::Panicked { kind, message }), None);
            }
        }
    }

    fn tell(&mut self, result: Result<T>, committed: Option<Committed>) {
        if let Some(tag) = self.tag.take() {
            // The bridge may be gone: then nobody wants to know.
            let _ = self.sender.send(BridgeEvent::Finished { ticket: self.ticket, tag, result, committed });
        }
    }
}

impl<K, T> Drop for Reply<K, T> {
    fn drop(&mut self) {
        let kind = self.kind.clone();
        self.tell(Err(Error::RuntimeStopped { kind }), None);
    }
}
