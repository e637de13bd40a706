//! The transport: payloads between the peers of one mesh, over TCP with noise and yamux.
//!
//! Each pair of peers has one connection that carries one substream both ways. A peer joins by one address and is
//! led to all others by Kademlia; peers of one network find each other by mDNS. Payloads are delivered in order, at most once, and are lost when their connection is
//! lost: whoever needs more must acknowledge. It refuses to look into payloads, to block a sender, to buffer without
//! bound, and to talk to peers of another mesh, version or secret.

mod address;
mod bytes;
mod conduct;
mod connection;
mod counters;
#[cfg(feature = "testing")]
mod delay;
mod dial;
mod door;
mod frame;
mod fresh;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod handshake;
#[cfg(feature = "testing")]
mod hold;
mod lanes;
mod latch;
pub mod limits;
mod nearby;
mod no_records;
mod pace;
mod peer_id;
mod ping;
mod reason;
mod registry;
mod routing;
mod session;
mod swarm;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use driftmesh_model::PeerId;
use libp2p::identity::ed25519;
use libp2p::multiaddr::Protocol;
use tokio::sync::{mpsc, oneshot};

pub(crate) use address::is_loopback;
pub use address::{AddressError, PeerAddress, parse_address};
pub use conduct::{Offender, Received};
pub use counters::TransportCounters;
pub use frame::FrameError;
pub use libp2p::Multiaddr;
pub use libp2p::identity::Keypair;
pub use peer_id::{from_libp2p, to_libp2p};
pub use reason::{Genesis, LeaveReason, RefuseReason};

use counters::{Counters, add};
use dial::DialBook;
use latch::Latch;
use limits::{
    ADDRESSES_MAX, COMMANDS_MAX, HELLO_BYTES_MAX, JOIN_ADDRESSES_MAX, MAX_PAYLOAD, MESH_NAME_BYTES_MAX, PEERS_MAX,
    PROTOCOL_VERSION, SHUTDOWN_TIMEOUT,
};
use registry::{Local, Shared};
use routing::Routing;
use swarm::{Command, NearbySearch, Plans};

/// Random bytes of the operating system. An ed25519 secret key is 32 of them and nothing else.
fn random_bytes<const N: usize>() -> [u8; N] {
    const { assert!(N <= 32, "a key has 32 bytes") };
    let mut bytes = [0; N];
    bytes.copy_from_slice(&ed25519::SecretKey::generate().as_ref()[..N]);
    bytes
}

/// A random number for [`TransportConfig::incarnation`].
#[must_use]
pub fn random_incarnation() -> u64 {
    u64::from_be_bytes(random_bytes())
}

/// Takes what the transport receives. The methods are called from the connections' own tasks and should return
/// within milliseconds: `received` holds up the one peer that sent the payloads, `event` may hold up all. They may
/// call [`Transport::send`].
pub trait Handler: Send + Sync + 'static {
    /// Payloads of an admitted peer: at least 1, at most 64. Calls for one peer follow each other; those for
    /// different peers run at the same time. Payloads up to 64 KiB come in the order in which they were sent, larger
    /// ones too, but a small one may overtake a large one. What it returns decides how much more of that peer is taken in,
    /// and whether it is dropped; [`Received::default`] finds nothing wrong.
    fn received(&self, from: PeerId, payloads: Vec<Vec<u8>>) -> Received;

    /// Something happened. Between `Admitted` and `Left` of a peer, and only then, its payloads come.
    fn event(&self, event: Event);

    /// What the next peer is told in place of [`TransportConfig::hello`], at most 4 KiB, if that has changed since the start.
    fn hello(&self) -> Option<Vec<u8>> {
        None
    }
}

