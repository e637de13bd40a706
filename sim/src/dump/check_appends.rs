//! Whether a file of lists is a history that snapshot isolation allows.
//!
//! A list shows its own past, so the longest read of a list gives the order of its versions. With that the file is
//! turned into a history for the checker of the simulator, which looks for dirty reads, lost updates and forbidden
//! cycles; what only lists show is looked for here. It refuses to hold processes to the order of their transactions:
//! the promise that is judged is plain snapshot isolation.

use super::appends::AppendOp;
use super::edn::{Kind, read_edn};
use super::fault::{Fault, Rejected};
use super::list_history::{ListTxn, transactions};
use crate::checker::{self, History, ObjectKey, Outcome, ReadRecord, SessionOrder, Token, TxnRecord, WriteRecord};
use std::collections::{BTreeMap, BTreeSet};

/// What a valid file consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AppendSummary {
    /// Transactions that took effect.
    pub committed: usize,
    /// Transactions that did not.
    pub failed: usize,
    /// Transactions of which nobody knows.
    pub unknown: usize,
    /// Processes.
    pub processes: usize,
    /// Lists.
    pub keys: usize,
    /// Elements that are there in the end.
    pub elements: usize,
    /// Reads of lists in transactions that took effect.
    pub reads: usize,
    /// Appends to lists in these.
    pub appends: usize,
}

/// Checks the text of a file.
///
/// # Errors
/// [`Rejected`]: it is no history, or it has violations.
pub fn check_edn(text: &str) -> Result<AppendSummary, Rejected> {
    let txns = transactions(&read_edn(text)?)?;
    let mut lists = Lists::of(&txns);
    let history = lists.history(&txns);
    let mut faults = lists.faults;
    if let Err(found) = checker::check_with(&history, SessionOrder::Ignored) {
        faults.extend(found.into_iter().map(|violation| Fault::Found(Box::new(violation))));
    }
    if faults.is_empty() { Ok(summarize(&txns, &lists.order)) } else { Err(Rejected::Invalid(faults)) }
}

/// What one transaction does to one list.
#[derive(Debug, Default)]
struct Touched<'txns> {
    /// The list before its own appends, if it read it.
    before: Option<&'txns [u64]>,
    /// Its own appends.
    appended: Vec<u64>,
}

/// Where an element comes from.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// The transaction that appended it.
    txn: usize,
    /// Its last append to the list.
    last: u64,
}

/// All lists of a file.
#[derive(Debug)]
struct Lists<'txns> {
    /// What each transaction does to each list; reads only of those that took effect.
    touched: Vec<BTreeMap<u64, Touched<'txns>>>,
    sources: BTreeMap<(u64, u64), Source>,
    /// The longest read of each list that all other reads fit; lists without such an order are left out.
    order: BTreeMap<u64, Vec<u64>>,
    /// The longest of the reads at the end: of those that began when all committed appends had been answered.
    at_last: BTreeMap<u64, usize>,
    faults: Vec<Fault>,
}

impl<'txns> Lists<'txns> {
    fn of(txns: &'txns [ListTxn]) -> Self {
        let mut lists = Self {
            touched: Vec::new(),
            sources: BTreeMap::new(),
            order: BTreeMap::new(),
            at_last: BTreeMap::new(),
            faults: Vec::new(),
        };
        for (place, txn) in txns.iter().enumerate() {
            lists.enter(place, txn);
        }
        lists.find_order(txns);
        lists.find_ends(txns);
        lists.look_for_scattered(txns);
        lists.look_for_lost(txns);
        lists
    }

    /// Enters what a transaction did, and looks whether it agrees with itself.
    fn enter(&mut self, place: usize, txn: &'txns ListTxn) {
        let mut touched: BTreeMap<u64, Touched<'txns>> = BTreeMap::new();
        for op in &txn.ops {
            match op {
                AppendOp::Append { key, element } => touched.entry(*key).or_default().appended.push(*element),
                AppendOp::Read { key, elements: Some(elements) } if txn.kind == Kind::Ok => {
                    let list = touched.entry(*key).or_default();
                    // What it appended itself stands at the end of what it reads.
                    let before = elements.strip_suffix(list.appended.as_slice());
                    if before.is_none() || list.before.is_some_and(|seen| before != Some(seen)) {
                        self.faults.push(Fault::Internal { line: txn.line, key: *key });
                    }
                    list.before = list.before.or(before);
                }
                AppendOp::Read { .. } => {}
            }
        }
        for (key, list) in &touched {
            let Some(last) = list.appended.last() else { continue };
            for element in &list.appended {
                self.sources.insert((*key, *element), Source { txn: place, last: *last });
            }
        }
        self.touched.push(touched);
    }

