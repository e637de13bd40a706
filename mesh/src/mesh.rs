//! The handle of a running peer: what users embed.
//!
//! It refuses to do anything by itself: each call is a step of the core, or a future of its sessions.

use crate::host::LiveHost;
use crate::status::{MeshStatus, OffenderView, ReplicationView, Surroundings, TransportView};
use crate::submit::Submit;
use crate::transactions::Transactions;
use crate::{
    Builder, Error, Fate, Fates, Metrics, NameWatch, OperatorError, Owned, Owner, Ownership, Promoted, Reads, Receipt,
    Result, Scheduled, Snapshot, StartError, Task, TaskId, Tx, Watch,
};
use driftmesh_model::{GroupId, Micros, Now, Object, ObjectId, PeerId, Ref};
use driftmesh_peer::Found;
use driftmesh_peer::session::{self, Options};
use futures::TryFutureExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a search that explains itself may take.
const EXPLAIN_MAX: Micros = Micros::from_millis(5_000);
/// How often a leaving peer looks how far it is.
const LEAVE_TICK: Duration = Duration::from_millis(5);
/// How long a leaving peer that owns nothing any more waits for transactions that are still open.
const LEAVE_GRACE: Duration = Duration::from_secs(1);
/// Two heartbeats: the others must have heard that this peer owns nothing before it says goodbye, or they would take
/// it for lost with objects.
const LEAVE_HEARD: Duration = Duration::from_millis(200);

/// A running peer of a mesh. Cheap to clone; clones are the same peer. It stops, without a goodbye, when the last
/// clone is dropped and the last transaction, snapshot, bridge, subscription, task and delivery has ended; [`Mesh::leave`] before that
/// hands its objects over.
#[derive(Clone, Debug)]
pub struct Mesh {
    pub(crate) host: LiveHost,
}

/// How a peer left its mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    /// Objects that other members took over.
    pub handed_over: usize,
    /// Objects that were not handed over, or of which it is not known whether another has them: all of them when it was
    /// the last peer. Deleted objects that are not forgotten yet count.
    pub stayed: usize,
    /// Those of them that nobody else in reach holds. The others have copies of the rest, and serve it when they have
    /// agreed on who leads.
    pub lost: usize,
}

impl Mesh {
    pub(crate) const fn new(host: LiveHost) -> Self {
        Self { host }
    }

    /// Settings of a peer to start.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Runs a closure as a transaction of kind `transaction` with a deadline of 5 s; see [`Mesh::task`] for others.
    ///
    /// All reads are of one snapshot of the whole mesh; all writes take effect at once, or none. The closure may be
    /// called several times, so it must not have effects of its own. The future does not borrow the mesh, and is
    /// `Send` when the closure, its futures and the result are.
    ///
    /// Cancel safe: dropping the future before it is ready aborts the transaction.
    ///
    /// # Errors
    /// What the closure returned, `Deadline` when it could not commit in time, or a limit. Nothing took effect then.
    pub fn transact<T, F, Fut>(&self, body: F) -> impl Future<Output = Result<T>> + use<T, F, Fut>
    where
        F: FnMut(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let done = session::transact(self.host.clone(), self.host.shared.default_options.clone(), body);
        // A block that awaits it would hold it twice: futures are moved about by value.
        done.map_ok(|done| done.value)
    }

    /// Transactions of a kind with this name, at most 64 bytes of it: what errors and metrics name.
    pub fn task(&self, kind: &str) -> Transactions {
        Transactions::new(self.host.clone(), Options::new(kind))
    }

    /// Runs a task where its data is: at the peer that owns most of what it touches, as far as this one knows, else here.
    /// It takes effect once, however often its request is repeated on the way. See [`Submit`] for the rest: await it, or
    /// say more first.
    ///
    /// Cancel safe: dropped before it is ready, the task takes effect once or not at all. Who wants to know which keeps an
    /// id of [`Mesh::task_id`].
    pub fn submit<T: Task>(&self, task: T) -> Submit<T> {
        Submit::new(self.host.clone(), task)
    }

    /// As [`Mesh::submit`], but runs it at this peer or not at all.
    pub fn submit_to<T: Task>(&self, peer: PeerId, task: T) -> Submit<T> {
        self.submit(task).to(peer)
    }

    /// A new id for a task, to be kept before it is submitted: with it the same task can be submitted again at any peer,
    /// also when this one is gone, and takes effect once ([`Submit::with_id`]).
    ///
    /// # Errors
    /// Only for a task without an anchor, when the object that stands in for it cannot be created.
    pub async fn task_id<T: Task>(&self, task: &T) -> Result<TaskId> {
        crate::submit::task_id(&self.host, task).await
    }

