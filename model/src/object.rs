//! Users' types as stored objects: a type name and schema version with each value, and typed references.
//!
//! A stored value is a CBOR sequence of three items: type name, schema version, the value as a map by field name.
//! So a type gains fields (with `#[serde(default)]`), loses them, and reorders them, and old bytes still read.

use crate::codec::{self, DecodeError};
use crate::limits::{OBJECT_BYTES_MAX, TYPE_NAME_BYTES_MAX};
use crate::{ObjectId, Value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

/// A type whose values can be objects of the mesh.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Player { name: String, gold: u64 }
///
/// impl driftmesh_model::Object for Player {
///     const TYPE_NAME: &'static str = "player";
/// }
/// ```
pub trait Object: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name stored with each value, at most 128 bytes. It outlives the Rust type's own name: never reuse one.
    const TYPE_NAME: &'static str;
    /// Stored with each value; raise it when old code must be able to tell new values from old ones.
    const SCHEMA_VERSION: u32 = 1;
}

/// A typed reference to an object: its id and what its value decodes to. Serialises into other objects.
///
/// Having a reference says nothing about the object: it may be elsewhere, deleted, or of another type; reading it
/// tells, with a typed error.
pub struct Ref<T> {
    id: ObjectId,
    object_type: PhantomData<fn() -> T>,
}

impl<T> Ref<T> {
    /// A reference to the object with this id.
    #[must_use]
    pub const fn from_id(id: ObjectId) -> Self {
        Self { id, object_type: PhantomData }
    }

    /// The id of the object.
    #[must_use]
    pub const fn id(&self) -> ObjectId {
        self.id
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl<T> Eq for Ref<T> {}

impl<T> PartialOrd for Ref<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ref<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id.cmp(&other.id)
    }
}

impl<T> std::hash::Hash for Ref<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Ref({})", self.id)
    }
}

impl<T> fmt::Display for Ref<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(formatter)
    }
}

impl<T> Serialize for Ref<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.id.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Ref<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ObjectId::deserialize(deserializer).map(Self::from_id)
    }
}

/// What is stored before a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredHeader {
    /// The type name the value was stored under.
    pub type_name: String,
    /// The schema version it was stored under.
    pub schema_version: u32,
}

/// A value could not be made an object, or an object not a value of the asked type.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ObjectError {
    /// The object is of another type.
    #[error("it is a `{found}`, not a `{expected}`")]
    WrongType {
        /// The type name that was asked for.
        expected: String,
        /// The type name that is stored.
        found: String,
    },
    /// The stored bytes do not decode as the asked type.
    #[error(
        "`{type_name}` stored with schema version {stored_version} does not decode as version {our_version}: {reason} (give new fields `#[serde(default)]`)"
    )]
    Decode {
        /// The type's name.
        type_name: String,
        /// The schema version of the stored value.
        stored_version: u32,
        /// The schema version of the type that was asked for.
        our_version: u32,
        /// Why.
        reason: String,
    },
    /// The stored bytes are no object at all.
    #[error("its bytes are not a stored object: {0}")]
    NotAnObject(DecodeError),
    /// The type's `Serialize` refused.
    #[error("`{type_name}` does not encode: {reason}")]
    Encode {
        /// The type's name.
        type_name: String,
        /// Why.
        reason: String,
    },
    /// The encoded object is too large.
    #[error("`{type_name}` encodes to {bytes} bytes, the limit is {limit}; split it into several objects")]
    TooLarge {
        /// The type's name.
        type_name: String,
        /// Its encoded size, bytes.
        bytes: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// The type's name is too long.
    #[error("type names may have at most 128 bytes, this one has {bytes}")]
    TypeNameTooLong {
        /// Its length, bytes.
        bytes: usize,
    },
}

/// A larger buffer is not kept for the next object.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// What objects are encoded into before they get their exact size.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Encodes an object with its type name and schema version.
///
/// # Errors
/// When the type refuses, or at [`OBJECT_BYTES_MAX`].
pub fn encode_object<T: Object>(object: &T) -> Result<Value, ObjectError> {
    if T::TYPE_NAME.len() > TYPE_NAME_BYTES_MAX {
        return Err(ObjectError::TypeNameTooLong { bytes: T::TYPE_NAME.len() });
    }
    let refused =
        |error: codec::EncodeError| ObjectError::Encode { type_name: T::TYPE_NAME.to_owned(), reason: error.0 };
    // A nested call (a `Serialize` that encodes another object) finds the buffer taken and makes its own.
    let mut bytes = SCRATCH.take();
    bytes.clear();
    if let Some((length, version)) = short_header::<T>() {
        bytes.push(SHORT_TEXT | length);
        bytes.extend_from_slice(T::TYPE_NAME.as_bytes());
        bytes.push(version);
    } else {
        codec::encode_into(&mut bytes, T::TYPE_NAME).map_err(refused)?;
        codec::encode_into(&mut bytes, &T::SCHEMA_VERSION).map_err(refused)?;
    }
    codec::encode_into(&mut bytes, object).map_err(refused)?;
    if bytes.len() > OBJECT_BYTES_MAX {
        return Err(ObjectError::TooLarge {
            type_name: T::TYPE_NAME.to_owned(),
            bytes: bytes.len(),
            limit: OBJECT_BYTES_MAX,
        });
    }
    let value = Value::from_slice(&bytes);
    if bytes.capacity() <= SCRATCH_BYTES_MAX {
        SCRATCH.set(bytes);
    }
    Ok(value)
}

