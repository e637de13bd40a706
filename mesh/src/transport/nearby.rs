//! mDNS: peers that say on the local network where they listen. Whoever they are, they are dialled as candidates
//! only; the handshake decides.
//!
//! libp2p-mdns keeps what it hears for as long as the speaker wants, without a bound. This one refuses to hold more
//! than a bound (R24): it then forgets everything and is deaf for a while. It never adds addresses to others' dials.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use libp2p::core::Endpoint;
use libp2p::core::transport::{ListenerId, PortUse};
use libp2p::mdns;
use libp2p::swarm::behaviour::{ExpiredListenAddr, NewListenAddr};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};
use tokio::time::Sleep;

use super::limits::{MDNS_DEAF_FOR, MDNS_HEARD_MAX, MDNS_QUERY_INTERVAL, MDNS_TTL};

/// Finds peers on the local network, once it is started.
pub(super) struct Nearby {
    local: PeerId,
    mdns: Option<mdns::tokio::Behaviour>,
    /// Runs while nothing is heard, after too much was.
    deaf: Option<Pin<Box<Sleep>>>,
    listening: Vec<(ListenerId, Multiaddr)>,
}

/// What the swarm's task is told.
#[derive(Debug)]
pub(super) enum NearbyEvent {
    /// Somebody says that these peers listen there.
    Heard(Vec<(PeerId, Multiaddr)>),
    /// These have not been said for a while.
    Gone(Vec<(PeerId, Multiaddr)>),
    /// Too much was heard: all of it is forgotten.
    Forgotten,
}

impl Nearby {
    /// Silent and deaf until [`Nearby::start`].
    pub(super) const fn new(local: PeerId) -> Self {
        Self { local, mdns: None, deaf: None, listening: Vec::new() }
    }

    /// Asks and answers from now on.
    pub(super) fn start(&mut self) {
        let config = mdns::Config { ttl: MDNS_TTL, query_interval: MDNS_QUERY_INTERVAL, enable_ipv6: false };
        match mdns::tokio::Behaviour::new(config, self.local) {
            Ok(mut mdns) => {
                for (listener_id, addr) in &self.listening {
                    let listening = NewListenAddr { listener_id: *listener_id, addr };
                    mdns.on_swarm_event(FromSwarm::NewListenAddr(listening));
                }
                self.mdns = Some(mdns);
            }
            Err(error) => tracing::warn!(%error, "mDNS cannot be used; peers are found by join addresses only"),
        }
    }

    /// Its tasks live on until they next hear of a peer; till then they must not answer for this one.
    fn close(&mut self) {
        let Some(mut mdns) = self.mdns.take() else { return };
        for (listener_id, addr) in &self.listening {
            let expired = ExpiredListenAddr { listener_id: *listener_id, addr };
            mdns.on_swarm_event(FromSwarm::ExpiredListenAddr(expired));
        }
    }
}

impl Drop for Nearby {
    fn drop(&mut self) {
        self.close();
    }
}

impl NetworkBehaviour for Nearby {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = NearbyEvent;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr }) = event {
            self.listening.push((listener_id, addr.clone()));
        } else if let FromSwarm::ExpiredListenAddr(ExpiredListenAddr { listener_id, addr }) = event {
            self.listening.retain(|(id, address)| *id != listener_id || address != addr);
        }
        if let Some(mdns) = &mut self.mdns {
            mdns.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "mDNS dials nobody and has no handlers")]
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(deaf) = &mut self.deaf {
            ready!(deaf.as_mut().poll(context));
            self.deaf = None;
            self.start();
        }
        loop {
            let Some(mdns) = &mut self.mdns else { return Poll::Pending };
            if mdns.discovered_nodes().len() > MDNS_HEARD_MAX {
                tracing::warn!("more than {MDNS_HEARD_MAX} addresses were heard by mDNS; it pauses");
                self.close();
                let mut deaf = Box::pin(tokio::time::sleep(MDNS_DEAF_FOR));
                let _ = deaf.as_mut().poll(context);
                self.deaf = Some(deaf);
                return Poll::Ready(ToSwarm::GenerateEvent(NearbyEvent::Forgotten));
            }
            match ready!(mdns.poll(context)) {
                ToSwarm::GenerateEvent(mdns::Event::Discovered(peers)) => {
                    return Poll::Ready(ToSwarm::GenerateEvent(NearbyEvent::Heard(peers)));
                }
                ToSwarm::GenerateEvent(mdns::Event::Expired(peers)) => {
                    return Poll::Ready(ToSwarm::GenerateEvent(NearbyEvent::Gone(peers)));
                }
                _ => {}
            }
        }
    }
}
