//! W13, the long reader: a snapshot that reads everything slowly, over seconds, while others write.
//!
//! It may end because what it sees is too old and not kept, never with a sum that is wrong. It refuses to write.

use crate::client::{Came, Client};

/// How long all of it takes without the reads themselves, us: less than clients are given once the faults stop.
const READS_FOR_US: std::ops::Range<u64> = 500_000..3_000_000;

impl Client {
    /// Counts all gold and items at one snapshot, with a long pause before each purse.
    pub(super) async fn read_slowly(&mut self) -> Came {
        let pause_us = self.rng.u64(READS_FOR_US) / self.world.purses.len().max(1) as u64;
        self.count_at_a_snapshot("read slowly", Some(pause_us)).await
    }
}
