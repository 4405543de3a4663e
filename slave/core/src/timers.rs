//! What is due when. Each thing has at most one moment; setting it again moves it.

use std::collections::{BTreeMap, BTreeSet};

use meros_proto::time::Timestamp;

use crate::event::{CheckPurpose, ExecutorKey, TaskKey};

/// Something that becomes due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// The master has been silent for too long.
    Master,
    /// The update in flight of this task has not been acknowledged.
    Retry(TaskKey),
    /// This task has run for as long as it may.
    Completion(TaskKey),
    /// This task is to be probed, or a probe of it should have answered.
    Check(TaskKey, CheckPurpose),
    /// A leaving slave has waited for acknowledgements for long enough.
    Patience,
    /// This executor was to subscribe, or to end.
    Executor(ExecutorKey),
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_time: BTreeSet<(Timestamp, Due)>,
    by_due: BTreeMap<Due, Timestamp>,
}

impl Timers {
    pub(crate) fn set(&mut self, due: Due, at: Timestamp) {
        self.clear(&due);
        self.by_time.insert((at, due.clone()));
        self.by_due.insert(due, at);
    }

    pub(crate) fn clear(&mut self, due: &Due) {
        if let Some(at) = self.by_due.remove(due) {
            self.by_time.remove(&(at, due.clone()));
        }
    }

    /// Takes out what is due at `now`, the earliest first.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<Due> {
        self.by_time.first().filter(|(at, _)| *at <= now)?;
        let (_, due) = self
            .by_time
            .pop_first()
            .expect("there is a first, as seen above");
        self.by_due.remove(&due);
        Some(due)
    }

    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub(crate) fn at(&self, due: &Due) -> Option<Timestamp> {
        self.by_due.get(due).copied()
    }

    pub(crate) fn len(&self) -> usize {
        assert_eq!(
            self.by_time.len(),
            self.by_due.len(),
            "both indexes hold the same timers"
        );
        self.by_due.len()
    }

    pub(crate) fn dues(&self) -> impl Iterator<Item = &Due> {
        self.by_due.keys()
    }
}
