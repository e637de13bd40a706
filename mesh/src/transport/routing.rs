//! Which Kademlia queries are run and when: a newcomer's exploration, refreshes, and lookups on demand.
//!
//! A query finds at most the 20 peers nearest to its target, and all that it finds were connected and admitted on the
//! way. So a newcomer asks for its own place, and where 20 peers of one region answered, there may be more: it asks
//! for both halves of the region, until each answer covers its region. It refuses to run more than a bounded number
//! of queries, and to touch the swarm: the swarm's task starts the queries and tells of their ends.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use driftmesh_model::PeerId;
use libp2p::kad::{K_VALUE, KBucketKey, QueryId};
use tokio::sync::oneshot;

use super::limits::{
    EXPLORE_AFTER, EXPLORE_AGAIN, EXPLORE_QUERIES_MAX, EXPLORE_ROUNDS_MAX, FIND_RESULTS, FINDS_MAX, QUERY_TIMEOUT,
    REFRESH_AFTER_JOIN, REFRESH_INTERVAL, REGION_BITS_MAX, REGION_PEERS,
};
use super::random_bytes;

/// A lookup that was not begun or not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum FindError {
    /// Too many lookups are under way.
    #[error("{FINDS_MAX} lookups of peers are under way; try again later")]
    Busy,
    /// The transport stops.
    #[error("the peer is shutting down; start it anew to look for others")]
    ShuttingDown,
}

/// Who waits for a lookup.
pub(super) type Answer = oneshot::Sender<Result<Vec<PeerId>, FindError>>;

/// The part of the key space whose keys begin with these bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Region {
    bits: u32,
    prefix: u32,
}

impl Region {
    const ALL: Self = Self { bits: 0, prefix: 0 };

    fn contains(&self, key: &[u8]) -> bool {
        let first = key.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        first.checked_shr(32 - self.bits).unwrap_or(0) == self.prefix
    }

    const fn halves(self) -> [Self; 2] {
        let bits = self.bits + 1;
        [Self { bits, prefix: self.prefix << 1 }, Self { bits, prefix: (self.prefix << 1) | 1 }]
    }

    /// Bytes whose hash is in the region; found by trying, 1,024 times on average for the smallest.
    fn target(&self) -> Vec<u8> {
        loop {
            let bytes = random_bytes::<32>().to_vec();
            if self.contains(KBucketKey::new(bytes.clone()).hashed_bytes()) {
                return bytes;
            }
        }
    }
}

/// What a query is for.
enum Purpose {
    Explore(Region),
    Refresh,
    Find(Answer),
}

/// A query that is to be started.
pub(super) struct Start {
    pub(super) target: Vec<u8>,
    pub(super) results: NonZeroUsize,
    purpose: Purpose,
}

/// All queries that run or are planned.
pub(super) struct Routing {
    /// What hashes to this peer's place in the key space.
    own: Vec<u8>,
    running: HashMap<QueryId, Purpose>,
    regions: Vec<Region>,
    /// Explorations until now, since somebody was known.
    rounds: u32,
    known_at_start: usize,
    next_exploration: Option<Instant>,
    next_refresh: Instant,
    refreshes: u32,
}

/// The duration or up to a quarter less or more, so that peers that start together do not go on together.
fn jittered(duration: Duration) -> Duration {
    let random = u32::from(u16::from_be_bytes(random_bytes()));
    duration * 3 / 4 + duration / 2 * random / (1 << 16)
}

impl Routing {
    pub(super) fn new(local: &libp2p::PeerId, now: Instant) -> Self {
        Self {
            own: local.to_bytes(),
            running: HashMap::new(),
            regions: Vec::new(),
            rounds: 0,
            known_at_start: 0,
            next_exploration: None,
            next_refresh: now + jittered(REFRESH_INTERVAL),
            refreshes: 0,
        }
    }

    /// A peer was admitted; `known` are admitted now. The first brings an exploration, each other a refresh soon.
    pub(super) fn admitted(&mut self, known: usize, now: Instant) {
        if known <= 1 {
            self.rounds = 0;
            self.next_exploration.get_or_insert(now + jittered(EXPLORE_AFTER));
        }
        self.next_refresh = self.next_refresh.min(now + jittered(REFRESH_AFTER_JOIN));
    }

