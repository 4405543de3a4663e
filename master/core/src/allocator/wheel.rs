//! What ends at a time, by that time: a hierarchical timer wheel.
//!
//! Time is cut into ticks of about a millisecond. The first level has a place for each of 64 ticks, each
//! further one for 64 times as much: an item lies where its tick first differs from that of the last
//! look, and moves down when the time of its place begins, at most once a level. So to add one costs the
//! same however many there are. Items keep their exact time, and none ends before or after it.

use meros_proto::time::Timestamp;

/// Of places in a level, as bits of their number.
const PLACE_BITS: u32 = 6;
const PLACES: u32 = 1 << PLACE_BITS;
/// Microseconds of a tick, as bits.
const TICK_BITS: u32 = 10;
/// Together with ticks enough for any time.
const LEVELS: u32 = (u64::BITS - TICK_BITS).div_ceil(PLACE_BITS);
/// An empty place keeps room for so many.
const KEPT_ROOM_MAX: usize = 1_024;

#[derive(Debug)]
pub(super) struct Wheel<T> {
    /// The tick of the last look.
    now: u64,
    /// Level by level.
    places: Vec<Vec<(Timestamp, T)>>,
    /// By level, which places have something.
    used: [u64; LEVELS as usize],
    first: Option<Timestamp>,
    len: usize,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self {
            now: 0,
            places: (0..place_of(LEVELS, 0)).map(|_| Vec::new()).collect(),
            used: [0; LEVELS as usize],
            first: None,
            len: 0,
        }
    }
}

fn tick(at: Timestamp) -> u64 {
    at.0 >> TICK_BITS
}

/// The number of a tick's place within a level.
fn digit(tick: u64, level: u32) -> u32 {
    let number = (tick >> (PLACE_BITS * level)) % u64::from(PLACES);
    u32::try_from(number).expect("below 64")
}

fn place_of(level: u32, number: u32) -> usize {
    (level * PLACES + number) as usize
}

impl<T: Copy> Wheel<T> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// When the first one ends.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.first
    }

    /// Adds one that ends then.
    pub(super) fn add(&mut self, end: Timestamp, item: T) {
        self.put(end, item);
        self.len += 1;
        self.first = Some(self.first.map_or(end, |first| first.min(end)));
    }

    fn put(&mut self, end: Timestamp, item: T) {
        // What is late ends at the next look.
        let tick = tick(end).max(self.now);
        let differs = (tick ^ self.now) | u64::from(PLACES - 1);
        let level = differs.ilog2() / PLACE_BITS;
        let number = digit(tick, level);
        self.used[level as usize] |= 1 << number;
        self.places[place_of(level, number)].push((end, item));
    }

    /// The first place that has something, by level and number, and its first tick.
    fn first_place(&self) -> Option<(u32, u32, u64)> {
        (0..LEVELS).find_map(|level| {
            let here = digit(self.now, level);
            // Above the first level the present place is empty: what was in it has moved down.
            let ahead = self.used[level as usize] & (u64::MAX << here);
            let number = (ahead != 0).then(|| ahead.trailing_zeros())?;
            let bits = PLACE_BITS * level;
            let above = self.now >> (bits + PLACE_BITS) << (bits + PLACE_BITS);
            Some((level, number, above | u64::from(number) << bits))
        })
    }

    /// Takes out those that have ended.
    pub(super) fn take_due(&mut self, now: Timestamp, mut due: impl FnMut(T)) {
        if self.first.is_none_or(|first| first > now) {
            return;
        }
        while let Some((level, number, begins)) = self.first_place() {
            if begins > tick(now) {
                break;
            }
            self.now = begins;
            self.used[level as usize] &= !(1 << number);
            let place = place_of(level, number);
            let mut items = std::mem::take(&mut self.places[place]);
            for (end, item) in items.drain(..) {
                if end <= now {
                    self.len -= 1;
                    due(item);
                } else {
                    self.put(end, item);
                }
            }
            if self.places[place].capacity() == 0 && items.capacity() <= KEPT_ROOM_MAX {
                self.places[place] = items;
            }
            if begins == tick(now) && level == 0 {
                break;
            }
        }
        self.now = self.now.max(tick(now));
        self.first = self.first_place().and_then(|(level, number, _)| {
            let ends = self.places[place_of(level, number)].iter();
            ends.map(|(end, _)| *end).min()
        });
    }

    /// Takes all out.
    pub(super) fn clear(&mut self) {
        for place in &mut self.places {
            place.clear();
            place.shrink_to(KEPT_ROOM_MAX);
        }
        self.used = [0; LEVELS as usize];
        self.first = None;
        self.len = 0;
    }

    /// All of them, in no order that matters.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Timestamp, T)> {
        self.places.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_ends_at_its_time_as_in_an_ordered_map(
            begin in prop_oneof![Just(0), 0..5_000_000u64, Just(1_790_000_000_000_000u64), Just((1u64 << 48) - 9)],
            steps in prop::collection::vec(
                (any::<bool>(), prop_oneof![0..70u64, 0..70_000u64, 0..9_000_000_000u64, Just(u64::MAX / 2)]),
                1..200,
            ),
        ) {
            let (mut wheel, mut map) = (Wheel::default(), BTreeMap::<Timestamp, Vec<usize>>::new());
            let mut now = begin;
            for (number, (is_new, micros)) in steps.into_iter().enumerate() {
                if number % 64 == 63 {
                    wheel.clear();
                    map.clear();
                } else if is_new {
                    // Some that are over already.
                    let end = Timestamp((now + micros).saturating_sub(5));
                    wheel.add(end, number);
                    map.entry(end).or_default().push(number);
                } else {
                    now += micros % (1 << 40);
                    let (mut ended, mut expected) = (Vec::new(), Vec::new());
                    wheel.take_due(Timestamp(now), |item| ended.push(item));
                    while let Some(first) = map.first_entry().filter(|it| it.key().0 <= now) {
                        expected.extend(first.remove());
                    }
                    ended.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(ended, expected);
                }
                prop_assert_eq!(wheel.first(), map.first_key_value().map(|(end, _)| *end));
                let left: usize = map.values().map(Vec::len).sum();
                prop_assert_eq!((wheel.len(), wheel.iter().count()), (left, left));
            }
        }
    }
}
