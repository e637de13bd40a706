//! A bounded list of violations.
//!
//! One fault in a system can break thousands of transactions; a report that
//! lists them all helps nobody. Each stage of a check gets its own list, so
//! that a flood in one does not hide what another found. The list refuses to
//! grow past its bound but never forgets that something was found.

use super::violation::Violation;

/// How many violations one stage of a check reports at most.
pub const VIOLATIONS_PER_STAGE: usize = 16;

/// The violations one stage has found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    violations: Vec<Violation>,
}

impl Findings {
    /// Adds a violation, or drops it if the stage has reported enough.
    pub(super) fn report(&mut self, violation: Violation) {
        if !self.is_full() {
            self.violations.push(violation);
        }
    }

    /// Whether further violations would be dropped.
    pub(super) fn is_full(&self) -> bool {
        self.violations.len() >= VIOLATIONS_PER_STAGE
    }

    /// The violations, in the order they were found.
    pub(super) fn into_violations(self) -> Vec<Violation> {
        self.violations
    }
}
