//! What of a slave's free resources may be offered to a framework in a role, or why nothing.
//!
//! This is the only place that says no; rounds and explanations ask the same function. The reason
//! is the first that applies, in the order of semantics E2.

use std::sync::Arc;

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::resources::{Resource, ResourceName, Resources, Scalar, Value};
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;
use smallvec::SmallVec;

use super::amounts::{Amounts, depth_of};
use super::slaves::Slave;
use super::tree::{LeafSlot, NodeSlot, is_full};
use super::{Allocator, Exclusion, Minimum};

/// What may be offered.
#[derive(Debug, Clone)]
pub(super) enum Portion {
    /// All that is free on the slave, so that it can be moved.
    All,
    /// A part of it.
    Part(Arc<Resources>),
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
    /// Kept for others.
    Guarantees(usize),
    /// More than is due to it for a guarantee, for whose sake it is asked.
    Owed(usize),
    /// Of this role, if it is not the framework or the master that asks for more.
    BelowMinimum(Option<NodeSlot>),
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

/// What is taken to be otherwise than it is, to find out what would have to change.
#[derive(Debug, Default)]
pub(super) struct Relief {
    /// By how much limits and guarantees give way.
    pub(super) given: SmallVec<[(Why, i64); 2]>,
    /// What counts as free beside what does.
    pub(super) freed: Amounts,
    /// To the framework everything is worth an offer.
    pub(super) asks_for_less: bool,
    /// In the role everything is worth an offer, unless the framework says otherwise.
    pub(super) has_no_minimum: bool,
    /// The framework has declined nothing.
    pub(super) is_revived: bool,
}

impl Relief {
    fn by(&self, why: Why) -> i64 {
        let given = self.given.iter().filter(|(it, _)| *it == why);
        given.map(|(_, by)| by).sum()
    }
}

/// What limits and guarantees leave of a sum, and which of them have cut it.
pub(super) struct Cut {
    pub(super) part: Resources,
    pub(super) by: SmallVec<[Why; 4]>,
}

/// No more than `left` of what is reserved less deep than `depth` and not revocable.
pub(super) struct Cap {
    pub(super) number: usize,
    depth: u32,
    pub(super) left: i64,
    pub(super) why: Why,
}

/// What has been found to stand in the way of an offer. The first is all that a round wants to know;
/// what would have to change is all of it.
pub(super) trait Objections {
    /// One more; an error ends the judgement with it.
    fn raise(&mut self, why: Why) -> Result<(), Why>;
}

/// The first one ends the judgement.
pub(super) struct First;

impl Objections for First {
    fn raise(&mut self, why: Why) -> Result<(), Why> {
        Err(why)
    }
}

/// Each is noted, and the judgement goes on as if it were not so.
#[derive(Debug, Default)]
pub(super) struct All(pub(super) SmallVec<[Why; 4]>);

impl Objections for All {
    fn raise(&mut self, why: Why) -> Result<(), Why> {
        if !self.0.contains(&why) {
            self.0.push(why);
        }
        Ok(())
    }
}

/// For whom it is judged: a framework in a role.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) framework: FrameworkId,
    pub(super) role: &'a RoleName,
    /// The role, or the nearest one above it that is known.
    pub(super) node: NodeSlot,
    /// None if nothing is known of it in this role.
    pub(super) leaf: Option<LeafSlot>,
    pub(super) is_active: bool,
}

/// What is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) slave: SlaveId,
    pub(super) row: &'a Slave,
    pub(super) candidate: Candidate<'a>,
    pub(super) stage: Stage,
    /// None in a round.
    pub(super) relief: Option<&'a Relief>,
}

