//! Subscriptions, at a subscriber: copies of objects that are often read here or watched, fed by their owners.
//!
//! A copy is what its owner said, in order and without a gap; what is missing, or comes from somebody who does not lead
//! any more, ends in a new subscription. It refuses to guess: between two versions that do not follow each other it knows
//! nothing (R16). And it tells those who watch nothing older than it told before, though copies end and begin anew.
//!
//! Here is what is kept; `asking.rs` asks for it, and `fed.rs` takes in what is told.

mod asking;
mod fed;

use crate::message::{News, Wish};
use driftmesh_model::{GroupId, Micros, ObjectId, PeerId, Timestamp, TxnId};
use driftmesh_object_store::Version;
use lru::LruCache;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroUsize;

/// Most copies of objects that are not watched, and their bytes together (R24).
const COPIES_MAX: usize = 1_024;
const COPY_BYTES_MAX: usize = 16 << 20;
/// Versions kept of one copy.
const VERSIONS_MAX: usize = 4;
/// Objects whose reads elsewhere are counted (R24).
const COUNTED_MAX: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");
/// Closed timestamps are wanted of groups whose copies were read within this.
const READ_WITHIN: Micros = Micros::from_millis(2_000);
/// What is on its way somewhere is looked for after this.
const SOON: Micros = Micros::from_millis(20);
/// The first pause of a search that found nothing.
const PAUSE_MIN: Micros = Micros::from_millis(40);
/// A missing message is waited for so long.
const GAP_FOR: Micros = Micros::from_millis(60);

/// What a message of a subscription says.
#[derive(Clone, Debug)]
pub(crate) struct FeedPart {
    pub(crate) closed: Option<Timestamp>,
    pub(crate) news: Vec<News>,
}

/// How the owner of an object is found that no group led here has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    /// By what this peer knows of it: that costs nothing, and may be wrong (R1).
    AtHand,
    /// By a search, as for a reader; the next one follows after this pause.
    Search { pause: Micros },
}

/// The first of some searches.
const SEARCH: Look = Look::Search { pause: PAUSE_MIN };

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Where it is must be found out first.
    Unknown { look_at: Micros, by: Look },
    /// A group is to be asked, or was, in a message of its subscription with this number; zero before.
    Asked { group: GroupId, at: Option<Micros>, wish: u64 },
    /// A group tells what is new.
    Fed(GroupId),
}

#[derive(Clone, Debug)]
struct KeptVersion {
    version: Version,
    /// The first time of which it is not known whether this was still the newest; `None` while it is the newest told.
    until: Option<Timestamp>,
}

/// A copy of one object.
#[derive(Clone, Debug)]
struct Kept {
    place: Place,
    /// Oldest first.
    versions: VecDeque<KeptVersion>,
    /// Up to when the newest one is known to be that, besides what is closed while it is fed.
    known_to: Timestamp,
    /// R16: what was told of the object before this copy began lies at or below. Nothing is told of it before its newest
    /// version is known up to here; from then on it only climbs.
    floor: Option<Timestamp>,
    read_at: Micros,
    is_watched: bool,
    /// Its place among those that may go.
    used: u64,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.versions.iter().map(|kept| kept.version.cost()).sum()
    }

    fn newest(&self) -> Option<&Version> {
        self.versions.back().map(|kept| &kept.version)
    }

    /// The newest version, once that is no older than what was told before.
    fn told(&self) -> Option<&Version> {
        if self.floor.is_none() { self.newest() } else { None }
    }

    /// Takes in a version that is newer than all before. `closed` is up to when the one before is known to have stayed.
    fn push(&mut self, version: Version, before: Timestamp, closed: Timestamp) -> bool {
        let mut follows = true;
        if let Some(last) = self.versions.back_mut() {
            follows = last.version.commit == before;
            last.until = Some(if follows { version.commit } else { closed.next().min(version.commit) });
        }
        self.versions.push_back(KeptVersion { version, until: None });
        while self.versions.len() > VERSIONS_MAX {
            self.versions.pop_front();
        }
        follows
    }

    /// The version that a snapshot sees, if that is known; the newest one is known to stay up to `known_to`.
    fn read_at(&self, snapshot: Timestamp, known_to: Timestamp) -> Option<&Version> {
        let kept = self.versions.iter().rev().find(|kept| kept.version.commit <= snapshot)?;
        let is_known = kept.until.map_or(snapshot <= known_to, |until| snapshot < until);
        is_known.then_some(&kept.version)
    }
}

/// What one group tells this peer.
#[derive(Clone, Debug)]
struct FeedIn {
    feed: u64,
    leader: PeerId,
    /// Which of the times it is that its leader began with it, once a message said so.
    opened: Option<u64>,
    /// How many messages its leader was sent.
    said: u64,
    next: u64,
    closed: Timestamp,
    heard_at: Micros,
    said_at: Micros,
    said_closed: bool,
    read_at: Option<Micros>,
    early: BTreeMap<u64, FeedPart>,
    gap_since: Option<Micros>,
    objects: BTreeSet<ObjectId>,
    /// Of these a version came that those who watch were not told.
    untold: BTreeSet<ObjectId>,
    /// What the leader need not tell any more.
    ended: Vec<ObjectId>,
}

