//! What a slave receives from the leading master.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::executor::ExecutorDescription;
use crate::framework::FrameworkCapability;
use crate::group::TaskGroup;
use crate::ids::{ClusterId, Epoch, ExecutorId, FrameworkId, SlaveId, TaskId, UpdateId};
use crate::operation::{Change, OperationNumber};
use crate::refusal::{Leadership, Refusal};
use crate::role::RoleName;
use crate::task::TaskDescription;

/// What a slave must know of a framework to run its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFramework {
    /// Its id.
    pub framework_id: FrameworkId,
    /// Its name, for people.
    pub name: String,
    /// The user its tasks run as, unless the task says otherwise; absent: the slave's own.
    pub user: Option<String>,
    /// Whether its tasks are checkpointed (semantics L1).
    pub checkpoint: bool,
    /// What it understands; a slave makes KILLING updates only for those who do (semantics F2).
    pub capabilities: Vec<FrameworkCapability>,
}

/// An order to run a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTask {
    /// For whom.
    pub framework: TaskFramework,
    /// The role its resources are allocated to.
    pub role: RoleName,
    /// What to run.
    pub task: TaskDescription,
}

/// An executor that a slave runs, or is to run with its first task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunExecutor {
    /// For whom.
    pub framework: TaskFramework,
    /// The role its resources are allocated to: that of the task it was started for.
    pub role: RoleName,
    /// What to run.
    pub executor: ExecutorDescription,
}

/// An order to run a group of tasks: all of them or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunGroup {
    /// For whom.
    pub framework: TaskFramework,
    /// The role its resources are allocated to.
    pub role: RoleName,
    /// What to run.
    pub group: TaskGroup,
}

/// From a master to a slave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MasterToSlave {
    /// The slave is admitted or welcome back. It sends its unacknowledged updates again at once
    /// (semantics I1).
    Registered {
        /// Its id, to be kept.
        slave_id: SlaveId,
        /// The cluster, to be kept.
        cluster_id: ClusterId,
        /// The leader's term; orders of an older one are refused.
        epoch: Epoch,
        /// A slave that hears no ping for this long looks for a master anew (semantics K2).
        ping_timeout: Duration,
    },
    /// The request on this connection was refused; the connection is closed. A slave that has
    /// heard of a later term does not believe a refusal that would end it for good: it tries the
    /// next master.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Who says so; none if this master leads nothing.
        by: Option<Leadership>,
    },
    /// Are you there? Answer: `Pong` (semantics K1).
    Ping {
        /// Whether the master takes this slave as registered; if not, it re-registers
        /// (semantics K2).
        registered: bool,
    },
    /// Run a task. Answer: status updates. A task the slave has already is left alone.
    RunTask(Box<RunTask>),
    /// Kill a task: SIGTERM to its tree, SIGKILL after the grace (semantics M5). For a task that
    /// the slave does not have, it makes an update that says so.
    KillTask {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
        /// Instead of the task's own; a repeat may only shorten it.
        grace: Option<Duration>,
    },
    /// The framework has dealt with an update: the next one of that task may go.
    Acknowledge {
        /// Whose.
        framework_id: FrameworkId,
        /// Which task.
        task_id: TaskId,
        /// Which update.
        update_id: UpdateId,
    },
    /// The master believes these tasks to be here and they were not in the report: for each that
    /// the slave does not have, it makes an update that says so (semantics K6).
    ReconcileTasks {
        /// Whose and which, and whether the task is known to have started here.
        tasks: Vec<ReconcileOnSlave>,
    },
    /// The framework is gone: kill its tasks and forget their updates (semantics N3).
    ShutdownFramework {
        /// Which.
        framework_id: FrameworkId,
    },
    /// Reserve, unreserve, create, destroy, grow or shrink volumes. Never repeated: what became of it when the
    /// connection breaks, the slave says with its next `ReportClaims`. Answer: `ChangeApplied` once it
    /// is durable; a slave that cannot do it looks for the master anew and reports what it has.
    ChangeResources {
        /// To answer it.
        number: OperationNumber,
        /// What.
        change: Box<Change>,
    },
    /// The masters of the cluster are these now. Told on each connection and when it changes; idempotent,
    /// never answered. For whoever dials, who keeps a connection to each: the slave itself ignores it.
    Masters {
        /// Each `host:port`; see [`is_list_of_masters`](super::is_list_of_masters).
        addresses: Vec<String>,
    },
    /// Run a task in the executor that its description names. Answer: status updates. A task the slave
    /// has already is left alone.
    RunInExecutor {
        /// What.
        run: Box<RunTask>,
        /// Whether the master has charged the executor anew, so that it is to be started if it is not
        /// there. If not, and it has ended, the task is dropped: its end was on its way.
        starts: bool,
    },
    /// Shut an executor down: it is asked to end, and killed after its grace (semantics B10, M4). One
    /// that is not there is ignored.
    ShutdownExecutor {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
    },
    /// From a framework for its executor: best effort (semantics B15).
    ExecutorMessage {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        executor_id: ExecutorId,
        /// At most [`EXECUTOR_MESSAGE_BYTES_MAX`](crate::executor::EXECUTOR_MESSAGE_BYTES_MAX).
        data: Bytes,
    },
    /// Run a group of tasks, all or none. Answer: status updates of each. Its id is charged with it: if it is not
    /// started, `ExecutorEnded` says so. Tasks that the slave has already are left alone.
    RunGroup(Box<RunGroup>),
}

/// A task that a slave is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileOnSlave {
    /// Whose.
    pub framework_id: FrameworkId,
    /// Which.
    pub task_id: TaskId,
    /// Whether it was ever seen running; if so, it is gone, else it was dropped.
    pub started: bool,
}
