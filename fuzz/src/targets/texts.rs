//! Texts that users write: addresses to join and to listen at, and ids. What is read and shown is read as the same again.

use driftmesh::fuzzing::{is_loopback, listen_address, place};
use driftmesh::transport::{PeerAddress, parse_address};
use driftmesh_model::{GroupId, ObjectId, ScheduleId, TaskId};
use std::fmt::{Debug, Display};
use std::str::FromStr;

/// Runs the target.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    same_again::<ObjectId>(&text);
    same_again::<GroupId>(&text);
    same_again::<TaskId>(&text);
    same_again::<ScheduleId>(&text);
    same_again::<PeerAddress>(&text);
    if let Err(error) = parse_address(&text) {
        is_for_a_terminal(&error.to_string());
    }
    match listen_address(&text) {
        Ok(address) => {
            assert_eq!(listen_address(&address.to_string()).as_ref(), Ok(&address));
            assert_eq!(place(&address), address, "nobody is expected where one listens oneself");
            let _ = is_loopback(&address);
        }
        Err(error) => is_for_a_terminal(&error.to_string()),
    }
}

fn same_again<T: FromStr<Err: Display + Debug> + Display + PartialEq + Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let shown = value.to_string();
            is_for_a_terminal(&shown);
            assert_eq!(shown.parse::<T>().as_ref().ok(), Some(&value), "{text:?} shown as {shown:?}");
        }
        Err(error) => is_for_a_terminal(&error.to_string()),
    }
}

/// What users are shown has no signs that a terminal obeys, whoever wrote the text.
fn is_for_a_terminal(shown: &str) {
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
}
