//! How many refused tasks of a peer may be tried again: a part of those that are submitted, so that retries never make an overload
//! worse by more than that part (a retry budget, after Finagle's). And when: never all at once.
//!
//! It refuses to know why a task was refused.

use driftmesh_model::Micros;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many tasks that are submitted allow one retry.
const SUBMITTED_PER_RETRY: u64 = 5;
/// Retries that may be saved up; as many are there at the start.
const SAVED_MAX: u64 = 100;

/// What is left for retries, in parts of one.
#[derive(Debug)]
pub(crate) struct RetryBudget(AtomicU64);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU64::new(SAVED_MAX * SUBMITTED_PER_RETRY))
    }
}

impl RetryBudget {
    /// A task is submitted that may be tried again.
    pub(crate) fn submitted(&self) {
        self.change(|left| Some((left + 1).min(SAVED_MAX * SUBMITTED_PER_RETRY)));
    }

    /// Takes one retry, if one is left.
    pub(crate) fn take(&self) -> bool {
        self.change(|left| left.checked_sub(SUBMITTED_PER_RETRY))
    }

    fn change(&self, change: impl FnMut(u64) -> Option<u64>) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

/// How long to wait before a retry: as long as was asked for, longer each time, and up to as much again by chance, so that those
/// who were refused together do not come back together.
pub(crate) fn pause(retry_after: Micros, retries: u32, chance: u64) -> Micros {
    let least = retry_after.0.saturating_mul(1 << retries.min(6)).max(1);
    Micros(least.saturating_add(chance % least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_retry_is_earned_by_several_tasks_and_some_are_saved() {
        let budget = RetryBudget::default();
        budget.submitted();
        assert_eq!((0..1_000).filter(|_| budget.take()).count(), 100);
        for _ in 0..SUBMITTED_PER_RETRY - 1 {
            budget.submitted();
        }
        assert!(!budget.take());
        budget.submitted();
        assert!(budget.take() && !budget.take());
    }

    #[test]
    fn a_pause_is_what_was_asked_for_at_least_and_grows() {
        let asked = Micros::from_millis(20);
        assert_eq!(pause(asked, 0, 0), asked);
        assert_eq!(pause(asked, 0, 19_999), Micros(39_999));
        assert_eq!(pause(asked, 2, 0), Micros::from_millis(80));
        assert_eq!(pause(asked, 60, 0), Micros::from_millis(20 * 64));
        assert_eq!(pause(Micros(0), 0, 7), Micros(1));
    }
}
