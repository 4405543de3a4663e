//! What can be read of a cluster: the rows of `meros slaves|frameworks|offers|ps`, the JSON of
//! `GET /api/v1/…`, and the changes from which a projection keeps them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attribute::Attributes;
use crate::ids::{ClusterId, Epoch, ExecutorId, FrameworkId, OfferId, SlaveId, TaskId};
use crate::labels::Labels;
use crate::maintenance::Unavailability;
use crate::minimum::Minimum;
use crate::quota::Quota;
use crate::resources::{ResourceName, Resources, Scalar};
use crate::role::RoleName;
use crate::slave::{SlaveMode, SlaveState};
use crate::status::{TaskState, TaskStatus};
use crate::time::Timestamp;

/// The master that answers, and its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterView {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The leader's term.
    pub epoch: Epoch,
    /// Since when it leads.
    pub elected_at: Timestamp,
    /// The version of the software.
    pub version: String,
}

/// An option of a daemon with the value in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingView {
    /// Its name, as in a configuration file.
    pub option: String,
    /// Its value as text; a list has commas.
    pub value: String,
    /// Whether operators have set it for the whole cluster, whatever this daemon was started with.
    #[serde(default)]
    pub of_cluster: bool,
}

/// A slave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlaveView {
    /// Its id.
    pub slave_id: SlaveId,
    /// Its host name.
    pub hostname: String,
    /// Where its HTTP endpoint listens; empty if it has none.
    pub http_address: String,
    /// How it stands with the master.
    pub state: SlaveState,
    /// Since when.
    pub state_since: Timestamp,
    /// What operators have decided about it.
    pub mode: SlaveMode,
    /// Since when; the beginning of time if they never have.
    pub mode_since: Timestamp,
    /// Whether it is draining, and nothing is left on it.
    pub is_drained: bool,
    /// When it will not be available, or was not, if its maintenance is planned.
    pub unavailability: Option<Unavailability>,
    /// All it has.
    pub resources: Resources,
    /// What its admin says of it.
    pub attributes: Attributes,
    /// The version of its software.
    pub version: String,
}

/// How a framework stands with the master (semantics N).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameworkState {
    /// Known from the registry; has not come back to this leader yet.
    Recovered,
    /// Connected.
    Subscribed,
    /// Away; removed when its failover timeout passes.
    Disconnected,
    /// Torn down or timed out.
    Completed,
}

impl FrameworkState {
    /// The word, as JSON has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Subscribed => "subscribed",
            Self::Disconnected => "disconnected",
            Self::Completed => "completed",
        }
    }
}

/// A framework.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameworkView {
    /// Its id.
    pub framework_id: FrameworkId,
    /// Its name.
    pub name: String,
    /// Who it is.
    pub principal: String,
    /// Its roles.
    pub roles: Vec<RoleName>,
    /// The roles it wants no offers for.
    pub suppressed_roles: Vec<RoleName>,
    /// How it stands with the master.
    pub state: FrameworkState,
    /// Since when.
    pub state_since: Timestamp,
    /// How long it may stay away.
    pub failover_timeout: Duration,
    /// Where its user interface is; may be empty.
    pub webui_url: String,
    /// The most offers that it may hold unanswered while others want some, because it hoards; none
    /// for the others.
    pub offers_max: Option<u32>,
}

/// An outstanding offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferView {
    /// Its id.
    pub offer_id: OfferId,
    /// For whom.
    pub framework_id: FrameworkId,
    /// Where.
    pub slave_id: SlaveId,
    /// For which role.
    pub role: RoleName,
    /// What.
    pub resources: Resources,
    /// Since when.
    pub made_at: Timestamp,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// Its id.
    pub task_id: TaskId,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// Where it is.
    pub slave_id: SlaveId,
    /// The role its resources are allocated to.
    pub role: RoleName,
    /// What it takes.
    pub resources: Resources,
    /// The newest state known.
    pub state: TaskState,
    /// The last status that was made, without its `data`.
    pub status: Option<TaskStatus>,
    /// When it was launched, or first heard of by this leader.
    pub launched_at: Timestamp,
    /// Of the task.
    pub labels: Labels,
    /// The executor of its framework that runs it; none if it is a command.
    #[serde(default)]
    pub executor_id: Option<ExecutorId>,
}

/// An executor of a framework.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorView {
    /// Its id: unique in its framework on one slave.
    pub executor_id: ExecutorId,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// Where it is.
    pub slave_id: SlaveId,
    /// The role its resources are allocated to.
    pub role: RoleName,
    /// What it takes, without its tasks.
    pub resources: Resources,
    /// Of the executor.
    pub labels: Labels,
}

