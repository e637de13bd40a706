//! Tests of the simulator with every rule in force, in one program; `sabotage.rs` is another build.

mod determinism;
mod dump;
mod founding;
mod gold;
mod kept_seeds;
mod seeds;
mod stage;
