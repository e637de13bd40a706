//! Memory of this program in small pages alone (decision 0038).
//!
//! It refuses to do so for whoever embeds a peer: how a game's memory is cut is the game's to choose.

/// A first touch of a huge page clears 2 MiB while somebody waits, and what lies scattered keeps all of them.
pub(super) fn refuse() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        // A sandbox may forbid the call. The program is a little slower then, and larger.
        tracing::debug!(%error, "huge pages cannot be refused");
    }
}
