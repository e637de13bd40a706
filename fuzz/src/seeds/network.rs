//! What the corpora of the transport and of the programs begin with.

use super::{LISTS, bytes_of, covering, tagged};
use crate::choices::Choices;
use crate::targets;
use driftmesh::fuzzing::{founding_frame, frame, kinds};
use driftmesh::transport::{FrameError, Genesis, RefuseReason};
use driftmesh_model::{GroupId, Lsn, Micros, ObjectId, ScheduleId, TaskId, TaskKey, Term, Timestamp, TxnTimestamp};
use driftmesh_model::{Value, codec};
use driftmesh_peer::{FoundingMessage, Introduction, Receipt};
use serde::Serialize;

/// Introductions, words of the founding, receipts, hellos, refusals.
#[must_use]
pub fn words() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    seeds.extend(covering::<Introduction>("introduction").iter().take(1).map(|bytes| tagged(0, bytes)));
    seeds.extend(covering::<FoundingMessage>("founding").iter().map(|bytes| tagged(1, bytes)));
    seeds.push(tagged(2, &codec::encode(&receipt()).expect("encodes")));
    let hello = HelloShape {
        mesh_name: "arena",
        genesis: Some(Genesis::from_bytes([1; 16])),
        expect: Some(3),
        incarnation: 7,
        nonce: Value::from_slice(&[9; 32]),
        hello: Value::from_slice(b"hello"),
        addresses: vec![Value::from_slice(&[4, 192, 0, 2, 7, 6, 0x0f, 0xa0])],
    };
    seeds.push(tagged(3, &codec::encode(&hello).expect("encodes")));
    seeds.extend(founding_frame(b"said".to_vec()).map(|frame| tagged(4, &frame[4..])));
    seeds.extend(refusals().iter().map(|reason| tagged(5, &codec::encode(reason).expect("encodes"))));
    seeds.push(tagged(6, &[8, 4, 192, 0, 2, 7, 6, 0x0f, 0xa0, 8, 4, 127, 0, 0, 1, 6, 0, 1]));
    seeds
}

fn refusals() -> Vec<RefuseReason> {
    let genesis = |byte| Genesis::from_bytes([byte; 16]);
    vec![
        RefuseReason::WrongMeshName { theirs: "lobby\u{1b}[2J".to_owned(), ours: "arena".to_owned() },
        RefuseReason::WrongSecret,
        RefuseReason::OtherGenesis { theirs: genesis(1), ours: genesis(2) },
        RefuseReason::ProtocolVersion { theirs: 1, ours: 2 },
        RefuseReason::NoMeshYet,
        RefuseReason::OtherExpect { theirs: 3, ours: 5 },
        RefuseReason::TooManyPeers,
        RefuseReason::HandshakeTimeout,
        RefuseReason::Malformed(FrameError::TooLong { length: 1 << 20, limit: 1 << 16 }),
        RefuseReason::NotDriftmesh,
        RefuseReason::SelfConnect,
        RefuseReason::DuplicateIncarnation,
        RefuseReason::WrongPeer { expected: "a".to_owned(), actual: "b".to_owned() },
        RefuseReason::UnknownIdentity,
        RefuseReason::ShuttingDown,
        RefuseReason::ConnectionLost,
    ]
}

/// The fields of a hello, which the transport has for itself.
#[derive(Serialize)]
struct HelloShape {
    mesh_name: &'static str,
    genesis: Option<Genesis>,
    expect: Option<u16>,
    incarnation: u64,
    nonce: Value,
    hello: Value,
    addresses: Vec<Value>,
}

fn receipt() -> Receipt {
    Receipt {
        group: GroupId::from_u128(3),
        term: Term::from_u64(1),
        lsn: Lsn::from_u64(70_000),
        commit: Timestamp::from_u64(1 << 40),
        txn: TxnTimestamp { time: Timestamp::from_u64(1 << 40), incarnation: 5, sequence: 6 },
    }
}

/// Frames of every kind, large payloads, and lists of choices for what is sent.
#[must_use]
pub fn framing() -> Vec<Vec<u8>> {
    // No cuts, and raw bytes.
    let raw = |bytes: &[u8]| [&[0, 0], bytes].concat();
    let mut seeds: Vec<Vec<u8>> = kinds()
        .flat_map(|kind| {
            let body: &[u8] = if matches!(kind, 7 | 8) { &[1; 8] } else { &[] };
            [frame(kind, body), frame(kind, &[0, 0, 0, 3])]
        })
        .flatten()
        .map(|frame| raw(&frame))
        .collect();
    let frames =
        [frame(1, b"small"), frame(2, &[0, 0, 0, 3]), frame(3, b"ab"), frame(5, b""), frame(3, b"c"), frame(6, b"")];
    let frames: Vec<u8> = frames.into_iter().flatten().flatten().collect();
    seeds.push(raw(&frames));
    // The same, cut into pieces of two and of one byte.
    seeds.push([&[4, 1, 0, 0, 0, 0], frames.as_slice()].concat());
    // The length of the bytes that say where it is cut comes first; then what is done.
    for number in 0..LISTS {
        let how = if number % 2 == 0 { 1 } else { 2 };
        seeds.push([&[3, 9, 0, 80, how], &*bytes_of("framing", number, 10 + 8 * number)].concat());
    }
    seeds
}

