//! The targets: a file each, with one function that takes any bytes.

pub mod control;
pub mod entry;
pub mod export;
pub mod framing;
pub mod group;
pub mod handshake;
#[cfg(feature = "histories")]
pub mod histories;
pub mod journal;
pub mod message;
pub mod objects;
pub mod slices;
pub mod testnet;
pub mod texts;
pub mod words;

mod life;
mod pipe;
