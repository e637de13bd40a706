//! Whom to dial next and when: join addresses for ever, lost and wanted peers for a while, peers heard of by mDNS as
//! long as they are heard, all with backoff.
//!
//! It refuses to grow beyond its bounds, and to read a clock or a socket: the time is an argument, and the swarm's
//! task does the dialling.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use driftmesh_model::PeerId;
use libp2p::Multiaddr;

use super::address;
use super::address::PeerAddress;
use super::limits::{
    ADDRESSES_MAX, BACKOFF_MAX, BACKOFF_MIN, DEPARTED_FOR, DIAL_STAGGER, DIALS_MAX, NEARBY_BACKOFF_MAX,
    NEARBY_DIALS_MAX, NEARBY_MAX, NEARBY_PER_HOST_MAX, REDIAL_FOR, REDIALS_MAX, REFUSED_FOR, SHUNNED_REMEMBERED,
    UNREACHABLE_INTERVAL, UNREACHABLE_REMEMBERED,
};

/// What a dial is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Origin {
    /// The join address with this index.
    Join(usize),
    /// A peer that was lost, or that a query wants.
    Redial(PeerId),
    /// A peer heard of by mDNS.
    Nearby(PeerId),
}

/// A dial that is due.
#[derive(Debug)]
pub(super) enum Due {
    Join {
        index: usize,
        address: PeerAddress,
    },
    /// A lost, wanted or nearby peer.
    Peer {
        origin: Origin,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    },
}

struct Backoff {
    next: Instant,
    delay: Duration,
    is_under_way: bool,
}

impl Backoff {
    const fn new(next: Instant) -> Self {
        Self { next, delay: BACKOFF_MIN, is_under_way: false }
    }

    fn advance(&mut self, now: Instant, longest: Duration) {
        self.is_under_way = false;
        self.next = now + self.delay;
        self.delay = (self.delay * 2).min(longest);
    }

    fn has_failed(&self) -> bool {
        !self.is_under_way && self.delay > BACKOFF_MIN
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.is_under_way && self.next <= now
    }
}

struct Target {
    address: PeerAddress,
    /// Who answered there last.
    peer: Option<PeerId>,
    is_ourselves: bool,
    backoff: Backoff,
}

struct Redial {
    addresses: Vec<Multiaddr>,
    give_up: Instant,
    backoff: Backoff,
}

struct Nearby {
    addresses: Vec<Multiaddr>,
    backoff: Backoff,
}

/// All dials that are planned.
pub(super) struct DialBook {
    local: PeerId,
    targets: Vec<Target>,
    redials: HashMap<PeerId, Redial>,
    nearby: HashMap<PeerId, Nearby>,
    /// Until when a peer is not dialled on hearsay.
    shunned: VecDeque<(PeerId, Instant)>,
    unreachable: HashMap<Multiaddr, Instant>,
}

impl DialBook {
    /// The join addresses are due at once.
    pub(super) fn new(local: PeerId, join: Vec<PeerAddress>, now: Instant) -> Self {
        let target = |address| Target { address, peer: None, is_ourselves: false, backoff: Backoff::new(now) };
        Self {
            local,
            targets: join.into_iter().map(target).collect(),
            redials: HashMap::new(),
            nearby: HashMap::new(),
            shunned: VecDeque::new(),
            unreachable: HashMap::new(),
        }
    }

