//! Which transaction must come after which, and why.
//!
//! The edges are those of Adya (2000): write-write, write-read and the
//! anti-dependency read-write, with the session order of Cerone and Gotsman
//! ("Analysing Snapshot Isolation", 2016). Only a reduced set is kept, so that
//! the graph is linear in the size of the history. The graph refuses to say
//! which cycles are forbidden; that depends on the isolation level.

use std::collections::BTreeMap;

use super::history::{ObjectKey, Outcome};
use super::ledger::{Ledger, Origin};
use super::version_order::VersionOrder;
use super::violation::EdgeKind;

/// Whether a transaction must come after the earlier ones of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionOrder {
    /// It must: strong session snapshot isolation.
    Enforced,
    /// It need not: plain snapshot isolation.
    Ignored,
}

/// An edge, kept with its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    /// The position of the transaction that comes after.
    pub(super) target: usize,
    /// Why it does.
    pub(super) kind: EdgeKind,
}

/// The reduced edges between the included transactions.
///
/// The full relations are transitive along the versions of an object and along
/// a session. Kept are only
///
/// * ww from a writer to the next included writer of the object,
/// * wr from the writer of a version to each of its readers,
/// * rw from a reader to the next included writer after the version it read,
/// * so from a transaction to the next ones of its session (see
///   [`add_session_edges`](Self::add_session_edges)).
///
/// A left-out ww or so edge is a path of kept ones of the same kind. A left-out
/// rw edge is a kept rw edge followed by kept ww edges; where the next writer
/// is the reader itself there is no rw edge and its ww edges alone do. That
/// this loses no forbidden cycle is argued with the isolation levels.
///
/// With transactions left out, "next included writer" keeps every edge of the
/// full relations that joins two included transactions; it does not keep paths
/// through those left out.
#[derive(Debug)]
pub(super) struct DependencyGraph {
    /// The edges out of each transaction, sorted.
    pub(super) edges: Vec<Vec<Edge>>,
}

/// For each version, the next included writer of its object.
struct NextWriters {
    after_initial: BTreeMap<ObjectKey, usize>,
    after_version: Vec<Option<usize>>,
}

impl DependencyGraph {
    /// Builds the graph of the effective transactions that are `included`,
    /// without session edges. Objects without a version order give wr edges
    /// only.
    pub(super) fn build(ledger: &Ledger<'_>, order: &VersionOrder, included: &[bool]) -> Self {
        let mut graph = Self { edges: vec![Vec::new(); included.len()] };
        let next_writers = graph.add_write_edges(ledger, order, included);
        graph.add_read_edges(ledger, &next_writers, included);
        graph.sort();
        graph
    }

    /// Adds the session edges.
    ///
    /// A transaction acknowledged to its session comes before all later ones
    /// of the session. One of unknown outcome comes after the earlier ones but
    /// before none: it may take effect long after the session has moved on.
    pub(super) fn add_session_edges(&mut self, ledger: &Ledger<'_>, included: &[bool]) {
        let mut last_acknowledged: BTreeMap<u32, usize> = BTreeMap::new();
        for (position, txn) in ledger.effective_txns() {
            if !included[position] {
                continue;
            }
            if let Some(&last) = last_acknowledged.get(&txn.session) {
                self.add(last, position, EdgeKind::Session);
            }
            match txn.outcome {
                Outcome::Committed => {
                    last_acknowledged.insert(txn.session, position);
                }
                Outcome::Aborted | Outcome::Unknown => {}
            }
        }
        self.sort();
    }

    fn sort(&mut self) {
        for edges in &mut self.edges {
            edges.sort_unstable();
            edges.dedup();
        }
    }

    fn add(&mut self, source: usize, target: usize, kind: EdgeKind) {
        // A transaction is never before itself: one that overwrites what it
        // read has no anti-dependency on itself.
        if source != target {
            self.edges[source].push(Edge { target, kind });
        }
    }

    fn add_write_edges(&mut self, ledger: &Ledger<'_>, order: &VersionOrder, included: &[bool]) -> NextWriters {
        let mut next_writers =
            NextWriters { after_initial: BTreeMap::new(), after_version: vec![None; ledger.versions.len()] };
        for (&object, chain) in &order.chains {
            let mut next = None;
            for &version in chain.iter().rev() {
                next_writers.after_version[version] = next;
                let writer = ledger.versions[version].writer;
                if included[writer] {
                    if let Some(next) = next {
                        self.add(writer, next, EdgeKind::WriteWrite(object));
                    }
                    next = Some(writer);
                }
            }
            if let Some(first) = next {
                next_writers.after_initial.insert(object, first);
            }
        }
        next_writers
    }

    fn add_read_edges(&mut self, ledger: &Ledger<'_>, next_writers: &NextWriters, included: &[bool]) {
        for (reader, txn) in ledger.effective_txns() {
            if !included[reader] {
                continue;
            }
            for read in &txn.reads {
                let object = read.object;
                let next = match ledger.origin(object, read.token) {
                    Origin::Initial => next_writers.after_initial.get(&object).copied(),
                    Origin::Effective(version) => {
                        let writer = ledger.versions[version].writer;
                        if included[writer] {
                            self.add(writer, reader, EdgeKind::WriteRead(object));
                        }
                        next_writers.after_version[version]
                    }
                    // Reported as a dirty or phantom read; it has no place in
                    // the version order.
                    Origin::Ineffective(_) | Origin::Nobody => None,
                };
                if let Some(next) = next {
                    self.add(reader, next, EdgeKind::ReadWrite(object));
                }
            }
        }
    }

    /// How many edges there are: dependencies and anti-dependencies.
    pub(super) fn count(&self) -> (usize, usize) {
        let total: usize = self.edges.iter().map(Vec::len).sum();
        let anti_dependencies = self.edges.iter().flatten().filter(|edge| edge.kind.is_anti_dependency()).count();
        (total - anti_dependencies, anti_dependencies)
    }
}
