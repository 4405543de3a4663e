//! What a master receives.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::constraint::OfferWishes;
use crate::framework::FrameworkDescription;
use crate::ids::{
    ClusterId, Epoch, ExecutorId, FrameworkId, OfferId, OperationId, SlaveId, TaskId, UpdateId,
};
use crate::message::slave::RunExecutor;
use crate::offer::{Filters, Operation};
use crate::operation::{DecidedOperation, OperationNumber};
use crate::resources::Resources;
use crate::role::RoleName;
use crate::slave::SlaveDescription;
use crate::state::{SpaceName, StateCall};
use crate::status::{TaskExit, TaskState, TaskStatus};
use crate::task::TaskDescription;

/// The most tasks one slave may report or hold; also bounds what a master gathers before
/// [`SlaveToMaster::Reregister`] ends a report.
pub const TASKS_PER_SLAVE_MAX: usize = 100_000;
/// The most task reports in one [`SlaveToMaster::ReportTasks`], so that a frame stays small.
pub const REPORT_TASKS_MAX: usize = 256;
/// The most executors in one [`SlaveToMaster::ReportExecutors`], so that a frame stays small.
pub const REPORT_EXECUTORS_MAX: usize = 256;
/// The most entries in one list of a framework's call (offers, tasks, roles).
pub const CALL_ITEMS_MAX: usize = 10_000;

/// From a slave. The first message that counts is `Register` or `Reregister`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlaveToMaster {
    /// A slave without an id asks to be admitted. Answer: `Registered` or `Refused`. Repeated by
    /// the slave on each new connection until it has an id.
    Register {
        /// What it is and has.
        slave: SlaveDescription,
    },
    /// Part of the report that precedes `Reregister`, at most [`REPORT_TASKS_MAX`] tasks each.
    ReportTasks {
        /// Tasks it holds, also ended ones whose last update is not acknowledged.
        tasks: Vec<TaskReport>,
    },
    /// A slave with an id is back (semantics K5, K6); the tasks of the preceding `ReportTasks` on
    /// this connection are all it has. Answer: `Registered` or `Refused`.
    Reregister {
        /// The id it was given.
        slave_id: SlaveId,
        /// The cluster it was given by.
        cluster_id: ClusterId,
        /// What it is and has now.
        slave: SlaveDescription,
    },
    /// The answer to a `Ping`.
    Pong,
    /// News of a task, repeated by the slave until acknowledged (semantics I1).
    Update(StatusUpdate),
    /// It goes for good: its tasks have ended, its id is not used again (semantics K8).
    Unregister,
    /// Part of the report that precedes `Register` or `Reregister`, at most once: what is reserved and
    /// which volumes there are since it was configured. Left out if there is neither.
    ReportClaims {
        /// All of it; durable.
        claims: Resources,
        /// What became of the latest operations, at most
        /// [`OPERATIONS_PENDING_MAX`](crate::operation::OPERATIONS_PENDING_MAX).
        decided: Vec<DecidedOperation>,
    },
    /// An operation is done and durable. Said once; repeated by the next `ReportClaims`.
    ChangeApplied {
        /// Which.
        number: OperationNumber,
    },
    /// The term of the last `Registered` is durable: no master of an older one is obeyed any more, also by
    /// the slave's next lives. Until then one that does not know yet that it was deposed may give
    /// it tasks that this master never hears of.
    TermHeard {
        /// The one of `Registered`.
        epoch: Epoch,
    },
    /// Part of the report that precedes `Reregister`, at most [`REPORT_EXECUTORS_MAX`] executors each:
    /// those of frameworks that are here and have not ended.
    ReportExecutors {
        /// What was ordered.
        executors: Vec<RunExecutor>,
    },
    /// An executor that the master believes to be here is not, or not any more. Said once on each
    /// connection; the next report says it by silence.
    ExecutorEnded {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
        /// How its first process ended, if it ran and that is known.
        exit: Option<TaskExit>,
    },
    /// From an executor for its framework: best effort (semantics B15).
    ExecutorMessage {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
        /// At most [`EXECUTOR_MESSAGE_BYTES_MAX`](crate::executor::EXECUTOR_MESSAGE_BYTES_MAX).
        data: Bytes,
    },
}

/// A task as its slave reports it on re-registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// The role its resources are allocated to.
    pub role: RoleName,
    /// What it was launched with.
    pub task: TaskDescription,
    /// The latest state, maybe ahead of the last update sent.
    pub state: TaskState,
    /// The last status that was sent or is due, if any.
    pub status: Option<TaskStatus>,
}

