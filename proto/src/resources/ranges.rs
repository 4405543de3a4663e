//! Sets of whole numbers as intervals, such as the free ports of a slave.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use smallvec::SmallVec;

use crate::bounded_list;

/// The numbers from `begin` to `end`, both included; `begin` is not after `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawInterval")]
pub struct Interval {
    begin: u64,
    end: u64,
}

/// The interval ends before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the interval {begin}-{end} ends before it begins")]
pub struct IntervalError {
    /// The first number as given.
    pub begin: u64,
    /// The last number as given.
    pub end: u64,
}

impl Interval {
    /// The numbers from `begin` to `end`, both included.
    ///
    /// # Errors
    /// `begin` is after `end`.
    pub const fn new(begin: u64, end: u64) -> Result<Self, IntervalError> {
        if begin <= end {
            Ok(Self { begin, end })
        } else {
            Err(IntervalError { begin, end })
        }
    }

    /// The first number.
    #[must_use]
    pub const fn begin(self) -> u64 {
        self.begin
    }

    /// The last number.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many numbers; at most `u64::MAX`, although 0 to `u64::MAX` has one more.
    #[must_use]
    pub const fn count(self) -> u64 {
        (self.end - self.begin).saturating_add(1)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.begin, self.end)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInterval {
    begin: u64,
    end: u64,
}

impl TryFrom<RawInterval> for Interval {
    type Error = IntervalError;

    fn try_from(raw: RawInterval) -> Result<Self, IntervalError> {
        Self::new(raw.begin, raw.end)
    }
}

/// A set of numbers, kept as the fewest intervals, in ascending order.
///
/// Reading from outside normalises: order, overlaps and neighbours do not matter, but an interval
/// that ends before it begins and more than [`Ranges::INTERVALS_MAX`] intervals are errors.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Ranges(SmallVec<[Interval; 1]>);

impl Ranges {
    /// The most intervals that are read from outside: what is left of all 65,536 ports when every
    /// second one is in use, so real ports cannot exceed it.
    pub const INTERVALS_MAX: usize = 32_768;

    /// No numbers.
    #[must_use]
    pub fn new() -> Self {
        Self(SmallVec::new())
    }

    /// All numbers that lie in one of `intervals`.
    pub fn from_intervals(intervals: impl IntoIterator<Item = Interval>) -> Self {
        let mut sorted: SmallVec<[Interval; 1]> = intervals.into_iter().collect();
        sorted.sort_unstable();
        let mut ranges = Self::new();
        for interval in sorted {
            ranges.append(interval);
        }
        ranges
    }

    /// Adds an interval that does not begin before the last one does.
    fn append(&mut self, next: Interval) {
        match self.0.last_mut() {
            Some(last) if next.begin <= last.end.saturating_add(1) => {
                last.end = last.end.max(next.end)
            }
            _ => self.0.push(next),
        }
    }

    /// Whether there are no numbers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers; at most `u64::MAX`.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum, interval| sum.saturating_add(interval.count()))
    }

