//! Kademlia behind a gate: it neither serves nor asks a connected peer before the handshake admitted it (R26).
//!
//! libp2p asks the handler of a connection anew for each inbound substream, so a closed gate refuses them one by one;
//! what Kademlia wants to send waits in the handler meanwhile. The routing table holds the admitted peers and nobody
//! else. It refuses to dial: whom Kademlia misses is told to the swarm's task, which dials and admits, or gives up.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use either::Either;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::DeniedUpgrade;
use libp2p::kad::{self, GetClosestPeersError, QueryId, QueryResult};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialError, FromSwarm, NetworkBehaviour,
    NotifyHandler, StreamProtocol, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::time::{Instant, Sleep};

use super::limits::{
    KADEMLIA_PACKET_BYTES_MAX, PEERS_MAX, QUERY_PARALLELISM, QUERY_TIMEOUT, ROUTING_EVENTS_MAX, ROUTING_EVENTS_PERIOD,
};
use super::no_records::NoRecords;

/// The name by which libp2p knows the routing protocol; not that of public networks, whose peers are none of ours.
const KADEMLIA: StreamProtocol = StreamProtocol::new("/driftmesh/kad/1");

type Kademlia = kad::Behaviour<NoRecords>;
type KademliaHandler = THandler<Kademlia>;

/// Kademlia, as far as the handshake lets it.
pub(super) struct Gate {
    kademlia: Kademlia,
    /// As many as the connection limits allow.
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    admitted: HashSet<PeerId>,
    /// Openings and closings that the handlers are not told of yet: one for each connection.
    pending: VecDeque<ToSwarm<GateEvent, GateIn>>,
    throttled: Arc<AtomicU64>,
    records_refused: Arc<AtomicU64>,
}

/// What the swarm's task is told.
#[derive(Debug)]
pub(super) enum GateEvent {
    /// A query waits for a peer that is not connected.
    Wanted { peer: PeerId, addresses: Vec<Multiaddr> },
    /// A query ended: the admitted peers that answered, nearest first.
    Found { query: QueryId, peers: Vec<PeerId> },
}

/// What the handler of a connection is told.
#[derive(Debug)]
pub(super) enum GateIn {
    Open,
    Close,
    Inner(THandlerInEvent<Kademlia>),
}

impl Gate {
    /// Kademlia of a peer that knows nobody.
    pub(super) fn new(local: PeerId) -> Self {
        let mut config = kad::Config::new(KADEMLIA);
        // A mesh is a full mesh up to about 100 peers, so whole tables must fit: queries then end after one hop.
        config
            .set_kbucket_inserts(kad::BucketInserts::Manual)
            .set_kbucket_size(NonZeroUsize::new(PEERS_MAX).unwrap_or(kad::K_VALUE))
            .set_parallelism(QUERY_PARALLELISM)
            .set_query_timeout(QUERY_TIMEOUT)
            .set_max_packet_size(KADEMLIA_PACKET_BYTES_MAX)
            .set_periodic_bootstrap_interval(None)
            .set_replication_interval(None)
            .set_publication_interval(None)
            .set_provider_publication_interval(None);
        let store = NoRecords::default();
        let records_refused = Arc::clone(&store.refused);
        let mut kademlia = Kademlia::with_config(local, store, config);
        kademlia.set_mode(Some(kad::Mode::Server));
        Self {
            kademlia,
            connections: HashMap::new(),
            admitted: HashSet::new(),
            pending: VecDeque::new(),
            throttled: Arc::default(),
            records_refused,
        }
    }

    /// Opens the gate for an admitted peer, which is told to others from now on with these addresses.
    pub(super) fn admit(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        self.admitted.insert(peer);
        self.notify(peer, || GateIn::Open);
        self.kademlia.remove_peer(&peer);
        for address in addresses {
            // It fails for this peer itself only, which nobody admits.
            let _ = self.kademlia.add_address(&peer, address.clone());
        }
    }

