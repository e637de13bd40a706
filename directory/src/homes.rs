//! Which peers are an object's homes: the live peers nearest to its key by Kademlia's metric (Maymounkov and
//! Mazieres 2002), hashed as libp2p-kad hashes, so that its routing finds the same peers.

use driftmesh_model::{ObjectId, PeerId};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// How many homes keep an object's record.
pub const REPLICAS_OF_RECORDS: usize = 3;

type Key = [u8; 32];

fn key_of(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

/// What an object's place in the key space is hashed from: what Kademlia is asked for.
#[must_use]
pub fn kademlia_key(object: ObjectId) -> [u8; 32] {
    *blake3::hash(&object.as_u128().to_be_bytes()).as_bytes()
}

fn key_of_object(object: ObjectId) -> Key {
    key_of(&kademlia_key(object))
}

fn distance(left: &Key, right: &Key) -> Key {
    let mut distance = [0; 32];
    for (out, (left, right)) in distance.iter_mut().zip(left.iter().zip(right)) {
        *out = left ^ right;
    }
    distance
}

/// The live peers with their places in the key space.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HomeRing {
    keys: BTreeMap<PeerId, Key>,
}

impl HomeRing {
    /// A peer is live.
    pub fn add(&mut self, peer: PeerId) {
        self.keys.insert(peer, key_of(&peer.kademlia_bytes()));
    }

    /// A peer is gone.
    pub fn remove(&mut self, peer: &PeerId) {
        self.keys.remove(peer);
    }

    /// How many peers are live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether none is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a peer is live.
    #[must_use]
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.keys.contains_key(peer)
    }

    /// The homes of an object. Those of several peers that are nearest to it, nearest first.
    #[must_use]
    pub fn homes(&self, object: ObjectId) -> Vec<PeerId> {
        if self.keys.len() <= REPLICAS_OF_RECORDS {
            // Every peer is a home of everything.
            return self.keys.keys().copied().collect();
        }
        let target = key_of_object(object);
        let mut nearest: Vec<(Key, PeerId)> = Vec::with_capacity(REPLICAS_OF_RECORDS + 1);
        for (peer, key) in &self.keys {
            let candidate = (distance(key, &target), *peer);
            let place = nearest.partition_point(|known| *known < candidate);
            if place < REPLICAS_OF_RECORDS {
                nearest.insert(place, candidate);
                nearest.truncate(REPLICAS_OF_RECORDS);
            }
        }
        nearest.into_iter().map(|(_, peer)| peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_few_distinct_and_stable_when_a_far_peer_leaves() {
        let mut ring = HomeRing::default();
        for byte in 0..20 {
            ring.add(PeerId::from_bytes([byte; 32]));
        }
        let object = ObjectId::from_u128(42);
        let homes = ring.homes(object);
        assert_eq!(homes.len(), REPLICAS_OF_RECORDS);
        let far = (0..20).map(|byte| PeerId::from_bytes([byte; 32])).find(|peer| !homes.contains(peer)).unwrap();
        ring.remove(&far);
        assert_eq!(ring.homes(object), homes);
        ring.remove(&homes[0]);
        assert_eq!(ring.homes(object)[..2], homes[1..]);
    }
}
