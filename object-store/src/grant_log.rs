//! Which numbered grants of one sender a group has answered, so that a late duplicate never adopts twice (R20).

use driftmesh_model::limits::GRANT_WINDOW;
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
#[derive(Clone, PartialEq, Eq, Debug, Default)]
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

    /// The sender has settled everything below `number` and will never repeat it.
    pub fn settle_below(&mut self, number: u64) {
        while self.refused.first().is_some_and(|first| *first < number) {
            self.refused.pop_first();
        }
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
}
