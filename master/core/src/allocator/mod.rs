//! The allocator: which free resources are offered to whom.
//!
//! All that is free on a slave and that a role may have goes to the first framework in turn for
//! whom [`judge`](Allocator::explain) finds something: guarantees that are not met first, then by
//! dominant share (semantics E1, E10). Work is in proportion to what has changed: slaves where
//! nothing has are not looked at.
//!
//! It can be driven by itself, which is how it is measured; [`MasterCore`](crate::MasterCore)
//! drives it from its events.
//!
//! Invariants: M1 free, offered and used resources of a slave are all it has. M6 what is counted is
//! the sum of offers, tasks and reservations. M13 by an offer nobody gets above a limit. Absent:
//! offers, tasks, connections, clocks; it knows amounts only.

mod amounts;
mod bits;
mod change;
mod constraints;
mod explain;
mod filters;
mod frameworks;
mod judge;
mod order;
mod quota;
mod ranking;
mod round;
mod slaves;
mod smallest_change;
#[cfg(test)]
mod tests;
mod tree;
mod wheel;

use std::sync::Arc;

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::resources::{ConvertError, ResourceName, Resources, SumTooLarge, Value};
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

pub use amounts::SCALAR_NAMES_MAX;
pub use meros_proto::minimum::{Minimum, MinimumError};

pub use change::{Change, SmallestChange};
pub use constraints::{ConstraintError, Constraints, Profile};
pub use explain::{Explanation, Reason};
pub use filters::{FILTERS_PER_FRAMEWORK_MAX, FILTERS_PER_KEY_MAX};
pub use frameworks::{Abilities, Wishes};
pub use order::Sorter;
pub use slaves::Exclusion;

use crate::numbered::Numbered;
use amounts::{Amounts, Charge, Names};
use bits::{Bits, Marks};
use filters::Filters;
use frameworks::Framework;
use order::Order;
use slaves::{Slave, exclusive};
use tree::{LeafSlot, Tree};

/// Resources to offer; they are charged already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// To whom.
    pub framework: FrameworkId,
    /// For which of its roles.
    pub role: RoleName,
    /// Where.
    pub slave: SlaveId,
    /// What; never empty. Given back or refused as it is, it is not copied.
    pub resources: Arc<Resources>,
}

/// How an allocator decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Who is next.
    pub sorter: Sorter,
    /// Names that do not count in shares (semantics E10).
    pub excluded_names: Vec<ResourceName>,
    /// The least that is worth an offer, for frameworks that do not say otherwise.
    pub minimum: Minimum,
    /// Visits the slaves of a round in an order of chance, another one in each round, so that
    /// nobody is always first at the same slaves (semantics E1). The same seed gives the same
    /// decisions. None visits them by id.
    pub shuffle: Option<u64>,
}

/// The state of all allocation.
#[derive(Debug)]
pub struct Allocator {
    slaves: Numbered<Slave>,
    names: Names,
    /// What all slaves have.
    totals: Amounts,
    /// What is free and neither reserved nor revocable on slaves that are offered.
    available: Amounts,
    tree: Tree,
    filters: Filters,
    frameworks: Numbered<Framework>,
    /// By leaf.
    wishes: Numbered<Wishes>,
    minimum: Minimum,
    active: Bits,
    /// Slaves that are offered and have something free.
    with_free: Bits,
    /// Those of them where a part is reserved, revocable or shared.
    mixed: Bits,
    /// Those of all of them where a round may find something to offer.
    dirty: Marks,
    /// Those where a quota kept somebody from something.
    held_back: Bits,
    shuffle: Option<u64>,
    rounds: u64,
    /// What slaves have free of which all is taken.
    nothing: Arc<Resources>,
    /// Room that rounds keep: for the leaves that a slave is hidden from, for those that compete
    /// there, for the slaves to visit, and for their order.
    hidden: Bits,
    candidates: Vec<LeafSlot>,
    visits: Vec<u32>,
    places: Vec<(u32, u32)>,
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

impl Allocator {
    /// An allocator of nothing yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let mut names = Names::default();
        let mut order = Order::new(policy.sorter);
        let excluded = policy.excluded_names.iter();
        order.exclude(excluded.filter_map(|name| names.number(name)).collect());
        let least = policy.minimum.any_of.iter();
        let minimum = least.map(|least| names.amounts(least)).collect();
        Self {
            slaves: Numbered::default(),
            names,
            totals: Amounts::default(),
            available: Amounts::default(),
            tree: Tree::new(order, minimum),
            filters: Filters::default(),
            frameworks: Numbered::default(),
            wishes: Numbered::default(),
            minimum: policy.minimum,
            active: Bits::default(),
            with_free: Bits::default(),
            mixed: Bits::default(),
            dirty: Marks::default(),
            held_back: Bits::default(),
            shuffle: policy.shuffle,
            rounds: 0,
            nothing: Arc::default(),
            hidden: Bits::default(),
            candidates: Vec::new(),
            visits: Vec::new(),
            places: Vec::new(),
        }
    }

