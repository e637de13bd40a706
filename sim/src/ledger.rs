//! Every receipt that a client holds, outside of all peers, and what was told of its fate.
//!
//! A fate once told stable or lost never changes, and peers that are asked agree. At the end each receipt is asked for:
//! what is lost did not happen, what is stable did. It refuses to know why something was lost.

use crate::checker::Token;
use crate::host::SimHost;
use driftmesh_model::ObjectId;
use driftmesh_object_store::Fate;
use driftmesh_peer::{FateTold, Receipt};

/// Most contradictions that are kept.
const WRONG_MAX: usize = 8;

/// What one committed transaction, or one snapshot that was read, rests on.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) label: String,
    pub(crate) receipts: Vec<Receipt>,
    /// What was told of each.
    told: Vec<Option<Fate>>,
    /// Where it is recorded, if it read or wrote anything.
    pub(crate) record: Option<usize>,
    /// What it deleted, and the tokens of that, which no value carries.
    pub(crate) deletes: Vec<(ObjectId, Token)>,
    wrong: Vec<String>,
}

/// All receipts of a run.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) kept: Vec<Kept>,
    pub(crate) wrong: Vec<String>,
    /// Answers so far, "unknown" left out.
    pub(crate) told: u64,
}

impl Ledger {
    /// A client was told that it committed. Returns the number under which it is kept.
    pub(crate) fn keep(
        &mut self,
        label: String,
        receipts: Vec<Receipt>,
        stable: bool,
        record: Option<usize>,
        deletes: Vec<(ObjectId, Token)>,
    ) -> usize {
        let told = vec![stable.then_some(Fate::Stable); receipts.len()];
        self.kept.push(Kept { label, receipts, told, record, deletes, wrong: Vec::new() });
        self.kept.len() - 1
    }

    /// What is wrong if this happened.
    pub(crate) fn wrong_unless_lost(&mut self, number: usize, wrong: Vec<String>) {
        self.kept[number].wrong.extend(wrong);
    }

    /// A peer answered a question about a receipt.
    pub(crate) fn told(&mut self, number: usize, index: usize, fate: FateTold, by: &str) {
        let fate = match fate {
            FateTold::Stable { .. } => Fate::Stable,
            FateTold::Lost => Fate::Lost,
            FateTold::Unknown => return,
        };
        self.told += 1;
        let kept = &mut self.kept[number];
        let former = kept.told[index].replace(fate);
        if former.is_some_and(|former| former != fate) && self.wrong.len() < WRONG_MAX {
            let (label, receipt) = (&kept.label, &kept.receipts[index]);
            self.wrong.push(format!("`{label}` was told {former:?} and then, by {by}, {fate:?}: {receipt:?}"));
        }
    }

    /// What became of something: lost if any of its receipts is.
    pub(crate) fn fate(&self, number: usize) -> Fate {
        let told = &self.kept[number].told;
        if told.contains(&Some(Fate::Lost)) {
            Fate::Lost
        } else if told.iter().all(|told| *told == Some(Fate::Stable)) {
            Fate::Stable
        } else {
            Fate::Unknown
        }
    }

    /// The receipts, each with its number, its index, and what was told of it.
    pub(crate) fn receipts(&self) -> impl Iterator<Item = (usize, usize, Receipt, Option<Fate>)> {
        self.kept.iter().enumerate().flat_map(|(number, kept)| {
            let told = kept.receipts.iter().zip(&kept.told).enumerate();
            told.map(move |(index, (receipt, told))| (number, index, *receipt, *told))
        })
    }

    /// Contradictions, and what was wrong in what happened after all.
    pub(crate) fn all_wrong(&self) -> Vec<String> {
        let happened = (0..self.kept.len()).filter(|number| self.fate(*number) != Fate::Lost);
        let theirs = happened.flat_map(|number| self.kept[number].wrong.iter().cloned());
        self.wrong.iter().cloned().chain(theirs).collect()
    }
}

/// What a snapshot read of a peer's own group rests on: the end of that group's journal when it was read.
#[derive(Default)]
pub(crate) struct Depends(Vec<Receipt>);

impl Depends {
    /// Something was read at this peer just now.
    pub(crate) fn on(&mut self, host: &SimHost) {
        let receipt = host.read_receipt();
        match self.0.last_mut() {
            Some(last) if (last.group, last.term) == (receipt.group, receipt.term) => *last = receipt,
            _ => self.0.push(receipt),
        }
    }

    pub(crate) fn receipts(self) -> Vec<Receipt> {
        self.0
    }
}
