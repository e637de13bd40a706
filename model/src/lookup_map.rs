//! A hash map that can be looked up but not iterated: fast, safe in a core whose runs must repeat, and never slow for one
//! call because it grows.
//!
//! A table that doubles moves everything it holds in one call: with a million objects that is a pause of tens of
//! milliseconds. This one grows by parts, by extendible hashing (Fagin, Nievergelt, Pippenger and Strong 1979), and an
//! insertion moves at most [`PART_MAX`] values. It refuses to shrink: what was large once may be so again.

use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

/// The map behind `LookupMap`; nothing outside may see it, because its iteration order means nothing.
#[expect(clippy::disallowed_types, reason = "the one wrapper: what it iterates goes into maps again")]
type Inner<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<MixHasher>>;

/// How many values one part holds: as many as fit into 512 places of the map behind it.
const PART_MAX: usize = 448;
/// Bits of the hash that choose a part, at most, and where they begin: the map behind a part uses the lowest ones and
/// the highest ones for itself.
const BITS_MAX: u32 = 20;
const BITS_FROM: u32 = 32;

/// A hash map without iteration. Keys are ids chosen at random by peers of the mesh or counted by this one, so a
/// fixed mixing function serves; a member that forges ids to collide is out of scope.
#[derive(Clone, Debug)]
pub struct LookupMap<K, V> {
    /// One at least; most maps are small and have no other.
    parts: Vec<Part<K, V>>,
    /// The part of each value of the lowest `n` chosen bits, where its length is 2 to the power of `n`.
    directory: Vec<u32>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Part<K, V> {
    /// In how many of the chosen bits all its keys agree.
    bits: u32,
    map: Inner<K, V>,
}

/// The bits of a key that choose its part.
fn chosen_bits<K: Hash>(key: &K) -> usize {
    let hash = BuildHasherDefault::<MixHasher>::default().hash_one(key);
    usize::try_from((hash >> BITS_FROM) & ((1 << BITS_MAX) - 1)).unwrap_or(0)
}

impl<K, V> Default for LookupMap<K, V> {
    fn default() -> Self {
        Self { parts: vec![Part { bits: 0, map: Inner::default() }], directory: vec![0], len: 0 }
    }
}

impl<K: Hash + Eq, V> LookupMap<K, V> {
    /// The place of the part that a key belongs to.
    fn place(&self, key: &K) -> usize {
        if self.parts.len() == 1 {
            return 0;
        }
        self.directory[chosen_bits(key) & (self.directory.len() - 1)] as usize
    }

    fn part(&self, key: &K) -> &Inner<K, V> {
        &self.parts[self.place(key)].map
    }

    fn part_mut(&mut self, key: &K) -> &mut Inner<K, V> {
        let place = self.place(key);
        &mut self.parts[place].map
    }

    /// The place of the part that a key belongs to, which has room for it. Beyond all bits that choose a part, that part
    /// grows like any map.
    fn place_with_room(&mut self, key: &K) -> usize {
        loop {
            let place = self.place(key);
            let part = &self.parts[place];
            if part.map.len() < PART_MAX || part.bits == BITS_MAX {
                return place;
            }
            self.split(place);
        }
    }

    /// Splits a part by one bit more.
    #[expect(clippy::iter_over_hash_type, reason = "what is iterated goes into maps again, whatever its order")]
    fn split(&mut self, place: usize) {
        let Part { bits, map } = &mut self.parts[place];
        let bit = *bits;
        *bits += 1;
        let empty = || Inner::with_capacity_and_hasher(PART_MAX, BuildHasherDefault::default());
        let (mut low, mut high) = (empty(), empty());
        let mut agreed = 0;
        for (key, value) in std::mem::take(map) {
            let chosen = chosen_bits(&key);
            agreed = chosen & ((1 << bit) - 1);
            let half = if chosen & (1 << bit) == 0 { &mut low } else { &mut high };
            half.insert(key, value);
        }
        *map = low;
        if self.directory.len() == 1 << bit {
            self.directory.extend_from_within(..);
        }
        let new = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        self.parts.push(Part { bits: bit + 1, map: high });
        let theirs = self.directory.iter_mut().skip(agreed | (1 << bit)).step_by(1 << (bit + 1));
        theirs.for_each(|part| *part = new);
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.part(key).get(key)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.part_mut(key).get_mut(key)
    }

