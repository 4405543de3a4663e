//! Offers, and what a framework does with them (semantics B4, C2, D, E).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attribute::Attributes;
use crate::group::TaskGroup;
use crate::ids::{FrameworkId, OfferId, SlaveId};
use crate::maintenance::Unavailability;
use crate::operation::ResourceOperation;
use crate::resources::Resources;
use crate::role::RoleName;
use crate::task::TaskDescription;

/// How long declined resources stay hidden when the framework does not say (semantics E3).
pub const REFUSE_DEFAULT: Duration = Duration::from_secs(5);
/// The longest a decline counts; a longer one is cut to it (semantics E3).
pub const REFUSE_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Resources of one slave for one role of one framework, to be used once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What to accept or decline.
    pub offer_id: OfferId,
    /// For whom.
    pub framework_id: FrameworkId,
    /// Where.
    pub slave_id: SlaveId,
    /// The slave's host name.
    pub hostname: String,
    /// Where the slave's HTTP endpoint listens; empty if it has none.
    pub http_address: String,
    /// The role the resources are allocated to.
    pub role: RoleName,
    /// What is offered.
    pub resources: Resources,
    /// The slave's attributes.
    pub attributes: Attributes,
    /// When the slave will not be available, if its maintenance is planned: a task that must not be
    /// interrupted, and would not be done by then, had better go elsewhere.
    pub unavailability: Option<Unavailability>,
}

/// What follows for resources that are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    /// Not offered again to this framework, for this role, on this slave, for this long, unless
    /// there is more of them (semantics E3). Zero: no filter. At most [`REFUSE_MAX`]. Where many
    /// frameworks decline what they are offered, a decline lasts longer, five minutes at most, so that
    /// others are asked in between; a revival ends it.
    pub refuse: Duration,
}

impl Default for Filters {
    fn default() -> Self {
        Self {
            refuse: REFUSE_DEFAULT,
        }
    }
}

/// One step of an accept; steps are carried out in order (semantics B4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Launch tasks; each is judged by itself (semantics D1).
    Launch(Vec<TaskDescription>),
    /// Reserve, unreserve, create, destroy, grow or shrink volumes; the next step sees the outcome (semantics D3).
    Change(Box<ResourceOperation>),
    /// Launch tasks that start all or none (semantics D2): if one of them is invalid, or they do not all fit, all end
    /// as TASK_ERROR.
    LaunchGroup(Box<TaskGroup>),
}

impl Operation {
    /// The tasks that it launches, if it launches any.
    #[must_use]
    pub fn tasks(&self) -> &[TaskDescription] {
        match self {
            Self::Launch(tasks) => tasks,
            Self::LaunchGroup(group) => &group.tasks,
            Self::Change(_) => &[],
        }
    }
}
