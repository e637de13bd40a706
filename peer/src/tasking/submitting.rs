//! Tasks that were submitted here, as far as they run elsewhere: sent, sent again, sent on, until somebody says how they ended.
//!
//! A copy that is given up may still run: the id makes that safe (R21). It refuses to run a task (it says that it is to run
//! here), and to guess how one ended.

use super::{RETRY_AFTER, Submitted, ToldEarly, is_issued_ahead};
use crate::Peer;
use crate::message::{Message, TaskEnd, TaskRequest};
use crate::metrics::RareEvent;
use crate::steps::Receipt;
use crate::timers::Timer;
use driftmesh_model::limits::{DEADLINE_MAX, TASK_ANSWER_BYTES_MAX};
use driftmesh_model::{Micros, Now, ObjectId, PeerId, TaskId, TxnId, Value};
use std::task::Poll;

/// Most tasks submitted here that are under way elsewhere (R24).
pub const TASKS_SUBMITTED_MAX: usize = 4_096;
/// Most of them that one peer has not answered. Behind more it would hear late of everything else.
pub const TASKS_SENT_PER_PEER_MAX: usize = 1_024;
/// Most tasks that run at the peer where they were submitted, or wait there until what they did is stable. More would only wait
/// for each other until their deadlines, and make others wait.
pub const TASKS_RUNNING_HERE_MAX: usize = 1_024;
/// How often a task is sent on to what it wants; then it runs where it arrives, and what it wants comes to it. More than once,
/// because what many want may leave again before they arrive; and those who then fetch it make others come too late.
const SENT_ON_MAX: u8 = 3;
/// Who hears nothing sends the request again after this, then after twice as long, and so on.
const ASK_AGAIN_AFTER: Micros = Micros::from_millis(300);
const ASK_AGAIN_MAX: Micros = Micros::from_millis(5_000);
/// How often somebody looks whether what it was told in former groups is decided.
const LOOK_AGAIN_AFTER: Micros = Micros::from_millis(20);

/// Where a task is to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskTo {
    /// Where most of what it touches is, as far as is known; here if nothing is.
    Anywhere,
    /// At this peer, or nowhere.
    Peer(PeerId),
}

/// What somebody who has submitted a task does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskStep {
    /// Run it here. `again` if a copy of the request may run or have run elsewhere.
    RunHere {
        /// The request, as it would have been sent.
        request: Box<TaskRequest>,
        /// Whether it may.
        again: bool,
        /// Whether a copy was sent, if only to who has said not to run it: a network that repeats messages may let it run yet.
        was_sent: bool,
        /// How often it was sent on before.
        hops: u8,
    },
    /// It ran, and a crash may still undo that. How it ends is told later, once: whoever submitted it goes on asking.
    Provisional(Provisional),
    /// It has ended.
    Ended {
        /// The request; its anchor may have been chosen meanwhile.
        task: TaskId,
        /// Who says so.
        by: PeerId,
        /// How.
        end: TaskEnd,
    },
    /// Nobody has told how it ended, and its time is over, or the only peer that it could run at is gone.
    Unknown {
        /// The request; its anchor may have been chosen meanwhile.
        task: TaskId,
    },
    /// The only peer that it could run at is not connected. It was not sent.
    Unreachable,
}

/// What a task came to where it ran, before that is stable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Provisional {
    /// Who ran it.
    pub by: PeerId,
    /// The encoded answer.
    pub answer: Value,
    /// Where its commit stands.
    pub receipt: Receipt,
}

/// How a task is submitted.
#[derive(Clone, Debug)]
pub struct SubmitTask {
    /// What is to be done.
    pub request: TaskRequest,
    /// Where.
    pub to: TaskTo,
    /// Whether it was submitted before, wherever that was.
    pub again: bool,
    /// Whether the anchor may be another object, because the caller has named none and does not know the id yet.
    pub free_anchor: bool,
    /// Who should run it, if somebody was asked and said so; and what the task wants there.
    pub sent_on: Option<(PeerId, ObjectId)>,
    /// How often it was sent on so far.
    pub hops: u8,
}

