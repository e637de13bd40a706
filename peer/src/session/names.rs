//! Names of objects: bound, looked up and listed in transactions, unique in the whole mesh (R23).
//!
//! A name is an entry of a directory bucket, and a bucket is an object like any other; so uniqueness follows from one
//! writer (R5) and from snapshot isolation (R16): whoever binds locks the leaf and rewrites it. It refuses to know
//! whether an object still exists, and of which type it is: reading the object tells.

use super::error::{Error, Result};
use super::host::Host;
use super::mutable::Mutable;
use super::name_bucket::{FANOUT, NameBucket, NameHash, divide, must_split};
use super::snapshot::Snapshot;
use super::tx::{Tx, decode_shared};
use crate::{RareEvent, Sabotage};
use driftmesh_model::limits::{NAME_BYTES_MAX, NAMES_PER_PAGE_MAX, TRANSACTION_OBJECTS_MAX};
use driftmesh_model::{Object, ObjectId, Ref, Value};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Buckets that a list asks for at once: at most 8 MiB of answers are on their way.
const BUCKETS_PER_ROUND_MAX: usize = 512;

/// A text that is no name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is empty.
    #[error("a name has at least one byte")]
    Empty,
    /// It is too long.
    #[error("a name has at most {NAME_BYTES_MAX} bytes of UTF-8, this one has {bytes}")]
    TooLong {
        /// Its length, bytes.
        bytes: usize,
    },
    /// It contains a control character.
    #[error("a name has no control characters, this one has {character:?} at byte {at}")]
    ControlCharacter {
        /// The first one.
        character: char,
        /// Where it is, bytes from the beginning.
        at: usize,
    },
}

/// One page of a list of names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamePage {
    /// Names in order of their bytes, at most 1,000, and what they are bound to.
    pub names: Vec<(String, ObjectId)>,
    /// Where the next page begins: list again after this name. `None` when this page is the last.
    pub next: Option<String>,
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    match name.char_indices().find(|(_, character)| character.is_control()) {
        Some((at, character)) => Err(NameError::ControlCharacter { character, at }),
        None => Ok(()),
    }
}

/// Reads the values of objects at one snapshot; those that are elsewhere cost one round together.
trait ReadValues: Sync {
    fn read_values(&self, objects: &[ObjectId]) -> impl Future<Output = Result<Vec<Option<Value>>>> + Send;
}

impl<H: Host> ReadValues for Tx<H> {
    fn read_values(&self, objects: &[ObjectId]) -> impl Future<Output = Result<Vec<Option<Value>>>> + Send {
        self.values(objects)
    }
}

impl<H: Host> ReadValues for Snapshot<H> {
    fn read_values(&self, objects: &[ObjectId]) -> impl Future<Output = Result<Vec<Option<Value>>>> + Send {
        self.values(objects)
    }
}

/// Buckets are never deleted: one that does not exist went down with its peer.
fn lost(error: Error) -> Error {
    if let Error::Dangling { object } | Error::ObjectLost { object, .. } = error {
        Error::BucketMissing { bucket: object }
    } else {
        error
    }
}

async fn read_buckets(from: &impl ReadValues, buckets: &[ObjectId]) -> Result<Vec<Arc<NameBucket>>> {
    let values = from.read_values(buckets).await.map_err(lost)?;
    let decode = |(bucket, value): (&ObjectId, Option<Value>)| {
        decode_shared(*bucket, &value.ok_or(Error::BucketMissing { bucket: *bucket })?)
    };
    buckets.iter().zip(values).map(decode).collect()
}

/// A leaf and its level, which say where a name is kept.
struct Leaf {
    bucket: ObjectId,
    level: usize,
    names: Arc<NameBucket>,
}

/// Goes down from a bucket to the leaf of a name, as the snapshot shows it. Takes no lock.
async fn find_leaf(from: &impl ReadValues, hash: &NameHash, first: ObjectId, level: usize) -> Result<Leaf> {
    let (mut bucket, mut level) = (first, level);
    loop {
        let names = read_buckets(from, &[bucket]).await?.swap_remove(0);
        match names.child(hash, level) {
            Some(child) => (bucket, level) = (child, level + 1),
            None => return Ok(Leaf { bucket, level, names }),
        }
    }
}

