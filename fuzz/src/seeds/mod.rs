//! What the corpora begin with: real values of every kind, and lists of choices.
//!
//! They are the same each time, so that a test can say whether the committed ones are those of the present code: whoever adds
//! a message or an entry writes them anew (`cargo run --package driftmesh-fuzz --example corpus`). Inputs that were found are
//! beside them in the same folders, and stay.

#[cfg(feature = "network")]
pub mod network;

use crate::imagine::Draws;
use crate::targets::objects::{Kind, LongNamed, Thing};
use driftmesh_model::{Object, ObjectId, Ref, Value, codec, encode_object};
use driftmesh_object_store::Entry;
use driftmesh_peer::Envelope;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// How many values are imagined to find a few small ones that show everything.
const CANDIDATES: u64 = 4_000;
/// How many are imagined at most, if these do not.
const CANDIDATES_MAX: u64 = 60_000;
/// Most bytes that one of them is drawn from.
const DRAWS_MAX: u64 = 400;
/// Most bytes that one of the others is drawn from.
const LONG_DRAWS_MAX: u64 = 1_200;
/// How many lists of choices a corpus begins with.
const LISTS: u64 = 24;

/// Bytes that are the same each time.
fn bytes_of(name: &str, number: u64, length: u64) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes()).update(&number.to_be_bytes());
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// A variant of an enumeration: its name and that of the enumeration.
type Variant = (&'static str, &'static str);

