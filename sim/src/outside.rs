//! The world outside of the mesh: it hears what commits say by the outbox, and keeps what it heard outside of all peers.
//!
//! It refuses to know what was meant.

use driftmesh_model::ScheduleId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something that was heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Heard {
    /// The number of the message.
    pub(crate) number: u64,
    /// The id that it came under.
    pub(crate) id: ScheduleId,
    /// Whether it was taken.
    pub(crate) taken: bool,
}

/// Everything that was heard, in order. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Outside(Arc<Mutex<Vec<Heard>>>);

impl Outside {
    fn lock(&self) -> MutexGuard<'_, Vec<Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears a message, and takes it unless it has refused it less than so often. Returns whether it did.
    pub(crate) fn hear(&self, number: u64, id: ScheduleId, refusals: usize) -> bool {
        let mut all = self.lock();
        let taken = all.iter().filter(|heard| heard.number == number).count() >= refusals;
        all.push(Heard { number, id, taken });
        taken
    }

    /// Everything that was heard.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.lock().clone()
    }
}
