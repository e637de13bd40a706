//! Tests of whole transports over sockets of the loopback interface.
//!
//! They assert what happened and in which order, never how fast; the waits are generous and end in a panic.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use libp2p_stream::Control;

use super::frame::FrameKind;
use super::handshake::Failure;
use super::limits::{CHUNK, SMALL_QUEUE_PAYLOADS};
use super::session::PROTOCOL;
use super::*;

mod kademlia;
mod strangers;

/// Longest wait for anything; the machine may be busy with more than these tests.
const PATIENCE: Duration = Duration::from_secs(180);

/// Keeps all that a transport tells.
#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
    payloads: Mutex<Vec<(PeerId, Vec<u8>)>>,
    largest_batch: Mutex<usize>,
    /// While set, `received` does not return.
    is_stuck: Mutex<bool>,
    /// What `received` makes of each payload.
    opinion: Mutex<Received>,
}

impl Handler for Recorder {
    fn received(&self, from: PeerId, payloads: Vec<Vec<u8>>) -> Received {
        while *self.is_stuck.lock().unwrap() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut largest = self.largest_batch.lock().unwrap();
        *largest = payloads.len().max(*largest);
        let (count, opinion) = (u32::try_from(payloads.len()).unwrap(), *self.opinion.lock().unwrap());
        self.payloads.lock().unwrap().extend(payloads.into_iter().map(|payload| (from, payload)));
        let Received { undecodable, impossible, held } = opinion;
        Received { undecodable: undecodable * count, impossible: impossible * count, held: held * count }
    }

    fn event(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

impl Recorder {
    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| wanted(event)).count()
    }

    fn admitted(&self, wanted: PeerId) -> usize {
        self.count(|event| matches!(event, Event::Admitted { peer, .. } if *peer == wanted))
    }

    fn refusals(&self) -> Vec<(RefuseReason, bool)> {
        let events = self.events.lock().unwrap();
        let refusal = |event: &Event| match event {
            Event::Refused { reason, by_remote, .. } => Some((reason.clone(), *by_remote)),
            Event::Listening { .. }
            | Event::Admitted { .. }
            | Event::Left { .. }
            | Event::Superseded { .. }
            | Event::Fresh { .. }
            | Event::OtherMesh { .. }
            | Event::Unreachable { .. }
            | Event::ListenFailed { .. } => None,
        };
        events.iter().filter_map(refusal).collect()
    }

    fn leavings(&self) -> Vec<LeaveReason> {
        let events = self.events.lock().unwrap();
        let leaving = |event: &Event| match event {
            Event::Left { reason, .. } => Some(reason.clone()),
            Event::Listening { .. }
            | Event::Admitted { .. }
            | Event::Refused { .. }
            | Event::Superseded { .. }
            | Event::Fresh { .. }
            | Event::OtherMesh { .. }
            | Event::Unreachable { .. }
            | Event::ListenFailed { .. } => None,
        };
        events.iter().filter_map(leaving).collect()
    }

