//! Members that know the secret and mean harm: they pass the handshake as any peer does, and then say what they like, as
//! bytes on the wire.
//!
//! Three of them at a time: one breaks its messages, one lies, one floods. Who is dropped everywhere comes back as
//! somebody new. It refuses to be clever: what a member that lies consistently can do is not the subject.

use crate::hostile::samples::{Kind, Scene};
use crate::hostile::tally::{Tally, count};
use crate::hostile::ways::{Maker, Way, no_frame};
use anyhow::{Context, Result, bail};
use driftmesh::transport::{
    Event, Handler, Keypair, PeerAddress, Received, RefuseReason, SendError, Transport, TransportConfig, from_libp2p,
    limits, parse_address, random_incarnation,
};
use driftmesh::{GroupId, Micros, ObjectId, PeerId};
use driftmesh_model::{Generation, Incarnation, Term, codec};
use driftmesh_peer::Introduction;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long an attacker may take to be admitted everywhere, and to be dropped.
const ADMITTED_LIMIT: Duration = Duration::from_secs(15);
const DROPPED_LIMIT: Duration = Duration::from_secs(10);
/// How long it hears afterwards whether it is refused.
const REFUSED_LIMIT: Duration = Duration::from_secs(8);
/// How often anything is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Broken messages of one burst: far more than it takes to be dropped.
const BURST: u64 = 900;
/// Messages of one flood, and the pause after it: the machine is not the attacker's alone.
const FLOOD: u64 = 1_000;
const FLOOD_PAUSE: Duration = Duration::from_millis(100);
/// Lies of each kind in one turn, and the pause after it.
const LIES: usize = 3;
const LIE_PAUSE: Duration = Duration::from_millis(10);
/// How long a message may wait for room before the attacker turns to another peer.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// How long after its first refusal an attacker must not be let in again; a little less than it is refused for.
const REFUSED_AT_LEAST: Duration = limits::DROPPED_FOR.saturating_sub(Duration::from_secs(2));

/// What attackers know before they begin.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// The mesh's name.
    pub(crate) mesh: String,
    /// Its secret.
    pub(crate) secret: String,
    /// Where honest peers listen.
    pub(crate) addresses: Vec<String>,
    /// The players of the world.
    pub(crate) world: Arc<[ObjectId]>,
    /// The group that all attackers say they lead: so an operator has one to forget at the end.
    pub(crate) group: GroupId,
    /// What they draw from.
    pub(crate) seed: u64,
    /// The failure domain of the honest peers, once one has told it: nobody is preferred for its own.
    pub(crate) domain: Arc<AtomicU64>,
}

impl Known {
    fn join(&self) -> Result<Vec<PeerAddress>> {
        self.addresses.iter().map(|address| Ok(parse_address(address)?)).collect()
    }

    /// The honest peers.
    fn honest(&self) -> Result<Vec<PeerId>> {
        let named = |address: PeerAddress| from_libp2p(address.peer()?);
        let all: Option<Vec<PeerId>> = self.join()?.into_iter().map(named).collect();
        all.context("an address names no peer")
    }
}

/// Now, as peers tell each other.
fn wall() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::from_duration(since)
}

/// What an attacker hears.
struct Ears {
    tally: Arc<Tally>,
    domain: Arc<AtomicU64>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// The groups that honest peers lead.
    groups: BTreeMap<PeerId, GroupId>,
    /// Who said first that it refuses this attacker, and when.
    refused: BTreeMap<PeerId, Instant>,
}

impl Ears {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Ears {
    fn received(&self, _: PeerId, _: Vec<Vec<u8>>) -> Received {
        Received::default()
    }

