//! Decline filters: what a framework does not want to be offered again for a while (semantics E3).

use std::collections::BTreeMap;

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

/// The most filters of one framework. A decline beyond it hides nothing, and is counted.
pub const FILTERS_PER_FRAMEWORK_MAX: usize = 200_000;
/// The most filters for one framework, role and slave; the one that ends first makes room.
pub const FILTERS_PER_KEY_MAX: usize = 8;

/// When a filter ends, and a number that keeps equal ends apart.
type Expiry = (Timestamp, u64);

#[derive(Debug, Clone)]
struct Filter {
    refused: Resources,
    expiry: Expiry,
}

type BySlave = BTreeMap<SlaveId, Vec<Filter>>;

#[derive(Debug, Default)]
struct OfFramework {
    len: usize,
    roles: BTreeMap<RoleName, BySlave>,
}

/// All filters.
#[derive(Debug, Default)]
pub(super) struct Filters {
    last: u64,
    frameworks: BTreeMap<FrameworkId, OfFramework>,
    expiries: BTreeMap<Expiry, (FrameworkId, RoleName, SlaveId)>,
}

impl Filters {
    /// Hides `refused` and less; false if the framework has too many filters.
    pub(super) fn add(
        &mut self,
        framework: FrameworkId,
        role: &RoleName,
        slave: SlaveId,
        refused: Resources,
        until: Timestamp,
    ) -> bool {
        let of_framework = self.frameworks.entry(framework).or_default();
        if of_framework.len >= FILTERS_PER_FRAMEWORK_MAX {
            return false;
        }
        self.last += 1;
        let expiry = (until, self.last);
        let filters = of_framework
            .roles
            .entry(role.clone())
            .or_default()
            .entry(slave)
            .or_default();
        let before = filters.len();
        // What the new one hides for longer needs no filter of its own.
        filters.retain(|old| {
            let stays = old.expiry.0 > until || !refused.contains(&old.refused);
            if !stays {
                self.expiries.remove(&old.expiry);
            }
            stays
        });
        if filters.len() >= FILTERS_PER_KEY_MAX
            && let Some(first) = (0..filters.len()).min_by_key(|at| filters[*at].expiry)
        {
            self.expiries.remove(&filters.swap_remove(first).expiry);
        }
        filters.push(Filter { refused, expiry });
        of_framework.len = of_framework.len + filters.len() - before;
        self.expiries
            .insert(expiry, (framework, role.clone(), slave));
        true
    }

    /// Whether an offer is hidden: it is no more than what was refused (semantics E3).
    pub(super) fn hides(
        &self,
        framework: FrameworkId,
        role: &RoleName,
        slave: SlaveId,
        resources: &Resources,
    ) -> bool {
        let of_slave = self
            .frameworks
            .get(&framework)
            .and_then(|of| of.roles.get(role)?.get(&slave));
        of_slave.is_some_and(|filters| {
            filters
                .iter()
                .any(|filter| filter.refused.contains(resources))
        })
    }

    /// Ends the first filter that is due; tells for which slave.
    pub(super) fn expire(&mut self, now: Timestamp) -> Option<SlaveId> {
        let entry = self
            .expiries
            .first_entry()
            .filter(|entry| entry.key().0 <= now)?;
        let (expiry, (framework, role, slave)) = entry.remove_entry();
        let of_framework = self.frameworks.get_mut(&framework)?;
        let by_slave = of_framework.roles.get_mut(&role)?;
        let filters = by_slave.get_mut(&slave)?;
        filters.retain(|filter| filter.expiry != expiry);
        of_framework.len -= 1;
        if filters.is_empty() {
            by_slave.remove(&slave);
        }
        if by_slave.is_empty() {
            of_framework.roles.remove(&role);
        }
        if of_framework.roles.is_empty() {
            self.frameworks.remove(&framework);
        }
        Some(slave)
    }

    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.first_key_value().map(|((at, _), _)| *at)
    }

    /// Drops those of a framework, for one role or for all.
    pub(super) fn clear(&mut self, framework: FrameworkId, role: Option<&RoleName>) {
        let Some(of_framework) = self.frameworks.get_mut(&framework) else {
            return;
        };
        let dropped: Vec<BySlave> = match role {
            Some(role) => of_framework.roles.remove(role).into_iter().collect(),
            None => std::mem::take(&mut of_framework.roles)
                .into_values()
                .collect(),
        };
        for filter in dropped
            .into_iter()
            .flat_map(BTreeMap::into_values)
            .flatten()
        {
            of_framework.len -= 1;
            self.expiries.remove(&filter.expiry);
        }
        if of_framework.roles.is_empty() {
            self.frameworks.remove(&framework);
        }
    }

    /// Drops those for a slave, because it is gone or is another now.
    pub(super) fn clear_slave(&mut self, slave: SlaveId) {
        for of_framework in self.frameworks.values_mut() {
            for by_slave in of_framework.roles.values_mut() {
                for filter in by_slave.remove(&slave).into_iter().flatten() {
                    of_framework.len -= 1;
                    self.expiries.remove(&filter.expiry);
                }
            }
            of_framework
                .roles
                .retain(|_, by_slave| !by_slave.is_empty());
        }
        self.frameworks
            .retain(|_, of_framework| !of_framework.roles.is_empty());
    }

    /// Whether counts and expiries agree with the filters.
    pub(super) fn is_consistent(&self) -> bool {
        let mut all = 0;
        let counted = self.frameworks.values().all(|of_framework| {
            let len: usize = of_framework
                .roles
                .values()
                .flat_map(BTreeMap::values)
                .map(Vec::len)
                .sum();
            all += len;
            len == of_framework.len && len > 0
        });
        counted && all == self.expiries.len()
    }
}
