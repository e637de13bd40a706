//! A peer for programs without a tokio runtime: it brings its own.
//!
//! It refuses to be waited for on a thread of a runtime: that would stop the peer itself.

use crate::{Builder, Mesh, StartError};

/// Threads of a peer's own runtime. The core is one mutex, so more would wait for each other.
const WORKERS: usize = 2;

/// A running peer with its own small runtime: two threads for the transport and for users' closures. Dropping it
/// stops the peer without a goodbye, and what is in flight is aborted; [`Mesh::leave`] before that hands its objects
/// over.
#[derive(Debug)]
pub struct BlockingMesh {
    mesh: Mesh,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Builder {
    /// As [`Builder::start`], for a program without a tokio runtime: blocks until the peer is a member.
    ///
    /// # Errors
    /// As [`Builder::start`], `InsideRuntime` when called on a thread of a tokio runtime, or `Runtime` when the
    /// operating system gives no threads.
    pub fn start_blocking(self) -> Result<BlockingMesh, StartError> {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(StartError::InsideRuntime);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("driftmesh")
            .enable_all()
            .build()
            .map_err(|error| StartError::Runtime { error: error.to_string() })?;
        let mesh = runtime.block_on(self.start())?;
        Ok(BlockingMesh { mesh, runtime: Some(runtime) })
    }
}

impl BlockingMesh {
    /// The handle of the peer. A clone of it is of no use once this is dropped.
    #[must_use]
    pub const fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Blocks until a future has ended: to set a world up before the game loop, and to leave after it.
    ///
    /// # Panics
    /// On a thread of a tokio runtime, which must not block.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        // It is there until the drop.
        let runtime = self.runtime.as_ref().expect("the runtime lives as long as this");
        runtime.block_on(future)
    }
}

impl Drop for BlockingMesh {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Allowed on every thread, unlike a drop of the runtime.
            runtime.shutdown_background();
        }
    }
}
