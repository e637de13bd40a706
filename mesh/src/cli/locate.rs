//! `driftmesh where` and `driftmesh explain`: where an object is, and how a running peer found that.
//!
//! It refuses to search by itself: the peer that is asked does.

use super::client;
use super::exit::{Exit, Failure};
use super::out;
use driftmesh::{Found, Mesh, ObjectId, Place};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// What a peer answers at its control socket.
pub(super) async fn answer(mesh: &Mesh, object: Option<&str>) -> Value {
    let Some(object) = object.and_then(|object| object.parse::<ObjectId>().ok()) else {
        return json!({ "error": "give the object's id, 32 hexadecimal digits: {\"cmd\": \"explain\", \"object\": \"ID\"}" });
    };
    match mesh.explain(object).await {
        Ok(found) => described(object, &found),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

fn described(object: ObjectId, found: &Found) -> Value {
    let steps: Vec<String> = found.trail.steps().iter().map(ToString::to_string).collect();
    let mut described = json!({
        "object": object.to_string(),
        "how": found.how.to_string(),
        "hops": found.hops,
        "steps": steps,
        "more_steps": found.trail.more(),
    });
    match found.place {
        Place::At { peer, group, epoch } => {
            described["place"] = json!("at");
            described["peer"] = json!(super::full_id(&peer));
            described["group"] = json!(group.to_string());
            described["epoch"] = json!(epoch.as_u64());
        }
        Place::Nowhere => described["place"] = json!("nowhere"),
        Place::Lost { group } => {
            described["place"] = json!("lost");
            described["group"] = json!(group.to_string());
        }
        Place::Unavailable => described["place"] = json!("unavailable"),
    }
    described
}

/// Asks a running peer, and shows what it says; with `steps` also how it searched.
///
/// # Errors
/// When no peer answers, the id is no id, or the object was not found.
pub(super) fn show(control: Option<&Path>, object: &str, steps: bool, json: bool) -> Result<(), Failure> {
    if object.parse::<ObjectId>().is_err() {
        return Err(Failure::new(Exit::Usage, format!("{object} is no object id: give its 32 hexadecimal digits")));
    }
    let path = client::chosen(control)?;
    let (line, found) = client::ask(&path, &json!({ "cmd": "explain", "object": object }))?;
    out::say(if json { line } else { text(&found, steps) }.as_str());
    if found["place"] == "at" {
        return Ok(());
    }
    Err(Failure::new(Exit::NotFound, not_found(&found)))
}

fn not_found(found: &Value) -> String {
    let object = client::text(&found["object"]);
    if found["place"] == "nowhere" {
        return format!(
            "object {object} is nowhere: every group denied having it; it is deleted and forgotten, or its creation never committed"
        );
    }
    if found["place"] == "lost" {
        let group = client::text(&found["group"]);
        return format!("object {object} is lost: it belonged to group {group}, which an operator gave up (`forget`)");
    }
    format!(
        "object {object}: nobody who may have it answered; see `driftmesh status` for peers that are lost, and try again"
    )
}

fn text(found: &Value, steps: bool) -> String {
    let get = |key: &str| client::text(&found[key]);
    let mut text = String::new();
    if found["place"] == "at" {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "object {}: peer {} group {} epoch {} (found by {}, {} hops)",
            get("object"),
            get("peer"),
            get("group"),
            get("epoch"),
            get("how"),
            get("hops"),
        );
    } else {
        let _ = write!(text, "object {}: {}", get("object"), get("place"));
    }
    if steps {
        for step in found["steps"].as_array().into_iter().flatten() {
            let _ = write!(text, "\n  {}", client::text(step));
        }
        if found["more_steps"].as_u64().is_some_and(|more| more > 0) {
            let _ = write!(text, "\n  and {} more steps", get("more_steps"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_where_how_and_on_request_by_which_steps() {
        let found = json!({ "object": "ab", "place": "at", "peer": "12D3", "group": "07", "epoch": 3, "how": "pointer",
            "hops": 1, "steps": ["asked group 05"], "more_steps": 0 });
        assert_eq!(text(&found, false), "object ab: peer 12D3 group 07 epoch 3 (found by pointer, 1 hops)");
        assert!(text(&found, true).ends_with("\n  asked group 05"));
        assert!(not_found(&json!({ "object": "ab", "place": "nowhere" })).contains("every group denied"));
    }
}
