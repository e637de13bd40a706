//! The peer processes as the orchestrator holds them: started, spoken to, stopped and ended, whatever happens.
//!
//! It refuses to leave a process behind: dropping a child kills it, and a child whose input closes ends by itself.

use crate::exchange::Exchange;
use crate::frames::{self, Kind};
use crate::net::Machine;
use crate::protocol::{Answer, Order};
use crate::way_in::{WayIn, frame_of};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::VecDeque;
use std::io::PipeReader;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStderr, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// The hidden subcommand under which the executable runs as a peer process.
pub(crate) const PEER_PROCESS: &str = "peer-process";
/// The one under which it runs as a zone server.
pub(crate) const ZONE_SERVER: &str = "zone-server";
/// Lines of a child's error output that are kept.
const ERROR_LINES_MAX: usize = 100;
/// Of those that tell of faults, the first ones are kept whatever follows.
const FAULT_LINES_MAX: usize = 8;
/// How long a child may take to end by itself.
const END_LIMIT: Duration = Duration::from_secs(2);
/// What is read from a child at once, bytes.
const READ_BYTES: usize = 64 << 10;

/// What a child wrote to its error output.
#[derive(Debug, Default)]
struct ErrorOutput {
    /// The last lines.
    lines: VecDeque<String>,
    /// The first lines of its log that are errors, and what it says of a panic.
    faults: Vec<String>,
}

/// A running peer process.
#[derive(Debug)]
pub(crate) struct Child {
    number: usize,
    process: tokio::process::Child,
    way_in: Arc<WayIn>,
    answers: UnboundedReceiver<Result<Answer>>,
    errors: Arc<Mutex<ErrorOutput>>,
    error_reader: JoinHandle<()>,
    is_stopped: bool,
}

impl Child {
    /// Starts a peer process from this very executable, on a machine of a network where one is given, and takes a seat at
    /// the exchange for it.
    pub(crate) fn start(exchange: &Arc<Exchange>, subcommand: &str, machine: Option<&Machine>) -> Result<Self> {
        let executable = std::env::current_exe().context("cannot find the own executable")?;
        let mut command = match machine {
            Some(machine) => machine.command(&executable),
            None => Command::new(executable),
        };
        // Plain pipes, read and written by plain threads: a batch of trades then costs one wake-up on either side.
        let (input, way_in) = std::io::pipe().context("cannot make a pipe")?;
        let (output, answers_in) = std::io::pipe().context("cannot make a pipe")?;
        command.arg(subcommand).stdin(input).stdout(answers_in).stderr(Stdio::piped());
        command.kill_on_drop(true);
        // Ctrl-C at the terminal reaches only the orchestrator, which ends its children in order. And the system wakes
        // a stopped process, to end it, when the orchestrator has died: its group is orphaned then.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn().context("cannot start a peer process")?;
        // Its ends of the pipes go with this, so that the end of the process is the end of its output.
        drop(command);
        let error_output = process.stderr.take().context("a peer process has no error output")?;
        let way_in = Arc::new(WayIn::new(way_in));
        let number = exchange.add_seat(Arc::clone(&way_in));
        let (sender, answers) = unbounded_channel();
        let listened = Arc::clone(exchange);
        std::thread::spawn(move || listen(output, number, &listened, &sender));
        let errors = Arc::default();
        let error_reader = tokio::spawn(collect(error_output, Arc::clone(&errors)));
        Ok(Self { number, process, way_in, answers, errors, error_reader, is_stopped: false })
    }

    /// Its number.
    pub(crate) const fn number(&self) -> usize {
        self.number
    }

    /// Gives an order. A process that has ended takes it too; then there is no answer.
    pub(crate) async fn order(&self, order: &Order) -> Result<()> {
        let (frame, way_in) = (frame_of(order)?, Arc::clone(&self.way_in));
        // A list of a million players is longer than the pipe: the process has to read meanwhile.
        Ok(tokio::task::spawn_blocking(move || way_in.send(&frame)).await?)
    }

    /// Waits for the next answer, and takes from it what is wanted.
    pub(crate) async fn take<T>(&mut self, limit: Duration, wanted: impl FnOnce(&Answer) -> Option<T>) -> Result<T> {
        let number = self.number;
        let answer = match tokio::time::timeout(limit, self.answers.recv()).await {
            Err(_) => bail!("peer process {number} did not answer within {} s", limit.as_secs()),
            Ok(Some(answer)) => answer.with_context(|| format!("peer process {number} answered what is no answer"))?,
            Ok(None) => return Err(self.why_ended().await),
        };
        if let Answer::Failed { error } = answer {
            bail!("peer process {number}: {error}");
        }
        wanted(&answer).ok_or_else(|| anyhow!("peer process {number} gave an unexpected answer: {answer:?}"))
    }

    /// Takes the answers that have come, without waiting.
    pub(crate) fn take_all(&mut self) -> Result<Vec<Answer>> {
        std::iter::from_fn(|| self.answers.try_recv().ok()).collect()
    }

    /// What the end of the process was, when it ended by itself.
    pub(crate) async fn why_ended(&mut self) -> anyhow::Error {
        let number = self.number;
        // It may have told why.
        while let Ok(answer) = self.answers.try_recv() {
            if let Ok(Answer::Failed { error }) = answer {
                return anyhow!("peer process {number}: {error}");
            }
        }
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
        errors.lines.iter().map(|line| format!("[peer {}] {line}", self.number)).collect()
    }

