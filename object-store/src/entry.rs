//! What a journal says: every change of a group's state, whole commits included.

use crate::{LogEntry, Membership, Outcomes, ScheduleChange, TaskOutcome, Version};
use driftmesh_model::{Epoch, GroupId, ObjectId, Term, Timestamp, Value};
use serde::{Deserialize, Serialize};

/// One write of a commit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Write {
    /// The object written. One that the group does not hold is created by this.
    pub object: ObjectId,
    /// Its new value; `None` deletes it.
    pub value: Option<Value>,
}

/// One journal entry. A prefix of a journal is a transaction-consistent state, because a commit is one entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// A leader's first entry.
    TermStart {
        /// The leadership period that begins.
        term: Term,
    },
    /// All writes of one transaction.
    Commit {
        /// When they take effect.
        commit: Timestamp,
        /// The writes, each object once.
        writes: Vec<Write>,
        /// If it ended a task: what became of that, for its anchor to keep (R21).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcome: Option<Box<TaskOutcome>>,
        /// What it changes of schedules, one after the other. Those of an object that it deletes end by that.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        schedules: Vec<ScheduleChange>,
    },
    /// An object leaves: nobody commits to it until the destination adopts it (R19).
    TransferOut {
        /// The object.
        object: ObjectId,
        /// The epoch it will have at the destination.
        epoch: Epoch,
        /// The destination.
        to: GroupId,
        /// The grant's number towards that group (R20).
        number: u64,
        /// The leader's clock at this entry: at or above all that the group ever answered for the object (R16).
        floor: Timestamp,
    },
    /// An object arrives, with its whole chain: the group's followers have no cache to look hashes up in.
    TransferIn {
        /// The object.
        object: ObjectId,
        /// Its epoch here.
        epoch: Epoch,
        /// Where it came from.
        from: GroupId,
        /// The grant's number (R20).
        number: u64,
        /// Its versions, oldest first.
        versions: Vec<Version>,
        /// What became of tasks whose anchor it is (R21), and its schedules.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcomes: Option<Box<Outcomes>>,
        /// Snapshots below this cannot be answered (R17).
        low_water: Timestamp,
        /// The sender's floor: commits here lie above it (R16).
        floor: Timestamp,
        /// The sender has settled all its grants below this number: refusals of them need not be remembered.
        unsettled_from: u64,
    },
    /// The destination has the object: what was kept of it in transit is dropped.
    Handed {
        /// The destination.
        to: GroupId,
        /// The grant's number.
        number: u64,
    },
    /// A grant was refused, for ever; its sender takes the object back (R19).
    Refused {
        /// The sender.
        from: GroupId,
        /// The grant's number.
        number: u64,
        /// The sender has settled all its grants below this number: refusals of them need not be remembered.
        unsettled_from: u64,
    },
    /// The destination refused: the object is owned here again, one epoch above the refused one (R19).
    TakenBack {
        /// The destination that refused.
        to: GroupId,
        /// The grant's number.
        number: u64,
    },
    /// What the leader promises outside of the group lies below this (R8).
    Window {
        /// The end of the window.
        until: Timestamp,
    },
    /// Who belongs to the group from here on.
    Members(Membership),
    /// The group has ended: nothing will be committed or adopted any more.
    Retired,
}

impl Entry {
    /// About how much the entry weighs, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        const FIXED: usize = 96;
        const MEMBER: usize = 64;
        match self {
            Self::Commit { writes, outcome, schedules, .. } => {
                let written = writes.iter().map(|write| 32 + write.value.as_ref().map_or(0, Value::len)).sum::<usize>();
                let schedules = schedules.iter().map(ScheduleChange::cost).sum::<usize>();
                FIXED + written + outcome.as_ref().map_or(0, |outcome| outcome.cost()) + schedules
            }
            Self::TransferIn { versions, outcomes, .. } => {
                let outcomes = outcomes.as_ref().map_or(0, |outcomes| outcomes.cost());
                FIXED + versions.iter().map(Version::cost).sum::<usize>() + outcomes
            }
            Self::Members(membership) => {
                let incoming = membership.incoming.as_ref().map_or(0, |incoming| incoming.len());
                FIXED + MEMBER * (membership.voters.len() + incoming + membership.learners.len())
            }
            Self::TermStart { .. }
            | Self::TransferOut { .. }
            | Self::Handed { .. }
            | Self::Refused { .. }
            | Self::TakenBack { .. }
            | Self::Window { .. }
            | Self::Retired => FIXED,
        }
    }

    /// The highest timestamp that the entry speaks of; a new leader starts above it (R8).
    #[must_use]
    pub fn highest_timestamp(&self) -> Timestamp {
        match self {
            Self::Commit { commit, .. } => *commit,
            Self::TransferOut { floor, .. } => *floor,
            Self::TransferIn { floor, .. } => self.newest_commit().max(*floor),
            Self::Window { until } => *until,
            Self::TermStart { .. }
            | Self::Handed { .. }
            | Self::Refused { .. }
            | Self::TakenBack { .. }
            | Self::Members(_)
            | Self::Retired => Timestamp::ZERO,
        }
    }

    /// The commit timestamp of the newest version that the entry brings, or zero.
    #[must_use]
    pub fn newest_commit(&self) -> Timestamp {
        match self {
            Self::Commit { commit, .. } => *commit,
            Self::TransferIn { versions, .. } => versions.last().map_or(Timestamp::ZERO, |version| version.commit),
            Self::TermStart { .. }
            | Self::TransferOut { .. }
            | Self::Handed { .. }
            | Self::Refused { .. }
            | Self::TakenBack { .. }
            | Self::Window { .. }
            | Self::Members(_)
            | Self::Retired => Timestamp::ZERO,
        }
    }
}

impl LogEntry for Entry {
    fn term_start(term: Term) -> Self {
        Self::TermStart { term }
    }

    fn members(membership: Membership) -> Self {
        Self::Members(membership)
    }

    fn membership(&self) -> Option<&Membership> {
        match self {
            Self::Members(membership) => Some(membership),
            Self::TermStart { .. }
            | Self::Commit { .. }
            | Self::TransferOut { .. }
            | Self::TransferIn { .. }
            | Self::Handed { .. }
            | Self::Refused { .. }
            | Self::TakenBack { .. }
            | Self::Window { .. }
            | Self::Retired => None,
        }
    }

    fn cost(&self) -> usize {
        self.cost()
    }
}
