//! The tokio host of the core: one mutex, one step at a time, and everything slow outside of it.
//!
//! With the feature `test` a simulated peer can stand in its place: the same handles, in virtual time.
//!
//! A step holds the lock for microseconds. It refuses to hold it across an await, a codec call, a system call other
//! than one clock reading, or user code: messages are encoded and sent, and wakers woken, after it is released.

use crate::clock::Clock;
use crate::joining::Joining;
use crate::retry_budget::RetryBudget;
use crate::submit::StandIn;
use crate::transport::{SendError, Transport};
use driftmesh_model::{Micros, Now, PeerId, TxnId, codec};
use driftmesh_peer::session::{self, Handlers, Host, Options, Wakers};
use driftmesh_peer::{Envelope, Peer, Run, Seek};
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::coop::poll_proceed;

/// How long the thread of the timers sleeps when the core wants none.
const IDLE_SLEEP: Duration = Duration::from_secs(1);

/// How often somebody who waits in virtual time looks again.
#[cfg(feature = "test")]
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);
/// A batch of messages that takes longer lets go of the core in between (R24): one message takes longer, or does not.
const HOLD_MAX: Duration = Duration::from_millis(2);

/// What the mutex guards.
struct Core {
    peer: Peer,
    wakers: Wakers,
    clock: Clock,
    /// What the thread of the timers sleeps until.
    armed: Micros,
    longest_hold: Micros,
}

/// What a step wants done after the lock is released.
#[derive(Default)]
struct Effects {
    sends: Vec<(PeerId, Envelope)>,
    wakers: Vec<Waker>,
    seeks: Vec<Seek>,
    tasks: Vec<Run>,
    wants_earlier_timer: bool,
}

impl Core {
    /// Takes what one input to the core has caused; mostly that is nothing.
    #[inline]
    fn effects(&mut self) -> Option<Effects> {
        let nothing = !self.peer.has_commands() && self.peer.next_timer().is_none_or(|next| next >= self.armed);
        if nothing { None } else { Some(self.take_effects()) }
    }

    fn take_effects(&mut self) -> Effects {
        let commands = self.peer.take_commands();
        let mut wakers = Vec::new();
        for txn in commands.wakes {
            wakers.append(&mut self.wakers.take(txn));
        }
        let mut wants_earlier_timer = false;
        if let Some(next) = self.peer.next_timer()
            && next < self.armed
        {
            self.armed = next;
            wants_earlier_timer = true;
        }
        Effects { sends: commands.sends, wakers, seeks: commands.seeks, tasks: commands.tasks, wants_earlier_timer }
    }

    fn note_hold(&mut self, begun: Micros) {
        self.longest_hold = self.longest_hold.max(self.clock.mono().since(begun));
    }
}

/// A peer in this process, on tokio and libp2p.
struct Live {
    core: Mutex<Core>,
    /// Sleeps until a timer is due. Unparked when one is wanted earlier, and when the peer is gone.
    timers: OnceLock<Thread>,
    transport: OnceLock<Transport>,
    /// Where the peer runs, and what is begun for callers who are on no runtime.
    runtime: Handle,
}

/// What drives the core.
#[cfg_attr(feature = "test", expect(clippy::large_enum_variant, reason = "each peer has one, behind an `Arc`"))]
enum Driver {
    Live(Live),
    #[cfg(feature = "test")]
    Simulated(driftmesh_sim::SimHost),
}

/// What all handles of one peer share.
pub(crate) struct Shared {
    driver: Driver,
    pub(crate) joining: Joining,
    pub(crate) identity: Identity,
    pub(crate) counters: Counters,
    /// Of a plain `transact`: made once, so that a transaction allocates nothing for it.
    pub(crate) default_options: Options,
    /// Objects that prefetches are about to fetch.
    pub(crate) prefetching: AtomicUsize,
    /// How many wait for the peer to leave; those that have seen it leave stay counted.
    pub(crate) leaving: AtomicUsize,
    /// The types of tasks that can be run here.
    pub(crate) handlers: Arc<Handlers<LiveHost>>,
    /// The anchor of tasks that name none.
    pub(crate) stand_in: StandIn,
    pub(crate) retries: RetryBudget,
    /// Itself, for tasks that are run for others.
    this: Weak<Self>,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(|_| die())
    }

    fn wake_timers(&self) {
        if let Some(thread) = self.timers.get() {
            thread.unpark();
        }
    }
}

