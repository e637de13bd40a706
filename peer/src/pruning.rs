//! Which superseded versions are still needed, by whom, and when they go (R17).
//!
//! It refuses to know how versions are kept: the state of a group does.

use crate::membership::Member;
use crate::recent::STALENESS;
use crate::{Peer, Sabotage};
use driftmesh_model::limits::{VERSION_KEEP_MAX, VERSION_KEEP_MIN};
use driftmesh_model::{Micros, Timestamp};

/// How long what was found of open snapshots is used for departures.
const NEEDED_FOR: Micros = Micros::from_millis(20);
/// A member's oldest snapshot counts only while its heartbeats are not older than this.
const HEARTBEAT_VALID: Micros = Micros::from_millis(4_000);
/// How far in the past a snapshot may lie when it is taken, clocks aside: twice what a reader of copies accepts by itself.
const SNAPSHOT_LAG_MAX: Micros = Micros(2 * STALENESS.0);
/// Objects looked at for pruning with each heartbeat.
const PRUNE_STEPS: usize = 2_048;

/// So long before a time of a wall clock.
fn before(wall: Micros, keep: Micros) -> Timestamp {
    Timestamp::from_wall(Micros(wall.0.saturating_sub(keep.0)))
}

impl Peer {
    /// The oldest snapshot that is open here.
    pub(crate) fn oldest_own_snapshot(&self) -> Option<Timestamp> {
        self.txns.iter().map(|txn| txn.snapshot).filter(|snapshot| *snapshot > Timestamp::ZERO).min()
    }

    /// Up to which commit timestamp superseded versions are not needed any more (R17): 5 s old, or up to 60 s while
    /// a snapshot that needs them is open here or was reported by a member.
    fn prune_horizon(&self) -> Timestamp {
        let wall = self.now.wall;
        if self.members.is_empty() {
            // Alone there are no snapshots but our own.
            return self.oldest_own_snapshot().unwrap_or(self.clock.last());
        }
        let reported = self.members_heard().filter_map(|member| member.oldest_snapshot);
        let oldest = reported.chain(self.oldest_own_snapshot()).min().unwrap_or(Timestamp::MAX);
        oldest.min(before(wall, VERSION_KEEP_MIN)).max(before(wall, VERSION_KEEP_MAX))
    }

    /// Up to which commit timestamp superseded versions need not travel with an object (R17): below every snapshot that is
    /// open here or that a member heard lately has reported, and every one that it can have taken since. The history of what is
    /// changed often would be most of what its move costs; a snapshot that asks for it is too old, and taken anew.
    ///
    /// Looks at all that is open here, so not for each departure: what was found lately still holds, because nothing that
    /// begins later is older.
    pub(crate) fn needed_from(&mut self) -> Timestamp {
        let (until, found) = self.travel_below;
        if self.now.mono >= until {
            self.travel_below = (self.now.mono.plus(NEEDED_FOR), self.find_needed_from());
            return self.travel_below.1;
        }
        found
    }

    fn find_needed_from(&self) -> Timestamp {
        let wall = self.now.wall;
        let there = self.members_heard().map(|member| {
            let since = before(member.heard_wall, SNAPSHOT_LAG_MAX);
            member.oldest_snapshot.map_or(since, |oldest| oldest.min(since))
        });
        let oldest = there.chain(self.oldest_own_snapshot()).fold(before(wall, SNAPSHOT_LAG_MAX), Timestamp::min);
        oldest.max(before(wall, VERSION_KEEP_MAX))
    }

    /// The members whose last word of their snapshots still counts.
    fn members_heard(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| self.now.mono.since(member.heard_at) < HEARTBEAT_VALID)
    }

    pub(crate) fn renew_prune_below(&mut self) {
        let below = self.prune_horizon();
        self.group.set_prune_below(below, self.config.version_bytes_max);
        for followed in self.followed.values_mut() {
            followed.group.set_prune_below(below, self.config.version_bytes_max);
        }
    }

    /// With each heartbeat some objects are looked at. R17: what a copy keeps of the past goes as at its owner.
    pub(crate) fn prune_with_heartbeat(&mut self) {
        self.prune_versions(PRUNE_STEPS);
        for followed in self.followed.values_mut() {
            followed.group.prune(PRUNE_STEPS);
        }
    }

    /// Prunes in a slice. Each commit adds one, so that this keeps up with any rate of commits.
    pub(crate) fn prune_versions(&mut self, steps: usize) {
        if self.broken(Sabotage::OldVersions) {
            self.group.set_prune_below(Timestamp::MAX, 0);
        }
        self.group.prune(steps);
    }
}
