//! Placeholder head.

pub mod transport;
