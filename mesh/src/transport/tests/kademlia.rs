//! Tests of what Kademlia is asked for and answers: the peers nearest to a key, and nothing to who is not admitted.
//!
//! They refuse to look into its tables.

use libp2p::kad;
use libp2p::swarm::SwarmEvent;

use super::super::limits::FIND_RESULTS;
use super::*;
use crate::transport::routing::FindError;

impl Transport {
    /// The peers nearest to a key, at most 8, nearest first, without this one. Those that were not known before have been
    /// dialled and admitted when it returns.
    async fn find_nearest(&self, key: [u8; 32]) -> Result<Vec<PeerId>, FindError> {
        let (answer, found) = oneshot::channel();
        let asked = self.owner.shared.commands.send(Command::Find { key: key.to_vec(), answer }).await;
        asked.map_err(|_| FindError::ShuttingDown)?;
        found.await.unwrap_or(Err(FindError::ShuttingDown))
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
