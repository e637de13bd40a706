//! Who is admitted: the one place where sessions begin and end, and what all tasks of a transport share.
//!
//! It refuses a second session of a peer before the first has ended, a second mesh, incarnations that a newer one
//! replaced, and more than a bounded number of peers. It never calls the handler while it holds a lock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use driftmesh_model::PeerId;
use libp2p::Multiaddr;
use tokio::sync::mpsc;

use super::Handler;
use super::conduct::Conduct;
use super::counters::Counters;
#[cfg(feature = "testing")]
use super::delay::Delay;
use super::door::Host;
use super::fresh::FreshLink;
#[cfg(feature = "testing")]
use super::hold::Hold;
use super::lanes::Lanes;
use super::latch::Latch;
use super::limits::{
    FRESH_LINKS_MAX, HANDSHAKES_PER_HOST_MAX, OTHER_MESHES_REMEMBERED, SUPERSEDED_REMEMBERED, UNASKED_REMEMBERED,
};
use super::ping::Pings;
use super::reason::{Genesis, RefuseReason};
use super::swarm::Command;

/// One admitted peer, from its admission to its leaving.
pub(super) struct Session {
    pub(super) peer: PeerId,
    pub(super) libp2p_peer: libp2p::PeerId,
    pub(super) incarnation: u64,
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) lanes: Lanes,
    pub(super) pings: Pings,
    /// Set when a newer connection of the same peer takes over.
    pub(super) replaced: Latch,
    /// Set when the session has ended and its `Left` was told.
    pub(super) ended: Latch,
}

/// What the local side of every handshake says.
pub(super) struct Local {
    pub(super) peer: PeerId,
    pub(super) libp2p_peer: libp2p::PeerId,
    pub(super) protocol_version: u32,
    pub(super) mesh_name: String,
    /// How many peers are to found a mesh, this one included.
    pub(super) expect: Option<u16>,
    pub(super) incarnation: u64,
    pub(super) hello: Vec<u8>,
    pub(super) advertise: Vec<Multiaddr>,
    /// The key of the proofs, derived from the mesh secret.
    pub(super) proof_key: [u8; 32],
    pub(super) peers_max: usize,
}

#[derive(Default)]
struct State {
    genesis: Option<Genesis>,
    is_closing: bool,
    handshakes: HashSet<PeerId>,
    /// Places promised to peers that are about to be admitted.
    reserved: usize,
    superseded: VecDeque<(PeerId, u64)>,
    /// Whether a member has said that this peer's own incarnation is superseded.
    is_superseded: bool,
    /// The incarnation of each peer that was admitted last.
    last: HashMap<PeerId, u64>,
    listening: Vec<Multiaddr>,
    /// The links to fresh peers, each with a number that tells it from those it replaced.
    fresh: HashMap<PeerId, (u64, FreshLink)>,
    next_fresh: u64,
    /// Peers that were dialled last because of mDNS only, so that nobody waits for them.
    unasked: VecDeque<PeerId>,
    /// Foreign meshes that the user was told of: name, and genesis where the name is ours.
    other_meshes: HashSet<(String, Option<Genesis>)>,
    /// The last address by which each connected peer came or was dialled.
    endpoints: HashMap<PeerId, Multiaddr>,
}

impl State {
    /// A peer is admitted: whatever was admitted under its key before, connected or not, is so no more.
    fn supersede(&mut self, peer: PeerId, incarnation: u64) {
        if self.last.len() >= SUPERSEDED_REMEMBERED && !self.last.contains_key(&peer) {
            // Peers have keys of their own as a rule: what is forgotten matters only for one that is used twice.
            self.last.clear();
        }
        let Some(former) = self.last.insert(peer, incarnation).filter(|former| *former != incarnation) else { return };
        self.superseded.push_back((peer, former));
        if self.superseded.len() > SUPERSEDED_REMEMBERED {
            self.superseded.pop_front();
        }
    }
}

