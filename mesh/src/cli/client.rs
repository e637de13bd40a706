//! Asking a running peer through its control socket, and `driftmesh status`, which shows what it says of itself.
//!
//! It refuses to wait for a peer that hangs, and to know more than the peer said: a field that is missing is not shown.

use super::exit::{Exit, Failure};
use super::{out, socket};
use serde_json::Value;
use std::fmt::Write;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A peer that does not answer for so long hangs.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest answer, bytes: some thousand members.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Shows the status of a peer.
///
/// # Errors
/// When no peer answers, or several run and none was named.
pub(super) fn status(control: Option<&Path>, json: bool) -> Result<(), Failure> {
    let (line, status) = ask(&chosen(control)?, &serde_json::json!({ "cmd": "status" }))?;
    out::say(if json { line } else { table(&status) }.as_str());
    Ok(())
}

/// The control socket that was named, or that of the one peer that runs.
///
/// # Errors
/// When none runs, or several and none was named.
pub(super) fn chosen(control: Option<&Path>) -> Result<PathBuf, Failure> {
    control.map_or_else(the_one_running, |path| Ok(path.to_owned()))
}

/// Asks a peer; returns its answer as it stands and as it reads.
///
/// # Errors
/// When it does not answer, or answers that it refuses, or cannot.
pub(super) fn ask(path: &Path, request: &Value) -> Result<(String, Value), Failure> {
    ask_for(path, request, ANSWER_MAX, &mut |_| {})
}

/// As `ask`, of something that may take so long, or so long from one word of progress to the next.
///
/// # Errors
/// As `ask`.
pub(super) fn ask_for(
    path: &Path,
    request: &Value,
    limit: Duration,
    progress: &mut dyn FnMut(&Value),
) -> Result<(String, Value), Failure> {
    let line = exchange(path, request, limit, progress)
        .map_err(|silent| Failure::new(Exit::Control, silent.told(&path.display().to_string())))?;
    let answer: Value = serde_json::from_str(&line)
        .map_err(|error| Failure::new(Exit::Control, format!("{} answered no JSON: {error}", path.display())))?;
    match (answer["refused"].as_str(), answer["error"].as_str()) {
        (Some(refused), _) => Err(Failure::new(Exit::Declined, refused)),
        (None, Some(error)) => Err(Failure::new(Exit::Other, error)),
        (None, None) => Ok((line.trim_end().to_owned(), answer)),
    }
}

