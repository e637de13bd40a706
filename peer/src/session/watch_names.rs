//! Watching names: what is bound under a prefix, what is freed, and the newest versions of what is bound.
//!
//! Names lie in directory buckets, which are objects like any others; so this watches all buckets, and what the names in
//! them are bound to. It refuses to show all buckets at one moment: they are told one by one, so a name that moves from
//! one to another may be freed here before it is bound there, or after.

use super::error::{Error, Result};
use super::host::Host;
use super::name_bucket::NameBucket;
use super::tx::decode_shared;
use super::watch::{Watched, Watcher, seen_as};
use crate::watching::Sighting;
use driftmesh_model::{Object, ObjectId, Ref};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::marker::PhantomData;

/// Something new of the names under a prefix.
#[derive(Debug)]
pub enum NameNews<T> {
    /// A name is bound to an object, or to another one than before.
    Bound {
        /// The name.
        name: String,
        /// The object; it may be deleted, or of another type: what is seen of it tells.
        reference: Ref<T>,
    },
    /// A name is free.
    Unbound {
        /// The name.
        name: String,
        /// What it was bound to.
        reference: Ref<T>,
    },
    /// There is a newer version of what a name is bound to, or its first.
    Changed {
        /// The name.
        name: String,
        /// The object.
        reference: Ref<T>,
        /// What is seen of it.
        seen: Watched<T>,
    },
}

/// Watches the names that begin with a prefix, and what they are bound to. At first it tells all that there is. For each
/// name and each object the newest state is told at last; what it was in between may be passed over. Dropping the handle
/// ends it.
pub struct NameWatch<H: Host, T> {
    watcher: Watcher<H>,
    prefix: String,
    /// Buckets that are watched, with their levels.
    buckets: BTreeMap<ObjectId, usize>,
    /// Names, what they are bound to, and the bucket that says so.
    names: BTreeMap<String, (ObjectId, ObjectId)>,
    /// What they are bound to, and by which names.
    bound: BTreeMap<ObjectId, BTreeSet<String>>,
    news: VecDeque<Result<NameNews<T>>>,
    object_type: PhantomData<fn() -> T>,
}

