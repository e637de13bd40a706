//! Who goes over to a newcomer, so that all peers have about as many: who has no peer first, then one of the fullest.
//!
//! It refuses to know what it divides.

/// Which one is next, of those that are at these peers. `others` are all that live but the newcomer.
pub(crate) fn next_to_move(
    at: impl Iterator<Item = Option<usize>> + Clone,
    others: impl Iterator<Item = usize>,
) -> Option<usize> {
    at.clone().position(|peer| peer.is_none()).or_else(|| {
        let fullest = others.max_by_key(|other| at.clone().filter(|peer| *peer == Some(*other)).count())?;
        at.clone().position(|peer| peer == Some(fullest))
    })
}