    /// The reads of lists by transactions that took effect, each with its transaction and the list.
    fn reads(&self) -> impl Iterator<Item = (usize, u64, &'txns [u64])> {
        let reads = |(place, touched): (usize, &BTreeMap<u64, Touched<'txns>>)| {
            let reads = touched.iter().filter_map(move |(key, list)| Some((place, *key, list.before?)));
            reads.collect::<Vec<_>>()
        };
        self.touched.iter().enumerate().flat_map(reads)
    }

    /// Derives the order of each list. All reads must be beginnings of the longest.
    fn find_order(&mut self, txns: &[ListTxn]) {
        let mut longest: BTreeMap<u64, (usize, &[u64])> = BTreeMap::new();
        for (place, key, elements) in self.reads() {
            let known = longest.entry(key).or_insert((place, elements));
            if elements.len() > known.1.len() {
                *known = (place, elements);
            }
        }
        let mut faults = Vec::new();
        let mut unsound = BTreeSet::new();
        for (place, key, elements) in self.reads() {
            let (longest_place, longest) = longest[&key];
            if let Some(differs) = elements.iter().zip(longest).position(|(one, other)| one != other) {
                let (line, other) = (txns[longest_place].line, txns[place].line);
                faults.push(Fault::Incompatible { key, line, other, place: differs });
                unsound.insert(key);
            }
        }
        for (key, (place, elements)) in longest {
            let line = txns[place].line;
            let mut met = BTreeSet::new();
            for element in elements {
                if !met.insert(*element) {
                    faults.push(Fault::Duplicate { line, key, element: *element });
                    unsound.insert(key);
                }
                if !self.sources.contains_key(&(key, *element)) {
                    faults.push(Fault::FromNowhere { line, key, element: *element });
                    unsound.insert(key);
                }
            }
            if !unsound.contains(&key) {
                self.order.insert(key, elements.to_vec());
            }
        }
        self.faults.append(&mut faults);
    }

    /// Finds the reads at the end: of transactions that only read, begun when all that committed had been answered.
    fn find_ends(&mut self, txns: &[ListTxn]) {
        let appends = |place: &usize| self.touched[*place].values().any(|list| !list.appended.is_empty());
        let committed = (0..txns.len()).filter(|place| txns[*place].kind == Kind::Ok);
        let last = committed.filter(appends).map(|place| txns[place].ended).max();
        let at_last = |place: usize| last.is_none_or(|last| txns[place].begun > last);
        let mut ends: BTreeMap<u64, usize> = BTreeMap::new();
        for (place, key, elements) in self.reads() {
            if at_last(place) {
                let end = ends.entry(key).or_default();
                *end = (*end).max(elements.len());
            }
        }
        self.at_last = ends;
    }

    /// The appends of a transaction to a list stand side by side.
    fn look_for_scattered(&mut self, txns: &[ListTxn]) {
        for (place, touched) in self.touched.iter().enumerate() {
            for (key, list) in touched {
                let (Some(order), Some(first)) = (self.order.get(key), list.appended.first()) else { continue };
                let Some(begins) = order.iter().position(|element| element == first) else {
                    let is_there = list.appended.iter().any(|element| order.contains(element));
                    if is_there {
                        self.faults.push(Fault::Scattered { line: txns[place].line, key: *key });
                    }
                    continue;
                };
                // The longest read may end amid a transaction: that is another fault.
                if !order[begins..].iter().zip(&list.appended).all(|(one, other)| one == other) {
                    self.faults.push(Fault::Scattered { line: txns[place].line, key: *key });
                }
            }
        }
    }

    /// What committed is there at the end, wherever lists were read then.
    fn look_for_lost(&mut self, txns: &[ListTxn]) {
        for (place, txn) in txns.iter().enumerate().filter(|(_, txn)| txn.kind == Kind::Ok) {
            for (key, list) in &self.touched[place] {
                let (Some(order), Some(end)) = (self.order.get(key), self.at_last.get(key)) else { continue };
                let lost = list.appended.iter().find(|element| !order[..*end].contains(element));
                if let Some(element) = lost {
                    self.faults.push(Fault::Lost { line: txn.line, key: *key, element: *element });
                }
            }
        }
    }

