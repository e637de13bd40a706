//! What holds of every decoder, whatever the bytes.
//!
//! The bounds are those of `peer/tests/codec`.

use crate::choices::Choices;
use crate::imagine::Draws;
use driftmesh_model::codec::{self, DecodeError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// What a decoder may hold beside the value: a list is given room for 1 MiB at most before its elements are there, and few
/// lists are open at once.
const AHEAD_BYTES_MAX: u64 = 8 << 20;
/// So many bytes of memory one byte of a message may take: the smallest element of a list against its place in memory.
const BYTES_PER_BYTE_MAX: u64 = 256;

/// Runs a decoder and looks how much memory it took (R25).
pub(crate) fn within_memory<T>(bytes: usize, decode: impl FnOnce() -> T) -> T {
    let mut decoded = None;
    let used = allocation_counter::measure(|| decoded = Some(decode()));
    let most = AHEAD_BYTES_MAX + BYTES_PER_BYTE_MAX * bytes as u64;
    assert!(used.bytes_max <= most, "{} bytes of memory for {bytes} bytes", used.bytes_max);
    decoded.expect("it was run")
}

/// Decodes bytes as they are. What decodes is written and read again as the same; and nothing may follow it, nothing be
/// missing.
pub(crate) fn decoded<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = within_memory(bytes.len(), || codec::decode(bytes).ok())?;
    let encoded = codec::encode(&value).expect("what was decoded encodes");
    let again: T = codec::decode(&encoded).expect("what was encoded decodes");
    assert_eq!(again, value, "it comes back as something else");
    assert_eq!(codec::encode(&again).expect("encodes"), encoded, "hashes of its bytes differ");
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert_eq!(codec::decode::<T>(&longer), Err(DecodeError::TrailingBytes(1)));
    if let Some((_, shorter)) = bytes.split_last() {
        assert!(codec::decode::<T>(shorter).is_err(), "its last byte is not needed");
    }
    Some(value)
}

/// The bytes of a value that the input imagines, damaged in a few places: what arbitrary bytes would hardly ever be.
pub(crate) fn imagined<T: Serialize + DeserializeOwned + PartialEq + Debug>(choices: &mut Choices<'_>) -> Option<T> {
    let damage = choices.some_bytes();
    let mut draws = Draws::new(choices.rest().to_vec());
    let value: T = draws.imagine().ok()?;
    let mut encoded = codec::encode(&value).expect("what is imagined encodes");
    assert_eq!(codec::decode::<T>(&encoded).as_ref(), Ok(&value), "it comes back as something else");
    if damage.is_empty() {
        return Some(value);
    }
    Choices::new(damage).damage(&mut encoded);
    decoded(&encoded)
}
