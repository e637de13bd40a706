//! Subscriptions, at a leader: whoever often reads objects of a group is sent their newest stable versions.
//!
//! What is sent is what the group shows at a closed timestamp whose position is stable: stable by itself (R6), and below the
//! stable window (R8). It refuses to send every version: only the newest counts, and which one it follows is said, so that a
//! reader never takes a gap for a time in which nothing happened (R16).

use crate::closing::WANTED_FOR;
use crate::message::{Message, News, NewsOf, Wish};
use crate::metrics::RareEvent;
use crate::rare_branches::RareBranch;
use crate::{Peer, Sabotage};
use driftmesh_directory::Record;
use driftmesh_model::{Epoch, GroupId, Lsn, Micros, ObjectId, PeerId, Timestamp};
use driftmesh_object_store::{Chain, Group, ReadAt};
use std::collections::BTreeMap;

/// Most subscribers of one leader (R24).
const SUBSCRIBERS_MAX: usize = 256;
/// Most objects in one subscription (R24); in all of one leader, `Config::fed_max`.
const OBJECTS_MAX: usize = 8_192;
/// About how many bytes of values one message carries.
const NEWS_BYTES_MAX: usize = 256 << 10;
/// A subscriber that has nothing to be told hears so this often.
pub(crate) const SIGN_OF_LIFE: Micros = Micros::from_millis(500);

/// One object of a subscription.
#[derive(Clone, Copy, Debug)]
struct Fed {
    /// The commit of the version that was sent last.
    sent: Option<Timestamp>,
    /// The epoch at which the group owns it, and a position by which that is in the journal.
    owned: Option<(Epoch, Lsn)>,
    /// Somebody watches it: it makes room for nobody.
    is_watched: bool,
    /// When it was asked for last, among all.
    asked: u64,
    /// The number of the message in which it was asked for last.
    wish: u64,
}

/// What one peer is told of one group.
#[derive(Clone, Debug)]
struct Feed {
    /// The subscriber's number of it.
    feed: u64,
    /// It says before this that it still wants it.
    until: Micros,
    /// Whether it wants to know each closed timestamp, and not only what is new.
    wants_closed: bool,
    /// The highest number of a message that said so.
    heard: u64,
    /// Tells it from one of the same number that was forgotten here.
    opened: u64,
    /// It is this peer itself that reads or watches.
    is_own: bool,
    /// The number of the next message.
    next: u64,
    sent_at: Micros,
    objects: BTreeMap<ObjectId, Fed>,
}

/// Everything that this peer sends to subscribers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Feeding {
    feeds: BTreeMap<(GroupId, PeerId), Feed>,
    /// The objects that make room for others, in the order in which they were asked for: of other peers, and not watched.
    order: BTreeMap<u64, (GroupId, PeerId, ObjectId)>,
    asked: u64,
    opened: u64,
    /// How many objects other peers are told of.
    objects: usize,
    /// Up to where each group was looked through for what is new.
    looked: BTreeMap<GroupId, (Lsn, Timestamp)>,
}

/// What a group has of an object as of a closed position.
enum Holding<'a> {
    Owns(&'a Chain),
    /// It has left, or was never there.
    Not(Option<Record>),
}

impl Feeding {
    pub(crate) fn has_any(&self, group: GroupId) -> bool {
        self.of_group(group).next().is_some()
    }

    fn of_group(&self, group: GroupId) -> impl Iterator<Item = (PeerId, &Feed)> {
        let all = (group, PeerId::from_bytes([0; 32]))..=(group, PeerId::from_bytes([u8::MAX; 32]));
        self.feeds.range(all).map(|((_, peer), feed)| (*peer, feed))
    }

    /// How many objects other peers are told of.
    pub(crate) const fn objects(&self) -> usize {
        self.objects
    }

    fn forget_object(&mut self, key: (GroupId, PeerId), object: ObjectId) {
        let Some(feed) = self.feeds.get_mut(&key) else { return };
        let Some(fed) = feed.objects.remove(&object) else { return };
        self.order.remove(&fed.asked);
        self.objects -= usize::from(!feed.is_own);
    }

    /// A subscriber does not want an object any more. R16: if it has asked for it again since, it relies on being told of it.
    fn end_wish(&mut self, key: (GroupId, PeerId), object: ObjectId, number: u64) {
        let fed = self.feeds.get(&key).and_then(|feed| feed.objects.get(&object));
        if fed.is_some_and(|fed| fed.wish < number) {
            self.forget_object(key, object);
        }
    }

    fn forget(&mut self, key: (GroupId, PeerId)) {
        let Some(feed) = self.feeds.remove(&key) else { return };
        for fed in feed.objects.values() {
            self.order.remove(&fed.asked);
        }
        self.objects -= if feed.is_own { 0 } else { feed.objects.len() };
    }

