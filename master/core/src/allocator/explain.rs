//! Why a framework is offered nothing, from the decision path itself.

use std::collections::BTreeMap;

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::resources::ResourceName;
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

use super::judge::{Candidate, Case, First, Why};
use super::slaves::Slave;
use super::{Allocator, Exclusion, SmallestChange};

/// The first reason why nothing of a slave can be offered to a framework in a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The whole slave is left out.
    Excluded(Exclusion),
    /// All it has is offered or in use.
    NothingFree,
    /// The framework is away, or has suppressed the role.
    Inactive,
    /// It has as many unanswered offers as it may while others want some.
    Holding {
        /// The most.
        most: u32,
    },
    /// A constraint of its own does not hold.
    Constraint {
        /// The first group, from 0, …
        group: usize,
        /// … and the first constraint in it that does not hold, from 0.
        place: usize,
    },
    /// The slave has graphics processors, and the framework has not said that it uses some.
    Gpus,
    /// What is free is revocable or shared, and the framework has not said that it can do with it.
    Revocable,
    /// What is free has reservations on top of reservations, which the framework does not know.
    Refined,
    /// What is free is reserved for other roles.
    ReservedForOthers,
    /// A limit is reached, or leaves no more than what the framework has declined or does not want.
    Limit {
        /// The role that is limited, or one above it.
        role: RoleName,
        /// What of.
        resource: ResourceName,
    },
    /// What is free is kept for guarantees of other roles, or all but what the framework has declined
    /// or does not want.
    Guarantees {
        /// What of.
        resource: ResourceName,
    },
    /// What is free is too little to be worth an offer.
    BelowMinimum {
        /// The role whose minimum that is; none for the master's, or what the framework asks for.
        of: Option<RoleName>,
    },
    /// The framework has declined it, or more.
    Filtered,
}

impl Reason {
    /// The stable word for it, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Excluded(Exclusion::Away) => "slave_away",
            Self::Excluded(Exclusion::ByOperator) => "slave_excluded",
            Self::NothingFree => "nothing_free",
            Self::Inactive => "inactive",
            Self::Holding { .. } => "holding",
            Self::Constraint { .. } => "constraint",
            Self::Gpus => "gpus",
            Self::Revocable => "revocable",
            Self::Refined => "refined",
            Self::ReservedForOthers => "reserved",
            Self::Limit { .. } => "limit",
            Self::Guarantees { .. } => "guarantees",
            Self::BelowMinimum { .. } => "below_minimum",
            Self::Filtered => "declined",
        }
    }

    /// The least that would have to change, for people.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Excluded(Exclusion::Away) => "bring the slave back".to_owned(),
            Self::Excluded(Exclusion::ByOperator) => "activate the slave again".to_owned(),
            Self::NothingFree => "wait until tasks end or offers are answered".to_owned(),
            Self::Inactive => "subscribe, or revive the role".to_owned(),
            Self::Holding { most } => {
                format!("answer some of the {most} offers that it holds")
            }
            Self::Constraint { group, place } => {
                format!("relax constraint {place} of group {group}")
            }
            Self::Gpus => "declare the capability GPU_RESOURCES".to_owned(),
            Self::Revocable => {
                "declare the capability REVOCABLE_RESOURCES or SHARED_RESOURCES".to_owned()
            }
            Self::Refined => "declare the capability RESERVATION_REFINEMENT".to_owned(),
            Self::ReservedForOthers => "unreserve resources, or use their role".to_owned(),
            Self::Limit { role, resource } => {
                format!("raise the limit of {resource} of role {role}")
            }
            Self::Guarantees { resource } => {
                format!("lower the guarantees of {resource} of other roles, or add slaves")
            }
            Self::BelowMinimum { of: None } => {
                "wait for more to become free, or ask for less".to_owned()
            }
            Self::BelowMinimum { of: Some(role) } => {
                format!("wait for more to become free, or lower the minimum of role {role}")
            }
            Self::Filtered => "revive the role, or wait until the decline ends".to_owned(),
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Excluded(Exclusion::Away) => f.write_str("the slave is away"),
            Self::Excluded(Exclusion::ByOperator) => {
                f.write_str("the slave is draining or deactivated")
            }
            Self::NothingFree => f.write_str("all is offered or in use"),
            Self::Inactive => f.write_str("the framework is away or has suppressed the role"),
            Self::Holding { most } => write!(
                f,
                "the framework keeps offers long without using them, and holds the {most} that it may"
            ),
            Self::Constraint { group, place } => {
                write!(f, "its constraint {place} of group {group} does not hold")
            }
            Self::Gpus => f.write_str("the slave has gpus, which the framework does not use"),
            Self::Revocable => {
                f.write_str("what is free is revocable or shared, which it cannot do with")
            }
            Self::Refined => {
                f.write_str("what is free has refined reservations, which it does not know")
            }
            Self::ReservedForOthers => f.write_str("what is free is reserved for other roles"),
            Self::Limit { role, resource } => {
                write!(f, "role {role} is at its limit of {resource}")
            }
            Self::Guarantees { resource } => {
                write!(
                    f,
                    "the {resource} that are free are kept for guarantees of other roles"
                )
            }
            Self::BelowMinimum { of: None } => {
                f.write_str("what is free is too little to be worth an offer")
            }
            Self::BelowMinimum { of: Some(role) } => {
                write!(f, "what is free is less than the minimum of role {role}")
            }
            Self::Filtered => f.write_str("the framework has declined it, or more"),
        }
    }
}

