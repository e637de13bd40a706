//! What a replica group holds: versions of objects, its journal, and the grants that move objects in and out.
//!
//! The state of a group is a fold over its journal: whatever changes it is an [`Entry`] first. This crate refuses
//! to send anything, to wait for anything, and to decide who may write: locks are `txn`'s, places `directory`'s.
#![deny(clippy::disallowed_types, clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod chain;
mod consensus;
mod entry;
mod former;
mod grant_log;
mod group;
mod outcomes;
mod schedules;
mod state;
mod term_table;

pub use chain::{Chain, ReadAt, Version};
pub use consensus::{
    Batch, Body, BrokenRule, CannotChange, Consensus, LogEntry, MemberId, Membership, Message, Promises, Settings,
    is_sound_period,
};
pub use entry::{Arrival, Departure, Entry, Imported, TRANSFERS_MAX, Write};
pub use grant_log::{GrantLog, GrantSeen};
pub use group::{Closed, CopyDone, CopySlice, Group, GroupMessage};
pub use outcomes::{Kept, Outcomes, TaskOutcome, TaskSeen};
pub use schedules::{
    CatchUp, Planned, Progress, Schedule, ScheduleBound, ScheduleChange, ScheduleStep, Schedules, Work,
};
pub use state::{BadEntry, BadSlice, Due, Growth, InTransit, OBJECT_OVERHEAD, Slice, State, Stored};
pub use term_table::{Fate, NotClimbing, TermTable};