    /// The dials that are due; each counts as under way until [`DialBook::finished`].
    pub(super) fn due(&mut self, now: Instant, is_connected: impl Fn(&PeerId) -> bool) -> Vec<Due> {
        let nearby_under_way = self.nearby.values().filter(|nearby| nearby.backoff.is_under_way).count();
        let under_way = self.targets.iter().filter(|target| target.backoff.is_under_way).count()
            + self.redials.values().filter(|redial| redial.backoff.is_under_way).count()
            + nearby_under_way;
        let mut left = DIALS_MAX.saturating_sub(under_way);
        let mut due = Vec::new();
        for (index, target) in self.targets.iter_mut().enumerate() {
            let is_satisfied = target.is_ourselves || target.peer.as_ref().is_some_and(&is_connected);
            if left > 0 && !is_satisfied && target.backoff.is_due(now) {
                target.backoff.is_under_way = true;
                left -= 1;
                due.push(Due::Join { index, address: target.address.clone() });
            }
        }
        self.redials.retain(|_, redial| redial.backoff.is_under_way || now < redial.give_up);
        for (peer, redial) in &mut self.redials {
            if left > 0 && redial.backoff.is_due(now) && !is_connected(peer) {
                redial.backoff.is_under_way = true;
                left -= 1;
                let origin = Origin::Redial(*peer);
                due.push(Due::Peer { origin, peer: *peer, addresses: redial.addresses.clone() });
            }
        }
        let mut left = left.min(NEARBY_DIALS_MAX.saturating_sub(nearby_under_way));
        for (peer, nearby) in &mut self.nearby {
            if left > 0 && nearby.backoff.is_due(now) && !is_connected(peer) {
                nearby.backoff.is_under_way = true;
                left -= 1;
                let origin = Origin::Nearby(*peer);
                due.push(Due::Peer { origin, peer: *peer, addresses: nearby.addresses.clone() });
            }
        }
        due
    }

    /// A dial ended, with a connection to `peer` or without one. The next waits, and only an admission resets the
    /// wait: a peer that accepts connections and refuses handshakes is not dialled in a tight loop.
    pub(super) fn finished(&mut self, origin: Origin, peer: Option<PeerId>, now: Instant) {
        match origin {
            Origin::Join(index) => {
                if let Some(target) = self.targets.get_mut(index) {
                    target.backoff.advance(now, BACKOFF_MAX);
                    target.peer = peer.or(target.peer);
                }
            }
            Origin::Redial(peer) => {
                if let Some(redial) = self.redials.get_mut(&peer) {
                    redial.backoff.advance(now, BACKOFF_MAX);
                }
            }
            Origin::Nearby(peer) => {
                if let Some(nearby) = self.nearby.get_mut(&peer) {
                    nearby.backoff.advance(now, NEARBY_BACKOFF_MAX);
                }
            }
        }
    }

    /// The join address leads to this peer itself; it is not dialled again.
    pub(super) fn is_ourselves(&mut self, index: usize) {
        if let Some(target) = self.targets.get_mut(index) {
            target.is_ourselves = true;
        }
    }

    /// The join address with this index.
    pub(super) fn join_address(&self, index: usize) -> Option<&PeerAddress> {
        self.targets.get(index).map(|target| &target.address)
    }

    /// The peer is admitted: nothing is to be dialled for it.
    pub(super) fn admitted(&mut self, peer: &PeerId, now: Instant) {
        self.redials.remove(peer);
        if let Some(nearby) = self.nearby.get_mut(peer) {
            nearby.backoff = Backoff::new(now);
        }
        for target in self.targets.iter_mut().filter(|target| target.peer.as_ref() == Some(peer)) {
            target.backoff = Backoff::new(now);
        }
    }

    /// The peer refused, or was refused. What does not pass by itself is tried again at the slowest pace where the user
    /// named the address, else not for [`REFUSED_FOR`].
    pub(super) fn refused(&mut self, peer: &PeerId, is_transient: bool, now: Instant) {
        if is_transient {
            return;
        }
        self.redials.remove(peer);
        self.shun(*peer, now + REFUSED_FOR);
        for target in self.targets.iter_mut().filter(|target| target.peer.as_ref() == Some(peer)) {
            target.backoff.delay = BACKOFF_MAX;
            target.backoff.next = now + BACKOFF_MAX;
        }
    }

    /// An admitted peer was lost; it is dialled again.
    pub(super) fn lost(&mut self, peer: PeerId, addresses: &[Multiaddr], now: Instant) {
        if !addresses.is_empty() {
            self.insert(peer, addresses.to_vec(), now + BACKOFF_MIN, now);
        }
    }

