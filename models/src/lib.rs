//! Exhaustive models of Driftmesh's protocols, for tests alone: three small state machines of which a checker visits every
//! state that can be reached, in every order of messages, losses and failovers.
//!
//! The simulator runs the real code on many random paths; a model runs a sketch of it on all paths there are, with few
//! members, objects and faults. Each model says in its first lines what it leaves out. Each has variants in which one rule
//! is broken, and the checker must find the counterexample: a model that cannot fail proves nothing.
//!
//! It refuses to be used: it has no code outside of tests, and nothing depends on it.

#[cfg(test)]
mod change_of_leader;
#[cfg(test)]
mod checking;
#[cfg(test)]
mod ownership_transfer;
#[cfg(test)]
mod wound_wait;
