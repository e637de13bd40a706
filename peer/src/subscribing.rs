//! Subscriptions, at a subscriber: copies of objects that are often read here or watched, fed by their owners.
//!
//! A copy is what its owner said, in order and without a gap; what is missing, or comes from somebody who does not lead
//! any more, ends in a new subscription. It refuses to guess: between two versions that do not follow each other it knows
//! nothing (R16). And it tells those who watch nothing older than it told before, though copies end and begin anew.

use crate::Peer;
use crate::message::{Message, News, NewsOf, Seen, Wish};
use crate::metrics::RareEvent;
use crate::recent::shown;
use crate::steps::ValueRead;
use crate::timers::Timer;
use driftmesh_model::{GroupId, Micros, ObjectId, PeerId, Timestamp, TxnId};
use driftmesh_object_store::{Group, ReadAt, Version};
use driftmesh_txn::Cause;
use lru::LruCache;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroUsize;

/// Most copies of objects that are not watched, and their bytes together (R24).
const COPIES_MAX: usize = 1_024;
const COPY_BYTES_MAX: usize = 16 << 20;
/// Versions kept of one copy.
const VERSIONS_MAX: usize = 4;
/// So many reads at another peer within this make a copy worth having.
const OFTEN: u32 = 3;
const OFTEN_WITHIN: Micros = Micros::from_millis(2_000);
const COUNTED_MAX: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");
/// A copy that is not read for so long is not worth having.
const UNREAD_FOR: Micros = Micros::from_millis(10_000);
/// Closed timestamps are wanted of groups whose copies were read within this.
const READ_WITHIN: Micros = Micros::from_millis(2_000);
/// How often subscriptions are looked after, and said to be still wanted.
const LOOK_EVERY: Micros = Micros::from_millis(100);
const SAY_EVERY: Micros = Micros::from_millis(1_000);
/// What was asked for and not told is asked for again after this.
const ASK_AGAIN_AFTER: Micros = Micros::from_millis(400);
/// A subscription that hears nothing for this long begins anew.
const SILENT_FOR: Micros = Micros::from_millis(1_200);
/// A missing message is waited for so long, and so many that came before it are kept (R24).
const GAP_FOR: Micros = Micros::from_millis(60);
const EARLY_MAX: usize = 16;
/// What is on its way somewhere is looked for after this.
const SOON: Micros = Micros::from_millis(20);
/// Pauses of a search that found nothing.
const PAUSE_MIN: Micros = Micros::from_millis(40);
const PAUSE_MAX: Micros = Micros::from_millis(1_000);
/// What is watched and an owner has no room for is read this often.
const READ_EVERY: Micros = Micros::from_millis(1_000);
/// Most objects in one message.
const WISHES_MAX: usize = 1_024;

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

impl Peer {
    /// A recent snapshot read an object at another peer.
    pub(crate) fn note_remote_read(&mut self, object: ObjectId) {
        let now = self.now.mono;
        let counted = self.subscribed.counted.get_or_insert_mut(object, || (0, now));
        if now.since(counted.1) >= OFTEN_WITHIN {
            *counted = (0, now);
        }
        counted.0 += 1;
        if counted.0 >= OFTEN && !self.subscribed.objects.contains_key(&object) {
            self.subscribe_to(object, false);
        }
    }

    /// From now on a copy of this object is kept here.
    pub(crate) fn subscribe_to(&mut self, object: ObjectId, is_watched: bool) {
        let now = self.now.mono;
        self.subscribed.used += 1;
        let used = self.subscribed.used;
        // R18: what came from a clock that is wrong holds up nothing else.
        let floor = self.subscribed.forgotten.min(self.clock.now(self.now.wall));
        let fresh = || Kept {
            place: Place::Unknown { look_at: now, by: Look::AtHand },
            versions: VecDeque::new(),
            known_to: Timestamp::ZERO,
            floor: Some(floor),
            read_at: now,
            is_watched,
            used,
        };
        let kept = self.subscribed.objects.entry(object).or_insert_with(fresh);
        if is_watched && !kept.is_watched {
            kept.is_watched = true;
            // Its leader must know that it makes room for nobody.
            if let Place::Fed(group) | Place::Asked { group, .. } = kept.place {
                kept.place = Place::Asked { group, at: None, wish: 0 };
            }
        }
        self.subscribed.touch(object, now);
        self.subscribed.make_room();
        self.look_after_subscriptions(now);
    }