/// What never changes of a peer.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) peer: PeerId,
    pub(crate) mesh: String,
    pub(crate) zone: Option<String>,
}

/// What the driver counts beside the core and the transport.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Payloads and introductions that did not decode.
    pub(crate) undecodable: AtomicU64,
    /// Messages that did not encode or were too long for the wire: a mistake in the core.
    pub(crate) unsendable: AtomicU64,
}

/// Counts, and says whether to log: at 1, 2, 4, 8 ... so that a flood cannot fill the log.
pub(crate) fn count_and_should_log(counter: &AtomicU64) -> bool {
    (counter.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two()
}

impl Drop for Live {
    fn drop(&mut self) {
        self.wake_timers();
    }
}

/// Ends the process: the core's state can no longer be trusted, and waiting for it would hang every caller.
#[expect(clippy::print_stderr, reason = "the process ends here; a log filter must not hide why")]
fn die() -> ! {
    eprintln!(
        "driftmesh: the peer's core panicked (see the message above); its state cannot be trusted, so the process \
         ends here. Restart it, and report the panic message."
    );
    std::process::abort();
}

/// Ends the process when the task that holds it panics.
struct DieOnPanic;

impl Drop for DieOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            die();
        }
    }
}

impl Shared {
    pub(crate) fn new(
        mut peer: Peer,
        clock: Clock,
        identity: Identity,
        joining: Joining,
        handlers: Handlers<LiveHost>,
    ) -> Arc<Self> {
        peer.deliver_messages(handlers.messages());
        let core = Core { peer, wakers: Wakers::default(), clock, armed: Micros(u64::MAX), longest_hold: Micros(0) };
        let live = Live {
            core: Mutex::new(core),
            timers: OnceLock::new(),
            transport: OnceLock::new(),
            runtime: Handle::current(),
        };
        Self::with(Driver::Live(live), identity, joining, handlers)
    }

    /// A peer of a simulated mesh.
    #[cfg(feature = "test")]
    pub(crate) fn simulated(
        host: driftmesh_sim::SimHost,
        identity: Identity,
        handlers: Handlers<LiveHost>,
    ) -> Arc<Self> {
        let joining = Joining::new(crate::joining::Way::Found, &[]);
        host.step(|peer, _| peer.deliver_messages(handlers.messages()));
        let shared = Self::with(Driver::Simulated(host.clone()), identity, joining, handlers);
        let weak = Arc::downgrade(&shared);
        host.run_tasks_by(move |_, run| {
            let shared = weak.upgrade()?;
            let handlers = Arc::clone(&shared.handlers);
            Some(Box::pin(session::run_here(LiveHost { shared }, handlers, run)))
        });
        shared
    }