    /// Sets the value of a key and returns the former one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let place = self.place_with_room(&key);
        let former = self.parts[place].map.insert(key, value);
        self.len += usize::from(former.is_none());
        former
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = self.part_mut(key).remove(key);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// The value of a key, made by `default` if it was absent.
    pub fn or_insert_with(&mut self, key: K, default: impl FnOnce() -> V) -> &mut V {
        let place = self.place_with_room(&key);
        match self.parts[place].map.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.len += 1;
                entry.insert(default())
            }
        }
    }

    /// Changes the value of a key, then removes the key if `change` says that it is done with. One look-up.
    /// Returns what else `change` says.
    pub fn change_or_remove<R>(&mut self, key: K, change: impl FnOnce(&mut V) -> (bool, R)) -> Option<R> {
        let Entry::Occupied(mut entry) = self.part_mut(&key).entry(key) else { return None };
        let (done, result) = change(entry.get_mut());
        if done {
            entry.remove();
            self.len -= 1;
        }
        Some(result)
    }

    /// Whether the key is there.
    pub fn contains_key(&self, key: &K) -> bool {
        self.part(key).contains_key(key)
    }

    /// How many keys there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A multiply-and-rotate mixer over 64-bit words, with a final avalanche (the finaliser of `SplitMix64`, Steele,
/// Lea and Flood 2014). Not proof against chosen keys; see `LookupMap`.
#[derive(Clone, Default)]
struct MixHasher {
    state: u64,
}

impl MixHasher {
    fn mix(&mut self, word: u64) {
        self.state = (self.state.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl Hasher for MixHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0_u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_u128(&mut self, word: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are taken on purpose")]
        {
            self.mix(word as u64);
            self.mix((word >> 64) as u64);
        }
    }

    fn finish(&self) -> u64 {
        let mut state = self.state;
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state ^ (state >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectId;
    use std::collections::BTreeMap;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u16, u32),
        Remove(u16),
        GetOrInsert(u16),
        ChangeOrRemove(u16, bool),
    }

    fn step() -> impl proptest::strategy::Strategy<Value = Step> {
        use proptest::prelude::*;
        let key = 0..20_000_u16;
        prop_oneof![
            8 => (key.clone(), any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
            1 => key.clone().prop_map(Step::Remove),
            1 => key.clone().prop_map(Step::GetOrInsert),
            1 => (key, any::<bool>()).prop_map(|(key, done)| Step::ChangeOrRemove(key, done)),
        ]
    }

    fn id(key: u16) -> ObjectId {
        ObjectId::from_u128(u128::from(key))
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
        #[test]
        fn it_is_a_map_whatever_its_size(steps in proptest::collection::vec(step(), 1..30_000)) {
            let (mut map, mut model) = (LookupMap::default(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Insert(key, value) => assert_eq!(map.insert(id(key), value), model.insert(id(key), value)),
                    Step::Remove(key) => assert_eq!(map.remove(&id(key)), model.remove(&id(key))),
                    Step::GetOrInsert(key) => {
                        assert_eq!(map.or_insert_with(id(key), || 7), model.entry(id(key)).or_insert(7));
                    }
                    Step::ChangeOrRemove(key, done) => {
                        let changed = map.change_or_remove(id(key), |value| {
                            *value = value.wrapping_add(1);
                            (done, *value)
                        });
                        let expected = model.get_mut(&id(key)).map(|value| {
                            *value = value.wrapping_add(1);
                            *value
                        });
                        assert_eq!(changed, expected);
                        if done {
                            model.remove(&id(key));
                        }
                    }
                }
                assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
            }
            for key in 0..20_000 {
                assert_eq!(map.get(&id(key)), model.get(&id(key)));
                assert_eq!(map.get_mut(&id(key)), model.get_mut(&id(key)));
                assert_eq!(map.contains_key(&id(key)), model.contains_key(&id(key)));
            }
        }
    }

    #[test]
    fn no_part_grows_beyond_its_bound() {
        let mut map = LookupMap::default();
        for key in 0..100_000_u128 {
            map.insert(ObjectId::from_u128(key.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)), key);
        }
        assert!(map.parts.iter().all(|part| part.map.len() <= PART_MAX));
        assert_eq!(map.parts.iter().map(|part| part.map.len()).sum::<usize>(), map.len());
        assert!(map.parts.len() < 2 * 100_000 / PART_MAX, "{} parts", map.parts.len());
    }
}