    /// The intervals in ascending order; between two of them at least one number is missing.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Interval> {
        self.0.iter().copied()
    }

    /// The numbers in ascending order.
    pub fn values(&self) -> impl Iterator<Item = u64> {
        self.0
            .iter()
            .flat_map(|interval| interval.begin..=interval.end)
    }

    /// Whether `value` is one of the numbers.
    #[must_use]
    pub fn contains_value(&self, value: u64) -> bool {
        let after = self.0.partition_point(|interval| interval.begin <= value);
        after > 0 && value <= self.0[after - 1].end
    }

    /// Whether all numbers of `other` are in here.
    #[must_use]
    pub fn contains(&self, other: &Ranges) -> bool {
        let mut mine = self.0.iter();
        let mut current = mine.next();
        for wanted in &other.0 {
            while current.is_some_and(|interval| interval.end < wanted.begin) {
                current = mine.next();
            }
            // Neighbours are coalesced, so one interval must hold all of the wanted one.
            if !current.is_some_and(|interval| {
                interval.begin <= wanted.begin && wanted.end <= interval.end
            }) {
                return false;
            }
        }
        true
    }

    /// The numbers that are in either.
    #[must_use]
    pub fn union(&self, other: &Ranges) -> Ranges {
        let (mut left, mut right) = (self.iter().peekable(), other.iter().peekable());
        let mut union = Ranges::new();
        loop {
            let left_is_next = match (left.peek(), right.peek()) {
                (Some(l), Some(r)) => l.begin <= r.begin,
                (Some(_), None) => true,
                (None, _) => false,
            };
            match if left_is_next {
                left.next()
            } else {
                right.next()
            } {
                Some(next) => union.append(next),
                None => return union,
            }
        }
    }

    /// The numbers that are in both.
    #[must_use]
    pub fn intersect(&self, other: &Ranges) -> Ranges {
        let (mut left, mut right) = (self.iter().peekable(), other.iter().peekable());
        let mut common = Ranges::new();
        while let (Some(l), Some(r)) = (left.peek(), right.peek()) {
            if let Ok(interval) = Interval::new(l.begin.max(r.begin), l.end.min(r.end)) {
                common.append(interval);
            }
            if l.end <= r.end {
                left.next()
            } else {
                right.next()
            };
        }
        common
    }

    /// The numbers that are in here and not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Ranges) -> Ranges {
        let mut cuts = other.iter().peekable();
        let mut rest = Ranges::new();
        for interval in self.iter() {
            while cuts.peek().is_some_and(|cut| cut.end < interval.begin) {
                cuts.next();
            }
            // What is left of the interval, `None` once a cut reaches its end.
            let mut begin = Some(interval.begin);
            while let Some(from) = begin
                && let Some(cut) = cuts.peek().filter(|cut| cut.begin <= interval.end)
            {
                if from < cut.begin {
                    rest.append(Interval {
                        begin: from,
                        end: cut.begin - 1,
                    });
                }
                if cut.end < interval.end {
                    begin = Some(cut.end + 1);
                    cuts.next();
                } else {
                    // The cut stays: it may reach into the next interval too.
                    begin = None;
                }
            }
            if let Some(begin) = begin {
                rest.append(Interval {
                    begin,
                    end: interval.end,
                });
            }
        }
        rest
    }

    /// The lowest `n` numbers, or all if there are fewer.
    #[must_use]
    pub fn take(&self, n: u64) -> Ranges {
        let mut taken = Ranges::new();
        let mut wanted = n;
        for interval in self.iter() {
            if wanted == 0 {
                break;
            }
            let count = interval.count().min(wanted);
            taken.append(Interval {
                begin: interval.begin,
                end: interval.begin + (count - 1),
            });
            wanted -= count;
        }
        taken
    }
}

impl From<Interval> for Ranges {
    fn from(interval: Interval) -> Self {
        Self::from_intervals([interval])
    }
}

impl fmt::Display for Ranges {
    /// `[31000-32000, 33000-33010]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, interval) in self.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{interval}")?;
        }
        f.write_str("]")
    }
}

