//! The directory's memories and its search against simple references, with everything that can happen to them in any order.
//!
//! `records.rs`, `pointers.rs`, `publisher.rs` and `homes.rs` compare with lists; `search.rs` runs the search through a small
//! world in which the object moves while it is looked for.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, though the lint does not see it")]

mod homes;
mod pointers;
mod publisher;
mod records;
mod search;

use driftmesh_directory::Record;
use driftmesh_model::{Epoch, GroupId, ObjectId, PeerId};
use proptest::prelude::ProptestConfig;

const OBJECTS: u8 = 4;

fn object(number: u8) -> ObjectId {
    ObjectId::from_u128(u128::from(number) + 1)
}

fn group(number: u8) -> GroupId {
    GroupId::from_u128(u128::from(number) + 100)
}

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

/// What is said of an object at an epoch is the same everywhere: the group follows from it.
fn record(number: u8, epoch: u8) -> Record {
    Record { object: object(number), group: group(epoch % 3), epoch: Epoch::from_u64(u64::from(epoch)) }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}
