//! An encoded object as the core holds and ships it: opaque bytes, and a slot for what a user's type made of them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// The blake3 hash of a value's bytes, as received, never of a re-encoding (R25).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hash({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes: serde_bytes::ByteArray<32> = Deserialize::deserialize(deserializer)?;
        Ok(Self(bytes.into_array()))
    }
}

/// The bytes of one version of an object. Cheap to clone; equal when the bytes are.
#[derive(Clone)]
pub struct Value(Arc<Inner>);

struct Inner {
    bytes: Box<[u8]>,
    /// What `decode_object` made of the bytes, for readers that share it. The core never looks into it.
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Value {
    /// A value with a copy of these bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Self {
        Self::from_vec(bytes.to_vec())
    }

    /// A value with these bytes.
    #[must_use]
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Inner { bytes: bytes.into_boxed_slice(), decoded: OnceLock::new() }))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.bytes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.bytes.is_empty()
    }

    /// The blake3 hash of the bytes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash(*blake3::hash(&self.0.bytes).as_bytes())
    }

    /// The slot for what a user's type made of the bytes.
    #[must_use]
    pub fn decoded(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.0.decoded
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl Eq for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Value({} bytes)", self.len())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0.bytes)
    }
}

struct ValueVisitor;

impl de::Visitor<'_> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a byte string of at most 1 MiB")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
        // R25: a size limit on everything that comes from a peer.
        if bytes.len() > crate::limits::OBJECT_BYTES_MAX {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        Ok(Value::from_slice(bytes))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(ValueVisitor)
    }
}