/// Why a task is not submitted: nothing of it is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotSubmitted {
    /// Too many are under way.
    Busy,
    /// Its id was made by a clock that is too far ahead of this peer's (R18).
    ClockAhead {
        /// This peer's wall clock.
        receiver: Micros,
    },
}

impl Peer {
    /// Submits a task, on behalf of somebody who waits and then calls `poll_task`.
    ///
    /// # Errors
    /// Why nothing of it is kept.
    pub fn submit_task(&mut self, now: Now, waiter: TxnId, task: SubmitTask) -> Result<(), NotSubmitted> {
        self.now = now;
        let SubmitTask { mut request, to, again, free_anchor, sent_on, hops } = task;
        if is_issued_ahead(&request, now) {
            return Err(NotSubmitted::ClockAhead { receiver: now.wall });
        }
        if self.tasks.submitted.len() >= TASKS_SUBMITTED_MAX {
            return Err(NotSubmitted::Busy);
        }
        let until = now.mono.plus(request.deadline.min(DEADLINE_MAX));
        let is_fixed = matches!(to, TaskTo::Peer(_));
        let free_anchor = free_anchor && !again && !is_fixed;
        if let Some(anchor) = self.anchor_for(&request, sent_on).filter(|_| free_anchor) {
            request.id.anchor = anchor;
        }
        request.settled = is_fixed || hops >= SENT_ON_MAX;
        request.came_for = sent_on.map(|(_, object)| object);
        self.tasks.ids.wait_for(waiter, &request.id);
        let submitted = Submitted {
            request,
            to,
            sent_on: sent_on.map(|(peer, _)| peer),
            hops,
            at: None,
            counted: None,
            is_sent: false,
            again,
            until,
            due: now.mono,
            pause: ASK_AGAIN_AFTER,
            refused_by: Vec::new(),
            ended: None,
            told_early: ToldEarly::No,
        };
        self.tasks.submitted.insert(waiter, submitted);
        self.timers.set(until, Timer::Wake(waiter));
        Ok(())
    }

    /// What to do next about a task that was submitted. May be called again until it answers; `waiter` is woken. Once it
    /// has answered anything but `Provisional`, the task is not waited for any more.
    pub fn poll_task(&mut self, now: Now, waiter: TxnId) -> Poll<TaskStep> {
        self.now = now;
        let Some(submitted) = self.tasks.submitted.get_mut(&waiter) else { return Poll::Pending };
        let task = submitted.request.id;
        if let Some((by, end)) = submitted.ended.take() {
            self.forget_task(waiter);
            return Poll::Ready(TaskStep::Ended { task, by, end });
        }
        if now.mono >= submitted.until {
            self.forget_task(waiter);
            return Poll::Ready(TaskStep::Unknown { task });
        }
        if let ToldEarly::Now(provisional) = &submitted.told_early {
            let provisional = provisional.clone();
            submitted.told_early = ToldEarly::Before;
            return Poll::Ready(TaskStep::Provisional(provisional));
        }
        if now.mono < submitted.due {
            return Poll::Pending;
        }
        self.send_task(waiter)
    }

