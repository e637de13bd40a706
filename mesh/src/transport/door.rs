//! Who may connect at all: bounds on connections, altogether, of one peer and from one address (R24).
//!
//! Whoever can reach the port comes this far, without a secret. One address can take a part of the room and no more, so
//! a stranger is in nobody's way who comes from elsewhere. It refuses before the encryption handshake, which costs
//! most, and it remembers nothing of an address that is quiet.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure};
use libp2p::swarm::dummy;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use super::address;
use super::counters::add;
use super::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PER_HOST_BURST, CONNECTIONS_PER_HOST_INTERVAL, CONNECTIONS_PER_PEER_MAX,
    HOSTS_REMEMBERED, PENDING_INBOUND_MAX, PENDING_PER_HOST_MAX, UNADMITTED_PER_HOST_MAX,
};

/// Where connections come from: an IPv4 address, or the network of an IPv6 address, of which one machine has 2^64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Host(IpAddr);

impl Host {
    /// The host of an address, if it names one.
    pub(super) fn of(address: &Multiaddr) -> Option<Self> {
        const NETWORK: u128 = !0 << 64;
        Some(Self(match address::socket(address)?.ip().to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & NETWORK).into()),
            ip @ IpAddr::V4(_) => ip,
        }))
    }
}

/// Why a connection was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum TurnedAway {
    Full,
    Pending,
    OfPeer,
    HostPending,
    HostUnadmitted,
    HostFast,
}

impl fmt::Display for TurnedAway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Full => "there are as many connections as may be",
            Self::Pending => "too many connections have not finished their encryption handshake",
            Self::OfPeer => "the peer has too many connections",
            Self::HostPending => "too many connections of that address have not finished their handshake",
            Self::HostUnadmitted => "too many connections of that address are not admitted",
            Self::HostFast => "connections come too fast from that address",
        })
    }
}

/// What one host has here.
#[derive(Debug)]
struct Guest {
    pending: usize,
    unadmitted: usize,
    /// When all that it has taken of its burst will be given back.
    even_at: Instant,
}

impl Guest {
    fn is_quiet(&self, now: Instant) -> bool {
        self.pending == 0 && self.unadmitted == 0 && self.even_at <= now
    }
}

/// An inbound connection that is not admitted.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    host: Option<Host>,
    is_pending: bool,
}

/// The counts behind the door.
#[derive(Debug, Default)]
struct Book {
    guests: HashMap<Host, Guest>,
    /// Inbound connections of which nobody is known to be admitted.
    strangers: HashMap<ConnectionId, Stranger>,
    pending: usize,
    of_peer: HashMap<PeerId, HashSet<ConnectionId>>,
    established: usize,
}

impl Book {
    /// Somebody connects.
    fn knock(&mut self, connection: ConnectionId, host: Option<Host>, now: Instant) -> Result<(), TurnedAway> {
        if self.pending >= PENDING_INBOUND_MAX {
            return Err(TurnedAway::Pending);
        }
        // Beyond what is remembered the bounds on all together still hold.
        if let Some(guest) = host.and_then(|host| self.guest(host, now)) {
            if guest.pending >= PENDING_PER_HOST_MAX {
                return Err(TurnedAway::HostPending);
            }
            let even_at = guest.even_at.max(now) + CONNECTIONS_PER_HOST_INTERVAL;
            if even_at - now > CONNECTIONS_PER_HOST_INTERVAL * CONNECTIONS_PER_HOST_BURST {
                return Err(TurnedAway::HostFast);
            }
            guest.even_at = even_at;
            guest.pending += 1;
        }
        self.pending += 1;
        self.strangers.insert(connection, Stranger { host, is_pending: true });
        Ok(())
    }

    fn guest(&mut self, host: Host, now: Instant) -> Option<&mut Guest> {
        if self.guests.len() >= HOSTS_REMEMBERED && !self.guests.contains_key(&host) {
            self.guests.retain(|_, guest| !guest.is_quiet(now));
            if self.guests.len() >= HOSTS_REMEMBERED {
                return None;
            }
        }
        Some(self.guests.entry(host).or_insert(Guest { pending: 0, unadmitted: 0, even_at: now }))
    }

