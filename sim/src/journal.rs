//! A disk that keeps records in order and makes several durable at once: the checkpoint of a slave,
//! the log of a master.

use std::collections::VecDeque;

use crate::prng::Rng;

/// Records on their way to the disk. What is durable is with the owner.
#[derive(Debug)]
pub(crate) struct Journal<R> {
    pending: VecDeque<R>,
    /// How many of them are in the write that is under way.
    writing: usize,
}

impl<R> Journal<R> {
    pub(crate) fn new() -> Self {
        Self {
            pending: VecDeque::new(),
            writing: 0,
        }
    }

    /// Takes a record; true if a write has to be begun for it.
    pub(crate) fn append(&mut self, record: R) -> bool {
        self.pending.push_back(record);
        self.begin()
    }

    /// Begins a write of all that waits, unless one is under way or nothing waits.
    fn begin(&mut self) -> bool {
        let begins = self.writing == 0 && !self.pending.is_empty();
        if begins {
            self.writing = self.pending.len();
        }
        begins
    }

    /// The write has ended: what it made durable, and whether another one begins.
    pub(crate) fn written(&mut self) -> (Vec<R>, bool) {
        let durable = self.pending.drain(..self.writing).collect();
        self.writing = 0;
        (durable, self.begin())
    }

    /// The process dies: of what it handed to the disk the first few survive, though nobody was told.
    pub(crate) fn crash(&mut self, rng: &mut Rng) -> Vec<R> {
        let survivors = if rng.percent(50) {
            0
        } else {
            rng.index(self.pending.len() + 1)
        };
        let durable = self.pending.drain(..survivors).collect();
        self.pending.clear();
        self.writing = 0;
        durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_during_a_write_is_made_durable_by_the_next_one() {
        let mut journal = Journal::new();
        assert!(journal.append(1));
        assert!(!journal.append(2), "a write is under way");
        assert_eq!(journal.written(), (vec![1], true));
        assert_eq!(journal.written(), (vec![2], false));
        assert!(journal.append(3));
    }

    #[test]
    fn a_crash_keeps_a_beginning_and_never_makes_a_gap() {
        let mut rng = Rng::new(1);
        let mut lengths = [0; 4];
        for _ in 0..200 {
            let mut journal = Journal::new();
            for record in 0..3 {
                journal.append(record);
            }
            let survivors = journal.crash(&mut rng);
            assert_eq!(survivors, [0, 1, 2][..survivors.len()]);
            lengths[survivors.len()] += 1;
            assert!(journal.append(9), "nothing is left behind");
        }
        assert!(lengths.iter().all(|count| *count > 0), "{lengths:?}");
    }
}
