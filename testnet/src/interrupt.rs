//! Ctrl-C and SIGTERM: the orchestrator hears them, ends its children, and says so with its exit code.

use anyhow::{Context, Result};

/// Which signal came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interrupt {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Interrupt {
    /// The exit code by which a shell knows the signal.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Begins to listen for the signals; the future is ready when one came.
#[cfg(unix)]
pub(crate) fn interrupt() -> Result<impl Future<Output = Interrupt>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => Interrupt::Interrupt,
            _ = terminate.recv() => Interrupt::Terminate,
        }
    })
}

/// Begins to listen for Ctrl-C; the future is ready when it came.
#[cfg(windows)]
pub(crate) fn interrupt() -> Result<impl Future<Output = Interrupt>> {
    let mut interrupt = tokio::signal::windows::ctrl_c().context("cannot listen for Ctrl-C")?;
    Ok(async move {
        let _ = interrupt.recv().await;
        Interrupt::Interrupt
    })
}