    /// Sends a task to the peer that suits it best, or says that this is that peer.
    fn send_task(&mut self, waiter: TxnId) -> Poll<TaskStep> {
        let Some(submitted) = self.tasks.submitted.get(&waiter) else { return Poll::Pending };
        let (fixed, again) = (submitted.to, submitted.again || submitted.at.is_some());
        let (task, hops) = (submitted.request.id, submitted.hops);
        let chosen = match fixed {
            TaskTo::Peer(peer) if peer == self.config.peer => None,
            TaskTo::Peer(peer) if self.is_connected(&peer) => Some(peer),
            TaskTo::Peer(_) => {
                let step = if submitted.is_sent { TaskStep::Unknown { task } } else { TaskStep::Unreachable };
                self.forget_task(waiter);
                return Poll::Ready(step);
            }
            TaskTo::Anywhere => self.place_for_task(waiter),
        };
        if self.tasks.is_full(self.now.mono, chosen)
            && let Some(step) = self.refuse_to_begin(waiter, chosen, again)
        {
            return step;
        }
        let oldest = self.tasks.ids.oldest(&task);
        let Some(peer) = chosen else {
            self.tasks.here.insert(waiter);
            let Some(submitted) = self.forget_task(waiter) else { return Poll::Pending };
            let (deadline, was_sent) = (submitted.until.since(self.now.mono), submitted.is_sent);
            let request = Box::new(TaskRequest { deadline, oldest, ..submitted.request });
            return Poll::Ready(TaskStep::RunHere { request, again, was_sent, hops });
        };
        // R6: what the caller asks for may come from what it was told by a group that this peer led before.
        if !self.former_leads_are_decided(waiter) {
            self.timers.set(self.now.mono.plus(LOOK_AGAIN_AFTER), Timer::Wake(waiter));
            return Poll::Pending;
        }
        let now = self.now;
        let Some(submitted) = self.tasks.submitted.get_mut(&waiter) else { return Poll::Pending };
        if submitted.at.is_some() {
            self.metrics.note(RareEvent::TaskSentAgain);
        }
        submitted.again = again;
        submitted.is_sent = true;
        submitted.due = now.mono.plus(submitted.pause);
        submitted.pause = Micros(submitted.pause.0.saturating_mul(2)).min(ASK_AGAIN_MAX);
        let request = TaskRequest { deadline: submitted.until.since(now.mono), oldest, ..submitted.request.clone() };
        self.timers.set(submitted.due, Timer::Wake(waiter));
        self.tasks.count(waiter, peer);
        // R6: and from what was committed here.
        self.send(peer, Message::Submit { ask: waiter.as_u64(), request: Box::new(request) });
        Poll::Pending
    }

    /// Whoever submitted a task does not wait for it any more.
    pub(super) fn forget_task(&mut self, waiter: TxnId) -> Option<Submitted> {
        let submitted = self.tasks.remove(waiter)?;
        self.timers.clear(submitted.until, Timer::Wake(waiter));
        self.timers.clear(submitted.due, Timer::Wake(waiter));
        Some(submitted)
    }

    /// R24: early. It would wait behind what is to be refused, and hold up what is not. `None` if only who runs it can say so.
    fn refuse_to_begin(&mut self, waiter: TxnId, chosen: Option<PeerId>, again: bool) -> Option<Poll<TaskStep>> {
        let now = self.now.mono;
        let submitted = self.tasks.submitted.get_mut(&waiter)?;
        if again || submitted.is_sent {
            // R21: a copy may run or have run. Here it waits for its turn.
            if chosen.is_some() {
                return None;
            }
            submitted.due = now.plus(submitted.pause);
            submitted.pause = Micros(submitted.pause.0.saturating_mul(2)).min(ASK_AGAIN_MAX);
            self.timers.set(submitted.due, Timer::Wake(waiter));
            return Some(Poll::Pending);
        }
        let task = submitted.request.id;
        self.metrics.tasks_refused += 1;
        self.forget_task(waiter);
        let by = chosen.unwrap_or(self.config.peer);
        Some(Poll::Ready(TaskStep::Ended { task, by, end: TaskEnd::Busy { retry_after: RETRY_AFTER } }))
    }

    /// A peer is gone: what it was to run is sent elsewhere; the id makes that safe (R21).
    pub(crate) fn tasks_lose(&mut self, peer: PeerId) {
        self.tasks.windows.remove(&peer);
        for (waiter, submitted) in &mut self.tasks.submitted {
            if submitted.at == Some(peer) {
                submitted.due = self.now.mono;
                self.wakes.push(*waiter);
            }
        }
    }

