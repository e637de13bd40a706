//! A part of a copy of a state, as it travels to a member that catches up.
//!
//! It refuses to be trusted: `install` checks what it says.

use super::check::NUMBER_MAX;
use super::{InTransit, Stored};
use crate::{GrantLog, Outcomes, Version};
use driftmesh_model::limits::CHAIN_TRANSFER_BYTES_MAX;
use driftmesh_model::{Epoch, GroupId, Lsn, ObjectId, Term, Timestamp};
use serde::{Deserialize, Serialize};

/// What an item counts beside its versions, bytes.
const ITEM_OVERHEAD: usize = 96;
/// What an item of two numbers counts, bytes.
pub(super) const PAIR_COST: usize = 32;

/// A part of a copy of a state. The parts of one copy are taken in one after the other, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slice {
    /// Counts the slices of a copy, from zero.
    pub(super) number: u64,
    /// In the first slice only.
    pub(super) head: Option<Head>,
    /// The term table.
    pub(super) terms: Vec<(Term, Lsn)>,
    /// The number of the last grant to each group.
    pub(super) sent: Vec<(GroupId, u64)>,
    /// The answered grants of each group.
    pub(super) received: Vec<(GroupId, GrantLog)>,
    /// Grants under way.
    pub(super) in_transit: Vec<CopiedTransit>,
    /// Owned objects.
    pub(super) objects: Vec<CopiedObject>,
    /// Whether the copy ends here.
    pub(super) last: bool,
}

/// What a copy says of the state as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Head {
    /// The position of the last entry that the copy holds.
    pub(super) lsn: Lsn,
    /// The end of the last timestamp window.
    pub(super) window: Timestamp,
    /// The highest commit timestamp.
    pub(super) commit: Timestamp,
    /// The highest timestamp.
    pub(super) highest: Timestamp,
    pub(super) retired: bool,
    /// What was superseded at or before this is not needed any more.
    pub(super) prune_below: Timestamp,
}

impl Head {
    /// Whether everything in it can still climb.
    pub(super) fn is_in_range(&self) -> bool {
        let highest = self.window.max(self.commit).max(self.highest);
        self.lsn.as_u64() < NUMBER_MAX && highest < Timestamp::SOUND_MAX
    }
}

/// An owned object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct CopiedObject {
    pub(super) object: ObjectId,
    pub(super) epoch: Epoch,
    pub(super) changed: Lsn,
    pub(super) versions: Vec<Version>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outcomes: Option<Box<Outcomes>>,
    pub(super) low_water: Timestamp,
}

/// A grant under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct CopiedTransit {
    pub(super) to: GroupId,
    pub(super) number: u64,
    /// Whether it is the last grant of its object.
    pub(super) indexed: bool,
    pub(super) object: ObjectId,
    pub(super) epoch: Epoch,
    pub(super) changed: Lsn,
    pub(super) versions: Vec<Version>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outcomes: Option<Box<Outcomes>>,
    pub(super) low_water: Timestamp,
    pub(super) floor: Timestamp,
}

impl CopiedObject {
    /// R17: old versions beyond what travels with an object stay behind, so that one item is never large.
    pub(super) fn of(stored: &Stored) -> Self {
        let (versions, low_water) = stored.chain.newest_within(CHAIN_TRANSFER_BYTES_MAX);
        let Stored { object, epoch, changed, chain: _, ref outcomes } = *stored;
        Self { object, epoch, changed, versions, outcomes: outcomes.clone(), low_water }
    }

    pub(super) fn cost(&self) -> usize {
        ITEM_OVERHEAD + self.versions.iter().map(Version::cost).sum::<usize>() + cost_of(self.outcomes.as_deref())
    }
}

impl CopiedTransit {
    pub(super) fn of(to: GroupId, number: u64, indexed: bool, transit: &InTransit) -> Self {
        let InTransit { object, epoch, changed, ref chain, ref outcomes, floor } = *transit;
        let (versions, low_water) = chain.newest_within(CHAIN_TRANSFER_BYTES_MAX);
        let outcomes = outcomes.clone();
        Self { to, number, indexed, object, epoch, changed, versions, outcomes, low_water, floor }
    }

    pub(super) fn cost(&self) -> usize {
        ITEM_OVERHEAD + self.versions.iter().map(Version::cost).sum::<usize>() + cost_of(self.outcomes.as_deref())
    }
}

impl Slice {
    pub(super) const fn empty(number: u64) -> Self {
        Self {
            number,
            head: None,
            terms: Vec::new(),
            sent: Vec::new(),
            received: Vec::new(),
            in_transit: Vec::new(),
            objects: Vec::new(),
            last: false,
        }
    }

    /// Whether the copy ends with this slice.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.last
    }

    /// The position of the last entry that the copy holds; in its first slice only.
    #[must_use]
    pub fn as_of(&self) -> Option<Lsn> {
        self.head.map(|head| head.lsn)
    }
}

fn cost_of(outcomes: Option<&Outcomes>) -> usize {
    outcomes.map_or(0, Outcomes::cost)
}