    /// An admitted peer said goodbye; others may still tell of it for a while.
    pub(super) fn departed(&mut self, peer: PeerId, now: Instant) {
        self.redials.remove(&peer);
        self.shun(peer, now + DEPARTED_FOR);
    }

    /// An admitted peer was dropped for what it said, and is refused until then.
    pub(super) fn dropped(&mut self, peer: PeerId, until: Instant) {
        self.redials.remove(&peer);
        self.shun(peer, until);
    }

    fn shun(&mut self, peer: PeerId, until: Instant) {
        self.shunned.retain(|(shunned, _)| *shunned != peer);
        self.shunned.push_back((peer, until));
        if self.shunned.len() > SHUNNED_REMEMBERED {
            self.shunned.pop_front();
        }
        if let Some(nearby) = self.nearby.get_mut(&peer) {
            nearby.backoff.next = until;
        }
    }

    /// When a peer of which was heard may be dialled.
    fn not_before(&self, peer: PeerId, now: Instant) -> Instant {
        let stagger = if self.local < peer { Duration::ZERO } else { DIAL_STAGGER };
        let shunned = self.shunned.iter().find(|(shunned, _)| *shunned == peer).map(|(_, until)| *until);
        shunned.map_or(now + stagger, |until| until.max(now + stagger))
    }

    /// A query wants a peer that is not connected. Returns whether it will be dialled soon.
    pub(super) fn wanted(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) -> bool {
        let next = self.not_before(peer, now);
        if peer == self.local || addresses.is_empty() || next > now + DIAL_STAGGER {
            return false;
        }
        match self.redials.get_mut(&peer) {
            Some(redial) => redial.addresses = addresses,
            None => self.insert(peer, addresses, next, now),
        }
        self.redials.contains_key(&peer)
    }

    /// Somebody on the local network says that the peer listens there. Returns whether there is room for it.
    pub(super) fn heard_nearby(&mut self, peer: PeerId, address: &Multiaddr, now: Instant) -> bool {
        if peer == self.local {
            return true;
        }
        if let Some(nearby) = self.nearby.get_mut(&peer) {
            if !nearby.addresses.contains(address) && nearby.addresses.len() < ADDRESSES_MAX {
                nearby.addresses.push(address.clone());
            }
            return true;
        }
        let host = |address: &Multiaddr| address::socket(address).map(|socket| socket.ip());
        let at_host = |nearby: &&Nearby| nearby.addresses.first().and_then(host) == host(address);
        if self.nearby.values().filter(at_host).count() >= NEARBY_PER_HOST_MAX {
            return false;
        }
        if self.nearby.len() >= NEARBY_MAX {
            let failed = self.nearby.iter().filter(|(_, nearby)| nearby.backoff.has_failed());
            let Some(most) = failed.max_by_key(|(_, nearby)| nearby.backoff.next).map(|(peer, _)| *peer) else {
                return false;
            };
            self.nearby.remove(&most);
        }
        let backoff = Backoff::new(self.not_before(peer, now));
        self.nearby.insert(peer, Nearby { addresses: vec![address.clone()], backoff });
        true
    }

    /// Nobody says any more that the peer listens there.
    pub(super) fn gone_nearby(&mut self, peer: &PeerId, address: &Multiaddr) {
        if let Some(nearby) = self.nearby.get_mut(peer) {
            nearby.addresses.retain(|known| known != address);
            if nearby.addresses.is_empty() {
                self.nearby.remove(peer);
            }
        }
    }

    /// This peer belongs to a mesh now: nearby peers that were refused because it had none are dialled at once.
    pub(super) fn has_mesh(&mut self, now: Instant) {
        let shunned: HashSet<PeerId> =
            self.shunned.iter().filter(|(_, until)| now < *until).map(|(peer, _)| *peer).collect();
        for (peer, nearby) in &mut self.nearby {
            if !nearby.backoff.is_under_way && !shunned.contains(peer) {
                nearby.backoff = Backoff::new(now);
            }
        }
    }

    /// What was heard by mDNS is forgotten.
    pub(super) fn forget_nearby(&mut self) {
        self.nearby.clear();
    }

