//! How a peer is configured and started.
//!
//! It refuses to open a mesh without a secret to other machines, unless it is told to.

use crate::addresses::{is_loopback, parse_listen};
use crate::clock::Clock;
use crate::founding::{self, FoundingHost};
use crate::host::{Identity, LiveHost, Shared, spawn_timers};
use crate::inbound::Inbound;
use crate::joining::{Joining, Way};
use crate::notice::{Notice, Observer};
use crate::task;
use crate::transport::{
    Genesis, PeerAddress, Transport, TransportConfig, from_libp2p, parse_address, random_incarnation,
};
use crate::{Mesh, OutboxMessage, StartError, Task, outbox};
use driftmesh_model::{Incarnation, codec};
use driftmesh_peer::session::Handlers;
use driftmesh_peer::{Config, EXPECT_MAX, HELD_BYTES, Peer, REPLICAS, REPLICAS_MAX};
use libp2p::Multiaddr;
use libp2p::identity::{Keypair, ed25519};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

/// The mesh's name unless another is given.
const DEFAULT_MESH: &str = "default";
/// Where a peer listens unless told otherwise: on this machine only, at a free port.
const DEFAULT_LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
/// How long a joining peer waits to be admitted.
const DEFAULT_JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Adds a type of tasks. Returns whether it could.
pub(crate) type AddTask = fn(&mut Handlers<LiveHost>) -> bool;

/// Settings of a peer. Without any, it founds a mesh of its own and listens on loopback.
#[derive(Clone)]
#[must_use = "nothing happens until start() is called"]
pub struct Builder {
    name: String,
    new_mesh: bool,
    expect: Option<usize>,
    search: bool,
    join: Vec<String>,
    /// `None` for what suits the way in which it comes to a mesh.
    join_timeout: Option<Option<Duration>>,
    listen: Vec<String>,
    advertise: Vec<String>,
    secret: Option<Vec<u8>>,
    open: bool,
    mdns: bool,
    zone: Option<String>,
    replicas: usize,
    placement: bool,
    held_bytes_max: u64,
    import: Option<PathBuf>,
    observer: Option<Observer>,
    /// What adds the types of tasks to those that it can run.
    tasks: Vec<(&'static str, AddTask)>,
    /// The identity; drawn anew for each start unless a test gives one.
    key: Option<Keypair>,
}

impl std::fmt::Debug for Builder {
    /// Leaves out the secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Builder")
            .field("name", &self.name)
            .field("expect", &self.expect)
            .field("search", &self.search)
            .field("join", &self.join)
            .field("listen", &self.listen)
            .field("has_secret", &self.secret.is_some())
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            name: DEFAULT_MESH.to_owned(),
            new_mesh: false,
            expect: None,
            search: false,
            join: Vec::new(),
            join_timeout: None,
            listen: Vec::new(),
            advertise: Vec::new(),
            secret: None,
            open: false,
            mdns: true,
            zone: None,
            replicas: REPLICAS,
            placement: true,
            held_bytes_max: HELD_BYTES,
            import: None,
            observer: None,
            tasks: Vec::new(),
            key: None,
        }
    }
}

impl Builder {
    /// The name of the mesh, at most 64 bytes; `default` unless set. Meshes of different names refuse each other.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Founds a new mesh, which is also what happens when nothing else is asked for. Cannot be combined with
    /// [`Builder::join`], [`Builder::expect`] and [`Builder::search`].
    pub const fn new_mesh(mut self) -> Self {
        self.new_mesh = true;
        self
    }

    /// Joins any mesh within reach, else founds one together with others, once `peers` of them (1 to 128, this one
    /// included) have found each other and agreed. All must be started with the same number, and it must be more than
    /// half of the peers that are ever started before there is a mesh: then never more than one is founded. They find
    /// each other by mDNS where they listen on a network, and by [`Builder::join`] addresses, which may lead to peers
    /// that have no mesh yet.
    pub const fn expect(mut self, peers: usize) -> Self {
        self.expect = Some(peers);
        self
    }

    /// Looks for a mesh and never founds one: by [`Builder::join`] addresses, by mDNS where it listens on an address of
    /// a network, or by being found by one of its peers.
    pub const fn search(mut self) -> Self {
        self.search = true;
        self
    }

    /// Joins the mesh of the peer at this address: a multiaddress with or without `/p2p/ID`, or `HOST:PORT`. May be
    /// repeated: one reachable address is enough.
    pub fn join(mut self, address: &str) -> Self {
        self.join.push(address.to_owned());
        self
    }

    /// How long [`Builder::start`] waits until the peer belongs to a mesh; `None` for ever. Unless set, 30 s for a peer
    /// that only joins, and for ever for one that expects others or searches.
    pub const fn join_timeout(mut self, limit: Option<Duration>) -> Self {
        self.join_timeout = Some(limit);
        self
    }

