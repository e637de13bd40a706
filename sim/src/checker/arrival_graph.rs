//! The dependency graph unfolded by how each transaction was arrived at.
//!
//! Which edge may follow which is what tells isolation levels apart. Each
//! transaction becomes two nodes, one arrived at over a dependency and one
//! arrived at over an anti-dependency, so that a forbidden cycle is simply a
//! cycle. The unfolding itself refuses nothing: a level gives the edges.

/// How a walk arrived at a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Over a session, write-write or write-read edge.
    Dependency,
    /// Over a read-write edge.
    AntiDependency,
}

/// A graph over `2 * transactions` nodes.
pub(super) type Adjacency = Vec<Vec<usize>>;

/// The node of a transaction arrived at in a certain way.
pub(super) fn node(txn: usize, arrival: Arrival) -> usize {
    match arrival {
        Arrival::Dependency => 2 * txn,
        Arrival::AntiDependency => 2 * txn + 1,
    }
}

/// The transaction of a node.
pub(super) fn txn_of(node: usize) -> usize {
    node / 2
}

/// How a node is arrived at.
pub(super) fn arrival_of(node: usize) -> Arrival {
    if node.is_multiple_of(2) { Arrival::Dependency } else { Arrival::AntiDependency }
}

/// Cuts a cycle of nodes down until it meets no transaction twice.
///
/// A transaction can be met twice only as its two nodes. The part of the cycle
/// from the node arrived at over an anti-dependency to the other one is a
/// cycle by itself, because at every level whatever may follow an
/// anti-dependency may follow a dependency.
pub(super) fn without_repeats(mut cycle: Vec<usize>) -> Vec<usize> {
    while let Some((dependency, anti_dependency)) = repeated(&cycle) {
        cycle.rotate_left(anti_dependency);
        let length = (dependency + cycle.len() - anti_dependency) % cycle.len();
        let closing = cycle[length];
        cycle.truncate(length);
        cycle[0] = closing;
    }
    cycle
}

/// The places of the two nodes of a transaction met twice: first the one
/// arrived at over a dependency.
fn repeated(cycle: &[usize]) -> Option<(usize, usize)> {
    let mut places: Vec<(usize, usize)> = cycle.iter().copied().zip(0..).collect();
    places.sort_unstable();
    places
        .windows(2)
        .find(|pair| pair[0].0 != pair[1].0 && txn_of(pair[0].0) == txn_of(pair[1].0))
        .map(|pair| (pair[0].1, pair[1].1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_met_twice_is_cut_out() {
        let [first, second, third] = [0, 1, 2].map(|txn| node(txn, Arrival::Dependency));
        let first_again = node(0, Arrival::AntiDependency);
        // From the anti-dependency on: over `third` back to the start.
        let cycle = vec![first, second, first_again, third];
        for turn in 0..cycle.len() {
            let mut turned = cycle.clone();
            turned.rotate_left(turn);
            assert_eq!(without_repeats(turned), [first, third]);
        }
        let simple = vec![first_again, second, third];
        assert_eq!(without_repeats(simple.clone()), simple);
    }
}
