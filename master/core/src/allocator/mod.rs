//! The allocator: which free resources are offered to whom.
//!
//! All free resources of one slave that a role may have go to the framework that has the least,
//! by dominant share (semantics E10); resources that are reserved go to their role and those
//! below it only. It looks at the slaves where something has changed, never at the rest.
//!
//! Invariants: M1 free, offered and used resources of a slave are all it has. M6 shares are the
//! sum of offers and tasks. Absent: offers, tasks, connections; it knows amounts only.

mod filters;
mod shares;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::resources::{ResourceName, Resources, Scalar};
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

pub use filters::{FILTERS_PER_FRAMEWORK_MAX, FILTERS_PER_KEY_MAX};

use crate::numbered::Numbered;
use filters::Filters;
use shares::Shares;

/// Resources with at least this many cpus are worth an offer (semantics E2) …
const MIN_CPUS: Scalar = match Scalar::from_thousandths(10) {
    Some(scalar) => scalar,
    None => Scalar::ZERO,
};
/// … and so are those with at least this much memory, in MiB.
const MIN_MEM: Scalar = Scalar::whole(32);

/// Resources to offer; they are charged already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) framework: FrameworkId,
    pub(crate) role: RoleName,
    pub(crate) slave: SlaveId,
    pub(crate) resources: Resources,
}

#[derive(Debug)]
struct Slave {
    total: Resources,
    free: Resources,
    is_offerable: bool,
}

/// The state of all allocation.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    slaves: Numbered<Slave>,
    shares: Shares,
    filters: Filters,
    /// Slaves where a round may find something to offer.
    dirty: BTreeSet<SlaveId>,
}

impl Allocator {
    /// A slave takes part; all it has is free and may be offered.
    pub(crate) fn add_slave(&mut self, slave: SlaveId, total: &Resources) {
        self.remove_slave(slave);
        self.shares.grow(total);
        let row = Slave {
            total: total.clone(),
            free: total.clone(),
            is_offerable: true,
        };
        self.slaves.insert(slave.0, row);
        self.touch(slave);
    }

    /// A slave takes part no more. What is still held there is discharged with
    /// [`release`](Self::release), before or after.
    pub(crate) fn remove_slave(&mut self, slave: SlaveId) {
        if let Some(row) = self.slaves.remove(slave.0) {
            self.shares.shrink(&row.total);
        }
        self.dirty.remove(&slave);
    }

    /// Drops the filters for a slave that is gone or is another now (semantics E3).
    pub(crate) fn clear_slave_filters(&mut self, slave: SlaveId) {
        self.filters.clear_slave(slave);
        self.touch(slave);
    }

    /// Whether what is free on a slave is offered.
    pub(crate) fn set_offerable(&mut self, slave: SlaveId, is_offerable: bool) {
        if let Some(row) = self.slaves.get_mut(slave.0) {
            row.is_offerable = is_offerable;
            self.touch(slave);
        }
    }

    /// A framework wants offers for a role, or does not.
    pub(crate) fn set_active(&mut self, framework: FrameworkId, role: &RoleName, is_active: bool) {
        self.shares.set_active(framework, role, is_active);
        if is_active {
            self.touch_all();
        }
    }

    /// Charges resources that are known to be in use; false if they are not free.
    #[must_use]
    pub(crate) fn charge(
        &mut self,
        framework: FrameworkId,
        role: &RoleName,
        slave: SlaveId,
        resources: &Resources,
    ) -> bool {
        let Some(row) = self.slaves.get_mut(slave.0) else {
            return false;
        };
        if row.free.checked_sub_assign(resources).is_err() {
            return false;
        }
        self.shares.charge(framework, role, resources);
        true
    }

    /// Takes back resources that were granted or charged.
    pub(crate) fn release(
        &mut self,
        framework: FrameworkId,
        role: &RoleName,
        slave: SlaveId,
        resources: &Resources,
    ) {
        self.shares.discharge(framework, role, resources);
        if let Some(row) = self.slaves.get_mut(slave.0) {
            row.free
                .checked_add_assign(resources)
                .expect("what was taken from free fits back into it (M1)");
            self.touch(slave);
        }
    }