    /// Closes the gate for a peer that left; nobody is told of it any more.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.admitted.remove(&peer);
        self.notify(peer, || GateIn::Close);
        self.kademlia.remove_peer(&peer);
    }

    /// A peer that was wanted will not be dialled: queries go on without it.
    pub(super) fn unreachable(&mut self, peer: PeerId) {
        let failure = DialFailure {
            peer_id: Some(peer),
            error: &DialError::NoAddresses,
            // Of no dial; Kademlia looks at the peer only.
            connection_id: ConnectionId::new_unchecked(0),
        };
        self.kademlia.on_swarm_event(FromSwarm::DialFailure(failure));
    }

    /// Begins a query for the peers nearest to the SHA-256 hash of the target. Ends after [`QUERY_TIMEOUT`].
    pub(super) fn find(&mut self, target: Vec<u8>, results: NonZeroUsize) -> QueryId {
        self.kademlia.get_n_closest_peers(target, results)
    }

    /// How often a connection's routing messages were held up because there were too many.
    pub(super) fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Records and providers that members wanted to store.
    pub(super) fn records_refused(&self) -> u64 {
        self.records_refused.load(Ordering::Relaxed)
    }

    /// The swarm's task polls this after each of its own steps, so nobody need be woken.
    fn notify(&mut self, peer: PeerId, event: impl Fn() -> GateIn) {
        for connection in self.connections.get(&peer).into_iter().flatten() {
            let handler = NotifyHandler::One(*connection);
            self.pending.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: event() });
        }
    }

    fn guard(&self, peer: PeerId, inner: KademliaHandler) -> GateHandler {
        GateHandler {
            inner,
            is_open: self.admitted.contains(&peer),
            throttle: Throttle::new(Arc::clone(&self.throttled)),
        }
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = GateHandler;
    type ToSwarm = GateEvent;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local_address: &Multiaddr,
        remote_address: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let inner =
            self.kademlia.handle_established_inbound_connection(connection, peer, local_address, remote_address)?;
        Ok(self.guard(peer, inner))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let inner =
            self.kademlia.handle_established_outbound_connection(connection, peer, address, role_override, port_use)?;
        Ok(self.guard(peer, inner))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) = event {
            self.connections.entry(peer_id).or_default().push(connection_id);
            // The admission may have come between the handler's making and now.
            if self.admitted.contains(&peer_id) {
                let handler = NotifyHandler::One(connection_id);
                self.pending.push_back(ToSwarm::NotifyHandler { peer_id, handler, event: GateIn::Open });
            }
        } else if let FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) = event
            && let Some(connections) = self.connections.get_mut(&peer_id)
        {
            connections.retain(|connection| *connection != connection_id);
            if connections.is_empty() {
                self.connections.remove(&peer_id);
            }
        }
        // Kademlia answers a new listen address with a bootstrap, and complains that it knows nobody.
        if !matches!(event, FromSwarm::NewListenAddr(_)) {
            self.kademlia.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.kademlia.on_connection_handler_event(peer, connection, event);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "routing needs few of Kademlia's many events")]
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(event) = self.pending.pop_front() {
            return Poll::Ready(event);
        }
        loop {
            let event = match ready!(self.kademlia.poll(context)) {
                ToSwarm::Dial { opts } => {
                    let Some(peer) = opts.get_peer_id() else { continue };
                    let known = self.kademlia.handle_pending_outbound_connection(
                        opts.connection_id(),
                        Some(peer),
                        &[],
                        Endpoint::Dialer,
                    );
                    GateEvent::Wanted { peer, addresses: known.unwrap_or_default() }
                }
                ToSwarm::GenerateEvent(kad::Event::OutboundQueryProgressed {
                    id,
                    result: QueryResult::GetClosestPeers(result),
                    ..
                }) => {
                    let peers = match result {
                        Ok(found) => found.peers,
                        Err(GetClosestPeersError::Timeout { peers, .. }) => peers,
                    };
                    GateEvent::Found { query: id, peers: peers.into_iter().map(|peer| peer.peer_id).collect() }
                }
                ToSwarm::NotifyHandler { peer_id, handler, event } => {
                    return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event: GateIn::Inner(event) });
                }
                _ => continue,
            };
            return Poll::Ready(ToSwarm::GenerateEvent(event));
        }
    }
}

/// Kademlia's handler of one connection, which stands still while the gate is closed.
pub(super) struct GateHandler {
    inner: KademliaHandler,
    is_open: bool,
    throttle: Throttle,
}

