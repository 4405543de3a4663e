//! What of a slave's free resources may be offered to a framework in a role, or why nothing.
//!
//! This is the only place that says no; rounds and explanations ask the same function. The reason
//! is the first that applies, in the order of semantics E2.

use meros_proto::ids::SlaveId;
use meros_proto::resources::{Resource, ResourceName, Resources, Scalar, Value};
use meros_proto::time::Timestamp;
use smallvec::SmallVec;

use super::amounts::Amounts;
use super::slaves::Slave;
use super::tree::{LeafSlot, NodeSlot, depth_of};
use super::{Allocator, Exclusion, Minimum};

/// What may be offered.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for one decision, and a box would allocate in each"
)]
pub(super) enum Portion {
    /// All that is free on the slave, so that it can be moved.
    All,
    /// A part of it.
    Part(Resources),
}

/// Why nothing may be offered. Slots and numbers instead of names, because in a round nobody reads
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Excluded(Exclusion),
    NothingFree,
    Inactive,
    Holding,
    Constraint(usize, usize),
    Gpus,
    Revocable,
    Refined,
    ReservedForOthers,
    Limit(NodeSlot, usize),
    Guarantees(usize),
    BelowMinimum,
    Filtered(Timestamp),
}

/// For which sake a leaf is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// What this role is guaranteed and has not.
    Guarantee(NodeSlot),
    /// Everybody's turn.
    Share,
}

/// No more than `left` of what is reserved less deep than `depth` and not revocable.
struct Cap {
    number: usize,
    depth: u32,
    left: i64,
    why: Why,
}

impl Allocator {
    /// What of a slave may be offered to a leaf.
    pub(super) fn judge(
        &self,
        (slave, row): (SlaveId, &Slave),
        slot: LeafSlot,
        stage: Stage,
    ) -> Result<Portion, Why> {
        if let Some(exclusion) = row.exclusion() {
            return Err(Why::Excluded(exclusion));
        }
        if row.free.is_empty() {
            return Err(Why::NothingFree);
        }
        let leaf = self.tree.leaf(slot);
        if !leaf.is_active {
            return Err(Why::Inactive);
        }
        let framework = self.framework(leaf.framework);
        if framework.is_at_its_limit() && self.others_are_active(leaf.framework) {
            return Err(Why::Holding);
        }
        let wishes = self.wishes.get(&(leaf.framework, slot));
        let constraints = wishes.and_then(|wishes| wishes.constraints.as_ref());
        if let Some((group, place)) = constraints.and_then(|it| it.refusing(&row.profile)) {
            return Err(Why::Constraint(group, place));
        }
        let portion = self.strip(row, slot)?;
        let portion = self.cap(row, portion, slot, stage)?;
        let offered = portion.of(&row.free);
        let own_minimum = wishes.and_then(|wishes| wishes.minimum.as_ref());
        if !own_minimum.unwrap_or(&self.minimum).is_met_by(offered) {
            return Err(Why::BelowMinimum);
        }
        if constraints.is_some_and(|it| !it.least.is_met_by(offered)) {
            return Err(Why::BelowMinimum);
        }
        match self.filters.until(slot, slave, offered) {
            Some(until) => Err(Why::Filtered(until)),
            None => Ok(portion),
        }
    }

    /// What its role may have and the framework understands.
    fn strip(&self, row: &Slave, slot: LeafSlot) -> Result<Portion, Why> {
        let leaf = self.tree.leaf(slot);
        let abilities = self.framework(leaf.framework).abilities;
        if row.has_gpus && !abilities.gpus {
            return Err(Why::Gpus);
        }
        let role = &self.tree.node(leaf.node).name;
        let refuse = |resource: &Resource| {
            if !resource.reservations().allow(role) {
                Some(Why::ReservedForOthers)
            } else if (resource.is_revocable() && !abilities.revocable)
                || (resource.is_shared() && !abilities.shared)
            {
                Some(Why::Revocable)
            } else if resource.reservations().as_slice().len() > 1 && !abilities.refined {
                Some(Why::Refined)
            } else {
                None
            }
        };
        let Some(first) = row.free.iter().find_map(&refuse) else {
            return Ok(Portion::All);
        };
        let part = row.free.filter(|resource| refuse(resource).is_none());
        if part.is_empty() {
            return Err(first);
        }
        Ok(Portion::Part(part))
    }

