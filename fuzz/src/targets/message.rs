//! Messages between peers: as they come from the transport, and what the input imagines, damaged.

use crate::check;
use crate::choices::Choices;
use driftmesh_peer::Envelope;

/// Runs the target.
pub fn run(data: &[u8]) {
    let raw = check::decoded::<Envelope>(data);
    let imagined = check::imagined::<Envelope>(&mut Choices::new(data));
    for envelope in [raw, imagined].into_iter().flatten() {
        // An estimate of somebody else's message must not overflow either.
        let _ = envelope.about_bytes();
    }
}
