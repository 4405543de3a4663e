//! Dominant shares: who is next (semantics E10, with equal weights).
//!
//! The share of a role, or of a framework within its role, is the largest fraction that it holds
//! of any scalar resource of the cluster. Ranges and sets do not count.

use std::collections::{BTreeMap, BTreeSet};

use meros_proto::ids::FrameworkId;
use meros_proto::resources::{ResourceName, Resources, Value};
use meros_proto::role::RoleName;

/// A fraction of the cluster, in billionths.
type Share = u64;

/// Scalars by name, in thousandths. Wide, because it sums over slaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Amounts(BTreeMap<ResourceName, i128>);

impl Amounts {
    fn change(&mut self, resources: &Resources, sign: i128) {
        for resource in resources {
            if let Value::Scalar(scalar) = resource.value() {
                let amount = self.0.entry(resource.name().clone()).or_default();
                *amount += sign * i128::from(scalar.thousandths());
                if *amount == 0 {
                    self.0.remove(resource.name());
                }
            }
        }
    }

    fn share_of(&self, totals: &Self) -> Share {
        let fraction = |(name, amount): (&ResourceName, &i128)| {
            let total = *totals.0.get(name)?;
            let billionths = amount.saturating_mul(1_000_000_000).checked_div(total)?;
            Some(Share::try_from(billionths).unwrap_or(0))
        };
        self.0.iter().filter_map(fraction).max().unwrap_or(0)
    }
}

#[derive(Debug, Default)]
struct Member {
    used: Amounts,
    share: Share,
    is_active: bool,
}

#[derive(Debug, Default)]
struct Role {
    used: Amounts,
    share: Share,
    members: BTreeMap<FrameworkId, Member>,
    /// The active members by share; equal ones by age.
    order: BTreeSet<(Share, FrameworkId)>,
}

/// What roles and frameworks hold, and the order that follows from it.
#[derive(Debug, Default)]
pub(super) struct Shares {
    totals: Amounts,
    /// The totals have changed since the shares were computed.
    is_stale: bool,
    roles: BTreeMap<RoleName, Role>,
    /// The roles with an active member, by share.
    order: BTreeSet<(Share, RoleName)>,
}

impl Shares {
    /// The cluster has so much more.
    pub(super) fn grow(&mut self, total: &Resources) {
        self.totals.change(total, 1);
        self.is_stale = true;
    }

    /// The cluster has so much less.
    pub(super) fn shrink(&mut self, total: &Resources) {
        self.totals.change(total, -1);
        self.is_stale = true;
    }

    /// A framework holds so much more.
    pub(super) fn charge(
        &mut self,
        framework: FrameworkId,
        role: &RoleName,
        resources: &Resources,
    ) {
        self.change(framework, role, |used| used.change(resources, 1));
    }

    /// A framework holds so much less.
    pub(super) fn discharge(
        &mut self,
        framework: FrameworkId,
        role: &RoleName,
        resources: &Resources,
    ) {
        self.change(framework, role, |used| used.change(resources, -1));
    }

    /// Puts a framework into the order of a role, or takes it out.
    pub(super) fn set_active(&mut self, framework: FrameworkId, role: &RoleName, is_active: bool) {
        self.edit(framework, role, |member| member.is_active = is_active);
    }

    /// The next in turn first: roles by share, in a role its frameworks by share.
    pub(super) fn in_order(
        &self,
    ) -> impl Iterator<Item = (&RoleName, impl Iterator<Item = FrameworkId>)> {
        self.order.iter().filter_map(|(_, name)| {
            let role = self.roles.get(name)?;
            Some((name, role.order.iter().map(|(_, framework)| *framework)))
        })
    }

    /// Computes all shares anew if the cluster has changed.
    pub(super) fn refresh(&mut self) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        self.order.clear();
        for (name, role) in &mut self.roles {
            role.share = role.used.share_of(&self.totals);
            role.order.clear();
            for (framework, member) in &mut role.members {
                member.share = member.used.share_of(&self.totals);
                if member.is_active {
                    role.order.insert((member.share, *framework));
                }
            }
            if !role.order.is_empty() {
                self.order.insert((role.share, name.clone()));
            }
        }
    }

    fn change(&mut self, framework: FrameworkId, role: &RoleName, change: impl Fn(&mut Amounts)) {
        self.edit(framework, role, |member| change(&mut member.used));
        if let Some(row) = self.roles.get_mut(role) {
            let before = (row.share, role.clone());
            change(&mut row.used);
            row.share = row.used.share_of(&self.totals);
            if row.share != before.0 && self.order.remove(&before) {
                self.order.insert((row.share, role.clone()));
            }
            if row.members.is_empty() && row.used.0.is_empty() {
                self.roles.remove(role);
            }
        }
    }

    /// Changes a member and keeps the order; members that hold nothing and want nothing leave.
    fn edit(&mut self, framework: FrameworkId, name: &RoleName, edit: impl FnOnce(&mut Member)) {
        let role = self.roles.entry(name.clone()).or_default();
        let had_order = !role.order.is_empty();
        let member = role.members.entry(framework).or_default();
        role.order.remove(&(member.share, framework));
        edit(member);
        member.share = member.used.share_of(&self.totals);
        if member.is_active {
            role.order.insert((member.share, framework));
        } else if member.used.0.is_empty() {
            role.members.remove(&framework);
        }
        match (had_order, role.order.is_empty()) {
            (true, true) => {
                self.order.remove(&(role.share, name.clone()));
            }
            (false, false) => {
                self.order.insert((role.share, name.clone()));
            }
            _ => {}
        }
        if role.members.is_empty() && role.used.0.is_empty() {
            self.roles.remove(name);
        }
    }

    /// What a framework holds in a role, for checks.
    pub(super) fn holds(
        &self,
        framework: FrameworkId,
        role: &RoleName,
        resources: &Resources,
    ) -> bool {
        let mut expected = Amounts::default();
        expected.change(resources, 1);
        let used = self
            .roles
            .get(role)
            .and_then(|role| role.members.get(&framework))
            .map(|m| &m.used);
        used.unwrap_or(&Amounts::default()) == &expected
    }

    /// Whether the orders hold exactly the active members and their roles.
    pub(super) fn is_consistent(&self) -> bool {
        let roles_in_order = self
            .roles
            .values()
            .filter(|role| !role.order.is_empty())
            .count();
        self.order.len() == roles_in_order
            && self.roles.iter().all(|(name, role)| {
                let active = role
                    .members
                    .values()
                    .filter(|member| member.is_active)
                    .count();
                role.order.len() == active
                    && (active == 0 || self.order.contains(&(role.share, name.clone())))
                    && role.members.iter().all(|(framework, member)| {
                        !member.is_active || role.order.contains(&(member.share, *framework))
                    })
            })
    }
}
