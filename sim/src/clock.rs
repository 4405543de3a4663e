//! The clock of one process: ahead or behind the true time, and a little fast or slow. Within one
//! life of a process it never goes back (`Timestamp`); between two lives it may.

use std::time::Duration;

use meros_proto::time::Timestamp;

use crate::prng::{Rng, micros};

/// The true time when a run begins: late enough that a clock behind it is not before all time.
pub(crate) const START: Timestamp = Timestamp(1_700_000_000_000_000);

const PARTS: u128 = 1_000_000;

/// How a process tells the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// What it shows at the true time [`START`], in microseconds.
    base: u64,
    /// How many of its microseconds pass in a true second.
    rate: u128,
}

impl Clock {
    /// A clock that may be an hour off and drift by 500 parts in a million.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let hour = 3_600_000_000;
        let base = match rng.percent(50) {
            true => START.0,
            false => START.0 - hour + rng.below(2 * hour),
        };
        let drift = if rng.percent(50) {
            500
        } else {
            rng.below(1_001)
        };
        Self {
            base,
            rate: PARTS - 500 + u128::from(drift),
        }
    }

    /// It jumps ahead. Within one life of a process no clock of ours goes back.
    pub(crate) fn step(&mut self, by: Duration) {
        self.base += micros(by);
    }

    /// What it shows at a true time.
    pub(crate) fn local(&self, at: Timestamp) -> Timestamp {
        let passed = u128::from(at.0 - START.0) * self.rate / PARTS;
        Timestamp(self.base + u64::try_from(passed).expect("runs are short"))
    }

    /// The first true time at which it shows `local` or later; never before `now`.
    pub(crate) fn when(&self, local: Timestamp, now: Timestamp) -> Timestamp {
        let passed = u128::from(local.0.saturating_sub(self.base)) * PARTS;
        let at = u64::try_from(passed.div_ceil(self.rate)).unwrap_or(u64::MAX);
        Timestamp(START.0.saturating_add(at)).max(now)
    }
}

/// How long after the beginning of the run, for people.
pub(crate) fn elapsed(at: Timestamp) -> Duration {
    at.since(START)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_passed_on_the_clock_that_set_it_when_it_is_due() {
        let mut rng = Rng::new(1);
        for _ in 0..1_000 {
            let clock = Clock::draw(&mut rng);
            let now = START.after(Duration::from_micros(rng.below(10_000_000_000)));
            let deadline = clock
                .local(now)
                .after(Duration::from_micros(rng.below(1_000_000)));
            let due = clock.when(deadline, now);
            assert!(due >= now && clock.local(due) >= deadline, "{clock:?}");
        }
    }
}
