//! The way into a peer process: frames to its standard input, from any thread.
//!
//! It refuses to tell whether the process takes them: one that has gone answers nothing, and that is how it is noticed.

use crate::frames::{self, Kind};
use crate::protocol::Order;
use anyhow::Result;
use std::io::{PipeWriter, Write};
use std::sync::{Mutex, PoisonError};

/// The input of one process.
#[derive(Debug)]
pub(crate) struct WayIn {
    input: Mutex<Option<PipeWriter>>,
}

impl WayIn {
    /// By this pipe.
    pub(crate) const fn new(input: PipeWriter) -> Self {
        Self { input: Mutex::new(Some(input)) }
    }

    /// Writes a frame. Waits while the pipe is full, so what is long must not be sent where nobody may wait.
    pub(crate) fn send(&self, frame: &[u8]) {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = &mut *input
            && pipe.write_all(frame).is_err()
        {
            // It has gone. The end of its output tells.
            *input = None;
        }
    }

    /// Closes the input, unless somebody is writing to a process that does not read: that one must be killed.
    pub(crate) fn close(&self) {
        if let Ok(mut input) = self.input.try_lock() {
            *input = None;
        }
    }
}

/// An order as a frame.
pub(crate) fn frame_of(order: &Order) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    frames::append(&mut frame, Kind::Control, &serde_json::to_vec(order)?)?;
    Ok(frame)
}
