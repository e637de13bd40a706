//! The one place that writes to the terminal. A closed pipe is no reason to stop a peer.

use std::io::Write;

/// Writes a line to stdout.
pub(super) fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // Nobody may be reading any more; the peer runs on all the same.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Writes a message to stderr.
pub(super) fn complain(message: &str) {
    // As above.
    let _ = writeln!(std::io::stderr().lock(), "driftmesh: {message}");
}