/// What all tasks of one transport share.
pub(super) struct Shared {
    pub(super) local: Local,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) counters: Counters,
    pub(super) commands: mpsc::Sender<Command>,
    /// Set when everything is to end at once.
    pub(super) stop: Latch,
    /// Set when this peer belongs to a mesh.
    pub(super) genesis_known: Latch,
    /// Keeps everything from being written for a while.
    #[cfg(feature = "testing")]
    pub(super) hold: Hold,
    /// How far away the peers are made to seem.
    #[cfg(feature = "testing")]
    pub(super) delay: Delay,
    state: Mutex<State>,
    conduct: Mutex<Conduct>,
    /// How many handshakes each host has begun that are under way.
    greeting: Mutex<HashMap<Host, usize>>,
    sessions: RwLock<HashMap<PeerId, Arc<Session>>>,
}

/// The right to run the one handshake with a peer; given back when dropped.
pub(super) struct HandshakeTurn {
    shared: Arc<Shared>,
    peer: PeerId,
}

impl Drop for HandshakeTurn {
    fn drop(&mut self) {
        self.shared.lock().handshakes.remove(&self.peer);
    }
}

/// One of the handshakes that a host may have under way; given back when dropped.
pub(super) struct HostTurn {
    shared: Arc<Shared>,
    host: Option<Host>,
}

impl Drop for HostTurn {
    fn drop(&mut self) {
        let Some(host) = self.host else { return };
        let mut greeting = self.shared.greeting();
        if let Some(count) = greeting.get_mut(&host) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                greeting.remove(&host);
            }
        }
    }
}

/// A place among the admitted peers; given back when dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.reserved = state.reserved.saturating_sub(1);
    }
}

