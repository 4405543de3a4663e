//! Counts of the server, for whoever names metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Why the server has ended a connection that its client had not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The head of a request was not complete in time.
    Head,
    /// An answer was not read in time.
    Answer,
    /// No request came for a long time.
    Idle,
    /// A new connection needed the place of one that idled or dawdled.
    Room,
}

impl Cut {
    const ALL: [Self; 4] = [Self::Head, Self::Answer, Self::Idle, Self::Room];

    /// The value of the metric's label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Answer => "answer",
            Self::Idle => "idle",
            Self::Room => "room",
        }
    }
}

/// What the server counts.
#[derive(Debug, Default)]
pub struct HttpStats {
    open: AtomicU64,
    cut: [AtomicU64; Cut::ALL.len()],
    answered: Mutex<BTreeMap<u16, u64>>,
}

impl HttpStats {
    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that the server has ended, by why.
    pub fn cut(&self) -> impl Iterator<Item = (Cut, u64)> {
        let counts = Cut::ALL.iter().zip(&self.cut);
        counts.map(|(cut, count)| (*cut, count.load(Ordering::Relaxed)))
    }

    /// Requests answered, by status.
    #[must_use]
    pub fn answered(&self) -> BTreeMap<u16, u64> {
        self.answered.lock().clone()
    }

    pub(super) fn count_cut(&self, cut: Cut) {
        self.cut[cut as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_answer(&self, status: u16) {
        *self.answered.lock().entry(status).or_insert(0) += 1;
    }
}

/// Counts one connection as open while it lives.
#[derive(Debug)]
pub(super) struct Open<'a>(&'a HttpStats);

impl<'a> Open<'a> {
    pub(super) fn new(stats: &'a HttpStats) -> Self {
        stats.open.fetch_add(1, Ordering::Relaxed);
        Self(stats)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
