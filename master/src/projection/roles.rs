//! Roles in the read model: what is configured for them, and what is held in them.
//!
//! Sums are kept for each role by itself and put together along the tree when somebody asks. A role
//! is listed as long as something is configured for it, a framework is in it, or something is held in
//! it; so there are no more than the core has.

use std::collections::BTreeMap;

use meros_proto::minimum::Minimum;
use meros_proto::quota::Quota;
use meros_proto::resources::{ResourceName, Resources, Scalar, Value};
use meros_proto::role::RoleName;
use meros_proto::view::{RoleRow, RoleView};

use super::page::{Builder, Page};

/// Scalars by name; none is zero.
type Amounts = BTreeMap<ResourceName, Scalar>;

/// Which roles are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleFilter {
    /// All that are known.
    Any,
    /// Those with a quota.
    WithQuota,
    /// Those with another weight than 1.
    WithWeight,
    /// Those for which it is set what is worth an offer.
    WithMinimum,
}

impl RoleFilter {
    fn matches(self, row: &RoleRow) -> bool {
        match self {
            Self::Any => true,
            Self::WithQuota => !row.guarantees.is_empty() || !row.limits.is_empty(),
            Self::WithWeight => row.weight != Scalar::ONE,
            Self::WithMinimum => row.minimum.is_some(),
        }
    }
}

/// What is held in one role by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sums {
    tasks: u64,
    offers: u64,
    used: Amounts,
    offered: Amounts,
    reserved: Amounts,
    /// What of the used and offered counts against quotas of roles deeper than this: parts are
    /// reserved for a role above, whose reservation is counted already.
    counted: BTreeMap<usize, Amounts>,
}

#[derive(Debug, Default)]
struct Role {
    weight: Option<Scalar>,
    quota: Quota,
    minimum: Option<Minimum>,
    frameworks: u64,
    sums: Sums,
}

impl Role {
    fn is_forgotten(&self) -> bool {
        self.weight.is_none()
            && self.quota.is_empty()
            && self.minimum.is_none()
            && self.frameworks == 0
            && self.sums == Sums::default()
    }
}

/// What holds resources in a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Task,
    Executor,
    Offer,
}

/// All roles.
#[derive(Debug, Default)]
pub(super) struct Roles(BTreeMap<RoleName, Role>);

impl Roles {
    /// What is configured for a role is this from now on.
    pub(super) fn configure(&mut self, view: RoleView) {
        self.change(&view.role, |role| {
            role.weight = Some(view.weight).filter(|weight| *weight != Scalar::ONE);
            role.quota = view.quota;
            role.minimum = view.minimum;
        });
    }

    /// What is configured, of the roles of which something is.
    pub(super) fn configured(&self) -> impl Iterator<Item = RoleView> {
        let configured =
            |role: &Role| role.weight.is_some() || !role.quota.is_empty() || role.minimum.is_some();
        let roles = self.0.iter().filter(move |(_, role)| configured(role));
        roles.map(|(name, role)| RoleView {
            role: name.clone(),
            weight: role.weight.unwrap_or(Scalar::ONE),
            quota: role.quota.clone(),
            minimum: role.minimum.clone(),
        })
    }

    /// A framework is in these roles, or no longer.
    pub(super) fn count_framework(&mut self, roles: &[RoleName], is_more: bool) {
        for name in roles {
            self.change(name, |role| {
                role.frameworks = counted(role.frameworks, is_more);
            });
        }
    }

    /// A task, an executor or an offer holds this in a role, or no longer.
    pub(super) fn hold(
        &mut self,
        name: &RoleName,
        holder: Holder,
        resources: &Resources,
        is_more: bool,
    ) {
        self.change(name, |role| {
            let sums = &mut role.sums;
            let (count, amounts) = match holder {
                Holder::Task => (Some(&mut sums.tasks), &mut sums.used),
                Holder::Executor => (None, &mut sums.used),
                Holder::Offer => (Some(&mut sums.offers), &mut sums.offered),
            };
            if let Some(count) = count {
                *count = counted(*count, is_more);
            }
            for resource in resources {
                let Value::Scalar(amount) = *resource.value() else {
                    continue;
                };
                add(amounts, resource.name(), amount, is_more);
                if resource.is_revocable() || resource.is_shared() {
                    continue;
                }
                let depth = resource.reservations().role().map_or(0, depth_of);
                let counted = sums.counted.entry(depth).or_default();
                add(counted, resource.name(), amount, is_more);
                if counted.is_empty() {
                    sums.counted.remove(&depth);
                }
            }
        });
    }

