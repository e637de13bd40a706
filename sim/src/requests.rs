//! What running futures ask of the world between two events: other futures to run, the end of the faults, a goodbye.
//!
//! They cannot reach the world while it polls them, so they leave a note here, and the world looks after each poll.

use crate::executor::Job;
use crate::outside::Outside;
use std::sync::{Arc, Mutex, PoisonError};

/// One note.
pub(crate) enum Request {
    /// Runs a future that belongs to a peer, or to nobody.
    Spawn(Option<usize>, Job),
    /// No faults from now on.
    Heal,
    /// A peer says goodbye to all others and goes for good.
    Goodbye(usize),
}

/// The notes of one world, in order, and what was said outside of it. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Requests {
    notes: Arc<Mutex<Vec<Request>>>,
    pub(crate) outside: Outside,
}

impl Requests {
    pub(crate) fn add(&self, request: Request) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    }

    /// Takes what was asked since the last call.
    pub(crate) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
