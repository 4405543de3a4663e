//! The time of both daemons: the one place that turns clocks into timestamps.
//!
//! The wall clock is read once, at start; from then on only monotonic time is added, so that a step
//! of the machine's clock neither fires nor starves a deadline of the core.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use meros_proto::time::Timestamp;

/// Turns the machine's time into the core's and back. Cheap to copy; copies agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started_at: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that begins at the wall clock's time.
    #[must_use]
    pub fn start() -> Self {
        // Before 1970 the clock was never set; zero is as wrong as any other answer.
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self::starting_at(Timestamp(0).after(wall))
    }

    /// A clock that begins at a given time, never earlier than what was stored already.
    #[must_use]
    pub fn starting_at(started_at: Timestamp) -> Self {
        Self {
            started_at,
            started: Instant::now(),
        }
    }

    /// Now. Never goes back.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.started_at.after(self.started.elapsed())
    }

    /// How long until `at`; zero if it has passed.
    #[must_use]
    pub fn until(&self, at: Timestamp) -> Duration {
        at.since(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_begins_where_it_was_set_and_only_grows() {
        let clock = Clock::starting_at(Timestamp(1_000_000));
        let first = clock.now();
        let second = clock.now();
        assert!(Timestamp(1_000_000) <= first && first <= second);
        assert_eq!(clock.until(Timestamp(5)), Duration::ZERO);
        assert!(clock.until(first.after(Duration::from_secs(60))) > Duration::from_secs(50));
    }
}
