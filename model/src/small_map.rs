//! An ordered map that is cheap while it is small: most transactions touch a handful of objects, some 100,000.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Up to so many entries are kept in one sorted array.
const SMALL_MAX: usize = 16;

/// A map in key order. While it is small it costs one allocation; beyond that it is a `BTreeMap`.
#[derive(Clone, Debug)]
pub struct SmallMap<K, V> {
    entries: Entries<K, V>,
}

#[derive(Clone, Debug)]
enum Entries<K, V> {
    /// Sorted by key.
    Small(Vec<(K, V)>),
    /// It has grown once; it stays one of these, even when it becomes smaller again.
    Large(BTreeMap<K, V>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self { entries: Entries::Small(Vec::new()) }
    }
}

/// Where a key is in a sorted array, or where it belongs. A handful of entries are passed faster than halved.
#[inline]
fn place<K: Ord, V>(small: &[(K, V)], key: &K) -> Result<usize, usize> {
    for (index, (known, _)) in small.iter().enumerate() {
        match known.cmp(key) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(index),
            Ordering::Greater => return Err(index),
        }
    }
    Err(small.len())
}

impl<K: Ord, V> SmallMap<K, V> {
    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &K) -> Option<&V> {
        match &self.entries {
            Entries::Small(small) => place(small, key).ok().and_then(|index| small.get(index)).map(|(_, value)| value),
            Entries::Large(large) => large.get(key),
        }
    }

    /// The value of a key, to change it.
    #[inline]
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match &mut self.entries {
            Entries::Small(small) => {
                place(small, key).ok().and_then(|index| small.get_mut(index)).map(|(_, value)| value)
            }
            Entries::Large(large) => large.get_mut(key),
        }
    }

    /// Whether the key is there.
    #[inline]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value of a key and returns the former one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match &mut self.entries {
            Entries::Small(small) => match place(small, &key) {
                Ok(index) => Some(std::mem::replace(&mut small[index].1, value)),
                Err(index) if small.len() < SMALL_MAX => {
                    small.insert(index, (key, value));
                    None
                }
                Err(_) => {
                    let mut large: BTreeMap<K, V> = small.drain(..).collect();
                    large.insert(key, value);
                    self.entries = Entries::Large(large);
                    None
                }
            },
            Entries::Large(large) => large.insert(key, value),
        }
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        match &mut self.entries {
            Entries::Small(small) => place(small, key).ok().map(|index| small.remove(index).1),
            Entries::Large(large) => large.remove(key),
        }
    }

    /// Removes everything. While the map is small its room stays.
    pub fn clear(&mut self) {
        match &mut self.entries {
            Entries::Small(small) => small.clear(),
            Entries::Large(_) => *self = Self::default(),
        }
    }

    /// All entries in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let (small, large) = match &self.entries {
            Entries::Small(small) => (Some(small), None),
            Entries::Large(large) => (None, Some(large)),
        };
        small.into_iter().flatten().map(|(key, value)| (key, value)).chain(large.into_iter().flatten())
    }

    /// All values in key order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// All values in key order, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let (small, large) = match &mut self.entries {
            Entries::Small(small) => (Some(small), None),
            Entries::Large(large) => (None, Some(large)),
        };
        let small = small.into_iter().flatten().map(|(_, value)| value);
        small.chain(large.into_iter().flat_map(BTreeMap::values_mut))
    }

    /// How many entries there are.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.entries {
            Entries::Small(small) => small.len(),
            Entries::Large(large) => large.len(),
        }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K, V> IntoIterator for SmallMap<K, V> {
    type Item = (K, V);
    type IntoIter = IntoIter<K, V>;

    /// All entries in key order, taken out.
    #[inline]
    fn into_iter(self) -> IntoIter<K, V> {
        match self.entries {
            Entries::Small(small) => IntoIter::Small(small.into_iter()),
            Entries::Large(large) => IntoIter::Large(large.into_iter()),
        }
    }
}

/// The entries of a map, taken out.
#[derive(Debug)]
pub enum IntoIter<K, V> {
    /// Of a map that is small.
    Small(std::vec::IntoIter<(K, V)>),
    /// Of one that has grown.
    Large(std::collections::btree_map::IntoIter<K, V>),
}

impl<K, V> Iterator for IntoIter<K, V> {
    type Item = (K, V);

    #[inline]
    fn next(&mut self) -> Option<(K, V)> {
        match self {
            Self::Small(small) => small.next(),
            Self::Large(large) => large.next(),
        }
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
