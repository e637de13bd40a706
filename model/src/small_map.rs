//! An ordered map that is cheap while it is small: most transactions touch a handful of objects, some 100,000.

use std::collections::BTreeMap;

/// Up to so many entries are kept in one sorted array.
const SMALL_MAX: usize = 16;

/// A map in key order. While it is small it costs one allocation; beyond that it is a `BTreeMap`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SmallMap<K, V> {
    /// Sorted by key; empty once the map has grown.
    small: Vec<(K, V)>,
    large: BTreeMap<K, V>,
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self { small: Vec::new(), large: BTreeMap::new() }
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    fn place(&self, key: &K) -> Result<usize, usize> {
        self.small.binary_search_by(|(known, _)| known.cmp(key))
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        match self.place(key) {
            Ok(index) => self.small.get(index).map(|(_, value)| value),
            Err(_) => self.large.get(key),
        }
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self.place(key) {
            Ok(index) => self.small.get_mut(index).map(|(_, value)| value),
            Err(_) => self.large.get_mut(key),
        }
    }

    /// Whether the key is there.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value of a key and returns the former one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if !self.large.is_empty() {
            return self.large.insert(key, value);
        }
        match self.place(&key) {
            Ok(index) => Some(std::mem::replace(&mut self.small[index].1, value)),
            Err(index) if self.small.len() < SMALL_MAX => {
                self.small.insert(index, (key, value));
                None
            }
            Err(_) => {
                self.large.extend(self.small.drain(..));
                self.large.insert(key, value)
            }
        }
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        match self.place(key) {
            Ok(index) => Some(self.small.remove(index).1),
            Err(_) => self.large.remove(key),
        }
    }

    /// All entries in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.small.iter().map(|(key, value)| (key, value)).chain(&self.large)
    }

    /// All values in key order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// All values in key order, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.small.iter_mut().map(|(_, value)| value).chain(self.large.values_mut())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.small.len() + self.large.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }
}

impl<K, V> IntoIterator for SmallMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::iter::Chain<std::vec::IntoIter<(K, V)>, std::collections::btree_map::IntoIter<K, V>>;

    /// All entries in key order, taken out.
    fn into_iter(self) -> Self::IntoIter {
        self.small.into_iter().chain(self.large)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_behaves_as_a_btree_map(steps in proptest::collection::vec((0_u8..40, any::<bool>(), any::<u16>()), 0..200)) {
            let mut ours = SmallMap::default();
            let mut model = BTreeMap::new();
            for (key, insert, value) in steps {
                if insert {
                    prop_assert_eq!(ours.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(ours.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(ours.get(&key), model.get(&key));
                prop_assert_eq!(ours.len(), model.len());
                prop_assert!(ours.iter().eq(model.iter()));
            }
            prop_assert!(ours.into_iter().eq(model));
        }
    }
}