/// What happens in the mesh, as one peer sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A listener is bound.
    Listening {
        /// The address, with `/p2p/`, at which others can join.
        address: Multiaddr,
    },
    /// A peer passed the handshake. Exactly one `Left` follows before the next `Admitted` of the same peer.
    Admitted {
        /// The peer.
        peer: PeerId,
        /// Its start: another number than before means that it was restarted and has forgotten what it did not keep.
        incarnation: u64,
        /// What it told of itself, at most 4 KiB. Its meaning is the caller's.
        hello: Vec<u8>,
        /// Where it can be dialled.
        addresses: Vec<Multiaddr>,
        /// The mesh that both belong to from now on.
        genesis: Genesis,
    },
    /// An admitted peer is no longer connected.
    Left {
        /// The peer.
        peer: PeerId,
        /// The start that was admitted.
        incarnation: u64,
        /// Why; see [`LeaveReason::is_clean`].
        reason: LeaveReason,
    },
    /// A handshake ended with a refusal. A join address is tried again all the same. Not told of other programs and
    /// other meshes that mDNS led to.
    Refused {
        /// The peer, when its identity is known.
        peer: Option<PeerId>,
        /// Where it was dialled, or from where it came.
        address: Option<Multiaddr>,
        /// Why, as this side sees it.
        reason: RefuseReason,
        /// Whether the other side refused.
        by_remote: bool,
    },
    /// A member has refused this peer for a newer process with the same key. All connections end; the transport has
    /// stopped.
    Superseded {
        /// The member.
        by: PeerId,
    },
    /// Something happened between this peer and a fresh one, while both have no mesh.
    Fresh {
        /// The other.
        peer: PeerId,
        /// What happened.
        event: FreshEvent,
    },
    /// Another mesh is within reach: the same network, or a peer of it came here. Told once for each, of 64 at most.
    OtherMesh {
        /// How it differs, `WrongMeshName` or `OtherGenesis`, and what can be done if that is a mistake.
        reason: RefuseReason,
        /// Where one of its peers was dialled, or from where it came.
        address: Option<Multiaddr>,
    },
    /// An address could not be dialled; told at most once in 5 s for each address.
    Unreachable {
        /// The address.
        address: Multiaddr,
        /// What the operating system reported.
        error: String,
    },
    /// A listener that was bound ended; nobody can join through it any more.
    ListenFailed {
        /// The addresses that it was bound to.
        addresses: Vec<Multiaddr>,
        /// What the operating system reported.
        error: String,
    },
}

/// What happens between two fresh peers that expect the same number of peers to found a mesh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FreshEvent {
    /// It can be reached. May be told again.
    Met,
    /// It said something about the founding. What was said last may come after `Lost`.
    Said(Vec<u8>),
    /// It is out of reach, or one of the two has found a mesh; then an `Admitted` follows.
    Lost,
}

/// How a transport is started.
#[derive(Clone)]
pub struct TransportConfig {
    /// The ed25519 key that is the peer's identity.
    pub keypair: Keypair,
    /// Where to listen, for example `/ip4/127.0.0.1/tcp/0`. A peer that listens nowhere can still join.
    pub listen: Vec<Multiaddr>,
    /// What to tell others instead of the addresses that are listened at; at most 16.
    pub advertise: Vec<Multiaddr>,
    /// Addresses of peers to join, tried for ever; at most 256. One is enough.
    pub join: Vec<PeerAddress>,
    /// The name of the mesh, at most 64 bytes.
    pub mesh_name: String,
    /// The mesh's genesis: `Some` for a peer that founds a mesh or already belongs to one, `None` for one that joins
    /// and takes that of the first peer that admits it.
    pub genesis: Option<Genesis>,
    /// How many peers, this one included, are to found a mesh while it has none; the same at all that do. `None`
    /// keeps it from talking to other peers without a mesh.
    pub expect: Option<u16>,
    /// The mesh's secret. `None` is the same as an empty one.
    pub secret: Option<Vec<u8>>,
    /// A number that is random for each start; see [`random_incarnation`].
    pub incarnation: u64,
    /// What others are told with [`Event::Admitted`], at most 4 KiB.
    pub hello: Vec<u8>,
    /// Whether to find peers of the local network by mDNS, and to be found. Never when all of `listen` is loopback; with
    /// join addresses and without a genesis only from the first admission on.
    pub mdns: bool,
}

impl fmt::Debug for TransportConfig {
    /// Leaves out the key and the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TransportConfig")
            .field("listen", &self.listen)
            .field("advertise", &self.advertise)
            .field("join", &self.join)
            .field("mesh_name", &self.mesh_name)
            .field("genesis", &self.genesis)
            .field("expect", &self.expect)
            .field("has_secret", &self.secret.is_some())
            .field("incarnation", &self.incarnation)
            .field("mdns", &self.mdns)
            .finish_non_exhaustive()
    }
}

