//! What would have to change so that something can be offered.

use std::fmt;

use meros_proto::framework::FrameworkCapability;
use meros_proto::ids::SlaveId;
use meros_proto::resources::{ResourceName, Resources, Scalar, Value};
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;

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
    /// Lower the minimum of a role, because the slave will never have that much.
    LowerMinimum {
        /// That of this role.
        role: RoleName,
        /// What the slave lacks of it.
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
            Self::LowerMinimum { .. } => "lower_minimum",
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
    pub(super) fn effort(&self) -> u32 {
        match self {
            Self::Revive { .. } | Self::Activate | Self::AnswerOffers { .. } => 0,
            Self::Relax { .. } | Self::Declare(_) | Self::AskForLess { .. } => 1,
            Self::LowerMinimum { .. }
            | Self::RaiseLimit { .. }
            | Self::LowerGuarantees { .. }
            | Self::Unreserve
            | Self::ReactivateSlave => 2,
            Self::FreeUp { .. } | Self::BringBackSlave => 3,
        }
    }

    /// Of two like changes the one that is about less comes first.
    pub(super) fn size(&self) -> i64 {
        let all = |resources: &Resources| {
            let amounts = resources.iter().map(|it| match it.value() {
                Value::Scalar(scalar) => scalar.thousandths(),
                Value::Ranges(_) | Value::Set(_) => 0,
            });
            amounts.fold(0, i64::saturating_add)
        };
        match self {
            Self::AskForLess { missing }
            | Self::LowerMinimum { missing, .. }
            | Self::FreeUp { missing } => all(missing),
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
            Self::LowerMinimum { role, missing } => {
                write!(
                    f,
                    "lower the minimum of role {role}: the slave lacks {missing} of it"
                )
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