    fn with(driver: Driver, identity: Identity, joining: Joining, handlers: Handlers<LiveHost>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            driver,
            joining,
            identity,
            counters: Counters::default(),
            default_options: Options::new("transaction"),
            prefetching: AtomicUsize::new(0),
            handlers: Arc::new(handlers),
            stand_in: StandIn::default(),
            retries: RetryBudget::default(),
            leaving: AtomicUsize::new(0),
            this: Weak::clone(this),
        })
    }

    /// Whether it is a peer of a simulation: it has no runtime, and no time but the virtual one.
    pub(crate) const fn is_simulated(&self) -> bool {
        self.live().is_none()
    }

    const fn live(&self) -> Option<&Live> {
        match &self.driver {
            Driver::Live(live) => Some(live),
            #[cfg(feature = "test")]
            Driver::Simulated(_) => None,
        }
    }

    /// Gives the peer its way out. What the core sends before is lost; it repeats what matters.
    pub(crate) fn set_transport(&self, transport: Transport) {
        // Called once, by the start.
        let _ = self.live().map(|live| live.transport.set(transport));
    }

    pub(crate) fn transport(&self) -> Option<&Transport> {
        self.live()?.transport.get()
    }

    /// Takes one step of the core.
    pub(crate) fn step<R>(&self, step: impl FnOnce(&mut Peer, Now) -> R) -> R {
        #[cfg_attr(not(feature = "test"), expect(clippy::infallible_destructuring_match, reason = "it is not always"))]
        let live = match &self.driver {
            Driver::Live(live) => live,
            #[cfg(feature = "test")]
            Driver::Simulated(host) => return host.step(step),
        };
        let mut core = live.lock();
        let now = core.clock.now();
        let result = step(&mut core.peer, now);
        let effects = core.effects();
        drop(core);
        if let Some(effects) = effects {
            self.carry_out(live, effects);
        }
        result
    }

    fn step_at_hand<R>(&self, step: impl FnOnce(&mut Peer) -> Option<R>) -> Option<R> {
        match &self.driver {
            Driver::Live(live) => step(&mut live.lock().peer),
            #[cfg(feature = "test")]
            Driver::Simulated(host) => host.step_at_hand(step),
        }
    }

    fn poll_step<R>(
        &self,
        txn: TxnId,
        context: &mut Context<'_>,
        step: impl FnOnce(&mut Peer, Now) -> Poll<R>,
    ) -> Poll<R> {
        #[cfg_attr(not(feature = "test"), expect(clippy::infallible_destructuring_match, reason = "it is not always"))]
        let live = match &self.driver {
            Driver::Live(live) => live,
            #[cfg(feature = "test")]
            Driver::Simulated(host) => return host.poll_step(txn, context, step),
        };
        // Transactions whose steps all answer at once would let nothing else of their thread run, and so hear no other peer.
        let turn = ready!(poll_proceed(context));
        let mut core = live.lock();
        let now = core.clock.now();
        let result = step(&mut core.peer, now);
        if result.is_ready() {
            turn.made_progress();
        }
        if result.is_pending() {
            // Before the effects are taken: the step itself may have caused the wake-up.
            core.wakers.park(txn, context.waker());
        }
        let effects = core.effects();
        drop(core);
        if let Some(effects) = effects {
            self.carry_out(live, effects);
        }
        result
    }

    /// Takes a batch of inputs under one lock, or under several one after the other where that takes long. Each is an
    /// input of its own to the core, as in the simulator. Returns how long the lock was held.
    pub(crate) fn step_each<I>(
        &self,
        inputs: impl IntoIterator<Item = I>,
        mut step: impl FnMut(&mut Peer, Now, I),
    ) -> Duration {
        // Batches come from the transport, which a simulated peer does not have.
        let Some(live) = self.live() else { return Duration::ZERO };
        let mut held = Duration::ZERO;
        let mut inputs = inputs.into_iter().peekable();
        while inputs.peek().is_some() {
            let mut all = Effects::default();
            let mut core = live.lock();
            let (begun, now) = (Instant::now(), core.clock.now());
            for input in inputs.by_ref() {
                step(&mut core.peer, now, input);
                if let Some(mut effects) = core.effects() {
                    all.sends.append(&mut effects.sends);
                    all.wakers.append(&mut effects.wakers);
                    all.seeks.append(&mut effects.seeks);
                    all.tasks.append(&mut effects.tasks);
                    all.wants_earlier_timer |= effects.wants_earlier_timer;
                }
                // Whoever is called here waits for one such part, and not for all that somebody has sent.
                if begun.elapsed() >= HOLD_MAX {
                    break;
                }
            }
            core.note_hold(now.mono);
            drop(core);
            held += begun.elapsed();
            self.carry_out(live, all);
        }
        held
    }

    /// As if somebody had set the system's wall clock by so much.
    #[cfg(test)]
    pub(crate) fn set_wall(&self, by_us: i64) {
        if let Some(live) = self.live() {
            live.lock().clock.set_by += by_us;
        }
    }

    /// The longest time that the lock was held by a batch of messages or by timers; nothing in a simulation.
    pub(crate) fn longest_hold(&self) -> Micros {
        self.live().map_or(Micros(0), |live| live.lock().longest_hold)
    }

    fn carry_out(&self, live: &Live, effects: Effects) {
        for (to, envelope) in effects.sends {
            self.send(live, to, &envelope);
        }
        for waker in effects.wakers {
            waker.wake();
        }
        if !effects.seeks.is_empty()
            && let Some(transport) = live.transport.get()
        {
            effects.seeks.iter().for_each(|seek| transport.seek(seek.key()));
        }
        if effects.wants_earlier_timer {
            live.wake_timers();
        }
        for run in effects.tasks {
            self.start_task(live, run);
        }
    }

    /// Runs a task of another peer, or what is due of a schedule, beside everything else.
    fn start_task(&self, live: &Live, run: Run) {
        // A peer that ends runs nothing more: others go on with it.
        let Some(shared) = self.this.upgrade() else { return };
        let handlers = Arc::clone(&self.handlers);
        live.runtime.spawn(session::run_here(LiveHost { shared }, handlers, run));
    }

    fn send(&self, live: &Live, to: PeerId, envelope: &Envelope) {
        debug_assert!(to != self.identity.peer, "the core never sends to itself");
        let Some(transport) = live.transport.get() else { return };
        let mut payload = Vec::with_capacity(envelope.about_bytes());
        let sent = match codec::encode_into(&mut payload, envelope) {
            Ok(()) if envelope.message.is_in_haste() => transport.send_in_haste(to, payload),
            Ok(()) => transport.send(to, payload),
            Err(error) => {
                if count_and_should_log(&self.counters.unsendable) {
                    tracing::error!(%to, %error, "a message does not encode");
                }
                return;
            }
        };
        match sent {
            Ok(()) => {}
            // Counted by the transport; the core repeats what matters.
            Err(error @ (SendError::NotConnected | SendError::Busy)) => tracing::debug!(%to, %error, "not sent"),
            Err(error @ SendError::TooLong { .. }) => {
                if count_and_should_log(&self.counters.unsendable) {
                    tracing::error!(%to, %error, "a message is too long");
                }
            }
        }
    }

    /// Runs a future where the peer runs. It does not keep the peer running by itself.
    pub(crate) fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        match &self.driver {
            Driver::Live(live) => {
                live.runtime.spawn(job);
            }
            #[cfg(feature = "test")]
            Driver::Simulated(host) => host.spawn(job),
        }
    }

    /// Sleeps in the peer's time. Cancel safe.
    pub(crate) async fn sleep(&self, duration: Duration) {
        match &self.driver {
            Driver::Live(_) => tokio::time::sleep(duration).await,
            #[cfg(feature = "test")]
            Driver::Simulated(host) => host.sleep(Micros::from_duration(duration).0).await,
        }
    }

    /// The other members that are connected, sorted.
    pub(crate) fn members(&self) -> Vec<PeerId> {
        match &self.driver {
            Driver::Live(_) => self.joining.members(),
            #[cfg(feature = "test")]
            Driver::Simulated(host) => host.members(),
        }
    }

    /// Waits until at least so many other members are connected. Cancel safe.
    pub(crate) async fn wait_for_peers(&self, others: usize) {
        match &self.driver {
            Driver::Live(_) => self.joining.wait_for_peers(others).await,
            #[cfg(feature = "test")]
            Driver::Simulated(host) => {
                while host.members().len() < others {
                    self.sleep(LOOK_AGAIN_AFTER).await;
                }
            }
        }
    }

    /// Says goodbye to all members and lets go of the ports, 2 s at most.
    pub(crate) async fn say_goodbye(&self) {
        match &self.driver {
            Driver::Live(live) => {
                if let Some(transport) = live.transport.get() {
                    transport.shutdown().await;
                }
            }
            #[cfg(feature = "test")]
            Driver::Simulated(host) => host.say_goodbye(),
        }
    }

    /// Fires the timers that are due; returns how long to sleep.
    fn fire_timers(&self, live: &Live) -> Duration {
        let mut core = live.lock();
        core.clock.refresh();
        let now = core.clock.now();
        let begun = Instant::now();
        if core.peer.next_timer().is_some_and(|next| next <= now.mono) {
            core.peer.timers_due(now);
        }
        // What is due next is slept for right here, so nobody need tell.
        core.armed = Micros(0);
        let effects = core.take_effects();
        let next = core.peer.next_timer();
        core.armed = next.unwrap_or(Micros(u64::MAX));
        core.note_hold(now.mono);
        drop(core);
        self.carry_out(live, effects);
        // The step, sending and waking took their time, which must not be slept once more.
        let sleep = next.map_or(IDLE_SLEEP, |next| Duration::from_micros(next.since(now.mono).0).min(IDLE_SLEEP));
        sleep.saturating_sub(begun.elapsed())
    }
}