/// Sides that fit, sides that do not, and somebody in between.
#[must_use]
pub fn handshake() -> Vec<Vec<u8>> {
    // Of each side: bits, name, secret, genesis, expected peers, and what it tells of itself.
    let side = |genesis: u8, expect: u8| [0, 5, 5, genesis, expect, 1, b'h'];
    let both = |one: [u8; 7], other: [u8; 7]| [&[0], &one[..], &other[..], &[3]].concat();
    let mut seeds = vec![
        both(side(1, 0), side(1, 0)),
        both(side(1, 0), side(0, 0)),
        both(side(0, 1), side(0, 1)),
        both(side(0, 1), side(0, 3)),
        both(side(1, 0), side(3, 0)),
        both([0, 0, 5, 1, 0, 0, 0], side(1, 0)),
        both([0, 5, 2, 1, 0, 0, 0], side(1, 0)),
        both([0x0f, 5, 5, 1, 0, 0, 0], side(1, 0)),
    ];
    for number in 0..LISTS {
        seeds.push([both(side(1, 0), side(1, 0)), bytes_of("handshake", number, 12)].concat());
    }
    // A stranger that says a hello and no proof.
    let hello = [&2_u32.to_be_bytes()[..], &words().iter().find(|seed| seed[0] == 3).expect("a hello")[1..]].concat();
    let said = [frame(0x81, &hello), frame(0x82, &[7; 32]), frame(0x84, b"")];
    let said: Vec<u8> = said.into_iter().flatten().flatten().collect();
    seeds.push([&[1, 0, 5, 5, 1, 0, 0, 2], said.as_slice()].concat());
    seeds
}

/// Files with and without objects.
#[must_use]
pub fn export() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..6_u64)
        .map(|number| {
            let bytes = bytes_of("export", number, 30 * number);
            let file = targets::export::file(&mut Choices::new(&bytes));
            file.write().expect("a file is written")
        })
        .collect();
    seeds.extend((0..6).map(|number| bytes_of("export", number, 60)));
    seeds
}

/// What processes of a testnet say.
#[must_use]
pub fn testnet() -> Vec<Vec<u8>> {
    let receipt: String =
        codec::encode(&receipt()).expect("encodes").iter().map(|byte| format!("{byte:02x}")).collect();
    let mut order = vec![3; 25];
    order[24] = 1;
    let answer = |said: u8| {
        let mut answer = vec![0; 88];
        answer[12] = said;
        tagged(1, &answer)
    };
    vec![
        tagged(0, &[3, 0, 0, 0, 0, b'{', b'}', b'\n', 0, 0, 0, 0, 1]),
        tagged(0, &[1, 0, 0, 0, 2, 7]),
        tagged(1, &order),
        answer(0),
        answer(1),
        answer(2),
        answer(3),
        tagged(2, format!("{}{}", ObjectId::from_u128(1), ObjectId::from_u128(u128::MAX)).as_bytes()),
        tagged(3, receipt.as_bytes()),
    ]
}

/// Addresses and ids.
#[must_use]
pub fn texts() -> Vec<Vec<u8>> {
    let object = ObjectId::from_u128(0x0d84_916f);
    let task = TaskId { anchor: object, key: TaskKey { issued: Micros(1_767_225_600_000_000), number: u64::MAX } };
    let texts = [
        object.to_string(),
        task.to_string(),
        ScheduleId { object, number: 7 }.to_string(),
        "127.0.0.1:4000".to_owned(),
        " [::1]:4000 ".to_owned(),
        "seed.example.org:1".to_owned(),
        "/ip4/192.0.2.7/tcp/4000".to_owned(),
        "/dns4/a-b/tcp/65535".to_owned(),
        "/ip6/::1/tcp/0".to_owned(),
        "/ip6/::1/tcp/4000/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp".to_owned(),
        "/ip4/1.2.3.4/udp/1".to_owned(),
        "\u{1b}[31m:1".to_owned(),
    ];
    texts.map(String::into_bytes).to_vec()
}
