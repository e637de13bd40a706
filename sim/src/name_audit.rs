//! What must hold of names at the end of a run (R23): read from the final directory buckets and signs, and compared with
//! what clients were told.

use crate::game::Sign;
use crate::name_log::{Bindings, NameLog};
use crate::name_watchers::NameStanding;
use driftmesh_model::{ObjectId, Value, decode_object};
use driftmesh_peer::session::NameBucket;
use std::collections::{BTreeMap, BTreeSet};

/// Most false answers that are reported.
const REPORTED_MAX: usize = 8;

/// All values at the end, by object.
type Values = BTreeMap<ObjectId, Value>;

/// Returns what is wrong with the names.
pub(crate) fn audit(
    values: &Values,
    log: &NameLog,
    happened: impl Fn(usize) -> bool,
    watches: &[NameStanding],
) -> Vec<String> {
    let mut wrong = Vec::new();
    let found = names_in_buckets(values, &mut wrong);
    watches_end_well(values, &found, watches, &log.ever_bound(&happened), &mut wrong);
    let (untrue, told) = log.replay(happened);
    wrong.extend(untrue.into_iter().take(REPORTED_MAX));
    for (name, bound) in &found {
        if told.get(name) != Some(bound) {
            wrong.push(format!("{name:?} ends bound to {bound}, but clients left it bound to {:?}", told.get(name)));
        }
    }
    for (name, bound) in told.iter().filter(|(name, _)| !found.contains_key(*name)) {
        wrong.push(format!("{name:?} ends free, but clients left it bound to {bound}"));
    }
    check_signs(values, found, &mut wrong);
    wrong
}

/// Once everything is quiet, each watch of names was told the final state, and never of anything that was not.
fn watches_end_well(
    values: &Values,
    found: &Bindings,
    watches: &[NameStanding],
    ever: &BTreeSet<(String, ObjectId)>,
    wrong: &mut Vec<String>,
) {
    let token = |object: &ObjectId| decode_object::<Sign>(values.get(object)?).ok().map(|sign| sign.token);
    for watch in watches {
        let of = format!("a watch of names {:?} at peer {:?}", watch.prefix, watch.at);
        wrong.extend(watch.errors.iter().take(1).map(|error| format!("{of}: {error}")));
        let made_up: Vec<_> = watch.ever.difference(ever).collect();
        if !made_up.is_empty() {
            wrong.push(format!("{of} was told of {made_up:?}, which never were"));
        }
        let with_prefix = found.iter().filter(|(name, _)| name.starts_with(watch.prefix));
        let expected: BTreeMap<_, _> =
            with_prefix.map(|(name, object)| (name.clone(), (*object, token(object)))).collect();
        if watch.names != expected {
            wrong.push(format!("{of} ended with {:?}, not with {expected:?}", watch.names));
        }
    }
}

/// Each name is bound to the sign that says it, and each sign is bound.
fn check_signs(values: &Values, mut names: Bindings, wrong: &mut Vec<String>) {
    for (object, value) in values {
        let Ok(sign) = decode_object::<Sign>(value) else { continue };
        let bound = names.remove(&sign.name);
        if bound != Some(*object) {
            wrong.push(format!("sign {object} says {:?}, which is bound to {bound:?}", sign.name));
        }
    }
    for (name, object) in names {
        wrong.push(format!("{name:?} is bound to {object}, which is no sign of that name"));
    }
}

/// All names, by a walk from the buckets of genesis that meets every bucket once and every name where it is looked for.
fn names_in_buckets(values: &Values, wrong: &mut Vec<String>) -> Bindings {
    let bucket = |(object, value): (&ObjectId, &Value)| Some((*object, decode_object::<NameBucket>(value).ok()?));
    let all: BTreeMap<ObjectId, NameBucket> = values.iter().filter_map(bucket).collect();
    let mut not_met = all.clone();
    let mut names = Bindings::new();
    let mut next: Vec<ObjectId> = NameBucket::of_genesis().collect();
    while let Some(id) = next.pop() {
        let Some(bucket) = not_met.remove(&id) else {
            wrong.push(format!("directory bucket {id} is missing, or has two parents"));
            continue;
        };
        next.extend_from_slice(bucket.children());
        for (name, object) in bucket.names().into_iter().flatten() {
            if leaf_of(&all, name) != id {
                wrong.push(format!("{name:?} is in bucket {id}, where nobody looks for it"));
            }
            names.insert(name.clone(), *object);
        }
    }
    wrong.extend(not_met.keys().map(|bucket| format!("directory bucket {bucket} has no parent")));
    names
}

fn leaf_of(all: &BTreeMap<ObjectId, NameBucket>, name: &str) -> ObjectId {
    let (mut at, mut level) = (NameBucket::first_of(name), 0);
    while let Some(child) = all.get(&at).and_then(|bucket| bucket.child_of(name, level)) {
        (at, level) = (child, level + 1);
    }
    at
}
