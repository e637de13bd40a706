//! The `driftmesh` program: runs a peer, and asks a running one for its status.
//!
//! It refuses to know anything that the library does not offer to everybody.

mod cli;

/// Messages are decoded on one thread and freed on another, which the system's allocator is slow at (decision 0020).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