    fn insert(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, next: Instant, now: Instant) {
        if self.redials.len() < REDIALS_MAX || self.redials.contains_key(&peer) {
            let redial = Redial { addresses, give_up: now + REDIAL_FOR, backoff: Backoff::new(next) };
            self.redials.insert(peer, redial);
        }
    }

    /// Whether it is to be told that the address cannot be reached: once in 5 s.
    pub(super) fn reports_unreachable(&mut self, address: &Multiaddr, now: Instant) -> bool {
        if self.unreachable.get(address).is_some_and(|last| now < *last + UNREACHABLE_INTERVAL) {
            return false;
        }
        if self.unreachable.len() >= UNREACHABLE_REMEMBERED {
            self.unreachable.retain(|_, last| now < *last + UNREACHABLE_INTERVAL);
            if self.unreachable.len() >= UNREACHABLE_REMEMBERED {
                return false;
            }
        }
        self.unreachable.insert(address.clone(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::parse_address;

    const LOCAL: PeerId = PeerId::from_bytes([5; 32]);
    const HIGHER: PeerId = PeerId::from_bytes([9; 32]);
    const LOWER: PeerId = PeerId::from_bytes([1; 32]);

    fn address() -> Multiaddr {
        "/ip4/127.0.0.1/tcp/1".parse().unwrap()
    }

    #[test]
    fn join_addresses_are_tried_for_ever_with_growing_waits() {
        let begin = Instant::now();
        let mut book = DialBook::new(LOCAL, vec![parse_address("127.0.0.1:1").unwrap()], begin);
        let mut waits = Vec::new();
        let mut now = begin;
        let mut last = begin;
        while now < begin + Duration::from_secs(300) {
            if !book.due(now, |_| false).is_empty() {
                waits.push(now - last);
                last = now;
                book.finished(Origin::Join(0), None, now);
            }
            now += Duration::from_millis(100);
        }
        assert_eq!(waits[..4], [0, 200, 400, 800].map(Duration::from_millis));
        assert_eq!(waits.last(), Some(&BACKOFF_MAX));
        assert!(waits.len() > 50);
    }

    #[test]
    fn a_lost_peer_is_given_up_after_a_minute() {
        let begin = Instant::now();
        let mut book = DialBook::new(LOCAL, vec![], begin);
        book.lost(HIGHER, &[address()], begin);
        assert!(book.due(begin, |_| false).is_empty());
        let mut now = begin;
        let mut last = begin;
        while now < begin + Duration::from_secs(200) {
            for _ in book.due(now, |_| false) {
                book.finished(Origin::Redial(HIGHER), None, now);
                last = now;
            }
            now += Duration::from_millis(100);
        }
        assert!(last > begin + Duration::from_secs(50) && last < begin + REDIAL_FOR);
        assert!(book.redials.is_empty());
    }

    #[test]
    fn of_two_peers_that_hear_of_each_other_the_lower_dials_first() {
        let now = Instant::now();
        let mut book = DialBook::new(LOCAL, vec![], now);
        assert!(book.wanted(HIGHER, vec![address()], now));
        assert!(book.wanted(LOWER, vec![address()], now));
        assert!(!book.wanted(LOCAL, vec![address()], now));
        assert!(matches!(book.due(now, |_| false)[..], [Due::Peer { peer: HIGHER, .. }]));
        assert!(matches!(book.due(now + DIAL_STAGGER, |_| false)[..], [Due::Peer { peer: LOWER, .. }]));
    }

    #[test]
    fn a_goodbye_or_a_refusal_holds_against_hearsay_for_a_while() {
        for (leaves, until) in [(true, DEPARTED_FOR), (false, REFUSED_FOR)] {
            let now = Instant::now();
            let mut book = DialBook::new(LOCAL, vec![], now);
            assert!(book.heard_nearby(HIGHER, &address(), now));
            if leaves {
                book.departed(HIGHER, now);
            } else {
                book.refused(&HIGHER, false, now);
            }
            assert!(!book.wanted(HIGHER, vec![address()], now));
            book.gone_nearby(&HIGHER, &address());
            assert!(book.heard_nearby(HIGHER, &address(), now));
            assert!(book.due(now + until - Duration::from_millis(1), |_| false).is_empty());
            assert_eq!(book.due(now + until, |_| false).len(), 1);
            assert!(book.wanted(HIGHER, vec![address()], now + until));
        }
    }

    fn peer(number: usize) -> PeerId {
        let mut bytes = [9; 32];
        bytes[24..].copy_from_slice(&number.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    #[test]
    fn a_flood_of_nearby_peers_is_bounded_and_never_in_the_way_of_a_join_address() {
        let now = Instant::now();
        let mut book = DialBook::new(LOCAL, vec![parse_address("127.0.0.1:1").unwrap()], now);
        let mut taken = 0;
        for number in 0..4 * NEARBY_MAX {
            let host = number / (2 * NEARBY_PER_HOST_MAX);
            let address = format!("/ip4/10.0.0.{host}/tcp/{}", number % 60_000 + 1).parse().unwrap();
            taken += usize::from(book.heard_nearby(peer(number), &address, now));
        }
        assert_eq!((taken, book.nearby.len()), (NEARBY_MAX, NEARBY_MAX));
        let due = book.due(now, |_| false);
        assert!(matches!(due[0], Due::Join { .. }));
        assert_eq!(due.len(), 1 + NEARBY_DIALS_MAX);
        assert!(book.due(now, |_| false).is_empty(), "as many are under way as may be");
        // One that failed makes way for another.
        let newcomer = "/ip4/10.0.1.1/tcp/1".parse().unwrap();
        assert!(!book.heard_nearby(HIGHER, &newcomer, now));
        let Some(Due::Peer { origin, .. }) = due.last() else { panic!("{due:?}") };
        book.finished(*origin, None, now);
        assert!(book.heard_nearby(HIGHER, &newcomer, now));
        assert_eq!(book.nearby.len(), NEARBY_MAX);
    }

    #[test]
    fn a_nearby_peer_that_does_not_answer_is_dialled_more_and_more_seldom() {
        let begin = Instant::now();
        let mut book = DialBook::new(LOCAL, vec![], begin);
        book.heard_nearby(HIGHER, &address(), begin);
        let mut dials = 0;
        let mut now = begin;
        while now < begin + Duration::from_secs(600) {
            for _ in book.due(now, |_| false) {
                book.finished(Origin::Nearby(HIGHER), None, now);
                dials += 1;
            }
            now += Duration::from_millis(100);
        }
        assert!((20..40).contains(&dials), "{dials}");
    }

    #[test]
    fn who_belongs_to_a_mesh_at_last_dials_nearby_peers_at_once_but_not_who_refused_for_good() {
        let begin = Instant::now();
        let mut book = DialBook::new(LOCAL, vec![], begin);
        let stranger = peer(1);
        book.heard_nearby(HIGHER, &address(), begin);
        book.heard_nearby(stranger, &address(), begin);
        book.refused(&stranger, false, begin);
        let mut now = begin;
        while now < begin + Duration::from_secs(60) {
            for _ in book.due(now, |_| false) {
                book.finished(Origin::Nearby(HIGHER), None, now);
                book.refused(&HIGHER, true, now);
            }
            now += Duration::from_millis(100);
        }
        assert!(book.due(now, |_| false).is_empty());
        book.has_mesh(now);
        assert!(matches!(book.due(now, |_| false)[..], [Due::Peer { peer: HIGHER, .. }]));
        book.has_mesh(now);
        assert!(book.due(now, |_| false).is_empty(), "the dial is under way");
    }

    #[test]
    fn an_unreachable_address_is_told_once_in_a_while() {
        let now = Instant::now();
        let mut book = DialBook::new(LOCAL, vec![], now);
        let address = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        assert!(book.reports_unreachable(&address, now));
        assert!(!book.reports_unreachable(&address, now + Duration::from_secs(4)));
        assert!(book.reports_unreachable(&address, now + Duration::from_secs(5)));
    }
}
