//! Windows of time: what a leader promises to others lies below an end that its group has agreed on (R8).
//!
//! A leader that is cut off, or stands still and wakes up, can so at worst answer reads of a past that its successor
//! never writes into: successors begin above the window. Safety never reads a clock.

use crate::fetching::UNAVAILABLE_AFTER;
use crate::message::ReadRequest;
use crate::metrics::RareEvent;
use crate::timers::Timer;
use crate::{Peer, Sabotage};
use driftmesh_model::{GroupId, Lsn, Micros, PeerId, Timestamp, TxnId};
use driftmesh_object_store::Entry;
use std::collections::VecDeque;

/// How far beyond the leader's physical clock a window ends at most.
const WINDOW_AHEAD: Micros = Micros::from_millis(200);
/// A window that ends sooner than this after a promise is extended ahead of need.
const EXTEND_BEFORE: Micros = Micros::from_millis(100);
/// How soon reads that still wait are looked at again.
const LOOK_AGAIN_AFTER: Micros = Micros::from_millis(10);
/// Most windows of a group that are not stable yet.
const WINDOWS_MAX: usize = 1_024;
/// Most reads that wait for this peer's clock (R24).
const EARLY_READS_MAX: usize = 4_096;

/// The windows of one lead: their ends, each with the entry that says so, oldest first.
pub(crate) type Windows = VecDeque<(Lsn, Timestamp)>;

/// A read at a snapshot that this peer's clock has not come near yet.
#[derive(Clone, Debug)]
pub(crate) struct EarlyRead {
    from: PeerId,
    snapshot: Timestamp,
    objects: Vec<ReadRequest>,
}

impl Peer {
    /// What an answer at a snapshot needs of a group's journal: zero if a stable window covers it. `None` if none may
    /// yet: the snapshot is too far ahead of this peer's clock.
    pub(crate) fn window_needs(&mut self, id: GroupId, snapshot: Timestamp) -> Option<Lsn> {
        if self.broken(Sabotage::Window) {
            return Some(Lsn::ZERO);
        }
        self.window_covering(id, snapshot)
    }

    /// The same for anything else that is promised at a time.
    pub(crate) fn window_covering(&mut self, id: GroupId, snapshot: Timestamp) -> Option<Lsn> {
        let wall = self.now.wall;
        let Some(group) = self.led(id) else { return Some(Lsn::ZERO) };
        // Nobody else could ever lead a group of one; one that has ended owns nothing that a promise could be about, and
        // its last entry is the last (R22).
        if group.consensus().is_alone() || group.is_retired() {
            return Some(Lsn::ZERO);
        }
        let watermark = group.watermark();
        let windows = self.windows.entry(id).or_default();
        while windows.get(1).is_some_and(|(lsn, _)| *lsn <= watermark) {
            windows.pop_front();
        }
        let covering = windows.get(windows.partition_point(|(_, until)| *until < snapshot)).copied();
        let farthest = windows.back().map_or(Timestamp::ZERO, |(_, until)| *until);
        // R18: no farther than the asker's time needs, so that the windows of a clock that is ahead carry nobody along.
        let until = Timestamp::from_wall(wall.min(snapshot.wall()).plus(WINDOW_AHEAD));
        let soon = Timestamp::from_wall(snapshot.wall().plus(EXTEND_BEFORE));
        let mut needed = covering.map(|(lsn, _)| lsn);
        // R24: without a majority none of them becomes stable, and nobody is answered by one more.
        let has_room = windows.len() < WINDOWS_MAX;
        if farthest < soon && until > farthest && until >= snapshot && has_room {
            let lsn = self.journal_of(id, Entry::Window { until })?;
            self.metrics.windows += 1;
            self.windows.entry(id).or_default().push_back((lsn, until));
            needed = needed.or(Some(lsn));
        }
        if needed.is_none() {
            self.metrics.note(RareEvent::ReadTooEarly);
        }
        needed.map(|lsn| if lsn <= watermark { Lsn::ZERO } else { lsn })
    }

    /// The end of the last stable window of a group that this peer leads.
    pub(crate) fn stable_window(&self, id: GroupId) -> Option<Timestamp> {
        let watermark = self.led(id)?.watermark();
        let windows = self.windows.get(&id)?;
        windows.iter().filter(|(lsn, _)| *lsn <= watermark).map(|(_, until)| *until).max()
    }

    /// Whether what this peer's own group says at a snapshot may stand beside what others say at it: a stable window
    /// covers it (R8). Else a leader that does not know yet that it is deposed would show its past beside their present.
    /// If not, `waiter` is woken to look again.
    pub(crate) fn own_window_covers(&mut self, snapshot: Timestamp, waiter: TxnId) -> bool {
        match self.window_needs(self.group.id(), snapshot) {
            Some(Lsn::ZERO) => true,
            Some(lsn) => {
                self.fates.wait_for_stable(lsn, waiter);
                false
            }
            None => {
                self.timers.set(self.now.mono.plus(LOOK_AGAIN_AFTER), Timer::Wake(waiter));
                false
            }
        }
    }

    /// R14: whether a fixed snapshot has waited for a window for as long as a read may go without a word: the own group
    /// may have lost its majority. Else its waiter is woken when that time is over.
    pub(crate) fn window_is_late(&mut self, waiter: TxnId) -> bool {
        let now = self.now.mono;
        let since = *self.window_waits.entry(waiter).or_insert(now);
        if now.since(since) >= UNAVAILABLE_AFTER {
            self.window_waits.remove(&waiter);
            return true;
        }
        self.timers.set(since.plus(UNAVAILABLE_AFTER), Timer::Wake(waiter));
        false
    }

    /// Lets a read wait until this peer's clock has come near its snapshot.
    pub(crate) fn read_later(&mut self, from: PeerId, snapshot: Timestamp, objects: Vec<ReadRequest>) {
        // What is not too early lacks a window because there is no room for one (R24): nobody can answer it before this group
        // has a majority again. Whoever asks repeats it.
        let is_early = snapshot > Timestamp::from_wall(self.now.wall.plus(WINDOW_AHEAD));
        if !is_early || self.early_reads.len() >= EARLY_READS_MAX {
            return;
        }
        let ahead = snapshot.wall().since(self.now.wall.plus(WINDOW_AHEAD));
        let due = self.now.mono.plus(ahead).plus(Micros(1));
        self.early_reads.push(EarlyRead { from, snapshot, objects });
        self.timers.set(due, Timer::EarlyReads);
    }

    pub(crate) fn early_reads_due(&mut self) {
        let limit = Timestamp::from_wall(self.now.wall.plus(WINDOW_AHEAD));
        let (due, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.early_reads).into_iter().partition(|read| read.snapshot <= limit);
        self.early_reads = waiting;
        if !self.early_reads.is_empty() {
            // The wall clock went slower than the one that timers use.
            self.timers.set(self.now.mono.plus(LOOK_AGAIN_AFTER), Timer::EarlyReads);
        }
        for read in due {
            self.read_asked(read.from, read.snapshot, read.objects);
        }
    }
}
