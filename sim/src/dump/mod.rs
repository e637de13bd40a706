//! Histories for outside judges: list-append transactions for Elle, and register transactions for dbcop.
//!
//! What is here is shared by the simulator and by the testnet of real processes: the objects, the transactions on them,
//! what clients asked and were answered, both file formats, and a check of such files. It refuses to open files and to
//! read clocks: times come in as arguments, texts go out.

mod appends;
mod calls;
mod check_appends;
mod check_registers;
mod edn;
mod edn_value;
mod fault;
mod list_history;
mod objects;
mod register_file;
mod registers;
#[cfg(test)]
mod tests;
mod utc;

pub use appends::{AppendOp, KEYS_TOGETHER, Mix, draw_appends, reads_of_all, run_appends};
pub use calls::{Call, CallId, Calls, Came, End};
pub use check_appends::{AppendSummary, check_edn};
pub use check_registers::{RegisterSummary, check_json};
pub use driftmesh_object_store::Fate;
pub use edn::write_edn;
pub use fault::{BadFile, Fault, Rejected};
pub use objects::{Register, Series};
pub use register_file::{About, write_json};
pub use registers::{RegisterOp, SeenVersion, draw_registers, reads_of_registers, run_registers};

/// Calls on lists, and what they were answered.
pub type AppendCalls = Calls<AppendOp, Vec<AppendOp>>;
/// Calls on registers, and what they were answered.
pub type RegisterCalls = Calls<RegisterOp, Vec<SeenVersion>>;

/// Committed transactions on lists that a history needs at least to prove something.
pub const APPENDS_MIN: usize = 300;
/// Most transactions of a history of registers: its judge takes exponential time.
pub const REGISTER_TXNS_MAX: usize = 150;

/// The two files of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dumped {
    /// The lists, in Elle's format.
    pub edn: String,
    /// The registers, in dbcop's format.
    pub json: String,
}
