//! One line of a client of the control socket: what it can say.
//!
//! It refuses what it does not know, with a sentence that says what would be right. It knows nothing of sockets.

use serde::Deserialize;

/// Longest line, bytes, without its end.
pub(super) const LINE_BYTES_MAX: usize = 4 << 10;

/// What a client can say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) cmd: Command,
    /// The id of the object that `explain` is about.
    #[serde(default)]
    pub(super) object: Option<String>,
    /// The id of the group that `promote` and `forget` are about.
    #[serde(default)]
    pub(super) group: Option<String>,
    /// Whether `promote` goes on although others have seen more.
    #[serde(default)]
    pub(super) accept_loss: bool,
    /// Whether `forget` gives up a group that somebody holds.
    #[serde(default)]
    pub(super) force: bool,
    /// The file that `export` writes.
    #[serde(default)]
    pub(super) file: Option<String>,
    /// How long `drain` may take, seconds.
    #[serde(default)]
    pub(super) limit: Option<u64>,
    /// How many objects `moves` and `contention` show at most.
    #[serde(default)]
    pub(super) most: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Command {
    Status,
    Explain,
    Moves,
    Contention,
    Leave,
    Drain,
    Export,
    Promote,
    Forget,
    Stop,
}

impl Line {
    /// Reads a line, with or without its end.
    ///
    /// # Errors
    /// What is wrong with it, and what can be said.
    pub(super) fn read(line: &[u8]) -> Result<Self, String> {
        let read = if line.trim_ascii_start().starts_with(b"{") {
            serde_json::from_slice(line).map_err(|error| error.to_string())
        } else {
            // A list of values in the order of the fields would be taken for them.
            Err("it is no JSON object".to_owned())
        };
        read.map_err(|error| {
            format!(
                "{error}; give {{\"cmd\": \"status\"}}, \"explain\", \"moves\", \"contention\", \"export\", \"promote\", \"forget\", \"drain\", \"leave\" or \"stop\""
            )
        })
    }
}
