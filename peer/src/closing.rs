//! Closed timestamps, at a leader: no commit of its group will take effect at or below them (R16).
//!
//! A commit is one step in memory, so nothing is under way when the clock moves past a moment: closing it costs nothing.
//! What is closed is told, with the position of the journal that it covers, once that is stable (R6), to followers that
//! read and to subscribers. It refuses to close anything while nobody wants it, and above a stable window (R8).

use crate::message::Message;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_model::{GroupId, Lsn, Micros, PeerId, Timestamp};
use driftmesh_object_store::{Closed, GroupMessage};
use std::collections::{BTreeMap, VecDeque};

/// How often a group is closed while somebody wants it.
pub(crate) const CLOSE_EVERY: Micros = Micros::from_millis(20);
/// A follower that wants it says so again within this.
pub(crate) const WANTED_FOR: Micros = Micros::from_millis(3_000);
/// Closed timestamps of one group that wait until their position is stable (R24): beyond it the newest is replaced.
const WAITING_MAX: usize = 8;

/// What a leader has closed, and for whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Closing {
    /// Followers that read, each until when it need not say so again.
    followers: BTreeMap<GroupId, BTreeMap<PeerId, Micros>>,
    /// What is closed and not told yet, oldest first.
    waiting: BTreeMap<GroupId, VecDeque<(Lsn, Timestamp)>>,
    is_timed: bool,
}

impl Closing {
    fn is_wanted(&self, group: GroupId) -> bool {
        self.followers.contains_key(&group)
    }
}

impl Peer {
    /// A follower reads from a group that this peer leads, or so it thinks.
    pub(crate) fn closes_wanted(&mut self, from: PeerId, id: GroupId) {
        let is_member = |group: &driftmesh_object_store::Group| {
            group.consensus().membership().members().iter().any(|member| member.peer == from)
        };
        if !self.led(id).is_some_and(is_member) {
            return;
        }
        let until = self.now.mono.plus(WANTED_FOR);
        self.closing.followers.entry(id).or_default().insert(from, until);
        self.close_soon();
    }

    /// Begins to close timestamps.
    pub(crate) fn close_soon(&mut self) {
        if !std::mem::replace(&mut self.closing.is_timed, true) {
            self.timers.set(self.now.mono, Timer::Close);
        }
    }

    pub(crate) fn close_due(&mut self) {
        let now = self.now.mono;
        self.closing.is_timed = false;
        for followers in self.closing.followers.values_mut() {
            followers.retain(|_, until| *until > now);
        }
        self.closing.followers.retain(|_, followers| !followers.is_empty());
        let led: Vec<GroupId> = self.led_groups().map(driftmesh_object_store::Group::id).collect();
        self.closing.waiting.retain(|group, _| led.contains(group));
        let is_wanted = |group: &GroupId| self.closing.is_wanted(*group) || self.feeding.has_any(*group);
        let wanted: Vec<GroupId> = led.into_iter().filter(is_wanted).collect();
        for group in &wanted {
            let has_news = self.led(*group).is_some_and(|group| self.feeding.wants_look(group));
            if has_news || self.closing.is_wanted(*group) {
                self.close(*group);
            }
            self.feed_signs_of_life(*group);
        }
        if !wanted.is_empty() {
            self.closing.is_timed = true;
            self.timers.set(now.plus(CLOSE_EVERY), Timer::Close);
        }
    }

    /// Closes the present moment of a group.
    fn close(&mut self, id: GroupId) {
        let Some(at) = self.closable(id) else { return };
        let Some(group) = self.led(id) else { return };
        let (tail, watermark) = (group.tail(), group.watermark());
        let waiting = self.closing.waiting.entry(id).or_default();
        if waiting.len() >= WAITING_MAX {
            waiting.pop_back();
        }
        waiting.push_back((tail, at));
        if self.broken(Sabotage::FeedUnstable) {
            self.feed(id, tail, at);
        }
        self.tell_closed(id, watermark);
    }

    /// Up to when this leader may promise that nothing more is committed.
    fn closable(&mut self, id: GroupId) -> Option<Timestamp> {
        if self.led(id)?.is_retired() {
            return None;
        }
        // What is committed from now on lies above.
        let now = self.clock.now(self.now.wall);
        if self.broken(Sabotage::CloseEarly) {
            return Some(Timestamp::from_wall(now.wall().plus(CLOSE_EVERY)));
        }
        if self.broken(Sabotage::CloseWindow) {
            return Some(now);
        }
        // R8: it is a promise to others.
        match self.window_covering(id, now) {
            Some(Lsn::ZERO) => Some(now),
            Some(_) | None => self.stable_window(id).map(|end| end.min(now)),
        }
    }

    /// Tells the newest closed timestamp of which everything is stable.
    pub(crate) fn tell_closed(&mut self, id: GroupId, watermark: Lsn) {
        let Some(waiting) = self.closing.waiting.get_mut(&id) else { return };
        let mut told = None;
        while let Some(next) = waiting.pop_front_if(|(lsn, _)| *lsn <= watermark) {
            told = Some(next);
        }
        let Some((lsn, at)) = told else { return };
        let Some(group) = self.led(id) else { return };
        let closed = Closed { generation: group.generation(), term: group.term(), watermark, at, lsn };
        let followers = self.closing.followers.get(&id).into_iter().flat_map(BTreeMap::keys);
        for follower in followers.copied().collect::<Vec<_>>() {
            self.metrics.closes += 1;
            // R6: what it speaks of is stable.
            self.send_now(follower, Message::Group { group: id, message: GroupMessage::Closed(closed) });
        }
        self.feed(id, lsn, at);
    }

    /// This peer leads a group no more.
    pub(crate) fn stop_closing(&mut self, id: GroupId) {
        self.closing.followers.remove(&id);
        self.closing.waiting.remove(&id);
        self.stop_feeding(id);
    }
}
