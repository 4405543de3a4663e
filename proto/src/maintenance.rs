//! Maintenance: when slaves will not be available, told ahead (semantics C2, K11).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The longest window with an end: a year. A longer one is refused; it would better have none.
pub const MAINTENANCE_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// When a slave will not be available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unavailability {
    /// From then on.
    pub start: Timestamp,
    /// For so long, at most [`MAINTENANCE_MAX`]; none: for good.
    pub duration: Option<Duration>,
}

impl Unavailability {
    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.duration
            .is_some_and(|duration| self.start.after(duration) <= now)
    }
}
