//! Everything that is printed: lines, and a table that is drawn again in place on a terminal.
//!
//! It refuses to decide what is said. A reader that has gone (a closed pipe) is no error: the work goes on.

use std::io::{IsTerminal, Write};

/// Prints one line.
pub(crate) fn line(text: &str) {
    // `println` would panic when the reader has gone.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints one line to the error output.
pub(crate) fn error_line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A table that replaces its former self on a terminal; elsewhere each one follows the last.
#[derive(Debug)]
pub(crate) struct Redrawn {
    is_terminal: bool,
    lines_before: usize,
}

impl Redrawn {
    /// Nothing is drawn yet.
    pub(crate) fn new() -> Self {
        Self { is_terminal: std::io::stdout().is_terminal(), lines_before: 0 }
    }

    /// Draws, below lines that stay.
    pub(crate) fn draw(&mut self, stay: &[String], lines: &[String]) {
        let mut text = String::new();
        if self.is_terminal && self.lines_before > 0 {
            // Up to the first line of the former table, and clear from there.
            text.push_str(&format!("\x1b[{}A\x1b[J", self.lines_before));
        }
        for line in stay.iter().chain(lines) {
            text.push_str(line);
            text.push('\n');
        }
        let mut output = std::io::stdout().lock();
        let _ = output.write_all(text.as_bytes());
        let _ = output.flush();
        self.lines_before = lines.len();
    }
}
