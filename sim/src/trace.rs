//! The hash over everything that happened, bytes included: equal hashes mean equal runs.

/// Collects a run's inputs and commands.
pub(crate) struct Trace {
    hasher: blake3::Hasher,
}

impl Trace {
    pub(crate) fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("driftmesh simulator trace v1");
        hasher.update(&seed.to_be_bytes());
        Self { hasher }
    }

    /// Notes that something happened at a time and a peer.
    pub(crate) fn note(&mut self, time_us: u64, peer: usize, what: &str, bytes: &[u8]) {
        self.hasher.update(&time_us.to_be_bytes());
        self.hasher.update(&(peer as u64).to_be_bytes());
        self.hasher.update(what.as_bytes());
        self.hasher.update(&(bytes.len() as u64).to_be_bytes());
        self.hasher.update(bytes);
    }

    pub(crate) fn finish(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}