/// Runs the core's timers until the peer is gone, on a thread of their own: the runtime's timers are a millisecond apart,
/// which is as long as a whole batching interval.
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn spawn_timers(shared: &Arc<Shared>) -> io::Result<()> {
    let Some(live) = shared.live() else { return Ok(()) };
    let weak: Weak<Shared> = Arc::downgrade(shared);
    let thread = std::thread::Builder::new().name("driftmesh-timers".to_owned()).spawn(move || {
        // Whoever else panics in the core poisons the lock, and this thread finds that at the next heartbeat.
        let _die_on_panic = DieOnPanic;
        while let Some(shared) = weak.upgrade() {
            let Some(sleep) = shared.live().map(|live| shared.fire_timers(live)) else { return };
            drop(shared);
            // An earlier timer, the end of the time and a wake-up for no reason mean the same: look again.
            std::thread::park_timeout(sleep);
        }
    })?;
    // Called once, by the start. What wanted an earlier timer before is seen in the first look.
    let _ = live.timers.set(thread.thread().clone());
    Ok(())
}

/// Lends the core to transactions. Clones share it; the last handle that is dropped stops the peer.
#[derive(Clone)]
pub struct LiveHost {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for LiveHost {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LiveHost").field("peer", &self.shared.identity.peer).finish()
    }
}

