//! Histories of registers as dbcop reads them: one JSON file, the transactions of each session in their order.
//!
//! Its judge takes what did not commit for committed, so only what took effect is written. A call that nobody answered
//! took effect if somebody saw one of its versions; each version tells what was before it, so what that call had read of
//! the registers it wrote is known too. It refuses to write what it cannot know.

use super::RegisterCalls;
use super::calls::{Call, Came};
use super::registers::{RegisterOp, SeenVersion};
use super::utc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a file says of its run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct About {
    /// The seed.
    pub id: u64,
    /// How many registers there are.
    pub registers: u64,
    /// When the run began, s since the UNIX epoch.
    pub start_s: u64,
}

/// A file.
#[derive(Serialize, Deserialize)]
pub(super) struct File {
    pub(super) params: Params,
    pub(super) info: String,
    pub(super) start: String,
    pub(super) end: String,
    /// The sessions.
    pub(super) data: Vec<Vec<Txn>>,
}

/// Sizes of a history.
#[derive(Serialize, Deserialize)]
pub(super) struct Params {
    id: u64,
    /// Sessions.
    n_node: usize,
    n_variable: u64,
    /// Most transactions of a session.
    n_transaction: usize,
    /// Most events of a transaction.
    n_event: usize,
}

/// A transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Txn {
    pub(super) events: Vec<Event>,
    pub(super) committed: bool,
}

/// An event of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// The first read of a register that the transaction had not written.
    Read {
        variable: u64,
        /// 0, or nothing: what the register had at first.
        version: Option<u64>,
    },
    Write {
        variable: u64,
        version: u64,
    },
}

type RegisterCall = Call<RegisterOp, Vec<SeenVersion>>;

/// Writes a history.
///
/// # Errors
/// What JSON cannot express; there is nothing of that kind in it.
pub fn write_json(calls: &RegisterCalls, about: About) -> Result<String, serde_json::Error> {
    let replaced = replaced(calls);
    let mut sessions: BTreeMap<usize, Vec<Txn>> = BTreeMap::new();
    for (call, process) in calls.iter().zip(calls.processes()) {
        let events = match call.came() {
            Came::Ok(seen) => events(call, seen),
            Came::Info => events_of_unanswered(call, &replaced),
            Came::Fail => Vec::new(),
        };
        if !events.is_empty() {
            sessions.entry(process).or_default().push(Txn { events, committed: true });
        }
    }
    let data: Vec<Vec<Txn>> = sessions.into_values().collect();
    let params = Params {
        id: about.id,
        n_node: data.len(),
        n_variable: about.registers,
        n_transaction: data.iter().map(Vec::len).max().unwrap_or(0),
        n_event: data.iter().flatten().map(|txn| txn.events.len()).max().unwrap_or(0),
    };
    let (start, end) =
        (utc::written(about.start_s), utc::written(about.start_s + calls.nanos().div_ceil(1_000_000_000)));
    text(&File { params, info: "driftmesh".to_owned(), start, end, data })
}

/// One session a line.
fn text(file: &File) -> Result<String, serde_json::Error> {
    let sessions = file.data.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    let [params, info, start, end] = [
        serde_json::to_string(&file.params)?,
        serde_json::to_string(&file.info)?,
        serde_json::to_string(&file.start)?,
        serde_json::to_string(&file.end)?,
    ];
    Ok(format!(
        "{{\"params\":{params},\"info\":{info},\"start\":{start},\"end\":{end},\n\"data\":[\n{}\n]}}\n",
        sessions.join(",\n")
    ))
}

/// What each version replaced, as those saw who read it or a later one.
fn replaced(calls: &RegisterCalls) -> BTreeMap<u64, u64> {
    let mut replaced = BTreeMap::new();
    for call in calls.iter() {
        match call.came() {
            Came::Ok(seen) => seen.iter().for_each(|seen| {
                let all: Vec<u64> = seen.past.iter().copied().chain([seen.version]).collect();
                replaced.extend(all.windows(2).map(|pair| (pair[1], pair[0])));
            }),
            Came::Fail | Came::Info => {}
        }
    }
    replaced
}

fn events(call: &RegisterCall, seen: &[SeenVersion]) -> Vec<Event> {
    let mut events = Vec::new();
    for (op, seen) in call.asked.iter().zip(seen) {
        let variable = op.variable();
        events.push(Event::Read { variable, version: Some(seen.version) });
        match op {
            RegisterOp::Write { version, .. } => events.push(Event::Write { variable, version: *version }),
            RegisterOp::Read { .. } => {}
        }
    }
    events
}

/// Empty where nobody saw anything of it.
fn events_of_unanswered(call: &RegisterCall, replaced: &BTreeMap<u64, u64>) -> Vec<Event> {
    let mut events = Vec::new();
    for op in &call.asked {
        if let RegisterOp::Write { variable, version } = op
            && let Some(over) = replaced.get(version)
        {
            events.push(Event::Read { variable: *variable, version: Some(*over) });
            events.push(Event::Write { variable: *variable, version: *version });
        }
    }
    events
}
