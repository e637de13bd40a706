//! What the attackers have sent, and what was done to them.
//!
//! It refuses to judge.

use crate::hostile::samples::Kind;
use crate::hostile::ways::Way;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Faults that are told in full.
const FAULTS_TOLD_MAX: usize = 10;

/// Shared by all attackers.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    sent: Mutex<BTreeMap<(Kind, Way), u64>>,
    faults: Mutex<Vec<String>>,
    /// Members that attackers pretended to be.
    pub(crate) identities: AtomicU64,
    /// How often a peer broke off with an attacker.
    pub(crate) broken_off: AtomicU64,
    /// How often an attacker that came back was told that it is refused.
    pub(crate) told_refused: AtomicU64,
    /// Bytes sent that are no frame.
    pub(crate) no_frames: AtomicU64,
    /// How often an attacker had to wait because what it had said was not taken yet.
    pub(crate) made_to_wait: AtomicU64,
    /// Connections of strangers, by what they did then.
    pub(crate) silent: AtomicU64,
    pub(crate) half_open: AtomicU64,
    pub(crate) garbage: AtomicU64,
    pub(crate) come_and_go: AtomicU64,
    pub(crate) wrong_secret: AtomicU64,
    /// How long each honest newcomer took to join, milliseconds.
    joined: Mutex<Vec<u64>>,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The count now.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// Counts messages that were sent.
    pub(crate) fn sent(&self, kind: Kind, way: Way, count: u64) {
        *lock(&self.sent).entry((kind, way)).or_default() += count;
    }

    /// How many of each kind were sent.
    pub(crate) fn by_kind(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds: BTreeMap<_, _> = Kind::ALL.into_iter().map(|kind| (kind.name(), 0)).collect();
        for ((kind, _), count) in &*lock(&self.sent) {
            *kinds.entry(kind.name()).or_default() += count;
        }
        kinds
    }

    /// How many were sent in each way, of the kind of which there were fewest.
    pub(crate) fn fewest_by_way(&self) -> BTreeMap<&'static str, u64> {
        let sent = lock(&self.sent);
        let fewest = |way| Kind::ALL.into_iter().map(|kind| sent.get(&(kind, way)).copied().unwrap_or(0)).min();
        Way::ALL.into_iter().map(|way| (way.name(), fewest(way).unwrap_or(0))).collect()
    }

    /// All messages that were sent.
    pub(crate) fn all(&self) -> u64 {
        lock(&self.sent).values().sum()
    }

    /// All connections of strangers.
    pub(crate) fn strangers(&self) -> u64 {
        [&self.silent, &self.half_open, &self.garbage, &self.come_and_go, &self.wrong_secret]
            .into_iter()
            .map(read)
            .sum()
    }

    /// Notes what should not have happened.
    pub(crate) fn fault(&self, fault: String) {
        let mut faults = lock(&self.faults);
        if faults.len() < FAULTS_TOLD_MAX {
            faults.push(fault);
        }
    }

    /// What should not have happened.
    pub(crate) fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }

    /// An honest newcomer has joined.
    pub(crate) fn joined(&self, millis: u64) {
        lock(&self.joined).push(millis);
    }

    /// How long the honest newcomers took.
    pub(crate) fn joins(&self) -> Vec<u64> {
        lock(&self.joined).clone()
    }
}