    /// What it logged as errors, and said of panics: nothing that a user, a disk or a network causes is among that.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).faults.clone()
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(Some(_)))
    }

    /// Ends the process at once, by SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.start_kill().with_context(|| format!("cannot kill peer process {}", self.number))
    }

    /// Stops the process, by SIGSTOP, until [`Child::go_on`].
    pub(crate) fn stop(&mut self) -> Result<()> {
        signal(&self.process, Signal::Stop).with_context(|| format!("cannot stop peer process {}", self.number))?;
        self.is_stopped = true;
        Ok(())
    }

    /// Lets a stopped process go on, by SIGCONT; nothing where it is not stopped.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_stopped) {
            signal(&self.process, Signal::Continue)
                .with_context(|| format!("cannot let peer process {} go on", self.number))?;
        }
        Ok(())
    }

    /// Waits until the process has ended, however that came.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        let ended = tokio::time::timeout(END_LIMIT, self.process.wait()).await;
        ended.with_context(|| format!("peer process {} does not end", self.number))??;
        Ok(())
    }

    /// Asks the process to end, by closing its input.
    pub(crate) fn hang_up(&mut self) {
        self.way_in.close();
        // A stopped process would not see it. One that is dead is not stopped any more.
        let _ = self.go_on();
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

enum Signal {
    Stop,
    Continue,
}

#[cfg(unix)]
fn signal(process: &tokio::process::Child, signal: Signal) -> Result<()> {
    use rustix::process::{Pid, Signal as Number, kill_process};
    // A process that was waited for has no id any more, so no other process can be meant.
    let id = process.id().context("it has ended")?;
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("its id is none")?;
    let number = match signal {
        Signal::Stop => Number::STOP,
        Signal::Continue => Number::CONT,
    };
    Ok(kill_process(pid, number).map_err(|error| std::io::Error::from_raw_os_error(error.raw_os_error()))?)
}

#[cfg(not(unix))]
fn signal(_: &tokio::process::Child, _: Signal) -> Result<()> {
    bail!("this system cannot stop processes")
}

/// Takes all that a process says, until it ends.
fn listen(output: PipeReader, number: usize, exchange: &Exchange, answers: &UnboundedSender<Result<Answer>>) {
    let mut output = std::io::BufReader::with_capacity(READ_BYTES, output);
    let mut body = Vec::new();
    let error = loop {
        let kind = match frames::read(&mut output, &mut body) {
            Ok(Some(kind)) => kind,
            // A process that is killed may leave a part of a frame behind, and then the end.
            Ok(None) => break None,
            Err(error) => break Some(anyhow::Error::new(error).context("it says what makes no sense")),
        };
        match kind {
            Kind::Trades => exchange.take_answers(number, &body),
            Kind::Acts => exchange.take_acts(number, &body),
            Kind::Control => match serde_json::from_slice(&body) {
                Ok(Answer::Status(status)) => exchange.take_status(number, status),
                Ok(Answer::TradeFailed { id, bot, error, aborted }) => {
                    exchange.take_error(number, id, bot, error, aborted);
                }
                Ok(Answer::Called { id, told }) => exchange.take_call(number, id, told),
                Ok(Answer::Looked { seen }) => exchange.take_look(number, seen),
                // Nobody waits for it only while the run is ending.
                other => drop(answers.send(other.map_err(Into::into))),
            },
        }
    };
    exchange.gone(number, error);
}

async fn collect(output: ChildStderr, errors: Arc<Mutex<ErrorOutput>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.faults.len() < FAULT_LINES_MAX && tells_of_a_fault(&line) {
            errors.faults.push(line.clone());
        }
        if errors.lines.len() >= ERROR_LINES_MAX {
            errors.lines.pop_front();
        }
        errors.lines.push_back(line);
    }
}

/// Whether a line of an error output is an error of the log, or tells of a panic.
fn tells_of_a_fault(line: &str) -> bool {
    line.split_whitespace().nth(1) == Some("ERROR") || line.contains("panicked at ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn a_process_that_says_what_makes_no_sense_has_not_just_ended() {
        let exchange = Exchange::new();
        let ((output, mut process), (_input, way_in)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let number = exchange.add_seat(Arc::new(WayIn::new(way_in)));
        process.write_all(&[255; 5]).unwrap();
        let (answers, _answered) = unbounded_channel();
        listen(output, number, &exchange, &answers);
        let trouble = exchange.trouble().await;
        assert_eq!(trouble.number, number);
        assert_eq!(format!("{:#}", trouble.error.unwrap()), "it says what makes no sense: a frame of no known kind");
    }

    #[test]
    fn errors_of_the_log_and_panics_are_faults_and_nothing_else_is() {
        for line in [
            "2026-11-26T08:00:00.123456Z ERROR driftmesh::host: a message does not encode to=5",
            "thread 'tokio-rt-worker' (7) panicked at peer/src/transfer.rs:3:5:",
        ] {
            assert!(tells_of_a_fault(line), "{line}");
        }
        for line in [
            "2026-11-26T08:00:00.123456Z  WARN driftmesh::transport: a peer is gone error=ERROR",
            "2026-11-26T08:00:00.123456Z  INFO driftmesh: joined",
            "",
        ] {
            assert!(!tells_of_a_fault(line), "{line}");
        }
    }
}
