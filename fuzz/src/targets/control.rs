//! Lines that clients write to the control socket. What is read says what its JSON says, and nothing else is read.

use serde_json::{Map, Value, json};

// The program's own file: the program is no library.
#[path = "../../../mesh/src/cli/line.rs"]
mod line;

use line::{Command, LINE_BYTES_MAX, Line};

/// Runs the target.
pub fn run(data: &[u8]) {
    // Longer lines are refused before they are read.
    let data = &data[..data.len().min(LINE_BYTES_MAX)];
    match Line::read(data) {
        Ok(line) => {
            let said: Value = serde_json::from_slice(data).expect("what is read is JSON");
            let written = written(&line);
            for (name, value) in said.as_object().expect("a map") {
                let is_default = value.is_null() || *value == json!(false);
                assert!(written.get(name) == Some(value) || is_default, "{name} of {said} is read as {line:?}");
            }
            let again =
                Line::read(Value::Object(written.clone()).to_string().as_bytes()).expect("what is written is read");
            assert_eq!(self::written(&again), written);
        }
        Err(error) => assert!(error.contains("\"status\"") && error.len() < 3 * LINE_BYTES_MAX, "{error}"),
    }
}

fn written(line: &Line) -> Map<String, Value> {
    let Line { cmd, object, group, accept_loss, force, file, limit, most } = line;
    let cmd = match cmd {
        Command::Status => "status",
        Command::Explain => "explain",
        Command::Leave => "leave",
        Command::Drain => "drain",
        Command::Export => "export",
        Command::Promote => "promote",
        Command::Forget => "forget",
        Command::Stop => "stop",
        Command::Moves => "moves",
        Command::Contention => "contention",
    };
    let all = json!({
        "cmd": cmd,
        "object": object,
        "group": group,
        "accept_loss": accept_loss,
        "force": force,
        "file": file,
        "limit": limit,
        "most": most,
    });
    if let Value::Object(all) = all { all } else { Map::new() }
}
