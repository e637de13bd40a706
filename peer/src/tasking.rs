//! Tasks on their way: requests from here that run elsewhere, and requests from elsewhere that run here.
//!
//! To a good guess, and if what the task wants is in much use elsewhere, on to there, a few times at most; where it runs, what
//! it needs besides comes to it. It refuses to run anything (its host does, by `session`), to chase an object, and to know
//! what became of a task: the anchor knows (R21).

use crate::message::{Message, TaskAbort, TaskEnd, TaskRequest};
use crate::metrics::RareEvent;
use crate::routes::Route;
use crate::scheduling::ScheduleRun;
use crate::steps::{Receipt, StepError, Stepped};
use crate::task_ids::TaskIds;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_directory::Record;
use driftmesh_model::limits::{
    CLOCK_AHEAD_MAX, DEADLINE_MAX, TASK_ANSWER_BYTES_MAX, TASK_BYTES_MAX, TASK_KIND_BYTES_MAX, TASK_TOLD_MAX,
    TASK_TOUCHES_MAX,
};
use driftmesh_model::{Micros, Now, ObjectId, PeerId, TaskId, TxnId, Value};
use driftmesh_object_store::TaskSeen;
use driftmesh_txn::Intent;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;

/// Most tasks submitted here that are under way elsewhere (R24).
pub const TASKS_SUBMITTED_MAX: usize = 4_096;
/// Most tasks of others that run here.
pub const TASKS_RUNNING_MAX: usize = 1_024;
/// Most of them that one peer has sent: one caller leaves room for others.
pub const TASKS_RUNNING_PER_PEER_MAX: usize = 256;
/// Most tasks that run at the peer where they were submitted. More would only wait for each other until their deadlines.
pub const TASKS_RUNNING_HERE_MAX: usize = 1_024;
/// How often a task is sent on to what it wants; then it runs where it arrives, and what it wants comes to it. More than once,
/// because what many want may leave again before they arrive; and those who then fetch it make others come too late.
const SENT_ON_MAX: u8 = 3;
/// When somebody who was told `Busy` may try again.
pub(crate) const RETRY_AFTER: Micros = Micros::from_millis(20);
/// Who hears nothing sends the request again after this, then after twice as long, and so on.
const ASK_AGAIN_AFTER: Micros = Micros::from_millis(300);
const ASK_AGAIN_MAX: Micros = Micros::from_millis(5_000);
/// What an object counts for when a peer is chosen, if the task says that it touches it; twice if it is the anchor. What was
/// learned counts as often as former runs touched it, which is no more.
const DECLARED_WEIGHT: u64 = 16;
/// How often somebody looks whether what it was told in former groups is decided.
const LOOK_AGAIN_AFTER: Micros = Micros::from_millis(20);

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

/// A peer that a task may be sent to, and what speaks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskPlace {
    /// The peer.
    pub peer: PeerId,
    /// The sum: the highest wins, this peer if it has as much.
    pub score: u64,
    /// Objects there that the task says it touches, the anchor included.
    pub declared: usize,
    /// Objects there that former tasks of the kind and key touched.
    pub learned: usize,
    /// Whether it ran the last of these.
    pub ran_last: bool,
}

#[derive(Clone, Debug)]
struct Submitted {
    request: TaskRequest,
    to: TaskTo,
    /// Who should run it, whatever is known here.
    sent_on: Option<PeerId>,
    /// How often it was sent on.
    hops: u8,
    /// Who has the last copy of the request; nobody if it has to be sent.
    at: Option<PeerId>,
    /// Whether a copy was sent.
    is_sent: bool,
    /// Whether another copy may run or have run than the last one that was sent.
    again: bool,
    until: Micros,
    /// When it is sent again.
    due: Micros,
    pause: Micros,
    /// Who does not take it.
    refused_by: Vec<PeerId>,
    ended: Option<(PeerId, TaskEnd)>,
    told_early: ToldEarly,
}

/// Whether a task's answer was told before it is stable: once, whatever becomes of it.
#[derive(Clone, Debug)]
enum ToldEarly {
    No,
    Now(Provisional),
    Before,
}

/// A task of another peer.
#[derive(Clone, Copy, Debug)]
struct Running {
    task: TaskId,
    /// Whether its answer is told also before it is stable.
    provisional: bool,
}

/// All tasks on their way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    submitted: BTreeMap<TxnId, Submitted>,
    /// By who sent them, and their numbers there.
    running: BTreeMap<(PeerId, u64), Running>,
    /// How many of the submitted ones each peer has been sent and has not answered.
    sent_to: BTreeMap<PeerId, usize>,
    /// Who runs a task here that was submitted here.
    here: BTreeSet<TxnId>,
    pub(crate) starts: Vec<Run>,
    ids: TaskIds,
}

