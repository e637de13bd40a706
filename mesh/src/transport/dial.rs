//! Whom to dial next and when: join addresses for ever, lost and announced peers for a while, all with backoff.
//!
//! It refuses to grow beyond its bounds, and to read a clock or a socket: the time is an argument, and the swarm's
//! task does the dialling.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use driftmesh_model::PeerId;
use libp2p::Multiaddr;

use super::address::PeerAddress;
use super::exchange::Learned;
use super::limits::{
    BACKOFF_MAX, BACKOFF_MIN, DEPARTED_REMEMBERED, DIAL_STAGGER, DIALS_MAX, REDIAL_FOR, REDIALS_MAX,
    UNREACHABLE_INTERVAL, UNREACHABLE_REMEMBERED,
};

/// What a dial is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Origin {
    /// The join address with this index.
    Join(usize),
    /// A peer that was lost or announced.
    Redial(PeerId),
}

/// A dial that is due.
#[derive(Debug)]
pub(super) enum Due {
    Join { index: usize, address: PeerAddress },
    Redial { peer: PeerId, addresses: Vec<Multiaddr> },
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

    fn advance(&mut self, now: Instant) {
        self.is_under_way = false;
        self.next = now + self.delay;
        self.delay = (self.delay * 2).min(BACKOFF_MAX);
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

/// All dials that are planned.
pub(super) struct DialBook {
    local: PeerId,
    targets: Vec<Target>,
    redials: HashMap<PeerId, Redial>,
    departed: VecDeque<(PeerId, u64)>,
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
            departed: VecDeque::new(),
            unreachable: HashMap::new(),
        }
    }

    /// The dials that are due; each counts as under way until [`DialBook::finished`].
    pub(super) fn due(&mut self, now: Instant, is_connected: impl Fn(&PeerId) -> bool) -> Vec<Due> {
        let under_way = self.targets.iter().filter(|target| target.backoff.is_under_way).count()
            + self.redials.values().filter(|redial| redial.backoff.is_under_way).count();
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
                due.push(Due::Redial { peer: *peer, addresses: redial.addresses.clone() });
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
                    target.backoff.advance(now);
                    target.peer = peer.or(target.peer);
                }
            }
            Origin::Redial(peer) => {
                if let Some(redial) = self.redials.get_mut(&peer) {
                    redial.backoff.advance(now);
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
        for target in self.targets.iter_mut().filter(|target| target.peer.as_ref() == Some(peer)) {
            target.backoff = Backoff::new(now);
        }
    }

    /// The peer refused, or was refused. What does not pass by itself is tried again at the slowest pace.
    pub(super) fn refused(&mut self, peer: &PeerId, is_transient: bool, now: Instant) {
        if is_transient {
            return;
        }
        self.redials.remove(peer);
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

    /// An admitted peer said goodbye; other peers may still tell of this incarnation for a while.
    pub(super) fn departed(&mut self, peer: PeerId, incarnation: u64) {
        self.redials.remove(&peer);
        if !self.departed.contains(&(peer, incarnation)) {
            self.departed.push_back((peer, incarnation));
        }
        if self.departed.len() > DEPARTED_REMEMBERED {
            self.departed.pop_front();
        }
    }

    /// A remote told of a peer that is not connected.
    pub(super) fn learned(&mut self, learned: Learned, now: Instant) {
        let Learned { peer, incarnation, addresses } = learned;
        if peer == self.local || self.departed.contains(&(peer, incarnation)) {
            return;
        }
        if let Some(redial) = self.redials.get_mut(&peer) {
            redial.addresses = addresses;
            return;
        }
        let wait = if self.local < peer { Duration::ZERO } else { DIAL_STAGGER };
        self.insert(peer, addresses, now + wait, now);
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

    fn learned(peer: PeerId, incarnation: u64) -> Learned {
        Learned { peer, incarnation, addresses: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()] }
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
        book.lost(HIGHER, &learned(HIGHER, 1).addresses, begin);
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
        book.learned(learned(HIGHER, 1), now);
        book.learned(learned(LOWER, 1), now);
        book.learned(learned(LOCAL, 1), now);
        assert!(matches!(book.due(now, |_| false)[..], [Due::Redial { peer: HIGHER, .. }]));
        assert!(matches!(book.due(now + DIAL_STAGGER, |_| false)[..], [Due::Redial { peer: LOWER, .. }]));
    }

    #[test]
    fn a_goodbye_holds_for_the_incarnation_that_said_it() {
        let now = Instant::now();
        let mut book = DialBook::new(LOCAL, vec![], now);
        book.departed(HIGHER, 1);
        book.learned(learned(HIGHER, 1), now);
        assert!(book.due(now, |_| false).is_empty());
        book.learned(learned(HIGHER, 2), now);
        assert_eq!(book.due(now, |_| false).len(), 1);
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
