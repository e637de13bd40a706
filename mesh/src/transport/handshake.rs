//! The handshake: version, mesh name, proof of the secret, genesis, in this order, before anything else.
//!
//! Both sides send a hello with a fresh nonce, then a proof over both hellos, then whether they admit the other.
//! It refuses to compare secrets before version and name are right, and to take a proof that was made for the other
//! side or for another handshake. Encryption and the proof of the peer's key are the work of the stream below.

use std::sync::Arc;

use driftmesh_model::{PeerId, codec};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};

use super::address;
use super::bytes::{Bytes, FixedBytes};
use super::frame::{self, FrameBuffer, FrameError, FrameKind};
use super::limits::{
    ADDRESSES_MAX, HANDSHAKE_BODY_MAX, HANDSHAKE_TIMEOUT, HELLO_BYTES_MAX, MESH_NAME_BYTES_MAX, REFUSAL_LINGER,
};
use super::random_bytes;
use super::reason::{Genesis, RefuseReason};
use super::registry::{Place, Shared};

/// The domain of the proof key, so that the secret serves nothing else.
const KEY_CONTEXT: &str = "driftmesh mesh secret v1";
/// What the proofs of the two sides begin with, so that neither can be sent back as the other.
const LOWER_TAG: &[u8] = b"driftmesh proof of the lower peer";
const HIGHER_TAG: &[u8] = b"driftmesh proof of the higher one";

/// The key of all proofs of a mesh. A mesh without a secret has the key of the empty one.
pub(super) fn proof_key(secret: Option<&[u8]>) -> [u8; 32] {
    blake3::derive_key(KEY_CONTEXT, secret.unwrap_or_default())
}

/// What follows the version in a hello.
#[derive(Serialize, Deserialize)]
struct HelloBody {
    mesh_name: String,
    genesis: Option<Genesis>,
    /// How many peers are to found a mesh, this one included, while it has none.
    expect: Option<u16>,
    incarnation: u64,
    nonce: FixedBytes<32>,
    hello: Bytes,
    addresses: Vec<Bytes>,
}

/// A peer that passed the handshake.
pub(super) struct Admission {
    pub(super) incarnation: u64,
    pub(super) hello: Vec<u8>,
    pub(super) addresses: Vec<Multiaddr>,
    /// `None` between fresh peers, which are linked and not admitted.
    pub(super) genesis: Option<Genesis>,
    /// Holds what the remote sent right after its admission.
    pub(super) frames: FrameBuffer,
    pub(super) place: Place,
}

/// A handshake that ended otherwise.
#[derive(Debug)]
pub(super) enum Failure {
    /// One side refused the other.
    Refused { reason: RefuseReason, by_remote: bool },
    /// The remote closed or dropped the substream before it said anything.
    Unheard,
}

impl From<RefuseReason> for Failure {
    fn from(reason: RefuseReason) -> Self {
        Self::Refused { reason, by_remote: false }
    }
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        RefuseReason::Malformed(error).into()
    }
}

/// Runs the handshake; takes 5 s at most, and a moment more when it must tell the remote why it refuses. Not cancel
/// safe: the stream is of no use afterwards.
///
/// # Errors
/// When either side refuses, or the stream fails. The remote has then been told, as far as possible.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    remote: PeerId,
    stream: &mut S,
) -> Result<Admission, Failure> {
    let mut exchange = Exchange { stream, frames: FrameBuffer::new(), is_heard: false };
    let result = match tokio::time::timeout(HANDSHAKE_TIMEOUT, exchange.run(shared, remote)).await {
        Ok(result) => result,
        Err(_) => Err(RefuseReason::HandshakeTimeout.into()),
    };
    match result {
        Ok((hello, genesis, place)) => Ok(Admission {
            incarnation: hello.incarnation,
            addresses: address::from_remote(&hello.addresses),
            hello: hello.hello.0,
            genesis,
            frames: exchange.frames,
            place,
        }),
        Err(failure) => {
            if let Failure::Refused { reason, by_remote: false } = &failure {
                refuse(stream, reason).await;
            }
            Err(failure)
        }
    }
}

/// Tells the remote why it is refused, and waits a moment until it has read that.
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, reason: &RefuseReason) {
    let Ok(body) = codec::encode(reason) else { return };
    let tell = async {
        stream.write_all(&frame::encode(FrameKind::Refuse, &body)).await?;
        stream.close().await?;
        // Closing the connection right away could overtake the reason; the remote closes when it has read it.
        let mut ignored = [0; 1_024];
        while stream.read(&mut ignored).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    match tokio::time::timeout(REFUSAL_LINGER, tell).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the remote could not be told why it is refused"),
    }
}