    /// Nobody watches an object any more.
    pub(crate) fn watched_no_more(&mut self, object: ObjectId) {
        if let Some(kept) = self.subscribed.objects.get_mut(&object) {
            kept.is_watched = false;
        }
        let now = self.now.mono;
        if self.subscribed.newest(object).is_none() || self.subscribed.counted.peek(&object).is_none() {
            self.subscribed.drop_copy(object);
        } else {
            self.subscribed.touch(object, now);
            self.subscribed.make_room();
        }
        self.look_after_subscriptions(now);
    }

    fn look_after_subscriptions(&mut self, at: Micros) {
        if self.subscribed.timed.is_none_or(|timed| at < timed) {
            self.subscribed.timed = Some(at);
            self.timers.set(at, Timer::Subscriptions);
        }
    }

    /// What a subscription shows a snapshot of an object, if it can say.
    pub(crate) fn read_subscribed(
        &mut self,
        object: ObjectId,
        snapshot: Timestamp,
    ) -> Option<Result<ValueRead, Cause>> {
        let now = self.now.mono;
        let kept = self.subscribed.objects.get(&object)?;
        let known_to = self.subscribed.known_to(kept);
        let answer = kept.read_at(snapshot, known_to).and_then(|version| shown(ReadAt::Version(version), object));
        let place = kept.place;
        self.subscribed.touch(object, now);
        let mut is_first = false;
        if let Place::Fed(group) = place
            && let Some(feed) = self.subscribed.feeds.get_mut(&group)
        {
            feed.read_at = Some(now);
            is_first = !feed.said_closed;
        }
        if is_first {
            self.look_after_subscriptions(now);
        }
        let event = if answer.is_some() { RareEvent::ReadAtSubscriber } else { RareEvent::CopyBehind };
        self.metrics.reads_subscribed += u64::from(answer.is_some());
        self.metrics.note(event);
        answer
    }

    /// Keeps subscriptions up: asks, says that they are wanted, begins anew what has ended.
    pub(crate) fn subscriptions_due(&mut self) {
        let now = self.now.mono;
        if self.subscribed.timed.is_some_and(|timed| now < timed) {
            return;
        }
        self.subscribed.timed = None;
        self.drop_unread();
        self.end_broken_feeds();
        self.place_copies();
        self.ask_for_copies();
        if !self.subscribed.objects.is_empty() || !self.subscribed.feeds.is_empty() {
            self.look_after_subscriptions(now.plus(LOOK_EVERY));
        }
    }

    fn drop_unread(&mut self) {
        let now = self.now.mono;
        while let Some((_, object)) = self.subscribed.order.first_key_value() {
            let object = *object;
            let is_unread =
                self.subscribed.objects.get(&object).is_none_or(|kept| now.since(kept.read_at) >= UNREAD_FOR);
            if !is_unread {
                return;
            }
            self.subscribed.drop_copy(object);
        }
    }

    fn end_broken_feeds(&mut self) {
        let now = self.now.mono;
        let mut broken = Vec::new();
        for (group, feed) in &self.subscribed.feeds {
            let leads = self.leader_of(*group) == Some(feed.leader);
            let has_gap = feed.gap_since.is_some_and(|since| now.since(since) >= GAP_FOR);
            let is_silent = now.since(feed.heard_at) >= SILENT_FOR;
            if !leads || has_gap || is_silent {
                broken.push((*group, has_gap, is_silent));
            }
        }
        for (group, has_gap, is_silent) in broken {
            if has_gap {
                self.metrics.note(RareEvent::FeedGap);
            }
            if is_silent {
                self.metrics.note(RareEvent::FeedSilent);
            }
            // Where nobody answers, what is at hand would lead again.
            self.subscribed.end_feed(group, now, if is_silent { SEARCH } else { Look::AtHand });
        }
    }

    /// Finds out whom to ask for what.
    fn place_copies(&mut self) {
        let now = self.now.mono;
        let is_due = |kept: &Kept| matches!(kept.place, Place::Unknown { look_at, .. } if look_at <= now);
        let due: Vec<ObjectId> =
            self.subscribed.objects.iter().filter(|(_, kept)| is_due(kept)).map(|(object, _)| *object).collect();
        for object in due {
            let Some(Place::Unknown { by, .. }) = self.subscribed.objects.get(&object).map(|kept| kept.place) else {
                continue;
            };
            let (group, pause) = match by {
                Look::AtHand => (self.owner_at_hand(object), PAUSE_MIN),
                Look::Search { pause } => (self.owner_here(object), pause),
            };
            let place = match group {
                Some(group) => Place::Asked { group, at: None, wish: 0 },
                None => {
                    self.search_for(object);
                    let by = Look::Search { pause: Micros(pause.0 * 2).min(PAUSE_MAX) };
                    Place::Unknown { look_at: now.plus(pause), by }
                }
            };
            if let Some(kept) = self.subscribed.objects.get_mut(&object) {
                kept.place = place;
            }
        }
    }

