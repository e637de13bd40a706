//! Physical time as it comes in from outside, and the timestamps made of it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Microseconds. As a point in time: since the UNIX epoch (wall clock) or since an arbitrary start (monotonic).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    /// This many milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// A duration, rounded down; the longest that there is, if that is shorter.
    #[must_use]
    pub fn from_duration(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }

    /// Whether it is zero; where that means that nothing is known, it is not written.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// In milliseconds, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// The point `duration` later; saturates.
    #[must_use]
    pub const fn plus(self, duration: Self) -> Self {
        Self(self.0.saturating_add(duration.0))
    }

    /// The time from `earlier` to this; zero if it lies before.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

/// The time of one step, handed to the core by its host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// A clock that never goes back; timers and deadlines use it.
    pub mono: Micros,
    /// The wall clock since the UNIX epoch; timestamps use it. It may jump.
    pub wall: Micros,
}

/// A point of the hybrid logical clock: 52 bits of microseconds since the UNIX epoch, 12 bits of counter.
///
/// Snapshot timestamps, commit timestamps and floors are all of this type; names say which is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

const COUNTER_BITS: u32 = 12;

impl Timestamp {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// No clock of a sound peer says so much (it is about the year 2103): a grant that does would stop its receiver's
    /// clock from climbing.
    pub const SOUND_MAX: Self = Self(u64::MAX - (1 << 60));
    /// What comes from elsewhere lies below this, years before [`Timestamp::SOUND_MAX`]: whoever takes it can still say something
    /// later that is sound.
    pub const ARRIVING_MAX: Self = Self(Self::SOUND_MAX.0 - (1 << 59));
    /// After everything that a clock within its bounds ever says.
    pub const MAX: Self = Self(u64::MAX);

    /// Whether it is before everything; where that means that nothing is known, it is not written.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// The first timestamp of a microsecond. Saturates in the year 2112.
    #[must_use]
    pub const fn from_wall(wall: Micros) -> Self {
        if wall.0 >> (u64::BITS - COUNTER_BITS) != 0 {
            return Self::MAX;
        }
        Self(wall.0 << COUNTER_BITS)
    }

    /// The microsecond it lies in.
    #[must_use]
    pub const fn wall(self) -> Micros {
        Micros(self.0 >> COUNTER_BITS)
    }

    /// The next one; saturates.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The timestamp with these bits.
    #[must_use]
    pub const fn from_u64(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.wall().0, self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// A transaction's age for wound-wait (R12): smaller is older. Kept over retries and unique in the mesh.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TxnTimestamp {
    /// When the transaction was first admitted, by its peer's clock.
    pub time: Timestamp,
    /// Tells transactions of the same moment apart: the incarnation that runs it.
    pub incarnation: u64,
    /// And its number there.
    pub sequence: u64,
}

impl TxnTimestamp {
    /// Whether this transaction is older than the other and so wins against it.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        self < other
    }
}

impl fmt::Display for TxnTimestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:x}/{}@{}", self.incarnation, self.sequence, self.time)
    }
}