/// All copies that others feed.
#[derive(Clone, Debug)]
pub(crate) struct Subscribed {
    objects: BTreeMap<ObjectId, Kept>,
    /// Those that are not watched, in the order in which they were used.
    order: BTreeMap<u64, ObjectId>,
    used: u64,
    bytes: usize,
    feeds: BTreeMap<GroupId, FeedIn>,
    /// What was told of copies that are no more lies at or below.
    forgotten: Timestamp,
    last_feed: u64,
    /// How often objects were read elsewhere, and since when.
    counted: LruCache<ObjectId, (u32, Micros)>,
    timed: Option<Micros>,
    /// In whose name objects are looked for.
    seeker: Option<TxnId>,
}

impl Default for Subscribed {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            order: BTreeMap::new(),
            used: 0,
            bytes: 0,
            feeds: BTreeMap::new(),
            forgotten: Timestamp::ZERO,
            last_feed: 0,
            counted: LruCache::new(COUNTED_MAX),
            timed: None,
            seeker: None,
        }
    }
}

impl Subscribed {
    fn known_to(&self, kept: &Kept) -> Timestamp {
        match kept.place {
            Place::Fed(group) => self.feeds.get(&group).map_or(kept.known_to, |feed| feed.closed.max(kept.known_to)),
            Place::Unknown { .. } | Place::Asked { .. } => kept.known_to,
        }
    }

    /// How many copies there are.
    pub(crate) fn copies(&self) -> usize {
        self.objects.len()
    }

    /// How many groups tell this peer what is new.
    pub(crate) fn feeds(&self) -> usize {
        self.feeds.len()
    }

    /// The newest version of a copy, once that may be told: what this gives of an object never goes back, however often
    /// its copy ends and begins.
    pub(crate) fn newest(&self, object: ObjectId) -> Option<&Version> {
        self.objects.get(&object)?.told()
    }

    /// Lifts the floor of a copy whose newest version is known up to there by now. Returns whether that version may be told.
    fn lift_floor(&mut self, object: ObjectId) -> bool {
        let Some(known_to) = self.objects.get(&object).map(|kept| self.known_to(kept)) else { return false };
        let Some(kept) = self.objects.get_mut(&object) else { return false };
        kept.floor = kept.floor.filter(|floor| kept.newest().is_none() || known_to < *floor);
        kept.told().is_some()
    }

    /// What is closed where copies are read.
    pub(crate) fn closed(&self, now: Micros) -> impl Iterator<Item = Timestamp> {
        let is_read = move |feed: &&FeedIn| feed.read_at.is_some_and(|read_at| now.since(read_at) < READ_WITHIN);
        self.feeds.values().filter(is_read).map(|feed| feed.closed)
    }

    fn touch(&mut self, object: ObjectId, now: Micros) {
        self.used += 1;
        let Some(kept) = self.objects.get_mut(&object) else { return };
        kept.read_at = now;
        self.order.remove(&kept.used);
        kept.used = self.used;
        if !kept.is_watched {
            self.order.insert(kept.used, object);
        }
    }

    /// Ends a copy; its leader is told so.
    fn drop_copy(&mut self, object: ObjectId) {
        let Some(kept) = self.objects.remove(&object) else { return };
        self.forgotten = self.forgotten.max(kept.told().map_or(Timestamp::ZERO, |told| told.commit));
        self.order.remove(&kept.used);
        self.bytes -= kept.bytes();
        match kept.place {
            Place::Fed(group) | Place::Asked { group, .. } => {
                if let Some(feed) = self.feeds.get_mut(&group)
                    && feed.objects.remove(&object)
                {
                    feed.ended.push(object);
                }
            }
            Place::Unknown { .. } => {}
        }
    }

    /// R24: what was not read for the longest time makes room.
    fn make_room(&mut self) {
        while self.order.len() > COPIES_MAX || (self.bytes > COPY_BYTES_MAX && self.order.len() > 1) {
            let Some((_, object)) = self.order.first_key_value().map(|(used, object)| (*used, *object)) else { return };
            self.drop_copy(object);
        }
    }

    /// An object is not where it was thought to be.
    fn displace(&mut self, object: ObjectId, look_at: Micros, by: Look) {
        let Some(kept) = self.objects.get(&object) else { return };
        let known_to = self.known_to(kept);
        let Some(kept) = self.objects.get_mut(&object) else { return };
        kept.known_to = known_to;
        kept.place = Place::Unknown { look_at, by };
    }

    /// A message with this number asks for these.
    fn asked_in(&mut self, number: u64, wishes: &[Wish]) {
        for wish in wishes {
            if let Some(Kept { place: Place::Asked { wish, .. }, .. }) = self.objects.get_mut(&wish.object) {
                *wish = number;
            }
        }
    }

    /// A subscription ends: its objects are looked for again.
    fn end_feed(&mut self, group: GroupId, now: Micros, by: Look) {
        let Some(objects) = self.feeds.get(&group).map(|feed| feed.objects.clone()) else { return };
        objects.into_iter().for_each(|object| self.displace(object, now, by));
        self.feeds.remove(&group);
    }
}
