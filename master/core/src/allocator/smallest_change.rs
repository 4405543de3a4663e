//! The smallest change that would make an offer possible: the same judgement as in a round, which
//! notes each objection and goes on as if it were lifted.
//!
//! All of it together is enough, and no part of it is: what is needed against limits and guarantees
//! is judged once more with it done. Amounts are the least that is worth an offer. One thing is not
//! searched: where nothing that is free may be had, for unlike reasons, the first of them is lifted.

use std::fmt;

use meros_proto::framework::FrameworkCapability;
use meros_proto::ids::SlaveId;
use meros_proto::resources::{Resource, ResourceName, Resources, Scalar, Value};
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

use super::Allocator;
use super::amounts::{Amounts, Charge};
use super::judge::{All, Candidate, Portion, Relief, Stage, Why};
use super::slaves::Slave;

/// One thing that would have to change, as an order to whoever can give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Revive the role, or wait.
    Revive {
        /// When the last decline that hides something ends.
        until: Timestamp,
    },
    /// Subscribe, or revive the role.
    Activate,
    /// Answer offers that the framework holds.
    AnswerOffers {
        /// So many.
        count: u32,
    },
    /// Relax a constraint of the framework.
    Relax {
        /// Its group, from 0, …
        group: usize,
        /// … and its place in it, from 0.
        place: usize,
    },
    /// Declare a capability.
    Declare(FrameworkCapability),
    /// Ask for less, because the slave will never have that much.
    AskForLess {
        /// What the slave lacks of the least that is worth an offer.
        missing: Resources,
    },
    /// Raise a limit.
    RaiseLimit {
        /// Of this role.
        role: RoleName,
        /// What of.
        resource: ResourceName,
        /// By so much.
        by: Scalar,
    },
    /// Lower guarantees that are not met, of whatever role, or add slaves.
    LowerGuarantees {
        /// What of.
        resource: ResourceName,
        /// By so much, all together.
        by: Scalar,
    },
    /// Unreserve what is free, or use the role that it is reserved for.
    Unreserve,
    /// Activate the slave again.
    ReactivateSlave,
    /// End tasks or answer offers on the slave, or wait until that happens.
    FreeUp {
        /// At least these.
        missing: Resources,
    },
    /// Bring the slave back.
    BringBackSlave,
}

