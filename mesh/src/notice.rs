//! What a peer tells its operator while it runs.
//!
//! It refuses to be the way to know a state: notices may be missed. [`crate::Mesh::status`] says what is so now.

use crate::transport::{LeaveReason, RefuseReason};
use driftmesh_model::PeerId;
use std::sync::Arc;

/// Takes notices. It is called from the transport's tasks and must return at once.
pub(crate) type Observer = Arc<dyn Fn(Notice) + Send + Sync>;

/// Something that an operator may want to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notice {
    /// The peer listens.
    Listening {
        /// Where others can join: a multiaddress with `/p2p/`.
        address: String,
    },
    /// Another peer is connected.
    Joined {
        /// The peer.
        peer: PeerId,
        /// How many other peers are connected now.
        members: usize,
    },
    /// Another peer is not connected any more.
    Left {
        /// The peer.
        peer: PeerId,
        /// How many other peers are connected now.
        members: usize,
        /// Why it left.
        reason: LeaveReason,
    },
    /// Another number of peers that wait for the same mesh to be founded is in reach now.
    FreshPeers {
        /// How many, this one included.
        found: usize,
    },
    /// This peer brought the founding of its mesh to its end. The others join.
    Founded {
        /// What tells the mesh from others of its name.
        genesis: String,
        /// Its founder, which may be another peer.
        founder: PeerId,
    },
    /// This peer and another refused each other.
    Refused {
        /// The other, when its identity is known.
        peer: Option<PeerId>,
        /// Where the other was dialled, or from where it came.
        address: Option<String>,
        /// Why, as this side sees it.
        reason: RefuseReason,
        /// Whether the other side refused.
        by_remote: bool,
    },
    /// A member has refused this peer: a newer process with the same key was admitted after it, or it is an old copy of
    /// itself, as of a virtual machine that was set back. This one takes no part any more: its transactions end with
    /// `Error::Superseded`. Told once.
    Superseded {
        /// The member.
        by: PeerId,
    },
    /// The other members of this peer's group went on without it, because they had not heard of it for too long: it stood still,
    /// or was cut off. What it had not copied is lost, and told to whoever holds a receipt; it goes on with a new group, and
    /// owns nothing at first.
    Deposed,
    /// Another mesh is within reach, on the same network or because a peer of it came here. Its peers and ours refuse
    /// each other. Told once for each mesh, of 64 at most.
    OtherMesh {
        /// How it differs, `WrongMeshName` or `OtherGenesis`, and what can be done if that is a mistake.
        reason: RefuseReason,
        /// Where one of its peers was dialled, or from where it came.
        address: Option<String>,
    },
    /// An address cannot be reached; told at most once in 5 s for each.
    Unreachable {
        /// The address.
        address: String,
        /// What the operating system reported.
        error: String,
    },
    /// The peer no longer listens at these addresses.
    ListenFailed {
        /// The addresses.
        addresses: Vec<String>,
        /// What the operating system reported.
        error: String,
    },
}