    /// Listens at this address: `/ip4/ADDRESS/tcp/PORT`, `/ip6/ADDRESS/tcp/PORT` or `ADDRESS:PORT`. May be repeated;
    /// a free loopback port unless set.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen.push(address.to_owned());
        self
    }

    /// Tells others to reach this peer at this address instead of those it listens at. May be repeated.
    pub fn advertise(mut self, address: &str) -> Self {
        self.advertise.push(address.to_owned());
        self
    }

    /// The mesh's secret. Peers with another one, or without one, are refused.
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secret = Some(secret.into());
        self
    }

    /// Allows a mesh without a secret to be reached from other machines.
    pub const fn open(mut self, open: bool) -> Self {
        self.open = open;
        self
    }

    /// Whether to find peers of the same network by mDNS and to be found by them: `true` unless set. Peers that listen
    /// on loopback only never do.
    pub const fn mdns(mut self, mdns: bool) -> Self {
        self.mdns = mdns;
        self
    }

    /// How many other peers hold copies of what this one owns: 0 to 6, 2 unless set. Fewer where there are fewer peers.
    /// With 2, any one peer may crash without a loss of what is stable; with 4, any two.
    pub const fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Whether objects of this peer follow those that they are used with, and tasks are sent to what is in much use here
    /// instead of taking it away: `true` unless set. Without it objects move only to transactions and tasks that write them.
    pub const fn placement(mut self, placement: bool) -> Self {
        self.placement = placement;
        self
    }

    /// How many bytes the objects may take that this peer holds, its own and copies of others': 8 GiB unless set. What would
    /// create or enlarge objects beyond that, or bring some here, is refused with [`Error::NoRoom`](crate::Error::NoRoom);
    /// what deletes some or makes them smaller passes. An object counts its bytes and 256 more. The process takes more than
    /// this: see `docs/operations.md`.
    pub const fn held_bytes_max(mut self, bytes: u64) -> Self {
        self.held_bytes_max = bytes;
        self
    }

    /// Begins the new mesh with all objects of a file that [`Mesh::export`] wrote, names, schedules and outcomes of tasks
    /// included, under their former ids, so that references hold. Nobody can join before. When the file is damaged, cut short or something else, the
    /// start fails and nothing is created.
    pub fn import(mut self, file: impl Into<PathBuf>) -> Self {
        self.import = Some(file.into());
        self
    }

    /// The failure domain of this peer: a rack, a machine, a data centre. Copies are kept in other ones where there are
    /// any. Unless set, the machine.
    pub fn zone(mut self, zone: &str) -> Self {
        self.zone = Some(zone.to_owned());
        self
    }

    /// Is told what happens: who joins and leaves, who is refused, what cannot be reached. The closure is called from
    /// the transport's tasks and must return at once.
    pub fn observe(mut self, observer: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Lets this peer run tasks of a type, its own and those of others. All peers that may own what such tasks touch should
    /// know the type: what they do not know runs elsewhere.
    pub fn register<T: Task>(mut self) -> Self {
        self.tasks.push((T::NAME, task::add::<T>));
        self
    }

    /// Lets this peer deliver messages of a type to the world outside. All peers that may own the objects they belong to should
    /// know the type: what nobody here knows waits until its object is elsewhere.
    pub fn deliver<M: OutboxMessage>(mut self) -> Self {
        self.tasks.push((M::NAME, outbox::add::<M>));
        self
    }

    /// Starts the peer on the current tokio runtime. It belongs to a mesh when this returns. Cancel safe:
    /// nothing stays when it is dropped.
    ///
    /// # Errors
    /// When a setting is wrong, a port is taken, or no peer of the mesh admits this one in time.
    pub async fn start(self) -> Result<Mesh, StartError> {
        let waits = self.expect.is_some() || self.search;
        let limit = self.join_timeout.unwrap_or(if waits { None } else { Some(DEFAULT_JOIN_TIMEOUT) });
        let mesh = self.launch().await?;
        mesh.joined(limit).await?;
        Ok(mesh)
    }

    /// Gives the peer an identity made of these bytes, for tests of what happens when two processes have one. Who knows
    /// them can pass for the peer.
    #[cfg(feature = "testing")]
    pub fn identity_of(mut self, bytes: [u8; 32]) -> Self {
        // Any 32 bytes are a key.
        self.key = Keypair::ed25519_from_bytes(bytes).ok();
        self
    }

    /// As [`Builder::start`], but returns as soon as the peer listens; joining goes on in the background. See
    /// [`Mesh::joined`].
    ///
    /// # Errors
    /// When a setting is wrong or a port is taken.
    pub async fn launch(self) -> Result<Mesh, StartError> {
        let places = self.check()?;
        let mut handlers = Handlers::default();
        for (name, add) in &self.tasks {
            if !add(&mut handlers) {
                return Err(StartError::TaskName { name: (*name).to_owned() });
            }
        }
        let clock = Clock::start();
        let key = self.key.unwrap_or_else(Keypair::generate_ed25519);
        // An ed25519 key has a peer id by construction.
        let peer_id = from_libp2p(&key.public().to_peer_id()).expect("the key is an ed25519 key");
        let incarnation = random_incarnation();
        let mut config = Config::new(peer_id, Incarnation::from_u64(incarnation), random_seed());
        config.founder = places.way == Way::Found;
        config.replicas = self.replicas;
        config.placement = self.placement;
        config.held_bytes_max = self.held_bytes_max;
        config.domain = domain_of(self.zone.as_deref());
        let (peer, clock) = filled(Peer::new(config, clock.now()), clock, self.import).await?;
        let hello = codec::encode(&peer.introduction()).expect("an introduction is a few integers");
        let identity = Identity { peer: peer_id, mesh: self.name.clone(), zone: self.zone };
        let shared = Shared::new(peer, clock, identity, Joining::new(places.way, &places.join), handlers);
        let founding = self
            .expect
            .map(|expect| Arc::new(FoundingHost::new(peer_id, expect, random_incarnation(), self.observer.clone())));
        let inbound = Inbound {
            shared: Arc::downgrade(&shared),
            observer: self.observer,
            founding: founding.clone(),
            told_superseded: AtomicBool::new(false),
            told_deposed: AtomicU64::new(0),
        };
        let config = TransportConfig {
            keypair: key,
            listen: places.listen,
            advertise: places.advertise,
            join: places.join,
            mesh_name: self.name,
            // Checked: at most 128.
            expect: self.expect.and_then(|expect| u16::try_from(expect).ok()),
            genesis: (places.way == Way::Found).then(Genesis::random),
            secret: self.secret,
            incarnation,
            hello,
            mdns: self.mdns,
        };
        let transport = Transport::start(config, Arc::new(inbound)).await?;
        shared.set_transport(transport);
        spawn_timers(&shared).map_err(|error| StartError::NoThread { error: error.to_string() })?;
        if let Some(founding) = founding {
            founding::spawn(&shared, founding);
        }
        Ok(Mesh::new(LiveHost { shared }))
    }

    fn check(&self) -> Result<Places, StartError> {
        if self.new_mesh && !self.join.is_empty() {
            return Err(StartError::NewAndJoin);
        }
        if self.search && self.expect.is_some() || self.new_mesh && (self.search || self.expect.is_some()) {
            return Err(StartError::OneWayToFound);
        }
        if self.import.is_some() && (self.search || self.expect.is_some() || !self.join.is_empty()) {
            return Err(StartError::ImportWithoutNew);
        }
        if let Some(given) = self.expect.filter(|expect| !(1..=EXPECT_MAX).contains(expect)) {
            return Err(StartError::Expect { given });
        }
        if self.replicas > REPLICAS_MAX {
            return Err(StartError::Replicas { given: self.replicas });
        }
        let way = match self.expect {
            Some(_) => Way::Expect,
            None if self.search || !self.join.is_empty() => Way::Join,
            None => Way::Found,
        };
        if self.secret.as_ref().is_some_and(Vec::is_empty) {
            return Err(StartError::EmptySecret);
        }
        let mut listen = Vec::new();
        for text in &self.listen {
            listen.push(parse_listen(text)?);
        }
        if listen.is_empty() {
            listen.push(parse_listen(DEFAULT_LISTEN)?);
        }
        let mut advertise: Vec<Multiaddr> = Vec::new();
        for text in &self.advertise {
            // What a peer address displays is a multiaddress.
            advertise.extend(parse_address(text)?.to_string().parse::<Multiaddr>().ok());
        }
        let join = self.join.iter().map(|text| parse_address(text)).collect::<Result<Vec<_>, _>>()?;
        let is_protected = self.secret.is_some() || self.open;
        match listen.iter().chain(&advertise).find(|address| !is_loopback(address)) {
            Some(address) if !is_protected => Err(StartError::NotLoopback { address: address.to_string() }),
            Some(_) | None => Ok(Places { way, listen, advertise, join }),
        }
    }
}

