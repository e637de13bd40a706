//! Journals: entries of all kinds, sound and wild, applied, undone, made stable, pruned and copied.
//!
//! An entry that passes the check can be applied and undone, a state is always the fold of its journal, and a copy the state
//! where it began.

use super::life::Life;
use crate::choices::Choices;

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut life = Life::new();
    life.live(&mut Choices::new(data));
    life.is_a_replay();
    life.finish_copy();
    life.roll_back();
    life.is_a_replay();
}
