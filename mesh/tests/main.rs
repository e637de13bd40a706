//! Tests of real peers of one process that speak over the loopback, in one program: what they share is linked once.

mod common;
mod compile;
mod conflicts;
mod copies;
mod embedding;
mod export;
mod founding;
#[cfg(feature = "testing")]
mod hold;
mod membership;
mod names;
mod objects;
mod outbox;
mod replicas;
mod room;
mod schedules;
mod tasks;
