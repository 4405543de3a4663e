//! The offer table: which resources are promised to whom, and until when.
//!
//! Invariants: M1 a resource is in at most one offer or task; M3 every offer has a deadline, a
//! subscribed framework and a registered slave. Absent: fairness (see `allocator`), clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

/// One outstanding offer; its id is the leader's epoch and its number here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outstanding {
    pub(crate) framework: FrameworkId,
    pub(crate) slave: SlaveId,
    pub(crate) role: RoleName,
    pub(crate) resources: Arc<Resources>,
    pub(crate) made_at: Timestamp,
}

/// All outstanding offers of this leader.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    last: u64,
    outstanding: BTreeMap<u64, Outstanding>,
    by_slave: BTreeMap<SlaveId, BTreeSet<u64>>,
    by_framework: BTreeMap<FrameworkId, BTreeSet<u64>>,
}

impl Offers {
    /// Adds an offer and gives it a number.
    pub(crate) fn insert(&mut self, offer: Outstanding) -> u64 {
        self.last += 1;
        self.by_slave
            .entry(offer.slave)
            .or_default()
            .insert(self.last);
        self.by_framework
            .entry(offer.framework)
            .or_default()
            .insert(self.last);
        self.outstanding.insert(self.last, offer);
        self.last
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Outstanding> {
        self.outstanding.get(&number)
    }

    /// Takes an offer out, so that it can be used once.
    pub(crate) fn take(&mut self, number: u64) -> Option<Outstanding> {
        let offer = self.outstanding.remove(&number)?;
        forget(&mut self.by_slave, offer.slave, number);
        forget(&mut self.by_framework, offer.framework, number);
        Some(offer)
    }

    pub(crate) fn of_slave(&self, slave: SlaveId) -> Vec<u64> {
        self.by_slave
            .get(&slave)
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    pub(crate) fn of_framework(&self, framework: FrameworkId) -> Vec<u64> {
        self.by_framework
            .get(&framework)
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Outstanding)> {
        self.outstanding
            .iter()
            .map(|(number, offer)| (*number, offer))
    }

    /// Whether the indexes hold exactly what the table holds.
    pub(crate) fn is_consistent(&self) -> bool {
        let indexed = |sets: usize| sets == self.outstanding.len();
        indexed(self.by_slave.values().map(BTreeSet::len).sum())
            && indexed(self.by_framework.values().map(BTreeSet::len).sum())
            && self.outstanding.iter().all(|(number, offer)| {
                *number <= self.last
                    && self
                        .by_slave
                        .get(&offer.slave)
                        .is_some_and(|set| set.contains(number))
                    && self
                        .by_framework
                        .get(&offer.framework)
                        .is_some_and(|set| set.contains(number))
            })
    }
}

fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<u64>>, key: K, number: u64) {
    if let Some(set) = index.get_mut(&key) {
        set.remove(&number);
        if set.is_empty() {
            index.remove(&key);
        }
    }
}