    /// A slave takes part; all it has is free and may be offered.
    pub fn add_slave(&mut self, slave: SlaveId, total: &Resources) {
        let (profile, is_excluded) = match self.slaves.get(slave.0) {
            Some(row) => (row.profile.clone(), row.is_excluded),
            None => (Profile::default(), false),
        };
        self.take_slave(slave);
        self.count_total(total, true);
        let row = Slave::new(Arc::new(total.clone()), profile, is_excluded, &self.names);
        if row.exclusion().is_none() {
            self.available.add_all(&row.charge.plain);
        }
        self.slaves.insert(slave.0, row);
        self.tree.order.measure(&self.totals);
        self.touch(slave);
        self.touch_held_back(has_reservations(total));
    }

    /// What constraints see of a slave that takes part.
    pub fn describe_slave(&mut self, slave: SlaveId, profile: Profile) {
        if let Some(row) = self.slaves.get_mut(slave.0)
            && row.profile != profile
        {
            row.profile = profile;
            self.touch(slave);
        }
    }

    /// A slave takes part no more. What is still held there is discharged with
    /// [`release`](Self::release), before or after.
    pub fn remove_slave(&mut self, slave: SlaveId) {
        self.take_slave(slave);
        self.tree.order.measure(&self.totals);
    }

    fn take_slave(&mut self, slave: SlaveId) {
        if let Some(row) = self.slaves.remove(slave.0) {
            self.count_total(&row.total, false);
            // Its reservations counted against limits.
            self.touch_held_back(has_reservations(&row.total));
            if row.exclusion().is_none() {
                self.available.sub_all(&row.charge.plain);
            }
        }
        self.with_free.remove(slave.0);
        self.mixed.remove(slave.0);
        self.dirty.remove(slave.0);
        self.held_back.remove(slave.0);
    }

    /// Drops the filters for a slave that is gone or is another now (semantics E3).
    pub fn clear_slave_filters(&mut self, slave: SlaveId) {
        let tree = &self.tree;
        let leaves = self
            .filters
            .clear_slave(slave, |leaf| tree.framework_of(leaf));
        for leaf in leaves {
            self.forget_leaf(leaf);
        }
        self.touch(slave);
    }

    /// Whether a slave is connected, so that what is free on it can be offered.
    pub fn set_offerable(&mut self, slave: SlaveId, is_here: bool) {
        self.change_exclusion(slave, |row| row.is_here = is_here);
    }

    /// Whether an operator has taken a slave out: deactivated, draining, or in maintenance.
    pub fn set_excluded(&mut self, slave: SlaveId, is_excluded: bool) {
        self.change_exclusion(slave, |row| row.is_excluded = is_excluded);
    }

    fn change_exclusion(&mut self, slave: SlaveId, change: impl FnOnce(&mut Slave)) {
        let Some(row) = self.slaves.get_mut(slave.0) else {
            return;
        };
        let was_offered = row.exclusion().is_none();
        change(row);
        let is_offered = row.exclusion().is_none();
        if was_offered != is_offered {
            self.available.change(&row.charge.plain, is_offered);
        }
        self.touch(slave);
        self.touch_held_back(false);
    }

