//! Homes are the nearest peers by Kademlia's metric, whoever came and went in whatever order.

use crate::{cases, object, peer};
use driftmesh_directory::{HomeRing, REPLICAS_OF_RECORDS, kademlia_key};
use driftmesh_model::{ObjectId, PeerId};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// All peers by their distance, nearest first.
fn by_distance(live: &BTreeSet<PeerId>, object: ObjectId) -> Vec<PeerId> {
    let target = Sha256::digest(kademlia_key(object));
    let distance = |peer: &PeerId| -> Vec<u8> {
        Sha256::digest(peer.kademlia_bytes()).iter().zip(&target).map(|(left, right)| left ^ right).collect()
    };
    let mut all: Vec<PeerId> = live.iter().copied().collect();
    all.sort_by_key(distance);
    all
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn they_are_the_nearest_of_those_that_live(steps in prop::collection::vec((0..24_u8, any::<bool>()), 0..60)) {
        let (mut ring, mut live) = (HomeRing::default(), BTreeSet::new());
        for (number, comes) in steps {
            if comes {
                ring.add(peer(number));
                live.insert(peer(number));
            } else {
                ring.remove(&peer(number));
                live.remove(&peer(number));
            }
            prop_assert_eq!((ring.len(), ring.is_empty()), (live.len(), live.is_empty()));
            prop_assert_eq!(ring.contains(&peer(number)), comes);
        }
        for number in 0..12 {
            let mut nearest = by_distance(&live, object(number));
            nearest.truncate(REPLICAS_OF_RECORDS);
            if live.len() <= REPLICAS_OF_RECORDS {
                // All are homes of everything, in no order.
                nearest.sort_unstable();
            }
            prop_assert_eq!(ring.homes(object(number)), nearest);
        }
    }
}