/// What was found for a framework in a role, over all slaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Slaves of which something can be offered at its next turn.
    pub offerable: u32,
    /// For how many slaves each reason is the first.
    pub refused: BTreeMap<Reason, u32>,
    /// When the first decline that hides something ends.
    pub filter_ends: Option<Timestamp>,
    /// The least that would make an offer possible; none if something can be offered already, or
    /// if there is no slave.
    pub smallest_change: Option<SmallestChange>,
}

impl Allocator {
    /// Whether something of a slave can be offered to a framework in a role at its turn, or the
    /// first reason why not, and until when if it is a decline.
    ///
    /// # Errors
    /// The reason.
    pub fn explain(
        &self,
        framework: FrameworkId,
        role: &RoleName,
        slave: SlaveId,
    ) -> Result<(), (Reason, Option<Timestamp>)> {
        let candidate = self.find_candidate(framework, role);
        match self.slaves.get(slave.0) {
            Some(row) => self.explain_slave((slave, row), candidate),
            None => Err((Reason::Excluded(Exclusion::Away), None)),
        }
    }

    fn explain_slave(
        &self,
        (slave, row): (SlaveId, &Slave),
        candidate: Candidate<'_>,
    ) -> Result<(), (Reason, Option<Timestamp>)> {
        let mut first = None;
        for stage in self.stages(candidate.node) {
            let case = Case {
                slave,
                row,
                candidate,
                stage,
                relief: None,
            };
            match self.judge(case, &mut First) {
                Ok(_) => return Ok(()),
                // Nothing more is due to it; that does not keep it from its share.
                Err(Why::Owed(_)) => {}
                Err(refused) => {
                    first.get_or_insert(refused);
                }
            }
        }
        let why = first.expect("nothing is owed at everybody's turn");
        Err((self.reason(why, candidate.framework), until(why)))
    }

    /// A framework in a role, whether or not anything is known of it.
    fn find_candidate<'a>(&'a self, framework: FrameworkId, role: &'a RoleName) -> Candidate<'a> {
        match self.tree.find_leaf(framework, role) {
            Some(leaf) => self.candidate(leaf),
            None => Candidate {
                framework,
                role,
                node: self.tree.nearest_node(role),
                leaf: None,
                is_active: false,
            },
        }
    }

    /// The same for all slaves together, and what would have to change. Takes a time in proportion
    /// to the number of slaves.
    #[must_use]
    pub fn explain_all(&self, framework: FrameworkId, role: &RoleName) -> Explanation {
        let slaves = self.slaves.iter();
        self.explain_slaves(
            framework,
            role,
            slaves.map(|(slave, row)| (SlaveId(slave), row)),
        )
    }

    /// The same for one slave.
    #[must_use]
    pub fn explain_one(
        &self,
        framework: FrameworkId,
        role: &RoleName,
        slave: SlaveId,
    ) -> Explanation {
        let row = self.slaves.get(slave.0);
        self.explain_slaves(framework, role, row.map(|row| (slave, row)).into_iter())
    }

    fn explain_slaves<'a>(
        &self,
        framework: FrameworkId,
        role: &RoleName,
        slaves: impl Iterator<Item = (SlaveId, &'a Slave)> + Clone,
    ) -> Explanation {
        let candidate = self.find_candidate(framework, role);
        let mut explanation = Explanation::default();
        for slave in slaves.clone() {
            match self.explain_slave(slave, candidate) {
                Ok(()) => explanation.offerable += 1,
                Err((reason, until)) => {
                    *explanation.refused.entry(reason).or_default() += 1;
                    let ends = [explanation.filter_ends, until];
                    explanation.filter_ends = ends.into_iter().flatten().min();
                }
            }
        }
        if explanation.offerable == 0 {
            explanation.smallest_change = self.smallest_change(slaves, candidate);
        }
        explanation
    }

    fn reason(&self, why: Why, framework: FrameworkId) -> Reason {
        let name = |number| {
            self.names
                .name(number)
                .cloned()
                .unwrap_or(ResourceName::CPUS)
        };
        match why {
            Why::Excluded(exclusion) => Reason::Excluded(exclusion),
            Why::NothingFree => Reason::NothingFree,
            Why::Inactive => Reason::Inactive,
            Why::Holding => Reason::Holding {
                most: self.framework(framework).outstanding_max,
            },
            Why::Constraint(group, place) => Reason::Constraint { group, place },
            Why::Gpus => Reason::Gpus,
            Why::Revocable => Reason::Revocable,
            Why::Refined => Reason::Refined,
            Why::ReservedForOthers => Reason::ReservedForOthers,
            Why::Limit(node, number) => Reason::Limit {
                role: self.tree.node(node).name.clone(),
                resource: name(number),
            },
            Why::Guarantees(number) | Why::Owed(number) => Reason::Guarantees {
                resource: name(number),
            },
            Why::BelowMinimum(node) => Reason::BelowMinimum {
                of: node.map(|node| self.tree.node(node).name.clone()),
            },
            Why::Filtered(_) => Reason::Filtered,
        }
    }
}

fn until(why: Why) -> Option<Timestamp> {
    match why {
        Why::Filtered(until) => Some(until),
        _ => None,
    }
}
