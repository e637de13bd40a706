//! Random numbers that no seed decides: names of meshes, secrets, and choices that nobody wants to see again.
//!
//! It refuses to be secret enough for more than a testnet.

use fastrand::Rng;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A generator that begins elsewhere each time.
pub(crate) fn rng() -> Rng {
    Rng::with_seed(RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_generators_begin_alike() {
        assert_ne!(super::rng().u128(..), super::rng().u128(..));
    }
}