    /// A task that was sent to another peer has ended there, or was refused.
    pub(crate) fn task_told(&mut self, from: PeerId, ask: u64, task: TaskId, end: TaskEnd) {
        let waiter = TxnId::from_u64(ask);
        let Some(submitted) = self.tasks.submitted.get_mut(&waiter).filter(|submitted| submitted.request.id == task)
        else {
            return;
        };
        // R24, R25: no peer keeps or says so long an answer.
        if end.answer_bytes() > TASK_ANSWER_BYTES_MAX {
            self.metrics.malformed += 1;
            return;
        }
        if submitted.at == Some(from) {
            self.tasks.uncount(waiter);
        }
        if matches!(end, TaskEnd::Busy { .. }) {
            self.tasks.note_full(self.now.mono, from);
        } else if end.is_decided() {
            self.tasks.note_ended(from);
        }
        let Some(submitted) = self.tasks.submitted.get_mut(&waiter) else { return };
        if let TaskEnd::Elsewhere { object, at } = end {
            self.send_task_on(from, waiter, (object, at));
            return;
        }
        if end.is_decided() {
            submitted.ended = Some((from, end));
            self.wakes.push(waiter);
            return;
        }
        if submitted.at != Some(from) {
            // Of a copy that was given up: what became of it does not say what becomes of the next.
            return;
        }
        if end.is_for_others() && submitted.to == TaskTo::Anywhere {
            // It did not run there: somebody else runs it, this peer at the latest.
            submitted.refused_by.push(from);
            (submitted.at, submitted.due) = (None, self.now.mono);
        } else if submitted.again {
            // This copy did not run. What became of the others the anchor tells.
            let after = if let TaskEnd::Busy { retry_after } = end { retry_after } else { RETRY_AFTER };
            submitted.due = self.now.mono.plus(after.min(ASK_AGAIN_MAX).max(submitted.pause));
            self.timers.set(submitted.due, Timer::Wake(waiter));
            return;
        } else {
            submitted.ended = Some((from, end));
        }
        self.wakes.push(waiter);
    }

    /// A task that was sent to another peer ran, and that is not stable.
    pub(crate) fn task_told_early(&mut self, ask: u64, task: TaskId, told: Provisional) {
        let waiter = TxnId::from_u64(ask);
        let Some(submitted) = self.tasks.submitted.get_mut(&waiter).filter(|submitted| submitted.request.id == task)
        else {
            return;
        };
        // R24, R25: no peer keeps or says so long an answer.
        if told.answer.len() > TASK_ANSWER_BYTES_MAX {
            self.metrics.malformed += 1;
            return;
        }
        // Of a copy that was given up it says nothing; and when it has ended nobody needs it any more.
        let is_wanted = submitted.request.provisional && submitted.at == Some(told.by) && submitted.ended.is_none();
        if is_wanted && matches!(submitted.told_early, ToldEarly::No) {
            submitted.told_early = ToldEarly::Now(told);
            self.metrics.tasks_told_early += 1;
            self.wakes.push(waiter);
        }
    }

    /// A task did not run where it was sent, because what it wants is elsewhere: it goes there.
    fn send_task_on(&mut self, from: PeerId, waiter: TxnId, (object, at): (ObjectId, PeerId)) {
        let Some(submitted) = self.tasks.submitted.get_mut(&waiter) else { return };
        if submitted.at != Some(from) || submitted.to != TaskTo::Anywhere || submitted.request.settled {
            return;
        }
        // R21: under the same id, whatever the anchor: a network that repeats messages may still let the first one run it.
        submitted.sent_on = Some(at);
        submitted.request.came_for = Some(object);
        submitted.hops = submitted.hops.saturating_add(1);
        submitted.request.settled = submitted.hops >= SENT_ON_MAX;
        (submitted.at, submitted.due) = (None, self.now.mono);
        self.metrics.tasks_sent_on += 1;
        self.metrics.note(RareEvent::TaskSentOn);
        self.wakes.push(waiter);
    }
}