    /// A peer begins anew: what its former incarnation wanted is nothing to the present one, which counts its subscriptions
    /// from the beginning.
    pub(crate) fn forget_subscriber(&mut self, peer: PeerId) {
        let keys: Vec<_> = self.feeds.keys().filter(|(_, of)| *of == peer).copied().collect();
        keys.into_iter().for_each(|key| self.forget(key));
    }

    /// Whether anything may be new in a group since it was looked through, or somebody wants to be told anyway.
    pub(crate) fn wants_look(&self, group: &Group) -> bool {
        let looked = self.looked.get(&group.id());
        let is_new = looked.is_none_or(|(lsn, at)| *lsn < group.tail() || *at < group.newest_commit());
        let is_fresh = |feed: &Feed| feed.wants_closed || is_new || feed.objects.values().any(|fed| fed.sent.is_none());
        self.of_group(group.id()).any(|(_, feed)| is_fresh(feed))
    }
}

impl Peer {
    /// Somebody wants to be told of objects of a group, or goes on wanting it.
    pub(crate) fn subscribe_asked(
        &mut self,
        from: PeerId,
        group: GroupId,
        (feed_number, number, wants_closed): (u64, u64, bool),
        wishes: &[Wish],
        ended: &[ObjectId],
    ) {
        let key = (group, from);
        if self.led(group).is_none() {
            // It is somewhere else: the subscriber looks for it.
            let news = wishes.iter().map(|wish| self.moved(wish.object)).collect();
            self.send_now(from, Message::Feed { group, feed: feed_number, opened: 0, number: 0, closed: None, news });
            return;
        }
        match self.feeding.feeds.get(&key).map(|feed| feed.feed) {
            Some(known) if known == feed_number => {}
            // A late message of a former subscription.
            Some(known) if known > feed_number => return,
            Some(_) | None => {
                self.feeding.forget(key);
                if self.feeding.feeds.len() >= SUBSCRIBERS_MAX && !self.drop_idle_subscriber() {
                    // R24: early and typed.
                    self.metrics.note(RareEvent::SubscriberRefused);
                    let refused = |wish: &Wish| News { object: wish.object, of: NewsOf::Refused };
                    let news = wishes.iter().map(refused).collect();
                    self.send_now(
                        from,
                        Message::Feed { group, feed: feed_number, opened: 0, number: 0, closed: None, news },
                    );
                    return;
                }
                self.feeding.opened += 1;
                let opened = self.config.incarnation.as_u64().wrapping_add(self.feeding.opened);
                let feed = Feed {
                    feed: feed_number,
                    opened,
                    is_own: from == self.config.peer,
                    until: self.now.mono,
                    wants_closed,
                    heard: 0,
                    next: 0,
                    sent_at: self.now.mono,
                    objects: BTreeMap::new(),
                };
                self.feeding.feeds.insert(key, feed);
            }
        }
        for object in ended {
            self.feeding.end_wish(key, *object, number);
        }
        // What is not here takes no room.
        let (here, elsewhere): (Vec<Wish>, Vec<Wish>) =
            wishes.iter().partition(|wish| self.has_or_sends(group, wish.object));
        let refused: Vec<ObjectId> =
            here.iter().filter(|wish| !self.take_wish(key, wish, number)).map(|wish| wish.object).collect();
        let until = self.now.mono.plus(WANTED_FOR);
        if let Some(feed) = self.feeding.feeds.get_mut(&key).filter(|feed| number >= feed.heard) {
            (feed.until, feed.wants_closed, feed.heard) = (until, wants_closed, number);
        }
        let mut news: Vec<News> = elsewhere.iter().map(|wish| self.moved(wish.object)).collect();
        if !refused.is_empty() {
            self.metrics.note(RareEvent::SubscriberRefused);
            news.extend(refused.into_iter().map(|object| News { object, of: NewsOf::Refused }));
        }
        if !news.is_empty() {
            self.send_news(key, None, news);
        }
        self.close_soon();
    }

    /// A whole subscription makes room whose subscriber watches nothing: that which is the nearest to its end.
    fn drop_idle_subscriber(&mut self) -> bool {
        let is_idle = |feed: &Feed| feed.objects.values().all(|fed| !fed.is_watched);
        let feeds = self.feeding.feeds.iter().filter(|(_, feed)| is_idle(feed));
        let Some(key) = feeds.min_by_key(|(_, feed)| feed.until).map(|(key, _)| *key) else { return false };
        self.feeding.forget(key);
        true
    }

