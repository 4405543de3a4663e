//! How frameworks treat their offers: how long they keep them, and whether they use them. Who hoards
//! gets fewer at a time, as long as others want some.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// With fewer answered offers than this nothing is said of a framework.
const ENDED_MIN: u64 = 8;
/// Nobody gets fewer unanswered offers at a time than one for so many slaves.
const OUTSTANDING_PART: usize = 10;

/// What has been measured of a framework since it is known to this leader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// How long it kept offers: a mean in which the latest counts for an eighth.
    pub mean: Duration,
    /// Offers that have ended, in whatever way.
    pub ended: u64,
    /// Those of them that it did not accept: declined, timed out, or taken back.
    pub unused: u64,
}

impl Holding {
    /// An offer has ended after this long.
    pub fn ended(&mut self, held: Duration, was_accepted: bool) {
        self.mean = match self.ended {
            0 => held,
            _ => (self.mean * 7 + held) / 8,
        };
        self.ended += 1;
        self.unused += u64::from(!was_accepted);
    }

    /// Whether it keeps offers longer than this on average and does not use most of them. Never
    /// with a bound of zero.
    #[must_use]
    pub fn is_hoarding(&self, hoarding_after: Duration) -> bool {
        let is_slow = !hoarding_after.is_zero() && self.mean > hoarding_after;
        is_slow && self.ended >= ENDED_MIN && self.uses_few()
    }

    /// Whether it does not use most of its offers.
    #[must_use]
    pub fn uses_few(&self) -> bool {
        self.unused * 2 > self.ended
    }

    /// The most offers that it may have unanswered while others want some; not below `least`.
    pub(crate) fn outstanding_max(
        &self,
        hoarding_after: Duration,
        least: u32,
        slaves: usize,
    ) -> u32 {
        if !self.is_hoarding(hoarding_after) {
            return u32::MAX;
        }
        let part = u32::try_from(slaves / OUTSTANDING_PART).unwrap_or(u32::MAX);
        part.max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn who_keeps_offers_long_and_unused_is_a_hoarder_until_it_answers_again() {
        let mut holding = Holding::default();
        for _ in 0..7 {
            holding.ended(5 * MINUTE, false);
        }
        assert_eq!(
            holding.outstanding_max(MINUTE, 16, 1_000),
            u32::MAX,
            "too early"
        );
        holding.ended(5 * MINUTE, false);
        assert_eq!(holding.outstanding_max(MINUTE, 16, 1_000), 100);
        assert_eq!(holding.outstanding_max(MINUTE, 16, 5), 16);
        assert_eq!(holding.outstanding_max(MINUTE, 1, 5), 1);
        assert_eq!(
            holding.outstanding_max(Duration::ZERO, 16, 5),
            u32::MAX,
            "switched off"
        );
        for _ in 0..13 {
            holding.ended(Duration::ZERO, false);
        }
        assert_eq!(holding.outstanding_max(MINUTE, 16, 1_000), u32::MAX);
    }

    #[test]
    fn who_uses_what_it_keeps_is_no_hoarder() {
        let mut holding = Holding::default();
        for number in 0..100 {
            holding.ended(5 * MINUTE, number % 2 == 0);
        }
        assert!(!holding.is_hoarding(MINUTE));
    }
}
