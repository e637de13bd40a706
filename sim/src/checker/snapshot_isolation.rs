//! Which cycles snapshot isolation forbids.
//!
//! Cerone and Gotsman ("Analysing Snapshot Isolation", 2016) prove that a
//! history whose transactions agree with themselves is allowed exactly if
//! `(SO ∪ WR ∪ WW) ; RW?` is acyclic: every cycle must have two adjacent
//! anti-dependencies. This file refuses to look for anything else; in
//! particular it lets write skew pass.

use super::arrival_graph::{Adjacency, Arrival, node};
use super::dependency_graph::DependencyGraph;

/// Unfolds the graph so that exactly the forbidden cycles are cycles: after an
/// anti-dependency only a dependency may follow.
///
/// A cycle here never has two read-write edges in a row, and each of them
/// follows a dependency, so it falls apart into steps `dependency ; RW?`, and
/// the other way round.
///
/// The reduced edges suffice. Take a forbidden cycle over the full relations
/// and walk round it for ever. Follow it over reduced edges, keeping this
/// invariant: we are at the same transaction, and may go on over any edge the
/// full walk may. A dependency that was left out is a path of reduced
/// dependencies to the same transaction and the same arrival. A read-write
/// edge that was left out is a reduced read-write edge followed by at least one
/// reduced write-write edge, or write-write edges alone if the reader is the
/// next writer; both end at the same transaction, arrived at over a
/// dependency, from where at least as much is allowed. So the walk over
/// reduced edges never ends either, and in a finite graph it has a cycle. The
/// other direction needs no argument: reduced edges are edges.
pub(super) fn unfold(graph: &DependencyGraph) -> Adjacency {
    let mut adjacency = vec![Vec::new(); 2 * graph.edges.len()];
    for (source, edges) in graph.edges.iter().enumerate() {
        let by_dependency = node(source, Arrival::Dependency);
        let by_anti_dependency = node(source, Arrival::AntiDependency);
        for edge in edges {
            if edge.kind.is_anti_dependency() {
                adjacency[by_dependency].push(node(edge.target, Arrival::AntiDependency));
            } else {
                let target = node(edge.target, Arrival::Dependency);
                adjacency[by_dependency].push(target);
                adjacency[by_anti_dependency].push(target);
            }
        }
    }
    adjacency
}
