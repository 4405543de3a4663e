//! Time that only this thread's own work takes, because machines are shared.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// The processor time of this thread so far.
#[derive(Debug)]
pub struct CpuTime(Timespec);

impl CpuTime {
    /// As it is now.
    #[must_use]
    pub fn now() -> Self {
        Self(clock_gettime(ClockId::ThreadCPUTime))
    }

    /// How much has passed since.
    ///
    /// # Panics
    /// It is asked on another thread.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        let nanos = |at: &Timespec| at.tv_sec * 1_000_000_000 + at.tv_nsec;
        let elapsed = u64::try_from(nanos(&now) - nanos(&self.0));
        Duration::from_nanos(elapsed.expect("time goes forward"))
    }
}