    /// The group led here that has an object.
    fn owner_here(&self, object: ObjectId) -> Option<GroupId> {
        self.led_groups().find(|group| group.owned(object).is_some()).map(Group::id)
    }

    /// The group that has an object, as far as this peer knows without asking (R1: a hint, unless it is led here).
    fn owner_at_hand(&mut self, object: ObjectId) -> Option<GroupId> {
        if let Some(here) = self.owner_here(object) {
            return Some(here);
        }
        let followed = self.groups().find(|group| group.owned(object).is_some()).map(Group::id);
        let group = followed.or_else(|| self.best_record(object).map(|(_, record)| record.group))?;
        // A record that names a group led here is out of date: that group does not have it.
        (self.led(group).is_none() && self.leader_of(group).is_some()).then_some(group)
    }

    /// Searches for the owner of an object as a reader would.
    fn search_for(&mut self, object: ObjectId) {
        self.metrics.note(RareEvent::WatchSearched);
        let seeker = self.subscribed.seeker.unwrap_or_else(|| self.new_waiter());
        self.subscribed.seeker = Some(seeker);
        let snapshot = self.clock.now(self.now.wall);
        self.want_read(object, snapshot, seeker);
    }

    /// An owner answered a read: that tells which group has the object, and its version at the snapshot.
    pub(crate) fn copy_located(&mut self, object: ObjectId, group: GroupId, snapshot: Timestamp, seen: &Seen) {
        let now = self.now.mono;
        let Some(kept) = self.subscribed.objects.get_mut(&object) else { return };
        if !matches!(kept.place, Place::Unknown { .. }) {
            return;
        }
        kept.place = Place::Asked { group, at: None, wish: 0 };
        self.look_after_subscriptions(now);
        let Seen::Version { commit, value } = seen else { return };
        let Some(kept) = self.subscribed.objects.get_mut(&object) else { return };
        let newest = kept.newest().map(|newest| newest.commit);
        let is_new = newest.is_none_or(|newest| newest < *commit);
        let is_untold = is_new || kept.floor.is_some();
        if is_new {
            // What lies between it and the one before is not known.
            let (bytes, known_to) = (kept.bytes(), kept.known_to);
            kept.push(Version { commit: *commit, value: value.clone() }, Timestamp::ZERO, known_to);
            let grown = kept.bytes();
            self.subscribed.bytes = self.subscribed.bytes + grown - bytes;
        }
        let Some(kept) = self.subscribed.objects.get_mut(&object) else { return };
        if kept.newest().is_some_and(|newest| newest.commit == *commit) {
            kept.known_to = kept.known_to.max(snapshot);
        }
        // The answer may be to an old question, asked before this copy began.
        if is_untold && self.subscribed.lift_floor(object) {
            self.tell_watchers(object);
        }
    }

    /// Asks for what is not told yet, and says what is wanted.
    fn ask_for_copies(&mut self) {
        let now = self.now.mono;
        let mut wishes: BTreeMap<GroupId, Vec<Wish>> = BTreeMap::new();
        for (object, kept) in &mut self.subscribed.objects {
            let Place::Asked { group, at, .. } = &mut kept.place else { continue };
            if at.is_none_or(|at| now.since(at) >= ASK_AGAIN_AFTER) {
                *at = Some(now);
                wishes.entry(*group).or_default().push(Wish { object: *object, is_watched: kept.is_watched });
            }
        }
        let groups: BTreeSet<GroupId> = wishes.keys().chain(self.subscribed.feeds.keys()).copied().collect();
        for group in groups {
            self.say_wishes(group, wishes.remove(&group).unwrap_or_default());
        }
    }