/// A transport that could not be started.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another process listens at the port.
    #[error("{address} is taken by another process; stop it, or choose another port (0 chooses a free one)")]
    PortTaken {
        /// The address to listen at.
        address: Multiaddr,
    },
    /// The address belongs to no interface of this machine.
    #[error("{address} is no address of this machine; listen at one of its own, or at /ip4/0.0.0.0/tcp/PORT for all")]
    AddressNotLocal {
        /// The address to listen at.
        address: Multiaddr,
    },
    /// The operating system reserves the port.
    #[error("{address} may not be used without privileges; choose a port above 1023")]
    PortForbidden {
        /// The address to listen at.
        address: Multiaddr,
    },
    /// The address is not plain TCP.
    #[error("{address} cannot be listened at; give /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT")]
    UnsupportedAddress {
        /// The address to listen at.
        address: Multiaddr,
    },
    /// Listening failed for another reason.
    #[error("cannot listen at {address}: {error}; choose another address or port")]
    ListenFailed {
        /// The address to listen at.
        address: Multiaddr,
        /// What the operating system reported.
        error: String,
    },
    /// The key is not an ed25519 key, or cannot be used.
    #[error("the peer's key cannot be used: {error}; create an ed25519 key")]
    Key {
        /// What is wrong with it.
        error: String,
    },
    /// The mesh name is empty or too long.
    #[error("the mesh name has {bytes} bytes; give it 1 to {MESH_NAME_BYTES_MAX}")]
    MeshName {
        /// Its length, bytes.
        bytes: usize,
    },
    /// The hello payload is too long.
    #[error("the hello payload has {bytes} bytes; at most {HELLO_BYTES_MAX} are allowed")]
    HelloTooLong {
        /// Its length, bytes.
        bytes: usize,
    },
    /// Too many addresses to advertise or to join.
    #[error("{count} addresses were given where {limit} are allowed; leave some out")]
    TooManyAddresses {
        /// How many were given.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
}

/// A payload that was not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// The peer is not admitted, or is leaving.
    #[error("the peer is not connected; wait until it is admitted")]
    NotConnected,
    /// The peer's queue is full: it takes payloads more slowly than they are sent.
    #[error("too much waits for the peer; send less, or try again later")]
    Busy,
    /// The payload is longer than any peer accepts.
    #[error("the payload has {bytes} bytes; at most {MAX_PAYLOAD} are allowed")]
    TooLong {
        /// Its length, bytes.
        bytes: usize,
    },
}

/// A running transport. Clones are the same transport; when the last is dropped it stops at once, without goodbyes.
/// A handler must therefore not hold one, or be told to let go of it.
#[derive(Clone)]
pub struct Transport {
    owner: Arc<Owner>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Transport").field("peer", &self.local_peer()).finish_non_exhaustive()
    }
}

struct Owner {
    shared: Arc<Shared>,
    stopped: Arc<Latch>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.stop.set();
    }
}

impl Transport {
    /// Starts a transport on the current tokio runtime. Returns when all listeners are bound; `Listening` events are
    /// told before. Joining goes on in the background. Cancel safe: nothing stays when it is dropped.
    ///
    /// # Errors
    /// When a limit of the configuration is broken, the key cannot be used, or a listener cannot be bound.
    pub async fn start(config: TransportConfig, handler: Arc<dyn Handler>) -> Result<Self, StartError> {
        Self::start_with(config, handler, PROTOCOL_VERSION, PEERS_MAX).await
    }

