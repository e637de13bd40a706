//! A directory bucket: the names of one part of the hash space, or the sixteen buckets that divide that part (R23).
//!
//! It says which bucket a name belongs to, and refuses to read, lock or create one: `names` does that, with buckets as
//! ordinary objects.

use driftmesh_model::limits::{NAME_BUCKET_BYTES_MAX, NAME_BUCKETS};
use driftmesh_model::{Object, ObjectId, encode_object};
use driftmesh_object_store::Write;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many buckets one bucket splits into: one for each value of four bits of a name's hash.
pub(super) const FANOUT: usize = 16;
/// Levels below the first buckets: after them a hash has no bits left. Names that agree so far cannot be found on
/// purpose, so a bucket there may grow up to the limit of an object.
const LEVELS_MAX: usize = 2 * (blake3::OUT_LEN - 1);
/// What an entry costs beside its name, bytes: the object's id, and two lengths.
const ENTRY_OVERHEAD: usize = 20;

const _: () = assert!(NAME_BUCKETS <= 256);

/// One bucket of the directory of names. A game meets it only when it scans all objects.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NameBucket {
    node: Node,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Node {
    /// A leaf: names, and what they are bound to.
    Names(BTreeMap<String, ObjectId>),
    /// A bucket that has split. It never changes again.
    Children(Box<[ObjectId; FANOUT]>),
}

impl Object for NameBucket {
    const TYPE_NAME: &'static str = "driftmesh.name-bucket";
}

/// Where a name is kept: decided by the hash of the whole name, so that names with a common prefix spread.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameHash([u8; blake3::OUT_LEN]);

impl NameHash {
    pub(super) fn of(name: &str) -> Self {
        Self(blake3::derive_key("driftmesh name v1", name.as_bytes()))
    }

    /// The bucket of genesis where the search for the name begins.
    pub(super) fn first_bucket(&self) -> ObjectId {
        bucket_of_genesis(usize::from(self.0[0]) % NAME_BUCKETS)
    }

    /// Which child of a bucket on this level the name belongs to; the first buckets are on level 0.
    fn digit(&self, level: usize) -> Option<usize> {
        let byte = self.0.get(1 + level / 2)?;
        Some(usize::from(if level.is_multiple_of(2) { byte >> 4 } else { byte & 0x0f }))
    }
}

