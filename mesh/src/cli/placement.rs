//! `driftmesh moves` and `driftmesh contention`: which objects left a running peer and why, and which were in the way there.
//!
//! It refuses to move anything, and to answer for other peers: each knows only what left it, and what its own transactions
//! met.

use super::exit::Failure;
use super::line::Line;
use super::{MostArgs, client, full_id, out};
use driftmesh::{Mesh, MeshStatus, Micros, Move, MoveReason, ObjectUse, PeerId};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Objects of one answer unless said otherwise.
pub(super) const MOST: u64 = 20;
/// Most objects of one answer (R24): as many as a peer remembers to have left it.
pub(super) const MOST_MAX: u64 = 1_024;

/// What the figures of `contention` are of.
const LATELY: &str = "in the last 2 to 4 s";

/// How many objects a client wants to see.
fn most_of(line: &Line) -> Result<usize, Value> {
    let most = line.most.unwrap_or(MOST);
    usize::try_from(most).ok().filter(|_| (1..=MOST_MAX).contains(&most)).ok_or_else(
        || json!({ "error": format!("\"most\" is how many objects to show: give 1 to {MOST_MAX}, or leave it out") }),
    )
}

/// What a peer answers to `moves` at its control socket.
pub(super) fn answer_moves(mesh: &Mesh, line: &Line) -> Value {
    let most = match most_of(line) {
        Ok(most) => most,
        Err(error) => return error,
    };
    let (moves, status) = (mesh.moves(), mesh.status());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Micros::from_duration(now);
    let newest: Vec<Value> = moves.iter().rev().take(most).map(|moved| move_view(moved, &status, now)).collect();
    json!({ "moves": newest, "remembered": moves.len() })
}

fn move_view(moved: &Move, status: &MeshStatus, now: Micros) -> Value {
    let (reason, kind, used_with) = match &moved.reason {
        MoveReason::WantedBy(kind) => ("wanted", Some(kind.as_str()), None),
        MoveReason::UsedWith(with) => ("followed", None, with.map(|with| with.to_string())),
        MoveReason::Drained => ("drained", None, None),
    };
    let to_group = moved.to.to_string();
    json!({
        "object": moved.object.to_string(),
        "from_peer": full_id(&status.peer),
        "to_peer": leader_of(status, &to_group).map(|peer| full_id(&peer)),
        "to_group": to_group,
        // The clock may have been set back since.
        "ms_ago": now.0.saturating_sub(moved.at.0) / 1_000,
        "reason": reason,
        "kind": kind,
        "used_with": used_with,
    })
}

/// Who leads a group now, as far as this peer knows.
fn leader_of(status: &MeshStatus, group: &str) -> Option<PeerId> {
    let led = status.groups.iter().find(|known| known.group == group).and_then(|known| known.leader);
    led.or_else(|| status.members.iter().find(|member| member.group == group).map(|member| member.peer))
}

/// What a peer answers to `contention` at its control socket.
pub(super) fn answer_contention(mesh: &Mesh, line: &Line) -> Value {
    let most = match most_of(line) {
        Ok(most) => most,
        Err(error) => return error,
    };
    let contention = mesh.contention(most);
    let views = |used: &[ObjectUse]| used.iter().map(use_view).collect::<Vec<_>>();
    json!({ "contended": views(&contention.contended), "bouncing": views(&contention.bouncing) })
}

fn use_view(used: &ObjectUse) -> Value {
    json!({
        "object": used.object.to_string(),
        "attempts_ended": used.contended,
        "came": used.came,
        "commits": used.commits,
        "used_with": used.with.map(|with| with.to_string()),
    })
}

/// `driftmesh moves`: shows which objects left a peer last, where they went and why.
///
/// # Errors
/// When no peer answers, or several run and none was named.
pub(super) fn moves(args: &MostArgs) -> Result<(), Failure> {
    show(args, "moves", moves_text)
}

/// `driftmesh contention`: shows which objects were in the way of a peer's transactions, and which came to it again and again.
///
/// # Errors
/// When no peer answers, or several run and none was named.
pub(super) fn contention(args: &MostArgs) -> Result<(), Failure> {
    show(args, "contention", contention_text)
}

fn show(args: &MostArgs, command: &str, text: fn(&Value) -> String) -> Result<(), Failure> {
    let path = client::chosen(args.asked.control.as_deref())?;
    let (line, answer) = client::ask(&path, &json!({ "cmd": command, "most": args.most }))?;
    out::say(if args.asked.json { line } else { text(&answer) }.as_str());
    Ok(())
}