/// News of a task on its way from the slave to its framework.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusUpdate {
    /// Whose task it is.
    pub framework_id: FrameworkId,
    /// The news; `update_id` is always set.
    pub status: TaskStatus,
    /// The newest state the slave knows, which may be ahead of `status` (semantics I4).
    pub latest_state: TaskState,
}

/// A task that a framework asks about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileTask {
    /// The task.
    pub task_id: TaskId,
    /// Where the framework believes it to be.
    pub slave_id: Option<SlaveId>,
}

/// An operation that a framework asks about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileOperation {
    /// The operation.
    pub operation_id: OperationId,
    /// Where the framework ordered it.
    pub slave_id: Option<SlaveId>,
}

/// From a framework. The first message that counts is `Subscribe`, but for `State`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrameworkToMaster {
    /// Start, or take up where it left off (semantics B1, B2, N). Answer: `Subscribed` or `Error`.
    Subscribe {
        /// Who it is.
        framework: FrameworkDescription,
        /// Roles it wants no offers for now; a subset of its roles.
        suppressed_roles: Vec<RoleName>,
        /// What it wishes of its offers, for each of its roles at most once.
        wishes: Vec<OfferWishes>,
    },
    /// End the framework: its tasks are killed, the id is not used again (semantics B3).
    Teardown,
    /// Use offers, all of one slave and one role (semantics B4, E6). No operations: a decline.
    Accept {
        /// Each usable once.
        offer_ids: Vec<OfferId>,
        /// Carried out in order.
        operations: Vec<Operation>,
        /// For what is left.
        filters: Filters,
    },
    /// Give offers back (semantics B5); unknown ones are ignored.
    Decline {
        /// The offers.
        offer_ids: Vec<OfferId>,
        /// How long not to be asked again.
        filters: Filters,
    },
    /// Want offers again: un-suppress and drop the decline filters (semantics B7).
    Revive {
        /// Empty: all its roles.
        roles: Vec<RoleName>,
    },
    /// Want no offers for now (semantics B8).
    Suppress {
        /// Empty: all its roles.
        roles: Vec<RoleName>,
    },
    /// Kill a task (semantics B9). Answer: status updates.
    Kill {
        /// The task.
        task_id: TaskId,
        /// Where it is; ignored when wrong.
        slave_id: Option<SlaveId>,
        /// Instead of the task's own grace; a repeat may only shorten it.
        grace: Option<Duration>,
    },
    /// An update with an id has been dealt with (semantics B11).
    Acknowledge {
        /// From the update.
        slave_id: Option<SlaveId>,
        /// From the update.
        task_id: TaskId,
        /// From the update.
        update_id: UpdateId,
    },
    /// Ask for the state of tasks (semantics B13, H); empty: of all.
    Reconcile {
        /// The tasks.
        tasks: Vec<ReconcileTask>,
    },
    /// Wish something else of the offers to come, in all roles (semantics B17). Those that it holds
    /// stay.
    Wish {
        /// For each of its roles at most once; for the others nothing in particular.
        wishes: Vec<OfferWishes>,
    },
    /// A call about framework state: counts on every connection, also before `Subscribe` and without
    /// it. Answer: `State`. Repeated by the client on a new connection; a change by a session is
    /// carried out once.
    State {
        /// Chosen by the client, for the answer.
        request: u64,
        /// Which of the principal's spaces.
        space: SpaceName,
        /// What.
        call: StateCall,
    },
    /// Ask how operations stand that have an id (semantics B14); empty: all that are on their way.
    /// Answer: `Operation` for each. Repeated by the framework.
    ReconcileOperations {
        /// Which.
        operations: Vec<ReconcileOperation>,
    },
    /// Shut an executor down (semantics B10): it is asked to end, and killed after its grace; what it
    /// runs then is told as FAILED. One that is not there is ignored.
    ShutdownExecutor {
        /// Where it is.
        slave_id: SlaveId,
        /// Which.
        executor_id: ExecutorId,
    },
    /// A message for an executor: best effort, never repeated (semantics B15).
    ExecutorMessage {
        /// Where it is.
        slave_id: SlaveId,
        /// Which.
        executor_id: ExecutorId,
        /// At most [`EXECUTOR_MESSAGE_BYTES_MAX`](crate::executor::EXECUTOR_MESSAGE_BYTES_MAX).
        data: Bytes,
    },
}
