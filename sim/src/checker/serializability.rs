//! Which cycles serializability forbids.
//!
//! All of them: `SO ∪ WR ∪ WW ∪ RW` must be acyclic (Adya 2000, PL-3 with
//! sessions). This file refuses to decide which transactions are held to that;
//! the graph it is given contains only those.

use super::arrival_graph::{Adjacency, Arrival, node};
use super::dependency_graph::DependencyGraph;

/// Unfolds the graph, letting any edge follow any other. The nodes still tell
/// how they are arrived at, so that a cycle can be reported edge by edge.
///
/// The reduced edges suffice because each left-out edge is a path of them.
pub(super) fn unfold(graph: &DependencyGraph) -> Adjacency {
    let mut adjacency = vec![Vec::new(); 2 * graph.edges.len()];
    for (source, edges) in graph.edges.iter().enumerate() {
        for edge in edges {
            let arrival = if edge.kind.is_anti_dependency() { Arrival::AntiDependency } else { Arrival::Dependency };
            let target = node(edge.target, arrival);
            adjacency[node(source, Arrival::Dependency)].push(target);
            adjacency[node(source, Arrival::AntiDependency)].push(target);
        }
    }
    adjacency
}
