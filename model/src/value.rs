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

/// Values up to this long live inside the one allocation of a `Value`; most game objects are small.
const INLINE_MAX: usize = 62;

enum Bytes {
    Inline { length: u8, bytes: [u8; INLINE_MAX] },
    Boxed(Box<[u8]>),
}

impl Bytes {
    fn new(from: &[u8]) -> Self {
        match u8::try_from(from.len()) {
            Ok(length) if from.len() <= INLINE_MAX => {
                let mut bytes = [0; INLINE_MAX];
                bytes[..from.len()].copy_from_slice(from);
                Self::Inline { length, bytes }
            }
            Ok(_) | Err(_) => Self::Boxed(Box::from(from)),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Self::Boxed(bytes) => bytes,
        }
    }
}

/// The bytes of one version of an object. Cheap to clone; equal when the bytes are.
#[derive(Clone)]
pub struct Value(Arc<Inner>);

struct Inner {
    bytes: Bytes,
    /// What `decode_object` made of the bytes, for readers that share it. The core never looks into it.
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Value {
    /// A value with a copy of these bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Self {
        Self(Arc::new(Inner { bytes: Bytes::new(bytes), decoded: OnceLock::new() }))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes.as_slice()
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The blake3 hash of the bytes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash(*blake3::hash(self.bytes()).as_bytes())
    }

    /// The slot for what a user's type made of the bytes.
    #[must_use]
    pub fn decoded(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.0.decoded
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
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
        serializer.serialize_bytes(self.bytes())
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