    /// A framework wants offers for a role, or does not (semantics B7, B8).
    pub fn set_active(&mut self, framework: FrameworkId, role: &RoleName, is_active: bool) {
        let found = match is_active {
            true => Some(self.tree.make_leaf(framework, role)),
            false => self.tree.find_leaf(framework, role),
        };
        let Some(leaf) = found else { return };
        self.tree.set_active(leaf, is_active);
        if is_active {
            if self.active.insert(leaf) {
                self.touch_all();
            }
        } else {
            self.active.remove(leaf);
            self.forget_leaf(leaf);
        }
    }

    /// Charges resources that are known to be in use; false if they are not free.
    #[must_use]
    pub fn charge(
        &mut self,
        framework: FrameworkId,
        role: &RoleName,
        slave: SlaveId,
        resources: &Resources,
    ) -> bool {
        let Some(row) = self.slaves.get_mut(slave.0) else {
            return false;
        };
        let exclusive = exclusive(resources);
        let taken = row.change_free(&self.names, |free| free.checked_sub_assign(&exclusive));
        if taken.is_err() {
            return false;
        }
        let charge = Charge::of(resources, &self.names);
        if row.exclusion().is_none() {
            self.available.sub_all(&charge.plain);
        }
        let leaf = self.tree.make_leaf(framework, role);
        self.tree.charge(leaf, &charge, false);
        self.note_free(slave);
        // It may be what a guarantee was waiting for, so that no more is kept for it.
        self.touch_held_back(self.tree.has_quota_above(leaf));
        true
    }

    /// Takes back resources that were granted or charged. What was granted is best given back as
    /// it came.
    pub fn release(
        &mut self,
        framework: FrameworkId,
        role: &RoleName,
        slave: SlaveId,
        resources: impl Into<Arc<Resources>>,
    ) {
        let resources = resources.into();
        let charge = Charge::of(&resources, &self.names);
        let mut has_more_room = false;
        if let Some(leaf) = self.tree.find_leaf(framework, role) {
            has_more_room = self.tree.has_quota_above(leaf);
            self.tree.discharge(leaf, &charge);
            self.forget_leaf(leaf);
        }
        if let Some(row) = self.slaves.get_mut(slave.0) {
            row.put_back(resources, &charge, &self.names);
            if row.exclusion().is_none() {
                self.available.add_all(&charge.plain);
            }
            self.touch(slave);
        }
        self.touch_held_back(has_more_room);
    }

    /// A slave that takes part has more than before, such as revocable resources that nobody uses.
    ///
    /// # Errors
    /// The sum is too large; nothing has changed.
    pub fn grow_slave(&mut self, slave: SlaveId, more: &Resources) -> Result<(), SumTooLarge> {
        let Some(row) = self.slaves.get_mut(slave.0) else {
            return Ok(());
        };
        Arc::make_mut(&mut row.total).checked_add_assign(more)?;
        let is_offered = row.exclusion().is_none();
        self.count_total(more, true);
        let charge = Charge::of(more, &self.names);
        if is_offered {
            self.available.add_all(&charge.plain);
        }
        let row = self.slaves.get_mut(slave.0).expect("looked up above");
        row.grow(more, charge, &self.names)
            .expect("free is a part of the total");
        self.tree.order.measure(&self.totals);
        self.touch(slave);
        self.touch_held_back(has_reservations(more));
        Ok(())
    }

    /// What a framework holds on a slave becomes something else of the same amount: reserved, not
    /// reserved any more, a volume (semantics D6, D7).
    ///
    /// # Errors
    /// The slave has no `from`; nothing has changed.
    pub fn convert(
        &mut self,
        framework: FrameworkId,
        role: &RoleName,
        slave: SlaveId,
        from: &Resources,
        to: &Resources,
    ) -> Result<(), ConvertError> {
        let Some(row) = self.slaves.get_mut(slave.0) else {
            return Ok(());
        };
        Arc::make_mut(&mut row.total).replace_in_place(from, to)?;
        self.count_reserved(from, false);
        self.count_reserved(to, true);
        let (before, after) = (Charge::of(from, &self.names), Charge::of(to, &self.names));
        let leaf = self.tree.make_leaf(framework, role);
        self.tree.discharge(leaf, &before);
        self.tree.charge(leaf, &after, false);
        self.touch_held_back(true);
        Ok(())
    }

