//! The live network and the live clocks pass the suites that the simulated ones pass (`driftmesh_sim::ports`): what the
//! simulator supposes holds for them.

use crate::Mesh;
use crate::host::Shared;
use crate::transport::limits::MAX_PAYLOAD;
use crate::transport::{
    Event, Genesis, Handler, Received, SendError, Transport, TransportConfig, from_libp2p, parse_address,
    random_incarnation,
};
use driftmesh_model::{Micros, Now, PeerId};
use driftmesh_sim::ports::{ClockPort, NetworkPort, NotSent, Promises, Told, clock_conforms, network_conforms};
use libp2p::identity::Keypair;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const PEERS: usize = 3;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// On the loopback interface whatever still comes has come by then.
const RUN_OUT: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A payload begins with its number.
const NUMBER_BYTES: usize = 8;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What one peer was told, over all its starts.
#[derive(Default)]
struct Log {
    told: Mutex<Vec<Told>>,
    /// The peers, by their numbers.
    ids: Vec<PeerId>,
}

impl Log {
    fn note(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    fn number(&self, peer: PeerId) -> usize {
        self.ids.iter().position(|id| *id == peer).expect("nobody else is there")
    }
}

/// The rest of a payload follows from its number, so that no byte of it can change unseen.
fn filled(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    let seed = number.to_le_bytes()[0];
    payload.extend((NUMBER_BYTES..bytes).map(|at| seed.wrapping_add(at.to_le_bytes()[0]) ^ at.to_le_bytes()[1]));
    payload
}

impl Handler for Log {
    fn received(&self, from: PeerId, payloads: Vec<Vec<u8>>) -> Received {
        for payload in payloads {
            let number = payload.first_chunk().map(|number| u64::from_be_bytes(*number));
            let whole = number.filter(|number| payload == filled(*number, payload.len()));
            let payload = whole.map(|number| (number, payload.len()));
            self.note(Told::Said { from: self.number(from), payload });
        }
        Received::default()
    }

    fn event(&self, event: Event) {
        match event {
            Event::Admitted { peer, incarnation, .. } => {
                self.note(Told::Met { peer: self.number(peer), start: incarnation });
            }
            Event::Left { peer, reason, .. } => {
                self.note(Told::Left { peer: self.number(peer), clean: reason.is_clean() });
            }
            Event::Listening { .. }
            | Event::Refused { .. }
            | Event::Superseded { .. }
            | Event::Fresh { .. }
            | Event::OtherMesh { .. }
            | Event::Unreachable { .. }
            | Event::ListenFailed { .. } => {}
        }
    }
}

struct LiveNetwork {
    keys: Vec<Keypair>,
    logs: Vec<Arc<Log>>,
    transports: Vec<Option<Transport>>,
    began: Vec<usize>,
    runtime: Runtime,
}

impl LiveNetwork {
    fn new() -> Self {
        let keys: Vec<Keypair> = (0..PEERS).map(|_| Keypair::generate_ed25519()).collect();
        let ids: Vec<PeerId> = keys.iter().map(|key| from_libp2p(&key.public().to_peer_id()).unwrap()).collect();
        let logs = (0..PEERS).map(|_| Arc::new(Log { told: Mutex::default(), ids: ids.clone() })).collect();
        let transports = (0..PEERS).map(|_| None).collect();
        let mut net = Self { keys, logs, transports, began: vec![0; PEERS], runtime: runtime() };
        for peer in 0..PEERS {
            net.start(peer);
        }
        assert!(net.run_until(&mut |net| net.transports.iter().flatten().all(|peer| peer.peers().len() == PEERS - 1)));
        net
    }
}

impl NetworkPort for LiveNetwork {
    fn promises(&self) -> Promises {
        Promises { in_order: true, once: true }
    }

    fn peers(&self) -> usize {
        PEERS
    }

    fn longest(&self) -> usize {
        MAX_PAYLOAD
    }

    fn send(&mut self, from: usize, to: usize, number: u64, bytes: usize) -> Result<(), NotSent> {
        let transport = self.transports[from].as_ref().ok_or(NotSent::NotConnected)?;
        transport.send(self.logs[from].ids[to], filled(number, bytes)).map_err(|error| match error {
            SendError::NotConnected => NotSent::NotConnected,
            SendError::Busy => NotSent::Busy,
            SendError::TooLong { .. } => NotSent::TooLong,
        })
    }

    fn stop(&mut self, peer: usize, clean: bool) {
        let transport = self.transports[peer].take().expect("it runs");
        if clean {
            // The suite says what is flushed, not how fast.
            self.runtime.block_on(transport.shutdown_within(PATIENCE));
        }
        drop(transport);
    }

    fn start(&mut self, peer: usize) {
        self.began[peer] = self.logs[peer].told.lock().unwrap().len();
        let seed = self.transports.iter().flatten().next();
        let join = seed.map(|seed| parse_address(&seed.addresses()[0].to_string()).unwrap());
        let genesis = Genesis::from_bytes([7; 16]);
        let config = TransportConfig {
            keypair: self.keys[peer].clone(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            advertise: Vec::new(),
            genesis: join.is_none().then_some(genesis),
            join: join.into_iter().collect(),
            mesh_name: "conformance".to_owned(),
            expect: None,
            secret: None,
            incarnation: random_incarnation(),
            hello: Vec::new(),
            mdns: false,
        };
        let handler: Arc<dyn Handler> = Arc::clone(&self.logs[peer]) as Arc<dyn Handler>;
        let started = self.runtime.block_on(Transport::start(config, handler));
        self.transports[peer] = Some(started.unwrap());
    }

    fn run_until(&mut self, is_so: &mut dyn FnMut(&Self) -> bool) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if is_so(self) {
                return true;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        false
    }

    fn run_out(&mut self) {
        std::thread::sleep(RUN_OUT);
    }

    fn told(&self, at: usize) -> (Vec<Told>, usize) {
        (self.logs[at].told.lock().unwrap().clone(), self.began[at])
    }
}

#[test]
fn the_live_network_conforms() {
    network_conforms(LiveNetwork::new);
}

struct LiveClock {
    /// A mesh of one: nobody else makes it set timers.
    mesh: Mesh,
    runtime: Runtime,
}

impl LiveClock {
    fn new() -> Self {
        let runtime = runtime();
        let mesh = runtime.block_on(Mesh::builder().start()).unwrap();
        Self { mesh, runtime }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.mesh.host.shared
    }
}

impl ClockPort for LiveClock {
    fn drift_ppm(&self) -> u64 {
        // The system's own clock may be slewed.
        1_000
    }

    fn jitter_us(&self) -> u64 {
        // The thread that reads the two may be made to wait between them.
        20_000
    }

    fn now(&mut self) -> Now {
        self.shared().step(|_, now| now)
    }

    fn set_wall(&mut self, by_us: i64) {
        self.shared().set_wall(by_us);
    }

    fn sleep(&mut self, for_us: u64) -> Now {
        self.runtime.block_on(self.shared().sleep(Duration::from_micros(for_us)));
        self.now()
    }

    fn next_timer(&mut self) -> (Micros, Micros) {
        let look = || self.shared().step(|peer, now| (peer.next_timer().expect("there are always timers"), now.mono));
        let (wanted, _) = look();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let (next, now) = look();
            if next != wanted {
                return (wanted, now);
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        panic!("the timer for {wanted:?} never fires");
    }
}

#[test]
fn live_clocks_conform() {
    clock_conforms(LiveClock::new);
}
