//! A hash map that can be looked up but not iterated: fast, and safe in a core whose runs must repeat.

use std::hash::{BuildHasherDefault, Hash, Hasher};

/// The map behind `LookupMap`; nothing outside may see it, because its iteration order means nothing.
#[expect(clippy::disallowed_types, reason = "the one wrapper: no method of it iterates")]
type Inner<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<MixHasher>>;

/// A hash map without iteration. Keys are ids chosen at random by peers of the mesh or counted by this one, so a
/// fixed mixing function serves; a member that forges ids to collide is out of scope.
#[derive(Clone, Debug)]
pub struct LookupMap<K, V> {
    inner: Inner<K, V>,
}

impl<K, V> Default for LookupMap<K, V> {
    fn default() -> Self {
        Self { inner: Inner::default() }
    }
}

impl<K: Hash + Eq, V> LookupMap<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.inner.get(key)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.inner.get_mut(key)
    }

    /// Sets the value of a key and returns the former one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.inner.insert(key, value)
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.inner.remove(key)
    }

    /// The value of a key, made by `default` if it was absent.
    pub fn or_insert_with(&mut self, key: K, default: impl FnOnce() -> V) -> &mut V {
        self.inner.entry(key).or_insert_with(default)
    }

    /// Changes the value of a key, then removes the key if `change` says that it is done with. One look-up.
    /// Returns what else `change` says.
    pub fn change_or_remove<R>(&mut self, key: K, change: impl FnOnce(&mut V) -> (bool, R)) -> Option<R> {
        let std::collections::hash_map::Entry::Occupied(mut entry) = self.inner.entry(key) else { return None };
        let (done, result) = change(entry.get_mut());
        if done {
            entry.remove();
        }
        Some(result)
    }

    /// Whether the key is there.
    pub fn contains_key(&self, key: &K) -> bool {
        self.inner.contains_key(key)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
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
