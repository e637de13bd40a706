//! The search for forbidden cycles, and their names.
//!
//! Shows one short cycle for each group of transactions that are entangled
//! with each other; it refuses to list all cycles, of which there can be
//! exponentially many.

use super::arrival_graph::{Adjacency, Arrival, arrival_of, txn_of, without_repeats};
use super::cycles::{cyclic_components, short_cycle};
use super::dependency_graph::{DependencyGraph, SessionOrder};
use super::findings::Findings;
use super::ledger::Ledger;
use super::version_order::VersionOrder;
use super::violation::{Anomaly, Cycle, CycleEdge, EdgeKind, Violation};

/// Reports forbidden cycles among the included transactions, and returns the
/// graph searched. What is forbidden is decided by `unfold`.
pub(super) fn check_cycles(
    ledger: &Ledger<'_>,
    order: &VersionOrder,
    included: &[bool],
    session_order: SessionOrder,
    unfold: fn(&DependencyGraph) -> Adjacency,
    findings: &mut Findings,
) -> DependencyGraph {
    let mut explained = vec![false; included.len()];
    let mut graph = DependencyGraph::build(ledger, order, included);
    report_cycles(ledger, &graph, &unfold(&graph), &mut explained, findings);
    match session_order {
        SessionOrder::Ignored => {}
        SessionOrder::Enforced => {
            // Searched second, so that a cycle that closes without the session
            // order is shown without it.
            graph.add_session_edges(ledger, included);
            report_cycles(ledger, &graph, &unfold(&graph), &mut explained, findings);
        }
    }
    graph
}

fn report_cycles(
    ledger: &Ledger<'_>,
    graph: &DependencyGraph,
    adjacency: &Adjacency,
    explained: &mut [bool],
    findings: &mut Findings,
) {
    for component in cyclic_components(adjacency) {
        if findings.is_full() {
            return;
        }
        if component.iter().any(|&node| explained[txn_of(node)]) {
            continue;
        }
        for &node in &component {
            explained[txn_of(node)] = true;
        }
        let nodes = without_repeats(short_cycle(adjacency, &component));
        findings.report(Violation::ForbiddenCycle(describe(ledger, graph, nodes)));
    }
}

fn describe(ledger: &Ledger<'_>, graph: &DependencyGraph, mut nodes: Vec<usize>) -> Cycle {
    // Starting at the earliest transaction makes reports of one cycle equal.
    let earliest = (0..nodes.len()).min_by_key(|&place| nodes[place]).unwrap_or(0);
    nodes.rotate_left(earliest);
    let targets = nodes.iter().cycle().skip(1);
    let edges: Vec<CycleEdge> = nodes
        .iter()
        .zip(targets)
        .filter_map(|(&source, &target)| {
            let anti_dependency = arrival_of(target) == Arrival::AntiDependency;
            // Edges are sorted, so this prefers the strongest reason.
            let edge = graph.edges[txn_of(source)]
                .iter()
                .find(|edge| edge.target == txn_of(target) && edge.kind.is_anti_dependency() == anti_dependency)?;
            Some(CycleEdge { from: ledger.name(txn_of(source)), kind: edge.kind, to: ledger.name(txn_of(target)) })
        })
        .collect();
    let edges = contracted(edges);
    Cycle { anomaly: classify(&edges), through_session: edges.iter().any(|edge| edge.kind == EdgeKind::Session), edges }
}

/// Joins neighbouring edges that reducing the graph has cut apart: write-write
/// edges on one object, and session edges.
fn contracted(edges: Vec<CycleEdge>) -> Vec<CycleEdge> {
    let mut joined: Vec<CycleEdge> = Vec::with_capacity(edges.len());
    for edge in edges {
        let is_transitive = match edge.kind {
            EdgeKind::WriteWrite(_) | EdgeKind::Session => true,
            EdgeKind::WriteRead(_) | EdgeKind::ReadWrite(_) => false,
        };
        match joined.last_mut() {
            Some(last) if is_transitive && last.kind == edge.kind => last.to = edge.to,
            Some(_) | None => joined.push(edge),
        }
    }
    joined
}

/// The name of a cycle by its edges. The names were made for cycles without
/// session edges; with them, a cycle is named after its other edges.
fn classify(edges: &[CycleEdge]) -> Anomaly {
    let is_anti_dependency: Vec<bool> = edges.iter().map(|edge| edge.kind.is_anti_dependency()).collect();
    let anti_dependencies = is_anti_dependency.iter().filter(|&&one| one).count();
    let following = is_anti_dependency.iter().cycle().skip(1);
    let adjacent = is_anti_dependency.iter().zip(following).any(|(&this, &following)| this && following);
    let reads = edges.iter().any(|edge| match edge.kind {
        EdgeKind::WriteRead(_) => true,
        EdgeKind::WriteWrite(_) | EdgeKind::ReadWrite(_) | EdgeKind::Session => false,
    });
    match anti_dependencies {
        0 if reads => Anomaly::G1c,
        0 => Anomaly::G0,
        1 => Anomaly::GSingle,
        _ if adjacent => Anomaly::G2Item,
        _ => Anomaly::GNonadjacent,
    }
}