    /// The queries to start now; each is told by [`Routing::started`].
    pub(super) fn due(&mut self, known: usize, now: Instant) -> Vec<Start> {
        let mut due = Vec::new();
        let is_exploring = !self.regions.is_empty() || self.explorations() > 0;
        if !is_exploring && self.next_exploration.is_some_and(|next| next <= now) {
            self.next_exploration = None;
            self.rounds += 1;
            self.known_at_start = known;
            self.regions.push(Region::ALL);
        }
        for _ in self.explorations()..EXPLORE_QUERIES_MAX {
            let Some(region) = self.regions.pop() else { break };
            let target = if region == Region::ALL { self.own.clone() } else { region.target() };
            due.push(Start { target, results: K_VALUE, purpose: Purpose::Explore(region) });
        }
        if self.next_refresh <= now {
            self.next_refresh = now + jittered(REFRESH_INTERVAL);
            // Two slow refreshes at once would find the same.
            if known > 0 && !self.running.values().any(|purpose| matches!(purpose, Purpose::Refresh)) {
                due.extend(self.refresh(known));
            }
        }
        due
    }

    /// Asks for this peer's own place, and for one region after another as rounds go by.
    fn refresh(&mut self, known: usize) -> Vec<Start> {
        let start = |target| Start { target, results: K_VALUE, purpose: Purpose::Refresh };
        let mut starts = vec![start(self.own.clone())];
        let bits = (known / REGION_PEERS + 1).next_power_of_two().ilog2().min(REGION_BITS_MAX);
        if bits > 0 {
            starts.push(start(Region { bits, prefix: self.refreshes % (1 << bits) }.target()));
            self.refreshes = self.refreshes.wrapping_add(1);
        }
        starts
    }

    /// A lookup for the peers nearest to the key, unless too many run.
    pub(super) fn find(&self, key: Vec<u8>, answer: Answer) -> Option<Start> {
        let finds = self.running.values().filter(|purpose| matches!(purpose, Purpose::Find(_))).count();
        if finds >= FINDS_MAX {
            // Whoever asked may have gone.
            let _ = answer.send(Err(FindError::Busy));
            return None;
        }
        Some(Start { target: key, results: FIND_RESULTS, purpose: Purpose::Find(answer) })
    }

    /// The query runs.
    pub(super) fn started(&mut self, query: QueryId, start: Start) {
        self.running.insert(query, start.purpose);
    }

    /// A query ended, and these peers answered, nearest first; `known` are admitted now.
    pub(super) fn ended(&mut self, query: QueryId, found: &[libp2p::PeerId], known: usize, now: Instant) {
        match self.running.remove(&query) {
            Some(Purpose::Explore(region)) => {
                let in_region = |peer: &libp2p::PeerId| region.contains(KBucketKey::from(*peer).hashed_bytes());
                if found.len() >= K_VALUE.get() && found.iter().all(in_region) && region.bits < REGION_BITS_MAX {
                    self.regions.extend(region.halves());
                }
                self.explored(known, now);
            }
            Some(Purpose::Find(answer)) => {
                // Whoever asked may have gone.
                let _ = answer.send(Ok(found.iter().filter_map(super::from_libp2p).collect()));
            }
            // Kademlia runs queries of its own while it knows fewer than 20 peers.
            Some(Purpose::Refresh) | None => {}
        }
    }

    fn explorations(&self) -> usize {
        self.running.values().filter(|purpose| matches!(purpose, Purpose::Explore(_))).count()
    }

    /// Explores again when this exploration found somebody, or nobody at all: others may have come at the same time,
    /// and the first to be asked may not have been ready.
    fn explored(&mut self, known: usize, now: Instant) {
        let is_over = self.regions.is_empty() && self.explorations() == 0;
        if is_over && (known > self.known_at_start || known <= 1) && self.rounds < EXPLORE_ROUNDS_MAX {
            self.next_exploration = Some(now + jittered(EXPLORE_AGAIN));
        }
    }
}

