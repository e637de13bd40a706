//! Counts of what went over all connections since the start.
//!
//! It refuses to be exact between two counters: each is read by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the transport did since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransportCounters {
    /// Frames written to admitted peers.
    pub frames_sent: u64,
    /// Bytes written to admitted peers, before encryption.
    pub bytes_sent: u64,
    /// Frames read from admitted peers.
    pub frames_received: u64,
    /// Bytes read from admitted peers, after decryption.
    pub bytes_received: u64,
    /// Payloads that were queued, but not written before their connection ended.
    pub dropped: u64,
    /// Payloads that `send` turned away because the queue was full.
    pub busy: u64,
    /// Handshakes that ended with a refusal, by either side.
    pub refused: u64,
    /// Those of them where the other side belongs to another mesh of the same name.
    pub other_genesis: u64,
    /// Peers heard of by mDNS for which there was no room.
    pub nearby_dropped: u64,
    /// Records that members wanted Kademlia to store, which it never does.
    pub records_refused: u64,
    /// How often a connection's routing messages had to wait because there were too many.
    pub routing_throttled: u64,
    /// Connections of members that ended with bytes that are no frame.
    pub malformed: u64,
    /// Messages that no peer says, whatever faults there are.
    pub impossible: u64,
    /// How often a member was dropped for what it said.
    pub offenders_dropped: u64,
    /// Handshakes that were refused because the peer had been dropped.
    pub offenders_refused: u64,
    /// How often nothing more was taken in of a member for a moment, because it had said too much.
    pub inbound_paused: u64,
    /// Connections that were not taken because there were too many, or too many of one address or peer.
    pub connections_turned_away: u64,
    /// Handshakes that were not begun because too many were under way, or too many of one address.
    pub handshakes_turned_away: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) frames_sent: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) frames_received: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) busy: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) other_genesis: AtomicU64,
    pub(super) nearby_dropped: AtomicU64,
    pub(super) records_refused: AtomicU64,
    pub(super) routing_throttled: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) impossible: AtomicU64,
    pub(super) offenders_dropped: AtomicU64,
    pub(super) offenders_refused: AtomicU64,
    pub(super) inbound_paused: AtomicU64,
    /// The swarm's door counts it.
    pub(super) connections_turned_away: Arc<AtomicU64>,
    pub(super) handshakes_turned_away: AtomicU64,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Counters {
    /// The counts now.
    pub(super) fn read(&self) -> TransportCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TransportCounters {
            frames_sent: read(&self.frames_sent),
            bytes_sent: read(&self.bytes_sent),
            frames_received: read(&self.frames_received),
            bytes_received: read(&self.bytes_received),
            dropped: read(&self.dropped),
            busy: read(&self.busy),
            refused: read(&self.refused),
            other_genesis: read(&self.other_genesis),
            nearby_dropped: read(&self.nearby_dropped),
            records_refused: read(&self.records_refused),
            routing_throttled: read(&self.routing_throttled),
            malformed: read(&self.malformed),
            impossible: read(&self.impossible),
            offenders_dropped: read(&self.offenders_dropped),
            offenders_refused: read(&self.offenders_refused),
            inbound_paused: read(&self.inbound_paused),
            connections_turned_away: read(&self.connections_turned_away),
            handshakes_turned_away: read(&self.handshakes_turned_away),
        }
    }
}
