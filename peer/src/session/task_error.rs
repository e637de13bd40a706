//! What can go wrong for whoever submits a task: what happened, whether it took effect, and what to do.

use super::error::Outcome;
use crate::message::TaskAbort;
use crate::room::NoRoom;
use crate::steps::Receipt;
use crate::tasking::TASKS_SUBMITTED_MAX;
use driftmesh_model::limits::{TASK_ANSWER_BYTES_MAX, TASK_BYTES_MAX, TASK_TOUCHES_MAX};
use driftmesh_model::{Micros, PeerId, TaskId};

/// A task did not take effect, or it is not known whether it did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The task rejected itself: nothing of it took effect.
    #[error("`{name}` was rejected: {reason}")]
    Rejected {
        /// The task's name.
        name: String,
        /// What it said.
        reason: String,
    },
    /// The task met an error that a retry would not mend. Nothing of it took effect.
    #[error("`{name}` failed, and nothing of it took effect: {reason}")]
    Failed {
        /// The task's name.
        name: String,
        /// What the error says.
        reason: String,
    },
    /// The task panicked. Nothing of it took effect, and the peer goes on.
    #[error("`{name}` panicked at peer {at}, and nothing of it took effect: {message}")]
    Panicked {
        /// The task's name.
        name: String,
        /// Where.
        at: PeerId,
        /// What the panic said.
        message: String,
    },
    /// The peer does not know such tasks: register the type there, or submit to another. It did not run.
    #[error("peer {at} does not know tasks named `{name}`; register that type there before it starts")]
    Unregistered {
        /// The task's name.
        name: String,
        /// The peer.
        at: PeerId,
    },
    /// The peer knows another version of such tasks: submit it where the same version runs. It did not run.
    #[error("peer {at} knows version {there} of tasks named `{name}`, this one is of version {here}")]
    OtherVersion {
        /// The task's name.
        name: String,
        /// The peer.
        at: PeerId,
        /// The version of the task.
        here: u32,
        /// The version that the peer knows.
        there: u32,
    },
    /// The peer knows the name and the version and yet cannot decode the task: two types share them. It did not run.
    #[error("peer {at} cannot decode `{name}`, though it knows that version of it: {reason}")]
    Undecodable {
        /// The task's name.
        name: String,
        /// The peer.
        at: PeerId,
        /// What does not fit.
        reason: String,
    },
    /// The anchor does not exist, or was lost with its group. Nothing of this copy took effect.
    #[error("`{name}` has an anchor that does not exist: object {}; choose another", task.anchor)]
    NoAnchor {
        /// The task's name.
        name: String,
        /// The request.
        task: TaskId,
    },
    /// The task could not commit in its time, and nothing of it took effect: submit it again with a longer deadline.
    #[error("`{name}` did not commit within {} ms, and nothing of it took effect", deadline.as_millis())]
    Deadline {
        /// The task's name.
        name: String,
        /// How long it was given.
        deadline: Micros,
    },
    /// The task is too large to be sent, or says that it touches too much.
    #[error(
        "`{name}` has {bytes} bytes and touches {touches} objects; the limits are {TASK_BYTES_MAX} and {TASK_TOUCHES_MAX}"
    )]
    TooLarge {
        /// The task's name.
        name: String,
        /// Its size, bytes.
        bytes: usize,
        /// How many objects it says that it touches.
        touches: usize,
    },
    /// The answer is too large to be kept. Nothing of the task took effect.
    #[error(
        "the answer of `{name}` has {bytes} bytes, the limit is {TASK_ANSWER_BYTES_MAX}; store it in an object and answer a reference"
    )]
    AnswerTooLarge {
        /// The task's name.
        name: String,
        /// The answer's size, bytes.
        bytes: u64,
    },
    /// Too many tasks are under way, here or where it would run. It did not run: try again a little later.
    #[error("too many tasks are under way (at most {TASKS_SUBMITTED_MAX} from one peer); try again in {} ms", retry_after.as_millis())]
    Busy {
        /// When.
        retry_after: Micros,
    },
    /// This caller, one of several at its peer, has as much under way as it may. The task was not submitted.
    #[error("this caller has {most} transactions and tasks under way, the most it may have; await some of them first")]
    CallerBusy {
        /// So many it may have.
        most: usize,
    },
    /// This caller was told a provisional answer that did not stay, and has not heard of that yet; or it is not certain in time
    /// whether it stays. The task was not submitted: it may rest on that answer.
    #[error(
        "what this caller was told of task `{name}` before it was stable did not stay, or is not certain; await what it settled to first"
    )]
    ToldOtherwise {
        /// The name of the task.
        name: String,
    },
    /// The only peer that it may run at is not connected. It was not sent.
    #[error("peer {0} is not connected")]
    Unreachable(PeerId),
    /// The peer is leaving the mesh, or a newer process has taken its key. It did not run.
    #[error("the peer is leaving the mesh; submit it elsewhere")]
    Leaving,
    /// The peer holds as many bytes of objects as it may, and the task would add to them. Nothing of it took effect: delete
    /// something, or submit it where there is room.
    #[error("peer {at} has no room for what `{name}` would add: {full}")]
    NoRoom {
        /// The task's name.
        name: String,
        /// The peer.
        at: PeerId,
        /// What it holds, and may hold.
        full: NoRoom,
    },
    /// The clock of this peer, or of whoever made the id, is ahead: set it right. It did not run.
    #[error("the task was issued too far ahead of the clock of peer {at}, which says {} us; set this machine's clock right", receiver.0)]
    ClockAhead {
        /// The peer.
        at: PeerId,
        /// Its wall clock.
        receiver: Micros,
    },
    /// The peer's clock is wrong: it runs nothing until it is set right.
    #[error(
        "the clock of peer {at} is {ahead_ms} ms ahead of the median of the members' (negative: behind); set it right"
    )]
    ClockOff {
        /// The peer.
        at: PeerId,
        /// How far it is ahead, ms; negative when it is behind.
        ahead_ms: i64,
    },
    /// It is not known whether the task took effect, and nobody told it in time. Submit it again with the same id, at any
    /// peer: that runs it, or tells how it ended.
    #[error(
        "it is not known what became of `{name}`; submit it again with the same id {task}, at any peer: it takes effect once"
    )]
    Unknown {
        /// The task's name.
        name: String,
        /// The request.
        task: TaskId,
    },
    /// The task is so old that its anchor does not remember it any more: it was not run now. Whether it ever was, only the
    /// objects that it would have changed can tell.
    #[error(
        "`{name}` with id {task} is older than what its anchor remembers (10 minutes, 256 tasks): whether it took effect is not known, and it is not run now"
    )]
    Forgotten {
        /// The task's name.
        name: String,
        /// The request.
        task: TaskId,
    },
    /// The task had committed, and a crash or a change of leader undid it before it was stable. Submit it again with the
    /// same id if it is still wanted.
    #[error("`{name}` had committed, but was lost before it was stable: submit it again with the same id {task}")]
    Lost {
        /// The task's name.
        name: String,
        /// The request.
        task: TaskId,
    },
    /// The task has committed, and its deadline passed before that was stable. Ask for its fate, or submit it again with
    /// the same id.
    #[error("`{name}` has committed, but was not stable in time; ask for its fate by the receipt")]
    NotStable {
        /// The task's name.
        name: String,
        /// The request.
        task: TaskId,
        /// Where the commit stands.
        receipt: Box<Receipt>,
    },
    /// It took effect, and its answer is not of the type that is expected: two releases give one version two meanings.
    #[error("`{name}` took effect, but its answer does not decode: {reason}")]
    AnswerUndecodable {
        /// The task's name.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// The peer that it was submitted at stopped before it heard how the task ended.
    #[error("the peer stopped before it heard how `{name}` ended")]
    Stopped {
        /// The task's name.
        name: String,
    },
    /// This process cannot encode the task.
    #[error("`{name}` does not encode: {reason}")]
    Unencodable {
        /// The task's name.
        name: String,
        /// What does not fit.
        reason: String,
    },
}