impl<'de> Deserialize<'de> for Ranges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let intervals: Vec<Interval> =
            bounded_list::read(deserializer, Self::INTERVALS_MAX, "intervals")?;
        Ok(Self::from_intervals(intervals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ranges(intervals: &[(u64, u64)]) -> Ranges {
        Ranges::from_intervals(
            intervals
                .iter()
                .map(|&(begin, end)| Interval::new(begin, end).unwrap()),
        )
    }

    #[test]
    fn intervals_are_sorted_and_coalesced() {
        assert_eq!(
            ranges(&[(5, 6), (1, 2), (3, 3), (8, 9), (8, 8)]),
            ranges(&[(1, 3), (5, 6), (8, 9)])
        );
        assert_eq!(ranges(&[(5, 6), (1, 2), (3, 3)]).to_string(), "[1-3, 5-6]");
        assert_eq!(Ranges::new().to_string(), "[]");
        assert_eq!(Interval::new(2, 1), Err(IntervalError { begin: 2, end: 1 }));
    }

    #[test]
    fn the_whole_number_line_does_not_overflow() {
        let all = ranges(&[(0, u64::MAX)]);
        assert_eq!(all.len(), u64::MAX);
        assert_eq!(all.union(&all), all);
        assert_eq!(all.subtract(&ranges(&[(5, u64::MAX)])), ranges(&[(0, 4)]));
        assert_eq!(all.subtract(&all), Ranges::new());
        assert_eq!(all.take(u64::MAX), ranges(&[(0, u64::MAX - 1)]));
        assert_eq!(ranges(&[(0, 1), (u64::MAX, u64::MAX)]).union(&all), all);
        assert!(all.contains_value(u64::MAX));
    }

    #[test]
    fn the_lowest_numbers_are_taken_across_intervals() {
        let free = ranges(&[(10, 11), (20, 29)]);
        assert_eq!(free.take(0), Ranges::new());
        assert_eq!(free.take(4), ranges(&[(10, 11), (20, 21)]));
        assert_eq!(free.take(99), free);
        assert_eq!(free.take(3).values().collect::<Vec<_>>(), [10, 11, 20]);
    }

    #[test]
    fn decoding_normalises_order_and_refuses_nonsense() {
        let read = |json: &str| serde_json::from_str::<Ranges>(json);
        let json = r#"[{"begin":5,"end":9},{"begin":1,"end":5}]"#;
        assert_eq!(read(json).unwrap(), ranges(&[(1, 9)]));
        assert!(read(r#"[{"begin":2,"end":1}]"#).is_err());
        assert!(read(r#"[{"begin":-2,"end":1}]"#).is_err());
        let many = vec![r#"{"begin":1,"end":1}"#; Ranges::INTERVALS_MAX + 1].join(",");
        assert!(
            read(&format!("[{many}]"))
                .unwrap_err()
                .to_string()
                .contains("more than 32768 intervals")
        );
    }

    /// The obvious set with the same numbers, as the oracle.
    fn oracle(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.values().collect()
    }

    fn small_ranges() -> impl Strategy<Value = Ranges> {
        prop::collection::vec((0_u64..40, 0_u64..6), 0..8).prop_map(|intervals| {
            Ranges::from_intervals(intervals.into_iter().map(|(begin, more)| Interval {
                begin,
                end: begin + more,
            }))
        })
    }

    proptest! {
        #[test]
        fn every_operation_agrees_with_a_plain_set(a in small_ranges(), b in small_ranges(), n in 0_u64..50) {
            let (sa, sb) = (oracle(&a), oracle(&b));
            prop_assert_eq!(oracle(&a.union(&b)), &sa | &sb);
            prop_assert_eq!(oracle(&a.intersect(&b)), &sa & &sb);
            prop_assert_eq!(oracle(&a.subtract(&b)), &sa - &sb);
            prop_assert_eq!(a.contains(&b), sb.is_subset(&sa));
            prop_assert_eq!(a.len(), sa.len() as u64);
            prop_assert_eq!(a.contains_value(n), sa.contains(&n));
            let lowest: BTreeSet<u64> = sa.iter().copied().take(usize::try_from(n).unwrap()).collect();
            prop_assert_eq!(oracle(&a.take(n)), lowest);
        }

        #[test]
        fn results_are_canonical(a in small_ranges(), b in small_ranges(), n in 0_u64..50) {
            for ranges in [a.union(&b), a.intersect(&b), a.subtract(&b), a.take(n)] {
                for pair in ranges.0.windows(2) {
                    prop_assert!(pair[0].end + 1 < pair[1].begin);
                }
            }
        }
    }
}