struct Exchange<'a, S> {
    stream: &'a mut S,
    frames: FrameBuffer,
    is_heard: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<'_, S> {
    async fn run(
        &mut self,
        shared: &Arc<Shared>,
        remote: PeerId,
    ) -> Result<(HelloBody, Option<Genesis>, Place), Failure> {
        let our_genesis = shared.genesis();
        let our_hello = our_hello(shared, our_genesis);
        self.send(FrameKind::Hello, &our_hello).await?;
        let their_hello = self.receive(FrameKind::Hello).await?;
        let theirs = check_hello(shared, &their_hello)?;

        let transcript = Transcript::new(shared.local.peer, remote, &our_hello, &their_hello);
        let proof = transcript.proof(&shared.local.proof_key, shared.local.peer);
        self.send(FrameKind::Proof, proof.as_bytes()).await?;
        let their_proof = self.receive(FrameKind::Proof).await?;
        let their_proof: [u8; 32] =
            their_proof.as_slice().try_into().map_err(|_| FrameError::body(FrameKind::Proof))?;
        // blake3::Hash compares in constant time; the bytes must not be compared as slices.
        if transcript.proof(&shared.local.proof_key, remote) != blake3::Hash::from_bytes(their_proof) {
            return Err(RefuseReason::WrongSecret.into());
        }

        let genesis = match (our_genesis, theirs.genesis) {
            (None, None) => None,
            (Some(ours), Some(theirs)) if ours != theirs => {
                return Err(RefuseReason::OtherGenesis { theirs, ours }.into());
            }
            (Some(genesis), _) | (None, Some(genesis)) => Some(genesis),
        };
        if genesis.is_none() {
            check_expected(theirs.expect, shared.local.expect)?;
        }
        let place = shared.reserve(remote, theirs.incarnation)?;
        match genesis {
            // Who joins lets itself be admitted first, so that it never admits a peer of a mesh that refuses it.
            Some(adopted) if our_genesis.is_none() => {
                self.receive_admit().await?;
                shared.adopt(adopted)?;
                self.send(FrameKind::Admit, &[]).await?;
            }
            Some(_) | None => {
                self.send(FrameKind::Admit, &[]).await?;
                self.receive_admit().await?;
            }
        }
        Ok((theirs, genesis, place))
    }

    async fn send(&mut self, kind: FrameKind, body: &[u8]) -> Result<(), Failure> {
        let bytes = frame::encode(kind, body);
        let sent = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        match sent.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// What it means that the substream failed. One that is dropped unread, as it is under load, may already take no
    /// hello.
    fn failed(&self, error: &std::io::Error) -> Failure {
        tracing::debug!(%error, self.is_heard, "stream failed during the handshake");
        if self.is_heard { RefuseReason::ConnectionLost.into() } else { Failure::Unheard }
    }

    /// The remote admits this side, and says nothing else by that (R25).
    async fn receive_admit(&mut self) -> Result<(), Failure> {
        let body = self.receive(FrameKind::Admit).await?;
        if body.is_empty() { Ok(()) } else { Err(FrameError::body(FrameKind::Admit).into()) }
    }

    /// The body of the next frame, which must be of this kind.
    async fn receive(&mut self, expected: FrameKind) -> Result<Vec<u8>, Failure> {
        loop {
            if let Some((kind, body)) = self.frames.next(HANDSHAKE_BODY_MAX)? {
                if kind == FrameKind::Refuse {
                    return Err(refused_by_remote(body));
                }
                return if kind == expected { Ok(body.to_vec()) } else { Err(FrameError::unexpected(kind).into()) };
            }
            let count = match self.stream.read(self.frames.space()).await {
                Ok(count) => count,
                Err(error) => return Err(self.failed(&error)),
            };
            if count == 0 {
                let lost = Failure::Refused { reason: RefuseReason::ConnectionLost, by_remote: true };
                return Err(if self.is_heard { lost } else { Failure::Unheard });
            }
            self.is_heard = true;
            self.frames.filled(count);
        }
    }
}

pub(super) fn refused_by_remote(body: &[u8]) -> Failure {
    match codec::decode::<RefuseReason>(body) {
        Ok(reason) => Failure::Refused { reason: reason.mirrored(), by_remote: true },
        Err(error) => {
            tracing::debug!(%error, "the remote's reason cannot be decoded");
            FrameError::body(FrameKind::Refuse).into()
        }
    }
}