impl Host for LiveHost {
    fn step<R>(&self, step: impl FnOnce(&mut Peer, Now) -> R) -> R {
        self.shared.step(step)
    }

    fn step_at_hand<R>(&self, step: impl FnOnce(&mut Peer) -> Option<R>) -> Option<R> {
        self.shared.step_at_hand(step)
    }

    fn poll_step<R>(
        &self,
        txn: TxnId,
        context: &mut Context<'_>,
        step: impl FnOnce(&mut Peer, Now) -> Poll<R>,
    ) -> Poll<R> {
        self.shared.poll_step(txn, context, step)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Mesh, Object, ObjectId, Ref};
    use serde::{Deserialize, Serialize};
    use std::sync::Arc;
    use std::task::{Context, Wake, Waker};

    #[derive(Serialize, Deserialize)]
    struct Thing;
    impl Object for Thing {
        const TYPE_NAME: &'static str = "thing";
    }

    struct Counted;
    impl Wake for Counted {
        fn wake(self: Arc<Self>) {}
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dropped_transaction_leaves_no_waker_behind() {
        let mesh = Mesh::builder().start().await.unwrap();
        let other = Mesh::builder().join(&mesh.addresses()[0]).start().await.unwrap();
        mesh.wait_for_peers(1).await;
        let counted = Arc::new(Counted);
        let waker = Waker::from(Arc::clone(&counted));
        // Nobody has the object, so the first poll begins a search.
        let nowhere: Ref<Thing> = Ref::from_id(ObjectId::from_u128(7));
        let mut waits = Box::pin(mesh.transact(|tx| async move { tx.get(nowhere).await }));
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop((waits, waker));
        // The search may be at the point of waking it.
        mesh.transact(|tx| async move { tx.create(&Thing) }).await.unwrap();
        assert_eq!(Arc::strong_count(&counted), 1);
        drop(other);
    }

    /// Set in the process that is to panic.
    const PANICS: &str = "DRIFTMESH_TEST_PANICS";

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_in_the_core_ends_the_process() {
        if std::env::var_os(PANICS).is_none() {
            let test = "host::tests::a_panic_in_the_core_ends_the_process";
            let mut process = std::process::Command::new(std::env::current_exe().unwrap());
            let ended = process.args([test, "--exact", "--nocapture"]).env(PANICS, "1").output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(!ended.status.success() && said.contains("Restart it, and report the panic message"), "{said}");
            return;
        }
        let mesh = Mesh::builder().start().await.unwrap();
        let shared = Arc::clone(&mesh.host.shared);
        let panicked = tokio::spawn(async move { shared.step(|_, _| panic!("a mistake in the core")) });
        let _ = panicked.await;
        // Nobody but the timer task takes a step any more. Longer than any heartbeat: not reached.
        tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    }
}
