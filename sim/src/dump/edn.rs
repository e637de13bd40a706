//! Histories of lists as Elle reads them: one EDN map a line, an `:invoke` and what came of it.
//!
//! It refuses to judge a history; whether the lines of a file fit together is for `list_history`.

use super::AppendCalls;
use super::appends::AppendOp;
use super::calls::{Came, Moment};
use super::edn_value::{Edn, read};
use super::fault::{BadFile, BadLine};
use std::fmt::Write;

/// What a line says of its transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// It begins.
    Invoke,
    /// It took effect.
    Ok,
    /// It did not.
    Fail,
    /// Nobody knows.
    Info,
}

impl Kind {
    const ALL: [(&'static str, Self); 4] =
        [("invoke", Self::Invoke), ("ok", Self::Ok), ("fail", Self::Fail), ("info", Self::Info)];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("info", |(word, _)| word)
    }
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Line {
    /// Its number in the file, from 1 on.
    pub(super) number: usize,
    pub(super) index: u64,
    pub(super) process: u64,
    pub(super) kind: Kind,
    pub(super) ops: Vec<AppendOp>,
}

/// Writes a history. A line's place is that of what it tells in real time; what nobody answered ends at the end.
#[must_use]
pub fn write_edn(calls: &AppendCalls) -> String {
    let at_last = Moment { order: u64::MAX, nanos: calls.nanos() };
    let mut lines: Vec<(Moment, usize, Kind, &[AppendOp])> = Vec::new();
    for (call, process) in calls.iter().zip(calls.processes()) {
        let (kind, ops) = match call.came() {
            Came::Ok(answered) => (Kind::Ok, answered.as_slice()),
            Came::Fail => (Kind::Fail, call.asked.as_slice()),
            Came::Info => (Kind::Info, call.asked.as_slice()),
        };
        lines.push((call.begun, process, Kind::Invoke, &call.asked));
        lines.push((call.ended.as_ref().map_or(at_last, |(at, _)| *at), process, kind, ops));
    }
    lines.sort_by_key(|(at, ..)| *at);
    let mut text = String::new();
    for (index, (at, process, kind, ops)) in lines.into_iter().enumerate() {
        let (time, kind) = (at.nanos, kind.word());
        // Writing to a string cannot fail.
        let _ = write!(text, "{{:index {index} :time {time} :process {process} :type :{kind} :f :txn :value [");
        for (place, op) in ops.iter().enumerate() {
            if place > 0 {
                text.push(' ');
            }
            write_op(&mut text, op);
        }
        text.push_str("]}\n");
    }
    text
}

fn write_op(text: &mut String, op: &AppendOp) {
    // Writing to a string cannot fail.
    let _ = match op {
        AppendOp::Append { key, element } => write!(text, "[:append {key} {element}]"),
        AppendOp::Read { key, elements: None } => write!(text, "[:r {key} nil]"),
        AppendOp::Read { key, elements: Some(elements) } => {
            let elements: Vec<String> = elements.iter().map(ToString::to_string).collect();
            write!(text, "[:r {key} [{}]]", elements.join(" "))
        }
    };
}

/// Reads the lines of a file.
pub(super) fn read_edn(text: &str) -> Result<Vec<Line>, BadFile> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let bad = |what| BadFile { line: number, what };
        let Some(value) = read(line).map_err(|why| bad(BadLine::Syntax(why)))? else { continue };
        lines.push(read_line(number, &value).map_err(bad)?);
    }
    Ok(lines)
}

fn read_line(number: usize, value: &Edn) -> Result<Line, BadLine> {
    if !matches!(value, Edn::Map(_)) {
        return Err(BadLine::Syntax("it is no map".to_owned()));
    }
    let whole = |name| value.get(name).and_then(Edn::number);
    let index = whole("index").ok_or(BadLine::Part(":index", "a number from 0 on"))?;
    let process = whole("process").ok_or(BadLine::Part(":process", "a number from 0 on"))?;
    whole("time").ok_or(BadLine::Part(":time", "a number from 0 on"))?;
    if value.get("f").and_then(Edn::keyword) != Some("txn") {
        return Err(BadLine::Part(":f", ":txn"));
    }
    let word = value.get("type").and_then(Edn::keyword);
    let kind = Kind::ALL.into_iter().find(|(name, _)| Some(*name) == word).map(|(_, kind)| kind);
    let kind = kind.ok_or(BadLine::Part(":type", ":invoke, :ok, :fail or :info"))?;
    let ops = value.get("value").and_then(Edn::several).ok_or(BadLine::Part(":value", "a vector"))?;
    let ops = ops.iter().map(read_op).collect::<Result<_, _>>()?;
    Ok(Line { number, index, process, kind, ops })
}

fn read_op(value: &Edn) -> Result<AppendOp, BadLine> {
    let no_op = || BadLine::Part("an operation", "[:append LIST ELEMENT] or [:r LIST ELEMENTS]");
    let [what, key, value] = value.several().ok_or_else(no_op)? else { return Err(no_op()) };
    let key = key.number().ok_or_else(no_op)?;
    let element = |value: &Edn| match value.number() {
        Some(0) => Err(BadLine::Zero),
        Some(element) => Ok(element),
        None => Err(no_op()),
    };
    match (what.keyword(), value) {
        (Some("append"), value) => Ok(AppendOp::Append { key, element: element(value)? }),
        (Some("r"), Edn::Nil) => Ok(AppendOp::read(key)),
        (Some("r"), Edn::Several(elements)) => {
            let elements = elements.iter().map(element).collect::<Result<_, _>>()?;
            Ok(AppendOp::Read { key, elements: Some(elements) })
        }
        _ => Err(no_op()),
    }
}
