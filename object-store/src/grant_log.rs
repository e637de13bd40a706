//! Which numbered grants of one sender a group has answered, so that a late duplicate never adopts twice (R20).

use driftmesh_model::limits::GRANT_WINDOW;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a grant's number means to its receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrantSeen {
    /// Not answered yet.
    New,
    /// Answered: the object was adopted.
    Adopted,
    /// Answered: refused, and it stays refused.
    Refused,
    /// So far beyond what was answered that it cannot be remembered; the sender will repeat it.
    BeyondWindow,
}

/// The highest number up to which all are answered, and the answered ones above it within a window.
///
/// Refusals are remembered until the sender says that it has settled them: forgetting one would acknowledge an
/// object that was never adopted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GrantLog {
    contiguous: u64,
    above: BTreeSet<u64>,
    refused: BTreeSet<u64>,
}

impl GrantLog {
    /// What this number means here. Numbers start at 1.
    #[must_use]
    pub fn look_up(&self, number: u64) -> GrantSeen {
        if self.refused.contains(&number) {
            GrantSeen::Refused
        } else if number <= self.contiguous || self.above.contains(&number) {
            GrantSeen::Adopted
        } else if number > self.contiguous.saturating_add(GRANT_WINDOW) {
            GrantSeen::BeyondWindow
        } else {
            GrantSeen::New
        }
    }

    /// Notes a number as answered.
    pub fn record(&mut self, number: u64, refused: bool) {
        if refused {
            self.refused.insert(number);
        }
        self.above.insert(number);
        while self.above.remove(&self.contiguous.saturating_add(1)) {
            self.contiguous += 1;
        }
    }

    /// The reverse of `record`, for a number that it noted and that was not noted before.
    pub fn forget(&mut self, number: u64) {
        self.refused.remove(&number);
        if number > self.contiguous {
            self.above.remove(&number);
            return;
        }
        // At most a window of them: numbers beyond it are not recorded.
        self.above.extend(number.saturating_add(1)..=self.contiguous);
        self.contiguous = number.saturating_sub(1);
    }

    /// The sender has settled everything below `number` and will never repeat it. Returns which refusals need not be
    /// remembered any more.
    pub fn settle_below(&mut self, number: u64) -> Vec<u64> {
        let mut settled = Vec::new();
        while self.refused.first().is_some_and(|first| *first < number) {
            settled.extend(self.refused.pop_first());
        }
        settled
    }

    /// The reverse of `settle_below`, for what it returned.
    pub fn unsettle(&mut self, refused: impl IntoIterator<Item = u64>) {
        self.refused.extend(refused);
    }

    /// Whether `record` and `settle_below` could have made it: one that came from elsewhere may lie (R25).
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let next = self.contiguous.saturating_add(1);
        let window_end = self.contiguous.saturating_add(GRANT_WINDOW);
        self.above.first().is_none_or(|first| *first > next)
            && self.above.last().is_none_or(|last| *last <= window_end)
            && self.refused.iter().all(|number| *number > 0 && (*number < next || self.above.contains(number)))
    }

    /// Everything up to this number is answered.
    #[must_use]
    pub const fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// The highest number that was answered.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.above.last().copied().unwrap_or(self.contiguous).max(self.contiguous)
    }

    /// About how much it weighs, bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        const FIXED: usize = 64;
        const NUMBER: usize = 9;
        FIXED + NUMBER * (self.above.len() + self.refused.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_remembered_in_bounded_memory() {
        let mut log = GrantLog::default();
        assert_eq!(log.look_up(1), GrantSeen::New);
        log.record(2, false);
        assert_eq!((log.look_up(1), log.look_up(2)), (GrantSeen::New, GrantSeen::Adopted));
        log.record(1, true);
        assert_eq!((log.contiguous, log.above.len()), (2, 0));
        assert_eq!(log.look_up(1), GrantSeen::Refused);
        assert_eq!(log.look_up(2 + GRANT_WINDOW), GrantSeen::New);
        assert_eq!(log.look_up(3 + GRANT_WINDOW), GrantSeen::BeyondWindow);
        log.settle_below(2);
        assert_eq!((log.look_up(1), log.refused.len()), (GrantSeen::Adopted, 0));
    }

    #[test]
    fn what_was_recorded_is_forgotten_in_any_order_of_numbers() {
        let mut log = GrantLog::default();
        let mut before = Vec::new();
        for (number, refused) in [(3, false), (1, true), (5, false), (2, false), (4, true)] {
            before.push((number, log.clone()));
            log.record(number, refused);
            assert!(log.is_sound());
        }
        assert_eq!(log.contiguous, 5);
        for (number, former) in before.into_iter().rev() {
            log.forget(number);
            assert_eq!(log, former);
        }
    }

    #[test]
    fn a_log_that_no_grants_could_make_is_not_sound() {
        let sound = GrantLog { contiguous: 4, above: [6].into(), refused: [2, 6].into() };
        assert!(sound.is_sound());
        assert!(!GrantLog { above: [5].into(), ..sound.clone() }.is_sound(), "5 belongs to the contiguous ones");
        assert!(!GrantLog { above: [5 + GRANT_WINDOW].into(), ..sound.clone() }.is_sound());
        assert!(!GrantLog { refused: [5].into(), ..sound }.is_sound(), "refused, but not answered");
    }
}