async fn look_up(from: &impl ReadValues, name: &str) -> Result<Option<ObjectId>> {
    check(name)?;
    let hash = NameHash::of(name);
    let leaf = find_leaf(from, &hash, hash.first_bucket(), 0).await?;
    Ok(leaf.names.get(name))
}

/// The first names of a list that are not left out, in order.
struct Collecting<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    names: BTreeMap<String, ObjectId>,
}

impl Collecting<'_> {
    fn take(&mut self, names: &BTreeMap<String, ObjectId>) {
        let begin = match self.after {
            Some(after) if after >= self.prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(self.prefix),
        };
        let wanted = names.range::<str, _>((begin, Bound::Unbounded)).take_while(|(name, _)| {
            // Beyond the last name of a full page nothing of this bucket is wanted either.
            let full = self.names.len() > NAMES_PER_PAGE_MAX;
            name.starts_with(self.prefix)
                && !(full && self.names.last_key_value().is_some_and(|(last, _)| *name > last))
        });
        let wanted: Vec<_> = wanted.map(|(name, object)| (name.clone(), *object)).collect();
        self.names.extend(wanted);
        // One more than a page tells that there is another page.
        while self.names.len() > NAMES_PER_PAGE_MAX + 1 {
            self.names.pop_last();
        }
    }

    fn finish(mut self) -> NamePage {
        let more = self.names.len() > NAMES_PER_PAGE_MAX && self.names.pop_last().is_some();
        let names: Vec<(String, ObjectId)> = self.names.into_iter().collect();
        let next = names.last().filter(|_| more).map(|(name, _)| name.clone());
        NamePage { names, next }
    }
}

async fn list(from: &impl ReadValues, prefix: &str, after: Option<&str>) -> Result<NamePage> {
    let mut page = Collecting { prefix, after, names: BTreeMap::new() };
    let mut level: Vec<ObjectId> = NameBucket::of_genesis().collect();
    let mut met = level.len();
    while !level.is_empty() {
        let mut below = Vec::new();
        for round in level.chunks(BUCKETS_PER_ROUND_MAX) {
            for bucket in read_buckets(from, round).await? {
                match bucket.names() {
                    Some(names) => page.take(names),
                    None => below.extend_from_slice(bucket.children()),
                }
            }
        }
        met += below.len();
        // R24: as many as a transaction may read.
        if met > TRANSACTION_OBJECTS_MAX {
            return Err(Error::TooManyObjects);
        }
        level = below;
    }
    Ok(page.finish())
}

impl<H: Host> Tx<H> {
    /// Binds a name to an object, which this transaction may just have created. The name is taken for the whole mesh
    /// at the commit. Answers by the newest state, as all writes do; locks one directory bucket and brings it here.
    ///
    /// Cancel safe: dropped before it answers, nothing is bound.
    ///
    /// # Errors
    /// `NameTaken` when the name is bound, even if to an object that was deleted; `IllegalName`, `BucketMissing`, or
    /// the end of the attempt.
    pub async fn bind<T: Object>(&self, name: &str, reference: Ref<T>) -> Result<()> {
        check(name)?;
        let (leaf, level) = self.lock_leaf(name).await?;
        match leaf.get(name) {
            Some(by) if !self.is_broken(Sabotage::Names) => Err(Error::NameTaken { name: name.to_owned(), by }),
            Some(_) | None => self.put_name(leaf, level, name, reference.id()),
        }
    }

    /// Binds a name to an object whether it is bound or not; returns what it was bound to. Cancel safe.
    ///
    /// # Errors
    /// `IllegalName`, `BucketMissing`, or the end of the attempt.
    pub async fn rebind<T: Object>(&self, name: &str, reference: Ref<T>) -> Result<Option<ObjectId>> {
        check(name)?;
        let (leaf, level) = self.lock_leaf(name).await?;
        let former = leaf.get(name);
        if former != Some(reference.id()) {
            self.put_name(leaf, level, name, reference.id())?;
        }
        Ok(former)
    }

    /// Frees a name; returns what it was bound to, `None` when it was free. The object stays. Cancel safe.
    ///
    /// # Errors
    /// `IllegalName`, `BucketMissing`, or the end of the attempt.
    pub async fn unbind(&self, name: &str) -> Result<Option<ObjectId>> {
        check(name)?;
        let (mut leaf, _) = self.lock_leaf(name).await?;
        let former = leaf.get(name);
        if former.is_some() {
            leaf.remove(name);
        }
        Ok(former)
    }