    async fn start_with(
        config: TransportConfig,
        handler: Arc<dyn Handler>,
        protocol_version: u32,
        peers_max: usize,
    ) -> Result<Self, StartError> {
        check(&config)?;
        let libp2p_peer = config.keypair.public().to_peer_id();
        let peer = from_libp2p(&libp2p_peer)
            .ok_or_else(|| StartError::Key { error: "it is not an ed25519 key".to_owned() })?;
        let counters = Counters::default();
        let mut swarm = swarm::build(config.keypair, Arc::clone(&counters.connections_turned_away))?;
        let incoming = swarm.behaviour().accept();
        let bound = swarm::listen(&mut swarm, &config.listen).await?;
        let local = Local {
            peer,
            libp2p_peer,
            protocol_version,
            mesh_name: config.mesh_name,
            expect: config.expect,
            incarnation: config.incarnation,
            hello: config.hello,
            advertise: config.advertise,
            proof_key: handshake::proof_key(config.secret.as_deref()),
            peers_max,
        };
        let (commands, command_receiver) = mpsc::channel(COMMANDS_MAX);
        let shared = Arc::new(Shared::new(local, config.genesis, handler, commands, counters));
        let now = Instant::now();
        let mdns = match config.mdns && config.listen.iter().any(|address| !is_loopback(address)) {
            false => NearbySearch::Off,
            // Whoever names addresses wants the mesh that is there, not one that mDNS finds first.
            // Who expects others joins any mesh in reach, so that none is founded beside it.
            true if config.genesis.is_none() && config.expect.is_none() && !config.join.is_empty() => {
                NearbySearch::AfterAdmission
            }
            true => NearbySearch::AtOnce,
        };
        let plans =
            Plans { mdns, book: DialBook::new(peer, config.join, now), routing: Routing::new(&libp2p_peer, now) };
        let driver = swarm::Driver::new(swarm, Arc::clone(&shared), command_receiver, plans, bound);
        let stopped = Arc::new(Latch::new());
        let owner = Arc::new(Owner { shared: Arc::clone(&shared), stopped: Arc::clone(&stopped) });
        tokio::spawn(session::accept(shared, incoming));
        tokio::spawn(async move {
            driver.run().await;
            stopped.set();
        });
        Ok(Self { owner })
    }

    /// Queues a payload of at most [`MAX_PAYLOAD`] bytes for an admitted peer. Never blocks. The payload arrives
    /// once, or never when the connection is lost before.
    ///
    /// # Errors
    /// When the peer is not admitted, its queue is full, or the payload is too long.
    pub fn send(&self, to: PeerId, payload: Vec<u8>) -> Result<(), SendError> {
        self.send_as(to, payload, false)
    }

    /// As [`Transport::send`], before all that is not in haste: what tells others that somebody lives must not wait behind
    /// work.
    ///
    /// # Errors
    /// As those of [`Transport::send`].
    pub fn send_in_haste(&self, to: PeerId, payload: Vec<u8>) -> Result<(), SendError> {
        self.send_as(to, payload, true)
    }

    fn send_as(&self, to: PeerId, payload: Vec<u8>, haste: bool) -> Result<(), SendError> {
        let shared = &self.owner.shared;
        let session = shared.session(&to).ok_or(SendError::NotConnected)?;
        let result = session.lanes.push(payload, haste);
        if result == Err(SendError::Busy) {
            add(&shared.counters.busy, 1);
        }
        result
    }

    /// Queues a message of the founding, at most 1 KiB, for a fresh peer. Never blocks. Returns whether it was queued;
    /// it may still be lost.
    pub fn send_fresh(&self, to: PeerId, message: Vec<u8>) -> bool {
        fresh::said(message).is_some_and(|frame| self.owner.shared.send_fresh(&to, frame))
    }

    /// Makes this peer the first that belongs to a mesh; fresh peers that it meets join it.
    ///
    /// # Errors
    /// When it belongs to another mesh already: gives that one's genesis.
    pub fn found(&self, genesis: Genesis) -> Result<(), Genesis> {
        self.owner.shared.adopt(genesis).map_err(|_| self.genesis().unwrap_or(genesis))
    }

    /// A bare round trip to a peer over its substream, past whatever waits in the lanes of payloads. Cancel safe.
    ///
    /// # Errors
    /// `NotConnected`, also when the connection ends meanwhile; `Busy` while 16 are under way.
    pub async fn ping(&self, to: PeerId) -> Result<(), SendError> {
        let session = self.owner.shared.session(&to).ok_or(SendError::NotConnected)?;
        let (body, came_back) = session.pings.begin().ok_or(SendError::Busy)?;
        // What is not sent would be waited for as long as the connection lasts.
        if !session.lanes.push_control(frame::encode(frame::FrameKind::Ping, &body)) {
            return Err(SendError::Busy);
        }
        tokio::select! {
            came_back = came_back => came_back.map_err(|_| SendError::NotConnected),
            () = session.ended.wait() => Err(SendError::NotConnected),
        }
    }

    /// This peer.
    #[must_use]
    pub fn local_peer(&self) -> PeerId {
        self.owner.shared.local.peer
    }