    /// The encryption handshake of an inbound connection has ended well: it is known who it is.
    fn step_in(&mut self, connection: ConnectionId, peer: &PeerId) -> Result<(), TurnedAway> {
        let stranger = self.strangers.get(&connection).copied();
        self.forget(connection);
        self.check(peer)?;
        let Some(Stranger { host, .. }) = stranger else { return Ok(()) };
        if let Some(guest) = host.and_then(|host| self.guests.get_mut(&host)) {
            if guest.unadmitted >= UNADMITTED_PER_HOST_MAX {
                return Err(TurnedAway::HostUnadmitted);
            }
            guest.unadmitted += 1;
        }
        self.strangers.insert(connection, Stranger { host, is_pending: false });
        Ok(())
    }

    /// Whether one more connection may be.
    fn check(&self, peer: &PeerId) -> Result<(), TurnedAway> {
        if self.established >= CONNECTIONS_MAX {
            return Err(TurnedAway::Full);
        }
        let of_peer = self.of_peer.get(peer).map_or(0, HashSet::len);
        if of_peer >= CONNECTIONS_PER_PEER_MAX { Err(TurnedAway::OfPeer) } else { Ok(()) }
    }

    fn established(&mut self, connection: ConnectionId, peer: PeerId) {
        self.established += usize::from(self.of_peer.entry(peer).or_default().insert(connection));
    }

    fn closed(&mut self, connection: ConnectionId, peer: &PeerId) {
        self.forget(connection);
        let Some(connections) = self.of_peer.get_mut(peer) else { return };
        self.established -= usize::from(connections.remove(&connection));
        // Strangers have as many identities as they like: nothing stays of one that is gone.
        if connections.is_empty() {
            self.of_peer.remove(peer);
        }
    }

    /// A peer is admitted: its connections take no room of its host any more.
    fn admitted(&mut self, peer: &PeerId) {
        let connections: Vec<ConnectionId> = self.of_peer.get(peer).into_iter().flatten().copied().collect();
        connections.into_iter().for_each(|connection| self.forget(connection));
    }

    fn forget(&mut self, connection: ConnectionId) {
        let Some(Stranger { host, is_pending }) = self.strangers.remove(&connection) else { return };
        self.pending -= usize::from(is_pending);
        if let Some(guest) = host.and_then(|host| self.guests.get_mut(&host)) {
            let count = if is_pending { &mut guest.pending } else { &mut guest.unadmitted };
            *count = count.saturating_sub(1);
        }
    }

    /// Forgets hosts that are quiet.
    fn tidy(&mut self, now: Instant) {
        self.guests.retain(|_, guest| !guest.is_quiet(now));
    }
}

/// The door of a swarm.
pub(super) struct Door {
    book: Book,
    turned_away: Arc<AtomicU64>,
    tidied: Instant,
}

/// How often hosts that are quiet are forgotten.
const TIDY_INTERVAL: Duration = Duration::from_secs(10);

impl Door {
    /// A door that counts whom it turns away.
    pub(super) fn new(turned_away: Arc<AtomicU64>) -> Self {
        Self { book: Book::default(), turned_away, tidied: Instant::now() }
    }

    /// A peer is admitted.
    pub(super) fn admitted(&mut self, peer: &PeerId) {
        self.book.admitted(peer);
    }

    fn told(&self, result: Result<(), TurnedAway>) -> Result<(), ConnectionDenied> {
        result.map_err(|why| {
            add(&self.turned_away, 1);
            ConnectionDenied::new(why)
        })
    }
}

