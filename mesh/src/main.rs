//! The `driftmesh` program: runs a peer, and asks a running one for its status.
//!
//! It refuses to know anything that the library does not offer to everybody.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
