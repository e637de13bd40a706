//! The commands by which operators act on a running peer: they ask at its control socket and show what it answers.
//!
//! What the commands do is the peer's business (`control.rs`); this refuses to know more than how to ask and to tell.

use super::exit::{Exit, Failure};
use super::{client, out};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// How long a drain may take unless said otherwise, seconds.
pub(super) const DRAIN_SECONDS: u64 = 60;
/// The goodbye after a drain takes 2 s at most; the rest is for a machine that is busy.
const DRAIN_GRACE: Duration = Duration::from_secs(10);

/// `driftmesh drain`: hands everything over, then the peer ends.
///
/// # Errors
/// When no peer answers, or something was lost.
pub(super) fn drain(control: Option<&Path>, limit: u64, json: bool) -> Result<Exit, Failure> {
    let path = client::chosen(control)?;
    let wait = Duration::from_secs(limit).saturating_add(DRAIN_GRACE);
    let (line, answer) = client::ask_for(&path, &json!({ "cmd": "drain", "limit": limit }), wait)?;
    out::say(if json { line } else { drained(&answer) }.as_str());
    match answer["drained"]["lost"].as_u64() {
        Some(lost) if lost > 0 => {
            let message = format!("{lost} objects ended with the peer: nobody else had them");
            Err(Failure::new(Exit::Other, message))
        }
        Some(_) | None => Ok(Exit::Success),
    }
}

fn drained(answer: &Value) -> String {
    let get = |key: &str| client::text(&answer["drained"][key]);
    format!(
        "{} objects moved, {} left to be taken over by those who hold copies, {} lost",
        get("moved"),
        get("left"),
        get("lost")
    )
}
