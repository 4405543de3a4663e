//! Weights, quotas and minimums of roles, and what is short because of them (semantics E2, E8, E10).

use meros_proto::ids::FrameworkId;
use meros_proto::quota::Quota;
use meros_proto::resources::{ResourceName, Scalar};
use meros_proto::role::RoleName;

use super::tree::QuotaRow;
use super::{Allocator, Minimum};

impl Allocator {
    /// Sets the weight of a role among its siblings; 1 is what each has otherwise. Zero is taken
    /// as the least weight there is.
    pub fn set_weight(&mut self, role: &RoleName, weight: Scalar) {
        let least = Scalar::from_thousandths(1).unwrap_or(Scalar::ONE);
        self.tree.set_weight(role, weight.max(least).as_f64());
        self.touch_all();
    }

    /// Sets what a role is guaranteed and limited to; an empty quota takes it away.
    pub fn set_quota(&mut self, role: &RoleName, quota: &Quota) {
        let row = (!quota.is_empty()).then(|| QuotaRow {
            guarantees: self.numbered(&quota.guarantees),
            limits: self.numbered(&quota.limits),
        });
        self.tree.set_quota(role, row);
        self.touch_all();
    }

    /// Sets what is worth an offer in a role and those below it, for frameworks that do not say
    /// otherwise; none takes that away. Roles whose limits leave less than the master's minimum get
    /// nothing all the same.
    pub fn set_minimum(&mut self, role: &RoleName, minimum: Option<Minimum>) {
        self.tree.set_minimum(role, minimum);
        self.touch_all();
    }

    fn numbered<'a>(
        &mut self,
        amounts: impl IntoIterator<Item = (&'a ResourceName, &'a Scalar)>,
    ) -> Vec<(usize, i64)> {
        amounts
            .into_iter()
            .filter_map(|(name, scalar)| Some((self.names.number(name)?, scalar.thousandths())))
            .collect()
    }

    /// What counts against the quota of a role: what is held in it and below, and all that is
    /// reserved for it and below.
    #[must_use]
    pub fn consumed(&self, role: &RoleName, name: &ResourceName) -> Scalar {
        let node = self.tree.find_node(role).zip(self.names.find(name));
        let consumed = node.map_or(0, |(node, number)| self.tree.node(node).consumed(number));
        Scalar::from_thousandths(consumed).unwrap_or(Scalar::ZERO)
    }

    /// What all slaves that take part have of a scalar.
    #[must_use]
    pub fn capacity(&self, name: &ResourceName) -> Scalar {
        let total = self.names.find(name).map_or(0, |it| self.totals.get(it));
        Scalar::from_thousandths(total).unwrap_or(Scalar::ZERO)
    }

    /// Whether a role has more than one of its limits allows. Never by an offer (M13): only
    /// because a limit was lowered, or because slaves came back with tasks.
    #[must_use]
    pub fn is_above_limit(&self, role: &RoleName) -> bool {
        self.tree
            .find_node(role)
            .is_some_and(|node| self.tree.node(node).is_above_limit())
    }

    /// Whether less is free than is still due to guarantees.
    #[must_use]
    pub fn is_short_of_guarantees(&self) -> bool {
        let mut required = self.tree.required_below().iter();
        required.any(|(number, required)| required > self.available.get(number).max(0))
    }

    /// Whether something is still due to a role or one above it, so that what it holds is its own.
    #[must_use]
    pub fn is_owed(&self, role: &RoleName) -> bool {
        let node = self.tree.find_node(role);
        node.is_some_and(|node| self.tree.path(node).any(|it| it.unmet().next().is_some()))
    }

    /// The dominant share of a framework in a role, in the totals as last measured.
    #[must_use]
    pub fn share(&self, framework: FrameworkId, role: &RoleName) -> f64 {
        self.tree.find_leaf(framework, role).map_or(0.0, |leaf| {
            self.tree.order.share(self.tree.leaf(leaf).held())
        })
    }
}
