//! The hash over everything that happened, bytes included: equal hashes mean equal runs.

/// What happened is hashed in pieces of so many bytes: small ones take several times as long.
const PIECE: usize = 64 << 10;

/// Collects a run's inputs and commands, if anybody wants to know.
pub(crate) struct Trace {
    hasher: Option<blake3::Hasher>,
    piece: Vec<u8>,
}

impl Trace {
    pub(crate) fn new(seed: u64, wanted: bool) -> Self {
        let hasher = wanted.then(|| blake3::Hasher::new_derive_key("driftmesh simulator trace v1"));
        Self { hasher, piece: seed.to_be_bytes().to_vec() }
    }

    /// Whether anything is collected: else its bytes need not be made.
    pub(crate) const fn is_wanted(&self) -> bool {
        self.hasher.is_some()
    }

    /// Notes that something happened at a time and a peer.
    pub(crate) fn note(&mut self, time_us: u64, peer: usize, what: &str, bytes: &[u8]) {
        let Some(hasher) = &mut self.hasher else { return };
        let piece = &mut self.piece;
        piece.extend_from_slice(&time_us.to_be_bytes());
        piece.extend_from_slice(&(peer as u64).to_be_bytes());
        piece.extend_from_slice(what.as_bytes());
        piece.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        piece.extend_from_slice(bytes);
        if piece.len() >= PIECE {
            hasher.update(piece);
            piece.clear();
        }
    }

    /// The hash so far.
    pub(crate) fn finish(&self) -> Option<String> {
        let mut hasher = self.hasher.clone()?;
        hasher.update(&self.piece);
        Some(hasher.finalize().to_hex().to_string())
    }
}
