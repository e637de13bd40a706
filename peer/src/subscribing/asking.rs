//! What a subscriber asks for: which copies are worth having, who is to feed them, and that they are still wanted.
//!
//! It refuses to believe what is at hand for longer than it takes to ask (R1), and keeps no copy that nobody reads (R24).

use super::{FeedIn, GAP_FOR, Kept, Look, PAUSE_MIN, Place, READ_WITHIN, SEARCH, SOON};
use crate::Peer;
use crate::message::{Message, Seen, Wish};
use crate::metrics::RareEvent;
use crate::recent::shown;
use crate::steps::ValueRead;
use crate::timers::Timer;
use driftmesh_model::{GroupId, Micros, ObjectId, PeerId, Timestamp};
use driftmesh_object_store::{Group, ReadAt, Version};
use driftmesh_txn::Cause;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// So many reads at another peer within this make a copy worth having.
const OFTEN: u32 = 3;
const OFTEN_WITHIN: Micros = Micros::from_millis(2_000);
/// A copy that is not read for so long is not worth having.
const UNREAD_FOR: Micros = Micros::from_millis(10_000);
/// How often subscriptions are looked after, and said to be still wanted.
const LOOK_EVERY: Micros = Micros::from_millis(100);
const SAY_EVERY: Micros = Micros::from_millis(1_000);
/// What was asked for and not told is asked for again after this.
const ASK_AGAIN_AFTER: Micros = Micros::from_millis(400);
/// A subscription that hears nothing for this long begins anew.
const SILENT_FOR: Micros = Micros::from_millis(1_200);
/// The longest pause of a search that found nothing.
const PAUSE_MAX: Micros = Micros::from_millis(1_000);
/// Most objects in one message.
const WISHES_MAX: usize = 1_024;

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

    pub(super) fn look_after_subscriptions(&mut self, at: Micros) {
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
    pub(super) fn owner_at_hand(&mut self, object: ObjectId) -> Option<GroupId> {
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
