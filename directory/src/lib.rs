//! Where objects are: location hints, forwarding pointers, home records, and the search through them.
//!
//! Everything here is a hint (R1): it says whom to ask, never who owns. This crate refuses to decide ownership, to
//! send anything and to know addresses; whoever acts on what it says proves ownership by its own group's state.
#![deny(clippy::disallowed_types, clippy::disallowed_methods, clippy::iter_over_hash_type)]

mod homes;
mod lookup;
mod pointers;
mod publisher;
mod record;
mod records;
mod trail;

pub use homes::{HomeRing, REPLICAS_OF_RECORDS, kademlia_key};
pub use lookup::{Answer, HOP_LIMIT, Holds, Lookup, Next, Reachable};
pub use pointers::Pointers;
pub use publisher::{BATCH_RECORDS_MAX, Publisher};
pub use record::Record;
pub use records::Records;
pub use trail::{Source, Step, Trail};
