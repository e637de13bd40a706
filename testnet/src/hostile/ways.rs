//! In how many ways a message can be hostile, and the bytes of each.
//!
//! It refuses to send anything.

use crate::hostile::samples::{self, Flavour, Kind, Scene};
use driftmesh::Micros;
use driftmesh_model::codec;
use driftmesh_peer::Envelope;
use fastrand::Rng;
use std::collections::BTreeMap;

/// Most bytes that follow a message, and most nested lists.
const TRAILING_MAX: usize = 16;
const NESTED_MAX: usize = 1_500;
/// One nested message of so many is far deeper.
const ONE_DEEP_OF: u8 = 64;
const DEEP: usize = 20_000;
/// One oversized message of so many is as long as it says, or nearly: it travels in pieces.
const ONE_LONG_OF: u8 = 16;
const LONG_BYTES: usize = 200_000;

/// In which way a message is hostile.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Way {
    /// It decodes, and says what is not so, or cannot be.
    WrongContent,
    /// It says that a list or a text in it is longer than any memory.
    Oversized,
    /// Lists in lists in lists.
    Nested,
    /// Its end is missing.
    Truncated,
    /// Something follows it.
    Trailing,
    /// It is of long ago.
    Stale,
    /// It is of a time that no clock has reached.
    Future,
    /// The same bytes again.
    Replayed,
    /// It names epochs or terms that are far ahead.
    EpochJump,
    /// The same bytes again and again, as fast as they are taken.
    Flood,
}

impl Way {
    /// All of them.
    pub(crate) const ALL: [Self; 10] = [
        Self::WrongContent,
        Self::Oversized,
        Self::Nested,
        Self::Truncated,
        Self::Trailing,
        Self::Stale,
        Self::Future,
        Self::Replayed,
        Self::EpochJump,
        Self::Flood,
    ];
    /// Those that do not decode.
    pub(crate) const BROKEN: [Self; 4] = [Self::Oversized, Self::Nested, Self::Truncated, Self::Trailing];
    /// Those that decode and are no flood.
    pub(crate) const LIES: [Self; 5] = [Self::WrongContent, Self::Stale, Self::Future, Self::Replayed, Self::EpochJump];

    /// As the report calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::WrongContent => "wrong_content",
            Self::Oversized => "oversized",
            Self::Nested => "nested",
            Self::Truncated => "truncated",
            Self::Trailing => "trailing",
            Self::Stale => "stale",
            Self::Future => "future",
            Self::Replayed => "replayed",
            Self::EpochJump => "epoch_jump",
            Self::Flood => "flood",
        }
    }
}

/// Makes payloads.
#[derive(Debug)]
pub(crate) struct Maker {
    rng: Rng,
    /// The last payload of each kind, to be sent again.
    said: BTreeMap<Kind, Vec<u8>>,
}