impl Allocator {
    /// A leaf as a candidate.
    pub(super) fn candidate(&self, slot: LeafSlot) -> Candidate<'_> {
        let leaf = self.tree.leaf(slot);
        Candidate {
            framework: leaf.framework,
            role: &self.tree.node(leaf.node).name,
            node: leaf.node,
            leaf: Some(slot),
            is_active: leaf.is_active,
        }
    }

    /// What of a slave may be offered to a candidate, unless an objection ends the judgement.
    #[inline]
    pub(super) fn judge(
        &self,
        case: Case<'_>,
        objections: &mut impl Objections,
    ) -> Result<Portion, Why> {
        let portion = self.judge_kind(case, objections)?;
        if portion.of(&case.row.free).is_empty() {
            return Ok(portion);
        }
        self.judge_amounts(case, portion, objections)
    }

    /// What of a slave a candidate may have and can do with, whatever the amounts.
    #[inline]
    pub(super) fn judge_kind(
        &self,
        case: Case<'_>,
        objections: &mut impl Objections,
    ) -> Result<Portion, Why> {
        let Case { row, candidate, .. } = case;
        if let Some(exclusion) = row.exclusion() {
            objections.raise(Why::Excluded(exclusion))?;
        }
        if !row.has_free() {
            objections.raise(Why::NothingFree)?;
        }
        if !candidate.is_active {
            objections.raise(Why::Inactive)?;
        }
        let framework = self.framework(candidate.framework);
        if framework.is_at_its_limit() && self.others_are_active(candidate.framework) {
            objections.raise(Why::Holding)?;
        }
        let wishes = candidate.leaf.and_then(|leaf| self.wishes_of(leaf));
        let constraints = wishes.and_then(|wishes| wishes.constraints.as_ref());
        if let Some((group, place)) = constraints.and_then(|it| it.refusing(&row.profile)) {
            objections.raise(Why::Constraint(group, place))?;
        }
        self.strip(row, candidate, objections)
    }

    /// How much of that limits and guarantees leave, if it is worth an offer and not declined.
    #[inline]
    pub(super) fn judge_amounts(
        &self,
        case: Case<'_>,
        mut portion: Portion,
        objections: &mut impl Objections,
    ) -> Result<Portion, Why> {
        if let Some(cut) = self.cap(case, &portion) {
            let part = Portion::Part(cut.part.into());
            if self.is_to_blame(case, &part, &portion) {
                for why in cut.by {
                    objections.raise(why)?;
                }
            } else {
                portion = part;
            }
        }
        if let Some(why) = self.too_little(case, &portion) {
            objections.raise(why)?;
        }
        if let Some(until) = self.hidden_until(case, portion.of(&case.row.free)) {
            objections.raise(Why::Filtered(until))?;
        }
        Ok(portion)
    }

    /// Whether it is for limits and guarantees that nothing is offered: what they leave is no use
    /// to anybody, or not worth an offer, or declined, and the whole is not.
    fn is_to_blame(&self, case: Case<'_>, part: &Portion, whole: &Portion) -> bool {
        let (left, all) = (part.of(&case.row.free), whole.of(&case.row.free));
        // Ports and sets alone are no use to anybody.
        if !left.iter().any(|it| matches!(it.value(), Value::Scalar(_)))
            || (!self.minimum.is_met_by(left) && self.minimum.is_met_by(all))
        {
            return true;
        }
        if self.too_little(case, part).is_some() {
            return self.too_little(case, whole).is_none();
        }
        let is_hidden = |offered| self.hidden_until(case, offered).is_some();
        is_hidden(left) && !is_hidden(all)
    }

    /// Why it is not worth an offer.
    fn too_little(&self, case: Case<'_>, portion: &Portion) -> Option<Why> {
        let Case { row, candidate, .. } = case;
        let offered = portion.of(&row.free);
        // Shared volumes stay free when they are offered: alone they would be offered without end.
        if !row.is_plain() && offered.iter().all(Resource::is_shared) {
            return Some(Why::BelowMinimum(None));
        }
        if case.relief.is_some_and(|relief| relief.asks_for_less) {
            return None;
        }
        let wishes = candidate.leaf.and_then(|leaf| self.wishes_of(leaf));
        let constraints = wishes.and_then(|wishes| wishes.constraints.as_ref());
        let (of_role, is_worth_it) = match self.minimum_of(candidate) {
            None if matches!(portion, Portion::All) && row.is_plain() => {
                (None, self.tree.is_worth(&row.charge.plain))
            }
            None => (None, self.minimum.is_met_by(offered)),
            Some((Some(_), _)) if case.relief.is_some_and(|it| it.has_no_minimum) => (None, true),
            Some((of_role, minimum)) => (of_role, minimum.is_met_by(offered)),
        };
        if !is_worth_it {
            return Some(Why::BelowMinimum(of_role));
        }
        let is_wanted = constraints.is_none_or(|it| it.least.is_met_by(offered));
        (!is_wanted).then_some(Why::BelowMinimum(None))
    }

    /// What is worth an offer to a candidate in place of the master's minimum, and the role that says
    /// so, if it does not say so itself.
    pub(super) fn minimum_of(
        &self,
        candidate: Candidate<'_>,
    ) -> Option<(Option<NodeSlot>, &Minimum)> {
        let wishes = candidate.leaf.and_then(|leaf| self.wishes_of(leaf));
        if let Some(own) = wishes.and_then(|wishes| wishes.minimum.as_ref()) {
            return Some((None, own));
        }
        let of_role = self.tree.minimum_of(candidate.node);
        of_role.map(|(node, minimum)| (Some(node), minimum))
    }

    /// Until when a candidate does not want to be offered this.
    fn hidden_until(&self, case: Case<'_>, offered: &Resources) -> Option<Timestamp> {
        if case.relief.is_some_and(|relief| relief.is_revived) {
            return None;
        }
        self.filters
            .until(case.candidate.leaf?, case.slave, offered)
    }

    /// What its role may have and the framework understands.
    fn strip(
        &self,
        row: &Slave,
        candidate: Candidate<'_>,
        objections: &mut impl Objections,
    ) -> Result<Portion, Why> {
        let abilities = self.framework(candidate.framework).abilities;
        if row.has_gpus && !abilities.gpus {
            objections.raise(Why::Gpus)?;
        }
        if row.is_plain() {
            return Ok(Portion::All);
        }
        let refuse = |resource: &Resource| {
            if !resource.reservations().allow(candidate.role) {
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
        if !part.is_empty() {
            return Ok(Portion::Part(part.into()));
        }
        objections.raise(first)?;
        let if_allowed = |resource: &Resource| refuse(resource) == Some(first);
        Ok(Portion::Part(row.free.filter(if_allowed).into()))
    }

    /// No more than limits leave, and nothing that guarantees of others need (semantics E8); none
    /// if that is all.
    fn cap(&self, case: Case<'_>, portion: &Portion) -> Option<Cut> {
        if !self.tree.has_quota() {
            return None;
        }
        let row = case.row;
        let caps = self.caps(case.candidate.node, case.stage, case.relief);
        let offered = portion.of(&row.free);
        let fits = match portion {
            // All of it counts for every cap.
            Portion::All if row.is_plain() => caps
                .iter()
                .all(|cap| row.charge.plain.get(cap.number) <= cap.left),
            _ => self.fits(offered, &caps),
        };
        match fits {
            true => None,
            false => Some(self.cut(offered, caps)).filter(|cut| !cut.by.is_empty()),
        }
    }

    /// What caps leave of a sum.
    pub(super) fn cut(&self, offered: &Resources, mut caps: SmallVec<[Cap; 8]>) -> Cut {
        let mut by: SmallVec<[Why; 4]> = SmallVec::new();
        let mut part = Resources::new();
        for resource in offered {
            let Some((number, amount, depth)) = self.counted(resource) else {
                add(&mut part, resource.clone());
                continue;
            };
            let concerns = |cap: &Cap| cap.number == number && depth < cap.depth;
            let mut allowed = amount;
            for cap in caps.iter().filter(|it| concerns(it)) {
                allowed = allowed.min(cap.left);
                if cap.left < amount && !by.contains(&cap.why) {
                    by.push(cap.why);
                }
            }
            if allowed < amount && resource.volume().is_some() {
                continue;
            }
            if resource.name() == &ResourceName::GPUS {
                allowed -= allowed % Scalar::ONE.thousandths();
            }
            for cap in caps.iter_mut().filter(|it| concerns(it)) {
                cap.left -= allowed;
            }
            let scalar = Scalar::from_thousandths(allowed).unwrap_or(Scalar::ZERO);
            add(&mut part, resource.with_amount(scalar));
        }
        Cut { part, by }
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

    /// All that limits the offers of a role at a stage.
    pub(super) fn caps(
        &self,
        node: NodeSlot,
        stage: Stage,
        relief: Option<&Relief>,
    ) -> SmallVec<[Cap; 8]> {
        let by = |why| relief.map_or(0, |relief| relief.by(why));
        let mut caps: SmallVec<[Cap; 8]> = SmallVec::new();
        let mut at = node;
        while at != super::tree::ROOT {
            let node = self.tree.node(at);
            let first = caps.len();
            caps.extend(node.left().map(|(number, left)| {
                let why = Why::Limit(at, number);
                Cap {
                    number,
                    depth: node.depth,
                    left: left.saturating_add(by(why)).max(0),
                    why,
                }
            }));
            let room = || caps[first..].iter().map(|cap: &Cap| (cap.number, cap.left));
            if is_full(room, &self.tree.minimum)
                && let Some((limited, _)) = room().min_by_key(|(_, room)| *room)
            {
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
                    why: Why::Owed(*number),
                });
            }
        }
        for (number, required) in self.tree.required_below().iter() {
            if required > 0 && !guaranteed.contains(&number) {
                let why = Why::Guarantees(number);
                let freed = relief.map_or(0, |relief| relief.freed.get(number));
                let available = self.available.get(number) + freed;
                caps.push(Cap {
                    number,
                    depth: 1,
                    left: (available - (required - by(why)).max(0)).max(0),
                    why,
                });
            }
        }
        caps
    }

    /// The times at which a role is asked: for each guarantee on its path that is not met, and at
    /// everybody's turn.
    pub(super) fn stages(&self, node: NodeSlot) -> impl Iterator<Item = Stage> {
        let owed = self
            .tree
            .path(node)
            .filter(|node| node.unmet().next().is_some());
        owed.filter_map(|node| self.tree.find_node(&node.name))
            .map(Stage::Guarantee)
            .chain([Stage::Share])
    }

    fn limited_names(&self) -> impl Iterator<Item = usize> + use<> {
        0..self.totals.len()
    }

    /// Whether anybody else could use what a framework holds.
    fn others_are_active(&self, framework: FrameworkId) -> bool {
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