    /// Takes an object into a subscription. What was asked for longest ago makes room, unless it is watched.
    fn take_wish(&mut self, key: (GroupId, PeerId), wish: &Wish, number: u64) -> bool {
        // What this peer itself watches and reads is bounded there, and takes no room from others.
        let is_own = key.1 == self.config.peer;
        let is_full = self.feeding.objects >= self.config.fed_max && !is_own && !self.broken(Sabotage::Bounds);
        let is_full = is_full || (!is_own && self.rarely(RareBranch::RefuseSubscriber));
        let feeding = &mut self.feeding;
        feeding.asked += 1;
        let asked = feeding.asked;
        let Some(feed) = feeding.feeds.get(&key) else { return false };
        let known = feed.objects.get(&wish.object).copied();
        if known.is_some_and(|known| known.wish > number) {
            // Late: what was asked for since is what counts.
            return true;
        }
        if known.is_none() && feed.objects.len() >= OBJECTS_MAX {
            return false;
        }
        let mut made_room = None;
        if known.is_none() && is_full {
            let Some((_, oldest)) = feeding.order.pop_first() else { return false };
            made_room = Some(oldest);
        }
        if let Some((group, peer, object)) = made_room {
            self.feeding.forget_object((group, peer), object);
            self.send_news((group, peer), None, vec![News { object, of: NewsOf::Refused }]);
        }
        let feeding = &mut self.feeding;
        if let Some(known) = known {
            feeding.order.remove(&known.asked);
        } else {
            feeding.objects += usize::from(!is_own);
        }
        // Asked for again: what was sent of it may be lost.
        let fed = Fed {
            sent: None,
            owned: known.and_then(|fed| fed.owned),
            is_watched: wish.is_watched,
            asked,
            wish: number,
        };
        if !wish.is_watched && !is_own {
            feeding.order.insert(asked, (key.0, key.1, wish.object));
        }
        if let Some(feed) = feeding.feeds.get_mut(&key) {
            feed.objects.insert(wish.object, fed);
        }
        true
    }

    /// Whether a group led here has an object, or has not let it go for good yet.
    fn has_or_sends(&self, group: GroupId, object: ObjectId) -> bool {
        self.led(group).is_some_and(|led| led.owned(object).is_some() || led.in_transit(object).is_some())
    }

    /// Where an object is that none of the groups led here has.
    fn moved(&mut self, object: ObjectId) -> News {
        // R6: what this peer knows of an object that it has, or is sending, may not be stable.
        let is_here = self.led_groups().any(|group| group.owned(object).is_some()) || self.is_sending(object);
        let record = if is_here { None } else { self.best_record(object).map(|(_, record)| record) };
        News { object, of: NewsOf::Moved(record) }
    }

