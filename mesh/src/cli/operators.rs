//! The commands by which operators act on a running peer: what they ask at its control socket, and what it answers there.
//!
//! Whether they may be done is the core's business; this refuses to know more than how to ask and to tell.

use super::exit::{Exit, Failure};
use super::line::Line;
use super::{ExportArgs, ForgetArgs, PromoteArgs, client, full_id, out};
use driftmesh::{ExportError, Exported, GroupId, Mesh, OperatorError, PeerId};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

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
    let (line, answer) = client::ask_for(&path, &json!({ "cmd": "drain", "limit": limit }), wait, &mut |_| {})?;
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

/// Longer than the survey that precedes both commands.
const SURVEY_MAX: Duration = Duration::from_secs(10);

/// `driftmesh promote`: founds a group anew.
///
/// # Errors
/// When no peer answers, or it refuses.
pub(super) fn promote(args: &PromoteArgs) -> Result<Exit, Failure> {
    check_group(&args.group)?;
    let request = json!({ "cmd": "promote", "group": args.group, "accept_loss": args.accept_loss });
    show(&request, args.asked.control.as_deref(), args.asked.json, |answer| {
        let get = |key: &str| client::text(&answer["promoted"][key]);
        let lost = answer["promoted"]["beyond"].as_str().map_or_else(String::new, |beyond| format!("\n{beyond}"));
        let waits =
            |group: &Value| format!("\nwhat returns of group {} waits for an operator too", client::text(group));
        let fenced: String = answer["promoted"]["fenced"].as_array().into_iter().flatten().map(waits).collect();
        format!(
            "the group is founded anew as generation {}, with {} objects and {} members{lost}{fenced}",
            get("generation"),
            get("owned"),
            get("members")
        )
    })
}

/// `driftmesh forget`: gives a group up.
///
/// # Errors
/// When no peer answers, or it refuses.
pub(super) fn forget(args: &ForgetArgs) -> Result<Exit, Failure> {
    check_group(&args.group)?;
    let request = json!({ "cmd": "forget", "group": args.group, "force": args.force });
    let told = format!("group {} is given up: its objects and receipts are lost", args.group);
    show(&request, args.asked.control.as_deref(), args.asked.json, |_| told)
}

fn show(
    request: &Value,
    control: Option<&Path>,
    json: bool,
    told: impl FnOnce(&Value) -> String,
) -> Result<Exit, Failure> {
    let (line, answer) = client::ask_for(&client::chosen(control)?, request, SURVEY_MAX, &mut |_| {})?;
    out::say(if json { line } else { told(&answer) }.as_str());
    Ok(Exit::Success)
}

fn check_group(group: &str) -> Result<(), Failure> {
    let wrong = |_| {
        let message = format!("{group} is no group id: give its 32 hexadecimal digits, as the status names it");
        Failure::new(Exit::Usage, message)
    };
    group.parse::<GroupId>().map(|_| ()).map_err(wrong)
}

fn group_of(line: &Line) -> Result<GroupId, Value> {
    let group = line.group.as_deref().and_then(|group| group.parse().ok());
    group.ok_or_else(|| json!({ "error": "give the group's id, 32 hexadecimal digits, as the status names it" }))
}

/// What a peer answers to `promote` at its control socket.
pub(super) async fn answer_promote(mesh: &Mesh, line: &Line) -> Value {
    let group = match group_of(line) {
        Ok(group) => group,
        Err(error) => return error,
    };
    match mesh.promote(group, line.accept_loss).await {
        Ok(promoted) => json!({ "promoted": {
            "generation": promoted.generation.as_u64(),
            "owned": promoted.owned,
            "members": promoted.members,
            "fenced": promoted.fenced.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "beyond": promoted.beyond.map(|beyond| beyond.to_string()),
        } }),
        Err(error) => refused(&error),
    }
}

/// What a peer answers to `forget` at its control socket.
pub(super) async fn answer_forget(mesh: &Mesh, line: &Line) -> Value {
    let group = match group_of(line) {
        Ok(group) => group,
        Err(error) => return error,
    };
    match mesh.forget(group, line.force).await {
        Ok(()) => json!({ "forgotten": group.to_string() }),
        Err(error) => refused(&error),
    }
}

/// A refusal, which names peers as the status does.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's errors may grow; most name no peer")]
fn refused(error: &OperatorError) -> Value {
    let named: Option<PeerId> = match error {
        OperatorError::HasLeader { leader, .. } => Some(*leader),
        OperatorError::HasMember { member, .. }
        | OperatorError::AskPeer { member, .. }
        | OperatorError::Unanswered { member, .. } => Some(*member),
        _ => None,
    };
    let mut text = error.to_string();
    if let Some(peer) = named {
        text = text.replace(&peer.to_string(), &full_id(&peer));
    }
    json!({ "refused": text })
}

