//! The way out of a peer process: answers to orders and to trades, in frames on its standard output.
//!
//! It refuses to go on when the orchestrator has gone: the process ends at once.

use crate::frames::{self, Kind};
use crate::protocol::Answer;
use crate::records::TradeAnswer;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Exit code after the orchestrator has gone: nobody reads it.
pub(crate) const ORPHANED: i32 = 3;

/// What goes out. Shared by all tasks.
#[derive(Debug)]
pub(crate) struct Answers {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    output: File,
    /// Records that were added since the last flush.
    records: Vec<u8>,
    count: usize,
    frame: Vec<u8>,
}

impl Answers {
    /// Answers on the standard output, past the standard library's buffer, which looks for the ends of lines.
    pub(crate) fn on_standard_output() -> Result<Self> {
        let output = standard_output().context("the standard output cannot be used")?;
        Ok(Self { inner: Mutex::new(Inner { output, records: Vec::new(), count: 0, frame: Vec::new() }) })
    }

    /// Adds the answer to a trade; returns how many wait for the next [`Answers::flush`].
    pub(crate) fn add(&self, answer: &TradeAnswer) -> usize {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        answer.append(&mut inner.records);
        inner.count += 1;
        inner.count
    }

    /// Writes what was added.
    pub(crate) fn flush(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.count > 0 {
            inner.write_records();
        }
    }

    /// Writes answers to acts.
    pub(crate) fn tell_acts(&self, body: &[u8]) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).write(Kind::Acts, body);
    }

    /// Writes the answer to an order, after all that was added before.
    pub(crate) fn tell(&self, answer: &Answer) {
        let body = serde_json::to_vec(answer);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.count > 0 {
            inner.write_records();
        }
        match body {
            Ok(body) => inner.write(Kind::Control, &body),
            // Answers are plain data, which always becomes JSON.
            Err(_) => std::process::exit(ORPHANED),
        }
    }
}

impl Inner {
    fn write_records(&mut self) {
        let mut records = std::mem::take(&mut self.records);
        self.write(Kind::Trades, &records);
        records.clear();
        self.records = records;
        self.count = 0;
    }

    fn write(&mut self, kind: Kind, body: &[u8]) {
        self.frame.clear();
        let written = frames::append(&mut self.frame, kind, body).and_then(|()| self.output.write_all(&self.frame));
        if written.is_err() {
            std::process::exit(ORPHANED);
        }
    }
}

#[cfg(unix)]
fn standard_output() -> std::io::Result<File> {
    use std::os::fd::AsFd;
    Ok(std::io::stdout().as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn standard_output() -> std::io::Result<File> {
    use std::os::windows::io::AsHandle;
    Ok(std::io::stdout().as_handle().try_clone_to_owned()?.into())
}
