//! Why a peer was refused, and why one left: typed, and each with a sentence that says what the user can do.
//!
//! It decides nothing. Text that came from a remote is shortened and escaped before it is shown.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bytes::FixedBytes;
use super::frame::FrameError;
use super::limits::{HANDSHAKE_TIMEOUT, MESH_NAME_BYTES_MAX, PEERS_MAX};
use super::random_bytes;

/// What tells two meshes of the same name apart: 16 random bytes, drawn once by the peer that founds the mesh.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Genesis([u8; 16]);

impl Genesis {
    /// The genesis with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A genesis for a new mesh.
    #[must_use]
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Serialize for Genesis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FixedBytes(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Genesis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FixedBytes::deserialize(deserializer).map(|FixedBytes(bytes)| Self(bytes))
    }
}

impl fmt::Display for Genesis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Genesis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Genesis({self})")
    }
}

/// A name that a remote told as it may be shown in a terminal: control characters escaped, at most 64 bytes of it.
fn shown(name: &str) -> impl fmt::Display {
    name[..name.floor_char_boundary(MESH_NAME_BYTES_MAX)].escape_debug()
}

/// Why two peers do not form a mesh. `ours` is always the side that shows the reason.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RefuseReason {
    /// The meshes have different names.
    #[error(
        "that peer belongs to the mesh \"{}\", this one to \"{}\"; give both the same mesh name, or join another \
         address",
        shown(theirs),
        shown(ours)
    )]
    WrongMeshName {
        /// The remote's mesh name.
        theirs: String,
        /// The local mesh name.
        ours: String,
    },
    /// The mesh secrets differ, or only one side has one.
    #[error("the mesh secrets differ, or only one side has one; give both peers the same mesh secret, or none")]
    WrongSecret,
    /// The name and the secret are the same, but the meshes were founded apart.
    #[error(
        "that peer belongs to another mesh of the same name (theirs has the genesis {theirs}, ours {ours}), and the \
         two never mix; start one side anew and let it join the other, or give it another mesh name"
    )]
    OtherGenesis {
        /// The remote's genesis.
        theirs: Genesis,
        /// The local genesis.
        ours: Genesis,
    },
    /// The peers speak different versions of the protocol.
    #[error("that peer speaks protocol version {theirs}, this one {ours}; run the same release on both")]
    ProtocolVersion {
        /// The remote's version.
        theirs: u32,
        /// The local version.
        ours: u32,
    },
    /// Both sides still look for a mesh to join.
    #[error(
        "neither side has a mesh yet; it is tried again, but a mesh must be founded: by one peer alone, or by several \
         that expect each other"
    )]
    NoMeshYet,
    /// Neither side has a mesh yet, and they wait for different numbers of peers to found one.
    #[error(
        "that peer expects {theirs} peers to found a mesh, this one {ours}; start all with the same number, more than \
         half of the peers that are planned"
    )]
    OtherExpect {
        /// How many peers the remote expects.
        theirs: u16,
        /// How many this one expects.
        ours: u16,
    },
    /// The refusing side has as many peers as it admits.
    #[error("the mesh is full, a peer admits {PEERS_MAX} others at most; stop a peer before another joins")]
    TooManyPeers,
    /// The handshake was not completed in time.
    #[error("the handshake took longer than {HANDSHAKE_TIMEOUT:?}; see whether the peer is overloaded or hangs")]
    HandshakeTimeout,
    /// The remote broke the protocol.
    #[error("that peer broke the protocol: {0}; see that both run the same release")]
    Malformed(FrameError),
    /// The remote can do libp2p, but not Driftmesh.
    #[error("there is no Driftmesh peer at the address, or it runs an incompatible release; check the address")]
    NotDriftmesh,
    /// The address leads back to this peer.
    #[error("the address is that of this peer itself; leave it out of the join addresses")]
    SelfConnect,
    /// A newer process runs with the same key.
    #[error("a newer process uses the same peer key; stop one of the two, or give it a key of its own")]
    DuplicateIncarnation,
    /// The address belongs to another peer than was named.
    #[error(
        "the peer at the address is {}, not {}; correct the /p2p/ part of the join address",
        shown(actual),
        shown(expected)
    )]
    WrongPeer {
        /// The peer that the address names.
        expected: String,
        /// The peer that answers there.
        actual: String,
    },
    /// The remote's identity is not an ed25519 key.
    #[error("that peer's identity is not an ed25519 key; give it one")]
    UnknownIdentity,
    /// The refusing side is shutting down.
    #[error("the peer is shutting down; join again after its start, or join another one")]
    ShuttingDown,
    /// The refusing side has dropped the other for what it said.
    #[error(
        "a peer that says what no peer says is dropped, and refused for another {seconds} s; see that both run the same \
         release"
    )]
    Dropped {
        /// How long it will still be refused, seconds.
        seconds: u64,
    },
    /// The connection ended before the handshake did.
    #[error("the connection ended during the handshake; it is tried again")]
    ConnectionLost,
}

