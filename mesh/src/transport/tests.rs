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
use libp2p::kad;
use libp2p::swarm::SwarmEvent;
use libp2p_stream::Control;

use super::frame::FrameKind;
use super::handshake::Failure;
use super::limits::{CHUNK, FIND_RESULTS, SMALL_QUEUE_PAYLOADS};
use super::session::PROTOCOL;
use super::*;

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
async fn a_fresh_peer_that_breaks_the_protocol_ends_its_link_only() {
    let (low, high) = two_keys();
    let (target, told) = start(TransportConfig { keypair: high, ..fresh(3, vec![]) }).await;
    let (friend, _) = start(fresh(3, vec![address_of(&target)])).await;
    until("a friend is met", || told.fresh(friend.local_peer()) == [FreshEvent::Met]).await;
    let table: [(Vec<u8>, FrameError); 5] = [
        (vec![0; 50], FrameError::UnknownKind(0)),
        (frame::encode(FrameKind::Payload, b"not admitted"), FrameError::Unexpected(1)),
        (frame::encode(FrameKind::Alive, b""), FrameError::Unexpected(5)),
        (frame::encode(FrameKind::Founding, &[0xff; 9]), FrameError::Body(0x47)),
        (frame::encode(FrameKind::Hello, b""), FrameError::Unexpected(0x81)),
    ];
    for (index, (bytes, error)) in table.into_iter().enumerate() {
        let mut stream = greeted_stream(low.clone(), &target, None, Some(3)).await;
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        until("it is refused", || told.refusals().len() == index + 1).await;
        assert_eq!(told.refusals()[index], (RefuseReason::Malformed(error), false));
        assert_eq!(told.fresh(id(&low)).last(), Some(&FreshEvent::Lost));
        until("its connection is closed", || target.owner.shared.endpoint(&id(&low)).is_none()).await;
    }
    assert!(target.peers().is_empty() && told.payloads.lock().unwrap().is_empty());
    assert_eq!(told.fresh(friend.local_peer()), [FreshEvent::Met]);
    let mut random = blake3::Hasher::new().update(b"fresh link").finalize_xof();
    for round in 1..=40 {
        let mut stream = greeted_stream(low.clone(), &target, None, Some(3)).await;
        let mut bytes = vec![0; 200];
        random.fill(&mut bytes);
        bytes[..4].copy_from_slice(&[0x47, 0, 0, 20]);
        let _ = stream.write_all(&bytes).await;
        let _ = stream.close().await;
        until("it is lost", || {
            told.fresh(id(&low)).iter().filter(|event| **event == FreshEvent::Lost).count() == 5 + round
        })
        .await;
        drop(stream);
        until("its connection is closed", || target.owner.shared.endpoint(&id(&low)).is_none()).await;
    }
    assert_eq!(told.fresh(friend.local_peer()), [FreshEvent::Met]);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_finds_the_homes_of_an_object() {
    use driftmesh_directory::HomeRing;
    use driftmesh_model::ObjectId;
    let (seed, _) = start(config()).await;
    let mut peers = vec![seed.clone()];
    for _ in 0..11 {
        peers.push(start(joining(&seed)).await.0);
    }
    until("everybody knows everybody", || peers.iter().all(|peer| peer.peers().len() == 11)).await;
    for number in 0..20 {
        let object = ObjectId::from_u128(number << 64 | 7);
        let key = *blake3::hash(&object.as_u128().to_be_bytes()).as_bytes();
        let asker = &peers[usize::try_from(number).unwrap() % peers.len()];
        let mut ring = HomeRing::default();
        peers
            .iter()
            .map(Transport::local_peer)
            .filter(|peer| *peer != asker.local_peer())
            .for_each(|peer| ring.add(peer));
        let homes = ring.homes(object);
        // A peer whose admission is told to one side only refuses for a moment.
        let found = async {
            loop {
                let found = asker.find_nearest(key).await.unwrap();
                if found.len() == FIND_RESULTS.get() && found[..homes.len()] == homes {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, found).await.is_ok(), "{homes:?}");
    }
    peers[1].shutdown().await;
    assert_eq!(peers[1].find_nearest([1; 32]).await, Err(FindError::ShuttingDown));
}

#[tokio::test]
async fn a_peer_alone_finds_nobody() {
    let (alone, _) = start(config()).await;
    assert_eq!(alone.find_nearest([7; 32]).await, Ok(vec![]));
}

#[tokio::test]
async fn nobody_tells_of_a_peer_that_is_gone() {
    let (seed, seed_told) = start(config()).await;
    let (stays, _) = start(joining(&seed)).await;
    let (goes, _) = start(joining(&seed)).await;
    until("a full mesh", || [&seed, &stays, &goes].iter().all(|peer| peer.peers().len() == 2)).await;
    drop(goes);
    until("it is lost", || !seed_told.leavings().is_empty() && stays.peers().len() == 1).await;
    let (newcomer, told) = start(joining(&seed)).await;
    until("the others are known", || newcomer.peers().len() == 2).await;
    let found = async {
        // The gate of a peer opens a moment after its own admission of the newcomer.
        while newcomer.find_nearest([7; 32]).await.unwrap().len() != 2 {}
    };
    tokio::time::timeout(PATIENCE, found).await.expect("both are found");
    assert_eq!(told.count(|event| matches!(event, Event::Unreachable { .. })), 0);
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

/// A hand-made remote with a Kademlia of its own that knows no gate.
#[derive(libp2p::swarm::NetworkBehaviour)]
struct Prober {
    streams: libp2p_stream::Behaviour,
    kademlia: kad::Behaviour<kad::store::MemoryStore>,
}

fn prober(keypair: Keypair) -> libp2p::Swarm<Prober> {
    let local = keypair.public().to_peer_id();
    let kademlia = kad::Behaviour::with_config(
        local,
        kad::store::MemoryStore::new(local),
        kad::Config::new(libp2p::StreamProtocol::new("/driftmesh/kad/1")),
    );
    libp2p::SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(libp2p::tcp::Config::default(), libp2p::noise::Config::new, libp2p::yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| Prober { streams: libp2p_stream::Behaviour::new(), kademlia })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build()
}

/// A prober that is connected to the target and asks it.
async fn connected_prober(keypair: Keypair, target: &Transport) -> libp2p::Swarm<Prober> {
    let mut swarm = prober(keypair);
    drop_incoming(swarm.behaviour().streams.new_control());
    let address = target.addresses()[0].clone();
    swarm.dial(address.clone()).unwrap();
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    swarm.behaviour_mut().kademlia.add_address(&to_libp2p(&target.local_peer()).unwrap(), address);
    swarm
}

/// Passes the handshake with the target, and waits until that knows it; gives the substream.
async fn greeted(
    swarm: &mut libp2p::Swarm<Prober>,
    shared: &Arc<Shared>,
    target: &Transport,
    is_known: impl Fn() -> bool,
) -> libp2p::Stream {
    let mut control = swarm.behaviour().streams.new_control();
    let greeting = async {
        let stream = open_greeted(&mut control, shared, target).await;
        until("it is known", is_known).await;
        stream
    };
    tokio::select! {
        stream = greeting => stream,
        () = async { loop { swarm.select_next_some().await; } } => unreachable!("it has no end"),
    }
}

/// Runs the swarm until the query ends; gives its result.
async fn ended(swarm: &mut libp2p::Swarm<Prober>, query: kad::QueryId) -> kad::QueryResult {
    let ending = async {
        loop {
            let event = swarm.select_next_some().await;
            if let SwarmEvent::Behaviour(ProberEvent::Kademlia(kad::Event::OutboundQueryProgressed {
                id,
                result,
                step,
                ..
            })) = event
                && id == query
                && step.last
            {
                return result;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ending).await.unwrap()
}

fn answering(result: kad::QueryResult) -> Vec<libp2p::PeerId> {
    let kad::QueryResult::GetClosestPeers(Ok(found)) = result else { panic!("{result:?}") };
    found.peers.into_iter().map(|peer| peer.peer_id).collect()
}

#[tokio::test]
async fn kademlia_serves_nobody_before_the_admission_and_takes_no_records_after_it() {
    let (low, high) = two_keys();
    let (target, _) = start(TransportConfig { keypair: high, ..config() }).await;
    let libp2p_target = to_libp2p(&target.local_peer()).unwrap();
    let mut swarm = connected_prober(low.clone(), &target).await;
    let query = swarm.behaviour_mut().kademlia.get_closest_peers(vec![7]);
    assert_eq!(answering(ended(&mut swarm, query).await), [], "it was served before the admission");

    let is_admitted = || target.peers().len() == 1;
    let _stream = greeted(&mut swarm, &shared_of(&low, Some(genesis()), None), &target, is_admitted).await;
    let served = async {
        loop {
            // The gate opens a moment after the admission.
            let query = swarm.behaviour_mut().kademlia.get_closest_peers(vec![7]);
            if answering(ended(&mut swarm, query).await) == [libp2p_target] {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, served).await.unwrap();

    let record = kad::Record::new(b"key".to_vec(), b"value".to_vec());
    let put = swarm.behaviour_mut().kademlia.put_record(record, kad::Quorum::One).unwrap();
    let kad::QueryResult::PutRecord(stored) = ended(&mut swarm, put).await else { panic!("of another query") };
    assert!(stored.is_err());
    let provide = swarm.behaviour_mut().kademlia.start_providing(kad::RecordKey::new(b"key")).unwrap();
    ended(&mut swarm, provide).await;
    let spin = async {
        loop {
            swarm.select_next_some().await;
        }
    };
    tokio::select! {
        () = until("both are counted", || target.counters().records_refused == 2) => {}
        () = spin => unreachable!("it has no end"),
    }
}

#[tokio::test]
async fn kademlia_serves_no_fresh_peer() {
    let (low, high) = two_keys();
    let (target, told) = start(TransportConfig { keypair: high, ..fresh(3, vec![]) }).await;
    let mut swarm = connected_prober(low.clone(), &target).await;
    let is_linked = || told.fresh(id(&low)) == [FreshEvent::Met];
    let _stream = greeted(&mut swarm, &shared_of(&low, None, Some(3)), &target, is_linked).await;
    // A gate that opened would do so a moment after the link began.
    for _ in 0..20 {
        let query = swarm.behaviour_mut().kademlia.get_closest_peers(vec![7]);
        assert_eq!(answering(ended(&mut swarm, query).await), [], "R26: a link is no admission");
    }
    assert!(is_linked(), "it is linked all the while");
}

/// A hand-made remote that speaks libp2p and writes what it likes.
struct Stranger {
    swarm: libp2p::Swarm<swarm::Behaviour>,
}

impl Stranger {
    fn new(keypair: Keypair) -> Self {
        Self { swarm: swarm::build(keypair, Arc::default()).unwrap() }
    }

    /// Writes the bytes on a new substream; gives all that comes back until the other side closes it. Opens another one when
    /// nothing comes: who reads a substream says hello first.
    async fn write(mut self, to: &Transport, bytes: &[u8]) -> Vec<u8> {
        let peer = to_libp2p(&to.local_peer()).unwrap();
        let mut control = self.swarm.behaviour().control();
        drop_incoming(control.clone());
        self.swarm.dial(to.addresses()[0].clone()).unwrap();
        while !matches!(self.swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
        let talk = async {
            loop {
                let mut stream = control.open_stream(peer, PROTOCOL).await.unwrap();
                let mut answer = vec![];
                let _ = stream.write_all(bytes).await;
                let _ = stream.flush().await;
                let _ = stream.read_to_end(&mut answer).await;
                if !answer.is_empty() {
                    return answer;
                }
                tokio::time::sleep(limits::OPEN_RETRY_DELAY).await;
            }
        };
        let mut swarm = self.swarm;
        let spin = async {
            loop {
                swarm.select_next_some().await;
            }
        };
        tokio::select! {
            answer = tokio::time::timeout(PATIENCE, talk) => answer.unwrap(),
            () = spin => unreachable!("it has no end"),
        }
    }
}

fn has_refuse_frame(answer: &[u8]) -> bool {
    let mut buffer = frame::FrameBuffer::new();
    for piece in answer.chunks(1_024) {
        buffer.space()[..piece.len()].copy_from_slice(piece);
        buffer.filled(piece.len());
        while let Ok(Some((kind, _))) = buffer.next(frame::BODY_MAX) {
            if kind == FrameKind::Refuse {
                return true;
            }
        }
    }
    false
}

#[tokio::test]
async fn garbage_in_the_handshake_closes_that_connection_only() {
    let (low, high) = two_keys();
    let (target, told) = start(TransportConfig { keypair: high, ..config() }).await;
    let (friend, _) = start(joining(&target)).await;
    until("a friend is admitted", || target.peers().len() == 1).await;
    let hello = |body: &[u8]| frame::encode(FrameKind::Hello, body);
    let table: [(Vec<u8>, FrameError); 6] = [
        (vec![0xff; 100], FrameError::UnknownKind(0xff)),
        (vec![0x81, 0xff, 0xff, 0xff], FrameError::TooLong { length: 0x00ff_ffff, limit: 16 << 10 }),
        (hello(&[]), FrameError::Body(0x81)),
        (
            hello(&[&PROTOCOL_VERSION.to_be_bytes()[..], &[0xa1, 0x9b, 0xff, 0xff, 0xff, 0xff]].concat()),
            FrameError::Body(0x81),
        ),
        (frame::encode(FrameKind::Payload, b"early"), FrameError::Unexpected(1)),
        (frame::encode(FrameKind::Admit, b""), FrameError::Unexpected(0x84)),
    ];
    for (index, (bytes, error)) in table.into_iter().enumerate() {
        let answer = Stranger::new(low.clone()).write(&target, &bytes).await;
        assert!(has_refuse_frame(&answer), "{error}");
        until("the refusal is told", || told.refusals().len() == index + 1).await;
        assert_eq!(told.refusals()[index], (RefuseReason::Malformed(error), false));
    }
    assert_eq!(target.peers(), [friend.local_peer()]);
    assert_eq!(told.leavings(), []);
    target.send(friend.local_peer(), b"still here".to_vec()).unwrap();
}

/// A substream of a member that passed the handshake with a target, on a connection that is kept alive.
async fn admitted_stream(keypair: Keypair, target: &Transport) -> libp2p::Stream {
    greeted_stream(keypair, target, Some(genesis()), None).await
}

/// Keys of lower peers than one with the returned key.
fn high_key_and_lower_ones(count: usize) -> (Keypair, Vec<Keypair>) {
    let mut keys: Vec<Keypair> = (0..=count).map(|_| Keypair::generate_ed25519()).collect();
    keys.sort_unstable_by_key(id);
    (keys.pop().unwrap(), keys)
}

/// A substream that passed the handshake with a target, on a connection that is kept alive.
async fn greeted_stream(
    keypair: Keypair,
    target: &Transport,
    genesis: Option<Genesis>,
    expect: Option<u16>,
) -> libp2p::Stream {
    let shared = shared_of(&keypair, genesis, expect);
    open_greeted(&mut connected(&keypair, target).await, &shared, target).await
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

/// Opens substreams on a connection that is kept alive.
async fn connected(keypair: &Keypair, target: &Transport) -> Control {
    let mut swarm = swarm::build(keypair.clone(), Arc::default()).unwrap();
    let control = swarm.behaviour().control();
    drop_incoming(control.clone());
    swarm.dial(target.addresses()[0].clone()).unwrap();
    while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    control
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

#[tokio::test]
async fn garbage_after_the_admission_closes_that_connection_only() {
    // A new one each time: who breaks the protocol is refused from then on.
    let (high, mut lower) = high_key_and_lower_ones(11);
    let (target, told) = start(TransportConfig { keypair: high, ..config() }).await;
    let (friend, _) = start(joining(&target)).await;
    until("a friend is admitted", || target.peers().len() == 1).await;
    let begin = |length: u32| frame::encode(FrameKind::BulkBegin, &length.to_be_bytes());
    let table: [(Vec<u8>, FrameError); 11] = [
        (vec![0; 50], FrameError::UnknownKind(0)),
        (vec![1, 0x01, 0x00, 0x01], FrameError::TooLong { length: 0x1_0001, limit: 0x1_0000 }),
        (begin(u32::MAX), FrameError::BulkLength(u32::MAX)),
        (begin(0), FrameError::BulkLength(0)),
        ([begin(1), frame::encode(FrameKind::BulkChunk, b"ab")].concat(), FrameError::BulkOverrun),
        (frame::encode(FrameKind::BulkChunk, b"ab"), FrameError::Unexpected(3)),
        (frame::encode(FrameKind::BulkCredit, &[0, 0, 0, 1]), FrameError::Credit),
        (frame::encode(FrameKind::Alive, &[0xff; 9]), FrameError::Body(5)),
        (frame::encode(FrameKind::Goodbye, b"and more"), FrameError::Body(6)),
        (frame::encode(FrameKind::Hello, b""), FrameError::Unexpected(0x81)),
        (fresh::said(b"too late".to_vec()).unwrap(), FrameError::Unexpected(0x47)),
    ];
    for (index, (bytes, error)) in table.into_iter().enumerate() {
        let low = lower.pop().unwrap();
        let mut stream = admitted_stream(low.clone(), &target).await;
        // What comes before the garbage still counts.
        stream.write_all(&frame::encode(FrameKind::Payload, b"good")).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        until("it has left", || told.leavings().len() == index + 1).await;
        assert_eq!(told.leavings()[index], LeaveReason::Malformed(error));
        assert_eq!(told.payloads.lock().unwrap().len(), index + 1);
        assert_eq!(target.peers(), [friend.local_peer()]);
        until("its connection is closed", || target.owner.shared.endpoint(&id(&low)).is_none()).await;
    }
    told.assert_turns();
}

/// Writes an admission with a body, and everything else as it is.
struct AdmitsAndSaysMore(libp2p::Stream);

impl AsyncRead for AdmitsAndSaysMore {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(context, bytes)
    }
}

impl AsyncWrite for AdmitsAndSaysMore {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes != frame::encode(FrameKind::Admit, &[]) {
            return Pin::new(&mut self.0).poll_write(context, bytes);
        }
        let more = frame::encode(FrameKind::Admit, b"more");
        Pin::new(&mut self.0).poll_write(context, &more).map_ok(|_| bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(context)
    }
}

#[tokio::test]
async fn an_admission_that_says_more_is_refused() {
    let (low, high) = two_keys();
    let (target, told) = start(TransportConfig { keypair: high, ..config() }).await;
    let mut control = connected(&low, &target).await;
    let shared = shared_of(&low, Some(genesis()), None);
    let mut outcome = Err(Failure::Unheard);
    while matches!(outcome, Err(Failure::Unheard)) {
        let stream = control.open_stream(to_libp2p(&target.local_peer()).unwrap(), PROTOCOL).await.unwrap();
        // It may admit the target before it hears of the refusal.
        outcome = handshake::run(&shared, target.local_peer(), &mut AdmitsAndSaysMore(stream)).await.map(drop);
    }
    until("the refusal is told", || !told.refusals().is_empty()).await;
    assert_eq!(told.refusals(), [(RefuseReason::Malformed(FrameError::Body(0x84)), false)]);
    assert_eq!(target.peers(), []);
}

/// A substream that the remote drops: at once, or when it has said something.
struct Drops {
    said: &'static [u8],
}

impl AsyncRead for Drops {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.said.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = io::Read::read(&mut self.said, bytes)?;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Drops {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(if self.said.is_empty() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_substream_that_is_dropped_unread_is_no_refusal() {
    let (low, high) = two_keys();
    let shared = shared_of(&low, Some(genesis()), None);
    let outcome = handshake::run(&shared, id(&high), &mut Drops { said: b"" }).await;
    assert!(matches!(outcome, Err(Failure::Unheard)), "the opener tries again");
    // A hello that is not whole: the remote was there.
    let outcome = handshake::run(&shared, id(&high), &mut Drops { said: &[0x81, 0, 0, 9] }).await;
    let lost = |failure: &Failure| {
        matches!(failure, Failure::Refused { reason: RefuseReason::ConnectionLost, by_remote: false })
    };
    assert!(outcome.is_err_and(|failure| lost(&failure)));
}

#[tokio::test]
async fn random_bytes_after_the_admission_never_panic() {
    let (high, lower) = high_key_and_lower_ones(40);
    let (target, told) = start(TransportConfig { keypair: high, ..config() }).await;
    let mut random = blake3::Hasher::new().update(b"session").finalize_xof();
    for (round, low) in (1..).zip(lower) {
        let mut stream = admitted_stream(low.clone(), &target).await;
        let mut bytes = vec![0; 200];
        random.fill(&mut bytes);
        // A valid kind and a short length at first, so that the bodies are read too.
        bytes[..4].copy_from_slice(&[u8::try_from(round % 6).unwrap() + 1, 0, 0, 20]);
        let _ = stream.write_all(&bytes).await;
        let _ = stream.close().await;
        until("it has left", || told.leavings().len() == round).await;
        assert!(!matches!(&told.leavings()[round - 1], LeaveReason::Lost { error } if error.contains("panic")));
        until("its connection is closed", || target.owner.shared.endpoint(&id(&low)).is_none()).await;
    }
    told.assert_turns();
}

#[tokio::test]
async fn a_remote_that_says_nothing_is_refused_in_time() {
    let (low, high) = two_keys();
    let (target, told) = start(TransportConfig { keypair: high, ..config() }).await;
    let answer = Stranger::new(low).write(&target, &[]).await;
    assert!(has_refuse_frame(&answer));
    until("told", || told.refusals() == [(RefuseReason::HandshakeTimeout, false)]).await;
}

#[tokio::test]
async fn a_member_that_breaks_the_protocol_is_refused_for_a_while_and_told_so() {
    let (low, high) = two_keys();
    let (target, told) = start(TransportConfig { keypair: high, ..config() }).await;
    let (friend, _) = start(joining(&target)).await;
    until("a friend is admitted", || target.peers().len() == 1).await;
    let mut stream = admitted_stream(low.clone(), &target).await;
    stream.write_all(&[0; 50]).await.unwrap();
    stream.flush().await.unwrap();
    until("it has left", || told.leavings() == [LeaveReason::Malformed(FrameError::UnknownKind(0))]).await;
    until("its connection is closed", || target.owner.shared.endpoint(&id(&low)).is_none()).await;
    let again = TransportConfig { keypair: low.clone(), ..joining(&target) };
    let (_again, again_told) = start(again).await;
    let is_refusal = |(reason, by_remote): &(RefuseReason, bool), remote: bool| {
        let is_dropped = matches!(reason, RefuseReason::Dropped { seconds } if (1..=60).contains(seconds));
        is_dropped && *by_remote == remote
    };
    until("it is told so", || again_told.refusals().iter().any(|refusal| is_refusal(refusal, true))).await;
    until("so is the user", || told.refusals().iter().any(|refusal| is_refusal(refusal, false))).await;
    assert_eq!(told.admitted(id(&low)), 1, "the first time only");
    let [offender] = target.offenders()[..] else { panic!("{:?}", target.offenders()) };
    assert_eq!((offender.peer, offender.malformed, offender.dropped), (id(&low), 1, 1));
    assert!(offender.refused_for.is_some() && target.counters().offenders_refused > 0);
    assert_eq!((target.counters().malformed, target.counters().offenders_dropped), (1, 1));
    assert_eq!(target.peers(), [friend.local_peer()]);
}

#[tokio::test]
async fn who_says_what_no_peer_says_is_dropped_and_neither_dialled_nor_admitted_for_a_while() {
    let ((one, one_told), (other, other_told)) = pair().await;
    *one_told.opinion.lock().unwrap() = Received { impossible: 1, ..Received::default() };
    for _ in 0..limits::OFFENCES_MAX {
        other.send(one.local_peer(), b"rubbish".to_vec()).unwrap();
    }
    until("all have arrived", || one_told.payloads.lock().unwrap().len() == limits::OFFENCES_MAX as usize).await;
    assert_eq!(one.peers(), [other.local_peer()], "what may be forgiven is no reason yet");
    for _ in 0..limits::OFFENCES_MAX {
        // It is dropped in between.
        let _ = other.send(one.local_peer(), b"rubbish".to_vec());
    }
    until("it is dropped", || matches!(one_told.leavings()[..], [LeaveReason::Dropped { .. }])).await;
    until("it is refused", || one.counters().offenders_refused > 1).await;
    let is_told = |(reason, by): &(RefuseReason, bool)| matches!(reason, RefuseReason::Dropped { .. }) && *by;
    until("and told so", || other_told.refusals().iter().any(is_told)).await;
    assert_eq!((one_told.admitted(other.local_peer()), one.counters().offenders_dropped), (1, 1));
    assert!(one.counters().impossible > u64::from(limits::OFFENCES_MAX));
    one_told.assert_turns();
}

#[tokio::test]
async fn who_says_too_much_waits_and_nobody_else_does() {
    let ((one, one_told), (other, _)) = pair().await;
    let (third, _) = start(joining(&one)).await;
    until("a third one is admitted", || one.peers().len() == 2).await;
    *one_told.opinion.lock().unwrap() = Received { held: Duration::from_secs(60), ..Received::default() };
    other.send(one.local_peer(), b"costly".to_vec()).unwrap();
    until("it is paused", || one.counters().inbound_paused == 1).await;
    *one_told.opinion.lock().unwrap() = Received::default();
    let heard = |from: &Transport| {
        one_told.payloads.lock().unwrap().iter().filter(|(peer, _)| *peer == from.local_peer()).count()
    };
    for _ in 0..100 {
        other.send(one.local_peer(), b"waits".to_vec()).unwrap();
        third.send(one.local_peer(), b"does not wait".to_vec()).unwrap();
    }
    until("the third one is heard", || heard(&third) == 100).await;
    assert_eq!(heard(&other), 1, "it waits for some seconds");
    assert_eq!(one.peers().len(), 2, "nobody is dropped for a flood");
}

#[tokio::test]
async fn connections_that_say_nothing_take_a_bounded_room_and_give_it_back() {
    let (target, _) = start(config()).await;
    let socket = address::socket(&target.addresses()[0]).unwrap();
    let mut silent = Vec::new();
    for _ in 0..limits::PENDING_PER_HOST_MAX + 20 {
        silent.push(std::net::TcpStream::connect(socket).unwrap());
    }
    until("the last ones are turned away", || target.counters().connections_turned_away >= 20).await;
    assert_eq!(target.counters().connections_turned_away, 20);
    drop(silent);
    let (joiner, _) = start(joining(&target)).await;
    until("there is room again", || joiner.peers() == [target.local_peer()]).await;
}