    fn say_wishes(&mut self, group: GroupId, wishes: Vec<Wish>) {
        let now = self.now.mono;
        let Some(leader) = self.leader_of(group) else {
            wishes.iter().for_each(|wish| self.subscribed.displace(wish.object, now.plus(SOON), SEARCH));
            return;
        };
        if !self.subscribed.feeds.contains_key(&group) {
            self.subscribed.last_feed += 1;
            let feed = FeedIn {
                feed: self.subscribed.last_feed,
                leader,
                opened: None,
                said: 0,
                next: 0,
                closed: Timestamp::ZERO,
                heard_at: now,
                said_at: Micros(0),
                said_closed: false,
                read_at: None,
                early: BTreeMap::new(),
                gap_since: None,
                objects: BTreeSet::new(),
                untold: BTreeSet::new(),
                ended: Vec::new(),
            };
            self.subscribed.feeds.insert(group, feed);
        }
        let read_lately = |object: &ObjectId| {
            self.subscribed
                .objects
                .get(object)
                .is_some_and(|kept| !kept.is_watched && now.since(kept.read_at) < READ_WITHIN)
        };
        let is_new_read = wishes.iter().any(|wish| read_lately(&wish.object));
        let Some(feed) = self.subscribed.feeds.get_mut(&group) else { return };
        feed.objects.extend(wishes.iter().map(|wish| wish.object));
        if is_new_read {
            feed.read_at = Some(now);
        }
        let is_read = feed.read_at.is_some_and(|read_at| now.since(read_at) < READ_WITHIN);
        let closed = is_read || !feed.untold.is_empty();
        let is_due = now.since(feed.said_at) >= SAY_EVERY || closed != feed.said_closed;
        if wishes.is_empty() && feed.ended.is_empty() && !is_due {
            return;
        }
        (feed.said_at, feed.said_closed) = (now, closed);
        self.send_wishes(leader, group, wishes);
    }

    /// Says what is wanted of a group, and what is not any more, in messages of a bounded size.
    fn send_wishes(&mut self, leader: PeerId, group: GroupId, mut wishes: Vec<Wish>) {
        let Some(feed) = self.subscribed.feeds.get_mut(&group) else { return };
        let mut ended = std::mem::take(&mut feed.ended);
        // What is wanted again has not ended.
        ended.retain(|object| !feed.objects.contains(object));
        let is_over = feed.objects.is_empty();
        loop {
            let Some(feed) = self.subscribed.feeds.get_mut(&group) else { return };
            feed.said += 1;
            let (number, closed, feed) = (feed.said, feed.said_closed, feed.feed);
            let wishes_part: Vec<Wish> = wishes.drain(..wishes.len().min(WISHES_MAX)).collect();
            let ended_part = ended.drain(..ended.len().min(WISHES_MAX)).collect();
            self.subscribed.asked_in(number, &wishes_part);
            let message = Message::Subscribe { group, feed, number, closed, wishes: wishes_part, ended: ended_part };
            // R6: a question.
            self.send_now(leader, message);
            if wishes.is_empty() && ended.is_empty() {
                break;
            }
        }
        if is_over {
            self.subscribed.feeds.remove(&group);
        }
    }

    /// A leader says what is new.
    pub(crate) fn fed(
        &mut self,
        from: PeerId,
        (group, number, opened): (GroupId, u64, u64),
        message: u64,
        part: FeedPart,
    ) {
        let now = self.now.mono;
        let Some(feed) = self.subscribed.feeds.get_mut(&group) else { return };
        if feed.feed != number || feed.leader != from {
            return;
        }
        if *feed.opened.get_or_insert(opened) != opened {
            // Its leader had forgotten it, and began anew: so does this peer.
            self.metrics.note(RareEvent::FeedGap);
            self.subscribed.end_feed(group, now, Look::AtHand);
            self.look_after_subscriptions(now);
            return;
        }
        if message < feed.next {
            return;
        }
        feed.heard_at = now;
        if message > feed.next {
            if feed.early.len() < EARLY_MAX {
                feed.early.insert(message, part);
            }
            let since = *feed.gap_since.get_or_insert(now);
            self.look_after_subscriptions(since.plus(GAP_FOR));
            return;
        }
        self.take_part(group, part);
        while let Some(feed) = self.subscribed.feeds.get_mut(&group) {
            let next = feed.next;
            let Some(part) = feed.early.remove(&next) else {
                feed.gap_since = if feed.early.is_empty() { None } else { Some(now) };
                return;
            };
            self.take_part(group, part);
        }
    }

