//! How far it is with what is brought for a task, told now and then to those who wait.

use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use super::http::Meter;

/// What takes no longer, as out of the cache, is not told: the task's framework would have to acknowledge
/// that before it hears that the task runs.
const TELL_AFTER: Duration = Duration::from_millis(100);
/// Between two words of progress.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// What is being done for a task, for those who wait.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    doing: Mutex<String>,
    pub(crate) meter: Meter,
}

impl Progress {
    /// From now on this is done.
    pub(crate) fn says(&self, doing: impl Into<String>) {
        *self.doing.lock() = doing.into();
    }

    /// Does some work, and says now and then how far it is.
    pub(crate) async fn told<T>(
        &self,
        work: impl Future<Output = T>,
        tell: &(dyn Fn(String) + Send + Sync),
    ) -> T {
        let mut work = std::pin::pin!(work);
        let first = Instant::now() + TELL_AFTER;
        let mut beat = tokio::time::interval_at(first, TELL_INTERVAL);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                _ = beat.tick() => tell(self.text()),
            }
        }
    }

    fn text(&self) -> String {
        let doing = self.doing.lock().clone();
        let bytes = self.meter.bytes.load(Ordering::Relaxed);
        match self.meter.expected.load(Ordering::Relaxed) {
            _ if bytes == 0 => doing,
            0 => format!("{doing}: {bytes} bytes"),
            expected => format!("{doing}: {bytes} of {expected} bytes"),
        }
    }
}
