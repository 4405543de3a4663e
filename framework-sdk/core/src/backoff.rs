//! Truncated exponential backoff with jitter that a seed fixes, so that a run can be replayed.

use std::time::Duration;

/// Pseudo-random numbers: SplitMix64. Our own, because its sequence may never change.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Delays that double from `base` to `cap`; each is drawn from the upper half of its span, so
/// that many peers which lost the same master do not come back at once.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
    jitter: SplitMix64,
}

impl Backoff {
    pub(crate) fn new(base: Duration, cap: Duration, seed: u64) -> Self {
        Self {
            base,
            cap,
            attempts: 0,
            jitter: SplitMix64::new(seed),
        }
    }

    /// How often [`Backoff::next_delay`] was called since the last reset.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    pub(crate) fn next_delay(&mut self) -> Duration {
        let span = self
            .base
            .saturating_mul(1 << self.attempts.min(16))
            .min(self.cap);
        self.attempts = self.attempts.saturating_add(1);
        let half = u64::try_from(span.as_micros() / 2).expect("the cap is far below 2^64 us");
        span / 2 + Duration::from_micros(self.jitter.next() % (half + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_and_jitter_stays_in_the_upper_half() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(15));
        let mut backoff = Backoff::new(base, cap, 7);
        for attempt in 0..40_u32 {
            let span = base.saturating_mul(1 << attempt.min(16)).min(cap);
            let delay = backoff.next_delay();
            assert!(
                delay >= span / 2 && delay <= span,
                "{attempt}: {delay:?} of {span:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= base);
    }

    #[test]
    fn the_seed_fixes_the_delays() {
        let delays = |seed| {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), seed);
            (0..10).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
    }
}
