//! A group's journal in memory: entries, their positions, and the watermark up to which they are stable.
//!
//! With one voter an entry is stable once that voter holds it: at once, or when its host says so. Replica groups
//! replace what stands behind the watermark; whoever asks for it does not change.

use crate::Entry;
use driftmesh_model::Lsn;
use std::collections::VecDeque;

/// How entries become stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stability {
    /// The only voter holds an entry as soon as it is appended.
    OnAppend,
    /// The host reports how far the entries are held (`Journal::advance`).
    Reported,
}

/// How much of the journal is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retain {
    /// Everything: for the simulator, which replays it.
    Everything,
    /// The newest entries up to this many bytes, and whatever is not stable.
    Bytes(usize),
}

/// The replicated log of one group.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Each entry with what it weighs, bytes.
    entries: VecDeque<(usize, Entry)>,
    /// The position of the last entry.
    tail: Lsn,
    watermark: Lsn,
    bytes: usize,
    stability: Stability,
    retain: Retain,
}

impl Journal {
    /// An empty journal.
    #[must_use]
    pub const fn new(stability: Stability, retain: Retain) -> Self {
        Self { entries: VecDeque::new(), tail: Lsn::ZERO, watermark: Lsn::ZERO, bytes: 0, stability, retain }
    }

    /// Appends an entry and returns its position.
    pub fn append(&mut self, entry: Entry) -> Lsn {
        if self.stability == Stability::OnAppend && self.retain == Retain::Bytes(0) {
            // Stable at once and wanted by nobody.
            self.tail = self.tail.next();
            self.watermark = self.tail;
            return self.tail;
        }
        let cost = entry.cost();
        self.bytes += cost;
        self.entries.push_back((cost, entry));
        self.tail = self.tail.next();
        if self.stability == Stability::OnAppend {
            self.watermark = self.tail;
        }
        self.trim();
        self.tail
    }

    /// The host holds everything up to `lsn`. Returns whether the watermark moved.
    pub fn advance(&mut self, lsn: Lsn) -> bool {
        let reached = lsn.min(self.tail);
        if reached <= self.watermark {
            return false;
        }
        self.watermark = reached;
        self.trim();
        true
    }

    fn trim(&mut self) {
        let Retain::Bytes(budget) = self.retain else { return };
        while self.bytes > budget && self.first() <= self.watermark {
            let Some((cost, _)) = self.entries.pop_front() else { return };
            self.bytes -= cost;
        }
    }

    /// The position of the oldest kept entry.
    fn first(&self) -> Lsn {
        Lsn::from_u64(self.tail.as_u64() + 1 - self.entries.len() as u64)
    }

    /// Whether what is appended is stable at once.
    pub(crate) fn is_stable_on_append(&self) -> bool {
        self.stability == Stability::OnAppend
    }

    /// The position of the last entry.
    #[must_use]
    pub const fn tail(&self) -> Lsn {
        self.tail
    }

    /// Everything up to here is stable.
    #[must_use]
    pub const fn watermark(&self) -> Lsn {
        self.watermark
    }

    /// The kept entries from a position on, each with its position.
    pub fn entries_from(&self, from: Lsn) -> impl Iterator<Item = (Lsn, &Entry)> {
        let first = self.first().as_u64();
        let skip = usize::try_from(from.as_u64().saturating_sub(first)).unwrap_or(usize::MAX).min(self.entries.len());
        (first + skip as u64..).map(Lsn::from_u64).zip(self.entries.range(skip..).map(|(_, entry)| entry))
    }
}
