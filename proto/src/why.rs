//! Why somebody is offered nothing, and what has become of a task: the answers of `meros why` and
//! of `GET /api/v1/why`.
//!
//! They come from the leading master's own decision path, not from a projection. Texts are for
//! people, codes are stable.

use serde::{Deserialize, Serialize};

use crate::ids::{FrameworkId, SlaveId, TaskId};
use crate::role::RoleName;
use crate::status::{Reason, TaskState};
use crate::time::Timestamp;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyQuestion {
    /// What keeps a framework from offers, in each of its roles, over all slaves.
    Framework(FrameworkId),
    /// The same for all frameworks in a role.
    Role(RoleName),
    /// What keeps all frameworks from offers of one slave.
    Slave(SlaveId),
    /// What a task is waiting for, or how it ended.
    Task(FrameworkId, TaskId),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// To questions about frameworks, roles and slaves.
    Offers(WhyOffers),
    /// To a question about a task.
    Task(WhyTask),
}

/// What keeps frameworks from offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyOffers {
    /// One for each framework and role that was asked about.
    pub rows: Vec<WhyRow>,
    /// So many frameworks and roles were not looked at: it would have kept the master from its work
    /// for too long. Ask about them one by one.
    pub left_out: u64,
}

/// What keeps one framework in one role from offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyRow {
    /// The framework.
    pub framework_id: FrameworkId,
    /// Its name.
    pub name: String,
    /// The role.
    pub role: RoleName,
    /// Offers that it holds unanswered, of all its roles.
    pub holds: u64,
    /// Slaves of which something can be offered at its next turn.
    pub offerable: u64,
    /// For each reason the slaves for which it is the first that applies; most slaves first.
    pub reasons: Vec<WhyReason>,
    /// When the first decline that hides something ends.
    pub declined_until: Option<Timestamp>,
    /// The least that would have to change for an offer; none if something can be offered.
    pub smallest_change: Option<String>,
}

/// Why nothing of some slaves is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyReason {
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub text: String,
    /// What would help.
    pub advice: String,
    /// So many slaves.
    pub slaves: u64,
}

/// What is to be said of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyTask {
    /// Whose.
    pub framework_id: FrameworkId,
    /// Which.
    pub task_id: TaskId,
    /// Where it is or was.
    pub slave_id: SlaveId,
    /// The newest state known.
    pub state: TaskState,
    /// Why it is in that state, where its last status says so.
    pub reason: Option<Reason>,
    /// What is so, a sentence each, the most telling first.
    pub because: Vec<String>,
    /// What will happen by itself, or what would help.
    pub advice: String,
}
