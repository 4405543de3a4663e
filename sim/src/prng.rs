//! Chance that a seed fixes: SplitMix64. Our own, because a seed must mean the same run for ever,
//! and library generators change between versions.

use std::time::Duration;

/// A stream of pseudo-random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for `part`, the same whatever else has been drawn from this one's copies:
    /// a component that draws more does not change what the others draw.
    pub(crate) fn fork(&self, part: &str) -> Self {
        let mut child = Self(mix(self.0 ^ digest(part.as_bytes())));
        child.next();
        child
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From 0 up to but without `bound`; 0 if there is nothing below it.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        match bound {
            0 => 0,
            bound => self.next() % bound,
        }
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// A place in something of this length.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        let len = u64::try_from(len).expect("lengths fit 64 bits");
        usize::try_from(self.below(len)).expect("it is below a length")
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of them; there must be one.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// Evenly between both.
    pub(crate) fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_micros(self.between(micros(low), micros(high.max(low))))
    }

    /// Between both, each doubling as likely as every other: many short ones, a few very long ones.
    pub(crate) fn skewed(&mut self, low: Duration, high: Duration) -> Duration {
        let doublings = (micros(high) / micros(low).max(1)).max(1).ilog2();
        let span = low * 2_u32.pow(u32::try_from(self.between(0, doublings.into())).unwrap_or(0));
        self.duration(span, span * 2).min(high)
    }
}

/// Whole microseconds, the unit of virtual time.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("simulated durations are far below 2^64 us")
}

/// Mixes all bits into all bits.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_splitmix64() {
        // The reference values of the published algorithm for this seed.
        let mut rng = Rng::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([rng.next(), rng.next()], expected);
    }

    #[test]
    fn forks_are_apart_and_do_not_depend_on_each_other() {
        let rng = Rng::new(7);
        let draw = |part: &str| rng.fork(part).next();
        assert_eq!(draw("net"), draw("net"));
        assert_ne!(draw("net"), draw("disk"));
    }

    #[test]
    fn draws_stay_within_their_bounds_and_reach_both_ends() {
        let mut rng = Rng::new(3);
        let drawn: Vec<u64> = (0..1_000).map(|_| rng.between(2, 5)).collect();
        assert_eq!(drawn.iter().min(), Some(&2));
        assert_eq!(drawn.iter().max(), Some(&5));
        let (low, high) = (Duration::from_millis(1), Duration::from_secs(60));
        for _ in 0..1_000 {
            let drawn = rng.skewed(low, high);
            assert!((low..=high).contains(&drawn), "{drawn:?}");
        }
    }
}