impl Shared {
    /// Nobody is admitted yet.
    pub(super) fn new(
        local: Local,
        genesis: Option<Genesis>,
        handler: Arc<dyn Handler>,
        commands: mpsc::Sender<Command>,
        counters: Counters,
    ) -> Self {
        let genesis_known = Latch::new();
        if genesis.is_some() {
            genesis_known.set();
        }
        Self {
            local,
            genesis_known,
            #[cfg(feature = "testing")]
            hold: Hold::default(),
            #[cfg(feature = "testing")]
            delay: Delay::default(),
            handler,
            counters,
            commands,
            stop: Latch::new(),
            state: Mutex::new(State { genesis, ..State::default() }),
            conduct: Mutex::default(),
            greeting: Mutex::default(),
            sessions: RwLock::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How members behave.
    pub(super) fn conduct(&self) -> MutexGuard<'_, Conduct> {
        self.conduct.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn greeting(&self) -> MutexGuard<'_, HashMap<Host, usize>> {
        self.greeting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a handshake that this host wants, unless it has begun too many.
    pub(super) fn greet_host(self: &Arc<Self>, host: Option<Host>) -> Option<HostTurn> {
        if let Some(host) = host {
            let mut greeting = self.greeting();
            let count = greeting.entry(host).or_default();
            if *count >= HANDSHAKES_PER_HOST_MAX {
                return None;
            }
            *count += 1;
        }
        Some(HostTurn { shared: Arc::clone(self), host })
    }

    /// The mesh that this peer belongs to, if it has found one.
    pub(super) fn genesis(&self) -> Option<Genesis> {
        self.lock().genesis
    }

    /// The session of an admitted peer.
    pub(super) fn session(&self, peer: &PeerId) -> Option<Arc<Session>> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }

    /// The sessions of all admitted peers, in no order.
    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Begins the handshake with a peer, unless one is under way or the transport shuts down.
    pub(super) fn begin_handshake(self: &Arc<Self>, peer: PeerId) -> Option<HandshakeTurn> {
        let mut state = self.lock();
        if state.is_closing || !state.handshakes.insert(peer) {
            return None;
        }
        drop(state);
        Some(HandshakeTurn { shared: Arc::clone(self), peer })
    }

    /// Whether a handshake with the peer is under way.
    pub(super) fn is_in_handshake(&self, peer: &PeerId) -> bool {
        self.lock().handshakes.contains(peer)
    }

    /// Promises a place to a peer that proved the secret.
    ///
    /// # Errors
    /// When the transport shuts down, the incarnation was replaced by a newer one, or no place is left.
    pub(super) fn reserve(self: &Arc<Self>, peer: PeerId, incarnation: u64) -> Result<Place, RefuseReason> {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        if state.is_closing {
            return Err(RefuseReason::ShuttingDown);
        }
        if state.superseded.contains(&(peer, incarnation)) {
            return Err(RefuseReason::DuplicateIncarnation);
        }
        if !sessions.contains_key(&peer) && sessions.len() + state.reserved >= self.local.peers_max {
            return Err(RefuseReason::TooManyPeers);
        }
        state.reserved += 1;
        drop(state);
        drop(sessions);
        Ok(Place { shared: Arc::clone(self) })
    }

    /// Joins the mesh of the peer that admits this one, unless it has joined one already.
    ///
    /// # Errors
    /// When this peer belongs to another mesh.
    pub(super) fn adopt(&self, genesis: Genesis) -> Result<(), RefuseReason> {
        let ours = *self.lock().genesis.get_or_insert(genesis);
        self.genesis_known.set();
        if ours == genesis { Ok(()) } else { Err(RefuseReason::OtherGenesis { theirs: genesis, ours }) }
    }

    /// Whether there is a session with the peer, or a link to it while both are fresh.
    pub(super) fn is_linked(&self, peer: &PeerId) -> bool {
        self.session(peer).is_some() || self.lock().fresh.contains_key(peer)
    }

    /// Begins a link to a fresh peer, and gives its number. One that it replaces ends.
    ///
    /// # Errors
    /// When the transport shuts down, or has too many links.
    pub(super) fn begin_fresh(&self, peer: PeerId, link: FreshLink) -> Result<u64, RefuseReason> {
        let mut state = self.lock();
        if state.is_closing {
            return Err(RefuseReason::ShuttingDown);
        }
        if state.fresh.len() >= FRESH_LINKS_MAX && !state.fresh.contains_key(&peer) {
            return Err(RefuseReason::TooManyPeers);
        }
        state.next_fresh += 1;
        let number = state.next_fresh;
        state.fresh.insert(peer, (number, link));
        Ok(number)
    }

    /// Ends the link with this number. Returns whether it was the peer's last one.
    pub(super) fn end_fresh(&self, peer: &PeerId, number: u64) -> bool {
        let mut state = self.lock();
        if state.fresh.get(peer).is_some_and(|(newer, _)| *newer != number) {
            return false;
        }
        state.fresh.remove(peer);
        true
    }

    /// What is to be known of each link to a fresh peer.
    pub(super) fn fresh_links<T>(&self, see: impl Fn(&PeerId, &FreshLink) -> T) -> Vec<T> {
        self.lock().fresh.iter().map(|(peer, (_, link))| see(peer, link)).collect()
    }

    /// Queues a frame for a fresh peer, if there is a link and room for it.
    pub(super) fn send_fresh(&self, peer: &PeerId, frame: Vec<u8>) -> bool {
        self.lock().fresh.get(peer).is_some_and(|(_, link)| link.queue.try_send(frame).is_ok())
    }

    /// Queues a frame for all fresh peers but one; who has no room for it does without.
    pub(super) fn send_to_fresh(&self, frame: &[u8], but: &PeerId) {
        for (peer, (_, link)) in &self.lock().fresh {
            if peer != but && link.queue.try_send(frame.to_vec()).is_err() {
                tracing::debug!(%peer, "a fresh peer was not told of another");
            }
        }
    }

    /// Begins a session, after the one it replaces has ended.
    ///
    /// # Errors
    /// When the transport shuts down meanwhile.
    pub(super) async fn admit(&self, session: Session) -> Result<Arc<Session>, RefuseReason> {
        // The turn for the handshake makes this the only task that can insert a session of this peer.
        self.lock().supersede(session.peer, session.incarnation);
        while let Some(old) = self.session(&session.peer) {
            old.replaced.set();
            old.ended.wait().await;
        }
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        if self.lock().is_closing {
            return Err(RefuseReason::ShuttingDown);
        }
        let session = Arc::new(session);
        // A link that is left from before the mesh ends with this.
        self.lock().fresh.remove(&session.peer);
        sessions.insert(session.peer, Arc::clone(&session));
        Ok(session)
    }

    /// A peer says that this one is superseded. Returns whether it is so from now on: a peer that was admitted before has
    /// proved the secret; anybody else could stop peers by saying so.
    pub(super) fn is_superseded_now(&self, by: &PeerId) -> bool {
        let mut state = self.lock();
        state.last.contains_key(by) && !std::mem::replace(&mut state.is_superseded, true)
    }

    /// Ends a session: nothing can be sent to it from now on.
    pub(super) fn remove(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        if sessions.get(&session.peer).is_some_and(|current| Arc::ptr_eq(current, session)) {
            sessions.remove(&session.peer);
        }
    }

    /// Admits nobody any more; gives the sessions that are left.
    pub(super) fn close(&self) -> Vec<Arc<Session>> {
        // Under the lock of the sessions, so that none can slip in behind.
        let sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        self.lock().is_closing = true;
        sessions.values().cloned().collect()
    }

    /// Remembers by which address a peer is connected, or forgets it.
    pub(super) fn set_endpoint(&self, peer: PeerId, address: Option<Multiaddr>) {
        let mut state = self.lock();
        match address {
            Some(address) => state.endpoints.insert(peer, address),
            None => state.endpoints.remove(&peer),
        };
    }

    /// The address by which a peer is connected.
    pub(super) fn endpoint(&self, peer: &PeerId) -> Option<Multiaddr> {
        self.lock().endpoints.get(peer).cloned()
    }

    /// Remembers whether a peer was dialled because of mDNS only.
    pub(super) fn set_unasked(&self, peer: PeerId, is_unasked: bool) {
        let mut state = self.lock();
        state.unasked.retain(|unasked| *unasked != peer);
        if is_unasked {
            state.unasked.push_back(peer);
            if state.unasked.len() > UNASKED_REMEMBERED {
                state.unasked.pop_front();
            }
        }
    }

    /// Whether a peer was dialled because of mDNS only.
    pub(super) fn is_unasked(&self, peer: &PeerId) -> bool {
        self.lock().unasked.contains(peer)
    }

    /// Whether the user is to be told of a foreign mesh: once, of a bounded number.
    pub(super) fn is_news(&self, name: &str, genesis: Option<Genesis>) -> bool {
        let mut state = self.lock();
        state.other_meshes.len() < OTHER_MESHES_REMEMBERED && state.other_meshes.insert((name.to_owned(), genesis))
    }

    /// Sets the addresses that the listeners are bound to.
    pub(super) fn set_listening(&self, addresses: Vec<Multiaddr>) {
        self.lock().listening = addresses;
    }

    /// The addresses that are told to others: the configured ones, else those of the listeners.
    pub(super) fn addresses(&self) -> Vec<Multiaddr> {
        if self.local.advertise.is_empty() { self.lock().listening.clone() } else { self.local.advertise.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_incarnation_before_the_last_one_is_superseded_also_if_it_was_gone_when_the_last_one_came() {
        let mut state = State::default();
        let peer = |byte| PeerId::from_bytes([byte; 32]);
        for incarnation in [1, 1, 2] {
            state.supersede(peer(1), incarnation);
        }
        state.supersede(peer(2), 3);
        assert_eq!(state.superseded, [(peer(1), 1)]);
        for number in 0..2 * SUPERSEDED_REMEMBERED as u64 {
            state.supersede(peer(3), number);
        }
        assert_eq!(state.superseded.len(), SUPERSEDED_REMEMBERED);
    }
}