    /// What is free on a slave becomes something else of the same amount, by an operator's order.
    ///
    /// # Errors
    /// `from` is not free there; nothing has changed.
    pub fn convert_free(
        &mut self,
        slave: SlaveId,
        from: &Resources,
        to: &Resources,
    ) -> Result<(), ConvertError> {
        let Some(row) = self.slaves.get_mut(slave.0) else {
            return Ok(());
        };
        row.change_free(&self.names, |free| free.replace_in_place(from, to))?;
        Arc::make_mut(&mut row.total)
            .replace_in_place(from, to)
            .expect("what is free is a part of it");
        if row.exclusion().is_none() {
            self.available.sub_all(&Charge::of(from, &self.names).plain);
            self.available.add_all(&Charge::of(to, &self.names).plain);
        }
        self.count_reserved(from, false);
        self.count_reserved(to, true);
        self.touch(slave);
        self.touch_held_back(true);
        Ok(())
    }

    /// A framework does not want these or less of them until then (semantics E3); false if it has
    /// too many such wishes, and this one is not kept. What was granted is best refused as it came.
    pub fn filter(
        &mut self,
        framework: FrameworkId,
        role: &RoleName,
        slave: SlaveId,
        refused: impl Into<Arc<Resources>>,
        until: Timestamp,
    ) -> bool {
        let refused = refused.into();
        let leaf = self.tree.make_leaf(framework, role);
        let is_kept = self.filters.add((framework, leaf), slave, &refused, until);
        self.forget_leaf(leaf);
        is_kept
    }

    /// How many filters have made room for later ones, at [`FILTERS_PER_KEY_MAX`].
    #[must_use]
    pub fn filters_replaced(&self) -> u64 {
        self.filters.replaced
    }

    /// Drops the filters of a framework, for one role or for all (semantics B7).
    pub fn clear_filters(&mut self, framework: FrameworkId, role: Option<&RoleName>) {
        let leaves = match role {
            Some(role) => self.tree.find_leaf(framework, role).into_iter().collect(),
            None => self.tree.leaves_of(framework).to_vec(),
        };
        if self.filters.len_of(framework) == 0 {
            return;
        }
        for leaf in leaves {
            self.filters.clear_leaf(framework, leaf);
            self.forget_leaf(leaf);
        }
        self.touch_all();
    }

    /// Ends the filters that are due.
    pub fn expire_filters(&mut self, now: Timestamp) {
        if self.filters.next_expiry().is_none_or(|first| first > now) {
            return;
        }
        let mut leaves = Vec::new();
        let (tree, dirty, with_free) = (&self.tree, &mut self.dirty, &self.with_free);
        let touched = |leaf, slave: SlaveId| {
            if with_free.contains(slave.0) {
                dirty.insert(slave.0);
            }
            leaves.push(leaf);
        };
        self.filters
            .expire(now, |leaf| tree.framework_of(leaf), touched);
        leaves.sort_unstable();
        leaves.dedup();
        for leaf in leaves {
            self.forget_leaf(leaf);
        }
    }

