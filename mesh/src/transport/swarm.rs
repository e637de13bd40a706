//! The task that owns the libp2p swarm: it listens, dials, watches connections come and go, and closes them.
//!
//! No payload goes through it. It refuses connections that are not admitted in time, and never waits for another
//! task, so that all others may wait for it.

use std::collections::HashMap;
use std::error::Error;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use driftmesh_model::PeerId;
use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::{Control, IncomingStreams};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::MissedTickBehavior;

use super::address;
use super::counters::add;
use super::dial::{DialBook, Due, Origin};
use super::door::Door;
use super::frame::{self, FrameError, FrameKind};
use super::gate::{Gate, GateEvent};
use super::limits::{
    ADMISSION_TIMEOUT, ALIVE_INTERVAL, BACKOFF_MIN, DIAL_TICK, HANDSHAKES_MAX, IDLE_CONNECTION_TIMEOUT, LISTEN_TIMEOUT,
    OPEN_AGAIN, OPEN_FALLBACK, YAMUX_STREAMS_MAX,
};
use super::nearby::{Nearby, NearbyEvent};
use super::peer_id;
use super::reason::RefuseReason;
use super::registry::{Session, Shared};
use super::routing::{Answer, FindError, Routing, Start};
use super::session::{self, PROTOCOL, Remote, tell_refused};
use super::{Event, StartError};

/// What other tasks tell the swarm's task.
pub(super) enum Command {
    /// A peer was admitted.
    Admitted(Arc<Session>),
    /// The peers nearest to a key are looked for.
    Find { key: Vec<u8>, answer: Answer },
    /// A fresh peer told of others, and where they can be dialled.
    FreshHeard(Vec<(PeerId, Vec<Multiaddr>)>),
    /// A link to a fresh peer began.
    FreshBegun(PeerId),
    /// A link to a fresh peer ended, and no newer one took over.
    FreshEnded { remote: Remote, addresses: Vec<Multiaddr>, broken: Option<FrameError> },
    /// An admitted peer left, and no newer connection took over.
    Ended { session: Arc<Session>, is_clean: bool },
    /// A handshake ended with a refusal.
    Refused { remote: Remote, is_transient: bool },
    /// The host of a join address was looked up.
    Resolved { index: usize, result: Result<Vec<Multiaddr>, String> },
}

/// The protocols of the swarm.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    // First, so that the others never see a connection that it denies.
    door: Door,
    streams: libp2p_stream::Behaviour,
    gate: Gate,
    nearby: Nearby,
}

impl Behaviour {
    /// Opens substreams to others.
    pub(super) fn control(&self) -> Control {
        self.streams.new_control()
    }

    /// The substreams that others open. Each behaviour has one taker of them.
    pub(super) fn accept(&self) -> IncomingStreams {
        self.control().accept(PROTOCOL).expect("called once, by the start of the transport")
    }
}

/// Builds the swarm; nothing listens yet.
///
/// # Errors
/// When libp2p cannot use the key.
pub(super) fn build(keypair: Keypair, turned_away: Arc<AtomicU64>) -> Result<Swarm<Behaviour>, StartError> {
    let multiplexer = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(YAMUX_STREAMS_MAX);
        config
    };
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, multiplexer)
        .map_err(|error| StartError::Key { error: error.to_string() })?
        .with_behaviour(|keypair| {
            let local = keypair.public().to_peer_id();
            Behaviour {
                door: Door::new(turned_away),
                streams: libp2p_stream::Behaviour::new(),
                gate: Gate::new(local),
                nearby: Nearby::new(local),
            }
        })
        .map_err(|error| StartError::Key { error: error.to_string() })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE_CONNECTION_TIMEOUT))
        .build();
    Ok(swarm)
}