fn the_one_running() -> Result<PathBuf, Failure> {
    let mut running = socket::running();
    match running.len() {
        0 => Err(Failure::new(
            Exit::Control,
            "no peer of this user has its control socket in the default place: one that was started with --control \
             PATH has to be named in the same way; `driftmesh peer --new` starts one",
        )),
        1 => Ok(running.swap_remove(0)),
        _ => {
            let mut message = "several peers run on this machine; choose one by its control socket:".to_owned();
            for path in running {
                // Writing to a string cannot fail.
                let _ = write!(message, "\n  --control {}", path.display());
            }
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
enum Silent {
    /// Nothing was said to the peer.
    Absent(io::Error),
    /// It said nothing for so long.
    Late(Duration),
    /// It ended, or hung up, before its answer was whole.
    HungUp,
    /// Its answer is longer than any may be.
    TooLong,
    /// The connection failed.
    Broken(io::Error),
}

impl Silent {
    fn told(&self, path: &str) -> String {
        let maybe = "it may have done what it was asked";
        match self {
            Self::Absent(error) => format!("no peer answers at {path}: {error}; see whether it still runs"),
            Self::Late(limit) => {
                let seconds = limit.as_secs_f64();
                format!("the peer at {path} says nothing for {seconds} s; {maybe}, or hang: ask for its status")
            }
            Self::HungUp => {
                format!("the peer at {path} hung up before it had answered; {maybe}: see whether it still runs")
            }
            Self::TooLong => format!("the peer at {path} answers with more than {ANSWER_BYTES_MAX} bytes; {maybe}"),
            Self::Broken(error) => format!("the connection to the peer at {path} broke: {error}; {maybe}"),
        }
    }
}

/// Says something and takes the answer; lines before it that tell of progress go to `progress`.
fn exchange(path: &Path, request: &Value, limit: Duration, progress: &mut dyn FnMut(&Value)) -> Result<String, Silent> {
    let mut stream = socket::connect(path).map_err(Silent::Absent)?;
    stream.set_read_timeout(Some(limit)).map_err(Silent::Broken)?;
    stream.set_write_timeout(Some(ANSWER_MAX)).map_err(Silent::Broken)?;
    // How a system tells that time is over.
    let is_late = |kind| [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&kind);
    let failed = |error: io::Error, limit| {
        if is_late(error.kind()) {
            Silent::Late(limit)
        } else if error.kind() == ErrorKind::ConnectionReset {
            Silent::HungUp
        } else {
            Silent::Broken(error)
        }
    };
    match stream.write_all(format!("{request}\n").as_bytes()) {
        // A peer that has too many clients says so before it reads, and hangs up.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.map_err(|error| failed(error, ANSWER_MAX))?,
    }
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let read = (&mut reader).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line);
        read.map_err(|error| failed(error, limit))?;
        if !line.ends_with(b"\n") {
            return Err(if line.len() as u64 == ANSWER_BYTES_MAX { Silent::TooLong } else { Silent::HungUp });
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        match serde_json::from_str::<Value>(&line) {
            Ok(told) if told["progress"].is_object() => progress(&told["progress"]),
            Ok(_) | Err(_) => return Ok(line),
        }
    }
}

/// Text of a value, without quotes.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn table(status: &Value) -> String {
    let get = |key: &str| text(&status[key]);
    let mut table = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{name:<10} {value}");
    };
    let genesis = status["genesis"].as_str().unwrap_or("not joined yet");
    row("mesh", format!("{} (genesis {genesis})", get("mesh")));
    row("peer", get("peer"));
    row("group", get("group"));
    for address in status["addresses"].as_array().into_iter().flatten() {
        row("address", text(address));
    }
    if let Some(zone) = status["zone"].as_str() {
        row("zone", zone.to_owned());
    }
    row("uptime", format!("{} s", status["uptime_ms"].as_u64().unwrap_or(0) / 1_000));
    row(
        "objects",
        format!("{} owned, {} in transit, {} being fetched", get("owned"), get("in_transit"), get("fetching")),
    );
    row("open", format!("{} transactions and snapshots", get("transactions")));
    row(
        "tasks",
        format!("{} submitted here and under way, {} of others run here", get("tasks_submitted"), get("tasks_running")),
    );
    panicked_rows(&status["tasks_panicked"]).into_iter().for_each(|value| row("panicked", value));
    schedule_rows(&status["schedules"]).into_iter().for_each(|(name, value)| row(name, value));
    let other_genesis = status["transport"]["other_genesis"].as_u64().unwrap_or(0);
    if other_genesis > 0 {
        row("refused", format!("{other_genesis} handshakes with peers of another mesh of this name"));
    }
    for offender in status["offenders"].as_array().into_iter().flatten() {
        row("offender", offender_line(offender));
    }
    row("journal", format!("at {}, lag {}", get("journal_tail"), get("journal_lag")));
    row("core", format!("longest hold {} us", get("longest_core_hold_us")));
    row(
        "directory",
        format!(
            "{} pointers, {} hints, {} home records, about {} KiB",
            get("pointers"),
            get("hints"),
            get("home_records"),
            status["directory_bytes"].as_u64().unwrap_or(0) / 1_024
        ),
    );
    if let Some(ahead_us) = status["clock_off_us"].as_i64() {
        row("clock", format!("{} ms ahead of the members: no transaction begins here; set it right", ahead_us / 1_000));
    }
    if status["superseded"].as_bool() == Some(true) {
        row("state", "superseded: another process counts as this peer now; stop this one".to_owned());
    }
    if status["draining"].as_bool() == Some(true) {
        row("state", "leaving".to_owned());
    }
    for (number, group) in status["groups"].as_array().into_iter().flatten().enumerate() {
        row(if number == 0 { "groups" } else { "" }, group_line(group, &status["peer"], number == 0));
    }
    for (number, group) in status["leaderless"].as_array().into_iter().flatten().enumerate() {
        let name = if number == 0 { "leaderless" } else { "" };
        row(name, leaderless_line(status, group));
    }
    row(
        "unstable",
        format!(
            "{} bytes for {} ms, {} messages wait for them",
            get("unstable_bytes"),
            get("unstable_ms"),
            get("held_messages")
        ),
    );
    row("may stop", may_stop(status));
    let members = status["members"].as_array().cloned().unwrap_or_default();
    row("peers", format!("{} besides this one", members.len()));
    members.iter().for_each(|member| row("", member_line(member)));
    table.truncate(table.trim_end().len());
    table
}

fn member_line(member: &Value) -> String {
    let get = |key: &str| text(&member[key]);
    let state = if member["connected"].as_bool() == Some(true) { "connected" } else { "lost" };
    let (peer, group, owned, heard) = (get("peer"), get("group"), get("owned"), get("heard_ms_ago"));
    format!("{peer}  group {group}  {state}  {owned} objects  heard {heard} ms ago")
}

