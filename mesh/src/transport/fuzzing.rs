//! What fuzz targets reach of the transport: frames, lanes, the handshake and an admitted peer's connection, as they are.
//!
//! Only in builds for tests of Driftmesh itself (feature `testing`), and no part of what users may rely on. It refuses to
//! decide anything: whatever it gives was made by the code that every connection runs.

use std::sync::{Arc, Mutex, PoisonError};

use driftmesh_model::{PeerId, codec};
use futures::{AsyncRead, AsyncWrite};
use libp2p::Multiaddr;
use tokio::sync::mpsc;

use super::address;
use super::bytes::Bytes;
use super::frame::{self, BODY_MAX, FrameBuffer, FrameError, FrameKind, Reassembly};
use super::handshake::{self, Failure};
use super::lanes::{Lanes, Step};
use super::latch::Latch;
use super::limits::{ADDRESSES_MAX, PEERS_MAX, PROTOCOL_VERSION};
use super::ping::Pings;
use super::reason::{Genesis, LeaveReason, RefuseReason};
use super::registry::{Local, Session, Shared};
use super::{Counters, Event, Handler, Received, connection, fresh};

/// Longest body of a frame, bytes.
pub const FRAME_BODY_MAX: usize = BODY_MAX;
/// Longest body of a frame of the handshake, bytes.
pub const HELLO_FRAME_MAX: usize = super::limits::HANDSHAKE_BODY_MAX;
/// Length of what comes before a body, bytes.
pub const HEADER_BYTES: usize = frame::HEADER_BYTES;

/// The codes of all kinds of frames.
pub fn kinds() -> impl Iterator<Item = u8> {
    FrameKind::ALL.into_iter().map(FrameKind::code)
}

/// The frame of a kind; `None` for an unknown one, or a body that is too long.
#[must_use]
pub fn frame(kind: u8, body: &[u8]) -> Option<Vec<u8>> {
    FrameKind::from_code(kind).filter(|_| body.len() <= BODY_MAX).map(|kind| frame::encode(kind, body))
}

/// Bytes in, frames out.
pub struct Frames(FrameBuffer);

impl Default for Frames {
    fn default() -> Self {
        Self(FrameBuffer::new())
    }
}

impl Frames {
    /// Takes bytes that came at once, and gives the frames that are whole with them, each as its kind and its body.
    ///
    /// # Errors
    /// When a header is refused. The frames before it were pushed to `frames`.
    pub fn take(&mut self, mut bytes: &[u8], limit: usize, frames: &mut Vec<(u8, Vec<u8>)>) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            let space = self.0.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.0.filled(count);
            bytes = &bytes[count..];
            while let Some((kind, body)) = self.0.next(limit)? {
                frames.push((kind.code(), body.to_vec()));
            }
        }
        Ok(())
    }
}

/// Large payloads, put together again.
#[derive(Default)]
pub struct Bulk(Reassembly);

impl Bulk {
    /// Takes a frame that begins or goes on with a large payload; gives the payload when it is whole. Others are passed over.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn take(&mut self, kind: u8, body: &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        match FrameKind::from_code(kind) {
            Some(kind @ FrameKind::BulkBegin) => self.0.begin(frame::number(kind, body)?).map(|()| None),
            Some(FrameKind::BulkChunk) => self.0.chunk(body),
            Some(_) | None => Ok(None),
        }
    }
}

/// What waits to be sent to one peer.
pub struct Outgoing(Lanes);

impl Default for Outgoing {
    fn default() -> Self {
        Self(Lanes::new())
    }
}

impl Outgoing {
    /// Queues a payload, in haste or not. Returns whether it was taken.
    pub fn push(&self, payload: Vec<u8>, haste: bool) -> bool {
        self.0.push(payload, haste).is_ok()
    }

    /// What is written next; nothing while it waits for credit or payloads.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut buffer = Vec::new();
        match self.0.next(&mut buffer) {
            Step::Write(_) | Step::Wait | Step::Done => buffer,
        }
    }

    /// The receiver took so many chunks.
    ///
    /// # Errors
    /// When fewer were under way.
    pub fn credit(&self, chunks: u32) -> Result<(), FrameError> {
        self.0.take_credit(chunks)
    }
}

/// Reads the body of a frame between fresh peers, and writes it again.
///
/// # Errors
/// When it is refused.
pub fn founding_body(body: &[u8]) -> Result<Vec<u8>, FrameError> {
    fresh::read(body).map(|body| fresh::encode(&body)[HEADER_BYTES..].to_vec())
}

/// A frame that carries a message of the founding; `None` when that is too long.
#[must_use]
pub fn founding_frame(message: Vec<u8>) -> Option<Vec<u8>> {
    fresh::said(message)
}

/// Reads what follows the version in a hello, and writes it again.
///
/// # Errors
/// When it does not decode.
pub fn hello_body(body: &[u8]) -> Result<Vec<u8>, codec::DecodeError> {
    handshake::decode_and_encode_hello(body)
}

/// Reads why the remote refuses.
///
/// # Errors
/// When it does not decode.
pub fn refusal(body: &[u8]) -> Result<RefuseReason, FrameError> {
    match handshake::refused_by_remote(body) {
        Failure::Refused { reason: RefuseReason::Malformed(error), by_remote: false } => Err(error),
        Failure::Refused { reason, .. } => Ok(reason),
        Failure::Unheard => Ok(RefuseReason::ConnectionLost),
    }
}