    /// When the next filter ends, or one that is gone would have.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.filters.next_expiry()
    }

    /// Whether a round may find something to offer.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() && self.tree.active() > 0
    }

    /// Sees to it that a round looks at a slave, if there is something to look at.
    fn touch(&mut self, slave: SlaveId) {
        self.note_free(slave);
        if self.with_free.contains(slave.0) {
            self.dirty.insert(slave.0);
        }
    }

    fn note_free(&mut self, slave: SlaveId) {
        let can_offer = |row: &&Slave| row.exclusion().is_none() && row.has_free();
        if let Some(row) = self.slaves.get(slave.0).filter(can_offer) {
            self.with_free.insert(slave.0);
            match row.is_plain() {
                true => self.mixed.remove(slave.0),
                false => self.mixed.insert(slave.0),
            };
        } else {
            self.with_free.remove(slave.0);
            self.mixed.remove(slave.0);
            self.dirty.remove(slave.0);
            self.held_back.remove(slave.0);
        }
    }

    fn touch_all(&mut self) {
        self.dirty.insert_all(&self.with_free);
    }

    /// There may be room under a limit, or more than guarantees need.
    fn touch_held_back(&mut self, has_more_room: bool) {
        if self.held_back.is_empty() {
            return;
        }
        // More that is free is of no use under a limit, only where it is kept for guarantees.
        if has_more_room || !self.tree.required_below().is_zero() {
            self.dirty.insert_all(&self.held_back);
            self.held_back.clear();
        }
    }

    /// Forgets a leaf that wants nothing, holds nothing and hides nothing.
    fn forget_leaf(&mut self, leaf: LeafSlot) {
        if self.filters.is_free_of(leaf)
            && self.tree.framework_of(leaf).is_some()
            && self.wishes.get(leaf).is_none()
        {
            self.tree.drop_leaf(leaf);
        }
    }

    fn count_total(&mut self, total: &Resources, is_more: bool) {
        let amounts = self.names.amounts(total);
        self.totals.change(&amounts, is_more);
        self.count_reserved(total, is_more);
    }

    fn count_reserved(&mut self, all: &Resources, is_more: bool) {
        let reserved = all
            .iter()
            .filter(|it| !it.is_revocable() && !it.is_shared());
        for resource in reserved {
            if let Some(role) = resource.reservations().role() {
                let amounts = self.names.amounts([resource]);
                self.tree.reserve(role, &amounts, is_more);
            }
        }
    }

    /// What is free on a slave that takes part.
    #[must_use]
    pub fn free(&self, slave: SlaveId) -> Option<&Resources> {
        self.slaves.get(slave.0).map(|row| &*row.free)
    }

    /// Whether what is free on a slave is offered.
    #[must_use]
    pub fn is_offerable(&self, slave: SlaveId) -> bool {
        let row = self.slaves.get(slave.0);
        row.is_some_and(|row| row.exclusion().is_none())
    }

    /// What a slave that takes part has.
    #[must_use]
    pub fn total(&self, slave: SlaveId) -> Option<&Resources> {
        self.slaves.get(slave.0).map(|row| &*row.total)
    }

    /// Whether a framework is charged exactly this in a role (M6).
    #[must_use]
    pub fn is_charged_with(
        &self,
        framework: FrameworkId,
        role: &RoleName,
        resources: &Resources,
    ) -> bool {
        let mut expected = Amounts::default();
        for resource in resources {
            if let (Value::Scalar(scalar), Some(number)) =
                (resource.value(), self.names.find(resource.name()))
            {
                expected.add(number, scalar.thousandths());
            }
        }
        match self.tree.find_leaf(framework, role) {
            Some(leaf) => *self.tree.leaf(leaf).held() == expected,
            None => expected.is_zero(),
        }
    }

    /// Whether orders, counts and indexes agree with what they were made from.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let mut available = Amounts::default();
        let mut totals = Amounts::default();
        for (number, row) in self.slaves.iter() {
            let is_offered = row.exclusion().is_none();
            let add = |sum: &mut Amounts, resource: &meros_proto::resources::Resource| {
                if let (Value::Scalar(scalar), Some(at)) =
                    (resource.value(), self.names.find(resource.name()))
                {
                    sum.add(at, scalar.thousandths());
                }
            };
            for resource in row
                .free
                .iter()
                .filter(|it| is_offered && !it.is_revocable())
            {
                if resource.is_unreserved() {
                    add(&mut available, resource);
                }
            }
            for resource in &*row.total {
                add(&mut totals, resource);
            }
            let has_free = is_offered && !row.free.is_empty();
            if self.with_free.contains(number) != has_free
                || self.mixed.contains(number) != (has_free && !row.is_plain())
                || !row.is_consistent(&self.names)
            {
                return false;
            }
        }
        let is_active =
            |leaf: u32| self.tree.framework_of(leaf).is_some() && self.tree.leaf(leaf).is_active;
        available == self.available
            && totals == self.totals
            && self.active.len() == self.tree.active()
            && self.active.iter().all(is_active)
            && self.dirty.iter().all(|it| self.with_free.contains(it))
            && self.tree.is_consistent()
            && self
                .filters
                .is_consistent(|leaf| self.tree.framework_of(leaf))
    }
}

/// Whether a part of it counts against somebody's quota whoever holds it, so that guarantees and
/// limits change with it.
fn has_reservations(resources: &Resources) -> bool {
    resources.iter().any(|it| !it.is_unreserved())
}