    /// The schedules of an object, in a transaction of its own: the object is locked for that, and so comes here.
    ///
    /// # Errors
    /// As [`Mesh::transact`]; `Dangling` or `ObjectLost`.
    pub async fn schedules(&self, owner: impl Owner) -> Result<Vec<Scheduled>> {
        let object = owner.object();
        let options = Options::new("list schedules");
        let listed = session::transact(self.host.clone(), options, |tx| async move { tx.schedules(object).await });
        Ok(listed.await?.value)
    }

    /// As [`Mesh::transact`], but ends only when the commit is stable: held by enough peers to survive the crash of this
    /// one. See [`Transactions::stable`].
    ///
    /// # Errors
    /// As [`Mesh::transact`]; and `Lost` or `NotStable` for a transaction that had committed.
    pub fn transact_stable<T, F, Fut>(&self, body: F) -> impl Future<Output = Result<T>> + use<T, F, Fut>
    where
        F: FnMut(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        self.task("transaction").stable().run(body)
    }

    /// How many outcomes of tasks are kept by the objects that this peer owns. Looks at all of them.
    #[must_use]
    pub fn kept_outcomes(&self) -> usize {
        self.host.shared.step(|peer, _| peer.kept_outcomes())
    }

    /// What became of a commit: asks other peers where this one cannot tell, also long after the peer that gave the
    /// receipt has gone. Cancel safe.
    pub async fn fate(&self, receipt: &Receipt) -> Fate {
        session::fate(self.host.clone(), *receipt).await
    }

    /// Waits until a commit is stable or lost, however long that takes. Cancel safe.
    pub async fn settled(&self, receipt: &Receipt) -> Fate {
        session::settled(self.host.clone(), *receipt).await
    }