    /// A slave with these resources takes part, or no longer.
    pub(super) fn reserve(&mut self, resources: &Resources, is_more: bool) {
        for resource in resources {
            if resource.is_revocable() || resource.is_shared() {
                continue;
            }
            if let (Some(name), Value::Scalar(amount)) =
                (resource.reservations().role(), resource.value())
            {
                self.change(name, |role| {
                    add(&mut role.sums.reserved, resource.name(), *amount, is_more);
                });
            }
        }
    }

    fn change(&mut self, name: &RoleName, change: impl FnOnce(&mut Role)) {
        let role = match self.0.get_mut(name) {
            Some(role) => role,
            None => self.0.entry(name.clone()).or_default(),
        };
        change(role);
        if role.is_forgotten() {
            self.0.remove(name);
        }
    }

    /// Whether a framework is in a role or in one below it.
    pub(super) fn has_framework(&self, name: &RoleName) -> bool {
        let below = |it: &RoleName| it == name || it.is_strict_subrole_of(name);
        self.0
            .iter()
            .any(|(it, role)| role.frameworks > 0 && below(it))
    }

    /// Roles by name, those after a given one.
    pub(super) fn page(
        &self,
        filter: RoleFilter,
        after: Option<&RoleName>,
        limit: usize,
    ) -> Page<RoleRow> {
        let mut page = Builder::new(limit);
        for row in self.rows().into_values() {
            if filter.matches(&row) {
                let seen = after.is_some_and(|after| row.role <= *after);
                let name = row.role.clone();
                page.add(seen, || name.to_string(), || row);
            }
        }
        page.finish()
    }

    /// Every role with the sums of those below it.
    fn rows(&self) -> BTreeMap<&str, RoleRow> {
        let empty = |(name, role): (_, &Role)| (RoleName::as_str(name), row_of(name, role));
        let mut rows: BTreeMap<&str, RoleRow> = self.0.iter().map(empty).collect();
        for (name, role) in &self.0 {
            let mut at = name.as_str();
            loop {
                if let Some(row) = rows.get_mut(at) {
                    gather(row, &role.sums);
                }
                match at.rsplit_once('/') {
                    Some((above, _)) => at = above,
                    None => break,
                }
            }
        }
        rows
    }
}

fn row_of(name: &RoleName, role: &Role) -> RoleRow {
    RoleRow {
        role: name.clone(),
        weight: role.weight.unwrap_or(Scalar::ONE),
        guarantees: role.quota.guarantees.clone(),
        limits: role.quota.limits.clone(),
        minimum: role.minimum.clone(),
        frameworks: role.frameworks,
        tasks: 0,
        offers: 0,
        used: Amounts::new(),
        offered: Amounts::new(),
        reserved: Amounts::new(),
        counted: Amounts::new(),
    }
}

/// Adds what is held in a role to the row of that role or of one above it.
fn gather(row: &mut RoleRow, sums: &Sums) {
    row.tasks += sums.tasks;
    row.offers += sums.offers;
    let depth = depth_of(&row.role);
    let deeper = sums.counted.range(..depth).map(|(_, amounts)| amounts);
    for (into, from) in [
        (&mut row.used, &sums.used),
        (&mut row.offered, &sums.offered),
        (&mut row.reserved, &sums.reserved),
    ] {
        add_all(into, from);
    }
    for amounts in deeper.chain([&sums.reserved]) {
        add_all(&mut row.counted, amounts);
    }
}

fn add_all(into: &mut Amounts, from: &Amounts) {
    for (name, amount) in from {
        add(into, name, *amount, true);
    }
}

fn add(amounts: &mut Amounts, name: &ResourceName, amount: Scalar, is_more: bool) {
    let before = amounts.get(name).copied().unwrap_or_default();
    let after = match is_more {
        true => before.saturating_add(amount),
        false => before.saturating_sub(amount),
    };
    if after.is_zero() {
        amounts.remove(name);
    } else {
        amounts.insert(name.clone(), after);
    }
}

fn counted(before: u64, is_more: bool) -> u64 {
    match is_more {
        true => before + 1,
        false => before.saturating_sub(1),
    }
}