/// The innermost cause; the layers of libp2p around it say nothing that helps a user.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Finds out whether the address can be bound. libp2p listens with `SO_REUSEPORT`, so a second peer on the same port
/// would not fail but take half of the first one's connections.
fn probe(address: &Multiaddr) -> Result<(), StartError> {
    let owned = || address.clone();
    let Some(socket) = address::socket(address) else {
        return Err(StartError::UnsupportedAddress { address: owned() });
    };
    match TcpListener::bind(socket) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(StartError::PortTaken { address: owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            Err(StartError::AddressNotLocal { address: owned() })
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(StartError::PortForbidden { address: owned() })
        }
        Err(error) => Err(StartError::ListenFailed { address: owned(), error: error.to_string() }),
    }
}

/// Binds all listeners and waits until they are; gives the addresses they are bound to.
///
/// # Errors
/// When one cannot be bound.
pub(super) async fn listen(
    swarm: &mut Swarm<Behaviour>,
    listen: &[Multiaddr],
) -> Result<Vec<(ListenerId, Multiaddr)>, StartError> {
    let mut pending: HashMap<ListenerId, Multiaddr> = HashMap::new();
    for address in listen {
        probe(address)?;
        let listener = swarm
            .listen_on(address.clone())
            .map_err(|error| StartError::ListenFailed { address: address.clone(), error: root_cause(&error) })?;
        pending.insert(listener, address.clone());
    }
    let deadline = tokio::time::Instant::now() + LISTEN_TIMEOUT;
    let mut bound = Vec::new();
    while let Some(waiting) = pending.values().next().cloned() {
        let Ok(event) = tokio::time::timeout_at(deadline, swarm.select_next_some()).await else {
            let error = format!("it was not bound within {LISTEN_TIMEOUT:?}");
            return Err(StartError::ListenFailed { address: waiting, error });
        };
        if let SwarmEvent::NewListenAddr { listener_id, address } = event {
            pending.remove(&listener_id);
            bound.push((listener_id, address));
        } else if let SwarmEvent::ListenerClosed { listener_id, reason, .. } = event {
            let address = pending.remove(&listener_id).unwrap_or(waiting);
            let error = reason.err().map_or_else(|| "it was closed".to_owned(), |error| error.to_string());
            return Err(StartError::ListenFailed { address, error });
        }
    }
    Ok(bound)
}

/// A connection whose peer is not admitted yet.
struct Unadmitted {
    remote: Remote,
    deadline: Instant,
    open_again: Instant,
}

/// When peers are looked for by mDNS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NearbySearch {
    Off,
    AtOnce,
    AfterAdmission,
}

/// What the swarm's task is to do later.
pub(super) struct Plans {
    pub(super) mdns: NearbySearch,
    pub(super) book: DialBook,
    pub(super) routing: Routing,
}

/// The state of the swarm's task.
pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    control: Control,
    /// Bounds the substreams that are being opened.
    handshakes: Arc<Semaphore>,
    book: DialBook,
    routing: Routing,
    /// When mDNS begins; off when it has begun.
    mdns: NearbySearch,
    /// The dials under way, each with the addresses to try after it.
    dials: HashMap<ConnectionId, (Origin, Vec<Multiaddr>)>,
    unadmitted: HashMap<PeerId, Unadmitted>,
    bound: Vec<(ListenerId, Multiaddr)>,
    next_alive: Instant,
    /// Whether the dial book knows that this peer belongs to a mesh.
    has_mesh: bool,
}

