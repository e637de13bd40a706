//! What the status says of schedules and tasks that do not run as they should: which wait, and which panicked.
//!
//! It refuses to judge: why a schedule does not run the core says.

use driftmesh_peer::{PanickedTask, Status};
use serde::Serialize;

/// The schedules of what a peer owns.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SchedulesView {
    /// All that are not parked.
    pub scheduled: usize,
    /// Those that run now.
    pub running: usize,
    /// Those that should have run a second ago and do not run, 10,000 at most.
    pub late: usize,
    /// Those that do not run any more, because their tasks panicked at two peers.
    pub parked: usize,
    /// Those that do not run here, 16 at most.
    pub waiting: Vec<WaitingView>,
}

/// A schedule that does not run where it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WaitingView {
    /// Its id, as a text.
    pub id: String,
    /// The name of its task.
    pub name: String,
    /// Why, in one line for people.
    pub why: String,
}

impl From<&Status> for SchedulesView {
    fn from(core: &Status) -> Self {
        let driftmesh_peer::ScheduleCounts { scheduled, running, late, parked } = core.schedules;
        let waiting = core.schedules_waiting.iter().map(|waiting| WaitingView {
            id: waiting.id.to_string(),
            name: waiting.name.clone(),
            why: waiting.why.to_string(),
        });
        Self { scheduled, running, late, parked, waiting: waiting.collect() }
    }
}

/// Tasks of one name, with one object, that panicked at a peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PanickedView {
    /// Their name.
    pub name: String,
    /// Their anchor, or the object whose schedule they were, as a text.
    pub object: String,
    /// How often they panicked there since they are listed.
    pub times: u64,
    /// What the last one said.
    pub message: String,
    /// When that was, milliseconds since the UNIX epoch.
    pub last_ms: u64,
}

impl From<PanickedTask> for PanickedView {
    fn from(PanickedTask { name, object, times, message, last }: PanickedTask) -> Self {
        Self { name, object: object.to_string(), times, message, last_ms: last.as_millis() }
    }
}