/// The only ids that are known rather than drawn: the same in every mesh.
fn bucket_of_genesis(index: usize) -> ObjectId {
    let mut hasher = blake3::Hasher::new_derive_key("driftmesh name bucket v1");
    hasher.update(&(index as u64).to_be_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    ObjectId::from_u128(u128::from_be_bytes(bytes))
}

impl NameBucket {
    /// The buckets that every mesh begins with.
    pub fn of_genesis() -> impl Iterator<Item = ObjectId> {
        (0..NAME_BUCKETS).map(bucket_of_genesis)
    }

    /// The bucket of genesis where the search for a name begins.
    #[must_use]
    pub fn first_of(name: &str) -> ObjectId {
        NameHash::of(name).first_bucket()
    }

    /// The names kept here, and what they are bound to; `None` for a bucket that has split.
    #[must_use]
    pub const fn names(&self) -> Option<&BTreeMap<String, ObjectId>> {
        match &self.node {
            Node::Names(names) => Some(names),
            Node::Children(_) => None,
        }
    }

    /// The buckets that this one has split into; empty for one that has not.
    #[must_use]
    pub fn children(&self) -> &[ObjectId] {
        match &self.node {
            Node::Names(_) => &[],
            Node::Children(children) => children.as_slice(),
        }
    }

    /// The child that a name belongs to, if this bucket, on this level below the first ones, has split.
    #[must_use]
    pub fn child_of(&self, name: &str, level: usize) -> Option<ObjectId> {
        self.child(&NameHash::of(name), level)
    }

    pub(super) fn child(&self, hash: &NameHash, level: usize) -> Option<ObjectId> {
        self.children().get(hash.digit(level)?).copied()
    }

    pub(super) const fn leaf(names: BTreeMap<String, ObjectId>) -> Self {
        Self { node: Node::Names(names) }
    }

    pub(super) fn split(children: [ObjectId; FANOUT]) -> Self {
        Self { node: Node::Children(Box::new(children)) }
    }

    /// What a name is bound to here.
    pub(super) fn get(&self, name: &str) -> Option<ObjectId> {
        self.names()?.get(name).copied()
    }

    /// Removes a name from a leaf.
    pub(super) fn remove(&mut self, name: &str) {
        match &mut self.node {
            Node::Names(names) => {
                names.remove(name);
            }
            Node::Children(_) => {}
        }
    }
}

/// Whether so many names are too many for one bucket on this level.
pub(super) fn must_split(names: &BTreeMap<String, ObjectId>, level: usize, entries_max: usize) -> bool {
    let bytes = || names.keys().map(|name| name.len() + ENTRY_OVERHEAD).sum::<usize>();
    level < LEVELS_MAX && (names.len() > entries_max.max(1) || bytes() > NAME_BUCKET_BYTES_MAX)
}

/// Divides the names of a bucket on this level among its children.
pub(super) fn divide(names: BTreeMap<String, ObjectId>, level: usize) -> [BTreeMap<String, ObjectId>; FANOUT] {
    let mut parts: [BTreeMap<String, ObjectId>; FANOUT] = Default::default();
    for (name, object) in names {
        let digit = NameHash::of(&name).digit(level).unwrap_or_default();
        parts[digit].insert(name, object);
    }
    parts
}

/// What a mesh begins with: the first buckets, empty.
pub(crate) fn genesis() -> Vec<Write> {
    let empty = encode_object(&NameBucket::leaf(BTreeMap::new())).expect("an empty bucket encodes");
    NameBucket::of_genesis().map(|object| Write { object, value: Some(empty.clone()) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftmesh_model::{Value, decode_object};
    use std::collections::BTreeSet;

    fn numbered(count: u128) -> BTreeMap<String, ObjectId> {
        (0..count).map(|number| (format!("guild/{number}"), ObjectId::from_u128(number))).collect()
    }

    #[test]
    fn the_first_buckets_differ_and_names_with_a_common_prefix_spread_over_all_of_them() {
        let first: BTreeSet<ObjectId> = NameBucket::of_genesis().collect();
        assert_eq!(first.len(), NAME_BUCKETS);
        let names = numbered(5_000);
        let used: BTreeSet<ObjectId> = names.keys().map(|name| NameBucket::first_of(name)).collect();
        assert_eq!(used, first);
    }

    #[test]
    fn where_a_name_is_kept_never_changes() {
        // Other peers, and releases, look in the same place: these values are part of the format.
        let first = NameBucket::of_genesis().next().unwrap();
        assert_eq!(first.to_string(), "1c37cb25483d6733a244ab37de06711e");
        let hash = NameHash::of("guild/red");
        assert_eq!(NameBucket::of_genesis().position(|bucket| bucket == hash.first_bucket()), Some(31));
        assert_eq!([hash.digit(0), hash.digit(1), hash.digit(2)], [Some(11), Some(4), Some(6)]);
    }

    #[test]
    fn a_split_loses_no_name_and_each_child_has_its_own() {
        let children: [ObjectId; FANOUT] = std::array::from_fn(|digit| ObjectId::from_u128(digit as u128));
        let split = NameBucket::split(children);
        for level in [0, 1, 7, LEVELS_MAX - 1] {
            let parts = divide(numbered(300), level);
            assert_eq!(parts.iter().map(BTreeMap::len).sum::<usize>(), 300);
            for (child, part) in children.iter().zip(&parts) {
                assert!(part.keys().all(|name| split.child_of(name, level) == Some(*child)));
            }
        }
        assert_eq!(split.child_of("beyond the last bit", LEVELS_MAX), None);
    }

    #[test]
    fn a_bucket_splits_by_entries_and_by_bytes_until_the_hash_ends() {
        assert!(!must_split(&numbered(4), 0, 4) && must_split(&numbered(5), 0, 4));
        assert!(!must_split(&numbered(1), 0, 0), "one name always fits");
        assert!(!must_split(&numbered(5), LEVELS_MAX, 4));
        let long: BTreeMap<_, _> = numbered(64).into_iter().map(|(name, id)| (name + &"x".repeat(240), id)).collect();
        assert!(must_split(&long, 0, 128) && !must_split(&numbered(64), 0, 128));
    }

    #[test]
    fn a_bucket_of_another_shape_does_not_decode() {
        let leaf = NameBucket::leaf(numbered(3));
        let split = NameBucket::split([ObjectId::from_u128(1); FANOUT]);
        for bucket in [leaf, split] {
            assert_eq!(decode_object::<NameBucket>(&encode_object(&bucket).unwrap()).unwrap(), bucket);
        }
        #[derive(Serialize, Deserialize)]
        struct Few {
            node: BTreeMap<String, Vec<ObjectId>>,
        }
        impl Object for Few {
            const TYPE_NAME: &'static str = NameBucket::TYPE_NAME;
        }
        for count in [0, FANOUT - 1, FANOUT + 1] {
            let children = vec![ObjectId::from_u128(1); count];
            let few = encode_object(&Few { node: [("Children".to_owned(), children)].into() }).unwrap();
            assert!(decode_object::<NameBucket>(&few).is_err(), "{count} children");
        }
        assert!(decode_object::<NameBucket>(&Value::from_slice(b"rubbish")).is_err());
    }
}
