//! Looks at the whole world of a workload while its players act: one at a time, each by the next live peer.
//!
//! They are counted, and what was wrong is kept, the first of it in full. It refuses to look itself: a peer does.

use std::time::{Duration, Instant};

/// How often the whole world is looked at, and how long a look may take.
const EVERY: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(10);
/// Faults that are told in full.
const FAULTS_TOLD_MAX: usize = 5;

/// All looks of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Looks {
    /// Those that saw everything.
    pub(crate) done: u64,
    /// Those that did not, because of faults for the most part.
    pub(crate) failed: u64,
    /// What was wrong.
    pub(crate) faults: Vec<String>,
    /// How many had something wrong.
    pub(crate) faulty: u64,
    /// At which peer one is going on, and since when.
    pending: Option<(usize, Instant)>,
    last: Option<Instant>,
}

impl Looks {
    /// Which of these peers is to look now, if any is.
    pub(crate) fn next(&mut self, live: &[usize], now: Instant) -> Option<usize> {
        self.failed += u64::from(self.pending.take_if(|(_, since)| now - *since >= LIMIT).is_some());
        if self.pending.is_some() || self.last.is_some_and(|last| now - last < EVERY) {
            return None;
        }
        let turn = (self.done + self.failed) % (live.len() as u64).max(1);
        let peer = *live.get(usize::try_from(turn).ok()?)?;
        (self.pending, self.last) = (Some((peer, now)), Some(now));
        Some(peer)
    }

    /// Takes what a look saw, or why it did not see everything.
    pub(crate) fn take(&mut self, peer: usize, seen: Result<Vec<String>, String>) {
        if self.pending.take_if(|(looking, _)| *looking == peer).is_none() {
            return;
        }
        match seen {
            Ok(faults) => {
                self.done += 1;
                self.faulty += u64::from(!faults.is_empty());
                let room = FAULTS_TOLD_MAX.saturating_sub(self.faults.len());
                self.faults.extend(faults.into_iter().take(room));
            }
            Err(_) => self.failed += 1,
        }
    }

    /// A peer is gone, and its look with it.
    pub(crate) fn gone(&mut self, peer: usize) {
        self.failed += u64::from(self.pending.take_if(|(looking, _)| *looking == peer).is_some());
    }
}
