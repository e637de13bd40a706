//! The order of the versions of each object, known from what each write
//! overwrote.
//!
//! The links from version to predecessor must form one chain from the initial
//! version. An object for which they do not is reported and gets no order:
//! this stage refuses to pick one of several, so later stages never accuse a
//! transaction on the strength of a guess.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::Findings;
use super::history::{ObjectKey, Token};
use super::ledger::{Ledger, Origin};
use super::violation::Violation;

/// How many transactions of a circle of versions are named.
const CIRCLE_NAMES: usize = 8;

/// The versions of each object, oldest first, the initial one left out. Holds
/// only objects whose versions form a chain.
#[derive(Debug, Default)]
pub(super) struct VersionOrder {
    pub(super) chains: BTreeMap<ObjectKey, Vec<usize>>,
}

impl VersionOrder {
    /// Orders the versions that took effect. Reports what breaks a chain.
    pub(super) fn derive(ledger: &Ledger<'_>, findings: &mut Findings) -> Self {
        let mut by_object: BTreeMap<ObjectKey, Vec<usize>> = BTreeMap::new();
        for (version, entry) in ledger.versions.iter().enumerate() {
            if ledger.must_fit(version) {
                by_object.entry(entry.write.object).or_default().push(version);
            }
        }
        let mut order = Self::default();
        for (object, versions) in by_object {
            if let Some(chain) = derive_chain(ledger, object, &versions, findings) {
                order.chains.insert(object, chain);
            }
        }
        order
    }
}

fn derive_chain(
    ledger: &Ledger<'_>,
    object: ObjectKey,
    versions: &[usize],
    findings: &mut Findings,
) -> Option<Vec<usize>> {
    let mut successors: BTreeMap<Token, Vec<usize>> = BTreeMap::new();
    for &version in versions {
        successors.entry(ledger.versions[version].write.predecessor).or_default().push(version);
    }
    let mut sound = true;
    for (&predecessor, overwriters) in &successors {
        sound &= predecessor_is_sound(ledger, object, predecessor, overwriters[0], findings);
        for pair in overwriters.windows(2) {
            sound = false;
            findings.report(Violation::LostUpdate {
                object,
                predecessor,
                first: ledger.writer_name(pair[0]),
                second: ledger.writer_name(pair[1]),
            });
        }
    }
    if !sound {
        return None;
    }
    // This ends: a version can be met again only after its one predecessor
    // has been, and the first predecessor is the initial version, which no
    // write produces.
    let mut chain = Vec::with_capacity(versions.len());
    let mut token = Token::INITIAL;
    while let Some(&version) = successors.get(&token).and_then(|list| list.first()) {
        chain.push(version);
        token = ledger.versions[version].write.token;
    }
    if chain.len() == versions.len() {
        return Some(chain);
    }
    report_circle(ledger, object, versions, &chain, findings);
    None
}

fn predecessor_is_sound(
    ledger: &Ledger<'_>,
    object: ObjectKey,
    token: Token,
    overwriter: usize,
    findings: &mut Findings,
) -> bool {
    match ledger.origin(object, token) {
        Origin::Initial | Origin::Effective(_) => true,
        Origin::Ineffective(version) => {
            findings.report(Violation::DirtyWrite {
                txn: ledger.writer_name(overwriter),
                object,
                token,
                aborted: ledger.writer_name(version),
            });
            false
        }
        Origin::Nobody => {
            let txn = ledger.writer_name(overwriter);
            findings.report(Violation::PhantomVersion { txn, object, token });
            false
        }
    }
}

/// Names the circle that keeps some versions off the chain. All predecessors
/// are known to exist and to be overwritten once, so the versions off the
/// chain form circles only, and following predecessors from any of them goes
/// round one.
fn report_circle(ledger: &Ledger<'_>, object: ObjectKey, versions: &[usize], chain: &[usize], findings: &mut Findings) {
    let on_chain: BTreeSet<usize> = chain.iter().copied().collect();
    let Some(&start) = versions.iter().find(|version| !on_chain.contains(version)) else {
        return;
    };
    let mut members = vec![start];
    let mut current = start;
    while members.len() < CIRCLE_NAMES {
        match ledger.origin(object, ledger.versions[current].write.predecessor) {
            Origin::Effective(version) if version != start => {
                members.push(version);
                current = version;
            }
            Origin::Effective(_) | Origin::Initial | Origin::Ineffective(_) | Origin::Nobody => {
                break;
            }
        }
    }
    members.reverse();
    let txns = members.into_iter().map(|version| ledger.writer_name(version)).collect();
    findings.report(Violation::CircularVersions { object, txns });
}