/// The tasks that panicked at the peer.
fn panicked_rows(panicked: &Value) -> Vec<String> {
    let line = |one: &Value| {
        // What games name and say may hold anything, also what a terminal obeys.
        let (name, message) = (text(&one["name"]), text(&one["message"]));
        let (object, times) = (text(&one["object"]), text(&one["times"]));
        format!("{} of {object}, {times} times: {}", name.escape_debug(), message.escape_debug())
    };
    panicked.as_array().into_iter().flatten().map(line).collect()
}

/// The schedules of what the peer owns, and why some do not run.
fn schedule_rows(schedules: &Value) -> Vec<(&'static str, String)> {
    let get = |key: &str| text(&schedules[key]);
    let (scheduled, running, late, parked) = (get("scheduled"), get("running"), get("late"), get("parked"));
    let counts = format!("{scheduled} of what it owns: {running} run, {late} are late; {parked} more are parked");
    let mut rows = vec![("schedules", counts)];
    for waiting in schedules["waiting"].as_array().into_iter().flatten() {
        // What games name may hold anything, also what a terminal obeys.
        let (name, why) = (text(&waiting["name"]), text(&waiting["why"]));
        rows.push(("", format!("{} of {}: {}", name.escape_debug(), text(&waiting["id"]), why.escape_debug())));
    }
    rows
}

/// A group that nobody leads: how many objects it has, if this peer is a member of it, or its founder has said so last.
fn leaderless_line(status: &Value, group: &Value) -> String {
    let all = |list: &str| status[list].as_array().into_iter().flatten();
    let of = |entry: &&Value| entry["group"] == *group;
    let known = all("groups").find(of).or_else(|| all("members").find(of));
    let objects = known.and_then(|entry| entry["owned"].as_u64());
    let objects = objects.map_or_else(|| "objects".to_owned(), |objects| format!("{objects} objects"));
    format!("group {}: nobody in reach leads it; its {objects} are unavailable", text(group))
}

/// One group that the peer belongs to.
fn group_line(group: &Value, me: &Value, own: bool) -> String {
    let get = |key: &str| text(&group[key]);
    let leads = &group["leader"] == me;
    let role = match (leads, own) {
        (true, true) => "its own".to_owned(),
        (true, false) => "led in place of a lost peer".to_owned(),
        (false, _) if group["leader"].is_null() => "nobody leads".to_owned(),
        (false, _) => format!("led by {}", get("leader")),
    };
    // Only a leader knows what its members hold.
    let whole = if leads { format!("  whole {}/{}", get("whole"), get("wanted")) } else { String::new() };
    let alone = leads && group["has_majority"].as_bool() == Some(false);
    let alone = if alone { "  its majority is out of reach: nothing becomes stable" } else { "" };
    let halted = group["halted"].as_str().map_or_else(String::new, |why| format!("  stopped: {why}"));
    format!(
        "{}  {role}  {} voters, {} learners{whole}  {} owned  lag {}{alone}{halted}",
        get("group"),
        get("voters"),
        get("learners"),
        get("owned"),
        get("lag"),
    )
}

/// A member that said what no peer says.
fn offender_line(offender: &Value) -> String {
    let count = |name: &str| offender[name].as_u64().unwrap_or(0);
    let left = count("refused_for_ms").div_ceil(1_000);
    let now = if left > 0 { format!(", refused for another {left} s") } else { String::new() };
    format!(
        "{}  {} messages that do not decode, {} that no peer says, {} broken connections; dropped {} times{now}",
        text(&offender["peer"]),
        count("undecodable"),
        count("impossible"),
        count("malformed"),
        count("dropped"),
    )
}