/// How many parts a role has; what is not reserved belongs to depth 0.
fn depth_of(role: &RoleName) -> usize {
    role.as_str().split('/').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> RoleName {
        name.parse().expect("a role")
    }

    fn resources(text: &str) -> Resources {
        text.parse().expect("resources")
    }

    fn row(roles: &Roles, name: &str) -> RoleRow {
        let page = roles.page(RoleFilter::Any, None, usize::MAX);
        let found = page.rows.into_iter().find(|row| row.role == role(name));
        found.expect("it is listed")
    }

    fn amounts(text: &str) -> Amounts {
        let all = resources(text);
        let amounts = all
            .iter()
            .map(|it| (it.name().clone(), all.scalar(it.name())));
        amounts.collect()
    }

    #[test]
    fn a_role_counts_what_is_held_in_the_roles_below_it() {
        let mut roles = Roles::default();
        roles.configure(RoleView {
            role: role("a"),
            weight: Scalar::whole(2),
            quota: Quota::default(),
            minimum: None,
        });
        roles.hold(
            &role("a/b"),
            Holder::Task,
            &resources("cpus:1;mem:64;ports:[1-9]"),
            true,
        );
        roles.hold(&role("a/b/c"), Holder::Offer, &resources("cpus:2"), true);
        roles.hold(&role("ab"), Holder::Task, &resources("cpus:5"), true);
        let a = row(&roles, "a");
        assert_eq!((a.tasks, a.offers, a.weight), (1, 1, Scalar::whole(2)));
        assert_eq!(
            (a.used, a.offered),
            (amounts("cpus:1;mem:64"), amounts("cpus:2"))
        );
        assert_eq!(a.counted, amounts("cpus:3;mem:64"));
        assert_eq!(row(&roles, "a/b").offered, amounts("cpus:2"));
        roles.hold(&role("a/b/c"), Holder::Offer, &resources("cpus:2"), false);
        let names = roles.page(RoleFilter::Any, None, usize::MAX).rows;
        let names: Vec<_> = names.iter().map(|row| row.role.as_str()).collect();
        assert_eq!(names, ["a", "a/b", "ab"], "what holds nothing is forgotten");
    }

    #[test]
    fn what_is_reserved_counts_once_whether_it_is_used_or_not() {
        // semantics: E8
        let mut roles = Roles::default();
        roles.reserve(&resources("cpus:4;cpus(a):4"), true);
        assert_eq!(row(&roles, "a").counted, amounts("cpus:4"));
        roles.hold(
            &role("a"),
            Holder::Task,
            &resources("cpus(a):3;cpus:1"),
            true,
        );
        roles.hold(&role("a/b"), Holder::Task, &resources("cpus(a):1"), true);
        let a = row(&roles, "a");
        assert_eq!((a.used, a.counted), (amounts("cpus:5"), amounts("cpus:5")));
        // Below, what is reserved for the role above is like anything else.
        assert_eq!(row(&roles, "a/b").counted, amounts("cpus:1"));
        roles.reserve(&resources("cpus:4;cpus(a):4"), false);
        assert_eq!(row(&roles, "a").counted, amounts("cpus:1"));
    }

    #[test]
    fn roles_are_filtered_and_read_page_by_page() {
        let mut roles = Roles::default();
        let config = |name: &str, weight: u32, limits: &str| RoleView {
            role: role(name),
            weight: Scalar::whole(weight),
            quota: Quota {
                guarantees: Amounts::new(),
                limits: amounts(limits),
            },
            minimum: (name == "b").then(|| limits.parse().expect("amounts")),
        };
        roles.configure(config("a", 2, ""));
        roles.configure(config("b", 1, "cpus:4"));
        roles.count_framework(&[role("c"), role("d")], true);
        let of = |filter| roles.page(filter, None, 10).rows.len();
        let filters = [
            RoleFilter::Any,
            RoleFilter::WithQuota,
            RoleFilter::WithWeight,
            RoleFilter::WithMinimum,
        ];
        assert_eq!(filters.map(of), [4, 1, 1, 1]);
        let page = roles.page(RoleFilter::Any, Some(&role("a")), 2);
        assert_eq!((page.rows.len(), page.total), (2, 4));
        assert_eq!(page.next.as_deref(), Some("c"));
        assert!(roles.has_framework(&role("c")) && !roles.has_framework(&role("b")));
        roles.configure(RoleView {
            minimum: None,
            ..config("b", 1, "")
        });
        roles.count_framework(&[role("c"), role("d")], false);
        assert_eq!(roles.page(RoleFilter::Any, None, 10).rows.len(), 1);
    }
}
