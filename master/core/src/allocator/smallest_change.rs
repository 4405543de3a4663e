//! The smallest change that would make an offer possible.
//!
//! What is in the way whatever the amounts is found by the same judgement as in a round, which notes each
//! objection and goes on as if it were lifted. About amounts some remedies are thought of, and each is
//! judged as if it were done. So all that is advised is enough, and what of it is not needed is left
//! out. One thing is not searched: where nothing that is free may be had, for unlike reasons, the first
//! of them is lifted.

use meros_proto::framework::FrameworkCapability;
use meros_proto::ids::SlaveId;
use meros_proto::resources::{Resource, ResourceName, Resources, Scalar, Value};
use meros_proto::time::Timestamp;

use super::amounts::Charge;
use super::judge::{All, Candidate, Case, First, Portion, Relief, Why};
use super::slaves::{Slave, exclusive};
use super::tree::NodeSlot;
use super::{Allocator, Change, Minimum, SmallestChange};

/// A part of a remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// The slave lacks so much of what the framework asks for.
    AskForLess(Resources),
    /// The same of the minimum of a role.
    LowerMinimum(NodeSlot, Resources),
    FreeUp(Resources),
    /// A limit or guarantees give way by so much.
    GiveWay(Why, i64),
    Revive(Timestamp),
}

impl Allocator {
    /// Of all slaves' changes the ones of least effort: what the framework can do itself before
    /// what an operator must do, before what nobody can order; then the fewest, then the smallest.
    pub(super) fn smallest_change<'a>(
        &self,
        slaves: impl Iterator<Item = (SlaveId, &'a Slave)>,
        candidate: Candidate<'_>,
    ) -> Option<SmallestChange> {
        let mut best: Option<SmallestChange> = None;
        for (slave, row) in slaves {
            let Some(changes) = self.changes_for((slave, row), candidate) else {
                continue;
            };
            match &mut best {
                Some(best) if best.changes == changes => best.slaves += 1,
                Some(best) if rank(&best.changes) <= rank(&changes) => {}
                _ => {
                    best = Some(SmallestChange {
                        changes,
                        slave,
                        slaves: 1,
                    });
                }
            }
        }
        best
    }

    /// What would have to change for something of one slave: of the times at which the candidate is
    /// asked the one that takes the least.
    fn changes_for(
        &self,
        (slave, row): (SlaveId, &Slave),
        candidate: Candidate<'_>,
    ) -> Option<Vec<Change>> {
        let at = |stage| {
            self.changes_at(Case {
                slave,
                row,
                candidate,
                stage,
                relief: None,
            })
        };
        let all = self.stages(candidate.node).filter_map(at);
        all.min_by_key(|changes| rank(changes))
    }

    /// The same at one of these times; none if nothing helps then.
    fn changes_at(&self, case: Case<'_>) -> Option<Vec<Change>> {
        let mut objections = All::default();
        let whole = self
            .judge_kind(case, &mut objections)
            .expect("it goes on at each objection");
        let whole = whole.of(&case.row.free);
        let mut changes = Vec::new();
        for why in &objections.0 {
            self.add_simple_changes(&mut changes, *why, case, whole);
        }
        changes.extend(self.changes_of_amounts(case, whole)?);
        Some(changes)
    }

    /// What helps against an objection, unless it is about amounts: that depends on which least
    /// amount is the nearest.
    fn add_simple_changes(
        &self,
        changes: &mut Vec<Change>,
        why: Why,
        case: Case<'_>,
        whole: &Resources,
    ) {
        let Case { row, candidate, .. } = case;
        match why {
            // The reason is the first; both may be so.
            Why::Excluded(_) => {
                let away = (!row.is_here).then_some(Change::BringBackSlave);
                let taken_out = row.is_excluded.then_some(Change::ReactivateSlave);
                changes.extend(away.into_iter().chain(taken_out));
            }
            Why::Inactive => changes.push(Change::Activate),
            Why::Holding => changes.push(Change::AnswerOffers {
                count: self.framework(candidate.framework).above_its_limit(),
            }),
            Why::Constraint(..) => {
                let wishes = candidate.leaf.and_then(|leaf| self.wishes_of(leaf));
                let constraints = wishes.and_then(|wishes| wishes.constraints.as_ref());
                let nearest = constraints.map(|it| it.nearest(&row.profile));
                let relax = |(group, place)| Change::Relax { group, place };
                changes.extend(nearest.into_iter().flatten().map(relax));
            }
            Why::Gpus => changes.push(Change::Declare(FrameworkCapability::GpuResources)),
            Why::Revocable => changes.push(Change::Declare(match whole.iter().next() {
                Some(first) if first.is_shared() => FrameworkCapability::SharedResources,
                _ => FrameworkCapability::RevocableResources,
            })),
            Why::Refined => {
                changes.push(Change::Declare(FrameworkCapability::ReservationRefinement));
            }
            Why::ReservedForOthers => changes.push(Change::Unreserve),
            Why::NothingFree
            | Why::Limit(..)
            | Why::Guarantees(_)
            | Why::Owed(_)
            | Why::BelowMinimum(_)
            | Why::Filtered(_) => {}
        }
    }

