//! Judges a history of client observations: was every transaction isolated and
//! every commit kept?
//!
//! [`check`] decides snapshot isolation and durability, [`check_serializable`]
//! serializability of the transactions that asked for it. Both see only what
//! clients saw and trust nothing the system says about itself. They refuse to
//! judge real time (a history has no clocks beyond the order of each session),
//! progress (a history in which everything aborted is correct; look at the
//! [`Summary`]), and what transactions that did not take effect have read.
//!
//! The stages, each in its own file: which transactions took effect, the order
//! of the versions of each object, the final state, each read by itself, and
//! the search for cycles. Time is linear in the history up to the logarithm of
//! ordered maps.

mod arrival_graph;
mod cycles;
mod dependency_graph;
mod final_state;
mod findings;
mod forbidden_cycles;
mod history;
mod ledger;
mod reads;
mod serializability;
mod snapshot_isolation;
#[cfg(test)]
mod tests;
mod version_order;
mod violation;

use serde::Serialize;

pub use dependency_graph::SessionOrder;
pub use findings::VIOLATIONS_PER_STAGE;
pub use history::{History, ObjectKey, Outcome, ReadRecord, Token, TxnRecord, WriteRecord};
pub use violation::{Anomaly, Cycle, CycleEdge, EdgeKind, RecordFault, TxnName, Violation};

use arrival_graph::Adjacency;
use dependency_graph::DependencyGraph;
use findings::Findings;
use ledger::Ledger;
use version_order::VersionOrder;

/// What a history without violations consisted of. A pass means little if
/// these numbers are small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Transactions acknowledged as committed.
    pub committed: usize,
    /// Transactions acknowledged as aborted.
    pub aborted: usize,
    /// Transactions of unknown outcome that took effect.
    pub unknown_effective: usize,
    /// Transactions of unknown outcome of which nothing was seen.
    pub unknown_unseen: usize,
    /// Transactions the cycle search covered.
    pub searched: usize,
    /// Objects with at least one version that took effect.
    pub objects: usize,
    /// Versions that took effect.
    pub versions: usize,
    /// Reads of transactions that took effect.
    pub reads: usize,
    /// Session, write-write and write-read edges of the reduced graph.
    pub dependencies: usize,
    /// Read-write edges of the reduced graph.
    pub anti_dependencies: usize,
}

/// Checks strong session snapshot isolation and durability.
///
/// # Errors
///
/// The violations found, at most [`VIOLATIONS_PER_STAGE`] per stage.
pub fn check(history: &History) -> Result<Summary, Vec<Violation>> {
    check_with(history, SessionOrder::Enforced)
}

/// As [`check`], with a choice whether sessions count.
///
/// # Errors
///
/// The violations found, at most [`VIOLATIONS_PER_STAGE`] per stage.
pub fn check_with(history: &History, session_order: SessionOrder) -> Result<Summary, Vec<Violation>> {
    run(history, session_order, snapshot_isolation::unfold, |_| true)
}

/// Checks that the transactions flagged as serializable are so among
/// themselves: a cycle counts only if every transaction in it is flagged.
/// Everything but the cycle search covers all transactions, as in [`check`].
///
/// # Errors
///
/// The violations found, at most [`VIOLATIONS_PER_STAGE`] per stage.
pub fn check_serializable(history: &History) -> Result<Summary, Vec<Violation>> {
    check_serializable_with(history, SessionOrder::Enforced)
}

/// As [`check_serializable`], with a choice whether sessions count.
///
/// # Errors
///
/// The violations found, at most [`VIOLATIONS_PER_STAGE`] per stage.
pub fn check_serializable_with(history: &History, session_order: SessionOrder) -> Result<Summary, Vec<Violation>> {
    run(history, session_order, serializability::unfold, |txn| txn.serializable)
}

fn run(
    history: &History,
    session_order: SessionOrder,
    unfold: fn(&DependencyGraph) -> Adjacency,
    include: fn(&TxnRecord) -> bool,
) -> Result<Summary, Vec<Violation>> {
    let mut stages: [Findings; 5] = Default::default();
    let [in_records, in_order, in_final_state, in_reads, in_cycles] = &mut stages;
    let ledger = Ledger::settle(history, in_records);
    let order = VersionOrder::derive(&ledger, in_order);
    final_state::check_final_state(&ledger, &order, in_final_state);
    reads::check_reads(&ledger, in_reads);
    let included: Vec<bool> =
        history.txns.iter().zip(&ledger.took_effect).map(|(txn, &took_effect)| took_effect && include(txn)).collect();
    let graph = forbidden_cycles::check_cycles(&ledger, &order, &included, session_order, unfold, in_cycles);
    let violations: Vec<Violation> = stages.into_iter().flat_map(Findings::into_violations).collect();
    if violations.is_empty() { Ok(summarize(&ledger, &order, &included, &graph)) } else { Err(violations) }
}

fn summarize(ledger: &Ledger<'_>, order: &VersionOrder, included: &[bool], graph: &DependencyGraph) -> Summary {
    let (dependencies, anti_dependencies) = graph.count();
    let mut summary = Summary {
        searched: included.iter().filter(|&&included| included).count(),
        objects: order.chains.len(),
        versions: order.chains.values().map(Vec::len).sum(),
        reads: ledger.effective_txns().map(|(_, txn)| txn.reads.len()).sum(),
        dependencies,
        anti_dependencies,
        ..Summary::default()
    };
    for (txn, &took_effect) in ledger.history.txns.iter().zip(&ledger.took_effect) {
        match (txn.outcome, took_effect) {
            (Outcome::Committed, _) => summary.committed += 1,
            (Outcome::Aborted, _) => summary.aborted += 1,
            (Outcome::Unknown, true) => summary.unknown_effective += 1,
            (Outcome::Unknown, false) => summary.unknown_unseen += 1,
        }
    }
    summary
}