impl Maker {
    /// Draws from the seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), said: BTreeMap::new() }
    }

    /// The bytes of a message.
    pub(crate) fn payload(&mut self, kind: Kind, way: Way, scene: &Scene, wall: Micros) -> Vec<u8> {
        let flavour = match way {
            Way::WrongContent => [Flavour::Plausible, Flavour::Wild][self.rng.usize(..2)],
            Way::Stale => Flavour::Stale,
            Way::Future => Flavour::Future,
            Way::EpochJump => Flavour::EpochJump,
            Way::Oversized | Way::Nested | Way::Truncated | Way::Trailing | Way::Replayed | Way::Flood => {
                Flavour::Plausible
            }
        };
        if way == Way::Replayed
            && let Some(said) = self.said.get(&kind)
        {
            return said.clone();
        }
        let envelope = samples::envelope(kind, flavour, scene, wall, &mut self.rng);
        let bytes = codec::encode(&envelope).expect("a message of our own making encodes");
        match way {
            Way::Oversized | Way::Nested | Way::Truncated | Way::Trailing => loop {
                let broken = self.broken(way, &bytes);
                // What is put in the place of the rest may be just what an id lacks.
                if codec::decode::<Envelope>(&broken).is_err() {
                    break broken;
                }
            },
            Way::WrongContent | Way::Stale | Way::Future | Way::Replayed | Way::EpochJump => {
                self.said.insert(kind, bytes.clone());
                bytes
            }
            Way::Flood => bytes,
        }
    }

    /// The bytes of a message, broken in one of the ways.
    fn broken(&mut self, way: Way, bytes: &[u8]) -> Vec<u8> {
        match way {
            Way::Oversized => self.oversized(bytes.to_vec()),
            Way::Nested => self.nested(bytes.to_vec()),
            Way::Truncated => bytes[..self.rng.usize(..bytes.len())].to_vec(),
            Way::Trailing
            | Way::WrongContent
            | Way::Stale
            | Way::Future
            | Way::Replayed
            | Way::EpochJump
            | Way::Flood => {
                let more = self.rng.usize(1..=TRAILING_MAX);
                let rng = &mut self.rng;
                bytes.iter().copied().chain(std::iter::repeat_with(|| rng.u8(..)).take(more)).collect()
            }
        }
    }

    /// The head of a list, a map, bytes or a text with a length that nothing has, somewhere behind the first bytes.
    fn oversized(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let head = [0x9b, 0xbb, 0x5b, 0x7b][self.rng.usize(..4)];
        let length = [1 << 20, u64::from(u32::MAX), 1 << 40, u64::MAX][self.rng.usize(..4)];
        bytes.truncate(self.rng.usize(1..bytes.len()));
        bytes.push(head);
        bytes.extend(length.to_be_bytes());
        if self.rng.u8(..ONE_LONG_OF) == 0 {
            bytes.resize(LONG_BYTES, 0x61);
        }
        bytes
    }

    /// One list in another, in the place of the message.
    fn nested(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(self.rng.usize(1..bytes.len()));
        let depth = if self.rng.u8(..ONE_DEEP_OF) == 0 { DEEP } else { self.rng.usize(100..NESTED_MAX) };
        bytes.resize(bytes.len() + depth, [0x81, 0x9f, 0xbf][self.rng.usize(..3)]);
        bytes
    }
}

/// Bytes that are no frame, by a number: each ends the connection.
pub(crate) fn no_frame(number: u64) -> Vec<u8> {
    const KINDS: [&[u8]; 8] = [
        // Kinds that there are not.
        &[0x00; 40],
        &[0xff; 40],
        // A payload, and a piece, longer than any frame.
        &[0x01, 0x01, 0x00, 0x01],
        &[0x03, 0xff, 0xff, 0xff],
        // A large payload longer than any, and one of nothing.
        &[0x02, 0x00, 0x00, 0x04, 0xff, 0xff, 0xff, 0xff],
        &[0x02, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00],
        // A piece of nothing that began; credit for nothing that was sent.
        &[0x03, 0x00, 0x00, 0x02, 0x61, 0x62],
        &[0x04, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x09],
    ];
    KINDS[usize::try_from(number % KINDS.len() as u64).unwrap_or(0)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_messages_do_not_decode_and_all_others_do() {
        let (scene, mut maker) = (samples::tests::scene(), Maker::new(1));
        for kind in Kind::ALL {
            for way in Way::ALL {
                for _ in 0..30 {
                    let bytes = maker.payload(kind, way, &scene, Micros(1 << 50));
                    let decodes = codec::decode::<Envelope>(&bytes).is_ok();
                    assert_eq!(decodes, !Way::BROKEN.contains(&way), "{kind:?} {way:?}");
                }
            }
        }
    }

    #[test]
    fn each_way_is_broken_a_lie_or_a_flood() {
        let mut all = [&Way::BROKEN[..], &Way::LIES[..], &[Way::Flood]].concat();
        all.sort_unstable();
        assert_eq!(all, Way::ALL);
    }
}