    /// A framework does not want these or less of them until then (semantics E3); false if it has
    /// too many such wishes, and this one is not kept.
    pub(crate) fn filter(
        &mut self,
        framework: FrameworkId,
        role: &RoleName,
        slave: SlaveId,
        refused: Resources,
        until: Timestamp,
    ) -> bool {
        self.filters.add(framework, role, slave, refused, until)
    }

    /// Drops the filters of a framework, for one role or for all (semantics B7).
    pub(crate) fn clear_filters(&mut self, framework: FrameworkId, role: Option<&RoleName>) {
        self.filters.clear(framework, role);
        self.touch_all();
    }

    /// Ends the filters that are due.
    pub(crate) fn expire_filters(&mut self, now: Timestamp) {
        while let Some(slave) = self.filters.expire(now) {
            self.touch(slave);
        }
    }

    /// When the next filter ends.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.filters.next_expiry()
    }

    /// Whether a round may find something to offer.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Grants what is free on the slaves where something has changed.
    pub(crate) fn plan(&mut self) -> Vec<Grant> {
        self.shares.refresh();
        let mut grants = Vec::new();
        for slave in std::mem::take(&mut self.dirty) {
            while let Some(grant) = self.next_grant(slave) {
                let row = self.slaves.get_mut(slave.0).expect("next_grant found it");
                row.free
                    .checked_sub_assign(&grant.resources)
                    .expect("a part of what is free");
                self.shares
                    .charge(grant.framework, &grant.role, &grant.resources);
                grants.push(grant);
            }
        }
        grants
    }

    fn next_grant(&self, slave: SlaveId) -> Option<Grant> {
        let row = self.slaves.get(slave.0).filter(|row| row.is_offerable)?;
        for (role, mut frameworks) in self.shares.in_order() {
            let resources = row.free.allocatable_to(role);
            if !is_worth_an_offer(&resources) {
                continue;
            }
            let wants =
                |framework: &FrameworkId| !self.filters.hides(*framework, role, slave, &resources);
            if let Some(framework) = frameworks.find(wants) {
                return Some(Grant {
                    framework,
                    role: role.clone(),
                    slave,
                    resources,
                });
            }
        }
        None
    }

    fn touch(&mut self, slave: SlaveId) {
        let can_offer = |row: &Slave| row.is_offerable && !row.free.is_empty();
        if self.slaves.get(slave.0).is_some_and(can_offer) {
            self.dirty.insert(slave);
        }
    }

    fn touch_all(&mut self) {
        let free = self
            .slaves
            .iter()
            .filter(|(_, row)| row.is_offerable && !row.free.is_empty());
        self.dirty.extend(free.map(|(number, _)| SlaveId(number)));
    }

    /// What is free on a slave that takes part.
    pub(crate) fn free(&self, slave: SlaveId) -> Option<&Resources> {
        self.slaves.get(slave.0).map(|row| &row.free)
    }

    /// Whether what is free on a slave is offered.
    pub(crate) fn is_offerable(&self, slave: SlaveId) -> bool {
        self.slaves.get(slave.0).is_some_and(|row| row.is_offerable)
    }

    /// What a slave that takes part has.
    pub(crate) fn total(&self, slave: SlaveId) -> Option<&Resources> {
        self.slaves.get(slave.0).map(|row| &row.total)
    }

    /// Whether a framework is charged exactly this in a role (M6).
    pub(crate) fn is_charged_with(
        &self,
        framework: FrameworkId,
        role: &RoleName,
        resources: &Resources,
    ) -> bool {
        self.shares.holds(framework, role, resources)
    }

    /// Whether orders, counts and expiries agree with what they were made from.
    pub(crate) fn is_consistent(&self) -> bool {
        self.shares.is_consistent() && self.filters.is_consistent()
    }
}

/// Enough cpus or enough memory to run something (semantics E2).
fn is_worth_an_offer(resources: &Resources) -> bool {
    resources.scalar(&ResourceName::CPUS) >= MIN_CPUS
        || resources.scalar(&ResourceName::MEM) >= MIN_MEM
}
