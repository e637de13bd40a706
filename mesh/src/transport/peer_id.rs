//! The two forms of a peer's identity: ours is the ed25519 key, libp2p's is a multihash that holds the same key.
//!
//! It refuses identities that are not made of an ed25519 key.

use driftmesh_model::PeerId;
use libp2p::identity::{PublicKey, ed25519};

/// Our form of a libp2p identity; `None` when it holds no ed25519 key.
#[must_use]
pub fn from_libp2p(peer: &libp2p::PeerId) -> Option<PeerId> {
    let bytes = peer.to_bytes();
    let key = bytes.last_chunk::<32>()?;
    let peer = PeerId::from_bytes(*key);
    (peer.kademlia_bytes().as_slice() == bytes).then_some(peer)
}

/// The libp2p form of our identity; `None` when the bytes are no ed25519 key.
#[must_use]
pub fn to_libp2p(peer: &PeerId) -> Option<libp2p::PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(peer.as_bytes()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;

    #[test]
    fn both_forms_hold_the_same_key() {
        let public = Keypair::generate_ed25519().public();
        let libp2p_peer = public.to_peer_id();
        let peer = from_libp2p(&libp2p_peer).unwrap();
        assert_eq!(*peer.as_bytes(), public.try_into_ed25519().unwrap().to_bytes());
        assert_eq!(to_libp2p(&peer), Some(libp2p_peer));
    }

    #[test]
    fn an_identity_without_a_key_is_refused() {
        assert_eq!(from_libp2p(&libp2p::PeerId::random()), None);
    }
}
