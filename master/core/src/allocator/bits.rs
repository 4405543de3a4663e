//! Sets of small numbers, as bits.

/// A set of slots.
#[derive(Debug, Clone, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    len: usize,
}

fn place(number: u32) -> (usize, u64) {
    ((number / 64) as usize, 1 << (number % 64))
}

impl Bits {
    /// Adds a number; whether it was not there.
    pub(super) fn insert(&mut self, number: u32) -> bool {
        let (at, bit) = place(number);
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        let is_new = self.words[at] & bit == 0;
        self.words[at] |= bit;
        self.len += usize::from(is_new);
        is_new
    }

    /// Takes a number out; whether it was there.
    pub(super) fn remove(&mut self, number: u32) -> bool {
        let (at, bit) = place(number);
        let Some(word) = self.words.get_mut(at).filter(|word| **word & bit != 0) else {
            return false;
        };
        *word &= !bit;
        self.len -= 1;
        true
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        let (at, bit) = place(number);
        self.words.get(at).is_some_and(|word| word & bit != 0)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn clear(&mut self) {
        self.words.clear();
        self.len = 0;
    }

    /// Adds all of another set.
    pub(super) fn insert_all(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            let more = theirs & !*mine;
            *mine |= more;
            self.len += more.count_ones() as usize;
        }
    }

    /// How many are in here and not in `other`.
    pub(super) fn count_without(&self, other: &Self) -> usize {
        self.words_without(other)
            .map(|(_, word)| word.count_ones() as usize)
            .sum()
    }

    /// Those in here and not in `other`, in ascending order.
    pub(super) fn iter_without(&self, other: &Self) -> impl Iterator<Item = u32> {
        self.words_without(other).flat_map(ones)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(self.words.iter().copied()).flat_map(ones)
    }

    fn words_without(&self, other: &Self) -> impl Iterator<Item = (u32, u64)> {
        (0u32..).zip(&self.words).map(|(at, word)| {
            let less = other.words.get(at as usize).copied().unwrap_or(0);
            (at, word & !less)
        })
    }
}

/// A set of slots of which few are in: to go through them takes a time in proportion to those.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    bits: Bits,
    /// The words in which something may be.
    words: Vec<u64>,
}

impl Marks {
    pub(super) fn insert(&mut self, number: u32) {
        if self.bits.insert(number) {
            self.mark(number / 64);
        }
    }

    fn mark(&mut self, word: u32) {
        let (at, bit) = place(word);
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        self.words[at] |= bit;
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.bits.remove(number);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.bits.iter()
    }

    /// Adds all of a set.
    pub(super) fn insert_all(&mut self, other: &Bits) {
        self.bits.insert_all(other);
        for (word, bits) in (0u32..).zip(&other.words) {
            if *bits != 0 {
                self.mark(word);
            }
        }
    }

    /// Takes all out, in ascending order.
    pub(super) fn drain_into(&mut self, numbers: &mut Vec<u32>) {
        if self.bits.is_empty() {
            return;
        }
        for (at, words) in (0u32..).zip(&mut self.words) {
            for word in ones((at, std::mem::take(words))) {
                let bits = std::mem::take(&mut self.bits.words[word as usize]);
                numbers.extend(ones((word, bits)));
            }
        }
        self.bits.len = 0;
    }
}

/// The numbers of one word.
fn ones((at, mut word): (u32, u64)) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros())?;
        word &= word - 1;
        Some(at * 64 + bit)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{Bits, Marks};

    proptest! {
        #[test]
        fn a_set_of_bits_is_a_set(
            steps in prop::collection::vec((0..300u32, any::<bool>()), 0..100),
            others in prop::collection::vec(0..400u32, 0..40),
        ) {
            let (mut bits, mut set) = (Bits::default(), BTreeSet::new());
            for (number, is_in) in steps {
                if is_in {
                    prop_assert_eq!(bits.insert(number), set.insert(number));
                } else {
                    prop_assert_eq!(bits.remove(number), set.remove(&number));
                }
            }
            let mut other = Bits::default();
            let other_set: BTreeSet<u32> = others.iter().copied().collect();
            for number in others {
                other.insert(number);
            }
            prop_assert_eq!(bits.len(), set.len());
            prop_assert!(bits.iter().eq(set.iter().copied()));
            prop_assert!(bits.iter_without(&other).eq(set.difference(&other_set).copied()));
            prop_assert_eq!(bits.count_without(&other), set.difference(&other_set).count());
            bits.insert_all(&other);
            prop_assert!(bits.iter().eq(set.union(&other_set).copied()));
            prop_assert_eq!(bits.len(), set.union(&other_set).count());
        }

        #[test]
        fn what_is_marked_is_taken_out_once_and_in_order(
            rounds in prop::collection::vec(
                prop::collection::vec((0..9_000u32, any::<bool>()), 0..40),
                1..4,
            ),
            others in prop::collection::vec(0..9_000u32, 0..20),
        ) {
            let mut marks = Marks::default();
            for steps in rounds {
                let mut set = BTreeSet::new();
                for (number, is_in) in steps {
                    if is_in {
                        marks.insert(number);
                        set.insert(number);
                    } else {
                        marks.remove(number);
                        set.remove(&number);
                    }
                }
                let mut other = Bits::default();
                for number in &others {
                    other.insert(*number);
                }
                marks.insert_all(&other);
                set.extend(&others);
                prop_assert_eq!(marks.is_empty(), set.is_empty());
                prop_assert!(marks.iter().eq(set.iter().copied()));
                let mut drained = Vec::new();
                marks.drain_into(&mut drained);
                prop_assert!(drained.into_iter().eq(set) && marks.is_empty());
            }
        }
    }
}