impl Change {
    /// The word for it in JSON and metrics, which does not change.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Revive { .. } => "revive",
            Self::Activate => "activate",
            Self::AnswerOffers { .. } => "answer_offers",
            Self::Relax { .. } => "relax",
            Self::Declare(_) => "declare",
            Self::AskForLess { .. } => "ask_for_less",
            Self::RaiseLimit { .. } => "raise_limit",
            Self::LowerGuarantees { .. } => "lower_guarantees",
            Self::Unreserve => "unreserve",
            Self::ReactivateSlave => "reactivate_slave",
            Self::FreeUp { .. } => "free_up",
            Self::BringBackSlave => "bring_back_slave",
        }
    }

    /// The framework can do the first by a call and the next by another description of itself;
    /// others are the operator's, and the last are nobody's to order.
    fn effort(&self) -> u32 {
        match self {
            Self::Revive { .. } | Self::Activate | Self::AnswerOffers { .. } => 0,
            Self::Relax { .. } | Self::Declare(_) | Self::AskForLess { .. } => 1,
            Self::RaiseLimit { .. }
            | Self::LowerGuarantees { .. }
            | Self::Unreserve
            | Self::ReactivateSlave => 2,
            Self::FreeUp { .. } | Self::BringBackSlave => 3,
        }
    }

    /// Of two like changes the one that is about less comes first.
    fn size(&self) -> i64 {
        let all = |resources: &Resources| {
            let amounts = resources.iter().map(|it| match it.value() {
                Value::Scalar(scalar) => scalar.thousandths(),
                Value::Ranges(_) | Value::Set(_) => 0,
            });
            amounts.fold(0, i64::saturating_add)
        };
        match self {
            Self::AskForLess { missing } | Self::FreeUp { missing } => all(missing),
            Self::RaiseLimit { by, .. } | Self::LowerGuarantees { by, .. } => by.thousandths(),
            Self::AnswerOffers { count } => i64::from(*count),
            _ => 0,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revive { .. } => f.write_str("revive the role, or wait until the decline ends"),
            Self::Activate => f.write_str("subscribe, or revive the role"),
            Self::AnswerOffers { count: 1 } => f.write_str("answer an offer that it holds"),
            Self::AnswerOffers { count } => write!(f, "answer {count} of the offers that it holds"),
            Self::Relax { group, place } => write!(f, "relax constraint {place} of group {group}"),
            Self::Declare(capability) => {
                f.write_str("declare the capability ")?;
                f.write_str(match capability {
                    FrameworkCapability::PartitionAware => "PARTITION_AWARE",
                    FrameworkCapability::TaskKillingState => "TASK_KILLING_STATE",
                    FrameworkCapability::RevocableResources => "REVOCABLE_RESOURCES",
                    FrameworkCapability::SharedResources => "SHARED_RESOURCES",
                    FrameworkCapability::GpuResources => "GPU_RESOURCES",
                    FrameworkCapability::ReservationRefinement => "RESERVATION_REFINEMENT",
                })
            }
            Self::AskForLess { missing } => {
                write!(f, "ask for less: the slave lacks {missing} of the least")
            }
            Self::RaiseLimit { role, resource, by } => {
                write!(f, "raise the limit of {resource} of role {role} by {by}")
            }
            Self::LowerGuarantees { resource, by } => {
                write!(f, "lower guarantees of {resource} by {by}, or add slaves")
            }
            Self::Unreserve => f.write_str("unreserve resources, or use their role"),
            Self::ReactivateSlave => f.write_str("activate the slave again"),
            Self::FreeUp { missing } => write!(f, "wait until {missing} more becomes free"),
            Self::BringBackSlave => f.write_str("bring the slave back"),
        }
    }
}

/// Changes that together make an offer possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallestChange {
    /// All of them are needed.
    pub changes: Vec<Change>,
    /// The first slave of which something could be offered then.
    pub slave: SlaveId,
    /// For so many slaves in all it is the same changes.
    pub slaves: u32,
}

impl fmt::Display for SmallestChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, change) in self.changes.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", and " };
            write!(f, "{separator}{change}")?;
        }
        write!(f, ": slave {}", self.slave)?;
        match self.slaves - 1 {
            0 => Ok(()),
            1 => f.write_str(" and 1 other"),
            others => write!(f, " and {others} others"),
        }
    }
}