impl ConnectionHandler for GateHandler {
    type FromBehaviour = GateIn;
    type ToBehaviour = <KademliaHandler as ConnectionHandler>::ToBehaviour;
    type InboundProtocol = <KademliaHandler as ConnectionHandler>::InboundProtocol;
    type OutboundProtocol = <KademliaHandler as ConnectionHandler>::OutboundProtocol;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        if self.is_open {
            self.inner.listen_protocol()
        } else {
            SubstreamProtocol::new(Either::Right(DeniedUpgrade), ())
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if !self.is_open {
            // The event that opens it is followed by a poll.
            return Poll::Pending;
        }
        ready!(self.throttle.poll_ready(context));
        let event = ready!(self.inner.poll(context));
        self.throttle.passed();
        Poll::Ready(event)
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        self.inner.poll_close(context)
    }

    fn on_behaviour_event(&mut self, event: GateIn) {
        match event {
            GateIn::Open => self.is_open = true,
            GateIn::Close => self.is_open = false,
            GateIn::Inner(event) => self.inner.on_behaviour_event(event),
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol>) {
        self.inner.on_connection_event(event);
    }
}

/// Bounds the routing messages of one connection in time (R24); a member that sends more waits, as its substreams do.
struct Throttle {
    period_ends: Instant,
    left: u32,
    pause: Option<Pin<Box<Sleep>>>,
    throttled: Arc<AtomicU64>,
}

impl Throttle {
    fn new(throttled: Arc<AtomicU64>) -> Self {
        Self { period_ends: Instant::now(), left: 0, pause: None, throttled }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn passed(&mut self) {
        let now = Instant::now();
        if self.period_ends <= now {
            self.period_ends = now + ROUTING_EVENTS_PERIOD;
            self.left = ROUTING_EVENTS_MAX;
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.throttled.fetch_add(1, Ordering::Relaxed);
            self.pause = Some(Box::pin(tokio::time::sleep_until(self.period_ends)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::core::ConnectedPoint;
    use libp2p::core::upgrade::UpgradeInfo;
    use std::future::poll_fn;

    fn takes_substreams(handler: &GateHandler) -> bool {
        handler.listen_protocol().into_upgrade().0.protocol_info().next().is_some()
    }

    #[tokio::test]
    async fn nothing_goes_out_or_comes_in_while_the_gate_is_closed() {
        let (peer, connection) = (PeerId::random(), ConnectionId::new_unchecked(1));
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let mut gate = Gate::new(PeerId::random());
        let mut handler = gate.handle_established_inbound_connection(connection, peer, &address, &address).unwrap();
        let endpoint = ConnectedPoint::Listener { local_addr: address.clone(), send_back_addr: address.clone() };
        gate.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
        gate.kademlia.add_address(&peer, address.clone());
        gate.find(vec![7], kad::K_VALUE);
        let asked = poll_fn(|context| gate.poll(context)).await;
        let ToSwarm::NotifyHandler { event: event @ GateIn::Inner(_), .. } = asked else { panic!("{asked:?}") };
        handler.on_behaviour_event(event);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(handler.poll(&mut context).is_pending() && !takes_substreams(&handler));

        gate.admit(peer, &[address]);
        let opened = poll_fn(|context| gate.poll(context)).await;
        let ToSwarm::NotifyHandler { event: event @ GateIn::Open, .. } = opened else { panic!("{opened:?}") };
        handler.on_behaviour_event(event);
        assert!(takes_substreams(&handler));
        let sent = handler.poll(&mut context);
        assert!(matches!(sent, Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { .. })));

        gate.forget(peer);
        let closed = poll_fn(|context| gate.poll(context)).await;
        let ToSwarm::NotifyHandler { event: event @ GateIn::Close, .. } = closed else { panic!("{closed:?}") };
        handler.on_behaviour_event(event);
        assert!(!takes_substreams(&handler));
        assert_eq!(gate.kademlia.kbuckets().count(), 0);
    }

    #[tokio::test]
    async fn a_flood_of_messages_waits_for_the_next_period() {
        let throttled = Arc::default();
        let mut throttle = Throttle::new(Arc::clone(&throttled));
        let mut context = Context::from_waker(std::task::Waker::noop());
        // A slow machine may reach the next period meanwhile, and begins to count anew.
        while throttle.pause.is_none() {
            assert!(throttle.poll_ready(&mut context).is_ready());
            throttle.passed();
        }
        assert!(throttle.poll_ready(&mut context).is_pending());
        assert_eq!(throttled.load(Ordering::Relaxed), 1);
        poll_fn(|context| throttle.poll_ready(context)).await;
        throttle.passed();
        assert!(throttle.poll_ready(&mut context).is_ready());
    }
}
