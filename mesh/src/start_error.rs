//! Why a peer could not be started or could not join: what happened, and what to do.
//!
//! It refuses errors that only the program's authors understand: each says what its reader can change.

use crate::ImportError;
use crate::transport::{self, AddressError, RefuseReason};
use driftmesh_model::limits::TASK_KIND_BYTES_MAX;
use driftmesh_peer::{EXPECT_MAX, REPLICAS_MAX};
use std::time::Duration;

/// A peer could not be started, or no peer of the mesh admitted it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The transport could not be started: a port is taken, the mesh name is too long.
    #[error(transparent)]
    Transport(#[from] transport::StartError),
    /// An address to join or to advertise cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An address to listen at cannot be used.
    #[error("`{text}` cannot be listened at; give /ip4/ADDRESS/tcp/PORT, /ip6/ADDRESS/tcp/PORT or ADDRESS:PORT")]
    ListenAddress {
        /// What was given.
        text: String,
    },
    /// A mesh without a secret would be open to everybody who can reach the address.
    #[error(
        "{address} can be reached from other machines, and the mesh has no secret, so anybody there could take part; \
         give the mesh a secret, or say explicitly that it is open, or use a loopback address"
    )]
    NotLoopback {
        /// The address.
        address: String,
    },
    /// An empty secret protects nothing.
    #[error("the mesh secret is empty; give at least one byte, or no secret at all")]
    EmptySecret,
    /// A peer founds a mesh or joins one.
    #[error("a peer either founds a new mesh or joins one; leave out one of the two")]
    NewAndJoin,
    /// A peer founds a mesh by itself, together with others, or not at all.
    #[error(
        "a peer founds a mesh by itself, or with others that expect it, or only looks for one; choose one of these"
    )]
    OneWayToFound,
    /// The number of peers to expect is out of bounds.
    #[error(
        "{given} peers cannot be expected; give 1 to {EXPECT_MAX}: the same number at all peers, more than half of \
         those that are planned"
    )]
    Expect {
        /// What was given.
        given: usize,
    },
    /// More copies than there may be.
    #[error("{given} replicas are too many; give 0 to {REPLICAS_MAX}")]
    Replicas {
        /// What was given.
        given: usize,
    },
    /// The system gives no thread for the peer's timers.
    #[error("no thread could be started: {error}; raise the limits of this user or container")]
    NoThread {
        /// What the system said.
        error: String,
    },
    /// What a mesh shall begin with cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Only who founds a mesh can fill it.
    #[error("only a new mesh can begin with what was exported; leave out what joins, expects or searches for one")]
    ImportWithoutNew,
    /// Too few peers found each other in time, and there was no mesh to join.
    #[error(
        "no mesh was found or founded within {} s: {found} of the expected peers found each other; start the others, \
         and see that they can be reached, by addresses to join or on one network",
        after.as_secs_f32()
    )]
    NotFounded {
        /// How long it was tried.
        after: Duration,
        /// How many found each other, this one included.
        found: usize,
    },
    /// The mesh, or whoever is at the address, refused this peer, and trying again would not help.
    #[error("{address} was not joined: {reason}")]
    Refused {
        /// Where it was tried.
        address: String,
        /// Why.
        reason: RefuseReason,
    },
    /// Two types of tasks have the same name, or it is too long.
    #[error(
        "tasks named `{name}` cannot be registered: another type has that name, or it has more than {TASK_KIND_BYTES_MAX} bytes"
    )]
    TaskName {
        /// The name.
        name: String,
    },
    /// The peer was to bring its own runtime, on a thread that has one.
    #[error("start_blocking was called inside a tokio runtime; use start().await there")]
    InsideRuntime,
    /// The peer's own runtime could not be started.
    #[error("the peer's threads could not be started: {error}")]
    Runtime {
        /// What the operating system reported.
        error: String,
    },
    /// Nobody admitted this peer in time.
    #[error(
        "no peer of the mesh admitted this one within {} s ({}); see that one runs at the address and can be reached",
        after.as_secs_f32(), tried.join("; ")
    )]
    Unreachable {
        /// How long it was tried.
        after: Duration,
        /// Each address with what it last said.
        tried: Vec<String>,
    },
}
