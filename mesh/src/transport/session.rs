//! The life of one substream: opened or accepted, handshake, admission, reading and writing, leaving.
//!
//! Of two peers the lower opens the substream and the higher accepts it, so that simultaneous dials give one. Only
//! when nothing comes for a while does the higher open one; the peers then agree by the turn for the handshake, of
//! which each has one per remote. It refuses more handshakes at once than a bound; the opener then tries again.

use std::sync::Arc;
use std::time::Instant;

use driftmesh_model::PeerId;
use futures::StreamExt;
use libp2p::{Stream, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams, OpenStreamError};
use tokio::sync::Semaphore;

use super::Event;
use super::connection::{self, SessionEnd};
use super::counters::add;
use super::door::Host;
use super::fresh;
use super::handshake::{self, Admission, Failure};
use super::lanes::Lanes;
use super::latch::Latch;
use super::limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, OPEN_ATTEMPTS, OPEN_RETRY_DELAY};
use super::peer_id;
use super::ping::Pings;
use super::reason::{LeaveReason, RefuseReason};
use super::registry::{HandshakeTurn, Session, Shared};
use super::swarm::Command;

/// The name by which libp2p knows the substream. It stays; versions are told apart in the handshake.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/driftmesh/1");

/// A peer in both forms of its identity.
#[derive(Clone, Copy)]
pub(super) struct Remote {
    pub(super) peer: PeerId,
    pub(super) libp2p_peer: libp2p::PeerId,
}

/// Accepts the substreams of others until the transport stops.
pub(super) async fn accept(shared: Arc<Shared>, mut incoming: IncomingStreams) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let (libp2p_peer, stream) = tokio::select! {
            () = shared.stop.wait() => return,
            next = incoming.next() => match next {
                Some(next) => next,
                None => return,
            },
        };
        let Some(peer) = peer_id::from_libp2p(&libp2p_peer) else {
            tracing::debug!(%libp2p_peer, "substream dropped: the remote has no ed25519 key");
            continue;
        };
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            tracing::debug!(%peer, "substream dropped: too many handshakes are under way");
            add(&shared.counters.handshakes_turned_away, 1);
            continue;
        };
        let address = shared.endpoint(&peer);
        let Some(host_turn) = shared.greet_host(address.as_ref().and_then(Host::of)) else {
            tracing::debug!(%peer, "substream dropped: too many handshakes of its address are under way");
            add(&shared.counters.handshakes_turned_away, 1);
            continue;
        };
        let Some(turn) = shared.begin_handshake(peer) else {
            tracing::debug!(%peer, "substream dropped: a handshake is under way");
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let remote = Remote { peer, libp2p_peer };
            match greet(&shared, remote, stream).await {
                Ok((stream, admission)) => {
                    drop((permit, host_turn));
                    live(&shared, remote, stream, admission, turn).await;
                }
                Err(failure) => failed(&shared, remote, address, failure, turn).await,
            }
        });
    }
}

/// Opens the substream to a connected peer, and lives it. Does nothing while a handshake with it is under way.
pub(super) async fn open(shared: Arc<Shared>, control: Control, remote: Remote, handshakes: Arc<Semaphore>) {
    let Some(turn) = shared.begin_handshake(remote.peer) else { return };
    let address = shared.endpoint(&remote.peer);
    let opening = async {
        let Ok(permit) = handshakes.acquire().await else { return Err(Failure::Unheard) };
        let opened = open_and_greet(&shared, control, remote).await;
        drop(permit);
        opened
    };
    let opened = tokio::select! {
        () = shared.stop.wait() => return,
        opened = opening => opened,
    };
    match opened {
        Ok((stream, admission)) => live(&shared, remote, stream, admission, turn).await,
        // The lower peer was about to open one itself.
        Err(Failure::Unheard) if remote.peer < shared.local.peer => {}
        Err(failure) => failed(&shared, remote, address, failure, turn).await,
    }
}

/// Opens a substream and runs the handshake. The lower peer does so again when the other side drops it unread, as it
/// does under load; the higher one does not, so that of two that open at once one gives way.
async fn open_and_greet(
    shared: &Arc<Shared>,
    mut control: Control,
    remote: Remote,
) -> Result<(Stream, Admission), Failure> {
    let mut wait = OPEN_RETRY_DELAY;
    let attempts = if shared.local.peer < remote.peer { OPEN_ATTEMPTS } else { 1 };
    for _ in 0..attempts {
        let opening = control.open_stream(remote.libp2p_peer, PROTOCOL);
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, opening).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(OpenStreamError::UnsupportedProtocol(_))) => return Err(RefuseReason::NotDriftmesh.into()),
            Ok(Err(error)) => {
                tracing::debug!(peer = %remote.peer, %error, "substream not opened");
                return Err(RefuseReason::ConnectionLost.into());
            }
            Err(_) => return Err(RefuseReason::HandshakeTimeout.into()),
        };
        match greet(shared, remote, stream).await {
            Err(Failure::Unheard) => {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            finished => return finished,
        }
    }
    Err(Failure::Unheard)
}

