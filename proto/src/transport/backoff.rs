//! How long to wait before trying again: exponential, with full jitter, and a cap.
//!
//! Full jitter (a delay anywhere between zero and the step) spreads ten thousand slaves that lost
//! their master at the same instant evenly, where a fixed step would bring them back as one wave.
//!
//! Absent: clocks and random numbers; the caller brings the random number and does the waiting.

use std::time::Duration;

/// The first step: 100 ms, a blink for a person and enough for a restarted process to bind its port.
pub const BACKOFF_BASE: Duration = Duration::from_millis(100);

/// The largest step: 15 s, so a healed network is noticed well within a failover timeout.
pub const BACKOFF_CAP: Duration = Duration::from_secs(15);

/// A sequence of delays. The n-th is uniform in `[0, min(cap, base · 2ⁿ)]`.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(BACKOFF_BASE, BACKOFF_CAP)
    }
}

impl Backoff {
    /// Delays that start below `base` and stay below `cap`.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            attempts: 0,
        }
    }

    /// The next delay, given a uniformly random number.
    pub fn next_delay(&mut self, random: u64) -> Duration {
        // Beyond 2³¹ the cap rules for any base worth having.
        let step = self
            .base
            .saturating_mul(1 << self.attempts.min(31))
            .min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        let nanos = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random % nanos.saturating_add(1).max(1))
    }

    /// Delays stay below `cap` from now on.
    pub const fn limit(&mut self, cap: Duration) {
        self.cap = cap;
    }

    /// Starts over, once a connection has proved to be worth something.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Delays given since the last reset.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_doubles_to_the_cap_and_starts_over_after_a_reset() {
        let mut backoff = Backoff::default();
        // The remainder is largest when the random number is the step itself.
        for millis in [
            100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 15_000, 15_000,
        ] {
            let step = Duration::from_millis(millis);
            let random = u64::try_from(step.as_nanos()).unwrap();
            assert_eq!(backoff.next_delay(random), step);
        }
        backoff.reset();
        assert!(backoff.next_delay(u64::MAX) <= BACKOFF_BASE);
    }

    #[test]
    fn any_random_number_stays_within_the_step() {
        let mut backoff = Backoff::default();
        for round in 0..1_000_u64 {
            let delay = backoff.next_delay(round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            assert!(delay <= BACKOFF_CAP);
        }
        assert_eq!(backoff.attempts(), 1_000);
        assert_eq!(
            Backoff::new(Duration::ZERO, Duration::ZERO).next_delay(7),
            Duration::ZERO
        );
        assert!(Backoff::new(Duration::MAX, Duration::MAX).next_delay(u64::MAX) < Duration::MAX);
    }
}