impl Tasks {
    pub(crate) fn is_idle(&self) -> bool {
        self.submitted.is_empty() && self.running.is_empty()
    }

    /// How many tasks submitted here are under way elsewhere, and how many of others run here.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.submitted.len(), self.running.len())
    }

    /// Notes who has the last copy of the request.
    fn set_at(&mut self, waiter: TxnId, at: Option<PeerId>) {
        let Some(submitted) = self.submitted.get_mut(&waiter) else { return };
        let former = std::mem::replace(&mut submitted.at, at);
        if let Some(peer) = at {
            *self.sent_to.entry(peer).or_default() += 1;
        }
        self.uncount(former);
    }

    fn remove(&mut self, waiter: TxnId) -> Option<Submitted> {
        let submitted = self.submitted.remove(&waiter)?;
        self.uncount(submitted.at);
        Some(submitted)
    }

    fn uncount(&mut self, former: Option<PeerId>) {
        if let Some(peer) = former
            && let Some(count) = self.sent_to.get_mut(&peer)
        {
            *count -= 1;
            if *count == 0 {
                self.sent_to.remove(&peer);
            }
        }
    }

    /// Whether one more would be refused for certain: where it is to run, or here if that is nowhere else.
    fn is_full(&self, at: Option<PeerId>) -> bool {
        match at {
            Some(peer) => self.sent_to.get(&peer).is_some_and(|count| *count >= TASKS_RUNNING_PER_PEER_MAX),
            None => self.here.len() >= TASKS_RUNNING_HERE_MAX,
        }
    }

    fn running_of(&self, peer: PeerId) -> usize {
        self.running.range((peer, 0)..=(peer, u64::MAX)).count()
    }
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

/// R18: what is issued far ahead would be the last to be forgotten, and then make others be forgotten.
fn is_issued_ahead(request: &TaskRequest, now: Now) -> bool {
    request.id.key.issued > now.wall.plus(CLOCK_AHEAD_MAX)
}

/// Whether a request keeps to the bounds (R24, R25).
fn is_within_bounds(request: &TaskRequest) -> bool {
    request.name.len() <= TASK_KIND_BYTES_MAX
        && request.body.len() <= TASK_BYTES_MAX
        && request.touches.len() <= TASK_TOUCHES_MAX
        && request.deadline > Micros(0)
        && request.oldest <= request.id.key.issued
}

impl Peer {
    /// A new id for a task with this anchor.
    pub fn new_task_id(&mut self, now: Now, anchor: ObjectId) -> TaskId {
        self.now = now;
        #[expect(clippy::cast_possible_truncation, reason = "half of a random number is random")]
        let key = self.tasks.ids.make(now.wall).unwrap_or_else(|| {
            let number = self.new_object_id().as_u128() as u64;
            self.tasks.ids.begin(now.wall, number)
        });
        TaskId { anchor, key }
    }

    /// Whoever submitted a task does not wait for it, nor run it, any more.
    pub(crate) fn task_is_told(&mut self, waiter: TxnId) {
        self.forget_task(waiter);
        self.tasks.here.remove(&waiter);
        self.tasks.ids.is_told(waiter);
    }

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