impl NetworkBehaviour for Door {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let now = Instant::now();
        if now - self.tidied >= TIDY_INTERVAL {
            self.tidied = now;
            self.book.tidy(now);
        }
        let knocked = self.book.knock(connection, Host::of(remote), now);
        self.told(knocked)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let stepped = self.book.step_in(connection, &peer);
        self.told(stepped)?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.told(self.book.check(&peer))?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) = event {
            self.book.established(connection_id, peer_id);
        } else if let FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) = event {
            self.book.closed(connection_id, &peer_id);
        } else if let FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) = event {
            self.book.forget(connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> Option<Host> {
        Some(Host(IpAddr::from([192, 0, 2, last])))
    }

    fn connection(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    #[test]
    fn one_address_takes_a_part_of_the_room_and_another_one_still_gets_in() {
        let (mut book, now) = (Book::default(), Instant::now());
        for number in 0..PENDING_PER_HOST_MAX {
            assert_eq!(book.knock(connection(number), host(1), now), Ok(()));
        }
        assert_eq!(book.knock(connection(1_000), host(1), now), Err(TurnedAway::HostPending));
        assert_eq!(book.knock(connection(1_001), host(2), now), Ok(()));
        book.forget(connection(0));
        assert_eq!(book.knock(connection(1_002), host(1), now), Ok(()));
        assert_eq!(book.pending, PENDING_PER_HOST_MAX + 1);
    }

    #[test]
    fn all_addresses_together_have_a_bound() {
        let (mut book, now) = (Book::default(), Instant::now());
        for number in 0..PENDING_INBOUND_MAX {
            let from = host(u8::try_from(number % 200).unwrap());
            assert_eq!(book.knock(connection(number), from, now), Ok(()));
        }
        assert_eq!(book.knock(connection(100_000), host(250), now), Err(TurnedAway::Pending));
    }

    #[test]
    fn who_says_nothing_after_the_encryption_takes_a_part_of_the_room_until_it_is_admitted_or_gone() {
        let (mut book, now) = (Book::default(), Instant::now());
        let come = |book: &mut Book, number: usize| {
            let peer = PeerId::random();
            book.knock(connection(number), host(1), now).unwrap();
            let result = book.step_in(connection(number), &peer);
            if result.is_ok() {
                book.established(connection(number), peer);
            }
            result.map(|()| peer)
        };
        let peers: Vec<PeerId> = (0..UNADMITTED_PER_HOST_MAX).map(|number| come(&mut book, number).unwrap()).collect();
        assert_eq!(come(&mut book, 1_000), Err(TurnedAway::HostUnadmitted));
        book.admitted(&peers[0]);
        assert!(come(&mut book, 1_001).is_ok());
        book.closed(connection(1), &peers[1]);
        assert!(come(&mut book, 1_002).is_ok());
        assert_eq!((book.pending, book.established), (0, UNADMITTED_PER_HOST_MAX + 1));
    }

    #[test]
    fn connections_of_one_address_have_a_pace() {
        let (mut book, begin) = (Book::default(), Instant::now());
        let mut taken = 0;
        let mut come_and_go = |book: &mut Book, number: u32, now: Instant| {
            let number = connection(number as usize);
            let result = book.knock(number, host(1), now);
            book.forget(number);
            taken += u32::from(result.is_ok());
            result
        };
        for number in 0..CONNECTIONS_PER_HOST_BURST {
            come_and_go(&mut book, number, begin).unwrap();
        }
        assert_eq!(come_and_go(&mut book, 1_000_000, begin), Err(TurnedAway::HostFast));
        let later = begin + CONNECTIONS_PER_HOST_INTERVAL;
        assert_eq!(come_and_go(&mut book, 1_000_001, later), Ok(()));
        assert_eq!(come_and_go(&mut book, 1_000_002, later), Err(TurnedAway::HostFast));
        assert_eq!(taken, CONNECTIONS_PER_HOST_BURST + 1);
    }

    #[test]
    fn nothing_stays_of_strangers_that_are_gone() {
        let (mut book, begin) = (Book::default(), Instant::now());
        for number in 0..1_000_u32 {
            let (at, peer) = (begin + CONNECTIONS_PER_HOST_INTERVAL * number, PeerId::random());
            let number = connection(number as usize);
            book.knock(number, host(1), at).unwrap();
            book.step_in(number, &peer).unwrap();
            book.established(number, peer);
            book.closed(number, &peer);
        }
        book.tidy(begin + CONNECTIONS_PER_HOST_INTERVAL * (1_000 + CONNECTIONS_PER_HOST_BURST));
        assert_eq!((book.guests.len(), book.strangers.len(), book.of_peer.len()), (0, 0, 0));
        assert_eq!((book.pending, book.established), (0, 0));
    }

    #[test]
    fn a_machine_has_one_network_of_ipv6_and_not_as_many_rooms_as_addresses() {
        let of = |address: &str| Host::of(&address.parse().unwrap()).unwrap();
        assert_eq!(of("/ip6/2001:db8::1/tcp/1"), of("/ip6/2001:db8::ffff:1/tcp/2"));
        assert_ne!(of("/ip6/2001:db8::1/tcp/1"), of("/ip6/2001:db8:0:1::1/tcp/1"));
        assert_eq!(of("/ip6/::ffff:192.0.2.1/tcp/1"), of("/ip4/192.0.2.1/tcp/9"));
    }
}
