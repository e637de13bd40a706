//! CPU time, so that other work on the machine does not count.

use std::time::Duration;

/// CPU time that all threads of this process have used.
#[cfg(unix)]
pub(crate) fn of_process() -> Duration {
    read(rustix::time::ClockId::ProcessCPUTime)
}

/// CPU time that this thread has used.
#[cfg(unix)]
pub(crate) fn of_thread() -> Duration {
    read(rustix::time::ClockId::ThreadCPUTime)
}

#[cfg(unix)]
fn read(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    // CPU times are never negative.
    Duration::try_from(time).unwrap_or_default()
}

/// The time that has passed, where CPU time cannot be read.
#[cfg(not(unix))]
pub(crate) fn of_process() -> Duration {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed()
}

/// The time that has passed, where CPU time cannot be read.
#[cfg(not(unix))]
pub(crate) fn of_thread() -> Duration {
    of_process()
}