impl RefuseReason {
    /// The same reason as the other side sees it.
    pub(super) fn mirrored(self) -> Self {
        match self {
            Self::WrongMeshName { theirs, ours } => Self::WrongMeshName { theirs: ours, ours: theirs },
            Self::OtherGenesis { theirs, ours } => Self::OtherGenesis { theirs: ours, ours: theirs },
            Self::ProtocolVersion { theirs, ours } => Self::ProtocolVersion { theirs: ours, ours: theirs },
            Self::OtherExpect { theirs, ours } => Self::OtherExpect { theirs: ours, ours: theirs },
            same @ (Self::WrongSecret
            | Self::NoMeshYet
            | Self::TooManyPeers
            | Self::HandshakeTimeout
            | Self::Malformed(_)
            | Self::NotDriftmesh
            | Self::SelfConnect
            | Self::DuplicateIncarnation
            | Self::WrongPeer { .. }
            | Self::UnknownIdentity
            | Self::ShuttingDown
            | Self::Dropped { .. }
            | Self::ConnectionLost) => same,
        }
    }

    /// The foreign mesh that it tells of: its name, and its genesis where the name is the same.
    pub(super) fn other_mesh(&self) -> Option<(&str, Option<Genesis>)> {
        if let Self::WrongMeshName { theirs, .. } = self {
            Some((theirs, None))
        } else if let Self::OtherGenesis { theirs, .. } = self {
            Some(("", Some(*theirs)))
        } else {
            None
        }
    }

    /// Whether a user wants to know it of a peer that mDNS told of and nobody asked for: only what may be a mistake in
    /// the settings of one mesh. Other programs and other meshes have the same right to the network.
    pub(super) const fn concerns_unasked(&self) -> bool {
        match self {
            Self::WrongSecret
            | Self::ProtocolVersion { .. }
            | Self::OtherExpect { .. }
            | Self::TooManyPeers
            | Self::Dropped { .. }
            | Self::DuplicateIncarnation => true,
            Self::WrongMeshName { .. }
            | Self::OtherGenesis { .. }
            | Self::NoMeshYet
            | Self::HandshakeTimeout
            | Self::Malformed(_)
            | Self::NotDriftmesh
            | Self::SelfConnect
            | Self::WrongPeer { .. }
            | Self::UnknownIdentity
            | Self::ShuttingDown
            | Self::ConnectionLost => false,
        }
    }

    /// Whether it may pass by itself within moments, so that trying again soon is worth it.
    pub(super) const fn is_transient(&self) -> bool {
        match self {
            Self::NoMeshYet
            | Self::OtherExpect { .. }
            | Self::HandshakeTimeout
            | Self::Dropped { .. }
            | Self::ConnectionLost => true,
            Self::WrongMeshName { .. }
            | Self::WrongSecret
            | Self::OtherGenesis { .. }
            | Self::ProtocolVersion { .. }
            | Self::TooManyPeers
            | Self::Malformed(_)
            | Self::NotDriftmesh
            | Self::SelfConnect
            | Self::DuplicateIncarnation
            | Self::WrongPeer { .. }
            | Self::UnknownIdentity
            | Self::ShuttingDown => false,
        }
    }
}

/// Why an admitted peer is no longer connected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaveReason {
    /// It said goodbye; all that it sent before has been received.
    #[error("it shut down cleanly")]
    Goodbye,
    /// This side shuts down.
    #[error("this peer shuts down")]
    ShutDown,
    /// The connection was lost without a goodbye; it is dialled again.
    #[error("the connection was lost: {error}")]
    Lost {
        /// What the connection reported.
        error: String,
    },
    /// Nothing came from it for 20 s; it is dialled again.
    #[error("nothing was heard of it for {} s", super::limits::SILENCE_MAX.as_secs())]
    Silent,
    /// It broke the protocol.
    #[error("it broke the protocol: {0}")]
    Malformed(FrameError),
    /// It said what no peer says, too often; it is refused for a while.
    #[error("it said what no peer says, {offences} times of late, and is refused for {} s", refused_for.as_secs())]
    Dropped {
        /// How often it did so at the end.
        offences: u32,
        /// How long it is refused.
        refused_for: Duration,
    },
    /// It connected anew; its next admission follows.
    #[error("it connected anew")]
    Replaced,
}

impl LeaveReason {
    /// Whether the peer, or this one, left on purpose.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        match self {
            Self::Goodbye | Self::ShutDown => true,
            Self::Lost { .. } | Self::Silent | Self::Malformed(_) | Self::Dropped { .. } | Self::Replaced => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_name_cannot_write_to_the_terminal() {
        let reason = RefuseReason::WrongMeshName {
            theirs: format!("\u{1b}[2J\n{}", "ä".repeat(1_000)),
            ours: "arena".to_owned(),
        };
        let text = reason.to_string();
        assert!(text.contains("\\u{1b}[2J\\n") && text.chars().all(|c| !c.is_control()) && text.len() < 300);
    }

    #[test]
    fn the_peers_that_a_remote_names_cannot_write_to_the_terminal_either() {
        let reason =
            RefuseReason::WrongPeer { expected: "\u{1b}[2J\n".to_owned(), actual: "\u{7}".repeat(16_000) }.mirrored();
        let text = reason.to_string();
        assert!(text.contains("\\u{1b}[2J\\n") && text.chars().all(|c| !c.is_control()) && text.len() < 600, "{text}");
        // What is meant is shown whole.
        let peer = libp2p::PeerId::random().to_string();
        let reason = RefuseReason::WrongPeer { expected: peer.clone(), actual: peer.clone() };
        assert_eq!(reason.to_string().matches(&peer).count(), 2);
    }

    #[test]
    fn mirroring_swaps_the_sides() {
        let reason = RefuseReason::ProtocolVersion { theirs: 2, ours: 1 };
        assert_eq!(reason.clone().mirrored(), RefuseReason::ProtocolVersion { theirs: 1, ours: 2 });
        assert_eq!(reason.clone().mirrored().mirrored(), reason);
    }
}
