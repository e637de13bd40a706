//! Watching this peer's own clock: is it the one that is wrong (R18)?
//!
//! A clock that is off from what most members say does harm: its transactions carry times that others refuse, or that
//! drag the times of what they touch along. So the peer begins no transaction, and says so. It keeps its objects, which
//! go to whoever asks for them: handing them over at once would carry its times to all others.

use crate::Peer;
use crate::membership::Member;
use crate::metrics::RareEvent;
use driftmesh_model::Micros;

/// A clock that is further from the median of all members' is suspect.
const CLOCK_OFF_MAX: i64 = 250_000;
/// For so long without a break: a pause of this process or a slow link makes heartbeats look old for a while.
const SUSPECT_AFTER: Micros = Micros::from_millis(3_000);

/// Older heartbeats say nothing of a clock: one that came late looks like a clock that is behind.
const HEARD_WITHIN: Micros = Micros::from_millis(2_500);

/// What is known of this peer's own clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClockWatch {
    /// Since when it has been too far off, monotonic, and how far it is: positive when it is ahead, us.
    off: Option<(Micros, i64)>,
}

impl Peer {
    /// Compares this peer's clock with the members', as far as messages prove that they differ. With fewer than two others nobody can tell who is wrong.
    pub(crate) fn watch_clock(&mut self) {
        let fresh = |member: &&Member| member.connected && self.now.mono.since(member.heard_at) < HEARD_WITHIN;
        let reachable = self.members.values().filter(fresh);
        // R18: what messages took is no fault of any clock: each member says what is certain.
        let mut offsets: Vec<i64> = reachable.filter_map(|member| member.clock_offset_least).collect();
        if offsets.len() < 2 {
            self.clock_watch.off = None;
            return;
        }
        offsets.push(0);
        offsets.sort_unstable();
        // Of an even number the one nearer to our own: the doubt is ours to use.
        let (below, above) = (offsets[(offsets.len() - 1) / 2], offsets[offsets.len() / 2]);
        let median = if below.unsigned_abs() < above.unsigned_abs() { below } else { above };
        let since = self.clock_watch.off.map_or(self.now.mono, |(since, _)| since);
        self.clock_watch.off = (median.abs() > CLOCK_OFF_MAX).then_some((since, median.saturating_neg()));
    }

    /// How far this peer's clock is ahead of the median of the members' (negative: behind), us, if it has been too far
    /// off for a while. No transaction begins until it is set right.
    #[must_use]
    pub fn clock_off_us(&self) -> Option<i64> {
        let (since, ahead) = self.clock_watch.off?;
        (self.now.mono.since(since) >= SUSPECT_AFTER && !self.broken(crate::Sabotage::ClockWatch)).then_some(ahead)
    }

    pub(crate) fn refuse_begin_by_clock(&mut self) -> Option<crate::StepError> {
        let ahead_us = self.clock_off_us()?;
        self.metrics.note(RareEvent::OwnClockOff);
        Some(crate::StepError::ClockOff { ahead_ms: ahead_us / 1_000 })
    }
}
