//! Time as the cores see it: a number that the shell hands in.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch.
///
/// Within one process it never goes back: a shell reads the wall clock once at start and adds the
/// monotonic time that has passed since, so that a step of the clock neither fires nor starves a
/// deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The moment `after` this one; stays at the end of time instead of wrapping.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Seconds since the Unix epoch, for JSON and people.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "exact for the next 200 years")]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_saturate_instead_of_wrapping() {
        let late = Timestamp(u64::MAX - 1);
        assert_eq!(late.after(Duration::MAX), Timestamp(u64::MAX));
        assert_eq!(Timestamp(5).since(late), Duration::ZERO);
        assert_eq!(Timestamp(5).after(Duration::from_micros(7)), Timestamp(12));
    }
}