    /// The admitted peers, sorted.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerId> {
        let mut peers: Vec<_> = self.owner.shared.sessions().iter().map(|session| session.peer).collect();
        peers.sort_unstable();
        peers
    }

    /// Looks for the peers nearest to a key by Kademlia: those whose SHA-256 hash of the libp2p peer id has the smallest XOR
    /// distance to the SHA-256 hash of the key. Who is found is dialled, admitted and told of as always. Not done while too
    /// many lookups are under way.
    pub fn seek(&self, key: Vec<u8>) {
        let (answer, _) = oneshot::channel();
        // Whoever seeks asks again if it matters.
        let _ = self.owner.shared.commands.try_send(Command::Find { key, answer });
    }

    /// The addresses, with `/p2p/`, at which others can join.
    #[must_use]
    pub fn addresses(&self) -> Vec<Multiaddr> {
        let shared = &self.owner.shared;
        let with_peer = |address: Multiaddr| match address.iter().last() {
            Some(Protocol::P2p(_)) => address,
            Some(_) | None => address.with(Protocol::P2p(shared.local.libp2p_peer)),
        };
        shared.addresses().into_iter().map(with_peer).collect()
    }

    /// The mesh that this peer belongs to; `None` until a peer has admitted it.
    #[must_use]
    pub fn genesis(&self) -> Option<Genesis> {
        self.owner.shared.genesis()
    }

    /// What was sent, received, dropped and refused since the start.
    #[must_use]
    pub fn counters(&self) -> TransportCounters {
        self.owner.shared.counters.read()
    }

    /// The members that said what no peer says, the worst 16 of those that are remembered.
    #[must_use]
    pub fn offenders(&self) -> Vec<Offender> {
        self.owner.shared.conduct().worst(Instant::now())
    }

    /// Writes these bytes to an admitted peer as they are, past the queues of payloads: whole frames or not. Returns
    /// whether they were queued.
    #[cfg(feature = "testing")]
    pub fn send_raw(&self, to: PeerId, bytes: Vec<u8>) -> bool {
        self.owner.shared.session(&to).is_some_and(|session| session.lanes.push_control(bytes))
    }

    /// Writes nothing to any admitted peer for so long, 10 s at most; what is sent meanwhile waits in the queues, within
    /// their bounds. A later call replaces an earlier one.
    #[cfg(feature = "testing")]
    pub fn hold_outgoing(&self, duration: Duration) {
        self.owner.shared.hold.begin(duration);
    }

    /// From now on what is written to any peer arrives so much later.
    #[cfg(feature = "testing")]
    pub fn delay_outgoing(&self, delay: Duration) {
        self.owner.shared.delay.set(delay);
    }

    /// Ends the transport: sends what is queued and a goodbye to every peer, waits until they have taken it, 1 s at
    /// most, and lets go of the ports, which may take 1 s more. Every admitted peer's `Left` is told before it
    /// returns, unless a handler takes longer. Cancel safe: dropped, it leaves a transport that admits nobody.
    pub async fn shutdown(&self) {
        self.shutdown_within(SHUTDOWN_TIMEOUT).await;
    }

    /// As [`Transport::shutdown`], with another limit for each of its two waits.
    pub(crate) async fn shutdown_within(&self, limit: Duration) {
        let Owner { shared, stopped } = &*self.owner;
        let sessions = shared.close();
        sessions.iter().for_each(|session| session.lanes.leave());
        let ended = || futures::future::join_all(sessions.iter().map(|session| session.ended.wait()));
        let flushed = tokio::time::timeout(limit, ended()).await;
        if flushed.is_err() {
            tracing::warn!("shutdown: not all peers took what was queued for them");
        }
        shared.stop.set();
        let released = async {
            ended().await;
            stopped.wait().await;
        };
        if tokio::time::timeout(limit, released).await.is_err() {
            tracing::warn!("shutdown: a handler holds up the end of a connection");
        }
    }
}

fn check(config: &TransportConfig) -> Result<(), StartError> {
    let bytes = config.mesh_name.len();
    if bytes == 0 || bytes > MESH_NAME_BYTES_MAX {
        return Err(StartError::MeshName { bytes });
    }
    if config.hello.len() > HELLO_BYTES_MAX {
        return Err(StartError::HelloTooLong { bytes: config.hello.len() });
    }
    for (addresses, limit) in [(config.advertise.len(), ADDRESSES_MAX), (config.join.len(), JOIN_ADDRESSES_MAX)] {
        if addresses > limit {
            return Err(StartError::TooManyAddresses { count: addresses, limit });
        }
    }
    Ok(())
}
