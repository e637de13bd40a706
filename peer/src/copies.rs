//! Values of objects that were here or were read lately, so that a grant need not carry them again.
//!
//! It refuses to say that a copy is the present value: whoever names one does so by its hash.

use driftmesh_model::{ObjectId, Timestamp, Value};
use lru::LruCache;
use std::num::NonZeroUsize;

/// Most copies kept (R24).
const COPIES_MAX: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");
/// Smaller values are sent rather than named by their hash, bytes.
pub(crate) const COPY_BYTES_MIN: usize = 256;
/// Larger ones are not kept: together they would not fit a bound.
const COPY_BYTES_MAX: usize = 16 << 10;

/// The newest known copy of some objects.
#[derive(Clone, Debug)]
pub(crate) struct Copies {
    cache: LruCache<ObjectId, (Timestamp, Value)>,
}

impl Default for Copies {
    fn default() -> Self {
        Self { cache: LruCache::new(COPIES_MAX) }
    }
}

impl Copies {
    pub(crate) fn keep(&mut self, object: ObjectId, commit: Timestamp, value: &Value, even_small: bool) {
        if (even_small || value.len() >= COPY_BYTES_MIN) && value.len() <= COPY_BYTES_MAX {
            self.cache.put(object, (commit, value.clone()));
        }
    }

    pub(crate) fn get(&mut self, object: ObjectId) -> Option<&(Timestamp, Value)> {
        self.cache.get(&object)
    }
}
