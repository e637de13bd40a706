//! The simulator's host: lends a peer to the session, and keeps what its steps want done for the world to do.

use driftmesh_model::{Micros, Now, TxnId};
use driftmesh_peer::session::{Host, Wakers};
use driftmesh_peer::{Commands, Peer};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Where the wall clocks begin: 2026-01-01, us since the UNIX epoch.
const WALL_START_US: u64 = 1_767_225_600_000_000;

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
    /// This peer's wall clock minus the true one, us.
    wall_offset_us: i64,
}

/// One simulated peer's host.
#[derive(Clone)]
pub(crate) struct SimHost {
    inner: Arc<Inner>,
}

/// The time at a peer whose wall clock is off by so much.
pub(crate) fn now_at(clock: &Clock, wall_offset_us: i64) -> Now {
    let mono = clock.now_us();
    let wall = (WALL_START_US + mono).saturating_add_signed(wall_offset_us);
    Now { mono: Micros(mono), wall: Micros(wall) }
}

impl SimHost {
    pub(crate) fn new(clock: Arc<Clock>, wall_offset_us: i64, make: impl FnOnce(Now) -> Peer) -> Self {
        let peer = make(now_at(&clock, wall_offset_us));
        let core = Core { peer, wakers: Wakers::default(), commands: Vec::new(), steps: 0 };
        Self { inner: Arc::new(Inner { core: Mutex::new(core), clock, wall_offset_us }) }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.inner.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The true time, us, as this peer's wall clock would say it if it were right.
    pub(crate) fn true_wall_us(clock: &Clock) -> u64 {
        WALL_START_US + clock.now_us()
    }

    /// Takes what the steps since the last call want done, and how many steps there were.
    pub(crate) fn take_commands(&self) -> (u64, Vec<Commands>) {
        let mut core = self.lock();
        (std::mem::take(&mut core.steps), std::mem::take(&mut core.commands))
    }

    /// Replaces the peer by a fresh one: it has left, and comes back as somebody new.
    pub(crate) fn replace(&self, make: impl FnOnce(Now) -> Peer) {
        let mut core = self.lock();
        core.peer = make(now_at(&self.inner.clock, self.inner.wall_offset_us));
        core.commands.clear();
    }

    /// Looks at the peer without taking a step.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Peer) -> R) -> R {
        look(&mut self.lock().peer)
    }

    fn take<R>(&self, step: impl FnOnce(&mut Peer, Now) -> R, after: impl FnOnce(&R, &mut Wakers)) -> R {
        let (result, wakers) = {
            let mut core = self.lock();
            let now = now_at(&self.inner.clock, self.inner.wall_offset_us);
            let result = step(&mut core.peer, now);
            after(&result, &mut core.wakers);
            let commands = core.peer.take_commands();
            let mut wakers = Vec::new();
            for txn in &commands.wakes {
                wakers.append(&mut core.wakers.take(*txn));
            }
            core.steps += 1;
            core.commands.push(commands);
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
