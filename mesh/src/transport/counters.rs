//! Counts of what went over all connections since the start.
//!
//! It refuses to be exact between two counters: each is read by itself.

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
        }
    }
}