    fn event(&self, event: Event) {
        if let Event::Admitted { peer, hello, .. } = event {
            let mut heard = self.lock();
            if let Ok(introduction) = codec::decode::<Introduction>(&hello) {
                heard.groups.insert(peer, introduction.group);
                self.domain.store(introduction.domain, Ordering::Relaxed);
            }
            if heard.refused.get(&peer).is_some_and(|since| since.elapsed() < REFUSED_AT_LEAST) {
                self.tally.fault(format!("{peer} let an attacker in again that it had dropped"));
            }
        } else if let Event::Refused {
            peer: Some(peer), reason: RefuseReason::Dropped { .. }, by_remote: true, ..
        } = event
        {
            self.lock().refused.entry(peer).or_insert_with(Instant::now);
            count(&self.tally.told_refused);
        } else if matches!(event, Event::Left { .. }) {
            count(&self.tally.broken_off);
        }
    }
}

/// One member that an attacker pretends to be.
struct Identity {
    transport: Transport,
    ears: Arc<Ears>,
    /// The honest peers that were there from the beginning.
    honest: Vec<PeerId>,
    scene: Scene,
    tally: Arc<Tally>,
}

impl Identity {
    /// Joins, and waits until all honest peers have admitted it.
    async fn join(known: &Known, tally: &Arc<Tally>, nobody: GroupId) -> Result<Self> {
        let keypair = Keypair::generate_ed25519();
        let me = from_libp2p(&keypair.public().to_peer_id()).context("the key is no key of a peer")?;
        let incarnation = random_incarnation();
        let introduction = Introduction {
            incarnation: Incarnation::from_u64(incarnation),
            group: known.group,
            generation: Generation::ZERO,
            term: Term::ZERO,
            domain: known.domain.load(Ordering::Relaxed),
            heartbeats: 0,
        };
        let (tally_heard, domain) = (Arc::clone(tally), Arc::clone(&known.domain));
        let ears = Arc::new(Ears { tally: tally_heard, domain, heard: Mutex::default() });
        let config = TransportConfig {
            keypair,
            listen: Vec::new(),
            advertise: Vec::new(),
            join: known.join()?,
            mesh_name: known.mesh.clone(),
            genesis: None,
            expect: None,
            secret: Some(known.secret.clone().into_bytes()),
            incarnation,
            hello: codec::encode(&introduction)?,
            mdns: false,
        };
        let transport = Transport::start(config, Arc::clone(&ears) as Arc<dyn Handler>).await?;
        let (begun, honest) = (Instant::now(), known.honest()?);
        loop {
            let there = transport.peers();
            let missing = honest.iter().filter(|peer| !there.contains(peer)).count();
            if missing == 0 {
                break;
            }
            if begun.elapsed() > ADMITTED_LIMIT {
                bail!("an attacker is not admitted by {missing} of {} peers, and cannot do harm", honest.len());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        count(&tally.identities);
        let groups = ears.lock().groups.values().copied().collect();
        let incarnation = Incarnation::from_u64(incarnation);
        let world = Arc::clone(&known.world);
        let scene = Scene { me, incarnation, group: known.group, groups, world, nobody, sequence: 0 };
        Ok(Self { transport, ears, honest, scene, tally: Arc::clone(tally) })
    }

    /// The peers that still listen, and have not said that they refuse it.
    fn listeners(&self) -> Vec<PeerId> {
        let (heard, there) = (self.ears.lock(), self.transport.peers());
        let listens = |peer: &PeerId| there.contains(peer) && !heard.refused.contains_key(peer);
        self.honest.iter().copied().filter(listens).collect()
    }

    fn next(&mut self, maker: &mut Maker, kind: Kind, way: Way) -> Vec<u8> {
        self.scene.sequence += 1;
        maker.payload(kind, way, &self.scene, wall())
    }

    /// Queues a payload; waits for room. Returns whether it was queued.
    async fn say(&self, to: PeerId, payload: Vec<u8>) -> bool {
        let begun = Instant::now();
        loop {
            match self.transport.send(to, payload.clone()) {
                Ok(()) => return true,
                Err(SendError::Busy) if begun.elapsed() < BUSY_LIMIT => {
                    count(&self.tally.made_to_wait);
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(SendError::Busy | SendError::NotConnected | SendError::TooLong { .. }) => return false,
            }
        }
    }

    /// Waits until a peer has broken off. Returns whether it has.
    async fn is_dropped(&self, by: PeerId, limit: Duration) -> bool {
        let begun = Instant::now();
        while self.transport.peers().contains(&by) && !self.ears.lock().refused.contains_key(&by) {
            if begun.elapsed() > limit {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }

    async fn leave(self) {
        self.transport.shutdown().await;
    }
}

/// Breaks messages and frames, a burst at each peer, and is dropped for it each time, until the time is over.
pub(crate) async fn break_messages(known: &Known, tally: &Arc<Tally>, until: Instant) -> Result<()> {
    let mut maker = Maker::new(known.seed);
    let nobody = GroupId::from_u128(u128::from(known.seed) | 1);
    let mut bursts = 0_usize;
    while Instant::now() < until {
        let mut identity = Identity::join(known, tally, nobody).await?;
        let listeners = identity.listeners();
        for (place, listener) in listeners.iter().copied().enumerate() {
            if place + 1 == listeners.len() {
                count(&tally.no_frames);
                identity.transport.send_raw(listener, no_frame(bursts as u64 / listeners.len() as u64));
            } else {
                burst(&mut identity, &mut maker, listener, bursts).await;
            }
            bursts += 1;
            if !identity.is_dropped(listener, DROPPED_LIMIT).await {
                tally.fault(format!("{listener} went on with a member whose messages did not decode"));
            }
        }
        // Who was dropped comes back, and is told.
        let begun = Instant::now();
        while identity.ears.lock().refused.len() < listeners.len() && begun.elapsed() < REFUSED_LIMIT {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let silent: Vec<PeerId> =
            listeners.iter().filter(|peer| !identity.ears.lock().refused.contains_key(peer)).copied().collect();
        if !silent.is_empty() {
            tally.fault(format!("{silent:?} did not refuse a member that they had dropped"));
        }
        identity.leave().await;
    }
    Ok(())
}

/// Broken messages of all kinds in one way.
async fn burst(identity: &mut Identity, maker: &mut Maker, to: PeerId, number: usize) {
    let way = Way::BROKEN[number % Way::BROKEN.len()];
    let unsent = identity.transport.counters().dropped;
    let mut queued = Vec::new();
    for place in 0..BURST {
        let kind = Kind::ALL[(number * 7 + usize::try_from(place).unwrap_or(0)) % Kind::ALL.len()];
        let payload = identity.next(maker, kind, way);
        if !identity.say(to, payload).await {
            break;
        }
        queued.push(kind);
    }
    identity.is_dropped(to, DROPPED_LIMIT).await;
    tokio::time::sleep(LOOK_EVERY).await;
    // The last ones may not have left before the peer broke off.
    let unsent = usize::try_from(identity.transport.counters().dropped - unsent).unwrap_or(0);
    queued.truncate(queued.len().saturating_sub(unsent));
    queued.into_iter().for_each(|kind| identity.tally.sent(kind, way, 1));
}

/// Members come, one after the other, and take turns at peers that listen to them, until the time is over. `who` tells these attackers
/// from others.
async fn take_turns(
    known: &Known,
    tally: &Arc<Tally>,
    (who, until, pause): (u64, Instant, Duration),
    mut turn: impl AsyncFnMut(&mut Identity, PeerId, usize),
) -> Result<()> {
    let mut rng = Rng::with_seed(known.seed ^ who);
    let nobody = GroupId::from_u128(u128::from(known.seed) | u128::from(who));
    let mut turns = 0;
    while Instant::now() < until {
        let mut identity = Identity::join(known, tally, nobody).await?;
        loop {
            let listeners = identity.listeners();
            let Some(to) = rng.choice(listeners).filter(|_| Instant::now() < until) else { break };
            turn(&mut identity, to, turns).await;
            turns += 1;
            tokio::time::sleep(pause).await;
        }
        identity.leave().await;
    }
    Ok(())
}

/// Says what decodes and is not so, a message of each kind in turn, until the time is over.
pub(crate) async fn lie(known: &Known, tally: &Arc<Tally>, until: Instant) -> Result<()> {
    let mut maker = Maker::new(known.seed ^ 1);
    take_turns(known, tally, (2, until, LIE_PAUSE), async |identity, to, turns| {
        let way = Way::LIES[turns % Way::LIES.len()];
        for kind in Kind::ALL.into_iter().cycle().take(LIES * Kind::ALL.len()) {
            let payload = identity.next(&mut maker, kind, way);
            if identity.say(to, payload).await {
                tally.sent(kind, way, 1);
            }
        }
    })
    .await
}

/// Sends one message again and again as fast as it is taken, of each kind in turn, until the time is over.
pub(crate) async fn flood(known: &Known, tally: &Arc<Tally>, until: Instant) -> Result<()> {
    let mut maker = Maker::new(known.seed ^ 3);
    take_turns(known, tally, (4, until, FLOOD_PAUSE), async |identity, to, turns| {
        let kind = Kind::ALL[turns % Kind::ALL.len()];
        let payload = identity.next(&mut maker, kind, Way::Flood);
        let mut queued = 0;
        while queued < FLOOD && identity.say(to, payload.clone()).await {
            queued += 1;
        }
        tally.sent(kind, Way::Flood, queued);
    })
    .await
}
