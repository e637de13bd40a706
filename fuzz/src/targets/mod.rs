//! The targets: a file each, with one function that takes any bytes.

pub mod control;
pub mod entry;
#[cfg(feature = "network")]
pub mod export;
#[cfg(feature = "network")]
pub mod framing;
pub mod group;
#[cfg(feature = "network")]
pub mod handshake;
#[cfg(feature = "histories")]
pub mod histories;
pub mod journal;
pub mod message;
pub mod objects;
pub mod slices;
#[cfg(feature = "network")]
pub mod testnet;
#[cfg(feature = "network")]
pub mod texts;
#[cfg(feature = "network")]
pub mod words;

mod life;
#[cfg(feature = "network")]
mod pipe;
