//! A location record: where an object was said to be, and how new the claim is.

use driftmesh_model::{Epoch, GroupId, ObjectId};
use serde::{Deserialize, Serialize};

/// (object, group, epoch): a hint, never an authority (R1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The object.
    pub object: ObjectId,
    /// The group said to own it.
    pub group: GroupId,
    /// The epoch at which it owns it.
    pub epoch: Epoch,
}

impl Record {
    /// Whether it can be true: no object moves so often. A claim at the end of the range could never be replaced (R25).
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.epoch.as_u64() < u64::MAX / 2
    }

    /// Whether this claim is newer than the other (R2).
    #[must_use]
    pub fn outranks(&self, other: &Self) -> bool {
        self.epoch > other.epoch
    }
}