/// For whom, where and when it is asked what would have to change.
#[derive(Clone, Copy)]
struct Question<'a> {
    slave: SlaveId,
    row: &'a Slave,
    candidate: Candidate<'a>,
    stage: Stage,
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
            self.changes_at(Question {
                slave,
                row,
                candidate,
                stage,
            })
        };
        let all = self.stages(candidate.node).filter_map(at);
        all.min_by_key(|changes| rank(changes))
    }

    /// The same at one of these times; none if nothing helps then.
    fn changes_at(&self, question: Question<'_>) -> Option<Vec<Change>> {
        let Question { slave, row, .. } = question;
        let mut objections = All::default();
        let offered = self
            .judge(
                (slave, row),
                question.candidate,
                question.stage,
                &mut objections,
            )
            .expect("it goes on at each objection");
        let offered = offered.of(&row.free);
        let mut changes = Vec::new();
        for why in &objections.0 {
            self.add_simple_changes(&mut changes, *why, question, offered);
        }
        let is_limited =
            |why: &Why| matches!(why, Why::Limit(..) | Why::Guarantees(_) | Why::Owed(_));
        let is_limited = objections.0.iter().any(is_limited);
        if !is_limited && !offered.is_empty() && !objections.0.contains(&Why::BelowMinimum) {
            let hidden = self.hidden_until(slave, offered, question.candidate);
            changes.extend(hidden.map(|until| Change::Revive { until }));
            return Some(changes);
        }
        let alternatives = self.least_amounts(question.candidate, offered);
        let about_amounts = alternatives
            .iter()
            .filter_map(|least| self.changes_of_amounts(question, offered, is_limited, least));
        let more = is_limited
            .then(|| self.more_than_declined(question, offered))
            .flatten();
        let all = about_amounts.chain(more);
        changes.extend(all.min_by_key(|changes| rank(changes))?);
        Some(changes)
    }

    /// What helps against an objection, unless it is about amounts: that depends on which least
    /// amount is the nearest.
    fn add_simple_changes(
        &self,
        changes: &mut Vec<Change>,
        why: Why,
        question: Question<'_>,
        offered: &Resources,
    ) {
        let Question { row, candidate, .. } = question;
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
            Why::Revocable => changes.push(Change::Declare(match offered.iter().next() {
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
            | Why::BelowMinimum
            | Why::Filtered(_) => {}
        }
    }

    /// What would have to change so that at least these amounts of what is on a slave, of which
    /// `offered` is free, can be offered; none if that cannot be, or is what has been declined
    /// already.
    fn changes_of_amounts(
        &self,
        question: Question<'_>,
        offered: &Resources,
        is_limited: bool,
        least: &Resources,
    ) -> Option<Vec<Change>> {
        let Question { row, candidate, .. } = question;
        let never = lacking(least, &row.total);
        let reachable = reachable(least, &never, offered, &row.total);
        let missing = lacking(&reachable, offered);
        let mut relief = relief_of(row);
        relief
            .freed
            .add_all(&Charge::of(&missing, &self.names).plain);
        let mut all = offered.clone();
        all.checked_add_assign(&missing)
            .expect("the least amounts are small");
        let left = |relief: &Relief| {
            let caps = self.caps(candidate.node, question.stage, Some(relief));
            self.cut(&all, caps).part
        };
        let mut changes = Vec::new();
        if is_limited || !missing.is_empty() {
            // A role that cannot have the least is full, whatever it asks for.
            let least = larger(least, &reachable);
            changes = self.room_for(&least, question, &mut relief)?;
            // What is reserved may be enough where what is not is kept for others.
            for at in (0..changes.len()).rev() {
                let given = relief.given.remove(at);
                if lacking(&reachable, &left(&relief)).is_empty() {
                    changes.remove(at);
                } else {
                    relief.given.insert(at, given);
                }
            }
        }
        let part = left(&relief);
        let ask = (!never.is_empty()).then_some(Change::AskForLess { missing: never });
        let free_up = (!missing.is_empty()).then_some(Change::FreeUp { missing });
        changes.splice(0..0, ask.into_iter().chain(free_up));
        match self.hidden_until(question.slave, &part, candidate) {
            Some(_) if is_limited && changes.is_empty() && part != all => return None,
            Some(until) => changes.push(Change::Revive { until }),
            None => {}
        }
        Some(changes)
    }

    /// What would have to change when what limits and guarantees leave would do and has been
    /// declined: they must leave more than that of one of the names that they cut, or of all.
    fn more_than_declined(
        &self,
        question: Question<'_>,
        offered: &Resources,
    ) -> Option<Vec<Change>> {
        let candidate = question.candidate;
        let leaf = candidate.leaf?;
        let relief = relief_of(question.row);
        let caps = self.caps(candidate.node, question.stage, Some(&relief));
        let cut = self.cut(offered, caps);
        if !self.minimum.is_met_by(&cut.part)
            || !self.is_enough(
                question.row,
                &Portion::Part(cut.part.clone().into()),
                candidate,
            )
        {
            return None;
        }
        let more_of = |why: &Why| {
            let (Why::Limit(_, number) | Why::Guarantees(number)) = why else {
                return None;
            };
            let name = self.names.name(*number)?;
            let step = self.least_step(name);
            let mut amount = cut.part.scalar(name);
            loop {
                amount = amount.saturating_add(step);
                let more = Resources::from(Resource::new(name.clone(), amount).ok()?);
                let more = larger(&cut.part, &more);
                if amount > offered.scalar(name) {
                    return None;
                }
                match self.filters.hiding(leaf, question.slave, &more) {
                    Some(refused) => amount = refused.scalar(name).max(amount),
                    None => break,
                }
            }
            let least = Resources::from(Resource::new(name.clone(), amount).ok()?);
            self.changes_of_amounts(question, offered, true, &least)
        };
        let more_of_one = cut.by.iter().filter_map(more_of);
        let least = more_of_one.min_by_key(|changes| rank(changes));
        least.or_else(|| self.changes_of_amounts(question, offered, true, offered))
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

    /// The least amounts any one of which is worth an offer to a candidate, and that leave its
    /// role something under its limits.
    fn least_amounts(&self, candidate: Candidate<'_>, offered: &Resources) -> Vec<Resources> {
        let wishes = candidate.leaf.and_then(|leaf| self.wishes_of(leaf));
        let own = wishes.and_then(|wishes| wishes.minimum.as_ref());
        let constraints = wishes.and_then(|wishes| wishes.constraints.as_ref());
        let mut all = own.unwrap_or(&self.minimum).any_of.clone();
        for more in [
            constraints.map(|it| &it.least),
            Some(&self.minimum).filter(|_| own.is_some() && self.tree.has_quota()),
        ] {
            let any_of = more.map_or(&[][..], |more| &more.any_of);
            all = match (all.is_empty(), any_of.is_empty()) {
                (_, true) => all,
                (true, false) => any_of.to_vec(),
                (false, false) => {
                    let both = |one: &Resources| any_of.iter().map(|it| larger(one, it)).collect();
                    all.iter().flat_map::<Vec<_>, _>(both).collect()
                }
            };
        }
        match all.is_empty() {
            true => vec![least_of(offered)],
            false => all,
        }
    }

    /// What limits and guarantees would have to give way for so much, which is added to the relief;
    /// none if it is more than is due for the sake of a guarantee.
    fn room_for(
        &self,
        least: &Resources,
        question: Question<'_>,
        relief: &mut Relief,
    ) -> Option<Vec<Change>> {
        let mut changes: Vec<Change> = Vec::new();
        for cap in self.caps(question.candidate.node, question.stage, None) {
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
                // It gets nothing else while it is full of another; that one is in the list.
                Why::Limit(..) => continue,
                Why::Owed(_) => cap.left,
                _ => {
                    let free = self.available.get(cap.number) + relief.freed.get(cap.number);
                    free - self.tree.required_below().get(cap.number)
                }
            };
            let wanted = least.scalar(resource).thousandths();
            if wanted == 0 || wanted <= left {
                continue;
            }
            let given = (cap.why, wanted - left);
            let resource = resource.clone();
            let by = Scalar::from_thousandths(given.1)?;
            let change = match cap.why {
                Why::Owed(_) => return None,
                Why::Limit(node, _) => Change::RaiseLimit {
                    role: self.tree.node(node).name.clone(),
                    resource,
                    by,
                },
                _ => Change::LowerGuarantees { resource, by },
            };
            if !changes.contains(&change) {
                changes.push(change);
                relief.given.push(given);
            }
        }
        Some(changes)
    }
}

/// What a slave has free counts as free only once it is offered.
fn relief_of(row: &Slave) -> Relief {
    Relief {
        freed: match row.exclusion() {
            Some(_) => row.charge.plain.clone(),
            None => Amounts::default(),
        },
        ..Relief::default()
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

/// The least, or if a slave can never have that, what it can have.
fn reachable(
    least: &Resources,
    never: &Resources,
    offered: &Resources,
    total: &Resources,
) -> Resources {
    let reachable = lacking(least, never);
    match (never.is_empty(), offered.is_empty()) {
        (true, _) => least.clone(),
        (false, false) => least_of(offered),
        (false, true) if reachable.is_empty() => least_of(total),
        (false, true) => reachable,
    }
}

/// The hardest of some changes, their number, and what they are about.
fn rank(changes: &[Change]) -> (Option<u32>, usize, i64) {
    let hardest = changes.iter().map(Change::effort).max();
    let sizes = changes.iter().map(Change::size);
    (hardest, changes.len(), sizes.fold(0, i64::saturating_add))
}
