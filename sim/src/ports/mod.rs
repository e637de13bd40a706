//! What the core may rely on at its ports to the world, as suites that the simulated and the real version of each pass:
//! what the simulator supposes of the network and of clocks, the live ones do.
//!
//! The suite of the third port, consensus, is `object-store/tests/conformance`. A port may promise more than the core needs
//! (the live network keeps payloads in order), or break what it needs not (the simulated one does not): it says which, and
//! the suite holds it to its word. It refuses to know any port from inside.

mod clock;
mod network;
#[cfg(test)]
mod simulated;

pub use clock::{ClockPort, clock_conforms};
pub use network::{NetworkPort, NotSent, Promises, Told, network_conforms};