struct Places {
    way: Way,
    listen: Vec<Multiaddr>,
    advertise: Vec<Multiaddr>,
    join: Vec<PeerAddress>,
}

/// Fills a peer from a file, if one is given, without holding up the runtime.
async fn filled(mut peer: Peer, clock: Clock, file: Option<PathBuf>) -> Result<(Peer, Clock), StartError> {
    let Some(file) = file else { return Ok((peer, clock)) };
    let filling = tokio::task::spawn_blocking(move || {
        crate::export::import(&mut peer, &file, || clock.now())?;
        Ok((peer, clock))
    });
    // It is not cancelled, so it has ended, or panicked.
    filling.await.map_err(|error| StartError::Runtime { error: error.to_string() })?
}

/// What fails together: the zone, else the machine, else nothing that is known.
fn domain_of(zone: Option<&str>) -> u64 {
    let machine = || std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let hash = match zone {
        Some(zone) => blake3::derive_key("driftmesh failure domain: zone", zone.as_bytes()),
        None => blake3::derive_key("driftmesh failure domain: machine", machine().trim().as_bytes()),
    };
    u64::from_be_bytes(std::array::from_fn(|index| hash[index]))
}

/// 32 bytes of the operating system: a secret ed25519 key is nothing else. Hashed, so that it is none any more.
fn random_seed() -> [u8; 32] {
    *blake3::hash(ed25519::SecretKey::generate().as_ref()).as_bytes()
}
