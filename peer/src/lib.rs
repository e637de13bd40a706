//! One whole peer as a deterministic state machine: messages, timers and transactions' steps in, commands out.
//!
//! | in | out ([`Commands`]) |
//! | --- | --- |
//! | `joined`, `left` (membership), `received` (a message), `timers_due` | messages to send, questions to the routing, tasks to run |
//! | `begin`, `prepare`, `read`, `intend`, `commit`, `retry`, `end` (a transaction's steps) | transactions to wake |
//!
//! One input, then [`Peer::take_commands`]. This crate refuses to do I/O, to read a clock, to start a thread and to
//! draw randomness: the simulator and the live mesh drive the very same code. [`session`] runs users' closures on it.
#![deny(clippy::disallowed_types, clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod answering;
mod beyond;
mod caretaking;
mod clock_watch;
mod closing;
mod collecting;
mod config;
mod copies;
mod departing;
mod explaining;
mod fates;
mod feeding;
mod fetching;
mod founding;
mod grants_due;
mod groups;
mod haste;
mod leaving;
mod locking;
mod membership;
mod mending;
mod message;
mod metrics;
mod operating;
mod outbox;
mod ownership;
mod peer;
mod placing;
mod pruning;
mod publishing;
mod questions;
mod rare_branches;
mod recent;
mod replicating;
mod room;
mod routes;
mod sabotage;
mod scanning;
mod scheduling;
mod seeking;
pub mod session;
mod status;
mod steps;
mod subscribing;
mod surveying;
mod task_ids;
mod tasking;
mod timers;
mod told;
mod transfer;
mod uses;
mod watching;
mod windows;

/// What peers say to each other, in parts: for tools and tests that make messages by hand.
pub mod wire {
    pub use crate::message::*;
}

pub use beyond::Beyond;
pub use config::{Config, HELD_BYTES, REPLICAS, REPLICAS_MAX};
pub use driftmesh_directory::{Source, Step, Trail};
pub use driftmesh_object_store::Settings;
pub use driftmesh_object_store::{CatchUp, Work};
pub use driftmesh_txn::{Cause, Other, TaskKind};
pub use explaining::{Found, Place};
pub use founding::{Ballot, EXPECT_MAX, Founding, FoundingConfig, FoundingMessage, FoundingOutput, Proposal};
pub use message::{
    Ended, Envelope, FateTold, GroupRecord, Introduction, KeptSeen, Message, News, NewsOf, ScanPage, Scanned, Seen,
    TaskAbort, TaskEnd, TaskRequest, Wish,
};
pub use metrics::{Metrics, RareEvent};
pub use operating::{OperatorError, Promoted};
pub use ownership::{Arrival, OWNERSHIP_EVENTS_MAX, OwnedPage, OwnershipEvent, SUBSCRIPTIONS_MAX, SubscriptionId};
pub use peer::{Commands, Peer};
pub use placing::{Move, MoveReason, ObjectUse, PINNED_MAX, PINNED_TYPES_MAX, TooManyPinned};
pub use rare_branches::RareBranch;
pub use recent::{Recent, STALENESS};
pub use room::NoRoom;
pub use sabotage::Sabotage;
pub use scanning::ARRIVALS_FROM;
pub use scheduling::{
    DELIVERIES_MAX, DELIVERIES_PER_TYPE_MAX, FOLLOW_UPS_WAITING_MAX, OccurrenceKey, SCHEDULES_NAMED_MAX,
    SCHEDULES_PUT_OFF_MAX, SCHEDULES_RUNNING_MAX, ScheduleCounts, ScheduleEnd, ScheduleRun, ScheduleWaits,
    WaitingSchedule,
};
pub use seeking::Seek;
pub use status::{GroupStatus, MemberStatus, Status};
pub use steps::{Begin, Committed, Receipt, StepError, Stepped, TaskTies, TxnWrites, ValueRead};
pub use surveying::{AdoptedGrant, Held, Standing};
pub use tasking::{
    NotSubmitted, PANICKED_LISTED_MAX, PanickedTask, Provisional, Run, SubmitTask, TASKS_RUNNING_HERE_MAX,
    TASKS_RUNNING_MAX, TASKS_RUNNING_PER_PEER_MAX, TASKS_SENT_PER_PEER_MAX, TASKS_SUBMITTED_MAX, TaskFound, TaskPlace,
    TaskRun, TaskStep, TaskTo,
};
pub use watching::{Sighting, WATCHED_MAX, WATCHERS_MAX};