/// Decodes an object as a `T`.
///
/// # Errors
/// When it is of another type, or does not decode.
pub fn decode_object<T: Object>(value: &Value) -> Result<T, ObjectError> {
    if let Some(body) = after_own_header::<T>(value.bytes()) {
        return codec::decode(body).map_err(|error| decode_error::<T>(T::SCHEMA_VERSION, &error));
    }
    let mut sequence = codec::Sequence::new(value.bytes());
    let found: &str = sequence.next().map_err(ObjectError::NotAnObject)?;
    if found != T::TYPE_NAME {
        return Err(ObjectError::WrongType { expected: T::TYPE_NAME.to_owned(), found: found.to_owned() });
    }
    let stored_version: u32 = sequence.next().map_err(ObjectError::NotAnObject)?;
    let failed = |error: DecodeError| decode_error::<T>(stored_version, &error);
    let object = sequence.next().map_err(failed)?;
    sequence.finish().map_err(failed)?;
    Ok(object)
}

fn decode_error<T: Object>(stored_version: u32, error: &DecodeError) -> ObjectError {
    ObjectError::Decode {
        type_name: T::TYPE_NAME.to_owned(),
        stored_version,
        our_version: T::SCHEMA_VERSION,
        reason: error.to_string(),
    }
}

/// CBOR's first byte of a text shorter than 24 bytes, without its length (RFC 8949, section 3.1).
const SHORT_TEXT: u8 = 0x60;
/// What CBOR encodes within the first byte of an item is below this.
const SHORT_END: u32 = 24;

/// The length of the type's name and its version, where CBOR encodes each within one byte: the common case.
fn short_header<T: Object>() -> Option<(u8, u8)> {
    let length = u8::try_from(T::TYPE_NAME.len()).ok().filter(|length| u32::from(*length) < SHORT_END)?;
    let version = u8::try_from(T::SCHEMA_VERSION).ok().filter(|version| u32::from(*version) < SHORT_END)?;
    Some((length, version))
}

/// The bytes after the header, if that is short and says exactly this type and version: compared rather than decoded.
fn after_own_header<T: Object>(bytes: &[u8]) -> Option<&[u8]> {
    let (length, version) = short_header::<T>()?;
    let name = T::TYPE_NAME.as_bytes();
    bytes.strip_prefix(&[SHORT_TEXT | length])?.strip_prefix(name)?.strip_prefix(&[version])
}

/// Whether a value was stored as a `T`, by its header alone.
#[must_use]
pub fn is_stored_as<T: Object>(value: &Value) -> bool {
    after_own_header::<T>(value.bytes()).is_some()
        || codec::Sequence::new(value.bytes()).next::<&str>().is_ok_and(|found| found == T::TYPE_NAME)
}

