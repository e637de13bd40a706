//! The nouns of Driftmesh: ids, epochs, timestamps, the hybrid logical clock, limits and the codec.
//!
//! Every other crate of the workspace speaks in these types. This crate refuses to do anything: it has no
//! protocol, no state of a peer, no I/O, no clock and no randomness.
#![deny(clippy::disallowed_types, clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod clock;
pub mod codec;
mod id;
pub mod limits;
mod lookup_map;
mod object;
mod position;
mod schedule_id;
mod small_map;
mod split_mix;
mod task_id;
mod time;
mod value;

pub use clock::{ClockAhead, HybridClock};
pub use id::{GenesisId, GroupId, Incarnation, ObjectId, ParseIdError, PeerId, TxnId};
pub use lookup_map::LookupMap;
pub use object::{Object, ObjectError, Ref, StoredHeader, decode_object, encode_object, is_stored_as, stored_header};
pub use position::{Epoch, Generation, Lsn, Term};
pub use schedule_id::{ParseScheduleIdError, ScheduleId};
pub use small_map::SmallMap;
pub use split_mix::SplitMix;
pub use task_id::{ParseTaskIdError, TaskId, TaskKey};
pub use time::{Micros, Now, Timestamp, TxnTimestamp};
pub use value::{Hash, Value};