/// Few encoded values, and small ones, that have every variant of every enumeration in them.
///
/// # Panics
/// When the values that are imagined do not have all of them.
fn covering<T: Serialize + DeserializeOwned>(name: &str) -> Vec<Vec<u8>> {
    let mut candidates: Vec<(Vec<u8>, BTreeSet<Variant>)> = Vec::new();
    let mut enums: BTreeMap<&'static str, &'static [&'static str]> = BTreeMap::new();
    let mut all = BTreeSet::new();
    let lacks = |enums: &BTreeMap<&'static str, &'static [&'static str]>, all: &BTreeSet<Variant>| {
        enums.iter().any(|(name, variants)| variants.iter().any(|variant| !all.contains(&(*name, *variant))))
    };
    for number in 0..CANDIDATES_MAX {
        if number >= CANDIDATES && number % 100 == 0 && !lacks(&enums, &all) {
            break;
        }
        let length = if number < CANDIDATES { number % DRAWS_MAX } else { number % LONG_DRAWS_MAX };
        let mut draws = Draws::new(bytes_of(name, number, length));
        let Ok(value) = draws.imagine::<T>() else { continue };
        enums.append(&mut draws.enums);
        all.extend(draws.chosen.iter().copied());
        candidates.push((codec::encode(&value).expect("a value encodes"), draws.chosen));
    }
    candidates.sort_by_key(|(encoded, chosen)| (encoded.len() / chosen.len().max(1), encoded.len()));
    let mut met = BTreeSet::new();
    candidates.retain(|(_, chosen)| {
        let adds = chosen.iter().any(|variant| !met.contains(variant));
        met.extend(chosen.iter().copied());
        adds || chosen.is_empty() && met.is_empty()
    });
    for (name, variants) in enums {
        let never: Vec<_> = variants.iter().filter(|variant| !met.contains(&(name, **variant))).collect();
        assert!(never.is_empty(), "{name}: never {never:?}; imagine more values");
    }
    candidates.truncate(400);
    candidates.into_iter().map(|(encoded, _)| encoded).collect()
}

/// With a byte before it that says what it is.
#[cfg(feature = "network")]
fn tagged(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [&[tag], bytes].concat()
}

/// Messages of every kind.
#[must_use]
pub fn message() -> Vec<Vec<u8>> {
    covering::<Envelope>("message")
}

/// Entries of every kind.
#[must_use]
pub fn entry() -> Vec<Vec<u8>> {
    covering::<Entry>("entry")
}

/// Lists of choices.
#[must_use]
pub fn choices() -> Vec<Vec<u8>> {
    (0..LISTS).map(|number| bytes_of("choices", number, 20 + 40 * (number % 12))).collect()
}

/// All that a client can say.
#[must_use]
pub fn control() -> Vec<Vec<u8>> {
    [
        r#"{"cmd": "status"}"#,
        r#"{"cmd": "explain", "object": "0123456789abcdef0123456789abcdef"}"#,
        r#"{"cmd": "moves"}"#,
        r#"{"cmd": "contention"}"#,
        r#"{"cmd": "export", "file": "/tmp/a"}"#,
        r#"{"cmd": "promote", "group": "0123456789abcdef0123456789abcdef", "accept_loss": true}"#,
        r#"{"cmd": "forget", "group": "a", "force": true}"#,
        r#"{"cmd": "drain", "limit": 60}"#,
        r#"{"cmd": "leave"}"#,
        r#"{"cmd": "stop"}"#,
        r#"{"cmd": "stopp"}"#,
        r#"{"cmd": "stop", "else": null}"#,
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec()
}

/// Histories that are sound, and some that are not.
#[must_use]
pub fn histories() -> Vec<Vec<u8>> {
    [
        "{:index 0, :type :invoke, :process 0, :f :txn, :value [[:append 1 1] [:r 1 nil]], :time 1}\n\
         {:index 1, :type :ok, :process 0, :f :txn, :value [[:append 1 1] [:r 1 [1]]], :time 2}\n\
         {:index 2, :type :invoke, :process 1, :f :txn, :value [[:append 1 2]], :time 3}\n\
         {:index 3, :type :info, :process 1, :f :txn, :value [[:append 1 2]], :time 4}\n",
        "{:index 0, :type :invoke, :process 0, :value [[:r 5 nil]]}\n\
         {:index 1, :type :ok, :process 0, :value [[:r 5 [7 8]]]}\n",
        "#jepsen.history.Op{:index 0 :type :fail :process 3 :value (nil #{1}) :error \"a \\\" b\"} ; end",
        r#"{"params":{"id":1,"n_node":1,"n_variable":2,"n_transaction":1,"n_event":2},"info":"x","start":"a","end":"b",
"data":[[{"events":[{"Read":{"variable":1,"version":0}},{"Write":{"variable":1,"version":5}}],"committed":true}],
[{"events":[{"Read":{"variable":1,"version":5}}],"committed":true}]]}"#,
        r#"{"params":{"id":1,"n_node":1,"n_variable":2,"n_transaction":1,"n_event":2},"info":"x","start":"a","end":"b",
"data":[[{"events":[{"Write":{"variable":1,"version":0}}],"committed":true}]]}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Values of users' types, and what no type makes.
#[must_use]
pub fn objects() -> Vec<Vec<u8>> {
    let thing = Thing {
        name: "sword".to_owned(),
        gold: -5,
        owner: Some(Ref::from_id(ObjectId::from_u128(7))),
        places: BTreeMap::from([("here".to_owned(), ObjectId::from_u128(8))]),
        kinds: vec![Kind::Plain, Kind::Of(3), Kind::With { a: 1, b: Some("b".to_owned()) }],
        added_later: true,
    };
    let encoded = |value: Value| value.bytes().to_vec();
    let names: BTreeMap<&str, ObjectId> = [("guild/red", ObjectId::from_u128(9))].into();
    let bucket = [
        codec::encode(driftmesh_peer::session::NameBucket::TYPE_NAME),
        codec::encode(&1_u32),
        codec::encode(&BTreeMap::from([("node", BTreeMap::from([("Names", names)]))])),
    ];
    let children: Vec<ObjectId> = (0..16).map(ObjectId::from_u128).collect();
    let split = [
        codec::encode(driftmesh_peer::session::NameBucket::TYPE_NAME),
        codec::encode(&1_u32),
        codec::encode(&BTreeMap::from([("node", BTreeMap::from([("Children", children)]))])),
    ];
    let whole = |parts: [Result<Vec<u8>, codec::EncodeError>; 3]| parts.map(|part| part.expect("encodes")).concat();
    vec![
        encoded(encode_object(&thing).expect("encodes")),
        encoded(encode_object(&LongNamed(thing)).expect("encodes")),
        whole(bucket),
        whole(split),
        b"rubbish".to_vec(),
    ]
}