    /// What a group has of an object as of a stable position.
    fn holding<'a>(group: &'a Group, object: ObjectId, lsn: Lsn, fed: &mut Fed, tail: Lsn) -> Option<Holding<'a>> {
        if let Some(stored) = group.owned(object) {
            let (epoch, since) = *fed.owned.get_or_insert((group.epoch_of(stored), tail));
            if epoch != group.epoch_of(stored) {
                // It was away in between.
                return Some(Holding::Not(None));
            }
            // R6: whether it has come is not stable yet.
            return (since <= lsn).then_some(Holding::Owns(&stored.chain));
        }
        let Some((to, transit)) = group.in_transit(object) else { return Some(Holding::Not(None)) };
        if transit.changed <= lsn {
            return Some(Holding::Not(Some(Record { object, group: to, epoch: transit.epoch })));
        }
        // As of the position it had not left.
        let epoch = Epoch::from_u64(transit.epoch.as_u64().saturating_sub(1));
        let known = fed.owned.filter(|(owned, since)| *owned == epoch && *since <= lsn);
        if known.is_some() { Some(Holding::Owns(&transit.chain)) } else { Some(Holding::Not(None)) }
    }

    /// Sends to subscribers what a group shows at a closed timestamp, whose position is stable.
    pub(crate) fn feed(&mut self, id: GroupId, lsn: Lsn, at: Timestamp) {
        let now = self.now.mono;
        let due: Vec<PeerId> =
            self.feeding.of_group(id).filter(|(_, feed)| feed.until <= now).map(|(peer, _)| peer).collect();
        due.into_iter().for_each(|peer| self.feeding.forget((id, peer)));
        self.feeding.looked.insert(id, (lsn, at));
        let subscribers: Vec<PeerId> = self.feeding.of_group(id).map(|(peer, _)| peer).collect();
        for peer in subscribers {
            let key = (id, peer);
            let news = self.news_of(key, lsn, at);
            let Some(feed) = self.feeding.feeds.get(&key) else { continue };
            let is_silent = now.since(feed.sent_at) >= SIGN_OF_LIFE;
            if feed.wants_closed || !news.is_empty() || is_silent {
                self.send_news(key, Some(at), news);
            }
        }
    }

    fn news_of(&mut self, key: (GroupId, PeerId), lsn: Lsn, at: Timestamp) -> Vec<News> {
        let early = self.broken(Sabotage::FeedUnstable);
        let is_deaf = self.broken(Sabotage::FeedPastOut);
        let Some(mut objects) = self.feeding.feeds.get_mut(&key).map(|feed| std::mem::take(&mut feed.objects)) else {
            return Vec::new();
        };
        let mut news = Vec::new();
        let mut gone = Vec::new();
        if let Some(group) = self.led(key.0) {
            let tail = group.tail();
            for (object, fed) in &mut objects {
                let (object, former) = (*object, fed.sent);
                let Some(holding) = Self::holding(group, object, lsn, fed, tail) else { continue };
                let chain = match holding {
                    Holding::Owns(chain) => chain,
                    Holding::Not(_) if is_deaf && former.is_some() => continue,
                    Holding::Not(record) => {
                        gone.push((object, record));
                        continue;
                    }
                };
                let seen = if early { ReadAt::Version(chain.newest()) } else { chain.read_at(at) };
                match seen {
                    ReadAt::Version(version) if former == Some(version.commit) => {}
                    ReadAt::Version(version) => {
                        let before = chain.before(version.commit).map_or(Timestamp::ZERO, |before| before.commit);
                        fed.sent = Some(version.commit);
                        let (commit, value) = (version.commit, version.value.clone());
                        news.push(News { object, of: NewsOf::Version { wish: fed.wish, commit, before, value } });
                    }
                    ReadAt::NotYetCreated => {}
                    // R17: the subscriber asks anew.
                    ReadAt::TooOld(_) => gone.push((object, None)),
                }
            }
        }
        if let Some(feed) = self.feeding.feeds.get_mut(&key) {
            feed.objects = objects;
        }
        for (object, record) in gone {
            self.feeding.forget_object(key, object);
            let of = match record {
                Some(record) => News { object, of: NewsOf::Moved(Some(record)) },
                None => self.moved(object),
            };
            news.push(of);
        }
        news
    }

    /// Sends news in messages of a bounded size; the last one says what is closed.
    fn send_news(&mut self, key: (GroupId, PeerId), closed: Option<Timestamp>, news: Vec<News>) {
        let (group, to) = key;
        let mut messages = vec![Vec::new()];
        let mut bytes = 0;
        for item in news {
            bytes += item.about_bytes();
            if bytes > NEWS_BYTES_MAX {
                messages.push(Vec::new());
                bytes = item.about_bytes();
            }
            if let Some(last) = messages.last_mut() {
                last.push(item);
            }
        }
        let last = messages.len() - 1;
        for (index, news) in messages.into_iter().enumerate() {
            let Some(feed) = self.feeding.feeds.get_mut(&key) else { return };
            let (number, feed_number, opened) = (feed.next, feed.feed, feed.opened);
            feed.next += 1;
            feed.sent_at = self.now.mono;
            let closed = closed.filter(|_| index == last);
            self.metrics.feeds += 1;
            // R6: all of it is stable.
            self.send_now(to, Message::Feed { group, feed: feed_number, opened, number, closed, news });
        }
    }

    /// Who is told what this peer closes of a group that it leads, besides followers.
    pub fn told_closed(&self, group: GroupId) -> impl Iterator<Item = PeerId> {
        self.feeding.of_group(group).filter(|(_, feed)| feed.wants_closed).map(|(peer, _)| peer)
    }

    /// Subscribers that nothing new was told hear that this leader lives, or are forgotten.
    pub(crate) fn feed_signs_of_life(&mut self, id: GroupId) {
        let now = self.now.mono;
        let silent = |feed: &Feed| now.since(feed.sent_at) >= SIGN_OF_LIFE || feed.until <= now;
        let due: Vec<(PeerId, bool)> = self
            .feeding
            .of_group(id)
            .filter(|(_, feed)| silent(feed))
            .map(|(peer, feed)| (peer, feed.until <= now))
            .collect();
        for (peer, is_over) in due {
            if is_over {
                self.feeding.forget((id, peer));
            } else {
                self.send_news((id, peer), None, Vec::new());
            }
        }
    }

    /// This peer leads a group no more.
    pub(crate) fn stop_feeding(&mut self, id: GroupId) {
        let subscribers: Vec<PeerId> = self.feeding.of_group(id).map(|(peer, _)| peer).collect();
        subscribers.into_iter().for_each(|peer| self.feeding.forget((id, peer)));
        self.feeding.looked.remove(&id);
    }

    /// A peer is out of reach.
    pub(crate) fn stop_feeding_to(&mut self, peer: PeerId) {
        let keys: Vec<_> = self.feeding.feeds.keys().filter(|(_, to)| *to == peer).copied().collect();
        keys.into_iter().for_each(|key| self.feeding.forget(key));
    }
}
