//! Placeholder head.

pub mod checker;