impl TaskError {
    /// What became of the task.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Rejected { .. }
            | Self::Failed { .. }
            | Self::Panicked { .. }
            | Self::Unregistered { .. }
            | Self::OtherVersion { .. }
            | Self::Undecodable { .. }
            | Self::NoAnchor { .. }
            | Self::Deadline { .. }
            | Self::TooLarge { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Busy { .. }
            | Self::CallerBusy { .. }
            | Self::ToldOtherwise { .. }
            | Self::Unreachable(_)
            | Self::Leaving
            | Self::NoRoom { .. }
            | Self::ClockAhead { .. }
            | Self::ClockOff { .. }
            | Self::Unencodable { .. } => Outcome::Aborted,
            Self::Unknown { .. }
            | Self::Forgotten { .. }
            | Self::NotStable { .. }
            | Self::AnswerUndecodable { .. }
            | Self::Stopped { .. } => Outcome::Unknown,
            Self::Lost { .. } => Outcome::Lost,
        }
    }

    /// Why a task was aborted, at a peer.
    pub(super) fn of_abort(why: TaskAbort, task: TaskId, what: (&str, u32), deadline: Micros, at: PeerId) -> Self {
        let (name, here) = (what.0.to_owned(), what.1);
        match why {
            TaskAbort::Rejected(reason) => Self::Rejected { name, reason },
            TaskAbort::Panicked(message) => Self::Panicked { name, at, message },
            TaskAbort::Failed(reason) => Self::Failed { name, reason },
            TaskAbort::AnswerTooLarge(bytes) => Self::AnswerTooLarge { name, bytes },
            TaskAbort::Deadline => Self::Deadline { name, deadline },
            TaskAbort::Unregistered => Self::Unregistered { name, at },
            TaskAbort::OtherVersion { there } => Self::OtherVersion { name, at, here, there },
            TaskAbort::Undecodable(reason) => Self::Undecodable { name, at, reason },
            TaskAbort::NoAnchor => Self::NoAnchor { name, task },
            TaskAbort::Leaving => Self::Leaving,
            TaskAbort::NoRoom(full) => Self::NoRoom { name, at, full },
            TaskAbort::ClockOff { ahead_ms } => Self::ClockOff { at, ahead_ms },
            TaskAbort::ClockAhead { receiver } => Self::ClockAhead { at, receiver },
        }
    }
}