    /// What would have to change for enough of what is free and may be had, which is `whole`.
    fn changes_of_amounts(&self, case: Case<'_>, whole: &Resources) -> Option<Vec<Change>> {
        let least = self.least_amounts(case.candidate).into_iter();
        let changes = least.filter_map(|least| self.changes_for_least(case, whole, &least));
        changes.min_by_key(|changes| rank(changes))
    }

    /// The same for one of the least amounts that are worth an offer: what the minimum asks for, and
    /// what the framework's constraints do.
    fn changes_for_least(
        &self,
        case: Case<'_>,
        whole: &Resources,
        (minimum, constraints): &(Resources, Resources),
    ) -> Option<Vec<Change>> {
        let total = &case.row.total;
        let mut steps = Vec::new();
        let mut wanted = Resources::new();
        let mut never = lacking(constraints, total);
        if never.is_empty() {
            wanted = constraints.clone();
        }
        let of_role = self.minimum_of(case.candidate).and_then(|(role, _)| role);
        let never_of_minimum = lacking(minimum, total);
        match of_role {
            _ if never_of_minimum.is_empty() => wanted = larger(&wanted, minimum),
            Some(role) => steps.push(Step::LowerMinimum(role, never_of_minimum)),
            None => never = larger(&never, &never_of_minimum),
        }
        if !never.is_empty() {
            steps.push(Step::AskForLess(never));
        }
        // Of shared volumes alone nothing is offered.
        let own = exclusive(whole);
        if wanted.is_empty() {
            wanted = least_of(if own.is_empty() { total } else { &own });
        }
        let missing = lacking(&wanted, &own);
        if !missing.is_empty() {
            steps.push(Step::FreeUp(missing));
        }
        let as_it_is = self.enough(case, whole, steps.clone());
        as_it_is.or_else(|| self.with_more_room(case, whole, &steps, &wanted))
    }

    /// The same if limits or guarantees are in the way.
    fn with_more_room(
        &self,
        case: Case<'_>,
        whole: &Resources,
        steps: &[Step],
        wanted: &Resources,
    ) -> Option<Vec<Change>> {
        if !self.tree.has_quota() {
            return None;
        }
        let (relief, all) = self.after(case, whole, steps);
        let with_room_for = |target: &Resources| {
            let mut steps = steps.to_vec();
            self.add_room_for(&mut steps, target, case, &relief);
            self.enough(case, whole, steps)
        };
        // A role that cannot have the least of the master is full, whatever is asked for.
        let masters = &self.minimum.any_of;
        let or_masters = |target: &Resources| {
            let all = std::iter::once(target.clone());
            let all = all.chain(masters.iter().map(|least| larger(target, least)));
            all.filter_map(|target| with_room_for(&target))
                .min_by_key(|changes| rank(changes))
        };
        or_masters(wanted)
            .or_else(|| {
                let more = self.more_than_declined(case, &all, &relief).into_iter();
                more.filter_map(|target| with_room_for(&larger(wanted, &target)))
                    .min_by_key(|changes| rank(changes))
            })
            .or_else(|| or_masters(&all))
    }

