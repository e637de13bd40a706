//! Tasks of other peers that run here: what is taken, what is refused or told to go elsewhere, and what is said at the end.
//!
//! It refuses to run anything (its host does, by `session`), and to know what became of a task: the anchor knows (R21), and
//! here it is asked.

use super::{RETRY_AFTER, Running, is_issued_ahead, is_within_bounds};
use crate::message::{Message, TaskAbort, TaskEnd, TaskRequest};
use crate::metrics::RareEvent;
use crate::scheduling::ScheduleRun;
use crate::steps::{StepError, Stepped};
use crate::{Peer, Sabotage};
use driftmesh_model::limits::DEADLINE_MAX;
use driftmesh_model::{Now, ObjectId, PeerId, TaskId, TxnId, Value};
use driftmesh_object_store::TaskSeen;
use driftmesh_txn::Intent;
use std::task::Poll;

/// Most tasks of others that run here.
pub const TASKS_RUNNING_MAX: usize = 1_024;
/// Most of them that one peer has sent: one caller leaves room for others.
pub const TASKS_RUNNING_PER_PEER_MAX: usize = 256;

/// What a host is to run beside everything else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Run {
    /// A task of another peer.
    Task(TaskRun),
    /// An occurrence of a schedule.
    Schedule(ScheduleRun),
}

/// A task that runs here for another peer: a host runs it, and says how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskRun {
    /// Who sent it.
    pub from: PeerId,
    /// Its number there.
    pub ask: u64,
    /// What is to be done; its deadline counts from now.
    pub request: TaskRequest,
}

/// What the anchor says of a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskFound {
    /// It has not run.
    New,
    /// This was its answer.
    Ended(Value),
    /// It may have run, too long ago.
    Forgotten,
}

impl Peer {
    /// Another peer wants a task to be run here.
    pub(crate) fn task_asked(&mut self, from: PeerId, ask: u64, request: TaskRequest) {
        if !is_within_bounds(&request) {
            self.metrics.malformed += 1;
            return;
        }
        if self.tasks.running.contains_key(&(from, ask)) {
            // Under way: it is told when it has ended.
            return;
        }
        let task = request.id;
        if !request.settled
            && self.config.placement
            && let Some((object, at)) = self.better_place(&request).filter(|(_, at)| *at != from)
        {
            // R6: a pointer tells of a departure, which must be stable.
            self.send(from, Message::TaskEnded { ask, task, end: Box::new(TaskEnd::Elsewhere { object, at }) });
            return;
        }
        if let Some(end) = self.refuse_task(from, &request) {
            // Nothing of it depends on any journal.
            self.send_now(from, Message::TaskEnded { ask, task, end: Box::new(end) });
            return;
        }
        self.metrics.tasks_for_others += 1;
        self.tasks.running.insert((from, ask), Running { task, provisional: request.provisional });
        let request = TaskRequest { deadline: request.deadline.min(DEADLINE_MAX), ..request };
        self.tasks.starts.push(Run::Task(TaskRun { from, ask, request }));
    }

    /// Where a task should run whose anchor has left, or never was here, if nothing else of it is here.
    fn better_place(&mut self, request: &TaskRequest) -> Option<(ObjectId, PeerId)> {
        let anchor = request.id.anchor;
        let is_here = |object: &ObjectId| self.group.owned(*object).is_some();
        if is_here(&anchor) || request.touches.iter().chain(&request.came_for).any(is_here) {
            return None;
        }
        let at = self.peer_of(anchor).filter(|at| *at != self.config.peer && !self.is_leaving(at))?;
        Some((anchor, at))
    }

    /// Why a task is not run here at all.
    fn refuse_task(&mut self, from: PeerId, request: &TaskRequest) -> Option<TaskEnd> {
        if self.draining || self.is_superseded {
            return Some(TaskEnd::aborted(TaskAbort::Leaving));
        }
        if is_issued_ahead(request, self.now) {
            return Some(TaskEnd::aborted(TaskAbort::ClockAhead { receiver: self.now.wall }));
        }
        // R24: early, and before anything is kept.
        let is_full = self.tasks.running.len() >= TASKS_RUNNING_MAX;
        if is_full || self.tasks.running_of(from) >= TASKS_RUNNING_PER_PEER_MAX {
            self.metrics.tasks_refused += 1;
            return Some(TaskEnd::Busy { retry_after: RETRY_AFTER });
        }
        None
    }

    /// A task that ran here for another peer has ended.
    pub fn task_ended(&mut self, now: Now, from: PeerId, ask: u64, end: TaskEnd) {
        self.now = now;
        let Some(Running { task, provisional }) = self.tasks.running.remove(&(from, ask)) else { return };
        let may_be_told = end.receipt().is_none_or(|receipt| {
            let is_led = self.led(receipt.group).is_some_and(|group| group.term() == receipt.term);
            is_led || self.is_stable(receipt)
        });
        if may_be_told {
            if provisional
                && let TaskEnd::Done { answer, receipt, .. } = &end
                && !self.is_stable(receipt)
            {
                // Whoever hears it knows that it is not certain, and holds back what may depend on it (R6).
                let (answer, receipt) = (answer.clone(), *receipt);
                self.send_now(from, Message::TaskProvisional { ask, task, answer, receipt });
            }
            // R6: a result leaves when it is stable, as does whatever else leaves by `send`.
            self.send(from, Message::TaskEnded { ask, task, end: Box::new(end) });
        }
        // Else a change of leader decides what became of it. Whoever asked asks again, and the anchor answers.
    }

    /// How many outcomes the objects here keep. Looks at all of them.
    #[must_use]
    pub fn kept_outcomes(&self) -> usize {
        let kept =
            |stored: &driftmesh_object_store::Stored| stored.outcomes.as_ref().map_or(0, |outcomes| outcomes.len());
        self.group.owned_from(0).map(|(_, stored)| kept(stored)).sum()
    }

    /// R21: what the anchor says of a task, to a transaction that holds its lock and so owns it: nobody else can end the
    /// task before that transaction has ended.
    pub fn task_seen(&mut self, now: Now, id: TxnId, task: &TaskId) -> Stepped<TaskFound> {
        self.now = now;
        let holds = self.txns.get(id).and_then(|txn| txn.intents.get(&task.anchor)) == Some(&Intent::Checked);
        let Some(stored) = self.group.owned(task.anchor).filter(|_| holds) else {
            return Poll::Ready(Err(StepError::NotIntended(task.anchor)));
        };
        let seen = stored.outcomes.as_ref().map_or(TaskSeen::New, |outcomes| outcomes.look_up(task.key));
        let found = match seen {
            _ if self.broken(Sabotage::Tasks) => TaskFound::New,
            TaskSeen::New => TaskFound::New,
            TaskSeen::Ended(kept) => TaskFound::Ended(kept.answer.clone()),
            TaskSeen::Forgotten => TaskFound::Forgotten,
        };
        match found {
            TaskFound::New => {}
            TaskFound::Ended(_) => self.metrics.note(RareEvent::TaskMetAgain),
            TaskFound::Forgotten => self.metrics.tasks_forgotten += 1,
        }
        Poll::Ready(Ok(found))
    }
}