    /// A stream of fates: follow the receipts of commits with it, and each is told once, when it is stable or lost. So
    /// whoever answers callers before a commit is stable can take back what a crash undid.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use driftmesh::{Fate, Mesh};
    ///
    /// let mesh = Mesh::builder().start().await?;
    /// let mut fates = mesh.fates();
    /// let done = mesh.task("order 7").run_with_receipt(|_| async { Ok(()) }).await?;
    /// fates.follow(done.committed.receipt, "order 7")?;
    /// while let Some(settled) = fates.next().await {
    ///     if let Fate::Lost { .. } = settled.fate {
    ///         println!("{} did not happen", settled.tag);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn fates<T>(&self) -> Fates<T> {
        Fates::new(self.host.clone())
    }

    /// Takes a snapshot of the whole mesh, for reads without locks.
    ///
    /// # Errors
    /// `Busy` when too many transactions and snapshots are open, `Leaving`.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(self.host.clone(), "snapshot")
    }

    /// Begins a session of read-only transactions whose snapshots may lie up to 50 ms in the past, so that copies at this
    /// peer can answer without a message: those of groups that it follows, and of objects that it often reads. What no
    /// copy can answer is asked of its owner, as by [`Mesh::snapshot`].
    ///
    /// The session sees everything that this peer committed or read before it began, and never goes back. Keep one for
    /// each player or view.
    #[must_use]
    pub fn reads(&self) -> Reads {
        Reads::begin(self.host.clone())
    }

    /// Watches an object, wherever it is and goes: the handle tells its newest stable version since it told the last one,
    /// by awaiting or by asking once a frame. Versions in between may be passed over, the last one never.
    ///
    /// # Errors
    /// `TooManyWatches`: 1,024 watches, or 4,096 watched objects, are open at this peer.
    pub fn watch<T: Object>(&self, reference: Ref<T>) -> Result<Watch<T>> {
        Watch::begin(self.host.clone(), reference)
    }

    /// Watches the names that begin with `prefix` (all, if it is empty): what is bound and freed, and the newest stable
    /// versions of what they are bound to.
    ///
    /// # Errors
    /// As [`Mesh::watch`].
    pub fn watch_names<T: Object>(&self, prefix: &str) -> Result<NameWatch<T>> {
        NameWatch::begin(self.host.clone(), prefix)
    }

    /// Who this peer is.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.host.shared.identity.peer
    }

    /// The other members that are connected, sorted.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerId> {
        self.host.shared.members()
    }

    /// Waits until at least so many other members are connected. Cancel safe.
    pub async fn wait_for_peers(&self, others: usize) {
        self.host.shared.wait_for_peers(others).await;
    }

    /// Waits until this peer belongs to a mesh: a peer has admitted it, or it founded one. Cancel safe.
    ///
    /// # Errors
    /// `Refused` when every join address refuses for good; `Unreachable` or `NotFounded` after `limit`. The peer goes on
    /// trying.
    pub async fn joined(&self, limit: Option<Duration>) -> Result<(), StartError> {
        self.host.shared.joining.joined(limit).await
    }

    /// What each join address last said, for a message to somebody who waits. Empty for a peer that founded its mesh.
    pub async fn join_progress(&self) -> Vec<String> {
        self.host.shared.joining.tried().await
    }

    /// How many peers wait for a mesh to be founded, this one included, as far as this one knows; see
    /// [`Builder::expect`]. 0 for a peer that does not wait for it, or not any more.
    #[must_use]
    pub fn fresh_peers(&self) -> usize {
        self.host.shared.joining.fresh_peers()
    }

    /// Where others can join: multiaddresses with `/p2p/`.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.host.shared.transport().map(crate::transport::Transport::addresses);
        addresses.unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    /// Whether this peer owns the object now. It may have left before the caller looks at the answer.
    #[must_use]
    pub fn is_owned(&self, object: ObjectId) -> bool {
        self.host.shared.step(|peer, _| peer.group().owned(object).is_some())
    }

    /// Walks through what this peer owns of one type, in no order that means anything. Deleted objects are left out,
    /// and so is what is on its way. Each value is the newest one when its page was read: not a snapshot.
    ///
    /// The walk takes one short step of the core for every 1,024 objects owned, of whatever type, so a loop does it
    /// once and then follows the events of [`Mesh::ownership`] or of a [`crate::Bridge`].
    #[must_use]
    pub fn owned<T: Object>(&self) -> Owned<T> {
        Owned::walk(self.host.clone())
    }

    /// Subscribes to what arrives at this peer and leaves it, from now on.
    ///
    /// # Errors
    /// `TooManySubscriptions`: a peer has at most 64.
    pub fn ownership(&self) -> Result<Ownership> {
        Ownership::subscribe(self.host.clone())
    }

    /// Finds an object by a search like that of a transaction, without moving it, and says how. Cancel safe.
    ///
    /// # Errors
    /// `Busy`, `Leaving`, or `Deadline` when nothing conclusive was heard within 5 s.
    pub async fn explain(&self, object: ObjectId) -> Result<Found> {
        session::explain(self.host.clone(), object, EXPLAIN_MAX).await
    }

    /// Founds a group anew, as its next generation, from what this peer holds of it: for a group that has lost its
    /// majority for good, by an operator's decision. Members that come back later give way. Cancel safe: dropped before it
    /// is ready, it may have happened.
    ///
    /// # Errors
    /// Why it cannot be; `AskPeer` names who holds more; `Beyond`, without `accept_loss`, what others have seen of the group
    /// that is not left. Nothing has changed then, unless it fails in its second round, after everybody agreed that it can be
    /// (`Unanswered`, as a rule): the former generation is over then, for some or for all, and the command has to be given
    /// again.
    pub async fn promote(&self, group: GroupId, accept_loss: bool) -> Result<Promoted, OperatorError> {
        session::promote(self.host.clone(), group, accept_loss).await
    }

    /// Gives up a group whose members are all gone for good, by an operator's decision: its objects answer `ObjectLost`
    /// from then on, and its receipts end as lost. A member that comes back begins anew. `force` does it although somebody
    /// in reach holds a copy. Cancel safe: dropped before it is ready, it may have happened.
    ///
    /// # Errors
    /// Why it is refused. Nothing has changed then.
    pub async fn forget(&self, group: GroupId, force: bool) -> Result<(), OperatorError> {
        session::forget(self.host.clone(), group, force).await
    }

    /// How long a bare round trip to another member takes now: over the same connection as everything else, past what
    /// waits there, without the cores of the two peers. Cancel safe.
    ///
    /// # Errors
    /// `PeerUnreachable` when it is not connected, or 16 of these are under way.
    pub async fn ping(&self, peer: PeerId) -> Result<Duration> {
        let unreachable = || Error::PeerUnreachable(peer);
        let transport = self.host.shared.transport().ok_or_else(unreachable)?;
        let begun = std::time::Instant::now();
        transport.ping(peer).await.map_err(|_| unreachable())?;
        Ok(begun.elapsed())
    }

    /// Sends nothing to any other member for so long, 10 s at most, while callers here are still answered. What is sent
    /// meanwhile waits, within the bounds of the queues, and goes out afterwards, unless the process ended before.
    #[cfg(feature = "testing")]
    pub fn hold_outgoing(&self, duration: Duration) {
        if let Some(transport) = self.host.shared.transport() {
            transport.hold_outgoing(duration);
        }
    }

    /// Makes the other members seem so far away: what this peer sends from now on arrives so much later, in order. For
    /// tests and measurements on one machine.
    #[cfg(feature = "testing")]
    pub fn delay_outgoing(&self, delay: Duration) {
        if let Some(transport) = self.host.shared.transport() {
            transport.delay_outgoing(delay);
        }
    }

    /// What this peer says of itself and its mesh.
    #[must_use]
    pub fn status(&self) -> MeshStatus {
        let shared = &self.host.shared;
        let (core, uptime_ms, replication, superseded) = shared.step(|peer, now| {
            let replication = ReplicationView::from(peer.metrics());
            (peer.status(now), now.mono.as_millis(), replication, peer.is_superseded())
        });
        let transport = shared.transport();
        let counters = transport.map(crate::transport::Transport::counters).unwrap_or_default();
        let offenders = transport.map(crate::transport::Transport::offenders).unwrap_or_default();
        let around = Surroundings {
            mesh: shared.identity.mesh.clone(),
            genesis: transport.and_then(crate::transport::Transport::genesis).map(|genesis| genesis.to_string()),
            addresses: self.addresses(),
            zone: shared.identity.zone.clone(),
            uptime_ms,
            transport: TransportView::new(counters, shared.counters.undecodable.load(Ordering::Relaxed)),
            offenders: offenders.into_iter().map(OffenderView::from).collect(),
            longest_core_hold_us: shared.longest_hold().0,
            replication,
            superseded,
        };
        MeshStatus::new(core, around)
    }

    /// From now on the objects that this peer holds may take so many bytes: to give a peer more room, or less, while it runs.
    /// Nothing that it holds goes. See [`Builder::held_bytes_max`](crate::Builder::held_bytes_max).
    pub fn set_held_bytes_max(&self, bytes: u64) {
        self.host.shared.step(|peer, _| peer.set_held_bytes_max(bytes));
    }

    /// What this peer has counted since its start.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.host.shared.step(|peer, _| peer.metrics().clone())
    }

    /// Leaves the mesh: new transactions are refused with `Leaving`, all objects go to other members, then a goodbye.
    /// Ends after `limit` (and 2 s at most for the goodbye) with what it has; at once when there is no other member.
    ///
    /// Transactions that are open go on; what they commit after the last object went is lost, so end them first.
    /// Cancel safe until the goodbye: dropped before, the peer stays, with the objects it still has, unless somebody else
    /// waits for it to leave.
    pub async fn leave(&self, limit: Duration) -> Left {
        let shared = &self.host.shared;
        let (stays, begun, before) = StayOnDrop::drain(&self.host);
        let mut empty_since = None;
        while !shared.members().is_empty() {
            let (now, is_drained) = shared.step(|peer, now| (now.mono, peer.is_drained()));
            let empty_for = Duration::from_micros(now.since(*empty_since.get_or_insert(now)).0);
            if !is_drained {
                empty_since = None;
            } else if empty_for >= LEAVE_HEARD && (empty_for >= LEAVE_GRACE || shared.step(is_idle)) {
                break;
            }
            if Duration::from_micros(now.since(begun).0) >= limit {
                break;
            }
            shared.sleep(LEAVE_TICK).await;
        }
        stays.disarm();
        shared.say_goodbye().await;
        let (stayed, has_copies) = shared.step(|peer, _| (holds(peer), peer.has_copies()));
        let lost = if has_copies { 0 } else { stayed };
        Left { handed_over: before.saturating_sub(stayed), stayed, lost }
    }

    /// Stops without handing anything over: says goodbye and lets go of the ports, 2 s at most. Later transactions
    /// are refused with `Leaving`.
    pub async fn shutdown(&self) {
        // The others judge the goodbye by what they last heard.
        self.host.shared.step(|peer, now| peer.announce(now));
        self.host.shared.say_goodbye().await;
        self.host.shared.step(|peer, now| peer.drain(now));
    }
}

