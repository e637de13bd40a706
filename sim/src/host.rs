//! The simulator's host: lends a peer to the session, and keeps what its steps want done for the world to do.
//!
//! It refuses to do any of it itself: no message leaves and no task is woken inside a step.

use crate::executor::Job;
use crate::outside::Outside;
use crate::requests::{Request, Requests};
use crate::wall_clock::WallClock;
use driftmesh_model::{Now, PeerId, Timestamp, TxnId, TxnTimestamp};
use driftmesh_peer::session::{Host, Wakers};
use driftmesh_peer::{Commands, Peer, Receipt, Run};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Where the wall clocks begin: 2026-01-01, us since the UNIX epoch.
pub(crate) const WALL_START_US: u64 = 1_767_225_600_000_000;

/// The virtual time of a world, us since its start, and the sleepers.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    now_us: AtomicU64,
    sleepers: Mutex<Vec<(u64, Waker)>>,
}

impl Clock {
    pub(crate) fn now_us(&self) -> u64 {
        self.now_us.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, now_us: u64) {
        self.now_us.store(now_us, Ordering::Relaxed);
    }

    /// Takes those who have begun to sleep, and until when.
    pub(crate) fn new_sleepers(&self) -> Vec<(u64, Waker)> {
        std::mem::take(&mut self.sleepers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sleeps in virtual time.
    pub(crate) async fn sleep(&self, for_us: u64) {
        let until = self.now_us() + for_us;
        std::future::poll_fn(|context| {
            if self.now_us() >= until {
                return Poll::Ready(());
            }
            let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
            sleepers.push((until, context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

struct Core {
    peer: Peer,
    wakers: Wakers,
    commands: Vec<Commands>,
    steps: u64,
}

struct Inner {
    core: Mutex<Core>,
    clock: Arc<Clock>,
    wall_clock: WallClock,
    /// The peer's number in its world.
    index: usize,
    requests: Requests,
    /// What runs tasks of other peers here.
    runner: Mutex<Option<TaskRunner>>,
}

/// Makes the job that runs a task of another peer, or nothing if there is nobody to run it.
type TaskRunner = Arc<dyn Fn(SimHost, Run) -> Option<Job> + Send + Sync>;

/// One simulated peer's host. Clones share the peer.
#[derive(Clone)]
pub struct SimHost {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for SimHost {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SimHost").field("index", &self.inner.index).finish_non_exhaustive()
    }
}

/// Where a peer stands in its world.
pub(crate) struct Place {
    pub(crate) index: usize,
    pub(crate) clock: Arc<Clock>,
    pub(crate) requests: Requests,
    pub(crate) wall_clock: WallClock,
}

impl SimHost {
    pub(crate) fn new(place: Place, make: impl FnOnce(Now) -> Peer) -> Self {
        let Place { index, clock, requests, wall_clock } = place;
        let peer = make(wall_clock.now(&clock));
        let core = Core { peer, wakers: Wakers::default(), commands: Vec::new(), steps: 0 };
        let runner = Mutex::new(None);
        Self { inner: Arc::new(Inner { core: Mutex::new(core), clock, wall_clock, index, requests, runner }) }
    }

    /// Runs a future at this peer. It is polled in the world's order, and not while the peer stands still.
    pub fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        self.inner.requests.add(Request::Spawn(Some(self.inner.index), Box::pin(job)));
    }

    /// From now on tasks of other peers are run here by what this makes.
    pub fn run_tasks_by(&self, runner: impl Fn(Self, Run) -> Option<Job> + Send + Sync + 'static) {
        *self.inner.runner.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(runner));
    }

    /// The job that runs a task of another peer.
    pub(crate) fn job_of(&self, run: Run) -> Option<Job> {
        let runner = self.inner.runner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        runner?(self.clone(), run)
    }

    /// Sleeps for so many microseconds of virtual time. Cancel safe.
    pub async fn sleep(&self, for_us: u64) {
        self.inner.clock.sleep(for_us).await;
    }

    /// The other peers that are connected to this one, sorted.
    #[must_use]
    pub fn members(&self) -> Vec<PeerId> {
        let now = self.inner.wall_clock.now(&self.inner.clock);
        let members = self.look(|peer| peer.status(now).members);
        members.into_iter().filter(|member| member.connected).map(|member| member.peer).collect()
    }

    /// Says goodbye to all other peers: its connections end, for good.
    pub fn say_goodbye(&self) {
        self.inner.requests.add(Request::Goodbye(self.inner.index));
    }

    /// The world outside of the mesh.
    pub(crate) fn outside(&self) -> Outside {
        self.inner.requests.outside.clone()
    }

    /// The peer's number in its world.
    pub(crate) fn index(&self) -> usize {
        self.inner.index
    }

    /// Whether steps were taken that the world has not looked at.
    pub(crate) fn has_commands(&self) -> bool {
        self.lock().steps > 0
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.inner.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The true time, us, as this peer's wall clock would say it if it were right.
    pub(crate) fn true_wall_us(clock: &Clock) -> u64 {
        WALL_START_US + clock.now_us()
    }

    /// Takes what the steps since the last call want done, in exchange for an empty list, and how many steps there were.
    pub(crate) fn take_commands(&self, commands: &mut Vec<Commands>) -> u64 {
        let mut core = self.lock();
        std::mem::swap(&mut core.commands, commands);
        std::mem::take(&mut core.steps)
    }

    /// What a read of this peer's own group rests on, read just now: the end of that group's journal.
    pub(crate) fn read_receipt(&self) -> Receipt {
        self.look(|peer| {
            let group = peer.group();
            let txn = TxnTimestamp { time: Timestamp::ZERO, incarnation: 0, sequence: 0 };
            Receipt { group: group.id(), term: group.term(), lsn: group.tail(), commit: Timestamp::ZERO, txn }
        })
    }

    /// Looks at the peer without taking a step.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Peer) -> R) -> R {
        look(&mut self.lock().peer)
    }

    fn take<R>(&self, step: impl FnOnce(&mut Peer, Now) -> R, after: impl FnOnce(&R, &mut Wakers)) -> R {
        let (result, wakers) = {
            let mut core = self.lock();
            let now = self.inner.wall_clock.now(&self.inner.clock);
            let result = step(&mut core.peer, now);
            after(&result, &mut core.wakers);
            core.steps += 1;
            let mut wakers = Vec::new();
            if core.peer.has_commands() {
                let commands = core.peer.take_commands();
                for txn in &commands.wakes {
                    wakers.append(&mut core.wakers.take(*txn));
                }
                core.commands.push(commands);
            }
            (result, wakers)
        };
        for waker in wakers {
            waker.wake();
        }
        result
    }
}

impl Host for SimHost {
    fn step<R>(&self, step: impl FnOnce(&mut Peer, Now) -> R) -> R {
        self.take(step, |_, _| {})
    }

    fn poll_step<R>(
        &self,
        txn: TxnId,
        context: &mut Context<'_>,
        step: impl FnOnce(&mut Peer, Now) -> Poll<R>,
    ) -> Poll<R> {
        self.take(step, |result, wakers| {
            if result.is_pending() {
                wakers.park(txn, context.waker());
            }
        })
    }
}
