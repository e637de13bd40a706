//! The one place that writes to the terminal. A closed pipe is no reason to stop a peer.
//!
//! It refuses to let whoever says something wait for whoever reads it: a terminal may stand still, and a peer must hear its
//! signals all the same. So a thread writes what a peer says; what it cannot write in time is left out, and counted.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Most lines that wait to be written; more are left out.
const LINES_MAX: usize = 1_024;
/// How long the end of the program waits for the last lines.
const LAST_LINES_MAX: Duration = Duration::from_secs(1);

/// Where a line goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum To {
    Stdout,
    Stderr,
}

fn write(to: To, line: &str) {
    // Nobody may be reading any more; the peer runs on all the same.
    let _ = match to {
        To::Stdout => {
            let mut stdout = std::io::stdout().lock();
            writeln!(stdout, "{line}").and_then(|()| stdout.flush())
        }
        To::Stderr => writeln!(std::io::stderr().lock(), "{line}"),
    };
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<(To, String)>,
    left_out: u64,
    /// Whether a line is being written.
    is_writing: bool,
}

/// Lines on their way to the terminal.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, to: To, line: &str) {
        let mut state = self.lock();
        if state.lines.len() >= LINES_MAX {
            state.left_out += 1;
            return;
        }
        match std::mem::take(&mut state.left_out) {
            0 => {}
            count => state.lines.push_back((To::Stderr, format!("driftmesh: {count} lines were left out here"))),
        }
        state.lines.push_back((to, line.to_owned()));
        self.changed.notify_all();
    }

    fn next(&self) -> (To, String) {
        let mut state = self.lock();
        state.is_writing = false;
        self.changed.notify_all();
        loop {
            if let Some(next) = state.lines.pop_front() {
                state.is_writing = true;
                return next;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until everything is written, for so long at most. Returns whether it is.
    fn wait(&self, limit: Duration) -> bool {
        let waits = |state: &mut State| state.is_writing || !state.lines.is_empty();
        let waited = self.changed.wait_timeout_while(self.lock(), limit, waits);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// Where lines go once a thread writes them.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// From now on nobody waits for the terminal.
pub(super) fn write_on_a_thread() {
    let queue = Arc::new(Queue::default());
    let writers = Arc::clone(&queue);
    let thread = std::thread::Builder::new().name("driftmesh-out".to_owned()).spawn(move || {
        loop {
            let (to, line) = writers.next();
            write(to, &line);
        }
    });
    if thread.is_ok() {
        // Called once.
        let _ = QUEUE.set(queue);
    }
}

/// Lets the last lines out before the program ends, unless nobody reads them.
pub(super) fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.wait(LAST_LINES_MAX);
    }
}

fn put(to: To, line: &str) {
    match QUEUE.get() {
        Some(queue) => queue.put(to, line),
        None => write(to, line),
    }
}

/// Writes a line to stdout.
pub(super) fn say(line: &str) {
    put(To::Stdout, line);
}

/// Writes a message to stderr.
pub(super) fn complain(message: &str) {
    put(To::Stderr, &format!("driftmesh: {message}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_bounded_counted_and_not_waited_for() {
        let queue = Queue::default();
        for number in 0..LINES_MAX + 7 {
            queue.put(To::Stdout, &number.to_string());
        }
        assert_eq!(queue.lock().lines.len(), LINES_MAX);
        assert!(!queue.wait(Duration::from_millis(1)), "nobody writes");
        for number in 0..LINES_MAX {
            assert_eq!(queue.next(), (To::Stdout, number.to_string()));
        }
        assert!(!queue.wait(Duration::from_millis(1)), "the last one is being written");
        queue.put(To::Stdout, "again");
        assert_eq!(queue.next().1, "driftmesh: 7 lines were left out here");
        assert_eq!(queue.next().1, "again");
        queue.lock().is_writing = false;
        assert!(queue.wait(Duration::ZERO));
    }
}
