//! Why an attempt of a transaction ended without a commit.

use driftmesh_model::limits::TASK_KIND_BYTES_MAX;
use driftmesh_model::{GroupId, Micros, ObjectId, PeerId, Timestamp, TxnTimestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::sync::Arc;

/// The name of a kind of task: what an abort names, and what metrics count by. At most 64 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskKind(Arc<str>);

impl TaskKind {
    /// The kind with this name; a longer one is cut at 64 bytes.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(&name[..name.floor_char_boundary(TASK_KIND_BYTES_MAX)]))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for TaskKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

struct KindVisitor;

impl de::Visitor<'_> for KindVisitor {
    type Value = TaskKind;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a kind of task")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<TaskKind, E> {
        Ok(TaskKind::new(name))
    }
}

impl<'de> Deserialize<'de> for TaskKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KindVisitor)
    }
}

/// The other transaction of a conflict, as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Other {
    /// Its age.
    pub timestamp: TxnTimestamp,
    /// Its kind of task.
    pub kind: TaskKind,
}

impl fmt::Display for Other {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` ({})", self.kind, self.timestamp)
    }
}

/// Why an attempt ended, or what it waited for when its deadline passed. All are retried within the deadline, but for
/// [`Cause::UsedElsewhere`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// An older transaction took a lock (R12).
    Wounded {
        /// The object whose lock it took.
        object: ObjectId,
        /// The older one.
        by: Other,
    },
    /// The object has a version newer than the snapshot, and the snapshot could not move forward.
    Conflict {
        /// The object.
        object: ObjectId,
        /// When the newer version was committed.
        newer: Timestamp,
        /// Who committed it, when this peer remembers.
        by: Option<Other>,
    },
    /// The version that the snapshot sees is gone (R17).
    SnapshotTooOld {
        /// The object.
        object: ObjectId,
    },
    /// The object was created after the snapshot: its reference came faster than the news of its creation.
    CreatedLater {
        /// The object.
        object: ObjectId,
    },
    /// It waited for the object until its deadline.
    Waited {
        /// The object.
        object: ObjectId,
        /// Who had it, as far as this peer was told.
        behind: Option<Other>,
    },
    /// Nobody who owns the object answered for a while (R14).
    Unavailable {
        /// The object.
        object: ObjectId,
    },
    /// A peer refused a request because this peer's clock is too far ahead of its own (R18).
    ClockAhead {
        /// The object.
        object: ObjectId,
        /// The wall clock of the peer that refused.
        receiver: Micros,
    },
    /// Another peer was elected to lead this peer's group: what the attempt has read here may be lost (R9).
    Deposed {
        /// The group.
        group: GroupId,
    },
    /// The object is in much use where it is: the work should go there, and not the object come to it.
    UsedElsewhere {
        /// The object.
        object: ObjectId,
        /// Who owns it.
        at: PeerId,
    },
}

impl Cause {
    /// The object it is about, if it is about one.
    #[must_use]
    pub const fn object(&self) -> Option<ObjectId> {
        match self {
            Self::Wounded { object, .. }
            | Self::Conflict { object, .. }
            | Self::SnapshotTooOld { object }
            | Self::CreatedLater { object }
            | Self::Waited { object, .. }
            | Self::Unavailable { object }
            | Self::ClockAhead { object, .. }
            | Self::UsedElsewhere { object, .. } => Some(*object),
            Self::Deposed { .. } => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wounded { object, by } => write!(formatter, "older {by} took object {object}"),
            Self::Conflict { object, by: Some(by), .. } => {
                write!(formatter, "{by} committed to object {object} after the snapshot")
            }
            Self::Conflict { object, newer, by: None } => {
                write!(formatter, "object {object} was committed to at {newer}, after the snapshot")
            }
            Self::SnapshotTooOld { object } => {
                write!(formatter, "the version of object {object} at the snapshot is no longer kept")
            }
            Self::CreatedLater { object } => write!(formatter, "object {object} was created after the snapshot"),
            Self::Waited { object, behind: Some(behind) } => {
                write!(formatter, "it waited for object {object}, which {behind} had")
            }
            Self::Waited { object, behind: None } => write!(formatter, "it waited for object {object}"),
            Self::Unavailable { object } => write!(formatter, "no owner of object {object} answers"),
            Self::ClockAhead { object, receiver } => write!(
                formatter,
                "the owner of object {object} refused: this peer's clock is more than 500 ms ahead of its own, which says {} us; set the clocks",
                receiver.0
            ),
            Self::Deposed { group } => {
                write!(formatter, "another peer was elected to lead group {group}, in which it ran")
            }
            Self::UsedElsewhere { object, at } => {
                write!(formatter, "object {object} is in use at peer {at}, where the work should go")
            }
        }
    }
}