    /// The version of a list that ends with this element: named by the last append of the same transaction.
    fn version(&mut self, line: usize, key: u64, txns: &[ListTxn], element: Option<&u64>) -> Option<Token> {
        let Some(element) = element else { return Some(Token::INITIAL) };
        let source = self.sources.get(&(key, *element))?;
        if source.last != *element && txns[source.txn].kind != Kind::Fail {
            self.faults.push(Fault::Intermediate { line, key, element: *element });
            return None;
        }
        Some(Token(source.last))
    }

    /// The file as the checker knows histories. Lists without an order, and appends without a place in one, are left out.
    fn history(&mut self, txns: &[ListTxn]) -> History {
        let mut history = History::default();
        for (place, txn) in txns.iter().enumerate() {
            let mut record = TxnRecord {
                label: format!("line {} ", txn.line),
                session: u32::try_from(txn.process).unwrap_or(u32::MAX),
                reads: Vec::new(),
                writes: Vec::new(),
                outcome: match txn.kind {
                    Kind::Ok => Outcome::Committed,
                    Kind::Fail => Outcome::Aborted,
                    Kind::Invoke | Kind::Info => Outcome::Unknown,
                },
                serializable: false,
            };
            let reads: Vec<(u64, Option<u64>)> = self.touched[place]
                .iter()
                .filter_map(|(key, list)| Some((*key, list.before?.last().copied())))
                .filter(|(key, _)| self.order.contains_key(key))
                .collect();
            for (key, last) in reads {
                if let Some(token) = self.version(txn.line, key, txns, last.as_ref()) {
                    record.reads.push(ReadRecord { object: shown(key), token });
                }
            }
            record.writes = self.writes(place, txn);
            history.txns.push(record);
        }
        for (key, order) in &self.order {
            let end = self.at_last.get(key).copied().unwrap_or(order.len());
            if let Some(last) = order[..end].last().and_then(|last| self.sources.get(&(*key, *last))) {
                history.final_state.insert(shown(*key), Token(last.last));
            } else {
                history.final_state.insert(shown(*key), Token::INITIAL);
            }
        }
        history
    }

    fn writes(&self, place: usize, txn: &ListTxn) -> Vec<WriteRecord> {
        let mut writes = Vec::new();
        for (key, list) in &self.touched[place] {
            let (Some(order), Some(first), Some(last)) =
                (self.order.get(key), list.appended.first(), list.appended.last())
            else {
                continue;
            };
            let begins = order.iter().position(|element| element == first);
            let before = match (begins, txn.kind) {
                (Some(begins), _) => order[..begins].last(),
                // An append that did not happen, or perhaps: it counts if somebody saw it, or ought to have.
                (None, Kind::Fail) => None,
                (None, Kind::Info | Kind::Invoke) if self.at_last.contains_key(key) => order.last(),
                (None, Kind::Ok | Kind::Info | Kind::Invoke) => continue,
            };
            let source = before.and_then(|element| self.sources.get(&(*key, *element)));
            let predecessor = source.map_or(Token::INITIAL, |source| Token(source.last));
            writes.push(WriteRecord { object: shown(*key), predecessor, token: Token(*last) });
        }
        writes
    }
}

/// A list as the checker names objects: it shows hexadecimal digits, which are to be those of the decimal number.
pub(super) fn shown(key: u64) -> ObjectKey {
    let digits = key.to_string().bytes().fold(0_u128, |sum, digit| sum << 4 | u128::from(digit - b'0'));
    ObjectKey(digits)
}

fn summarize(txns: &[ListTxn], order: &BTreeMap<u64, Vec<u64>>) -> AppendSummary {
    let of = |kind| txns.iter().filter(|txn| txn.kind == kind).count();
    let ops = || txns.iter().filter(|txn| txn.kind == Kind::Ok).flat_map(|txn| &txn.ops);
    let is_read = |op: &&AppendOp| matches!(op, AppendOp::Read { .. });
    let processes: BTreeSet<u64> = txns.iter().map(|txn| txn.process).collect();
    let keys: BTreeSet<u64> = txns
        .iter()
        .flat_map(|txn| &txn.ops)
        .map(|op| match op {
            AppendOp::Append { key, .. } | AppendOp::Read { key, .. } => *key,
        })
        .collect();
    AppendSummary {
        committed: of(Kind::Ok),
        failed: of(Kind::Fail),
        unknown: of(Kind::Info),
        processes: processes.len(),
        keys: keys.len(),
        elements: order.values().map(Vec::len).sum(),
        reads: ops().filter(is_read).count(),
        appends: ops().filter(|op| !is_read(op)).count(),
    }
}