    /// Panics when a peer's `Admitted` and `Left` do not take turns.
    fn assert_turns(&self) {
        let mut present = HashMap::new();
        for event in self.events.lock().unwrap().iter() {
            match event {
                Event::Admitted { peer, incarnation, .. } => {
                    assert_eq!(present.insert(*peer, *incarnation), None, "admitted twice");
                }
                Event::Left { peer, incarnation, .. } => {
                    assert_eq!(present.remove(peer), Some(*incarnation), "left without an admission");
                }
                Event::Listening { .. }
                | Event::Fresh { .. }
                | Event::Refused { .. }
                | Event::Superseded { .. }
                | Event::OtherMesh { .. }
                | Event::Unreachable { .. }
                | Event::ListenFailed { .. } => {}
            }
        }
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}

fn loopback() -> Multiaddr {
    "/ip4/127.0.0.1/tcp/0".parse().unwrap()
}

fn genesis() -> Genesis {
    Genesis::from_bytes([7; 16])
}

fn config() -> TransportConfig {
    TransportConfig {
        keypair: Keypair::generate_ed25519(),
        listen: vec![loopback()],
        advertise: vec![],
        join: vec![],
        mesh_name: "arena".to_owned(),
        genesis: Some(genesis()),
        expect: None,
        secret: None,
        incarnation: random_incarnation(),
        hello: b"hello".to_vec(),
        mdns: false,
    }
}

/// A port that can be named before anything listens at it; outside of the range from which port 0 is chosen.
fn unused_port() -> u16 {
    loop {
        let port = 16_384 + (u16::from_be_bytes(random_bytes()) % 16_384);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn id(keypair: &Keypair) -> PeerId {
    from_libp2p(&keypair.public().to_peer_id()).unwrap()
}

/// Two keys, the lower peer's first.
fn two_keys() -> (Keypair, Keypair) {
    let (one, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    if id(&one) < id(&other) { (one, other) } else { (other, one) }
}

async fn start(config: TransportConfig) -> (Transport, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let transport = Transport::start(config, Arc::clone(&recorder) as Arc<dyn Handler>).await.unwrap();
    (transport, recorder)
}

fn address_of(transport: &Transport) -> PeerAddress {
    parse_address(&transport.addresses()[0].to_string()).unwrap()
}

fn joining(seed: &Transport) -> TransportConfig {
    TransportConfig { join: vec![address_of(seed)], genesis: None, ..config() }
}

async fn pair() -> ((Transport, Arc<Recorder>), (Transport, Arc<Recorder>)) {
    let one = start(config()).await;
    let other = start(joining(&one.0)).await;
    until("both are admitted", || one.0.peers() == [other.0.local_peer()] && other.0.peers() == [one.0.local_peer()])
        .await;
    (one, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_peers_exchange_ten_thousand_payloads_in_order() {
    let ((one, one_told), (other, other_told)) = pair().await;
    assert_eq!(other.genesis(), Some(genesis()));
    let flow = |from: Transport, to: PeerId| async move {
        for number in 0..10_000_u32 {
            let mut payload = number.to_be_bytes().to_vec();
            payload.resize(4 + number as usize % 300, 0xab);
            while from.send(to, payload.clone()) == Err(SendError::Busy) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    tokio::join!(flow(one.clone(), other.local_peer()), flow(other.clone(), one.local_peer()));
    for told in [&one_told, &other_told] {
        until("all have arrived", || told.payloads.lock().unwrap().len() == 10_000).await;
        for (number, (_, payload)) in told.payloads.lock().unwrap().iter().enumerate() {
            assert_eq!(payload[..4], u32::try_from(number).unwrap().to_be_bytes());
            assert_eq!(payload.len(), 4 + number % 300);
        }
        assert!(*told.largest_batch.lock().unwrap() <= limits::RECEIVE_BATCH);
    }
    assert_eq!(one.counters().dropped, 0);
    assert!(one.counters().frames_sent >= 10_000 && other.counters().bytes_received > 1_000_000);
}

#[tokio::test]
async fn an_admission_tells_hello_incarnation_addresses_and_genesis() {
    let seed_config = TransportConfig { hello: vec![1, 2, 3], incarnation: 42, ..config() };
    let (seed, _) = start(seed_config).await;
    let (_joiner, told) = start(joining(&seed)).await;
    until("admitted", || told.admitted(seed.local_peer()) == 1).await;
    let events = told.events.lock().unwrap();
    let admitted = events.iter().find_map(|event| match event {
        Event::Admitted { incarnation, hello, addresses, genesis, .. } => {
            Some((*incarnation, hello.clone(), addresses.clone(), *genesis))
        }
        Event::Listening { .. }
        | Event::Left { .. }
        | Event::Refused { .. }
        | Event::Superseded { .. }
        | Event::Fresh { .. }
        | Event::OtherMesh { .. }
        | Event::Unreachable { .. }
        | Event::ListenFailed { .. } => None,
    });
    let mut address = seed.addresses()[0].clone();
    address.pop();
    assert_eq!(admitted, Some((42, vec![1, 2, 3], vec![address], genesis())));
}

#[tokio::test]
async fn peers_that_join_one_seed_become_a_full_mesh() {
    let (seed, _) = start(config()).await;
    let mut peers = vec![];
    for _ in 0..5 {
        peers.push(start(joining(&seed)).await);
    }
    until("everybody knows everybody", || {
        seed.peers().len() == 5 && peers.iter().all(|(peer, _)| peer.peers().len() == 5)
    })
    .await;
    for (_, told) in &peers {
        told.assert_turns();
    }
}

#[tokio::test]
async fn simultaneous_dials_give_one_admission_each() {
    let ports = [unused_port(), unused_port()];
    let configure = |own: u16, other: u16| TransportConfig {
        listen: vec![format!("/ip4/127.0.0.1/tcp/{own}").parse().unwrap()],
        join: vec![parse_address(&format!("127.0.0.1:{other}")).unwrap()],
        ..config()
    };
    let ((one, one_told), (other, other_told)) =
        tokio::join!(start(configure(ports[0], ports[1])), start(configure(ports[1], ports[0])));
    until("both are admitted", || one.peers().len() == 1 && other.peers().len() == 1).await;
    // Every duplicate would have come by now: payloads and a whole refresh went both ways.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((one_told.admitted(other.local_peer()), other_told.admitted(one.local_peer())), (1, 1));
    assert_eq!((one_told.leavings(), other_told.leavings()), (vec![], vec![]));
}

/// Starts a peer and one that joins it; gives the first refusal that each tells.
async fn refusals(
    seed: (TransportConfig, u32, usize),
    joiner: (TransportConfig, u32),
) -> ((RefuseReason, bool), (RefuseReason, bool)) {
    let (seed_told, joiner_told) = (Arc::new(Recorder::default()), Arc::new(Recorder::default()));
    let (seed_config, version, peers_max) = seed;
    let seed = Transport::start_with(seed_config, seed_told.clone(), version, peers_max).await.unwrap();
    let (joiner_config, version) = joiner;
    let joiner_config = TransportConfig { join: vec![address_of(&seed)], ..joiner_config };
    let _joiner = Transport::start_with(joiner_config, joiner_told.clone(), version, PEERS_MAX).await.unwrap();
    until("both tell of the refusal", || !seed_told.refusals().is_empty() && !joiner_told.refusals().is_empty()).await;
    assert_eq!(seed_told.count(|event| matches!(event, Event::Admitted { .. })), 0);
    assert_eq!(joiner_told.count(|event| matches!(event, Event::Admitted { .. })), 0);
    (seed_told.refusals().swap_remove(0), joiner_told.refusals().swap_remove(0))
}

#[tokio::test]
async fn another_mesh_name_is_refused_by_both() {
    let named = |name: &str| TransportConfig { mesh_name: name.to_owned(), ..config() };
    let (seed, joiner) = refusals((named("one"), 1, PEERS_MAX), (named("two"), 1)).await;
    let reason = |theirs: &str, ours: &str| RefuseReason::WrongMeshName { theirs: theirs.into(), ours: ours.into() };
    assert_eq!((seed.0, joiner.0), (reason("two", "one"), reason("one", "two")));
}

#[tokio::test]
async fn another_secret_or_only_one_is_refused_by_both() {
    let with = |secret: Option<&[u8]>| TransportConfig { secret: secret.map(<[u8]>::to_vec), ..config() };
    for (seed, joiner) in [(Some(&b"one"[..]), Some(&b"two"[..])), (Some(b"one"), None), (None, Some(b"one"))] {
        let (seed, joiner) = refusals((with(seed), 1, PEERS_MAX), (with(joiner), 1)).await;
        assert_eq!((seed.0, joiner.0), (RefuseReason::WrongSecret, RefuseReason::WrongSecret));
    }
}

#[tokio::test]
async fn the_same_secret_is_admitted() {
    let secret = Some(b"one".to_vec());
    let (seed, _) = start(TransportConfig { secret: secret.clone(), ..config() }).await;
    let (joiner, _) = start(TransportConfig { secret, ..joining(&seed) }).await;
    until("admitted", || joiner.peers().len() == 1 && seed.peers().len() == 1).await;
}

#[tokio::test]
async fn another_genesis_is_refused_by_both() {
    let theirs = Genesis::from_bytes([8; 16]);
    let other = TransportConfig { genesis: Some(theirs), ..config() };
    let (seed, joiner) = refusals((config(), 1, PEERS_MAX), (other, 1)).await;
    assert_eq!(seed.0, RefuseReason::OtherGenesis { theirs, ours: genesis() });
    assert_eq!(joiner.0, RefuseReason::OtherGenesis { theirs: genesis(), ours: theirs });
}

#[tokio::test]
async fn another_protocol_version_is_refused_by_both() {
    let (seed, joiner) = refusals((config(), 1, PEERS_MAX), (config(), 2)).await;
    assert_eq!(seed.0, RefuseReason::ProtocolVersion { theirs: 2, ours: 1 });
    assert_eq!(joiner.0, RefuseReason::ProtocolVersion { theirs: 1, ours: 2 });
}

#[tokio::test]
async fn a_full_mesh_refuses_and_the_joiner_is_told() {
    let (seed, joiner) = refusals((config(), 1, 0), (config(), 1)).await;
    assert_eq!(seed, (RefuseReason::TooManyPeers, false));
    assert_eq!(joiner, (RefuseReason::TooManyPeers, true));
}

#[tokio::test]
async fn two_peers_without_a_mesh_refuse_each_other_until_one_has_one() {
    let (seed, seed_told) = start(TransportConfig { genesis: None, ..config() }).await;
    let (joiner, joiner_told) = start(joining(&seed)).await;
    until("both tell of the refusal", || {
        let is_told = |told: &Recorder| told.refusals().iter().any(|(reason, _)| *reason == RefuseReason::NoMeshYet);
        is_told(&seed_told) && is_told(&joiner_told)
    })
    .await;
    let (founder, _) = start(TransportConfig { join: vec![address_of(&seed)], ..config() }).await;
    until("all have found the mesh", || {
        [&seed, &joiner, &founder].iter().all(|peer| peer.peers().len() == 2 && peer.genesis() == Some(genesis()))
    })
    .await;
}

#[tokio::test]
async fn a_join_address_of_oneself_is_told_once() {
    let port = unused_port();
    let (_transport, told) = start(TransportConfig {
        listen: vec![format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()],
        join: vec![parse_address(&format!("localhost:{port}")).unwrap()],
        ..config()
    })
    .await;
    // The name may have an IPv6 address too, where nobody listens.
    until("told", || !told.refusals().is_empty()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(told.refusals(), [(RefuseReason::SelfConnect, false)]);
}

#[tokio::test]
async fn another_peer_at_a_join_address_is_told() {
    let (seed, _) = start(config()).await;
    let mut address = seed.addresses()[0].clone();
    address.pop();
    let expected = Keypair::generate_ed25519().public().to_peer_id();
    let join = vec![parse_address(&format!("{address}/p2p/{expected}")).unwrap()];
    let (joiner, told) = start(TransportConfig { join, ..config() }).await;
    until("told", || !told.refusals().is_empty()).await;
    let actual = to_libp2p(&seed.local_peer()).unwrap().to_string();
    assert_eq!(told.refusals()[0].0, RefuseReason::WrongPeer { expected: expected.to_string(), actual });
    assert_eq!(joiner.peers(), []);
}

#[tokio::test]
async fn an_unreachable_join_address_is_told_and_tried_until_it_answers() {
    let port = unused_port();
    let join = vec![parse_address(&format!("127.0.0.1:{port}")).unwrap()];
    let (joiner, told) = start(TransportConfig { join, genesis: None, ..config() }).await;
    until("told", || told.count(|event| matches!(event, Event::Unreachable { .. })) == 1).await;
    let listen = vec![format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()];
    let (_seed, _) = start(TransportConfig { listen, ..config() }).await;
    until("joined", || joiner.peers().len() == 1).await;
}

#[tokio::test]
async fn a_taken_port_is_told() {
    let (first, _) = start(config()).await;
    let mut address = first.addresses()[0].clone();
    address.pop();
    let second = TransportConfig { listen: vec![address.clone()], ..config() };
    let error = Transport::start(second, Arc::new(Recorder::default())).await.unwrap_err();
    assert_eq!(error, StartError::PortTaken { address });
    first.shutdown().await;
}

#[tokio::test]
async fn small_payloads_overtake_a_large_one() {
    let ((one, _), (other, told)) = pair().await;
    // Nothing is awaited in between, and the runtime has one thread: all is queued before anything is written.
    one.send(other.local_peer(), vec![1; 16 << 20]).unwrap();
    for number in 0..200_u8 {
        one.send(other.local_peer(), vec![number]).unwrap();
    }
    until("all have arrived", || told.payloads.lock().unwrap().len() == 201).await;
    let payloads = told.payloads.lock().unwrap();
    for (number, (_, payload)) in payloads[..200].iter().enumerate() {
        assert_eq!(payload, &[u8::try_from(number).unwrap()]);
    }
    assert!(payloads[200].1 == vec![1; 16 << 20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_of_every_length_arrive_whole() {
    let ((one, _), (other, told)) = pair().await;
    let lengths = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 1, MAX_PAYLOAD];
    for length in lengths {
        one.send(other.local_peer(), vec![0x5a; length]).unwrap();
    }
    let too_long = one.send(other.local_peer(), vec![0; MAX_PAYLOAD + 1]);
    assert_eq!(too_long, Err(SendError::TooLong { bytes: MAX_PAYLOAD + 1 }));
    until("all have arrived", || told.payloads.lock().unwrap().len() == lengths.len()).await;
    let mut arrived: Vec<_> = told.payloads.lock().unwrap().iter().map(|(_, payload)| payload.len()).collect();
    arrived.sort_unstable();
    assert_eq!(arrived, lengths);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_receiver_that_is_stuck_makes_the_sender_busy_and_nothing_is_lost() {
    let ((one, _), (other, told)) = pair().await;
    assert_eq!(one.send(PeerId::from_bytes([0; 32]), vec![]), Err(SendError::NotConnected));
    *told.is_stuck.lock().unwrap() = true;
    let mut queued = 0;
    loop {
        match one.send(other.local_peer(), vec![0; 1_000]) {
            Ok(()) => queued += 1,
            Err(error) => {
                assert_eq!(error, SendError::Busy);
                break;
            }
        }
        assert!(queued < 100 * SMALL_QUEUE_PAYLOADS, "the queue has no bound");
        if queued % 1_000 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(one.counters().busy, 1);
    *told.is_stuck.lock().unwrap() = false;
    until("all have arrived", || told.payloads.lock().unwrap().len() == queued).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_flushes_and_is_clean() {
    let ((one, one_told), (other, told)) = pair().await;
    let peer = one.local_peer();
    for number in 0..1_000_u16 {
        one.send(other.local_peer(), number.to_be_bytes().to_vec()).unwrap();
    }
    one.send(other.local_peer(), vec![1; 1 << 20]).unwrap();
    one.shutdown_within(PATIENCE).await;
    assert_eq!(one_told.leavings(), [LeaveReason::ShutDown]);
    assert_eq!(one.send(other.local_peer(), vec![]), Err(SendError::NotConnected));
    until("told", || !told.leavings().is_empty()).await;
    assert_eq!(told.leavings(), [LeaveReason::Goodbye]);
    assert!(LeaveReason::Goodbye.is_clean());
    let payloads = told.payloads.lock().unwrap();
    assert_eq!(payloads.len(), 1_001);
    assert!(payloads.iter().all(|(from, _)| *from == peer));
}

#[tokio::test]
async fn a_kill_is_told_as_lost_and_a_restart_is_admitted_anew() {
    let (seed, seed_told) = start(config()).await;
    let keypair = Keypair::generate_ed25519();
    let configure = |seed: &Transport| TransportConfig { keypair: keypair.clone(), ..joining(seed) };
    let (joiner, _) = start(configure(&seed)).await;
    let peer = joiner.local_peer();
    until("admitted", || seed_told.admitted(peer) == 1).await;
    drop(joiner);
    until("lost", || !seed_told.leavings().is_empty()).await;
    assert!(matches!(seed_told.leavings()[..], [LeaveReason::Lost { .. }]));
    let (_joiner, _) = start(configure(&seed)).await;
    until("admitted anew", || seed_told.admitted(peer) == 2).await;
    seed_told.assert_turns();
}

async fn run_two_processes_with_one_key(seed_key: Keypair, keypair: Keypair) {
    let (seed, seed_told) = start(TransportConfig { keypair: seed_key, ..config() }).await;
    let configure = |seed: &Transport| TransportConfig { keypair: keypair.clone(), ..joining(seed) };
    let (older, older_told) = start(configure(&seed)).await;
    until("admitted", || seed_told.admitted(older.local_peer()) == 1).await;
    let (newer, _) = start(configure(&seed)).await;
    until("the older one is refused", || {
        older_told.refusals().iter().any(|(reason, _)| *reason == RefuseReason::DuplicateIncarnation)
    })
    .await;
    until("the newer one is admitted", || newer.peers() == [seed.local_peer()]).await;
    until("the older one is told", || older_told.count(|event| matches!(event, Event::Superseded { .. })) == 1).await;
    until("it is alone", || older.peers().is_empty()).await;
    seed_told.assert_turns();
    assert_eq!(seed_told.leavings(), [LeaveReason::Replaced]);
}

#[tokio::test]
async fn of_two_processes_with_one_key_the_newer_replaces_the_older() {
    let (low, high) = two_keys();
    tokio::join!(run_two_processes_with_one_key(low.clone(), high.clone()), run_two_processes_with_one_key(high, low));
}

#[tokio::test]
async fn all_find_each_other_again_after_the_seed_was_killed_and_restarted() {
    let listen = vec![format!("/ip4/127.0.0.1/tcp/{}", unused_port()).parse().unwrap()];
    let seed_config = TransportConfig { listen, ..config() };
    let (seed, _) = start(seed_config.clone()).await;
    let (one, one_told) = start(joining(&seed)).await;
    let (other, other_told) = start(joining(&seed)).await;
    until("a full mesh", || one.peers().len() == 2 && other.peers().len() == 2).await;
    drop(seed);
    until("the seed is lost", || one.peers().len() == 1 && other.peers().len() == 1).await;
    // It lets go of the port a moment after the drop.
    let restart = async {
        loop {
            let again = TransportConfig { incarnation: random_incarnation(), ..seed_config.clone() };
            match Transport::start(again, Arc::new(Recorder::default())).await {
                Ok(seed) => return seed,
                Err(error) => assert!(matches!(error, StartError::PortTaken { .. }), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seed = tokio::time::timeout(PATIENCE, restart).await.unwrap();
    until("a full mesh again", || [&seed, &one, &other].iter().all(|peer| peer.peers().len() == 2)).await;
    one_told.assert_turns();
    other_told.assert_turns();
}

fn fresh(expect: u16, join: Vec<PeerAddress>) -> TransportConfig {
    TransportConfig { genesis: None, expect: Some(expect), join, ..config() }
}

impl Recorder {
    fn fresh(&self, wanted: PeerId) -> Vec<FreshEvent> {
        let fresh = |event: &Event| match event {
            Event::Fresh { peer, event } if *peer == wanted => Some(event.clone()),
            Event::Fresh { .. }
            | Event::Listening { .. }
            | Event::Admitted { .. }
            | Event::Left { .. }
            | Event::Refused { .. }
            | Event::Superseded { .. }
            | Event::OtherMesh { .. }
            | Event::Unreachable { .. }
            | Event::ListenFailed { .. } => None,
        };
        self.events.lock().unwrap().iter().filter_map(fresh).collect()
    }
}

#[tokio::test]
async fn fresh_peers_that_name_one_seed_are_linked_and_admitted_when_one_has_a_mesh() {
    let seed = start(fresh(5, vec![])).await;
    let mut all = vec![seed];
    for _ in 1..5 {
        let join = vec![address_of(&all[0].0)];
        all.push(start(fresh(5, join)).await);
    }
    let ids: Vec<_> = all.iter().map(|(transport, _)| transport.local_peer()).collect();
    let others = |own: PeerId| ids.iter().filter(move |id| **id != own);
    until("each has met all others", || {
        all.iter()
            .all(|(own, told)| others(own.local_peer()).all(|other| told.fresh(*other).contains(&FreshEvent::Met)))
    })
    .await;
    for (transport, told) in &all {
        // R26: a link is no admission.
        assert!(transport.peers().is_empty() && told.count(|event| matches!(event, Event::Admitted { .. })) == 0);
        assert_eq!(transport.send(ids[0], b"early".to_vec()), Err(SendError::NotConnected));
    }
    assert!(all[1].0.send_fresh(ids[2], b"psst".to_vec()));
    until("it is heard", || all[2].1.fresh(ids[1]).contains(&FreshEvent::Said(b"psst".to_vec()))).await;
    assert!(!all[1].0.send_fresh(ids[2], vec![0; limits::FOUNDING_BYTES_MAX + 1]));
    assert!(!all[1].0.send_fresh(ids[1], b"to myself".to_vec()));

    assert_eq!(all[3].0.found(genesis()), Ok(()));
    assert_eq!(all[3].0.found(Genesis::from_bytes([8; 16])), Err(genesis()));
    until("all are admitted", || all.iter().all(|(transport, _)| transport.peers().len() == 4)).await;
    for (transport, told) in &all {
        assert_eq!(transport.genesis(), Some(genesis()));
        told.assert_turns();
    }
    assert!(!all[1].0.send_fresh(ids[2], b"too late".to_vec()));
}

#[tokio::test]
async fn other_numbers_refuse_each_other_while_both_are_fresh() {
    let (three, three_told) = start(fresh(3, vec![])).await;
    let (four, four_told) = start(fresh(4, vec![address_of(&three)])).await;
    until("both are told", || {
        let is_told = |told: &Recorder, theirs, ours| {
            told.refusals().iter().any(|(reason, _)| *reason == RefuseReason::OtherExpect { theirs, ours })
        };
        is_told(&three_told, 4, 3) && is_told(&four_told, 3, 4)
    })
    .await;
    assert!(three_told.fresh(four.local_peer()).is_empty());
    assert_eq!(three.found(genesis()), Ok(()));
    until("what was founded is joined", || four.genesis() == Some(genesis())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_peers_that_join_one_seed_become_a_full_mesh() {
    const JOINERS: usize = 49;
    let (seed, seed_told) = start(config()).await;
    let mut peers = vec![(seed.clone(), seed_told)];
    let begun = Instant::now();
    for _ in 0..JOINERS {
        peers.push(start(joining(&seed)).await);
    }
    until("everybody knows everybody", || peers.iter().all(|(peer, _)| peer.peers().len() == JOINERS)).await;
    println!("a full mesh of {} peers after {:?}", peers.len(), begun.elapsed());
    // A handshake that was too slow on one side begins anew; once all are there, all stay.
    let leavings = || peers.iter().map(|(_, told)| told.leavings()).collect::<Vec<_>>();
    let before = leavings();
    let is_lost = |reason: &LeaveReason| matches!(reason, LeaveReason::Lost { .. });
    assert!(before.iter().flatten().all(is_lost), "{before:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(leavings(), before);
    for (_, told) in &peers {
        told.assert_turns();
    }
}

#[tokio::test]
async fn another_mesh_is_told_once() {
    let (seed, told) = start(config()).await;
    let theirs = Genesis::from_bytes([8; 16]);
    let foreign = || TransportConfig { genesis: Some(theirs), ..joining(&seed) };
    let _foreign = [start(foreign()).await, start(foreign()).await, start(foreign()).await];
    until("all are refused", || told.refusals().len() >= 3).await;
    let other_genesis = RefuseReason::OtherGenesis { theirs, ours: genesis() };
    let is_told =
        |event: &Event, wanted: &RefuseReason| matches!(event, Event::OtherMesh { reason, .. } if reason == wanted);
    assert_eq!(told.count(|event| is_told(event, &other_genesis)), 1);
    assert!(seed.counters().other_genesis >= 3);
    let _named = start(TransportConfig { mesh_name: "other".to_owned(), ..joining(&seed) }).await;
    let other_name = RefuseReason::WrongMeshName { theirs: "other".to_owned(), ours: "arena".to_owned() };
    until("the other name is told", || told.count(|event| is_told(event, &other_name)) == 1).await;
}

/// Opens a substream and passes the handshake. Opens another one when that was dropped unread, as may happen when
/// several come at once.
async fn open_greeted(control: &mut Control, shared: &Arc<Shared>, target: &Transport) -> libp2p::Stream {
    let opening = async {
        let mut wait = limits::OPEN_RETRY_DELAY;
        loop {
            let mut stream = control.open_stream(to_libp2p(&target.local_peer()).unwrap(), PROTOCOL).await.unwrap();
            match handshake::run(shared, target.local_peer(), &mut stream).await {
                Ok(_) => return stream,
                Err(Failure::Unheard) => tokio::time::sleep(wait).await,
                Err(failure) => panic!("{failure:?}"),
            }
            wait *= 2;
        }
    };
    tokio::time::timeout(PATIENCE, opening).await.expect("one of the substreams is read")
}

/// Drops the substreams that a target opens itself when it had to wait for one, as a peer does that is about to open one.
fn drop_incoming(mut control: Control) {
    let mut incoming = control.accept(PROTOCOL).unwrap();
    tokio::spawn(async move { while incoming.next().await.is_some() {} });
}

/// What a handshake with the peers of [`config`] needs of the peer with this key.
fn shared_of(keypair: &Keypair, genesis: Option<Genesis>, expect: Option<u16>) -> Arc<Shared> {
    let local = Local {
        peer: id(keypair),
        libp2p_peer: keypair.public().to_peer_id(),
        protocol_version: PROTOCOL_VERSION,
        mesh_name: "arena".to_owned(),
        expect,
        incarnation: 1,
        hello: vec![],
        advertise: vec![],
        proof_key: handshake::proof_key(None),
        peers_max: PEERS_MAX,
    };
    let (commands, _) = mpsc::channel(1);
    Arc::new(Shared::new(local, genesis, Arc::new(Recorder::default()), commands, Counters::default()))
}
