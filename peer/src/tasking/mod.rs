//! Tasks on their way: requests from here that run elsewhere (`submitting.rs`), where they go (`places.rs`), and requests from
//! elsewhere that run here (`running.rs`). Here is what is kept of them.
//!
//! To a good guess, and if what the task wants is in much use elsewhere, on to there, a few times at most; where it runs, what
//! it needs besides comes to it. It refuses to run anything (its host does, by `session`), to chase an object, and to know
//! what became of a task: the anchor knows (R21).

mod panicked;
mod places;
mod running;
mod submitting;

pub use panicked::{PANICKED_LISTED_MAX, PanickedTask};
pub use places::TaskPlace;
pub use running::{Run, TASKS_RUNNING_MAX, TASKS_RUNNING_PER_PEER_MAX, TaskFound, TaskRun};
pub use submitting::{
    NotSubmitted, Provisional, SubmitTask, TASKS_RUNNING_HERE_MAX, TASKS_SENT_PER_PEER_MAX, TASKS_SUBMITTED_MAX,
    TaskStep, TaskTo,
};

use crate::Peer;
use crate::message::{TaskAbort, TaskEnd, TaskRequest};
use crate::task_ids::TaskIds;
use driftmesh_model::limits::CLOCK_AHEAD_MAX;
use driftmesh_model::{Micros, Now, ObjectId, PeerId, TaskId, TxnId};
use panicked::Panicked;
use std::collections::{BTreeMap, BTreeSet};

/// When somebody who was told `Busy` may try again.
pub(crate) const RETRY_AFTER: Micros = Micros::from_millis(20);

/// How long a peer that was full is taken to be so.
const FULL_FOR: Micros = Micros::from_millis(2);
/// So much at least is sent to one that was full.
const WINDOW_MIN: usize = 16;
/// After so many tasks that ended there it is sent one more at a time.
const ENDED_PER_MORE: u32 = 16;

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
    /// Which peer it counts for among those that have not answered: the last that it was sent to, until that says anything.
    counted: Option<PeerId>,
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

/// How much a peer that was full is sent: less at each refusal, a little more as tasks end there (additive increase and
/// multiplicative decrease, Chiu and Jain 1989).
#[derive(Clone, Copy, Debug)]
struct Window {
    /// Tasks that it has not answered, at most.
    most: usize,
    /// Tasks that ended there since that changed.
    ended: u32,
    /// So long it is taken to be full whatever it has.
    full_until: Micros,
}

/// All tasks on their way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    submitted: BTreeMap<TxnId, Submitted>,
    /// By who sent them, and their numbers there.
    running: BTreeMap<(PeerId, u64), Running>,
    /// How many of the submitted ones each peer has been sent and has not answered.
    sent_to: BTreeMap<PeerId, usize>,
    /// What peers that were full are sent until they have proved that they take more.
    windows: BTreeMap<PeerId, Window>,
    /// Who runs a task here that was submitted here, or waits until what it did is stable.
    here: BTreeSet<TxnId>,
    pub(crate) starts: Vec<Run>,
    pub(crate) panicked: Panicked,
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

    /// A copy of the request goes to a peer, which has not answered then.
    fn count(&mut self, waiter: TxnId, peer: PeerId) {
        self.uncount(waiter);
        if let Some(submitted) = self.submitted.get_mut(&waiter) {
            (submitted.at, submitted.counted) = (Some(peer), Some(peer));
            *self.sent_to.entry(peer).or_default() += 1;
        }
    }

    /// The peer that it was sent to has said something, or is not waited for.
    fn uncount(&mut self, waiter: TxnId) {
        let counted = self.submitted.get_mut(&waiter).and_then(|submitted| submitted.counted.take());
        if let Some(peer) = counted
            && let Some(count) = self.sent_to.get_mut(&peer)
        {
            *count -= 1;
            if *count == 0 {
                self.sent_to.remove(&peer);
            }
        }
    }

    fn remove(&mut self, waiter: TxnId) -> Option<Submitted> {
        self.uncount(waiter);
        self.submitted.remove(&waiter)
    }

    /// How many tasks a peer has been sent and has not answered.
    fn sent(&self, peer: PeerId) -> usize {
        self.sent_to.get(&peer).copied().unwrap_or(0)
    }

    /// R24: a peer has refused a task because it has too many; what comes in the next moment would be told the same.
    fn note_full(&mut self, now: Micros, peer: PeerId) {
        let fewer = self.sent(peer) * 3 / 4;
        let window = self.windows.entry(peer).or_insert(Window {
            most: TASKS_SENT_PER_PEER_MAX,
            ended: 0,
            full_until: Micros(0),
        });
        // Those that were sent at once are refused at once: they count as one refusal.
        if now >= window.full_until {
            *window = Window { most: fewer.max(WINDOW_MIN).min(window.most), ended: 0, full_until: now.plus(FULL_FOR) };
        }
    }

    /// A task ended at a peer, which so may take more.
    fn note_ended(&mut self, peer: PeerId) {
        let Some(window) = self.windows.get_mut(&peer) else { return };
        window.ended += 1;
        if window.ended >= ENDED_PER_MORE {
            (window.most, window.ended) = (window.most + 1, 0);
        }
        if window.most >= TASKS_SENT_PER_PEER_MAX {
            self.windows.remove(&peer);
        }
    }

    /// Whether one more would be refused: where it is to run, or here if that is nowhere else.
    fn is_full(&self, now: Micros, at: Option<PeerId>) -> bool {
        match at {
            Some(peer) => {
                let window = self.windows.get(&peer);
                let most = window.map_or(TASKS_SENT_PER_PEER_MAX, |window| window.most);
                self.sent(peer) >= most || window.is_some_and(|window| now < window.full_until)
            }
            None => self.here.len() >= TASKS_RUNNING_HERE_MAX,
        }
    }

    fn running_of(&self, peer: PeerId) -> usize {
        self.running.range((peer, 0)..=(peer, u64::MAX)).count()
    }
}

/// R18: what is issued far ahead would be the last to be forgotten, and then make others be forgotten.
fn is_issued_ahead(request: &TaskRequest, now: Now) -> bool {
    request.id.key.issued > now.wall.plus(CLOCK_AHEAD_MAX)
}

/// Whether a request keeps to the bounds (R24, R25).
fn is_within_bounds(request: &TaskRequest) -> bool {
    !request.is_too_large() && request.deadline > Micros(0) && request.oldest <= request.id.key.issued
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

    /// Whoever ran tasks here is gone, and whoever submitted some.
    pub(crate) fn end_all_tasks(&mut self, now: Now) {
        for (from, ask) in self.tasks.running.keys().copied().collect::<Vec<_>>() {
            self.task_ended(now, from, ask, TaskEnd::aborted(TaskAbort::Leaving));
        }
        let submitted = self.tasks.submitted.keys().chain(&self.tasks.here).copied();
        for waiter in submitted.collect::<BTreeSet<_>>() {
            self.task_is_told(waiter);
        }
    }

    /// A task, or what was due of a schedule, panicked here. R26: it has ended with that, and is listed.
    pub(crate) fn note_panicked(&mut self, now: Now, name: &str, object: ObjectId, message: &str) {
        self.metrics.tasks_panicked += 1;
        self.tasks.panicked.note(now.wall, name, object, message);
    }

    fn is_leaving(&self, peer: &PeerId) -> bool {
        self.members.get(peer).is_some_and(|member| member.draining != 0)
    }
}
