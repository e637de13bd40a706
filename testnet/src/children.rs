//! The peer processes as the orchestrator holds them: started, spoken to, and ended, whatever happens.
//!
//! It refuses to leave a process behind: dropping a child kills it, and a child whose input closes ends by itself.

use crate::protocol::{Answer, Order};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// The hidden subcommand under which the executable runs as a peer process.
pub(crate) const PEER_PROCESS: &str = "peer-process";
/// Lines of a child's error output that are kept.
const ERROR_LINES_MAX: usize = 100;
/// How long a child may take to end by itself.
const END_LIMIT: Duration = Duration::from_secs(2);

/// A running peer process.
#[derive(Debug)]
pub(crate) struct Child {
    number: usize,
    process: tokio::process::Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    errors: Arc<Mutex<VecDeque<String>>>,
    error_reader: JoinHandle<()>,
}

impl Child {
    /// Starts a peer process from this very executable.
    pub(crate) fn start(number: usize) -> Result<Self> {
        let executable = std::env::current_exe().context("cannot find the own executable")?;
        let mut command = Command::new(executable);
        command.arg(PEER_PROCESS).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        // Ctrl-C at the terminal reaches only the orchestrator, which ends its children in order.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn().with_context(|| format!("cannot start peer process {number}"))?;
        let (input, output, errors) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(input), Some(output), Some(error_output)) = (input, output, errors) else {
            bail!("peer process {number} has no pipes");
        };
        let errors = Arc::default();
        let error_reader = tokio::spawn(collect(error_output, Arc::clone(&errors)));
        let output = BufReader::new(output).lines();
        Ok(Self { number, process, input: Some(input), output, errors, error_reader })
    }

    /// Gives an order.
    pub(crate) async fn order(&mut self, order: &Order) -> Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let input = self.input.as_mut().context("the peer process was told to end")?;
        let written = input.write_all(&line).await;
        match written {
            Ok(()) => Ok(()),
            Err(_) => Err(self.why_ended().await),
        }
    }

    /// Waits for the next answer, and takes from it what is wanted.
    pub(crate) async fn take<T>(&mut self, limit: Duration, wanted: impl FnOnce(&Answer) -> Option<T>) -> Result<T> {
        let number = self.number;
        let line = match tokio::time::timeout(limit, self.output.next_line()).await {
            Err(_) => bail!("peer process {number} did not answer within {} s", limit.as_secs()),
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None) | Err(_)) => return Err(self.why_ended().await),
        };
        let answer = serde_json::from_str(&line);
        let answer = answer.with_context(|| format!("peer process {number} answered what is no answer: {line}"))?;
        if let Answer::Failed { error } = answer {
            bail!("peer process {number}: {error}");
        }
        wanted(&answer).ok_or_else(|| anyhow!("peer process {number} gave an unexpected answer: {answer:?}"))
    }

    async fn why_ended(&mut self) -> anyhow::Error {
        let number = self.number;
        match tokio::time::timeout(END_LIMIT, self.process.wait()).await {
            Ok(Ok(status)) => {
                // All it said before it ended is in the pipe.
                let _ = tokio::time::timeout(END_LIMIT, &mut self.error_reader).await;
                anyhow!("peer process {number} ended unexpectedly: {status}")
            }
            Ok(Err(error)) => anyhow!("peer process {number} cannot be waited for: {error}"),
            Err(_) => anyhow!("peer process {number} closed its output"),
        }
    }

    /// What the process wrote to its error output, each line with its number before it.
    pub(crate) fn error_lines(&self) -> Vec<String> {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.iter().map(|line| format!("[peer {}] {line}", self.number)).collect()
    }

    /// Asks the process to end, by closing its input.
    pub(crate) fn hang_up(&mut self) {
        self.input = None;
    }

    /// Ends the process: asks it, waits, and kills it if it stays.
    pub(crate) async fn end(&mut self) {
        self.hang_up();
        if tokio::time::timeout(END_LIMIT, self.process.wait()).await.is_err() {
            // It may have ended in this moment; then there is nothing to kill.
            let _ = self.process.kill().await;
        }
    }
}

async fn collect(output: ChildStderr, errors: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() >= ERROR_LINES_MAX {
            errors.pop_front();
        }
        errors.push_back(line);
    }
}