    /// The anchor of a task that names none: what it wants where it is sent on, or what all like it touched.
    fn anchor_for(&mut self, request: &TaskRequest, sent_on: Option<(PeerId, ObjectId)>) -> Option<ObjectId> {
        let learned = || self.routes.get(&request.name, request.key).and_then(Route::most);
        sent_on.map(|(_, object)| object).or_else(learned)
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
        if submitted.at.is_some() && now.mono < submitted.due {
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
        if !again && self.tasks.is_full(chosen) {
            // R24: early. It would wait behind what is to be refused, and hold up what is not.
            self.metrics.tasks_refused += 1;
            self.forget_task(waiter);
            let by = chosen.unwrap_or(self.config.peer);
            return Poll::Ready(TaskStep::Ended { task, by, end: TaskEnd::Busy { retry_after: RETRY_AFTER } });
        }
        let oldest = self.tasks.ids.oldest(&task);
        let Some(peer) = chosen else {
            self.tasks.here.insert(waiter);
            let Some(submitted) = self.forget_task(waiter) else { return Poll::Pending };
            let deadline = submitted.until.since(self.now.mono);
            let request = Box::new(TaskRequest { deadline, oldest, ..submitted.request });
            return Poll::Ready(TaskStep::RunHere { request, again, hops });
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
        self.tasks.set_at(waiter, Some(peer));
        // R6: and from what was committed here.
        self.send(peer, Message::Submit { ask: waiter.as_u64(), request: Box::new(request) });
        Poll::Pending
    }

    /// R1: the peer that a task is sent to, by records that are only hints. `None` for this one.
    fn place_for_task(&mut self, waiter: TxnId) -> Option<PeerId> {
        let submitted = self.tasks.submitted.get(&waiter)?;
        let refused_by = submitted.refused_by.clone();
        let may_run = |peer: &PeerId, this: &Self| {
            *peer == this.config.peer
                || (this.is_connected(peer) && !this.is_leaving(peer) && !refused_by.contains(peer))
        };
        if let Some(peer) = submitted.sent_on.filter(|peer| may_run(peer, self)) {
            return Some(peer).filter(|peer| *peer != self.config.peer);
        }
        let request = submitted.request.clone();
        let places = self.task_places(&request);
        let best = places.into_iter().find(|place| may_run(&place.peer, self))?;
        Some(best.peer).filter(|peer| *peer != self.config.peer)
    }

    /// The peers that a task may be sent to, the best first; none if nothing is known of what it touches. Of two that are as
    /// good this one is the better.
    pub fn task_places(&mut self, request: &TaskRequest) -> Vec<TaskPlace> {
        let mut places: BTreeMap<PeerId, TaskPlace> = BTreeMap::new();
        let mut add = |peer: PeerId, score: u64, declared: usize, learned: usize| {
            let empty = TaskPlace { peer, score: 0, declared: 0, learned: 0, ran_last: false };
            let place = places.entry(peer).or_insert(empty);
            place.score += score;
            place.declared += declared;
            place.learned += learned;
        };
        let anchor = request.id.anchor;
        if let Some(peer) = self.peer_of(anchor) {
            add(peer, 2 * DECLARED_WEIGHT, 1, 0);
        }
        let declared: BTreeSet<ObjectId> = request.touches.iter().copied().filter(|object| *object != anchor).collect();
        for peer in declared.iter().filter_map(|object| self.peer_of(*object)) {
            add(peer, DECLARED_WEIGHT, 1, 0);
        }
        if declared.is_empty()
            && let Some(route) = self.routes.get(&request.name, request.key).cloned()
        {
            for (object, count) in route.expected() {
                // Where there is no record, it is likely to be where the last run has left it.
                let peer = self.peer_of(object).unwrap_or(route.at);
                add(peer, u64::from(count), 0, 1);
            }
            if let Some(place) = places.get_mut(&route.at) {
                place.ran_last = true;
            }
        }
        let me = self.config.peer;
        let mut places: Vec<TaskPlace> = places.into_values().collect();
        places.sort_by_key(|place| (Reverse(place.score), place.peer != me, place.peer));
        places
    }

    /// Who owns an object, by the best record here.
    fn peer_of(&mut self, object: ObjectId) -> Option<PeerId> {
        let (_, record) = self.best_record(object)?;
        self.leader_of(record.group)
    }

    /// Learns from a task that took effect where the next one like it finds its data.
    pub fn learn_from_task(&mut self, request: &TaskRequest, by: PeerId, end: &TaskEnd, session: Option<ObjectId>) {
        let TaskEnd::Done { receipt, touched, .. } = end else { return };
        if by != self.config.peer {
            for (object, epoch) in touched.iter().take(TASK_TOLD_MAX) {
                let record = Record { object: *object, group: receipt.group, epoch: *epoch };
                if record.is_sound() {
                    self.hints.learn(record);
                }
            }
        }
        if request.touches.is_empty() {
            let touched = touched.iter().map(|(object, _)| *object).filter(|object| Some(*object) != session);
            self.routes.learn(&request.name, request.key, touched, by);
        }
    }

    /// What was learned of a task's anchor is wrong: there is no such object.
    pub fn forget_route(&mut self, request: &TaskRequest) {
        self.routes.forget(&request.name, request.key);
    }

    fn is_leaving(&self, peer: &PeerId) -> bool {
        self.members.get(peer).is_some_and(|member| member.draining != 0)
    }

    /// Whoever submitted a task does not wait for it any more.
    fn forget_task(&mut self, waiter: TxnId) -> Option<Submitted> {
        let submitted = self.tasks.remove(waiter)?;
        self.timers.clear(submitted.until, Timer::Wake(waiter));
        self.timers.clear(submitted.due, Timer::Wake(waiter));
        Some(submitted)
    }

    /// A peer is gone: what it was to run is sent elsewhere; the id makes that safe (R21).
    pub(crate) fn tasks_lose(&mut self, peer: PeerId) {
        for (waiter, submitted) in &mut self.tasks.submitted {
            if submitted.at == Some(peer) {
                submitted.due = self.now.mono;
                self.wakes.push(*waiter);
            }
        }
    }

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
            self.tasks.set_at(waiter, None);
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
        self.tasks.set_at(waiter, None);
        self.metrics.tasks_sent_on += 1;
        self.metrics.note(RareEvent::TaskSentOn);
        self.wakes.push(waiter);
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