fn moves_text(answer: &Value) -> String {
    let moves = answer["moves"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(newest) = moves.first() else {
        return "no object has left this peer since it was started".to_owned();
    };
    let rows = moves.iter().map(|moved| {
        let get = |key: &str| client::text(&moved[key]);
        let to = match moved["to_peer"].as_str() {
            Some(peer) => format!("peer {peer}"),
            // Whoever led it may be gone.
            None => format!("group {}", get("to_group")),
        };
        [get("object"), to, get("ms_ago"), why(moved)]
    });
    let heads = ["object", "went to", "ms ago", "why"];
    let (from, count) = (client::text(&newest["from_peer"]), moves.len());
    let remembered = client::text(&answer["remembered"]);
    let table = table(heads, [false, false, true, false], rows);
    format!("{count} of {remembered} remembered moves from peer {from}, newest first\n{table}")
}

/// Why an object left, in words.
fn why(moved: &Value) -> String {
    match (moved["reason"].as_str(), moved["used_with"].as_str()) {
        // A game names its kinds of transactions as it likes, and so does a stranger.
        (Some("wanted"), _) => {
            format!("a transaction there wanted it, of kind `{}`", client::text(&moved["kind"]).escape_debug())
        }
        (Some("followed"), Some(with)) => format!("it followed object {with}, with which it was used most"),
        (Some("followed"), None) => "it followed an object with which it was used most".to_owned(),
        (Some("drained"), _) => "this peer handed over what it owned, to leave".to_owned(),
        (Some(_) | None, _) => client::text(&moved["reason"]).escape_debug().to_string(),
    }
}

fn contention_text(answer: &Value) -> String {
    let of = |key: &str| answer[key].as_array().map_or(&[][..], Vec::as_slice);
    let (contended, bouncing) = (of("contended"), of("bouncing"));
    if contended.is_empty() && bouncing.is_empty() {
        return format!(
            "no object was contended or bounced {LATELY}; a peer counts what its own transactions meet, so ask those that \
             run them"
        );
    }
    let part = |title: &str, used: &[Value]| {
        if used.is_empty() {
            return format!("{title}: none");
        }
        let rows = used.iter().map(|used| {
            let get = |key: &str| client::text(&used[key]);
            let with = used["used_with"].as_str().unwrap_or("-").to_owned();
            [get("object"), get("attempts_ended"), get("came"), get("commits"), with]
        });
        let heads = ["object", "attempts ended", "came here", "commits", "used most with"];
        format!("{title}\n{}", table(heads, [false, true, true, true, false], rows))
    };
    let contended = part(&format!("contended: attempts here ended because of these {LATELY}"), contended);
    let bouncing = part(&format!("bouncing: these came here more than once {LATELY}"), bouncing);
    format!("{contended}\n{bouncing}")
}

/// Rows below their heads; columns of numbers are flush right, and the last one is as wide as it is.
fn table<const N: usize>(heads: [&str; N], right: [bool; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(widths.iter().zip(right))
            .map(|(cell, (width, right))| if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::control::Control;
    use super::*;
    use driftmesh::{GroupId, Object, ObjectId, Ref, TaskKind};
    use serde::{Deserialize, Serialize};
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;
    use tokio::sync::mpsc;

    /// No test waits longer for anything.
    const HANGS: Duration = Duration::from_secs(90);

    #[derive(Serialize, Deserialize)]
    struct Mark {
        number: u32,
    }

    impl Object for Mark {
        const TYPE_NAME: &'static str = "mark";
    }

    #[test]
    fn the_table_of_moves_says_where_each_went_and_why_in_words_and_escapes_what_games_name() {
        let moved = |object: &str, ms_ago: u64, reason: &str| {
            json!({ "object": object, "from_peer": "12D3", "to_peer": "12D4", "to_group": "07", "ms_ago": ms_ago,
                "reason": reason, "kind": null, "used_with": null })
        };
        let mut moves = ["wanted", "followed", "followed", "drained"].map(|reason| moved("aa", 1_234, reason));
        moves[0]["kind"] = json!("trade\u{1b}[2J");
        moves[1]["used_with"] = json!("bb");
        moves[2]["to_peer"] = Value::Null;
        moves[3]["ms_ago"] = json!(7);
        let text = moves_text(&json!({ "moves": moves, "remembered": 9 }));
        let lines = [
            "4 of 9 remembered moves from peer 12D3, newest first",
            "object  went to    ms ago  why",
            "aa      peer 12D4    1234  a transaction there wanted it, of kind `trade\\u{1b}[2J`",
            "aa      peer 12D4    1234  it followed object bb, with which it was used most",
            "aa      group 07     1234  it followed an object with which it was used most",
            "aa      peer 12D4       7  this peer handed over what it owned, to leave",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        let none = moves_text(&json!({ "moves": [], "remembered": 0 }));
        assert_eq!(none, "no object has left this peer since it was started");
    }

    #[test]
    fn both_tables_of_contention_have_their_figures_and_say_when_there_are_none() {
        let used = json!({ "object": "aa", "attempts_ended": 12, "came": 3, "commits": 140, "used_with": null });
        let mut other = used.clone();
        other["used_with"] = json!("bb");
        let text = contention_text(&json!({ "contended": [used, other], "bouncing": [] }));
        let lines = [
            "contended: attempts here ended because of these in the last 2 to 4 s",
            "object  attempts ended  came here  commits  used most with",
            "aa                  12          3      140  -",
            "aa                  12          3      140  bb",
            "bouncing: these came here more than once in the last 2 to 4 s: none",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        let text = contention_text(&json!({ "contended": [], "bouncing": [used] }));
        assert!(text.contains("last 2 to 4 s: none\nbouncing: these came here"), "{text}");
        let none = contention_text(&json!({ "contended": [], "bouncing": [] }));
        assert!(none.starts_with("no object was contended or bounced") && none.lines().count() == 1, "{none}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_told_is_what_the_library_says() {
        let id = ObjectId::from_u128;
        let used = ObjectUse { object: id(1), commits: 2, contended: 3, came: 4, with: Some(id(5)) };
        let told = json!({ "object": id(1).to_string(), "attempts_ended": 3, "came": 4, "commits": 2,
            "used_with": id(5).to_string() });
        assert_eq!(use_view(&used), told);

        let mesh = Mesh::builder().start().await.unwrap();
        let status = mesh.status();
        let own: GroupId = status.group.parse().unwrap();
        for (reason, to, told) in [
            (MoveReason::WantedBy(TaskKind::new("drain")), own, ["wanted", "drain", "null"]),
            (MoveReason::UsedWith(Some(id(5))), own, ["followed", "null", told["used_with"].as_str().unwrap()]),
            (MoveReason::UsedWith(None), own, ["followed", "null", "null"]),
            // A group that this peer does not know.
            (MoveReason::Drained, GroupId::from_u128(9), ["drained", "null", "null"]),
        ] {
            let moved = Move { at: Micros(5_000), object: id(1), to, reason };
            let view = move_view(&moved, &status, Micros(7_999));
            assert_eq!(["reason", "kind", "used_with"].map(|key| client::text(&view[key])), told);
            let me = json!(full_id(&mesh.peer_id()));
            assert_eq!((&view["from_peer"], view["to_peer"] == me, &view["ms_ago"]), (&me, to == own, &json!(2)));
            assert_eq!(view["to_group"], to.to_string());
            // It was set back.
            assert_eq!(move_view(&moved, &status, Micros(0))["ms_ago"], 0);
        }
    }

    async fn count(mesh: &Mesh, mark: Ref<Mark>) {
        let counted = mesh.transact(|tx| async move {
            tx.get_mut(mark).await?.number += 1;
            Ok(())
        });
        counted.await.unwrap();
    }

    /// A transaction of which the first attempt ends, because another one commits while it runs.
    async fn collide(mesh: &Mesh, mark: Ref<Mark>) {
        let attempts = &AtomicU32::new(0);
        let collided = mesh.transact(|tx| async move {
            tx.get(mark).await?;
            if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
                count(mesh, mark).await;
            }
            tx.get_mut(mark).await?.number += 1;
            Ok(())
        });
        collided.await.unwrap();
    }

    async fn ask(path: &Path, request: Value) -> Result<Value, Failure> {
        let path = path.to_owned();
        let asked = tokio::task::spawn_blocking(move || client::ask(&path, &request).map(|(_, answer)| answer));
        asked.await.unwrap()
    }

    /// Brings an object in the way, until its peer says at its control socket that it is.
    async fn until_told(here: &Mesh, there: &Mesh, path: &Path) -> (Ref<Mark>, Value) {
        let mark = here.transact(|tx| async move { tx.create(&Mark { number: 0 }) }).await.unwrap();
        loop {
            collide(here, mark).await;
            count(there, mark).await;
            count(here, mark).await;
            let told = ask(path, json!({ "cmd": "contention" })).await.unwrap();
            if told["bouncing"][0]["came"].as_u64() >= Some(2) && told["contended"][0].is_object() {
                return (mark, told);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_peer_tells_at_its_socket_what_is_in_its_way_and_what_left_it_as_much_as_is_asked_for() {
        let here = Mesh::builder().start().await.unwrap();
        let there = Mesh::builder().join(&here.addresses()[0]).start().await.unwrap();
        let path = std::env::temp_dir().join(format!("dm-placement-{}.sock", std::process::id()));
        let (requests, _asked) = mpsc::channel(1);
        let control = Control::serve(Some(&path), here.clone(), requests).await.unwrap();
        let (mark, told) = tokio::time::timeout(HANGS, until_told(&here, &there, &path)).await.unwrap();
        for kind in ["contended", "bouncing"] {
            assert_eq!(told[kind][0]["object"], mark.to_string(), "{told}");
        }
        assert!(told["contended"][0]["attempts_ended"].as_u64() >= Some(1), "{told}");
        assert!(contention_text(&told).contains(&format!("\n{mark}  ")), "{told}");

        let told = ask(&path, json!({ "cmd": "moves", "most": 1 })).await.unwrap();
        assert_eq!((told["moves"].as_array().map(Vec::len), &told["moves"][0]["reason"]), (Some(1), &json!("wanted")));
        assert!(told["remembered"].as_u64() >= Some(2), "{told}");
        for command in ["moves", "contention"] {
            for most in [0, MOST_MAX + 1, u64::MAX] {
                let refused = ask(&path, json!({ "cmd": command, "most": most })).await.unwrap_err();
                assert!(refused.message.contains("give 1 to 1024"), "{}", refused.message);
            }
        }
        drop(control);
    }
}
