//! The transactions of a file of lists: each `:invoke` with what came of it.
//!
//! It refuses files whose lines do not fit together. What the transactions saw is judged by `check_appends`.

use super::appends::AppendOp;
use super::edn::{Kind, Line};
use super::fault::{BadFile, BadLine};
use std::collections::{BTreeMap, BTreeSet};

/// One transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ListTxn {
    /// The line on which it ends, or else begins.
    pub(super) line: usize,
    pub(super) process: u64,
    pub(super) kind: Kind,
    pub(super) ops: Vec<AppendOp>,
    /// Between which lines it ran, by their places.
    pub(super) begun: usize,
    pub(super) ended: usize,
}

/// What a process does.
enum Doing {
    /// This transaction, by its place.
    Txn(usize),
    Nothing,
    /// It must do nothing any more.
    Over,
}

/// Puts the lines of a file together. Transactions come in the order in which they began.
pub(super) fn transactions(lines: &[Line]) -> Result<Vec<ListTxn>, BadFile> {
    let mut txns: Vec<ListTxn> = Vec::new();
    let mut processes: BTreeMap<u64, Doing> = BTreeMap::new();
    let mut appended = BTreeSet::new();
    let mut last = None;
    for (place, line) in lines.iter().enumerate() {
        let bad = |what| BadFile { line: line.number, what };
        if let Some(last) = last.replace(line.index).filter(|last| *last >= line.index) {
            return Err(bad(BadLine::Index(line.index, last)));
        }
        let process = line.process;
        let doing = processes.entry(process).or_insert(Doing::Nothing);
        match (line.kind, &*doing) {
            (_, Doing::Over) => return Err(bad(BadLine::GoesOn(process))),
            (Kind::Invoke, Doing::Txn(_)) => return Err(bad(BadLine::Busy(process))),
            (Kind::Invoke, Doing::Nothing) => {
                once_each(&line.ops, &mut appended).map_err(bad)?;
                *doing = Doing::Txn(txns.len());
                let (line, ops) = (line.number, line.ops.clone());
                // What nobody answers nobody knows.
                txns.push(ListTxn { line, process, kind: Kind::Info, ops, begun: place, ended: lines.len() });
            }
            (Kind::Ok | Kind::Fail | Kind::Info, Doing::Nothing) => return Err(bad(BadLine::NotBegun(process))),
            (Kind::Ok | Kind::Fail | Kind::Info, Doing::Txn(txn)) => {
                end(&mut txns[*txn], line, place).map_err(bad)?;
                *doing = if line.kind == Kind::Info { Doing::Over } else { Doing::Nothing };
            }
        }
    }
    Ok(txns)
}

fn once_each(ops: &[AppendOp], appended: &mut BTreeSet<(u64, u64)>) -> Result<(), BadLine> {
    for op in ops {
        match op {
            AppendOp::Append { key, element } if !appended.insert((*key, *element)) => {
                return Err(BadLine::AppendedTwice { key: *key, element: *element });
            }
            AppendOp::Append { .. } | AppendOp::Read { .. } => {}
        }
    }
    Ok(())
}

fn end(txn: &mut ListTxn, line: &Line, place: usize) -> Result<(), BadLine> {
    let is_same = |(asked, answered): (&AppendOp, &AppendOp)| match (asked, answered) {
        (AppendOp::Read { key, .. }, AppendOp::Read { key: other, .. }) => key == other,
        (asked, answered) => asked == answered,
    };
    if txn.ops.len() != line.ops.len() || !txn.ops.iter().zip(&line.ops).all(is_same) {
        return Err(BadLine::Another(line.process));
    }
    let unread = line.ops.iter().find_map(|op| match op {
        AppendOp::Read { key, elements: None } => Some(*key),
        AppendOp::Read { .. } | AppendOp::Append { .. } => None,
    });
    if let Some(key) = unread.filter(|_| line.kind == Kind::Ok) {
        return Err(BadLine::Unread(key));
    }
    (txn.line, txn.kind, txn.ended) = (line.number, line.kind, place);
    txn.ops.clone_from(&line.ops);
    Ok(())
}