impl Driver {
    /// A driver of a swarm that listens at the `bound` addresses.
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        plans: Plans,
        bound: Vec<(ListenerId, Multiaddr)>,
    ) -> Self {
        let control = swarm.behaviour().control();
        let has_mesh = shared.genesis().is_some();
        let mut driver = Self {
            swarm,
            shared,
            commands,
            control,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            book: plans.book,
            routing: plans.routing,
            mdns: plans.mdns,
            dials: HashMap::new(),
            unadmitted: HashMap::new(),
            bound,
            next_alive: Instant::now() + ALIVE_INTERVAL,
            has_mesh,
        };
        driver.publish_listening();
        if driver.mdns == NearbySearch::AtOnce {
            driver.find_nearby();
        }
        for (_, address) in &driver.bound {
            driver.shared.handler.event(Event::Listening { address: driver.with_peer(address) });
        }
        driver
    }

    /// Runs until the transport stops. Not cancel safe.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(DIAL_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        loop {
            tokio::select! {
                () = shared.stop.wait() => return,
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                Some(command) = self.commands.recv() => self.on_command(command),
                _ = tick.tick() => self.on_tick(Instant::now()),
            }
        }
    }

    fn with_peer(&self, address: &Multiaddr) -> Multiaddr {
        address.clone().with(Protocol::P2p(self.shared.local.libp2p_peer))
    }

    fn publish_listening(&self) {
        self.shared.set_listening(self.bound.iter().map(|(_, address)| address.clone()).collect());
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most of libp2p's many events are of no concern here")]
    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, endpoint.get_remote_address());
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                if let Some(peer) = peer_id::from_libp2p(&peer_id) {
                    self.unadmitted.remove(&peer);
                    self.shared.set_endpoint(peer, None);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some((origin, left)) = self.dials.remove(&connection_id) {
                    self.on_dial_failed(origin, left, &error);
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, error = %root_cause(&error), "inbound connection failed");
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.bound.push((listener_id, address.clone()));
                self.publish_listening();
                self.shared.handler.event(Event::Listening { address: self.with_peer(&address) });
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                self.bound.retain(|bound| *bound != (listener_id, address.clone()));
                self.publish_listening();
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                self.bound.retain(|(id, _)| *id != listener_id);
                self.publish_listening();
                let error = reason.err().map_or_else(|| "it was closed".to_owned(), |error| error.to_string());
                tracing::warn!(?addresses, error, "listener closed");
                self.shared.handler.event(Event::ListenFailed { addresses, error });
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gate(event)) => self.on_gate_event(event, Instant::now()),
            SwarmEvent::Behaviour(BehaviourEvent::Nearby(event)) => self.on_nearby_event(event, Instant::now()),
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener reported an error"),
            _ => {}
        }
    }

    fn on_connected(&mut self, libp2p_peer: libp2p::PeerId, connection: ConnectionId, address: &Multiaddr) {
        let origin = self.dials.remove(&connection);
        let now = Instant::now();
        let peer = peer_id::from_libp2p(&libp2p_peer);
        if let Some((origin, _)) = origin {
            self.book.finished(origin, peer, now);
        }
        let Some(peer) = peer else {
            tell_refused(&self.shared, None, Some(address.clone()), RefuseReason::UnknownIdentity, false);
            self.disconnect(libp2p_peer);
            return;
        };
        self.shared.set_unasked(peer, matches!(origin, Some((Origin::Nearby(_), _))));
        self.shared.set_endpoint(peer, Some(address.clone()));
        if !self.shared.is_linked(&peer) {
            self.await_admission(Remote { peer, libp2p_peer }, now);
            self.open_unadmitted(now);
        }
    }

    fn await_admission(&mut self, remote: Remote, first: Instant) {
        let open_again = if self.shared.local.peer < remote.peer { first } else { first + OPEN_FALLBACK };
        let unadmitted = Unadmitted { remote, deadline: first + ADMISSION_TIMEOUT, open_again };
        self.unadmitted.entry(remote.peer).or_insert(unadmitted);
    }

    /// A peer is not fresh any more, or this one is not, or the link was lost: what connects them now takes a new
    /// handshake, over the same connection where it still stands.
    fn on_fresh_ended(&mut self, remote: Remote, addresses: &[Multiaddr], broken: Option<FrameError>, now: Instant) {
        if self.shared.is_linked(&remote.peer) {
            return;
        }
        if let Some(error) = broken {
            let address = self.shared.endpoint(&remote.peer);
            tell_refused(&self.shared, Some(remote.peer), address, RefuseReason::Malformed(error), false);
            self.book.refused(&remote.peer, false, now);
            return self.disconnect(remote.libp2p_peer);
        }
        self.book.lost(remote.peer, addresses, now);
        if self.swarm.is_connected(&remote.libp2p_peer) && !self.shared.is_in_handshake(&remote.peer) {
            // A peer that stays fresh and ends links must not be asked in a tight loop.
            let is_fresh = self.shared.genesis().is_none();
            self.await_admission(remote, if is_fresh { now + BACKOFF_MIN } else { now });
            self.open_unadmitted(now);
        }
    }

    /// Opens the substreams that are due.
    fn open_unadmitted(&mut self, now: Instant) {
        let shared = &self.shared;
        for unadmitted in self.unadmitted.values_mut() {
            let peer = &unadmitted.remote.peer;
            if unadmitted.open_again <= now && !shared.is_in_handshake(peer) && !shared.is_linked(peer) {
                unadmitted.open_again = now + OPEN_AGAIN;
                let opening = session::open(
                    Arc::clone(shared),
                    self.control.clone(),
                    unadmitted.remote,
                    Arc::clone(&self.handshakes),
                );
                tokio::spawn(opening);
            }
        }
    }

    fn disconnect(&mut self, libp2p_peer: libp2p::PeerId) {
        // Fails only when it is not connected any more, which is what is wanted.
        let _ = self.swarm.disconnect_peer_id(libp2p_peer);
    }

    fn on_dial_failed(&mut self, origin: Origin, left: Vec<Multiaddr>, error: &DialError) {
        let now = Instant::now();
        if let (Origin::Join(index), false, DialError::Transport(_)) = (origin, left.is_empty(), error) {
            tracing::debug!(error = %root_cause(error), "the next address of the name is tried");
            return self.dial_join(index, left, now);
        }
        self.book.finished(origin, None, now);
        let join = match origin {
            Origin::Join(index) => self.book.join_address(index).map(|target| (index, target.to_multiaddress())),
            Origin::Redial(_) => None,
            Origin::Nearby(_) => {
                tracing::debug!(?origin, error = %root_cause(error), "a peer heard of by mDNS cannot be dialled");
                return;
            }
        };
        match (error, join) {
            // libp2p leaves out the addresses that it listens at itself.
            (DialError::LocalPeerId { .. } | DialError::NoAddresses, Some((index, target))) => {
                self.book.is_ourselves(index);
                tell_refused(&self.shared, None, Some(target), RefuseReason::SelfConnect, false);
            }
            (DialError::WrongPeerId { obtained, .. }, Some((index, target))) => {
                let named = self.book.join_address(index).and_then(|address| address.peer().copied());
                let reason = RefuseReason::WrongPeer {
                    expected: named.map(|peer| peer.to_string()).unwrap_or_default(),
                    actual: obtained.to_string(),
                };
                tell_refused(&self.shared, peer_id::from_libp2p(obtained), Some(target), reason, false);
            }
            (DialError::DialPeerConditionFalse(_) | DialError::Aborted, _) => {
                tracing::debug!(?origin, "dial not needed");
            }
            (DialError::Transport(errors), _) => {
                for (address, error) in errors {
                    self.tell_unreachable(address, root_cause(error), now);
                }
            }
            (DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address }, None) => {
                self.tell_unreachable(address, "another peer is there now".to_owned(), now);
            }
            (DialError::Denied { .. }, Some((_, target))) => {
                self.tell_unreachable(&target, root_cause(error), now);
            }
            (DialError::NoAddresses | DialError::Denied { .. }, None) => {
                tracing::debug!(?origin, error = %root_cause(error), "dial failed");
            }
        }
    }

    fn tell_unreachable(&mut self, address: &Multiaddr, error: String, now: Instant) {
        if self.book.reports_unreachable(address, now) {
            tracing::info!(%address, error, "address unreachable");
            self.shared.handler.event(Event::Unreachable { address: address.clone(), error });
        }
    }

    fn on_command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Admitted(session) => self.on_admitted(&session, now),
            Command::Find { key, answer } => {
                if self.shared.stop.is_set() {
                    // Whoever asked may have gone.
                    let _ = answer.send(Err(FindError::ShuttingDown));
                } else if let Some(start) = self.routing.find(key, answer) {
                    self.start_query(start);
                }
            }
            Command::FreshHeard(heard) => {
                for (peer, addresses) in heard {
                    if !self.shared.is_linked(&peer) {
                        self.book.wanted(peer, addresses, now);
                    }
                }
                self.dial_due(now);
            }
            Command::FreshBegun(peer) => {
                self.unadmitted.remove(&peer);
                self.book.admitted(&peer, now);
            }
            Command::FreshEnded { remote, addresses, broken } => {
                self.on_fresh_ended(remote, &addresses, broken, now);
            }
            Command::Ended { session, is_clean } => {
                if self.shared.session(&session.peer).is_some() {
                    return;
                }
                self.swarm.behaviour_mut().gate.forget(session.libp2p_peer);
                let refused_for = self.shared.conduct().refused_for(&session.peer, now);
                if let Some(refused_for) = refused_for {
                    self.book.dropped(session.peer, now + refused_for);
                } else if is_clean {
                    self.book.departed(session.peer, now);
                } else {
                    self.book.lost(session.peer, &session.addresses, now);
                }
                if !self.shared.is_in_handshake(&session.peer) {
                    self.disconnect(session.libp2p_peer);
                }
            }
            Command::Refused { remote, is_transient } => {
                self.book.refused(&remote.peer, is_transient, now);
                if !self.shared.is_linked(&remote.peer) {
                    self.unadmitted.remove(&remote.peer);
                    self.disconnect(remote.libp2p_peer);
                }
            }
            Command::Resolved { index, result } => match result {
                Ok(addresses) => self.dial_join(index, addresses, now),
                Err(error) => {
                    self.book.finished(Origin::Join(index), None, now);
                    if let Some(target) = self.book.join_address(index).map(super::PeerAddress::to_multiaddress) {
                        self.tell_unreachable(&target, error, now);
                    }
                }
            },
        }
    }

    fn on_tick(&mut self, now: Instant) {
        if !self.has_mesh && self.shared.genesis().is_some() {
            self.has_mesh = true;
            self.book.has_mesh(now);
        }
        self.dial_due(now);
        self.open_unadmitted(now);
        let shared = Arc::clone(&self.shared);
        let late =
            |unadmitted: &&Unadmitted| unadmitted.deadline <= now && !shared.is_in_handshake(&unadmitted.remote.peer);
        let late: Vec<Remote> = self.unadmitted.values().filter(late).map(|unadmitted| unadmitted.remote).collect();
        for remote in late {
            self.unadmitted.remove(&remote.peer);
            // A session that began meanwhile is told of by a command that waits.
            if !shared.is_linked(&remote.peer) {
                let address = shared.endpoint(&remote.peer);
                tell_refused(&shared, Some(remote.peer), address, RefuseReason::HandshakeTimeout, false);
                self.disconnect(remote.libp2p_peer);
            }
        }
        if self.next_alive <= now {
            self.next_alive = now + ALIVE_INTERVAL;
            let frame = frame::encode(FrameKind::Alive, &[]);
            for session in &*shared.sessions() {
                // Who has no room hears the next one: each says the same.
                session.lanes.push_control(frame.clone());
            }
        }
        for start in self.routing.due(shared.sessions().len(), now) {
            self.start_query(start);
        }
        let gate = &self.swarm.behaviour().gate;
        shared.counters.records_refused.store(gate.records_refused(), Ordering::Relaxed);
        shared.counters.routing_throttled.store(gate.throttled(), Ordering::Relaxed);
    }

    fn find_nearby(&mut self) {
        self.mdns = NearbySearch::Off;
        self.swarm.behaviour_mut().nearby.start();
    }

    fn on_admitted(&mut self, session: &Session, now: Instant) {
        self.unadmitted.remove(&session.peer);
        self.book.admitted(&session.peer, now);
        // It may have left already; its end is told after this.
        let behaviour = self.swarm.behaviour_mut();
        behaviour.gate.admit(session.libp2p_peer, &session.addresses);
        behaviour.door.admitted(&session.libp2p_peer);
        self.routing.admitted(self.shared.sessions().len(), now);
        if self.mdns == NearbySearch::AfterAdmission {
            self.find_nearby();
        }
    }

    fn start_query(&mut self, start: Start) {
        let query = self.swarm.behaviour_mut().gate.find(start.target.clone(), start.results);
        self.routing.started(query, start);
    }

    fn on_gate_event(&mut self, event: GateEvent, now: Instant) {
        match event {
            GateEvent::Wanted { peer: libp2p_peer, addresses } => {
                let addresses = address::from_hearsay(&addresses);
                let is_planned = peer_id::from_libp2p(&libp2p_peer)
                    .is_some_and(|peer| self.shared.session(&peer).is_some() || self.book.wanted(peer, addresses, now));
                if is_planned {
                    self.dial_due(now);
                } else {
                    self.swarm.behaviour_mut().gate.unreachable(libp2p_peer);
                }
            }
            GateEvent::Found { query, mut peers } => {
                let shared = &self.shared;
                peers.retain(|peer| peer_id::from_libp2p(peer).is_some_and(|peer| shared.session(&peer).is_some()));
                let known = shared.sessions().len();
                self.routing.ended(query, &peers, known, now);
            }
        }
    }

    fn on_nearby_event(&mut self, event: NearbyEvent, now: Instant) {
        // Who has no ed25519 key is no peer of any mesh.
        let known = |(libp2p_peer, address): &(libp2p::PeerId, Multiaddr)| {
            let peer = peer_id::from_libp2p(libp2p_peer)?;
            Some((peer, address::from_hearsay(std::slice::from_ref(address)).pop()?))
        };
        match event {
            NearbyEvent::Heard(said) => {
                for (peer, address) in said.iter().filter_map(known) {
                    if !self.book.heard_nearby(peer, &address, now) {
                        add(&self.shared.counters.nearby_dropped, 1);
                    }
                }
                self.dial_due(now);
            }
            NearbyEvent::Gone(said) => {
                for (peer, address) in said.iter().filter_map(known) {
                    self.book.gone_nearby(&peer, &address);
                }
            }
            NearbyEvent::Forgotten => self.book.forget_nearby(),
        }
    }

    fn dial_due(&mut self, now: Instant) {
        let (swarm, shared) = (&self.swarm, &self.shared);
        let is_connected = |peer: &PeerId| {
            shared.session(peer).is_some()
                || peer_id::to_libp2p(peer).is_some_and(|libp2p_peer| swarm.is_connected(&libp2p_peer))
        };
        for due in self.book.due(now, is_connected) {
            match due {
                Due::Join { index, address } => {
                    let shared = Arc::clone(&self.shared);
                    tokio::spawn(async move {
                        let result = address.resolve().await;
                        let _ = shared.commands.send(Command::Resolved { index, result }).await;
                    });
                }
                Due::Peer { origin, peer, addresses } => match peer_id::to_libp2p(&peer) {
                    Some(libp2p_peer) => {
                        // A fresh port, because two simultaneous dials between the listening ports of both sides
                        // would become one TCP connection with two initiators.
                        let options = DialOpts::peer_id(libp2p_peer).addresses(addresses).allocate_new_port().build();
                        self.dial(origin, vec![], options);
                    }
                    None => self.book.finished(origin, None, now),
                },
            }
        }
    }

    /// Dials a join address; one by one, as libp2p dials several addresses at once only when it knows the peer.
    fn dial_join(&mut self, index: usize, mut addresses: Vec<Multiaddr>, now: Instant) {
        if addresses.is_empty() {
            return self.book.finished(Origin::Join(index), None, now);
        }
        let address = addresses.remove(0);
        let named = self.book.join_address(index).and_then(|address| address.peer().copied());
        let options = match named {
            Some(peer) => DialOpts::peer_id(peer).addresses(vec![address]).allocate_new_port().build(),
            None => DialOpts::unknown_peer_id().address(address).allocate_new_port().build(),
        };
        self.dial(Origin::Join(index), addresses, options);
    }

    fn dial(&mut self, origin: Origin, left: Vec<Multiaddr>, options: DialOpts) {
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(connection, (origin, left));
            }
            Err(error) => self.on_dial_failed(origin, left, &error),
        }
    }
}
