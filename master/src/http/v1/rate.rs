//! How often a framework may call (semantics Q8).

use std::time::Instant;

use parking_lot::Mutex;

/// Calls a second, on and on. Honest frameworks make two for each task, and one of them alone would
/// take all of the master's time with more.
const PER_SECOND: f64 = 5_000.0;
/// Calls at once: the acknowledgements after a failover.
const BURST: f64 = 20_000.0;

/// One framework's calls: a bucket that fills again.
#[derive(Debug)]
pub(super) struct Rate(Mutex<(f64, Instant)>);

impl Default for Rate {
    fn default() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }
}

impl Rate {
    /// Whether one more may be made now.
    pub(super) fn take(&self, now: Instant) -> bool {
        let mut bucket = self.0.lock();
        let (left, since) = *bucket;
        let more = now.saturating_duration_since(since).as_secs_f64() * PER_SECOND;
        let left = (left + more).min(BURST);
        let may = left >= 1.0;
        *bucket = (if may { left - 1.0 } else { left }, now.max(since));
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_so_many_a_second() {
        let rate = Rate::default();
        let begin = Instant::now() + Duration::from_secs(1);
        let made = |at: Instant| {
            std::iter::repeat_with(|| rate.take(at))
                .take_while(|it| *it)
                .count()
        };
        assert_eq!(made(begin), 20_000);
        assert!(!rate.take(begin));
        assert_eq!(made(begin + Duration::from_millis(100)), 500);
        assert_eq!(
            made(begin),
            0,
            "a clock that was read earlier gives nothing"
        );
        assert_eq!(made(begin + Duration::from_secs(3_600)), 20_000);
    }
}
