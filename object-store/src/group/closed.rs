//! Closed timestamps, as a follower knows them: at which snapshots its state can be read (R16).
//!
//! A leader promises that beyond a position of the journal no commit takes effect at or below a timestamp. Whoever holds
//! the stable journal up to there can answer for that time. It refuses to answer anything itself.

use crate::Group;
use crate::consensus::MemberId;
use driftmesh_model::{Generation, Lsn, Micros, Term, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Promises kept that the state has not come to yet (R24). A newer one takes the place of the one before it.
const AHEAD_MAX: usize = 16;

/// No commit beyond a position of the journal takes effect at or below a timestamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Closed {
    /// The leader's generation.
    pub generation: Generation,
    /// And its term.
    pub term: Term,
    /// What the leader knows to be stable.
    pub watermark: Lsn,
    /// The timestamp.
    pub at: Timestamp,
    /// The position.
    pub lsn: Lsn,
}

/// The promises that a member has heard.
#[derive(Clone, Debug, Default)]
pub(super) struct ClosedTimes {
    /// The generation that they are of: a later one may have begun from less.
    generation: Generation,
    /// The state held all that the newest of these speak of when it was looked at last.
    reached: Timestamp,
    /// Positions that the state has not come to, oldest first.
    ahead: VecDeque<(Lsn, Timestamp)>,
}

impl ClosedTimes {
    fn note(&mut self, lsn: Lsn, at: Timestamp) {
        if self.ahead.back().is_some_and(|(last, closed)| *last >= lsn || *closed >= at) {
            // Late: what came before says as much, or will be followed by another.
            return;
        }
        if self.ahead.len() >= AHEAD_MAX {
            self.ahead.pop_back();
        }
        self.ahead.push_back((lsn, at));
    }

    fn advance(&mut self, applied: Lsn) {
        while let Some((_, at)) = self.ahead.pop_front_if(|(lsn, _)| *lsn <= applied) {
            self.reached = self.reached.max(at);
        }
    }
}

impl Group {
    /// A leader has closed a timestamp.
    pub(super) fn closed_told(&mut self, now: Micros, from: MemberId, closed: &Closed) {
        // R25: no sound clock says so much. What a former generation promised, nobody keeps.
        let is_sound = closed.generation == self.consensus.generation() && closed.at < Timestamp::SOUND_MAX;
        // R25: only its leader closes anything for a group.
        if !is_sound || self.consensus.leader() != Some(from) {
            return;
        }
        if self.closed.generation != closed.generation {
            self.closed = ClosedTimes { generation: closed.generation, ..ClosedTimes::default() };
        }
        self.consensus.watermark_told(from, (closed.generation, closed.term), closed.watermark);
        self.settle(now);
        let lsn = if self.breaks_close() { Lsn::ZERO } else { closed.lsn };
        if lsn <= self.state.applied() {
            self.closed.reached = self.closed.reached.max(closed.at);
        } else {
            self.closed.note(lsn, closed.at);
        }
    }

    /// The state has come further.
    pub(super) fn advance_closed(&mut self) {
        self.closed.advance(self.state.applied());
    }

    /// Up to which snapshot a member that does not lead can answer for what the group owns: it holds everything that was
    /// committed at or below it, and that is stable. Zero if it knows of no such time, or its state is not whole.
    #[must_use]
    pub fn closed(&self) -> Timestamp {
        let is_present = self.closed.generation == self.consensus.generation() && !self.consensus.is_of_the_past();
        let is_sound = self.state.is_whole() && self.halted.is_none();
        if is_present && is_sound { self.closed.reached } else { Timestamp::ZERO }
    }

    #[cfg(feature = "sabotage")]
    const fn breaks_close(&self) -> bool {
        self.sabotage_close
    }

    #[cfg(not(feature = "sabotage"))]
    #[expect(clippy::unused_self, reason = "the same call in both builds")]
    const fn breaks_close(&self) -> bool {
        false
    }

    /// Closed timestamps count at once, whatever the state lacks (R16).
    #[cfg(feature = "sabotage")]
    pub const fn sabotage_closing(&mut self) {
        self.sabotage_close = true;
    }
}
