//! Watching objects: whoever asks is told the newest stable version since it asked last.
//!
//! What is told comes from a subscription to the object's owner, which may be this peer itself; so a crash never takes it
//! back. Versions in between may be passed over, the last one never. It refuses to keep more than one version of an
//! object for all who watch it (R24).

use crate::Peer;
use driftmesh_model::{GroupId, Now, ObjectId, Timestamp, TxnId, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Most watchers open at one peer (R24).
pub const WATCHERS_MAX: usize = 1_024;
/// Most objects that all watchers of a peer watch together (R24).
pub const WATCHED_MAX: usize = 4_096;

/// What a watcher is told of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sighting {
    /// Its newest stable version; a deletion has no value.
    Version {
        /// When it was committed.
        commit: Timestamp,
        /// Its value.
        value: Option<Value>,
    },
    /// It is nowhere in the mesh: it never was, or its creation was lost.
    Missing,
    /// It was lost with its group, which an operator gave up.
    Lost {
        /// The group.
        group: GroupId,
    },
}

/// What a watcher was told last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Told {
    #[default]
    Nothing,
    Version(Timestamp),
    Missing,
    Lost,
}

#[derive(Clone, Debug, Default)]
struct Watcher {
    objects: BTreeMap<ObjectId, Told>,
    /// Of these it is to be told something.
    news: BTreeSet<ObjectId>,
    /// Whether it waits until it is.
    is_awaited: bool,
}

/// All who watch something at a peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watching {
    watchers: BTreeMap<TxnId, Watcher>,
    objects: BTreeMap<ObjectId, BTreeSet<TxnId>>,
    /// What is known of objects that are nowhere: lost with a group, or missing.
    absent: BTreeMap<ObjectId, Option<GroupId>>,
}

impl Watching {
    /// How many objects are watched.
    pub(crate) fn objects(&self) -> usize {
        self.objects.len()
    }
}

impl Peer {
    /// Begins to watch. `None` when [`WATCHERS_MAX`] do. The watcher's id is woken when there is news.
    pub fn begin_watching(&mut self) -> Option<TxnId> {
        if self.watching.watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let id = self.new_waiter();
        self.watching.watchers.insert(id, Watcher::default());
        Some(id)
    }

    /// Ends a watcher.
    pub fn end_watching(&mut self, now: Now, watcher: TxnId) {
        self.now = now;
        let Some(ended) = self.watching.watchers.remove(&watcher) else { return };
        for object in ended.objects.keys() {
            self.release_watched(watcher, *object);
        }
        self.wakes.push(watcher);
    }

    /// Watches one object more; what is known of it is told at once. `false` when [`WATCHED_MAX`] are watched.
    pub fn watch(&mut self, now: Now, watcher: TxnId, object: ObjectId) -> bool {
        self.now = now;
        let is_full = self.watching.objects.len() >= WATCHED_MAX && !self.watching.objects.contains_key(&object);
        let Some(of) = self.watching.watchers.get_mut(&watcher).filter(|_| !is_full) else { return false };
        if of.objects.contains_key(&object) {
            // What it was told of it still counts.
            return true;
        }
        of.objects.insert(object, Told::Nothing);
        self.watching.objects.entry(object).or_default().insert(watcher);
        self.subscribe_to(object, true);
        if self.subscribed.newest(object).is_some() || self.watching.absent.contains_key(&object) {
            self.tell_watcher(watcher, object);
        }
        true
    }

    /// Watches an object no more.
    pub fn unwatch(&mut self, now: Now, watcher: TxnId, object: ObjectId) {
        self.now = now;
        let Some(of) = self.watching.watchers.get_mut(&watcher) else { return };
        of.news.remove(&object);
        if of.objects.remove(&object).is_some() {
            self.release_watched(watcher, object);
        }
    }

    fn release_watched(&mut self, watcher: TxnId, object: ObjectId) {
        let Some(watchers) = self.watching.objects.get_mut(&object) else { return };
        watchers.remove(&watcher);
        if watchers.is_empty() {
            self.watching.objects.remove(&object);
            self.watching.absent.remove(&object);
            self.watched_no_more(object);
        }
    }

    /// The next news of a watcher, if there is any.
    pub fn take_sighting(&mut self, watcher: TxnId) -> Option<(ObjectId, Sighting)> {
        loop {
            let of = self.watching.watchers.get_mut(&watcher)?;
            let object = of.news.pop_first()?;
            let Some(told) = of.objects.get(&object).copied() else { continue };
            let Some((now_told, sighting)) = self.sighting_of(object) else { continue };
            // It is told each thing once, and never an older version after a newer one.
            let is_news = match (told, now_told) {
                (Told::Version(former), Told::Version(commit)) => commit > former,
                (Told::Version(_), Told::Missing) => false,
                (former, now_told) => former != now_told,
            };
            if is_news {
                self.watching.watchers.get_mut(&watcher)?.objects.insert(object, now_told);
                return Some((object, sighting));
            }
        }
    }

    /// What a watcher was told last of an object that it watches, if that is what is known now. If it is not, there is
    /// news for it.
    #[must_use]
    pub fn told_last(&self, watcher: TxnId, object: ObjectId) -> Option<Sighting> {
        let told = *self.watching.watchers.get(&watcher)?.objects.get(&object)?;
        self.sighting_of(object).and_then(|(known, sighting)| (known == told).then_some(sighting))
    }

    /// What is known of a watched object.
    fn sighting_of(&self, object: ObjectId) -> Option<(Told, Sighting)> {
        match (self.watching.absent.get(&object), self.subscribed.newest(object)) {
            (Some(Some(group)), _) => Some((Told::Lost, Sighting::Lost { group: *group })),
            (_, Some(version)) => {
                let (commit, value) = (version.commit, version.value.clone());
                Some((Told::Version(commit), Sighting::Version { commit, value }))
            }
            (Some(None), None) => Some((Told::Missing, Sighting::Missing)),
            (None, None) => None,
        }
    }

    /// As [`Peer::take_sighting`]; when there is none, the watcher is woken at the next.
    pub fn await_sighting(&mut self, watcher: TxnId) -> Option<(ObjectId, Sighting)> {
        let sighting = self.take_sighting(watcher);
        if let Some(of) = self.watching.watchers.get_mut(&watcher) {
            of.is_awaited = sighting.is_none();
        }
        sighting
    }

    /// A new version of an object is known.
    pub(crate) fn tell_watchers(&mut self, object: ObjectId) {
        self.watching.absent.remove(&object);
        self.tell_all_watchers(object);
    }

    /// A search found out that an object is nowhere, or was lost with a group.
    pub(crate) fn tell_absent(&mut self, object: ObjectId, lost_with: Option<GroupId>) {
        if self.watching.objects.contains_key(&object) {
            self.watching.absent.insert(object, lost_with);
            self.tell_all_watchers(object);
        }
    }

    fn tell_all_watchers(&mut self, object: ObjectId) {
        let Some(watchers) = self.watching.objects.get(&object) else { return };
        for watcher in watchers.iter().copied().collect::<Vec<_>>() {
            self.tell_watcher(watcher, object);
        }
    }

    fn tell_watcher(&mut self, watcher: TxnId, object: ObjectId) {
        let Some(of) = self.watching.watchers.get_mut(&watcher) else { return };
        of.news.insert(object);
        if std::mem::take(&mut of.is_awaited) {
            self.wakes.push(watcher);
        }
    }
}