    /// What a name is bound to at the attempt's snapshot, or by this transaction. Takes no lock. The object may be
    /// deleted, or of another type: reading it tells.
    ///
    /// # Errors
    /// `IllegalName`, `BucketMissing`, or the end of the attempt.
    pub async fn lookup<T: Object>(&self, name: &str) -> Result<Option<Ref<T>>> {
        Ok(look_up(self, name).await?.map(Ref::from_id))
    }

    /// One page of the names that begin with `prefix` (all, if it is empty) and come after `after`. Takes no lock, but
    /// reads all directory buckets, those elsewhere in one round for each level: for tools and rare questions. Pages
    /// of one transaction are of one state, and only the first one fetches.
    ///
    /// # Errors
    /// `BucketMissing`, the end of the attempt, or `TooManyObjects` when there are more buckets than a transaction
    /// may read.
    pub async fn list(&self, prefix: &str, after: Option<&str>) -> Result<NamePage> {
        list(self, prefix, after).await
    }

    /// The leaf of a name, locked and at its newest version, and its level. Only the leaf is locked: buckets that have
    /// split are read, and never change again.
    async fn lock_leaf(&self, name: &str) -> Result<(Mutable<NameBucket>, usize)> {
        let hash = NameHash::of(name);
        let (mut first, mut level) = (hash.first_bucket(), 0);
        loop {
            let found = find_leaf(self, &hash, first, level).await?;
            // Somebody else's split since the snapshot ends the attempt here (R16); the next one sees it.
            let leaf: Mutable<NameBucket> = self.get_mut(Ref::from_id(found.bucket)).await.map_err(lost)?;
            if leaf.names().is_some() {
                return Ok((leaf, found.level));
            }
            // This transaction split it itself while this call waited for the lock.
            (first, level) = (found.bucket, found.level);
        }
    }

    /// Puts a name into a locked leaf, which splits if it is full: in this same transaction, so that everybody sees
    /// either the leaf, or all of its children.
    fn put_name(&self, mut leaf: Mutable<NameBucket>, level: usize, name: &str, object: ObjectId) -> Result<()> {
        let mut names = leaf.names().cloned().unwrap_or_default();
        names.insert(name.to_owned(), object);
        let entries_max = self.name_bucket_entries_max();
        // Replaced as a whole and last: after an error the leaf is as it was.
        *leaf = self.grow(names, level, entries_max)?;
        Ok(())
    }

    /// A bucket on this level with these names, its children created where they are too many for one.
    fn grow(&self, names: BTreeMap<String, ObjectId>, level: usize, entries_max: usize) -> Result<NameBucket> {
        if !must_split(&names, level, entries_max) {
            return Ok(NameBucket::leaf(names));
        }
        self.note(RareEvent::BucketSplit);
        let mut children = [ObjectId::from_u128(0); FANOUT];
        for (child, part) in children.iter_mut().zip(divide(names, level)) {
            let bucket = self.grow(part, level + 1, entries_max)?;
            *child = self.create(&bucket)?.id();
        }
        Ok(NameBucket::split(children))
    }
}

impl<H: Host> Snapshot<H> {
    /// What a name is bound to at the snapshot. The object may be deleted, or of another type: reading it tells.
    /// Cancel safe.
    ///
    /// # Errors
    /// `IllegalName`, `BucketMissing`, and as [`Snapshot::get`].
    pub async fn lookup<T: Object>(&self, name: &str) -> Result<Option<Ref<T>>> {
        Ok(look_up(self, name).await?.map(Ref::from_id))
    }

    /// One page of the names that begin with `prefix` (all, if it is empty) and come after `after`. Reads all
    /// directory buckets, those elsewhere in one round for each level; only the first page of a snapshot fetches.
    /// Cancel safe.
    ///
    /// # Errors
    /// `BucketMissing`, `TooManyObjects` when there are more buckets than a snapshot may read, and as
    /// [`Snapshot::get`].
    pub async fn list(&self, prefix: &str, after: Option<&str>) -> Result<NamePage> {
        list(self, prefix, after).await
    }
}
