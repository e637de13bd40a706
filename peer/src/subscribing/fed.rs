//! What leaders say of subscriptions, at the subscriber: each message in its turn, into the copies.
//!
//! It refuses to take what is missing for granted: a gap ends in a new subscription, and an answer to an old question says
//! nothing of what comes after it (R16).

use super::{FeedPart, GAP_FOR, Look, Place, SEARCH, SOON};
use crate::Peer;
use crate::message::{News, NewsOf};
use crate::metrics::RareEvent;
use driftmesh_model::{GroupId, Micros, ObjectId, PeerId, Timestamp};
use driftmesh_object_store::Version;

/// So many messages that came before a missing one are kept (R24).
const EARLY_MAX: usize = 16;
/// What is watched and an owner has no room for is read this often.
const READ_EVERY: Micros = Micros::from_millis(1_000);

impl Peer {
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
}
