//! Identities: peers, incarnations, groups, objects, transactions. Newtypes, never bare integers.

use crate::Micros;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// Serialises a fixed number of bytes as one CBOR byte string.
fn serialize_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

struct FixedBytes<const N: usize>;

impl<const N: usize> de::Visitor<'_> for FixedBytes<N> {
    type Value = [u8; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a byte string of exactly {N} bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

fn deserialize_bytes<'de, const N: usize, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; N], D::Error> {
    deserializer.deserialize_bytes(FixedBytes::<N>)
}

/// A peer's identity: the 32 bytes of its ed25519 public key, the same key that its libp2p identity is made of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// The peer with this ed25519 public key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the ed25519 public key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes that libp2p hashes to place this peer in Kademlia's key space: its multihash of an inlined,
    /// protobuf-wrapped ed25519 key.
    #[must_use]
    pub fn kademlia_bytes(&self) -> [u8; 38] {
        let mut bytes = [0_u8; 38];
        bytes[..6].copy_from_slice(&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_bytes(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_bytes(deserializer).map(Self)
    }
}

impl fmt::Display for PeerId {
    /// The first 8 bytes in hexadecimal: enough to tell peers of one mesh apart in a log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PeerId({self})")
    }
}

/// Hexadecimal digits of a 128-bit id.
const ID_DIGITS: usize = 32;

/// A text is no id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an id has {ID_DIGITS} hexadecimal digits; this text has {bytes} bytes, or others than digits")]
pub struct ParseIdError {
    /// How long the text is, bytes.
    pub bytes: usize,
}

macro_rules! id128 {
    ($name:ident, $prefix:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The id with this value.
            #[must_use]
            pub const fn from_u128(value: u128) -> Self {
                Self(value)
            }

            /// The value of the id.
            #[must_use]
            pub const fn as_u128(self) -> u128 {
                self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize_bytes(&self.0.to_be_bytes(), serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_bytes(deserializer).map(|bytes| Self(u128::from_be_bytes(bytes)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!($prefix, "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            /// Reads the 32 hexadecimal digits that `Display` writes, and nothing shorter: an id that lost a digit on
            /// its way is no other id.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let is_whole = text.len() == ID_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
                let value = u128::from_str_radix(text, 16).ok().filter(|_| is_whole);
                value.map(Self).ok_or(ParseIdError { bytes: text.len() })
            }
        }
    };
}

id128!(ObjectId, "ObjectId", "An object's identity: 128 random bits, never reused (R23).");
id128!(
    GenesisId,
    "GenesisId",
    "What tells two meshes of one name apart: 128 random bits, drawn by who founds the mesh."
);
id128!(GroupId, "GroupId", "A replica group's identity, derived from the incarnation that founded it.");

impl GroupId {
    /// The group that the given incarnation of a peer founds for its objects.
    #[must_use]
    pub fn of_founder(peer: &PeerId, incarnation: Incarnation) -> Self {
        Self::hashed(&[peer.as_bytes(), &incarnation.as_u64().to_be_bytes()])
    }

    /// The group that the given incarnation of a peer founds after it has lost the lead of so many others, at this time of its
    /// wall clock. A copy of the peer's memory that comes to life later has counted as far, and must not found the same group.
    #[must_use]
    pub fn of_founding(peer: &PeerId, incarnation: Incarnation, number: u64, at: Micros) -> Self {
        let (number, at) = (number.to_be_bytes(), at.0.to_be_bytes());
        Self::hashed(&[peer.as_bytes(), &incarnation.as_u64().to_be_bytes(), &number, &at])
    }

    fn hashed(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("driftmesh group id v1");
        for part in parts {
            hasher.update(part);
        }
        let mut bytes = [0_u8; 16];
        hasher.finalize_xof().fill(&mut bytes);
        Self(u128::from_be_bytes(bytes))
    }
}

/// One start of a peer: random, so that what a former start promised is never taken for this one's (R11).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(u64);

impl Incarnation {
    /// The incarnation with this number.
    #[must_use]
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// The number of the incarnation.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// A transaction at the peer that runs it. Kept over its attempts; unique within an incarnation only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TxnId(u64);

impl TxnId {
    /// The transaction with this number.
    #[must_use]
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// The number of the transaction.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_whole_or_not_at_all() {
        let id = ObjectId::from_u128(0x0d84_916f);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "d84916f", &"0".repeat(31), &"0".repeat(33), &format!("+{}", "0".repeat(31)), &"g".repeat(32)]
        {
            assert_eq!(wrong.parse::<ObjectId>(), Err(ParseIdError { bytes: wrong.len() }));
        }
    }
}
