//! Entries on their way to followers: encoded once, however many followers there are.

use super::LogEntry;
use driftmesh_model::{Term, codec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

/// Most entries in one batch that comes from outside (R25).
pub(super) const BATCH_ENTRIES_MAX: usize = 65_536;

/// What an entry takes on the wire beside what it weighs, about, bytes.
const ENTRY_OVERHEAD: usize = 64;

/// Entries that follow each other in a journal. Cheap to clone.
#[derive(Debug)]
pub struct Batch<E> {
    inner: Arc<Inner<E>>,
}

#[derive(Debug)]
struct Inner<E> {
    entries: Vec<(Term, Arc<E>)>,
    /// Filled when the first follower's message is encoded, which happens outside of the core.
    encoded: OnceLock<Box<[u8]>>,
}

impl<E> Clone for Batch<E> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<E: PartialEq> PartialEq for Batch<E> {
    fn eq(&self, other: &Self) -> bool {
        self.inner.entries == other.inner.entries
    }
}

impl<E: Eq> Eq for Batch<E> {}

impl<E> Batch<E> {
    pub(super) fn new(entries: Vec<(Term, Arc<E>)>) -> Self {
        Self { inner: Arc::new(Inner { entries, encoded: OnceLock::new() }) }
    }

    /// The entries, each with its term.
    #[must_use]
    pub fn entries(&self) -> &[(Term, Arc<E>)] {
        &self.inner.entries
    }
}

impl<E: LogEntry> Batch<E> {
    /// About how many bytes it takes when encoded.
    #[must_use]
    pub fn about_bytes(&self) -> usize {
        self.inner.entries.iter().map(|(_, entry)| ENTRY_OVERHEAD + entry.cost()).sum()
    }
}

impl<E: Serialize + LogEntry> Serialize for Batch<E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(encoded) = self.inner.encoded.get() {
            return serializer.serialize_bytes(encoded);
        }
        let entries: Vec<(Term, &E)> = self.inner.entries.iter().map(|(term, entry)| (*term, &**entry)).collect();
        let mut encoded = Vec::with_capacity(self.about_bytes());
        codec::encode_into(&mut encoded, &entries).map_err(serde::ser::Error::custom)?;
        serializer.serialize_bytes(self.inner.encoded.get_or_init(|| encoded.into_boxed_slice()))
    }
}

/// Decodes entries from where they lie in the message, without a copy of their bytes.
struct BatchVisitor<E>(PhantomData<E>);

impl<E: DeserializeOwned> de::Visitor<'_> for BatchVisitor<E> {
    type Value = Batch<E>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("encoded entries as a byte string")
    }

    fn visit_bytes<X: de::Error>(self, bytes: &[u8]) -> Result<Batch<E>, X> {
        let entries: Vec<(Term, E)> = codec::decode(bytes).map_err(X::custom)?;
        if entries.len() > BATCH_ENTRIES_MAX {
            return Err(X::custom("too many entries in one batch"));
        }
        Ok(Batch::new(entries.into_iter().map(|(term, entry)| (term, Arc::new(entry))).collect()))
    }
}

impl<'de, E: DeserializeOwned> Deserialize<'de> for Batch<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BatchVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;

    #[test]
    fn a_batch_of_more_entries_than_a_leader_sends_is_not_decoded() {
        // R24: an entry takes far more room in memory than the byte that may stand for it on the wire.
        let decode = |count: usize| {
            let entry = Arc::new(Entry::Retired);
            let batch = Batch::new(vec![(Term::from_u64(1), entry); count]);
            codec::decode::<Batch<Entry>>(&codec::encode(&batch).expect("encodes"))
        };
        assert_eq!(decode(BATCH_ENTRIES_MAX).expect("as many as there may be").entries().len(), BATCH_ENTRIES_MAX);
        assert!(decode(BATCH_ENTRIES_MAX + 1).is_err());
    }
}
