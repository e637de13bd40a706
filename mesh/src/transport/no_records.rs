//! A record store for Kademlia that holds nothing: Kademlia routes here, and location records have a protocol of
//! their own with epochs (R2), which libp2p's would let any put overwrite.
//!
//! It refuses every record and every provider, and counts them (R25); the sender's substream is reset.

use std::borrow::Cow;
use std::iter::{Empty, empty};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};

/// Counts what it refuses.
#[derive(Debug, Default)]
pub(super) struct NoRecords {
    pub(super) refused: Arc<AtomicU64>,
}

impl RecordStore for NoRecords {
    type RecordsIter<'a> = Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        empty()
    }

    fn add_provider(&mut self, _: ProviderRecord) -> Result<()> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Error::MaxProvidedKeys)
    }

    fn providers(&self, _: &RecordKey) -> Vec<ProviderRecord> {
        Vec::new()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        empty()
    }

    fn remove_provider(&mut self, _: &RecordKey, _: &PeerId) {}
}