    /// What is free on the slave when some steps are done, and what is otherwise then.
    fn after(&self, case: Case<'_>, whole: &Resources, steps: &[Step]) -> (Relief, Resources) {
        let mut relief = Relief::default();
        if case.row.exclusion().is_some() {
            // What it has free counts as free only once it is offered.
            relief.freed = case.row.charge.plain.clone();
        }
        let mut all = whole.clone();
        for step in steps {
            match step {
                Step::AskForLess(_) => relief.asks_for_less = true,
                Step::LowerMinimum(..) => relief.has_no_minimum = true,
                Step::FreeUp(missing) => {
                    let freed = Charge::of(missing, &self.names);
                    relief.freed.add_all(&freed.plain);
                    all.checked_add_assign(missing)
                        .expect("neither is more than what the slave has in all");
                }
                Step::GiveWay(why, by) => relief.given.push((*why, *by)),
                Step::Revive(_) => relief.is_revived = true,
            }
        }
        (relief, all)
    }

    /// Whether something can be offered when some steps are done.
    fn judge_after(&self, case: Case<'_>, whole: &Resources, steps: &[Step]) -> Result<(), Why> {
        let (relief, all) = self.after(case, whole, steps);
        if all.is_empty() {
            return Err(Why::NothingFree);
        }
        let case = Case {
            relief: Some(&relief),
            ..case
        };
        let offered = self.judge_amounts(case, Portion::Part(all.into()), &mut First);
        offered.map(drop)
    }

    /// What of some steps is enough, if all of them are, or are when declines end as well.
    fn enough(
        &self,
        case: Case<'_>,
        whole: &Resources,
        mut steps: Vec<Step>,
    ) -> Option<Vec<Change>> {
        match self.judge_after(case, whole, &steps) {
            Ok(()) => {}
            Err(Why::Filtered(until)) => {
                steps.push(Step::Revive(until));
                self.judge_after(case, whole, &steps).ok()?;
            }
            Err(_) => return None,
        }
        for at in (0..steps.len()).rev() {
            let step = steps.remove(at);
            if self.judge_after(case, whole, &steps).is_err() {
                steps.insert(at, step);
            }
        }
        steps.into_iter().map(|step| self.change(step)).collect()
    }

    /// A step for those who take it; none if it is about more than there can be.
    fn change(&self, step: Step) -> Option<Change> {
        let role = |node| self.tree.node(node).name.clone();
        Some(match step {
            Step::AskForLess(missing) => Change::AskForLess { missing },
            Step::LowerMinimum(node, missing) => Change::LowerMinimum {
                role: role(node),
                missing,
            },
            Step::FreeUp(missing) => Change::FreeUp { missing },
            Step::GiveWay(Why::Limit(node, number), by) => Change::RaiseLimit {
                role: role(node),
                resource: self.names.name(number)?.clone(),
                by: Scalar::from_thousandths(by)?,
            },
            Step::GiveWay(Why::Guarantees(number), by) => Change::LowerGuarantees {
                resource: self.names.name(number)?.clone(),
                by: Scalar::from_thousandths(by)?,
            },
            Step::GiveWay(..) => return None,
            Step::Revive(until) => Change::Revive { until },
        })
    }

    /// What would be offered where what limits and guarantees leave has been declined: more than that
    /// of one of the names that they cut.
    fn more_than_declined(
        &self,
        case: Case<'_>,
        all: &Resources,
        relief: &Relief,
    ) -> Vec<Resources> {
        let Some(leaf) = case.candidate.leaf else {
            return Vec::new();
        };
        let caps = self.caps(case.candidate.node, case.stage, Some(relief));
        let cut = self.cut(all, caps);
        let more_of = |why: &Why| {
            let (Why::Limit(_, number) | Why::Guarantees(number)) = why else {
                return None;
            };
            let name = self.names.name(*number)?;
            let step = self.least_step(name);
            let mut amount = cut.part.scalar(name);
            loop {
                amount = amount.saturating_add(step);
                if amount > all.scalar(name) {
                    return None;
                }
                let of_name = Resources::from(Resource::new(name.clone(), amount).ok()?);
                let more = larger(&cut.part, &of_name);
                match self.filters.hiding(leaf, case.slave, &more) {
                    Some(refused) => amount = refused.scalar(name).max(amount),
                    None => return Some(of_name),
                }
            }
        };
        cut.by.iter().filter_map(more_of).collect()
    }

