//! What peers say to each other of tasks: what is to be done, and how it ended.
//!
//! CBOR by field name, as all messages. It refuses to know where a task goes and what becomes of it: `tasking` does.

use crate::room::NoRoom;
use crate::steps::Receipt;
use driftmesh_model::limits::{TASK_BYTES_MAX, TASK_KIND_BYTES_MAX, TASK_TOUCHES_MAX};
use driftmesh_model::{Epoch, Micros, ObjectId, PeerId, TaskId, Value};
use serde::{Deserialize, Serialize};

/// A request to run a task.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskRequest {
    /// Which request it is, and where its outcome is kept (R21).
    pub id: TaskId,
    /// The name of its type.
    pub name: String,
    /// The version of that type's fields.
    pub version: u32,
    /// The encoded task.
    pub body: Value,
    /// What it says it touches.
    pub touches: Vec<ObjectId>,
    /// How long it may take from now on.
    pub deadline: Micros,
    /// What tasks of this name that touch the same have in common; zero if that is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub key: u64,
    /// It runs where it arrives, wherever its data is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
    /// The object that it was sent on for, to where that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came_for: Option<ObjectId>,
    /// The peer that made the id waits for no task with this anchor that was issued before this; zero if who sends it does
    /// not know.
    #[serde(default, skip_serializing_if = "Micros::is_zero")]
    pub oldest: Micros,
    /// Whoever asks wants to hear its answer also before that is stable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub provisional: bool,
}

impl TaskRequest {
    /// A request that is not on its way yet, for a task that says nothing of what it touches.
    #[must_use]
    pub const fn new(id: TaskId, name: String, version: u32, body: Value, deadline: Micros) -> Self {
        Self {
            id,
            name,
            version,
            body,
            touches: Vec::new(),
            deadline,
            key: 0,
            settled: false,
            came_for: None,
            oldest: Micros(0),
            provisional: false,
        }
    }

    /// Whether it is larger than a task may be (R24).
    #[must_use]
    pub(crate) fn is_too_large(&self) -> bool {
        self.name.len() > TASK_KIND_BYTES_MAX
            || self.body.len() > TASK_BYTES_MAX
            || self.touches.len() > TASK_TOUCHES_MAX
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like that")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a task did not take effect.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TaskAbort {
    /// It rejected itself.
    Rejected(String),
    /// It panicked.
    Panicked(String),
    /// It met an error that a retry would not mend.
    Failed(String),
    /// Its answer weighs so many bytes, which is too much.
    AnswerTooLarge(u64),
    /// It could not commit in its time.
    Deadline,
    /// The peer does not know tasks of this name.
    Unregistered,
    /// The peer knows another version of them.
    OtherVersion {
        /// The version that it knows.
        there: u32,
    },
    /// The peer cannot decode it.
    Undecodable(String),
    /// There is no such anchor.
    NoAnchor,
    /// The peer is leaving.
    Leaving,
    /// The peer's clock is wrong.
    ClockOff {
        /// How far it is ahead, ms; negative when it is behind.
        ahead_ms: i64,
    },
    /// It was issued too far ahead of the receiver's wall clock (R18).
    ClockAhead {
        /// The receiver's wall clock.
        receiver: Micros,
    },
    /// The peer holds as much as it may (R24).
    NoRoom(NoRoom),
}

/// How a task ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TaskEnd {
    /// It took effect.
    Done {
        /// Its encoded answer.
        answer: Value,
        /// Where its commit stands; of an earlier copy, where its anchor stood when it was asked.
        receipt: Receipt,
        /// Whether an earlier copy of the request did it.
        earlier: bool,
        /// What it has locked, and at which epochs the receipt's group owned that: for whoever sends the next one like it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        touched: Vec<(ObjectId, Epoch)>,
    },
    /// It did not take effect.
    Aborted {
        /// Why.
        why: TaskAbort,
        /// Where that is journalled, if it is: then no copy of it ever takes effect.
        kept: Option<Receipt>,
    },
    /// Outcomes as old as this task are not kept any more.
    Forgotten,
    /// Too many tasks are under way there. It did not run.
    Busy {
        /// When to try again.
        retry_after: Micros,
    },
    /// It did not run: what it wants is in much use elsewhere, and there it should run.
    Elsewhere {
        /// What it wants.
        object: ObjectId,
        /// Who owns that, as far as the peer knows.
        at: PeerId,
    },
}

impl TaskEnd {
    /// What it is said to have locked.
    pub(super) fn touched(&self) -> &[(ObjectId, Epoch)] {
        match self {
            Self::Done { touched, .. } => touched,
            Self::Aborted { .. } | Self::Forgotten | Self::Busy { .. } | Self::Elsewhere { .. } => &[],
        }
    }

    pub(crate) const fn aborted(why: TaskAbort) -> Self {
        Self::Aborted { why, kept: None }
    }

    /// Where the outcome is journalled, if it is.
    #[must_use]
    pub const fn receipt(&self) -> Option<&Receipt> {
        match self {
            Self::Done { receipt, .. } => Some(receipt),
            Self::Aborted { kept, .. } => kept.as_ref(),
            Self::Forgotten | Self::Busy { .. } | Self::Elsewhere { .. } => None,
        }
    }

    /// Whether it holds for all copies of the request.
    #[must_use]
    pub(crate) const fn is_decided(&self) -> bool {
        match self {
            Self::Done { .. } | Self::Forgotten => true,
            Self::Aborted { kept, .. } => kept.is_some(),
            Self::Busy { .. } | Self::Elsewhere { .. } => false,
        }
    }

    /// Whether another peer might run the task.
    pub(crate) const fn is_for_others(&self) -> bool {
        match self {
            Self::Aborted { why, kept: None } => match why {
                TaskAbort::Unregistered
                | TaskAbort::OtherVersion { .. }
                | TaskAbort::Undecodable(_)
                | TaskAbort::ClockOff { .. }
                | TaskAbort::NoRoom(_)
                | TaskAbort::Leaving => true,
                TaskAbort::Rejected(_)
                | TaskAbort::Panicked(_)
                | TaskAbort::Failed(_)
                | TaskAbort::AnswerTooLarge(_)
                | TaskAbort::Deadline
                | TaskAbort::NoAnchor
                | TaskAbort::ClockAhead { .. } => false,
            },
            Self::Aborted { kept: Some(_), .. }
            | Self::Done { .. }
            | Self::Forgotten
            | Self::Busy { .. }
            | Self::Elsewhere { .. } => false,
        }
    }

    /// How long the answer or the reason is, bytes.
    pub(crate) fn answer_bytes(&self) -> usize {
        match self {
            Self::Done { answer, .. } => answer.len(),
            Self::Aborted { why, .. } => match why {
                TaskAbort::Rejected(text)
                | TaskAbort::Panicked(text)
                | TaskAbort::Failed(text)
                | TaskAbort::Undecodable(text) => text.len(),
                TaskAbort::AnswerTooLarge(_)
                | TaskAbort::Deadline
                | TaskAbort::Unregistered
                | TaskAbort::OtherVersion { .. }
                | TaskAbort::NoAnchor
                | TaskAbort::Leaving
                | TaskAbort::ClockOff { .. }
                | TaskAbort::NoRoom(_)
                | TaskAbort::ClockAhead { .. } => 0,
            },
            Self::Forgotten | Self::Busy { .. } | Self::Elsewhere { .. } => 0,
        }
    }
}