impl<H: Host, T> std::fmt::Debug for NameWatch<H, T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NameWatch").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl<H: Host, T: Object> NameWatch<H, T> {
    /// Begins to watch the names that begin with `prefix`; all, if it is empty.
    ///
    /// # Errors
    /// `TooManyWatches`: it watches all directory buckets, 64 at first, and what the names are bound to.
    pub fn begin(host: H, prefix: &str) -> Result<Self> {
        let watcher = Watcher::begin(host)?;
        let mut buckets = BTreeMap::new();
        for bucket in NameBucket::of_genesis() {
            watcher.add(bucket)?;
            buckets.insert(bucket, 0);
        }
        Ok(Self {
            watcher,
            prefix: prefix.to_owned(),
            buckets,
            names: BTreeMap::new(),
            bound: BTreeMap::new(),
            news: VecDeque::new(),
            object_type: PhantomData,
        })
    }

    /// The next news, if there is any. Never waits, beyond the end of another's step of the core: for a loop that runs
    /// once a frame.
    ///
    /// # Errors
    /// `BucketMissing` for names that cannot be told; `TooManyWatches` for a name whose object is not watched;
    /// `Object` when an object is not a `T`. The watch goes on.
    pub fn try_next(&mut self) -> Result<Option<NameNews<T>>> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return news.map(Some);
            }
            let Some((object, sighting)) = self.watcher.try_next() else { return Ok(None) };
            self.take(object, sighting);
        }
    }

    /// Waits for the next news. Cancel safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// As [`NameWatch::try_next`].
    pub async fn next(&mut self) -> Result<NameNews<T>> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return news;
            }
            let (object, sighting) = self.watcher.next().await;
            self.take(object, sighting);
        }
    }

    /// What is known to be bound now.
    pub fn names(&self) -> impl Iterator<Item = (&str, Ref<T>)> {
        self.names.iter().map(|(name, (object, _))| (name.as_str(), Ref::from_id(*object)))
    }

    fn take(&mut self, object: ObjectId, sighting: Sighting) {
        if let Some(level) = self.buckets.get(&object).copied() {
            match bucket_of(object, &sighting) {
                Ok(bucket) => self.take_bucket(object, level, &bucket),
                Err(error) => self.news.push_back(Err(error)),
            }
            return;
        }
        let names: Vec<String> = self.bound.get(&object).into_iter().flatten().cloned().collect();
        for name in names {
            self.tell(name, object, sighting.clone());
        }
    }

    fn tell(&mut self, name: String, object: ObjectId, sighting: Sighting) {
        let seen = seen_as(object, sighting);
        self.news.push_back(seen.map(|seen| NameNews::Changed { name, reference: Ref::from_id(object), seen }));
    }

    fn take_bucket(&mut self, bucket: ObjectId, level: usize, value: &NameBucket) {
        let Some(names) = value.names() else {
            self.take_split(bucket, level, value);
            return;
        };
        let of_prefix = names.range(self.prefix.clone()..).take_while(|(name, _)| name.starts_with(&self.prefix));
        let present: BTreeMap<String, ObjectId> = of_prefix.map(|(name, object)| (name.clone(), *object)).collect();
        let told = self.names.iter().filter(|(_, (_, home))| *home == bucket);
        let gone: Vec<String> =
            told.filter(|(name, _)| !present.contains_key(*name)).map(|(name, _)| name.clone()).collect();
        let mut freed = Vec::new();
        for name in gone {
            if let Some((object, _)) = self.names.remove(&name) {
                freed.push((name.clone(), object));
                self.news.push_back(Ok(NameNews::Unbound { name, reference: Ref::from_id(object) }));
            }
        }
        for (name, object) in present {
            let former = self.names.insert(name.clone(), (object, bucket)).map(|(former, _)| former);
            if former == Some(object) {
                continue;
            }
            freed.extend(former.map(|former| (name.clone(), former)));
            self.news.push_back(Ok(NameNews::Bound { name: name.clone(), reference: Ref::from_id(object) }));
            self.follow(name, object);
        }
        // Last: what has another name by now is watched without a break, so that it cannot go back.
        for (name, object) in freed {
            self.release(&name, object);
        }
    }

    /// A bucket that has split never changes again. Its names are known until its children say otherwise.
    fn take_split(&mut self, bucket: ObjectId, level: usize, value: &NameBucket) {
        for (name, (_, home)) in &mut self.names {
            if *home == bucket
                && let Some(child) = value.child_of(name, level)
            {
                *home = child;
            }
        }
        for child in value.children() {
            match self.watcher.add(*child) {
                Ok(()) => drop(self.buckets.insert(*child, level + 1)),
                Err(error) => self.news.push_back(Err(error)),
            }
        }
        self.buckets.remove(&bucket);
        self.watcher.remove(bucket);
    }

    fn follow(&mut self, name: String, object: ObjectId) {
        self.bound.entry(object).or_default().insert(name.clone());
        if let Err(error) = self.watcher.add(object) {
            self.news.push_back(Err(error));
        }
        // What was told of it by its other names is told by this one too.
        if let Some(sighting) = self.watcher.told_last(object) {
            self.tell(name, object, sighting);
        }
    }

    fn release(&mut self, name: &str, object: ObjectId) {
        let Some(names) = self.bound.get_mut(&object) else { return };
        names.remove(name);
        if names.is_empty() {
            self.bound.remove(&object);
            self.watcher.remove(object);
        }
    }
}

fn bucket_of(bucket: ObjectId, sighting: &Sighting) -> Result<std::sync::Arc<NameBucket>> {
    match sighting {
        Sighting::Version { value: Some(value), .. } => decode_shared(bucket, value),
        // Buckets are never deleted: one that does not exist went down with its group.
        Sighting::Version { value: None, .. } | Sighting::Missing | Sighting::Lost { .. } => {
            Err(Error::BucketMissing { bucket })
        }
    }
}