/// The addresses that a remote told, as far as they can be dialled, and what they are told on as.
#[must_use]
pub fn told_addresses(told: Vec<Vec<u8>>) -> (Vec<Multiaddr>, Vec<Vec<u8>>) {
    let addresses = address::from_remote(&told.into_iter().map(Bytes).collect::<Vec<_>>());
    let again = address::to_remote(&addresses).into_iter().map(|Bytes(bytes)| bytes).collect();
    (addresses, again)
}

/// Most addresses that are believed.
pub const TOLD_ADDRESSES_MAX: usize = ADDRESSES_MAX;

/// How one side of a handshake is set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SideConfig {
    /// Who it is.
    pub peer: PeerId,
    /// The version of the protocol, counted from the present one.
    pub later_version: u32,
    /// The name of its mesh.
    pub mesh_name: String,
    /// The mesh that it belongs to.
    pub genesis: Option<Genesis>,
    /// How many peers it expects to found a mesh.
    pub expect: Option<u16>,
    /// The secret.
    pub secret: Option<Vec<u8>>,
    /// What it tells of itself.
    pub hello: Vec<u8>,
    /// Where it says that it can be dialled.
    pub advertise: Vec<Multiaddr>,
}

/// Keeps the payloads that came.
#[derive(Default)]
struct Kept {
    payloads: Mutex<Vec<Vec<u8>>>,
    largest_batch: Mutex<usize>,
}

impl Handler for Kept {
    fn received(&self, _: PeerId, mut payloads: Vec<Vec<u8>>) -> Received {
        let mut largest = self.largest_batch.lock().unwrap_or_else(PoisonError::into_inner);
        *largest = payloads.len().max(*largest);
        self.payloads.lock().unwrap_or_else(PoisonError::into_inner).append(&mut payloads);
        Received::default()
    }

    fn event(&self, _: Event) {}
}

/// One side of a handshake or of a connection, without a network.
pub struct Side {
    shared: Arc<Shared>,
    kept: Arc<Kept>,
}

/// What a side knows of the other one that it has admitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// What it told of itself.
    pub hello: Vec<u8>,
    /// Where it says that it can be dialled.
    pub addresses: Vec<Multiaddr>,
    /// The mesh of both; none between fresh peers.
    pub genesis: Option<Genesis>,
}

/// What came of a connection after the admission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    /// The payloads, in order.
    pub payloads: Vec<Vec<u8>>,
    /// Most payloads that were handed on at once.
    pub largest_batch: usize,
    /// Why it ended.
    pub reason: LeaveReason,
}

impl Side {
    /// A side that has met nobody yet.
    #[must_use]
    pub fn new(config: SideConfig) -> Self {
        let SideConfig { peer, later_version, mesh_name, genesis, expect, secret, hello, advertise } = config;
        let local = Local {
            peer,
            libp2p_peer: libp2p_form(&peer),
            protocol_version: PROTOCOL_VERSION.wrapping_add(later_version),
            mesh_name,
            expect,
            incarnation: 1,
            hello,
            advertise,
            proof_key: handshake::proof_key(secret.as_deref()),
            peers_max: PEERS_MAX,
        };
        let (commands, _) = mpsc::channel(1);
        let kept = Arc::new(Kept::default());
        let handler: Arc<dyn Handler> = Arc::<Kept>::clone(&kept);
        Self { shared: Arc::new(Shared::new(local, genesis, handler, commands, Counters::default())), kept }
    }

    /// Runs the handshake over a stream; needs a runtime that keeps time.
    ///
    /// # Errors
    /// Why one of the two refuses the other.
    pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        remote: PeerId,
        stream: &mut S,
    ) -> Result<Admitted, RefuseReason> {
        match handshake::run(&self.shared, remote, stream).await {
            Ok(admission) => {
                let handshake::Admission { hello, addresses, genesis, .. } = admission;
                Ok(Admitted { hello, addresses, genesis })
            }
            Err(Failure::Refused { reason, .. }) => Err(reason),
            Err(Failure::Unheard) => Err(RefuseReason::ConnectionLost),
        }
    }

    /// Reads and writes the stream of an admitted peer to its end; needs a runtime that keeps time.
    pub async fn connection<S>(&self, remote: PeerId, stream: S) -> Heard
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let session = Arc::new(Session {
            peer: remote,
            libp2p_peer: libp2p_form(&remote),
            incarnation: 1,
            addresses: Vec::new(),
            lanes: Lanes::new(),
            pings: Pings::default(),
            replaced: Latch::new(),
            ended: Latch::new(),
        });
        let reason = connection::run(&self.shared, &session, stream, FrameBuffer::new()).await;
        let payloads = std::mem::take(&mut *self.kept.payloads.lock().unwrap_or_else(PoisonError::into_inner));
        let largest_batch = *self.kept.largest_batch.lock().unwrap_or_else(PoisonError::into_inner);
        Heard { payloads, largest_batch, reason }
    }
}

/// Any identity will do where nobody dials it.
fn libp2p_form(peer: &PeerId) -> libp2p::PeerId {
    libp2p::PeerId::from_bytes(&peer.kademlia_bytes()).unwrap_or_else(|_| libp2p::PeerId::random())
}
