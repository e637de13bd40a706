//! Frames: bytes in any pieces give the same frames, the same payloads and the same end; what was sent arrives.
//!
//! What comes of bytes is compared with a reading of all of them at once that shares no code with the transport.

use super::pipe::{self, Pieces};
use crate::check;
use crate::choices::Choices;
use driftmesh::fuzzing::{
    Bulk, FRAME_BODY_MAX, Frames, HEADER_BYTES, HELLO_FRAME_MAX, Heard, Outgoing, Side, SideConfig, frame, kinds,
};
use driftmesh::transport::limits::{CHUNK, MAX_PAYLOAD, RECEIVE_BATCH};
use driftmesh::transport::{FrameError, LeaveReason};
use driftmesh_model::PeerId;

/// Most bytes of one payload that is sent here.
const SENT_MAX: usize = 6 * CHUNK;

/// A frame as a kind and a body.
type Frame = (u8, Vec<u8>);

/// All frames of the bytes, and what is wrong with the next one.
fn reference(mut bytes: &[u8], limit: usize) -> (Vec<Frame>, Result<usize, FrameError>) {
    let mut frames = Vec::new();
    loop {
        let Some((header, rest)) = bytes.split_first_chunk::<4>() else { return (frames, Ok(bytes.len())) };
        let [kind, a, b, c] = *header;
        let length = (usize::from(a) << 16) + (usize::from(b) << 8) + usize::from(c);
        if !matches!(kind, 1..=8 | 0x47 | 0x81 | 0x82 | 0x84 | 0x88) {
            return (frames, Err(FrameError::UnknownKind(kind)));
        }
        if length > limit {
            let (length, limit) = (length as u32, limit as u32);
            return (frames, Err(FrameError::TooLong { length, limit }));
        }
        let Some((body, rest)) = rest.split_at_checked(length) else { return (frames, Ok(bytes.len())) };
        frames.push((kind, body.to_vec()));
        bytes = rest;
    }
}

/// Cuts bytes where the choices say, and once more into pieces of one byte.
fn cut(bytes: &[u8], choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let most =
            if choices.is_over() { rest.len() } else { 1 + usize::from(choices.byte()) * [1, 90][choices.below(2)] };
        let (piece, left) = rest.split_at(most.min(rest.len()));
        pieces.push(piece.to_vec());
        rest = left;
    }
    pieces
}

/// The frames of bytes that came in pieces.
fn frames_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limit: usize) -> (Vec<Frame>, Option<FrameError>) {
    let (mut buffer, mut frames) = (Frames::default(), Vec::new());
    for piece in pieces {
        if let Err(error) = buffer.take(piece, limit, &mut frames) {
            return (frames, Some(error));
        }
    }
    (frames, None)
}

/// Frames come out as they went in, however they were cut, and written again they are the bytes.
fn frames(bytes: &[u8], pieces: &[Vec<u8>]) {
    for limit in [FRAME_BODY_MAX, HELLO_FRAME_MAX] {
        let (expected, end) = reference(bytes, limit);
        let in_pieces = pieces.iter().map(Vec::as_slice);
        let at_once = check::within_memory(bytes.len(), || frames_of([bytes], limit));
        assert_eq!(at_once, (expected.clone(), end.err()));
        assert_eq!(frames_of(in_pieces, limit), at_once, "how they are cut does not matter");
        if bytes.len() < 2_000 {
            assert_eq!(frames_of(bytes.chunks(1), limit), at_once, "byte by byte");
        }
        let again: Vec<u8> =
            expected.iter().flat_map(|(kind, body)| frame(*kind, body).expect("a known kind")).collect();
        assert!(bytes.starts_with(&again), "frames are the bytes that they were made of");
        assert!(end.is_err() || end == Ok(bytes.len() - again.len()));
    }
}

/// What an admitted peer's connection makes of frames: the payloads, and why it ends.
fn reference_of_connection(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<LeaveReason>) {
    let (frames, end) = reference(bytes, FRAME_BODY_MAX);
    let mut payloads = Vec::new();
    let mut bulk: Option<(usize, Vec<u8>)> = None;
    for (kind, body) in frames {
        let number = || <[u8; 4]>::try_from(&*body).map(u32::from_be_bytes).map_err(|_| FrameError::Body(kind));
        let fault = match kind {
            1 => {
                payloads.push(body);
                continue;
            }
            2 => match number() {
                Ok(_) if bulk.is_some() => FrameError::Unexpected(2),
                Ok(length) if length == 0 || length as usize > MAX_PAYLOAD => FrameError::BulkLength(length),
                Ok(length) => {
                    bulk = Some((length as usize, Vec::new()));
                    continue;
                }
                Err(error) => error,
            },
            3 => match bulk.take() {
                None => FrameError::Unexpected(3),
                Some((length, payload)) if body.is_empty() || body.len() > length - payload.len() => {
                    FrameError::BulkOverrun
                }
                Some((length, mut payload)) => {
                    payload.extend(body);
                    if payload.len() == length {
                        payloads.push(payload);
                    } else {
                        bulk = Some((length, payload));
                    }
                    continue;
                }
            },
            // Nothing large is under way from here.
            4 => match number() {
                Ok(0) => continue,
                Ok(_) => FrameError::Credit,
                Err(error) => error,
            },
            5 if body.is_empty() => continue,
            6 if body.is_empty() => return (payloads, Some(LeaveReason::Goodbye)),
            7 | 8 if body.len() == 8 => continue,
            5..=8 => FrameError::Body(kind),
            _ => FrameError::Unexpected(kind),
        };
        return (payloads, Some(LeaveReason::Malformed(fault)));
    }
    (payloads, end.err().map(LeaveReason::Malformed))
}

