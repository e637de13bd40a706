//! Whether what was read at the end is what the last writers left.
//!
//! It judges durability: nothing acknowledged may be missing and nothing
//! replaced or aborted may be back. It refuses to compare objects that have no
//! version order; those have been reported already.

use std::collections::BTreeSet;

use super::findings::Findings;
use super::history::{ObjectKey, Token};
use super::ledger::{Ledger, Origin};
use super::version_order::VersionOrder;
use super::violation::Violation;

/// Reports every object that does not end as its last version.
pub(super) fn check_final_state(ledger: &Ledger<'_>, order: &VersionOrder, findings: &mut Findings) {
    let final_state = &ledger.history.final_state;
    // Not only the objects with a version order: an object may have been
    // created by the missing half of a torn transaction alone.
    let versions = ledger.versions.iter();
    let written: BTreeSet<ObjectKey> =
        versions.filter(|version| ledger.took_effect[version.writer]).map(|version| version.write.object).collect();
    for object in written {
        if !final_state.contains_key(&object) {
            findings.report(Violation::MissingFinalState { object });
        }
    }
    for (&object, &token) in final_state {
        match ledger.origin(object, token) {
            Origin::Nobody => findings.report(Violation::PhantomFinalState { object, token }),
            Origin::Ineffective(version) => {
                findings.report(Violation::DirtyFinalState { object, token, aborted: ledger.writer_name(version) })
            }
            Origin::Initial | Origin::Effective(_) => {
                if let Some(chain) = order.chains.get(&object) {
                    check_tail(ledger, object, token, chain, findings);
                }
            }
        }
    }
}

/// Compares the final version, known to be on the chain, with its end.
fn check_tail(ledger: &Ledger<'_>, object: ObjectKey, token: Token, chain: &[usize], findings: &mut Findings) {
    let place = chain.iter().position(|&version| ledger.versions[version].write.token == token);
    let missing = match place {
        Some(place) => &chain[place + 1..],
        // The initial version: everything after it is missing.
        None => chain,
    };
    match missing {
        [] => {}
        // One write, acknowledged and never seen by anybody: it was dropped.
        [only] if !ledger.versions[*only].was_read => {
            findings.report(Violation::LostCommit { txn: ledger.writer_name(*only), object, found: token })
        }
        // The replacement was read or overwritten, so it did exist for a
        // while: the old version has come back.
        [replacement, ..] => findings.report(Violation::ResurrectedVersion {
            object,
            token,
            replaced_by: ledger.writer_name(*replacement),
        }),
    }
}