const _: () = assert!(REGION_BITS_MAX < 32 && !QUERY_TIMEOUT.is_zero());

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The peers nearest to the target, as Kademlia finds them.
    fn nearest(peers: &[libp2p::PeerId], target: &[u8], count: usize) -> Vec<libp2p::PeerId> {
        let target = KBucketKey::new(target.to_vec());
        let mut peers = peers.to_vec();
        peers.sort_by_key(|peer| KBucketKey::from(*peer).distance(&target));
        peers.truncate(count);
        peers
    }

    #[test]
    fn an_exploration_finds_everybody_whatever_their_number() {
        for count in [0, 1, 19, 20, 21, 50, 100, 1_000] {
            let peers: Vec<_> = (0..count).map(|_| libp2p::PeerId::random()).collect();
            let mut now = Instant::now();
            let mut routing = Routing::new(&libp2p::PeerId::random(), now);
            routing.admitted(1, now);
            now += EXPLORE_AFTER * 2;
            let mut found = BTreeSet::new();
            let mut queries = 0;
            loop {
                let due = routing.due(count, now);
                if due.is_empty() {
                    break;
                }
                assert!(due.len() <= EXPLORE_QUERIES_MAX);
                for start in due {
                    // What Kademlia numbers its queries with cannot be made otherwise.
                    let query = query_id(queries);
                    queries += 1;
                    let answer = nearest(&peers, &start.target, start.results.get());
                    found.extend(answer.iter().copied());
                    routing.started(query, start);
                    routing.ended(query, &answer, count, now);
                }
            }
            assert_eq!(found.len(), count);
            assert!(queries <= 1 + count / 2, "{queries} queries for {count} peers");
        }
    }

    fn query_id(number: usize) -> QueryId {
        use libp2p::kad::{Behaviour, store::MemoryStore};
        let peer = libp2p::PeerId::random();
        let mut kademlia = Behaviour::new(peer, MemoryStore::new(peer));
        (0..=number).map(|_| kademlia.get_closest_peers(peer)).last().unwrap()
    }

    #[test]
    fn refreshes_go_round_all_regions() {
        let now = Instant::now();
        let mut routing = Routing::new(&libp2p::PeerId::random(), now);
        let mut later = now;
        let mut regions = BTreeSet::new();
        for _ in 0..8 {
            later += REFRESH_INTERVAL * 2;
            let due = routing.due(50, later);
            assert_eq!((due.len(), &due[0].target), (2, &routing.own));
            regions.insert(KBucketKey::new(due[1].target.clone()).hashed_bytes()[0] >> 5);
        }
        assert_eq!(regions.len(), 8);
        assert!(routing.due(50, later).is_empty(), "the next one waits");
        assert!(routing.due(0, later + REFRESH_INTERVAL * 2).is_empty(), "nobody can be asked");
    }

    #[tokio::test]
    async fn too_many_lookups_are_refused() {
        let now = Instant::now();
        let mut routing = Routing::new(&libp2p::PeerId::random(), now);
        let mut waiting = Vec::new();
        for number in 0..FINDS_MAX {
            let (answer, waits) = oneshot::channel();
            let start = routing.find(vec![7; 32], answer).unwrap();
            routing.started(query_id(number), start);
            waiting.push(waits);
        }
        let (answer, refused) = oneshot::channel();
        assert!(routing.find(vec![7; 32], answer).is_none());
        assert_eq!(refused.await, Ok(Err(FindError::Busy)));
        routing.ended(query_id(0), &[], 0, now);
        assert_eq!(waiting.remove(0).await, Ok(Ok(vec![])));
        let (answer, _waits) = oneshot::channel();
        assert!(routing.find(vec![7; 32], answer).is_some());
    }

    #[test]
    fn a_region_holds_the_keys_that_begin_like_it() {
        let [low, high] = Region::ALL.halves();
        assert!(low.contains(&[0x7f, 0, 0, 0]) && !low.contains(&[0x80, 0, 0, 0]) && high.contains(&[0x80, 0, 0, 0]));
        assert!(Region::ALL.contains(&[0xff; 32]));
        let region = Region { bits: 5, prefix: 0b10110 };
        assert_eq!(KBucketKey::new(region.target()).hashed_bytes()[0] >> 3, 0b10110);
    }
}