/// A whole connection reads the same.
fn connection(bytes: &[u8], pieces: &[Vec<u8>]) {
    let config = SideConfig {
        peer: PeerId::from_bytes([1; 32]),
        later_version: 0,
        mesh_name: String::new(),
        genesis: None,
        expect: None,
        secret: None,
        hello: Vec::new(),
        advertise: Vec::new(),
    };
    let hear = |stream: Pieces| {
        let side = Side::new(config.clone());
        pipe::block_on(async { side.connection(PeerId::from_bytes([2; 32]), stream).await })
    };
    let (payloads, reason) = reference_of_connection(bytes);
    let mut heard: Heard = hear(Pieces::new(pieces.to_vec()));
    assert!(heard.largest_batch <= RECEIVE_BATCH, "R24: {} payloads at once", heard.largest_batch);
    match &reason {
        Some(reason) => assert_eq!(heard.reason, *reason),
        None => assert!(matches!(heard.reason, LeaveReason::Lost { .. }), "{:?}", heard.reason),
    }
    assert!(heard.payloads == payloads, "payloads come as they were framed");
    let at_once = hear(Pieces::new([bytes.to_vec()]));
    heard.largest_batch = at_once.largest_batch;
    assert!(heard == at_once, "how they are cut does not matter");
}

/// What one side sends the other one receives: small payloads, those in haste and large ones, each in their order.
fn sent_and_received(choices: &mut Choices<'_>) {
    let out = Outgoing::default();
    let mut sent: [Vec<Vec<u8>>; 3] = Default::default();
    for number in 0..choices.below(12) {
        let length = match choices.below(8) {
            0 => CHUNK - 1 + choices.below(3),
            1 => SENT_MAX.min(CHUNK * choices.below(7) + choices.below(3)),
            _ => usize::from(choices.byte()),
        };
        // Every other one is in haste.
        let payload = vec![number as u8; length.max(1)];
        assert!(out.push(payload.clone(), number % 2 == 1), "so little is always taken");
        sent[if length > CHUNK { 2 } else { usize::from(number % 2 == 1) }].push(payload);
    }
    let (mut buffer, mut bulk) = (Frames::default(), Bulk::default());
    let mut received: [Vec<Vec<u8>>; 3] = Default::default();
    let mut owed = 0;
    loop {
        let written = out.write();
        if written.is_empty() {
            if owed == 0 {
                break;
            }
            out.credit(owed).expect("so many were under way");
            owed = 0;
        }
        let mut frames = Vec::new();
        for piece in cut(&written, choices) {
            buffer.take(&piece, FRAME_BODY_MAX, &mut frames).expect("what is sent is well framed");
        }
        for (kind, body) in frames {
            match kind {
                1 => received[usize::from(body[0] % 2)].push(body),
                _ => {
                    owed += u32::from(kind == 3);
                    received[2].extend(bulk.take(kind, &body).expect("what is sent fits"));
                }
            }
        }
    }
    assert!(sent == received, "what is sent arrives, in order");
    assert!(out.credit(1).is_err(), "nothing is under way any more");
}

/// Mostly well-formed frames of any kind, then what is left of the input.
fn well_formed(choices: &mut Choices<'_>) -> Vec<u8> {
    let all: Vec<u8> = kinds().collect();
    let mut bytes = Vec::new();
    for _ in 0..choices.below(32) {
        let kind = match choices.below(4) {
            0 => all[choices.below(all.len())],
            _ => all[choices.below(4)],
        };
        let body = match choices.below(4) {
            0 => u32::from(choices.byte()).to_be_bytes().to_vec(),
            1 => vec![7; usize::from(choices.byte()) * 300],
            _ => choices.some_bytes().to_vec(),
        };
        bytes.extend(frame(kind, &body).unwrap_or_default());
    }
    bytes
}

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let cuts = choices.some_bytes();
    let mut bytes = match choices.below(3) {
        0 => Vec::new(),
        1 => well_formed(&mut choices),
        _ => return sent_and_received(&mut choices),
    };
    bytes.extend_from_slice(choices.rest());
    let pieces = cut(&bytes, &mut Choices::new(cuts));
    assert_eq!(pieces.concat(), bytes);
    frames(&bytes, &pieces);
    connection(&bytes, &pieces);
    assert_eq!(HEADER_BYTES, 4);
}
