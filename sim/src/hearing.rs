//! All that a peer learns from the world comes in here: whom it meets, what is said to it, who leaves, and that it is time.
//!
//! It refuses to decide when; what a live network may do as well is in `ports`.

use crate::world::Simulation;
use driftmesh_model::{Micros, PeerId};
use driftmesh_peer::session::Host;
use driftmesh_peer::{Envelope, Introduction};

/// What a peer learns.
#[cfg_attr(test, derive(Clone, Debug))]
pub(crate) enum Heard {
    /// A peer is connected.
    Met(PeerId, Introduction),
    Said(PeerId, Envelope),
    /// A peer is not connected any more, and whether it said goodbye.
    Left(PeerId, bool),
    /// The timer is due that was wanted for then.
    Due(Micros),
}

impl Simulation {
    /// Tells a peer something, and carries out what it wants done.
    pub(crate) fn hear(&mut self, at: usize, heard: Heard, what: &str) {
        #[cfg(test)]
        self.heard.push((self.now_us(), at, heard.clone()));
        self.peers[at].host.step(|peer, now| match heard {
            Heard::Met(other, introduction) => peer.joined(now, other, introduction),
            Heard::Said(from, envelope) => peer.received(now, from, envelope),
            Heard::Left(other, clean) => peer.left(now, other, clean),
            Heard::Due(wanted) => {
                debug_assert!(wanted <= now.mono, "no timer fires early");
                peer.timers_due(now);
            }
        });
        self.collect(at, what);
    }
}
