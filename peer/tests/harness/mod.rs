//! Several peers, one virtual clock, and messages that a test delivers, drops, repeats, delays and reorders by hand.
//!
//! A message takes no time: it lies in flight until it is delivered. Time passes only when a test says so.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part of it")]

mod fates;
mod jobs;
mod steps;
pub(crate) mod wire;
mod world;

pub(crate) use jobs::Job;
pub(crate) use steps::{Txn, ready};
pub(crate) use world::{Flight, Mesh, Rule, SeatHost, Setup, peer_id};

use driftmesh_model::{Object, Ref, Timestamp, Value, encode_object};
use driftmesh_object_store::{Body, Entry, GroupMessage};
use driftmesh_peer::{Message, Seen};
use serde::{Deserialize, Serialize};

/// What the tests store: a number, and as much ballast as a test needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Gold {
    pub(crate) amount: u64,
    ballast: String,
}

impl Object for Gold {
    const TYPE_NAME: &'static str = "gold";
}

/// A typed reference to an object of the tests.
pub(crate) type GoldRef = Ref<Gold>;

impl Gold {
    pub(crate) fn of(amount: u64) -> Self {
        Self { amount, ballast: String::new() }
    }
}

/// A small value, which is always sent whole.
pub(crate) fn small(amount: u64) -> Value {
    encode_object(&Gold::of(amount)).expect("encodes")
}

/// A value large enough to be spared by its hash.
pub(crate) fn large(amount: u64) -> Value {
    heavy(amount, 400)
}

/// A value with so many bytes of ballast.
pub(crate) fn heavy(amount: u64, bytes: usize) -> Value {
    encode_object(&Gold { amount, ballast: "x".repeat(bytes) }).expect("encodes")
}

/// The number in a value.
pub(crate) fn amount(value: &Value) -> u64 {
    driftmesh_model::decode_object::<Gold>(value).expect("what the tests store").amount
}

/// The number that an owner's answer shows; `None` where there is no value.
pub(crate) fn seen_amount(seen: &Seen) -> Option<u64> {
    match seen {
        Seen::Version { value, .. } => value.as_ref().map(amount),
        Seen::NotYetCreated | Seen::TooOld => None,
    }
}

/// So many microseconds after a timestamp, or before it.
pub(crate) fn shifted(timestamp: Timestamp, micros: i64) -> Timestamp {
    let wall = timestamp.wall().0.saturating_add_signed(micros);
    Timestamp::from_wall(driftmesh_model::Micros(wall))
}

macro_rules! is_message {
    ($name:ident, $pattern:pat) => {
        pub(crate) fn $name(flight: &Flight) -> bool {
            matches!(flight.envelope.message, $pattern)
        }
    };
}

is_message!(is_heartbeat, Message::Heartbeat { .. });
is_message!(is_read, Message::Read { .. });
is_message!(is_read_answer, Message::ReadAnswers { .. });
is_message!(is_own, Message::Own { .. });
is_message!(is_grant, Message::Grants { .. });
is_message!(is_grant_answer, Message::GrantAnswers { .. });
is_message!(is_locate, Message::Locate { .. });
is_message!(is_located, Message::Located { .. });
is_message!(is_publish, Message::Publish { .. });
is_message!(is_published, Message::Published { .. });
is_message!(is_learned, Message::Learned { .. });
is_message!(is_clock_ahead, Message::ClockAhead { .. });
is_message!(is_group, Message::Group { .. });
is_message!(is_groups, Message::Groups { .. });

/// What consensus says in this message, if it is of consensus.
fn consensus(flight: &Flight) -> Option<&Body<Entry>> {
    let Message::Group { message: GroupMessage::Consensus(message), .. } = flight.message() else { return None };
    Some(&message.body)
}

/// Whether this carries entries of a journal.
pub(crate) fn is_entries(flight: &Flight) -> bool {
    matches!(consensus(flight), Some(Body::Append { batch, .. }) if !batch.entries().is_empty())
}

/// Whether this is a leader's word to its followers, with entries or without.
pub(crate) fn is_lead(flight: &Flight) -> bool {
    matches!(consensus(flight), Some(Body::Append { .. }))
}

/// Whether this carries an entry of a journal that fits.
pub(crate) fn carries(flight: &Flight, fits: impl Fn(&Entry) -> bool) -> bool {
    let Some(Body::Append { batch, .. }) = consensus(flight) else { return false };
    batch.entries().iter().any(|(_, entry)| fits(entry))
}

/// Whether this says that entries are held.
pub(crate) fn is_held_word(flight: &Flight) -> bool {
    matches!(consensus(flight), Some(Body::Appended { .. }))
}