fn our_hello(shared: &Shared, genesis: Option<Genesis>) -> Vec<u8> {
    let local = &shared.local;
    let hello = shared.handler.hello().filter(|hello| hello.len() <= HELLO_BYTES_MAX);
    let body = HelloBody {
        mesh_name: local.mesh_name.clone(),
        genesis,
        expect: local.expect,
        incarnation: local.incarnation,
        nonce: FixedBytes(random_bytes()),
        hello: Bytes(hello.unwrap_or_else(|| local.hello.clone())),
        addresses: address::to_remote(&shared.addresses()),
    };
    let mut bytes = local.protocol_version.to_be_bytes().to_vec();
    // Only an exhausted memory can make it fail; the remote then refuses the empty rest as malformed.
    bytes.extend(codec::encode(&body).unwrap_or_default());
    bytes
}

/// Reads a hello. The version comes first and by itself, because the rest may differ between versions.
fn check_hello(shared: &Shared, bytes: &[u8]) -> Result<HelloBody, Failure> {
    let malformed = FrameError::body(FrameKind::Hello);
    let (version, body) = bytes.split_first_chunk::<4>().ok_or(malformed)?;
    let (theirs, ours) = (u32::from_be_bytes(*version), shared.local.protocol_version);
    if theirs != ours {
        return Err(RefuseReason::ProtocolVersion { theirs, ours }.into());
    }
    let hello: HelloBody = codec::decode(body).map_err(|_| malformed)?;
    if hello.mesh_name.len() > MESH_NAME_BYTES_MAX
        || hello.hello.0.len() > HELLO_BYTES_MAX
        || hello.addresses.len() > ADDRESSES_MAX
    {
        return Err(malformed.into());
    }
    if hello.mesh_name != shared.local.mesh_name {
        let ours = shared.local.mesh_name.clone();
        return Err(RefuseReason::WrongMeshName { theirs: hello.mesh_name, ours }.into());
    }
    Ok(hello)
}

/// For fuzz targets: what is read of a hello, written again.
#[cfg(feature = "testing")]
pub(super) fn decode_and_encode_hello(body: &[u8]) -> Result<Vec<u8>, codec::DecodeError> {
    let hello: HelloBody = codec::decode(body)?;
    Ok(codec::encode(&hello).unwrap_or_default())
}

/// Whether two fresh peers can found a mesh together: both want to, with as many peers.
fn check_expected(theirs: Option<u16>, ours: Option<u16>) -> Result<(), RefuseReason> {
    match (theirs, ours) {
        (Some(theirs), Some(ours)) if theirs == ours => Ok(()),
        (Some(theirs), Some(ours)) => Err(RefuseReason::OtherExpect { theirs, ours }),
        (Some(_) | None, _) => Err(RefuseReason::NoMeshYet),
    }
}

/// Everything that a proof covers: both peers and every byte of both hellos.
struct Transcript<'a> {
    lower: PeerId,
    higher: PeerId,
    lower_hello: &'a [u8],
    higher_hello: &'a [u8],
}

impl<'a> Transcript<'a> {
    fn new(local: PeerId, remote: PeerId, our_hello: &'a [u8], their_hello: &'a [u8]) -> Self {
        if local < remote {
            Self { lower: local, higher: remote, lower_hello: our_hello, higher_hello: their_hello }
        } else {
            Self { lower: remote, higher: local, lower_hello: their_hello, higher_hello: our_hello }
        }
    }

    fn proof(&self, key: &[u8; 32], of: PeerId) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(if of == self.lower { LOWER_TAG } else { HIGHER_TAG });
        hasher.update(self.lower.as_bytes());
        hasher.update(self.higher.as_bytes());
        for hello in [self.lower_hello, self.higher_hello] {
            hasher.update(&(hello.len() as u64).to_be_bytes());
            hasher.update(hello);
        }
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_fits_one_side_of_one_handshake_only() {
        let (low, high) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let key = proof_key(Some(b"secret"));
        let ours = Transcript::new(low, high, b"low nonce", b"high nonce");
        let theirs = Transcript::new(high, low, b"high nonce", b"low nonce");
        assert_eq!(ours.proof(&key, low), theirs.proof(&key, low));
        assert_ne!(ours.proof(&key, low), ours.proof(&key, high), "reflected");
        let later = Transcript::new(low, high, b"low nonce", b"other nonce");
        assert_ne!(ours.proof(&key, low), later.proof(&key, low), "replayed");
        let shifted = Transcript::new(low, high, b"low nonceh", b"igh nonce");
        assert_ne!(ours.proof(&key, low), shifted.proof(&key, low), "shifted");
        assert_ne!(ours.proof(&key, low), ours.proof(&proof_key(None), low));
        assert_eq!(proof_key(None), proof_key(Some(b"")));
    }
}
