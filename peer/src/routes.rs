//! What tasks have touched before, by their kind and key: where the next one of them is likely to find its data.
//!
//! A guess (R1): a wrong one costs a hop. It refuses to remember more than so many keys, and where objects are: records say
//! that, but for those of which there is none.

use driftmesh_model::{ObjectId, PeerId};
use lru::LruCache;
use std::cmp::Reverse;
use std::num::NonZeroUsize;

/// Kinds and keys that are remembered (R24).
pub(crate) const ROUTES_MAX: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("not zero");
/// Objects that are remembered of one.
const TOUCHED_MAX: usize = 8;
/// An object that so many runs touched counts no more than that; then all counts are halved, so that what is new wins.
const COUNT_MAX: u8 = 16;
/// What so many runs touched is expected of the next, if it has no key: then they may have nothing in common.
const EXPECTED_WITHOUT_KEY_FROM: u8 = 2;

/// What runs of one kind and key touched.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    touched: Vec<(ObjectId, u8)>,
    /// What so many runs touched is expected.
    expected_from: u8,
    /// Who ran the last one.
    pub(crate) at: PeerId,
}

impl Route {
    fn learn(&mut self, object: ObjectId) {
        if let Some((_, count)) = self.touched.iter_mut().find(|(known, _)| *known == object) {
            *count += 1;
            if *count >= COUNT_MAX {
                self.touched.iter_mut().for_each(|(_, count)| *count /= 2);
                self.touched.retain(|(_, count)| *count > 0);
            }
            return;
        }
        if self.touched.len() < TOUCHED_MAX {
            self.touched.push((object, 1));
            return;
        }
        // As the sketch of frequent items by Misra and Gries: a stranger takes from the rarest, and then its place.
        if let Some(rarest) = self.touched.iter_mut().min_by_key(|(_, count)| *count) {
            rarest.1 -= 1;
            if rarest.1 == 0 {
                *rarest = (object, 1);
            }
        }
    }

    /// What the next run is expected to touch, and how often former ones did.
    pub(crate) fn expected(&self) -> impl Iterator<Item = (ObjectId, u8)> {
        self.touched.iter().copied().filter(|(_, count)| *count >= self.expected_from)
    }

    /// What nearly all runs touched; of several the one that was met first.
    pub(crate) fn most(&self) -> Option<ObjectId> {
        self.expected().min_by_key(|(_, count)| Reverse(*count)).map(|(object, _)| object)
    }
}

/// All that is remembered.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    by_key: LruCache<(u64, u64), Route>,
}

/// Tells names apart, by the hash of Fowler, Noll and Vo (FNV-1a). Two that it confuses share what was learned.
fn hash_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Routes {
    /// An empty memory for at most `bound` keys.
    pub(crate) fn new(bound: NonZeroUsize) -> Self {
        Self { by_key: LruCache::new(bound) }
    }

    pub(crate) fn get(&mut self, name: &str, key: u64) -> Option<&Route> {
        self.by_key.get(&(hash_of(name), key))
    }

    /// Learns what one run touched, and where that was.
    pub(crate) fn learn(&mut self, name: &str, key: u64, objects: impl Iterator<Item = ObjectId>, at: PeerId) {
        let expected_from = if key == 0 { EXPECTED_WITHOUT_KEY_FROM } else { 1 };
        let route =
            self.by_key.get_or_insert_mut((hash_of(name), key), || Route { touched: Vec::new(), expected_from, at });
        route.at = at;
        objects.take(TOUCHED_MAX).for_each(|object| route.learn(object));
    }

    /// What was learned is wrong.
    pub(crate) fn forget(&mut self, name: &str, key: u64) {
        self.by_key.pop(&(hash_of(name), key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> ObjectId {
        ObjectId::from_u128(number)
    }

    #[test]
    fn what_every_run_touches_is_expected_whatever_else_they_touch() {
        let (mut routes, peer) = (Routes::new(ROUTES_MAX), PeerId::from_bytes([1; 32]));
        for partner in 100..200 {
            routes.learn("trade", 7, [id(1), id(partner)].into_iter(), peer);
        }
        let route = routes.get("trade", 7).unwrap();
        assert_eq!(route.most(), Some(id(1)));
        assert!(route.touched.len() <= TOUCHED_MAX);
        assert!(routes.get("trade", 8).is_none() && routes.get("walk", 7).is_none());
    }

    #[test]
    fn what_is_new_replaces_what_was() {
        let (mut routes, peer) = (Routes::new(ROUTES_MAX), PeerId::from_bytes([1; 32]));
        (0..100).for_each(|_| routes.learn("walk", 1, [id(1), id(2)].into_iter(), peer));
        (0..40).for_each(|_| routes.learn("walk", 1, [id(1), id(3)].into_iter(), peer));
        let expected: Vec<ObjectId> = routes.get("walk", 1).unwrap().expected().map(|(object, _)| object).collect();
        assert!(expected.contains(&id(3)) && !expected.contains(&id(2)), "{expected:?}");
        routes.forget("walk", 1);
        assert!(routes.get("walk", 1).is_none());
    }

    #[test]
    fn one_object_of_many_runs_without_a_key_is_no_expectation() {
        let (mut routes, peer) = (Routes::new(ROUTES_MAX), PeerId::from_bytes([1; 32]));
        (0..1_000).for_each(|number| routes.learn("pay", 0, [id(number), id(number + 5_000)].into_iter(), peer));
        assert_eq!(routes.get("pay", 0).unwrap().most(), None);
    }
}
