//! The one codec: CBOR maps by field name, and a decode that accepts nothing but the whole input (R25).
//!
//! cbor4ii by itself accepts trailing bytes in silence; every decode of the project goes through this file.

use cbor4ii::core::dec::Read;
use cbor4ii::core::utils::{BufWriter, SliceReader};
use cbor4ii::serde::{Deserializer, Serializer};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Encoding failed: the type's own `Serialize` refused, or memory ran out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot encode: {0}")]
pub struct EncodeError(pub String);

/// Decoding failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not CBOR, or not of the expected shape.
    #[error("cannot decode: {0}")]
    Malformed(String),
    /// The value was followed by more bytes.
    #[error("{0} bytes follow the value")]
    TrailingBytes(usize),
}

/// Encodes a value as CBOR.
///
/// # Errors
/// When the type's `Serialize` refuses.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(64);
    encode_into(&mut bytes, value)?;
    Ok(bytes)
}

/// Appends a value's CBOR to `bytes`, so that several can follow each other or share an allocation.
///
/// # Errors
/// When the type's `Serialize` refuses; `bytes` then ends in rubbish.
pub fn encode_into<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) -> Result<(), EncodeError> {
    let mut serializer = Serializer::new(BufWriter::new(std::mem::take(bytes)));
    let result = value.serialize(&mut serializer).map_err(|error| EncodeError(error.to_string()));
    *bytes = serializer.into_inner().into_inner();
    result
}

/// Decodes one value that must fill the whole input.
///
/// # Errors
/// When the bytes are malformed, of another shape, or longer than the value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut sequence = Sequence::new(bytes);
    let value = sequence.next()?;
    sequence.finish()?;
    Ok(value)
}

/// Decodes several values that follow each other, then insists that nothing else does.
pub struct Sequence<'de> {
    deserializer: Deserializer<SliceReader<'de>>,
}

impl<'de> Sequence<'de> {
    /// Begins at the first byte.
    #[must_use]
    pub fn new(bytes: &'de [u8]) -> Self {
        Self { deserializer: Deserializer::new(SliceReader::new(bytes)) }
    }

    /// The next value, which may borrow from the input.
    ///
    /// # Errors
    /// When the bytes are malformed or of another shape.
    #[expect(clippy::should_implement_trait, reason = "each item may have another type")]
    pub fn next<T: serde::Deserialize<'de>>(&mut self) -> Result<T, DecodeError> {
        T::deserialize(&mut self.deserializer).map_err(|error| DecodeError::Malformed(error.to_string()))
    }

    /// Ends the sequence.
    ///
    /// # Errors
    /// When bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        let mut reader = self.deserializer.into_inner();
        let rest = match reader.fill(1) {
            Ok(rest) => rest.as_ref().len(),
            Err(never) => match never {},
        };
        if rest > 0 {
            return Err(DecodeError::TrailingBytes(rest));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7_u32).unwrap();
        assert_eq!(decode::<u32>(&bytes), Ok(7));
        bytes.push(0);
        assert_eq!(decode::<u32>(&bytes), Err(DecodeError::TrailingBytes(1)));
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = decode::<(String, u64)>(&bytes);
            let _ = decode::<crate::Value>(&bytes);
            let _ = decode::<std::collections::BTreeMap<String, crate::ObjectId>>(&bytes);
        }
    }
}
