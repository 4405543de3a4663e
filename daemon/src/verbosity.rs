//! How much is logged: another level for a while, as operators ask for it (semantics O1, SET_LOGGING_LEVEL).
//!
//! Logging belongs to the process, and so does its level. Who sets logging up [installs](install) what changes
//! it, and says what is logged at which level; without that there is nothing to change.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tracing::info;

/// What the process logs by.
static INSTALLED: OnceLock<Verbosity> = OnceLock::new();

/// Why the level stays what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerbosityError {
    /// Nothing was installed.
    #[error("this process does not log by levels that can be changed")]
    Unsupported,
    /// Logging refuses.
    #[error("the level of logging cannot be changed: {why}")]
    Refused {
        /// Why.
        why: String,
    },
}

/// Changes what is logged.
type Apply = dyn Fn(u32) -> Result<(), String> + Send + Sync;

/// From now on the level of this process can be changed by `apply`, which is given the level: 0 is what the
/// process was started with, and each number above says more. The first call counts.
pub fn install(apply: impl Fn(u32) -> Result<(), String> + Send + Sync + 'static) {
    // A second one is of a test in the same process.
    let _ = INSTALLED.set(Verbosity::new(apply));
}

/// The level now; 0 is what the process was started with.
#[must_use]
pub fn level() -> u32 {
    INSTALLED.get().map_or(0, Verbosity::level)
}

/// Logs at a level for so long, and then as when the process was started; level 0 is that at once. Must be
/// called in a tokio runtime.
///
/// # Errors
/// [`VerbosityError`]; nothing is changed then.
pub fn set(level: u32, time: Duration) -> Result<(), VerbosityError> {
    let installed = INSTALLED.get().ok_or(VerbosityError::Unsupported)?;
    installed.set(level, time)
}

/// The level of one subscriber of logs. Cheap to clone.
#[derive(Clone)]
struct Verbosity(Arc<Shared>);

struct Shared {
    apply: Box<Apply>,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    level: u32,
    /// Counts changes: what was to undo an earlier one must not undo a later one.
    change: u64,
    /// What undoes the last one; at most one waits.
    undo: Option<AbortHandle>,
}

impl Verbosity {
    fn new(apply: impl Fn(u32) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            apply: Box::new(apply),
            now: Mutex::default(),
        }))
    }

    fn level(&self) -> u32 {
        self.0.now.lock().level
    }

    fn set(&self, level: u32, time: Duration) -> Result<(), VerbosityError> {
        let mut now = self.0.now.lock();
        let refused = |why| VerbosityError::Refused { why };
        (self.0.apply)(level).map_err(refused)?;
        now.level = level;
        now.change += 1;
        if let Some(undo) = now.undo.take() {
            undo.abort();
        }
        if level != 0 {
            let (same, change) = (self.clone(), now.change);
            let undo = tokio::spawn(async move {
                tokio::time::sleep(time).await;
                same.undo(change);
            });
            now.undo = Some(undo.abort_handle());
        }
        drop(now);
        info!(level, ?time, "an operator changes how much is logged");
        Ok(())
    }

    fn undo(&self, change: u64) {
        let mut now = self.0.now.lock();
        if now.change == change && (self.0.apply)(0).is_ok() {
            now.level = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_level_holds_for_its_time_and_a_later_one_is_not_undone_by_an_earlier_end() {
        let (applied, mut heard) = mpsc::channel(8);
        let verbosity =
            Verbosity::new(move |level| applied.try_send(level).map_err(|error| error.to_string()));
        let short = Duration::from_millis(20);
        verbosity.set(2, Duration::from_secs(3_600)).unwrap();
        verbosity.set(1, short).unwrap();
        assert_eq!(verbosity.level(), 1);
        for expected in [2, 1, 0] {
            let level = timeout(PATIENCE, heard.recv()).await;
            assert_eq!(level.expect("in time"), Some(expected));
        }
        while verbosity.level() != 0 {
            tokio::task::yield_now().await;
        }
        // 0 is at once, and leaves nothing to undo.
        verbosity.set(3, short).unwrap();
        verbosity.set(0, PATIENCE).unwrap();
        assert!(verbosity.0.now.lock().undo.is_none());
        drop(heard);
        let refused = verbosity.set(1, short);
        assert!(matches!(refused, Err(VerbosityError::Refused { .. })));
        assert_eq!(verbosity.level(), 0);
    }
}