    /// The least of a name that is worth an offer by itself.
    fn least_step(&self, name: &ResourceName) -> Scalar {
        let steps = self.minimum.any_of.iter().map(|least| least.scalar(name));
        let least = steps.filter(|step| !step.is_zero()).min();
        least.unwrap_or_else(|| match *name == ResourceName::GPUS {
            true => Scalar::ONE,
            false => Scalar::from_thousandths(1).unwrap_or(Scalar::ONE),
        })
    }

    /// The least amounts that are worth an offer to a candidate, any one of them: by the minimum, and
    /// by the constraints of the framework.
    fn least_amounts(&self, candidate: Candidate<'_>) -> Vec<(Resources, Resources)> {
        let minimum = self.minimum_of(candidate).map(|(_, minimum)| minimum);
        let wishes = candidate.leaf.and_then(|leaf| self.wishes_of(leaf));
        let constraints = wishes.and_then(|wishes| wishes.constraints.as_ref());
        let any_of = |minimum: Option<&Minimum>| match minimum {
            Some(minimum) if !minimum.any_of.is_empty() => minimum.any_of.clone(),
            _ => vec![Resources::new()],
        };
        let of_constraints = any_of(constraints.map(|it| &it.least));
        let of_minimum = any_of(Some(minimum.unwrap_or(&self.minimum)));
        let both = |least: Resources| {
            let with = of_constraints.iter().cloned();
            with.map(move |other| (least.clone(), other))
        };
        of_minimum.into_iter().flat_map(both).collect()
    }

    /// By how much limits and guarantees would have to give way for so much.
    fn add_room_for(
        &self,
        steps: &mut Vec<Step>,
        target: &Resources,
        case: Case<'_>,
        relief: &Relief,
    ) {
        for cap in self.caps(case.candidate.node, case.stage, None) {
            let Some(resource) = self.names.name(cap.number) else {
                continue;
            };
            // Limits may be exceeded already, and more be guaranteed than there is.
            let left = match cap.why {
                Why::Limit(node, number) if number == cap.number => {
                    let mut left = self.tree.node(node).left();
                    left.find(|(it, _)| *it == number)
                        .map_or(cap.left, |it| it.1)
                }
                Why::Guarantees(number) => {
                    let free = self.available.get(number) + relief.freed.get(number);
                    free - self.tree.required_below().get(number)
                }
                // It gets nothing else while it is full of another; that one is in the list. And what
                // is owed to it for a guarantee is no more than that.
                _ => continue,
            };
            let wanted = target.scalar(resource).thousandths();
            let step = Step::GiveWay(cap.why, wanted.saturating_sub(left));
            if wanted > left.max(0) && !steps.contains(&step) {
                steps.push(step);
            }
        }
    }
}

/// What of some scalars is not there.
fn lacking(least: &Resources, has: &Resources) -> Resources {
    let mut lacking = Resources::new();
    for resource in least {
        let Value::Scalar(wanted) = resource.value() else {
            continue;
        };
        let missing = wanted.saturating_sub(has.scalar(resource.name()));
        let missing = Resources::from(resource.with_amount(missing));
        lacking
            .checked_add_assign(&missing)
            .expect("no more than the least");
    }
    lacking
}

/// Of each scalar the larger amount.
fn larger(one: &Resources, other: &Resources) -> Resources {
    let mut sum = one.clone();
    sum.checked_add_assign(&lacking(other, one))
        .expect("no more than the larger one");
    sum
}

/// Anything is worth an offer: the least that there is of something that is free, or of a
/// processor.
fn least_of(offered: &Resources) -> Resources {
    let mut scalars = offered
        .iter()
        .filter(|it| matches!(it.value(), Value::Scalar(_)));
    let name = scalars.next().map_or(&ResourceName::CPUS, Resource::name);
    let least = match *name == ResourceName::GPUS {
        true => Some(Scalar::ONE),
        false => Scalar::from_thousandths(1),
    };
    Resource::new(name.clone(), least.unwrap_or(Scalar::ONE))
        .expect("a scalar of a name that has scalars")
        .into()
}

/// The hardest of some changes, their number, and what they are about.
fn rank(changes: &[Change]) -> (Option<u32>, usize, i64) {
    let hardest = changes.iter().map(Change::effort).max();
    let sizes = changes.iter().map(Change::size);
    (hardest, changes.len(), sizes.fold(0, i64::saturating_add))
}