/// Whether another peer may stop now, as far as this one knows.
fn may_stop(status: &Value) -> String {
    if let Some(why) = status["may_not_stop_because"].as_str() {
        return format!("no ({why})");
    }
    let others = status["members"].as_array().into_iter().flatten();
    if !others.into_iter().any(|member| member["connected"].as_bool() == Some(true)) {
        return "no (this is the last peer: its objects end with it)".to_owned();
    }
    let led = status["groups"].as_array().into_iter().flatten().filter(|group| group["leader"] == status["peer"]);
    if led.into_iter().all(|group| group["may_lose_one"].as_bool() == Some(true)) {
        return "yes".to_owned();
    }
    "yes, by `drain` or a clean stop; after a crash an operator would be needed (`promote`)".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_peers_groups_objects_and_lag() {
        let status = serde_json::json!({
            "mesh": "arena", "genesis": "ab", "peer": "12D3", "group": "01", "addresses": ["/ip4/127.0.0.1/tcp/1"],
            "uptime_ms": 2_500, "owned": 3, "in_transit": 1, "fetching": 0, "transactions": 0, "journal_tail": 9,
            "journal_lag": 2, "transport": {"other_genesis": 4}, "longest_core_hold_us": 40, "draining": false,
            "groups": [
                {"group": "01", "leader": "12D3", "voters": 1, "learners": 1, "whole": 1, "wanted": 2, "owned": 3, "lag": 2, "has_majority": false},
                {"group": "02", "leader": "12D4", "voters": 1, "learners": 1, "whole": 0, "wanted": 2, "owned": 7, "lag": 0},
            ],
            "tasks_submitted": 5, "tasks_running": 6, "superseded": true,
            "tasks_panicked": [{"name": "burn", "object": "05", "times": 2, "message": "no\u{1b}[2J fire", "last_ms": 1}],
            "schedules": {"scheduled": 8, "running": 1, "late": 2, "parked": 3,
                "waiting": [{"id": "04/1", "name": "rot\u{1b}[2J", "why": "nobody can run it"}]},
            "leaderless": ["03", "02"], "unstable_bytes": 96, "unstable_ms": 4, "held_messages": 1, "may_stop": false,
            "may_not_stop_because": "nobody in reach leads group 03",
            "members": [{"peer": "12D4", "group": "02", "connected": true, "owned": 7, "heard_ms_ago": 12}],
            "offenders": [{"peer": "12D9", "undecodable": 33, "impossible": 1, "malformed": 2, "dropped": 3, "refused_for_ms": 4_100}],
        });
        let table = table(&status);
        for part in [
            "arena",
            "12D3",
            "3 owned",
            "lag 2",
            "4 handshakes with peers of another mesh",
            "12D4  group 02  connected  7 objects",
            "uptime     2 s",
            "tasks      5 submitted here and under way, 6 of others run here\npanicked   burn of 05, 2 times: no\\u{1b}[2J fire\n",
            "schedules  8 of what it owns: 1 run, 2 are late; 3 more are parked\n           rot\\u{1b}[2J of 04/1: nobody can run it\n",
            "state      superseded: another process",
            "groups     01  its own  1 voters, 1 learners  whole 1/2  3 owned  lag 2  its majority is out of reach: nothing becomes stable\n",
            "02  led by 12D4  1 voters, 1 learners  7 owned  lag 0\n",
            "leaderless group 03: nobody in reach leads it; its objects are unavailable\n           group 02: nobody in reach leads it; its 7 objects are",
            "unstable   96 bytes for 4 ms, 1 messages",
            "may stop   no (nobody in reach leads group 03)",
            "12D9  33 messages that do not decode, 1 that no peer says, 2 broken connections; dropped 3 times, refused for another 5 s",
        ] {
            assert!(table.contains(part), "{part} in\n{table}");
        }
    }

    #[test]
    fn the_last_peer_may_not_stop_and_one_of_two_may_not_crash() {
        let mut status = serde_json::json!({
            "peer": "12D3", "may_not_stop_because": null, "members": [{"connected": false}],
            "groups": [{"leader": "12D3", "may_lose_one": false}, {"leader": "12D4", "may_lose_one": false}],
        });
        assert!(may_stop(&status).starts_with("no (this is the last peer"));
        status["members"][0]["connected"] = true.into();
        assert!(may_stop(&status).starts_with("yes, by `drain`"));
        status["groups"][0]["may_lose_one"] = true.into();
        assert_eq!(may_stop(&status), "yes");
    }

    /// What a client says of a peer that answers so, and then hangs up or hangs.
    fn said_of(answer: &'static [u8], hangs: bool) -> String {
        let number = driftmesh::transport::random_incarnation();
        let path = std::env::temp_dir().join(format!("dm-client-{number:016x}.sock"));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            // Who has heard too much hangs up.
            let _ = stream.write_all(answer);
            hangs.then_some(stream)
        });
        let limit = if hangs { Duration::from_millis(100) } else { Duration::from_secs(60) };
        let failure = ask_for(&path, &serde_json::json!({ "cmd": "status" }), limit, &mut |_| {}).unwrap_err();
        assert_eq!(failure.exit, Exit::Control);
        drop(peer.join().unwrap());
        std::fs::remove_file(path).unwrap();
        failure.message
    }

    #[test]
    fn why_there_is_no_answer_is_told_as_what_it_is() {
        let long: &'static [u8] = vec![b'x'; 5 << 20].leak();
        for (answer, hangs, part) in [
            (&b""[..], false, "hung up before it had answered"),
            (b"{\"cut\":", false, "hung up before it had answered"),
            (b"", true, "says nothing for 0.1 s"),
            (b"{\"progress\":{}}\n", true, "says nothing for 0.1 s"),
            (long, false, "more than 4194304 bytes"),
            (b"what\n", false, "answered no JSON"),
        ] {
            let said = said_of(answer, hangs);
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}