/// A task as `GET /api/v1/tasks` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// What is known of it.
    #[serde(flatten)]
    pub task: Arc<TaskView>,
    /// Whether all this is from the leader before: its slave has not come back yet, so nobody knows
    /// whether it is still true, and it counts in no sum.
    #[serde(default)]
    pub remembered: bool,
}

/// What operators have configured for a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleView {
    /// The role.
    pub role: RoleName,
    /// Its weight; 1 unless set.
    pub weight: Scalar,
    /// Its quota; empty unless set.
    pub quota: Quota,
    /// What is worth an offer in it, unless the next role above it or the master says.
    pub minimum: Option<Minimum>,
}

/// A role as `GET /api/v1/roles` lists it.
///
/// Amounts are of the role and of all roles below it together: that is what its quota is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRow {
    /// The role.
    pub role: RoleName,
    /// Its weight among its siblings.
    pub weight: Scalar,
    /// So much is kept for it.
    pub guarantees: BTreeMap<ResourceName, Scalar>,
    /// More than this is not offered to it.
    pub limits: BTreeMap<ResourceName, Scalar>,
    /// What is worth an offer in it and in the roles below it; none unless set.
    pub minimum: Option<Minimum>,
    /// Frameworks in this very role that are not completed.
    pub frameworks: u64,
    /// Tasks that have not ended.
    pub tasks: u64,
    /// Outstanding offers.
    pub offers: u64,
    /// What tasks and executors take.
    pub used: BTreeMap<ResourceName, Scalar>,
    /// What outstanding offers hold.
    pub offered: BTreeMap<ResourceName, Scalar>,
    /// What slaves have reserved for it.
    pub reserved: BTreeMap<ResourceName, Scalar>,
    /// What counts against its quota: all that is reserved for it, and what else tasks and offers
    /// hold.
    pub counted: BTreeMap<ResourceName, Scalar>,
}

/// A slave as `GET /api/v1/slaves` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlaveRow {
    /// What the master says of it.
    #[serde(flatten)]
    pub slave: SlaveView,
    /// Of its resources, what tasks and executors take.
    pub used: Resources,
    /// Of its resources, what outstanding offers hold.
    pub offered: Resources,
    /// Tasks on it that have not ended.
    pub tasks: u64,
}

/// A framework as `GET /api/v1/frameworks` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameworkRow {
    /// What the master says of it.
    #[serde(flatten)]
    pub framework: FrameworkView,
    /// What its tasks and executors take.
    pub used: Resources,
    /// Its tasks that have not ended.
    pub tasks: u64,
    /// Its outstanding offers.
    pub offers: u64,
    /// Its offers that have ended, in whatever way, since this master leads.
    pub offers_ended: u64,
    /// Those of them that it did not accept: declined, timed out, or taken back.
    pub offers_unused: u64,
    /// How long it keeps offers: a mean in which the latest counts for an eighth.
    pub offers_held_mean: Duration,
}

/// Why an offer is no longer outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfferEnd {
    /// The framework used it.
    Accepted,
    /// The framework gave it back.
    Declined,
    /// The master took it back (semantics E5).
    Rescinded,
    /// The framework held it too long (semantics E4).
    TimedOut,
}

/// One change of what can be read, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "tasks are the common case: a box each would cost an allocation per launch"
)]
pub enum ClusterChange {
    /// A master has been elected; what was known before it is void.
    Elected(MasterView),
    /// A slave is new or has changed.
    Slave(SlaveView),
    /// A slave is no more.
    SlaveRemoved(SlaveId),
    /// A framework is new or has changed.
    Framework(FrameworkView),
    /// An offer has been made.
    OfferMade(OfferView),
    /// An offer is no longer outstanding.
    OfferEnded {
        /// Which.
        offer_id: OfferId,
        /// How.
        end: OfferEnd,
    },
    /// A task is new.
    TaskAdded(TaskView),
    /// A task has a new state or status.
    TaskChanged {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
        /// The newest state known.
        state: TaskState,
        /// The last status made.
        status: Option<TaskStatus>,
    },
    /// A task has left the master's tables: its end was acknowledged, or its framework is gone.
    TaskRemoved {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
    },
    /// Operators have configured a role, or taken that back.
    Role(RoleView),
    /// The leader before knew this task, on a slave that has not come back to this one. Followed by
    /// `TaskAdded` or `TaskForgotten`. Not in the master's tables, and in no sum.
    TaskRemembered(Arc<TaskView>),
    /// A remembered task is not there, or nobody is left who would ask.
    TaskForgotten {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
    },
    /// An executor is about to be started, or a slave that is back has it.
    ExecutorAdded(Arc<ExecutorView>),
    /// An executor has ended, or its slave or framework is gone.
    ExecutorRemoved {
        /// Where it was.
        slave_id: SlaveId,
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
    },
}

/// A change with its place in the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterEvent {
    /// Counted from 1 within a leader's term, without gaps.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub change: ClusterChange,
}
