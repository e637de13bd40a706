//! A kind of transactions: with a name, a deadline and more.
//!
//! It refuses to know what a transaction does, and to run one by itself: sessions do.

use crate::host::LiveHost;
use crate::{Done, Result, Tx};
use driftmesh_model::Micros;
use driftmesh_peer::session::{self, Isolation, Options};
use futures::TryFutureExt;
use std::time::Duration;

/// How transactions of one kind are run. Errors and metrics name the kind. Can be used any number of times.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until one is run"]
pub struct Transactions {
    host: LiveHost,
    options: Options,
}

impl Transactions {
    pub(crate) const fn new(host: LiveHost, options: Options) -> Self {
        Self { host, options }
    }

    pub(crate) const fn options(&self) -> &Options {
        &self.options
    }

    /// How long a transaction may take, retries included: 5 s unless set, at most 60 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Micros::from_duration(deadline);
        self
    }

    /// As if all transactions that ask for it ran one after the other: no write skew among them. Each read then takes
    /// the object's lock and fetches its ownership, so ask for it where a decision rests on what is only read.
    pub const fn serializable(mut self) -> Self {
        self.options.isolation = Isolation::Serializable;
        self
    }

    /// Ends only when the commit is stable: held by enough peers to survive the crash of this one. Costs a round trip to
    /// the followers; everything else may go on meanwhile, also on the same objects.
    pub const fn stable(mut self) -> Self {
        self.options.stable = true;
        self
    }

    /// Runs a closure as a transaction and returns what it returned. See [`crate::Mesh::transact`].
    ///
    /// # Errors
    /// What the closure returned, `Deadline` when it could not commit in time, or a limit: nothing took effect then. With
    /// [`Transactions::stable`] also `Lost`, which undid a commit, and `NotStable`, of which nobody knows yet.
    pub fn run<T, F, Fut>(&self, body: F) -> impl Future<Output = Result<T>> + use<T, F, Fut>
    where
        F: FnMut(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let done = self.run_with_receipt(body);
        // A block that awaits it would hold it twice: futures are moved about by value.
        done.map_ok(|done| done.value)
    }

    /// As [`Transactions::run`], and returns the receipt too.
    ///
    /// # Errors
    /// As [`Transactions::run`].
    pub fn run_with_receipt<T, F, Fut>(&self, body: F) -> impl Future<Output = Result<Done<T>>> + use<T, F, Fut>
    where
        F: FnMut(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        session::transact(self.host.clone(), self.options.clone(), body)
    }
}