/// The objects that would be lost if the peer stopped now.
fn holds(peer: &driftmesh_peer::Peer) -> usize {
    peer.group().owned_count() + peer.group().in_transit_count()
}

/// Whether no transaction is open. It takes a whole status to know, so it is asked only when everything else is done.
fn is_idle(peer: &mut driftmesh_peer::Peer, now: Now) -> bool {
    peer.status(now).transactions == 0
}

/// Lets the peer take objects again when the last of those that wait for its leaving gives up.
struct StayOnDrop<'a> {
    host: Option<&'a LiveHost>,
}

impl<'a> StayOnDrop<'a> {
    /// Begins to leave; tells when, and what the peer held then.
    fn drain(host: &'a LiveHost) -> (Self, Micros, usize) {
        // In the step, so that nobody stays between the two.
        let (begun, before) = host.shared.step(|peer, now| {
            host.shared.leaving.fetch_add(1, Ordering::Relaxed);
            peer.drain(now);
            (now.mono, holds(peer))
        });
        (Self { host: Some(host) }, begun, before)
    }

    /// It has left: others that still wait for that do not undo it.
    fn disarm(mut self) {
        self.host = None;
    }
}

impl Drop for StayOnDrop<'_> {
    fn drop(&mut self) {
        let Some(host) = self.host else { return };
        host.shared.step(|peer, now| {
            if host.shared.leaving.fetch_sub(1, Ordering::Relaxed) == 1 {
                peer.stay(now);
            }
        });
    }
}