    fn take_part(&mut self, group: GroupId, part: FeedPart) {
        let now = self.now.mono;
        let Some(feed) = self.subscribed.feeds.get_mut(&group) else { return };
        feed.next += 1;
        let closed = feed.closed;
        for News { object, of } in part.news {
            let is_wanted = self.subscribed.feeds.get(&group).is_some_and(|feed| feed.objects.contains(&object));
            if !is_wanted {
                if let Some(feed) = self.subscribed.feeds.get_mut(&group)
                    && !matches!(of, NewsOf::Moved(_) | NewsOf::Refused)
                {
                    feed.ended.push(object);
                }
                continue;
            }
            match of {
                NewsOf::Version { wish, commit, before, value } => {
                    self.take_version((group, wish), object, Version { commit, value }, (before, closed));
                }
                NewsOf::Moved(record) => {
                    self.metrics.note(RareEvent::FeedMoved);
                    if let Some(record) = record.filter(|record| record.object == object && record.is_sound()) {
                        self.hints.learn(record);
                    }
                    // There, if that is news; else a search comes next, a moment later: it may be on its way.
                    let is_news = self.owner_at_hand(object).is_some_and(|owner| owner != group);
                    let (look_at, by) = if is_news { (now, Look::AtHand) } else { (now.plus(SOON), SEARCH) };
                    self.leaves_feed(group, object, look_at, by);
                }
                NewsOf::Refused => {
                    // Until there is room, what is watched is read.
                    self.leaves_feed(group, object, now.plus(READ_EVERY), SEARCH);
                    if self.subscribed.objects.get(&object).is_some_and(|kept| !kept.is_watched) {
                        self.subscribed.drop_copy(object);
                    }
                }
            }
        }
        let Some(feed) = self.subscribed.feeds.get_mut(&group) else { return };
        feed.closed = part.closed.map_or(feed.closed, |closed| closed.max(feed.closed));
        self.tell_untold(group);
        self.subscribed.make_room();
    }

    /// Tells those who watch what came of a group, as far as it may be told.
    fn tell_untold(&mut self, group: GroupId) {
        let Some(feed) = self.subscribed.feeds.get_mut(&group) else { return };
        let mut untold = std::mem::take(&mut feed.untold);
        untold.retain(|object| {
            let may_be_told = self.subscribed.lift_floor(*object);
            if may_be_told {
                self.tell_watchers(*object);
            }
            !may_be_told && self.subscribed.objects.get(object).is_some_and(|kept| kept.place == Place::Fed(group))
        });
        let Some(feed) = self.subscribed.feeds.get_mut(&group) else { return };
        // Its leader tells up to when it is known only if that is wanted.
        let asks = !untold.is_empty() && !feed.said_closed;
        feed.untold = untold;
        if asks {
            self.look_after_subscriptions(self.now.mono);
        }
    }

    fn leaves_feed(&mut self, group: GroupId, object: ObjectId, look_at: Micros, by: Look) {
        self.subscribed.displace(object, look_at, by);
        if let Some(feed) = self.subscribed.feeds.get_mut(&group) {
            feed.objects.remove(&object);
        }
        self.look_after_subscriptions(look_at);
    }

    fn take_version(
        &mut self,
        (group, wish): (GroupId, u64),
        object: ObjectId,
        version: Version,
        (before, closed): (Timestamp, Timestamp),
    ) {
        let commit = version.commit;
        let Some(kept) = self.subscribed.objects.get_mut(&object) else { return };
        // R16: what answers an earlier wish says nothing of what comes after it: its leader may have been told since that the
        // object is not wanted, and not yet that it is again.
        let is_answer = match kept.place {
            Place::Fed(of) => of == group,
            Place::Asked { group: of, wish: asked, .. } => (of, asked) == (group, wish),
            Place::Unknown { .. } => false,
        };
        if !is_answer {
            return;
        }
        // While it was not fed by this group, it is known only as far as it was before.
        let closed = if kept.place == Place::Fed(group) { closed.max(kept.known_to) } else { kept.known_to };
        kept.place = Place::Fed(group);
        let is_new = kept.newest().is_none_or(|newest| newest.commit < commit);
        if (is_new || kept.floor.is_some())
            && let Some(feed) = self.subscribed.feeds.get_mut(&group)
        {
            feed.untold.insert(object);
        }
        if !is_new {
            return;
        }
        let bytes = kept.bytes();
        let follows = kept.push(version, before, closed);
        let grown = kept.bytes();
        self.subscribed.bytes = self.subscribed.bytes + grown - bytes;
        if !follows {
            self.metrics.note(RareEvent::VersionsPassedOver);
        }
    }

    /// What this peer has of a copy, in words: for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn explain_copy(&self, object: ObjectId) -> String {
        let kept = self.subscribed.objects.get(&object);
        let feed = kept.and_then(|kept| match kept.place {
            Place::Fed(group) | Place::Asked { group, .. } => self.subscribed.feeds.get(&group),
            Place::Unknown { .. } => None,
        });
        format!("{kept:?} {feed:?}")
    }
}
