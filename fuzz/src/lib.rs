//! Fuzz targets of Driftmesh: each takes any bytes, and checks what must hold whatever they are (R24, R25, R26).
//!
//! The targets know nothing of a fuzzer: the tests run them over the committed corpus, and `fuzz/run` builds each into a
//! program of libFuzzer. It refuses to have decoders of its own: what is run is what a peer runs.

mod check;
mod choices;
// What the tests of the codec imagine messages by, as it is.
#[path = "../../peer/tests/codec/imagine.rs"]
mod imagine;
pub mod seeds;
pub mod targets;

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of its file here, of its program, and of its corpus.
    pub name: &'static str,
    /// Runs it over an input; panics where something does not hold that must.
    pub run: fn(&[u8]),
    /// The inputs that its corpus begins with, made of real values.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "control", run: targets::control::run, seeds: seeds::control },
    Target { name: "entry", run: targets::entry::run, seeds: seeds::entry },
    #[cfg(feature = "network")]
    Target { name: "export", run: targets::export::run, seeds: seeds::network::export },
    #[cfg(feature = "network")]
    Target { name: "framing", run: targets::framing::run, seeds: seeds::network::framing },
    Target { name: "group", run: targets::group::run, seeds: seeds::choices },
    #[cfg(feature = "network")]
    Target { name: "handshake", run: targets::handshake::run, seeds: seeds::network::handshake },
    #[cfg(feature = "histories")]
    Target { name: "histories", run: targets::histories::run, seeds: seeds::histories },
    Target { name: "journal", run: targets::journal::run, seeds: seeds::choices },
    Target { name: "message", run: targets::message::run, seeds: seeds::message },
    Target { name: "objects", run: targets::objects::run, seeds: seeds::objects },
    Target { name: "slices", run: targets::slices::run, seeds: seeds::choices },
    #[cfg(feature = "network")]
    Target { name: "testnet", run: targets::testnet::run, seeds: seeds::network::testnet },
    #[cfg(feature = "network")]
    Target { name: "texts", run: targets::texts::run, seeds: seeds::network::texts },
    #[cfg(feature = "network")]
    Target { name: "words", run: targets::words::run, seeds: seeds::network::words },
];