/// Reads only what is stored before the value.
///
/// # Errors
/// When the bytes are no stored object.
pub fn stored_header(value: &Value) -> Result<StoredHeader, ObjectError> {
    let mut sequence = codec::Sequence::new(value.bytes());
    let type_name = sequence.next().map_err(ObjectError::NotAnObject)?;
    let schema_version = sequence.next().map_err(ObjectError::NotAnObject)?;
    Ok(StoredHeader { type_name, schema_version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Sword {
        damage: u32,
        owner: Ref<Self>,
    }
    impl Object for Sword {
        const TYPE_NAME: &'static str = "sword";
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct NewSword {
        owner: Ref<Sword>,
        #[serde(default)]
        enchanted: bool,
    }
    impl Object for NewSword {
        const TYPE_NAME: &'static str = "sword";
        const SCHEMA_VERSION: u32 = 2;
    }

    #[derive(Serialize, Deserialize, Debug)]
    struct Shield;
    impl Object for Shield {
        const TYPE_NAME: &'static str = "shield";
    }

    #[test]
    fn a_type_gains_and_loses_fields() {
        let owner = Ref::from_id(ObjectId::from_u128(9));
        let stored = encode_object(&Sword { damage: 3, owner }).unwrap();
        assert_eq!(decode_object::<NewSword>(&stored).unwrap(), NewSword { owner, enchanted: false });
        let header = stored_header(&stored).unwrap();
        assert_eq!((header.type_name.as_str(), header.schema_version), ("sword", 1));
    }

    #[test]
    fn a_short_header_is_what_the_codec_writes() {
        let stored = encode_object(&Shield).unwrap();
        let mut expected = codec::encode("shield").unwrap();
        codec::encode_into(&mut expected, &1_u32).unwrap();
        codec::encode_into(&mut expected, &Shield).unwrap();
        assert_eq!(stored.bytes(), expected);
        assert_eq!(after_own_header::<Shield>(stored.bytes()), Some(&codec::encode(&Shield).unwrap()[..]));
        let owner = Ref::from_id(ObjectId::from_u128(9));
        let stored = encode_object(&Sword { damage: 3, owner }).unwrap();
        assert!(after_own_header::<Sword>(stored.bytes()).is_some());
        assert!(after_own_header::<NewSword>(stored.bytes()).is_none(), "another version is decoded with care");
        assert!(after_own_header::<Shield>(stored.bytes()).is_none());
        assert!(
            is_stored_as::<Sword>(&stored) && is_stored_as::<NewSword>(&stored) && !is_stored_as::<Shield>(&stored)
        );
        assert!(!is_stored_as::<Sword>(&Value::from_slice(b"\xff")));
    }

    #[test]
    fn a_long_name_or_a_high_version_reads_back_too() {
        #[derive(Serialize, Deserialize, PartialEq, Debug)]
        struct Long(u8);
        impl Object for Long {
            const TYPE_NAME: &'static str = "a name of twenty-four ch";
        }
        #[derive(Serialize, Deserialize, PartialEq, Debug)]
        struct Late(u8);
        impl Object for Late {
            const TYPE_NAME: &'static str = "late";
            const SCHEMA_VERSION: u32 = 24;
        }
        assert!(short_header::<Long>().is_none() && short_header::<Late>().is_none());
        assert_eq!(decode_object::<Long>(&encode_object(&Long(3)).unwrap()), Ok(Long(3)));
        assert_eq!(decode_object::<Late>(&encode_object(&Late(4)).unwrap()), Ok(Late(4)));
        assert_eq!(stored_header(&encode_object(&Late(4)).unwrap()).unwrap().schema_version, 24);
    }

    #[test]
    fn the_wrong_type_is_a_typed_error() {
        let stored = encode_object(&Shield).unwrap();
        let error = decode_object::<Sword>(&stored).unwrap_err();
        assert_eq!(error, ObjectError::WrongType { expected: "sword".into(), found: "shield".into() });
    }

    #[test]
    fn too_large_is_a_typed_error() {
        #[derive(Serialize, Deserialize)]
        struct Blob(#[serde(with = "serde_bytes")] Vec<u8>);
        impl Object for Blob {
            const TYPE_NAME: &'static str = "blob";
        }
        assert!(encode_object(&Blob(vec![0; OBJECT_BYTES_MAX - 64])).is_ok());
        let error = encode_object(&Blob(vec![0; OBJECT_BYTES_MAX])).unwrap_err();
        assert!(matches!(error, ObjectError::TooLarge { .. }));
    }

    #[test]
    fn what_a_type_refuses_to_say_is_a_typed_error_and_the_next_object_is_whole() {
        #[derive(Serialize, Deserialize, Debug)]
        struct Refuses(#[serde(serialize_with = "refuse")] u32);
        fn refuse<S: Serializer>(_: &u32, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it is a secret"))
        }
        impl Object for Refuses {
            const TYPE_NAME: &'static str = "refuses";
        }
        #[derive(Serialize, Deserialize, Debug)]
        struct LongName;
        impl Object for LongName {
            const TYPE_NAME: &'static str = include_str!("limits.rs");
        }
        let sword = Sword { damage: 3, owner: Ref::from_id(ObjectId::from_u128(1)) };
        let before = encode_object(&sword).expect("encodes");
        let refused = encode_object(&Refuses(1)).expect_err("it refuses");
        assert!(matches!(&refused, ObjectError::Encode { reason, .. } if reason.contains("secret")), "{refused}");
        let long = encode_object(&LongName).expect_err("no peer would read it");
        assert!(matches!(long, ObjectError::TypeNameTooLong { bytes } if bytes > TYPE_NAME_BYTES_MAX), "{long}");
        assert_eq!(encode_object(&sword), Ok(before));
    }
}