/// From one word of an export to the next, at most.
const EXPORT_SILENT_MAX: Duration = Duration::from_secs(60);
/// How often an export tells how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// How often it says that it goes on, when it is no farther: a page may be long in coming, and so may be a whole snapshot.
const GOES_ON_EVERY: Duration = Duration::from_secs(5);

/// `driftmesh export`: writes a snapshot of the mesh to a file.
///
/// # Errors
/// When no peer answers, the file cannot be written, or no snapshot was whole.
pub(super) fn export(args: &ExportArgs) -> Result<Exit, Failure> {
    // The peer may have been started elsewhere.
    let wrong = |why: String| Failure::new(Exit::Usage, format!("{}: {why}", args.file.display()));
    let file = std::path::absolute(&args.file).map_err(|error| wrong(error.to_string()))?;
    let Some(file) = file.to_str() else {
        return Err(wrong(
            "the whole path of the file must be UTF-8, to be told to the peer; choose another name".to_owned(),
        ));
    };
    let path = client::chosen(args.asked.control.as_deref())?;
    let request = json!({ "cmd": "export", "file": file });
    let is_shown = std::io::stderr().is_terminal();
    let mut progress = |told: &Value| {
        let line = format!(
            "snapshot {}: {} objects, {} KiB",
            client::text(&told["snapshots"]),
            client::text(&told["objects"]),
            told["bytes"].as_u64().unwrap_or(0) >> 10
        );
        if is_shown {
            // A terminal that is gone need not be told.
            let _ = write!(std::io::stderr(), "\r{line} ");
        }
    };
    let answered = client::ask_for(&path, &request, EXPORT_SILENT_MAX, &mut progress);
    if is_shown {
        let _ = writeln!(std::io::stderr());
    }
    let (line, answer) = answered?;
    let get = |key: &str| client::text(&answer["exported"][key]);
    let text = format!("{} objects, {} bytes written to {}", get("objects"), get("bytes"), file);
    out::say(if args.asked.json { line } else { text }.as_str());
    Ok(Exit::Success)
}

/// What a peer answers to `export` at its control socket; `told` takes what it says before.
pub(super) async fn answer_export(mesh: &Mesh, line: &Line, told: &mpsc::Sender<Value>) -> Value {
    let Some(file) = line.file.as_deref().map(PathBuf::from).filter(|file| file.is_absolute()) else {
        return json!({ "error": "give the file, by its whole path: {\"cmd\": \"export\", \"file\": \"/PATH\"}" });
    };
    let (noted, progress) = watch::channel(Exported::default());
    let exporting = mesh.export(&file, |exported| {
        noted.send_replace(exported);
    });
    match telling(exporting, progress, told, GOES_ON_EVERY).await {
        Ok(Exported { objects, bytes, snapshots }) => {
            json!({ "exported": { "objects": objects, "bytes": bytes, "snapshots": snapshots } })
        }
        Err(error) => not_exported(&error),
    }
}

/// A disk that is full or a directory that is not there is nothing that the peer refuses.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's errors may grow; most are refusals")]
fn not_exported(error: &ExportError) -> Value {
    match error {
        ExportError::Unwritable { .. } => json!({ "error": error.to_string() }),
        _ => json!({ "refused": error.to_string() }),
    }
}

/// Waits for an export, and tells meanwhile how far it is, or that it goes on.
async fn telling<T>(
    exporting: impl Future<Output = T>,
    mut progress: watch::Receiver<Exported>,
    told: &mpsc::Sender<Value>,
    goes_on_every: Duration,
) -> T {
    let telling = async {
        loop {
            let _ = tokio::time::timeout(goes_on_every, progress.changed()).await;
            let Exported { objects, bytes, snapshots } = *progress.borrow_and_update();
            // Who does not read fast enough hears less.
            let _ =
                told.try_send(json!({ "progress": { "objects": objects, "bytes": bytes, "snapshots": snapshots } }));
            tokio::time::sleep(PROGRESS_EVERY).await;
        }
    };
    tokio::select! {
        biased;
        ended = exporting => ended,
        never = telling => never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_no_refusal() {
        let file = PathBuf::from("/full/mesh.export");
        let error = std::io::ErrorKind::StorageFull.into();
        assert!(not_exported(&ExportError::Unwritable { file: file.clone(), error })["error"].is_string());
        assert!(not_exported(&ExportError::Exists { file })["refused"].is_string());
    }

    #[tokio::test]
    async fn an_export_that_gets_no_farther_says_that_it_goes_on_and_tells_of_each_snapshot() {
        let (noted, progress) = watch::channel(Exported::default());
        let (teller, mut told) = mpsc::channel::<Value>(4);
        let silent = async {
            for _ in 0..2 {
                assert_eq!(told.recv().await.unwrap()["progress"]["snapshots"], 0);
            }
            noted.send_replace(Exported { snapshots: 2, ..Exported::default() });
            while told.recv().await.unwrap()["progress"]["snapshots"] != 2 {}
        };
        let ended = telling(silent, progress, &teller, Duration::from_millis(10));
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), ended).await, Ok(()));
    }
}
