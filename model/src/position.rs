//! Positions and generations: where something stands in a journal, and which of two claims is newer.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! counter {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The first one, before anything happened.
            pub const ZERO: Self = Self(0);

            /// The one with this number.
            #[must_use]
            pub const fn from_u64(value: u64) -> Self {
                Self(value)
            }

            /// The number.
            #[must_use]
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The next one. Saturates: a number received from a peer must never overflow (R25).
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

counter!(
    Epoch,
    "How often an object's mastership has moved: grows by one at each transfer within a generation. Its upper half is the highest generation \
     of a group that had it: that outranks all moves in a former generation, and goes with the object (R2)."
);
counter!(Generation, "Of a group: rises when an operator re-founds it; outranks term and epoch.");
counter!(Lsn, "A position in a group's journal.");
counter!(Term, "A leadership period of a group.");

/// The bits of an epoch that count moves. No object moves so often while one generation lasts.
const MOVE_BITS: u32 = 32;

impl Generation {
    /// No sound group comes so far: an epoch has no room for more (R25).
    pub const END: Self = Self(1 << 30);
}

impl Epoch {
    /// The epoch of what a group of this generation has.
    #[must_use]
    pub const fn of_generation(self, generation: Generation) -> Self {
        let least = if generation.0 >> MOVE_BITS == 0 { generation.0 << MOVE_BITS } else { u64::MAX };
        if self.0 < least { Self(least) } else { self }
    }

    /// The highest generation that is known to have had the object.
    #[must_use]
    pub const fn generation(self) -> Generation {
        Generation(self.0 >> MOVE_BITS)
    }
}
