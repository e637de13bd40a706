//! All tests of several peers with a clock and messages in the hands of the test, in one program: what they share is compiled
//! and linked once.

mod adding;
mod backpressure;
mod caretaking;
mod clock_guard;
mod copies;
mod deposed;
mod failover;
mod fates;
mod fetch_age;
mod handover_crashes;
mod harness;
mod hostile;
mod hostile_groups;
mod leaving;
mod leaving_groups;
mod lookup;
mod members;
mod names;
mod old_copies;
mod operators;
mod ownership;
mod placing;
mod promote;
mod replication;
mod retry;
mod schedules;
mod snapshots;
mod stability;
mod stalls;
mod tasks;
mod transfer;
mod two_peers;
mod watching;
mod windows;
mod wound_wait;