    /// No more than limits leave, and nothing that guarantees of others need (semantics E8).
    fn cap(
        &self,
        row: &Slave,
        portion: Portion,
        slot: LeafSlot,
        stage: Stage,
    ) -> Result<Portion, Why> {
        if !self.tree.has_quota() {
            return Ok(portion);
        }
        let mut caps = self.caps(slot, stage);
        let offered = portion.of(&row.free);
        if self.fits(offered, &caps) {
            return Ok(portion);
        }
        let mut first = None;
        let mut part = Resources::new();
        for resource in offered {
            let Some((number, amount, depth)) = self.counted(resource) else {
                add(&mut part, resource.clone());
                continue;
            };
            let mut allowed = amount;
            for cap in caps
                .iter()
                .filter(|it| it.number == number && depth < it.depth)
            {
                if cap.left < allowed {
                    allowed = cap.left;
                    first.get_or_insert(cap.why);
                }
            }
            if allowed < amount && resource.volume().is_some() {
                continue;
            }
            if resource.name() == &ResourceName::GPUS {
                allowed -= allowed % Scalar::ONE.thousandths();
            }
            for cap in caps
                .iter_mut()
                .filter(|it| it.number == number && depth < it.depth)
            {
                cap.left -= allowed;
            }
            let scalar = Scalar::from_thousandths(allowed).unwrap_or(Scalar::ZERO);
            add(&mut part, resource.with_amount(scalar));
        }
        let Some(first) = first else {
            return Ok(portion);
        };
        // Ports and sets alone are no use to anybody.
        if part
            .iter()
            .all(|it| !matches!(it.value(), Value::Scalar(_)))
        {
            return Err(first);
        }
        // Too little because of a limit is the limit's doing.
        if !self.minimum.is_met_by(&part) && self.minimum.is_met_by(offered) {
            return Err(first);
        }
        Ok(Portion::Part(part))
    }

    /// Whether no cap cuts anything off.
    fn fits(&self, offered: &Resources, caps: &[Cap]) -> bool {
        let wanted = |cap: &Cap| -> i64 {
            let counted = offered.iter().filter_map(|it| self.counted(it));
            let counted =
                counted.filter(|(number, _, depth)| *number == cap.number && *depth < cap.depth);
            counted.map(|(_, amount, _)| amount).sum()
        };
        caps.iter().all(|cap| wanted(cap) <= cap.left)
    }

    /// Number, amount and depth of reservation of what counts against quota.
    fn counted(&self, resource: &Resource) -> Option<(usize, i64, u32)> {
        let Value::Scalar(scalar) = resource.value() else {
            return None;
        };
        if resource.is_revocable() || resource.is_shared() {
            return None;
        }
        let number = self.names.find(resource.name())?;
        let depth = resource.reservations().role().map_or(0, depth_of);
        Some((number, scalar.thousandths(), depth))
    }

    fn caps(&self, slot: LeafSlot, stage: Stage) -> SmallVec<[Cap; 8]> {
        let mut caps = SmallVec::new();
        let mut at = self.tree.leaf(slot).node;
        while at != super::tree::ROOT {
            let node = self.tree.node(at);
            let is_full = node.is_full(&self.tree.minimum);
            caps.extend(node.room().map(|(number, room)| Cap {
                number,
                depth: node.depth,
                left: room,
                why: Why::Limit(at, number),
            }));
            if is_full && let Some((limited, _)) = node.room().min_by_key(|(_, room)| *room) {
                // Of what is left of the other names it gets nothing either.
                caps.extend(self.limited_names().map(|number| Cap {
                    number,
                    depth: node.depth,
                    left: 0,
                    why: Why::Limit(at, limited),
                }));
            }
            at = node.parent;
        }
        let mut guaranteed: SmallVec<[usize; 4]> = SmallVec::new();
        if let Stage::Guarantee(node) = stage {
            let node = self.tree.node(node);
            let quota = node
                .quota
                .as_deref()
                .expect("a guarantee that is not met is one");
            for (number, _) in &quota.guarantees {
                let unmet = node.unmet().find(|(it, _)| it == number);
                guaranteed.push(*number);
                caps.push(Cap {
                    number: *number,
                    depth: 1,
                    left: unmet.map_or(0, |(_, missing)| missing),
                    why: Why::Guarantees(*number),
                });
            }
        }
        for (number, required) in self.tree.required_below().iter() {
            if required > 0 && !guaranteed.contains(&number) {
                caps.push(Cap {
                    number,
                    depth: 1,
                    left: (self.available.get(number) - required).max(0),
                    why: Why::Guarantees(number),
                });
            }
        }
        caps
    }

    fn limited_names(&self) -> impl Iterator<Item = usize> + use<> {
        0..self.totals.len()
    }

    /// Whether anybody else could use what a framework holds.
    fn others_are_active(&self, framework: meros_proto::ids::FrameworkId) -> bool {
        let leaves = self.tree.leaves_of(framework).iter();
        let own = leaves
            .filter(|leaf| self.tree.leaf(**leaf).is_active)
            .count();
        self.tree.active() > own
    }
}

impl Portion {
    pub(super) fn of<'a>(&'a self, free: &'a Resources) -> &'a Resources {
        match self {
            Self::All => free,
            Self::Part(part) => part,
        }
    }
}

fn add(sum: &mut Resources, resource: Resource) {
    sum.checked_add_assign(&resource.into())
        .expect("a part of what one slave has");
}

impl Minimum {
    /// As amounts, for roles that are full.
    pub(super) fn amounts(&self, names: &mut super::amounts::Names) -> Vec<Amounts> {
        let alternatives = self.any_of.iter();
        alternatives.map(|least| names.amounts(least)).collect()
    }
}
