//! A sorted set whose least is taken out, put back greater, and all of which is gone through in
//! order: who is next.

/// As many are moved at most when one is put in.
const BLOCK_MAX: usize = 64;

/// Items in order. Blocks and what is in them descend, so that the least is the last of the last
/// one, where it is taken out without moving anything.
#[derive(Debug, Clone)]
pub(super) struct Ranking<T> {
    /// None is empty, unless it is the only one.
    blocks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Ranking<T> {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            len: 0,
        }
    }
}

impl<T: Ord> Ranking<T> {
    /// Items as they come, each once.
    pub(super) fn new(mut items: Vec<T>) -> Self {
        // They come in a few runs, nearly always, which a stable sort merges.
        items.sort_by(|a, b| b.cmp(a));
        let len = items.len();
        let mut blocks = Vec::with_capacity(len.div_ceil(BLOCK_MAX / 2));
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let mut block = Vec::with_capacity(BLOCK_MAX + 1);
            block.extend(items.by_ref().take(BLOCK_MAX / 2));
            blocks.push(block);
        }
        Self { blocks, len }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// In ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks
            .iter()
            .rev()
            .flat_map(|block| block.iter().rev())
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.blocks.last()?.last()
    }

    pub(super) fn contains(&self, item: &T) -> bool {
        let (block, place) = self.find(item);
        self.blocks.get(block).and_then(|it| it.get(place)) == Some(item)
    }

    /// The block and the place in it where an item is or belongs.
    fn find(&self, item: &T) -> (usize, usize) {
        let is_above = |block: &Vec<T>| block.last().is_some_and(|least| least > item);
        let block = self.blocks.partition_point(is_above);
        let block = block.min(self.blocks.len().saturating_sub(1));
        let place = self.blocks.get(block);
        let place = place.map_or(0, |it| it.partition_point(|other| other > item));
        (block, place)
    }

    /// Puts an item in that is not there.
    pub(super) fn insert(&mut self, item: T) {
        let (at, place) = self.find(&item);
        if self.blocks.is_empty() {
            self.blocks.push(Vec::with_capacity(4));
        }
        let block = &mut self.blocks[at];
        block.insert(place, item);
        self.len += 1;
        if block.len() > BLOCK_MAX {
            let less = block.split_off(BLOCK_MAX / 2);
            self.blocks.insert(at + 1, less);
        }
    }

    /// Changes all items, which are put into order again if need be.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(&mut T)) {
        self.blocks.iter_mut().flatten().for_each(&mut change);
        let all = self.blocks.iter().flatten();
        if !all.is_sorted_by(|a, b| a > b) {
            let blocks = std::mem::take(&mut self.blocks);
            *self = Self::new(blocks.into_iter().flatten().collect());
        }
    }

    /// Puts an item in place of another that is there. Where both belong in the same place nothing is
    /// moved: one of few, or a small step.
    pub(super) fn replace(&mut self, old: &T, new: T) {
        let (at, place) = self.find(old);
        let is_there = |it: &Vec<T>| it.get(place) == Some(old);
        if !self.blocks.get(at).is_some_and(is_there) {
            return;
        }
        let block = &self.blocks[at];
        let before = match place.checked_sub(1) {
            Some(place) => block.get(place),
            None => at.checked_sub(1).and_then(|at| self.blocks[at].last()),
        };
        let after = block.get(place + 1);
        let after = after.or_else(|| self.blocks.get(at + 1)?.first());
        if before.is_none_or(|it| *it > new) && after.is_none_or(|it| *it < new) {
            self.blocks[at][place] = new;
        } else {
            self.remove(old);
            self.insert(new);
        }
    }

    /// Takes an item out, if it is there.
    pub(super) fn remove(&mut self, item: &T) {
        let is_first = self.first() == Some(item);
        let (at, place) = match is_first {
            true => {
                let at = self.blocks.len() - 1;
                (at, self.blocks[at].len() - 1)
            }
            false => self.find(item),
        };
        let Some(block) = self
            .blocks
            .get_mut(at)
            .filter(|it| it.get(place) == Some(item))
        else {
            return;
        };
        block.remove(place);
        self.len -= 1;
        // The room of the only one is kept: it often comes back at once.
        if block.is_empty() && self.blocks.len() > 1 {
            self.blocks.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Ranking;

    proptest! {
        #[test]
        fn a_ranking_is_a_sorted_set(
            begin in prop::collection::btree_set(0..400u32, 0..200),
            steps in prop::collection::vec((0..400u32, any::<bool>()), 0..400),
        ) {
            let mut ranking = Ranking::new(begin.iter().copied().collect());
            let mut set: BTreeSet<u32> = begin;
            for (item, is_in) in steps {
                prop_assert_eq!(ranking.contains(&item), set.contains(&item));
                if !is_in {
                    ranking.remove(&item);
                    set.remove(&item);
                } else if set.insert(item) {
                    ranking.insert(item);
                } else if set.insert(item + 1) {
                    set.remove(&item);
                    ranking.replace(&item, item + 1);
                } else if set.insert(1_000 - item) {
                    set.remove(&item);
                    ranking.replace(&item, 1_000 - item);
                }
                prop_assert_eq!(ranking.first(), set.first());
                prop_assert_eq!((ranking.len(), ranking.is_empty()), (set.len(), set.is_empty()));
            }
            prop_assert!(ranking.iter().eq(&set));
            for odd in [1, 7] {
                ranking.change_all(|item| *item = *item * odd % 1_009);
                set = set.into_iter().map(|item| item * odd % 1_009).collect();
                prop_assert!(ranking.iter().eq(&set));
            }
        }
    }
}
