//! Whether each read, taken by itself, can have happened.
//!
//! It looks at one transaction at a time: are the versions it read real, and
//! does it agree with itself? Whether the reads of a transaction fit one
//! snapshot is for the cycle search. It refuses to judge what transactions
//! that did not take effect have read.

use std::collections::BTreeMap;

use super::findings::Findings;
use super::history::{ObjectKey, ReadRecord, Token, TxnRecord};
use super::ledger::{Ledger, Origin};
use super::violation::{RecordFault, Violation};

/// Reports reads of unreal versions and reads that contradict each other.
pub(super) fn check_reads(ledger: &Ledger<'_>, findings: &mut Findings) {
    for (position, txn) in ledger.effective_txns() {
        for read in &txn.reads {
            check_source(ledger, position, *read, findings);
        }
        check_agreement(ledger, position, txn, findings);
    }
}

fn check_source(ledger: &Ledger<'_>, position: usize, read: ReadRecord, findings: &mut Findings) {
    let ReadRecord { object, token } = read;
    match ledger.origin(object, token) {
        Origin::Initial => {}
        Origin::Effective(version) => {
            if ledger.versions[version].writer == position {
                findings.report(Violation::MalformedRecord {
                    txn: ledger.name(position),
                    object,
                    fault: RecordFault::ReadOwnWrite,
                });
            }
        }
        Origin::Ineffective(version) => findings.report(Violation::DirtyRead {
            txn: ledger.name(position),
            object,
            token,
            aborted: ledger.writer_name(version),
        }),
        Origin::Nobody => {
            let txn = ledger.name(position);
            findings.report(Violation::PhantomRead { txn, object, token });
        }
    }
}

/// All reads of one object must return one version, and a write to it must
/// replace that version: a write is a read-modify-write, so its predecessor is
/// a read as well.
fn check_agreement(ledger: &Ledger<'_>, position: usize, txn: &TxnRecord, findings: &mut Findings) {
    let mut first_reads: BTreeMap<ObjectKey, Token> = BTreeMap::new();
    for read in &txn.reads {
        let first = *first_reads.entry(read.object).or_insert(read.token);
        if first != read.token {
            findings.report(Violation::NonRepeatableRead {
                txn: ledger.name(position),
                object: read.object,
                first,
                second: read.token,
            });
        }
    }
    for write in &txn.writes {
        if let Some(&read) = first_reads.get(&write.object)
            && read != write.predecessor
        {
            findings.report(Violation::StaleOverwrite {
                txn: ledger.name(position),
                object: write.object,
                read,
                overwrote: write.predecessor,
            });
        }
    }
}
