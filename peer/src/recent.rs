//! Reads at a snapshot a little in the past, which copies at this peer can answer: no lock, no message.
//!
//! A copy answers if it holds everything up to a closed position, knows that stable, and the snapshot is at or below the
//! closed timestamp (R16). It refuses to go below what a session was told, and to answer what it cannot know: that goes
//! to the owner as ever.

use crate::Peer;
use crate::message::Message;
use crate::metrics::RareEvent;
use crate::rare_branches::RareBranch;
use crate::steps::{StepError, ValueRead};
use driftmesh_model::{GroupId, HybridClock, Micros, Now, ObjectId, Timestamp, TxnId};
use driftmesh_object_store::{Group, ReadAt};
use driftmesh_txn::{Cause, Status};
use std::collections::BTreeMap;

/// How old a recent snapshot is at most, unless set.
pub const STALENESS: Micros = Micros::from_millis(50);
/// The leader of a group that is read here is told so again after this.
const SAY_AGAIN_AFTER: Micros = Micros::from_millis(1_000);
/// A group that is not read for so long is not wanted any more.
const WANTED_FOR: Micros = Micros::from_millis(2_000);

/// How recent a snapshot shall be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recent {
    /// What its session was told: it sees all of that.
    pub not_before: Timestamp,
    /// How old it is at most, by this peer's clock.
    pub staleness: Micros,
}

/// Of a followed group that is read here.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    read_at: Micros,
    said_at: Option<Micros>,
}

/// Which copies are read here.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentReads {
    groups: BTreeMap<GroupId, Wanted>,
}

/// What a copy shows at a snapshot.
pub(crate) fn shown(at: ReadAt<'_>, object: ObjectId) -> Option<Result<ValueRead, Cause>> {
    match at {
        ReadAt::Version(version) => Some(Ok(ValueRead { commit: version.commit, value: version.value.clone() })),
        ReadAt::NotYetCreated => Some(Err(Cause::CreatedLater { object })),
        // R17: its owner may have kept more.
        ReadAt::TooOld(_) => None,
    }
}

/// What a group that this peer follows shows of an object: whether it has it, and what a snapshot sees, if it can say.
fn shown_by(group: &Group, object: ObjectId, snapshot: Timestamp) -> (bool, Option<Result<ValueRead, Cause>>) {
    if let Some(stored) = group.owned(object) {
        let answer = if snapshot <= group.closed() { shown(stored.chain.read_at(snapshot), object) } else { None };
        return (true, answer);
    }
    let Some((_, transit)) = group.in_transit(object) else { return (false, None) };
    // R16: a departure ends every copy at its floor.
    let is_known = snapshot <= group.closed().min(transit.floor);
    (false, if is_known { shown(transit.chain.read_at(snapshot), object) } else { None })
}

impl Peer {
    /// The snapshot of a transaction that may read a little in the past: the newest that all copies in use can answer, of
    /// those that are recent enough.
    pub(crate) fn choose_snapshot(&mut self, recent: Recent) -> Result<Timestamp, StepError> {
        let wall = self.now.wall;
        // R18: what it was told comes from a clock that is wrong, or this one is.
        self.check_told(self.now, recent.not_before)?;
        self.clock.raise_above(recent.not_before);
        let latest = self.clock.now(wall);
        let oldest = Timestamp::from_wall(Micros(latest.wall().0.saturating_sub(recent.staleness.0)));
        let oldest = oldest.max(recent.not_before);
        let now = self.now.mono;
        self.recent.groups.retain(|_, wanted| now.since(wanted.read_at) < WANTED_FOR);
        let followed = self.recent.groups.keys().filter_map(|id| self.followed.get(id));
        let closed = followed.filter(|followed| !followed.group.is_leading()).map(|followed| followed.group.closed());
        let closed = closed.chain(self.subscribed.closed(now));
        Ok(closed.filter(|closed| *closed >= oldest).min().unwrap_or(latest).min(latest))
    }

    /// The present time at this peer: everything that was committed or read here lies at or below.
    pub fn clock_now(&mut self, now: Now) -> Timestamp {
        self.now = now;
        self.clock.now(now.wall)
    }

    /// Whether a snapshot may be asked for that sees up to this time (R18).
    ///
    /// # Errors
    /// `ClockOff` when it is too far ahead of this peer's clock.
    pub fn check_told(&mut self, now: Now, told: Timestamp) -> Result<(), StepError> {
        HybridClock::guard(told, now.wall).map_err(|ahead| {
            let behind = ahead.named.wall().since(now.wall).as_millis();
            StepError::ClockOff { ahead_ms: i64::try_from(behind).map_or(i64::MIN, |behind| -behind) }
        })
    }

    /// Whether a snapshot has read from this peer's own group.
    #[must_use]
    pub fn has_read_here(&self, id: TxnId) -> bool {
        self.snapshots_here.contains(&id)
    }

    /// What a recent snapshot sees of an object that is not this peer's, if a copy here can say.
    pub(crate) fn read_copy(&mut self, object: ObjectId, snapshot: Timestamp) -> Option<Result<ValueRead, Cause>> {
        if self.rarely(RareBranch::CopyBehind) {
            return None;
        }
        let mut answer = None;
        let mut has = None;
        for (id, followed) in &self.followed {
            if followed.group.is_leading() {
                // What it leads for another it asks like anybody.
                continue;
            }
            let (owns, shown) = shown_by(&followed.group, object, snapshot);
            if owns {
                has = Some(*id);
            }
            if shown.is_some() {
                answer = shown;
                break;
            }
        }
        if let Some(id) = has {
            self.want_closes(id);
        }
        if answer.is_some() {
            self.metrics.reads_followed += 1;
            self.metrics.note(RareEvent::ReadAtFollower);
            return answer;
        }
        let subscribed = self.read_subscribed(object, snapshot);
        if subscribed.is_some() {
            return subscribed;
        }
        if has.is_some() {
            self.metrics.note(RareEvent::CopyBehind);
        } else {
            self.note_remote_read(object);
        }
        None
    }

    /// A group that this peer follows is read here: its leader closes timestamps while that goes on.
    fn want_closes(&mut self, id: GroupId) {
        let now = self.now.mono;
        let wanted = self.recent.groups.entry(id).or_insert(Wanted { read_at: now, said_at: None });
        wanted.read_at = now;
        if wanted.said_at.is_some_and(|said_at| now.since(said_at) < SAY_AGAIN_AFTER) {
            return;
        }
        wanted.said_at = Some(now);
        let Some(followed) = self.followed.get(&id) else { return };
        let Some(leader) = followed.group.consensus().leader() else { return };
        self.send_now(leader.peer, Message::WantCloses { group: id });
    }

    /// A recent snapshot came too early or too late for the first thing it was asked for: it is taken anew, as of now,
    /// once. Only for a snapshot of which nobody was shown anything. Returns whether it was.
    pub fn renew_snapshot(&mut self, now: Now, id: TxnId) -> bool {
        self.now = now;
        let latest = self.clock.now(now.wall);
        let Some(txn) = self.txns.get_mut(id) else { return false };
        let failed = matches!(txn.status, Status::Failed(_));
        if !txn.is_recent || !failed || txn.snapshot >= latest {
            return false;
        }
        txn.status = Status::Running;
        txn.snapshot = latest;
        // It is as of now: what it meets next is no reason to do so again.
        txn.is_recent = false;
        true
    }
}