async fn greet(shared: &Arc<Shared>, remote: Remote, mut stream: Stream) -> Result<(Stream, Admission), Failure> {
    let refused_for = shared.conduct().refused_for(&remote.peer, Instant::now());
    if let Some(left) = refused_for {
        add(&shared.counters.offenders_refused, 1);
        let reason = RefuseReason::Dropped { seconds: left.as_secs().max(1) };
        handshake::refuse(&mut stream, &reason).await;
        return Err(reason.into());
    }
    let admission = tokio::select! {
        () = shared.stop.wait() => return Err(RefuseReason::ShuttingDown.into()),
        result = handshake::run(shared, remote.peer, &mut stream) => result?,
    };
    Ok((stream, admission))
}

/// Tells of a handshake that failed. The `address` is that before it: who refuses closes the connection, which may be
/// noticed before the refusal is.
pub(super) async fn failed(
    shared: &Arc<Shared>,
    remote: Remote,
    address: Option<libp2p::Multiaddr>,
    failure: Failure,
    turn: HandshakeTurn,
) {
    let (reason, by_remote) = match failure {
        Failure::Refused { reason, by_remote } => (reason, by_remote),
        Failure::Unheard => (RefuseReason::ConnectionLost, true),
    };
    let is_transient = reason.is_transient();
    let address = address.or_else(|| shared.endpoint(&remote.peer));
    tell_refused(shared, Some(remote.peer), address, reason, by_remote);
    // Ends in an error only when the transport stops, which closes all connections.
    let _ = shared.commands.send(Command::Refused { remote, is_transient }).await;
    drop(turn);
}

/// Counts, logs and tells a refusal; a foreign mesh once.
pub(super) fn tell_refused(
    shared: &Shared,
    peer: Option<PeerId>,
    address: Option<libp2p::Multiaddr>,
    reason: RefuseReason,
    by_remote: bool,
) {
    if shared.stop.is_set() {
        return;
    }
    add(&shared.counters.refused, 1);
    if matches!(reason, RefuseReason::OtherGenesis { .. }) {
        add(&shared.counters.other_genesis, 1);
    }
    if let Some((name, genesis)) = reason.other_mesh() {
        let name = if genesis.is_some() { &shared.local.mesh_name } else { name };
        if shared.is_news(name, genesis) {
            shared.handler.event(Event::OtherMesh { reason: reason.clone(), address: address.clone() });
        }
    }
    if !reason.concerns_unasked() && peer.is_some_and(|peer| shared.is_unasked(&peer)) {
        tracing::debug!(peer = ?peer, address = ?address, by_remote, %reason, "peer heard of by mDNS refused");
        return;
    }
    tracing::info!(peer = ?peer, address = ?address, by_remote, %reason, "peer refused");
    let is_superseded = by_remote && reason == RefuseReason::DuplicateIncarnation;
    shared.handler.event(Event::Refused { peer, address, reason, by_remote });
    if let Some(by) = peer.filter(|peer| is_superseded && shared.is_superseded_now(peer)) {
        let reason = RefuseReason::DuplicateIncarnation;
        tracing::error!(%by, %reason, "this peer takes no part any more");
        shared.handler.event(Event::Superseded { by });
        shared.close();
        shared.stop.set();
    }
}

/// From the admission to the leaving of a peer.
async fn live(shared: &Arc<Shared>, remote: Remote, mut stream: Stream, admission: Admission, turn: HandshakeTurn) {
    let Some(genesis) = admission.genesis else { return fresh::live(shared, remote, stream, admission, turn).await };
    let Admission { incarnation, hello, addresses, frames, place, .. } = admission;
    let endpoint = shared.endpoint(&remote.peer);
    let addresses = super::address::without_foreign_loopback(addresses, endpoint.as_ref());
    let session = Session {
        peer: remote.peer,
        libp2p_peer: remote.libp2p_peer,
        incarnation,
        addresses: addresses.clone(),
        lanes: Lanes::new(),
        pings: Pings::default(),
        replaced: Latch::new(),
        ended: Latch::new(),
    };
    let admitted = tokio::time::timeout(HANDSHAKE_TIMEOUT, shared.admit(session)).await;
    let session = match admitted.unwrap_or(Err(RefuseReason::HandshakeTimeout)) {
        Ok(session) => session,
        Err(reason) => {
            handshake::refuse(&mut stream, &reason).await;
            return failed(shared, remote, endpoint, reason.into(), turn).await;
        }
    };
    let end = SessionEnd { shared: Arc::clone(shared), session: Arc::clone(&session) };
    drop((place, turn));

    let peer = remote.peer;
    tracing::info!(%peer, incarnation, address = ?endpoint, "peer admitted");
    shared.handler.event(Event::Admitted { peer, incarnation, hello, addresses, genesis });
    let _ = shared.commands.send(Command::Admitted(Arc::clone(&session))).await;

    let reason = connection::run(shared, &session, stream, frames).await;
    // Nothing can be sent any more before `Left` is told, and no admission can follow before it.
    shared.remove(&session);
    tracing::info!(%peer, incarnation, %reason, "peer left");
    let was_replaced = reason == LeaveReason::Replaced;
    let is_clean = reason.is_clean();
    shared.handler.event(Event::Left { peer, incarnation, reason });
    drop(end);
    if !was_replaced {
        let _ = shared.commands.send(Command::Ended { session, is_clean }).await;
    }
}
