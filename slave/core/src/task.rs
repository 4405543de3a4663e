//! One task on this slave, from its acceptance to the acknowledgement of its last update.

use std::time::Duration;

use meros_proto::ids::{ExecutorId, FrameworkId, TaskId};
use meros_proto::labels::Labels;
use meros_proto::message::slave::{RunTask, TaskFramework};
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::status::{TaskState, TaskStatus};
use meros_proto::task::{Command, KILL_GRACE_DEFAULT, KILL_GRACE_MAX};
use meros_proto::time::Timestamp;

use crate::checks::Checks;
use crate::event::{ContainerId, RecordId, TaskKey};

/// How far a task has come. `Accepted -> Starting -> Running -> Ended`; each may go straight to
/// `Ended`, which is never left. With an executor of its framework: `Accepted -> Queued -> Given -> Ended`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its record is on its way to the disk; nothing has been started.
    Accepted { record: RecordId },
    /// Its container was asked for.
    Starting { container: ContainerId },
    /// Its first process runs.
    Running { container: ContainerId, pid: u32 },
    /// It waits for its executor to subscribe.
    Queued,
    /// Its executor was given it, and says what becomes of it.
    Given,
    /// Its process tree is dead or never was; only updates are left.
    Ended,
}

/// Why a task is being ended by us. The first cause is the one that is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its framework or an operator asked for it.
    Requested,
    /// It ran for longer than it said.
    CompletionTime,
    /// It failed its health check.
    Unhealthy,
    /// The slave is going.
    SlaveGoes,
    /// Its framework is gone: nobody is told.
    FrameworkGone,
    /// Another task of its group did not finish well.
    Group,
}

/// A task is being ended by us (semantics M5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) cause: Cause,
    /// From SIGTERM to SIGKILL.
    pub(crate) grace: Duration,
    /// When SIGKILL follows, once SIGTERM is out.
    pub(crate) kill_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) run: Box<RunTask>,
    pub(crate) phase: Phase,
    pub(crate) ending: Option<Ending>,
    /// The container that it ended in, until its end is durable: then nobody needs it any more.
    pub(crate) ended_in: Option<ContainerId>,
    /// Its framework is gone: it has no updates, takes no resources, and is forgotten when its
    /// container has ended.
    pub(crate) abandoned: bool,
    /// The newest state, maybe not durable yet.
    pub(crate) state: TaskState,
    /// What is known of its checks.
    pub(crate) checks: Checks,
    /// The last status that was acknowledged, for reports to new masters.
    pub(crate) acknowledged: Option<Box<TaskStatus>>,
    /// When its framework was last told how far its preparation is.
    pub(crate) progress_told: Option<Timestamp>,
    /// Its image by its digest, if it has one and was started in this life.
    pub(crate) image: Option<String>,
}

impl Task {
    pub(crate) fn new(run: Box<RunTask>, phase: Phase) -> Self {
        Self {
            checks: Checks::of(&run.task),
            run,
            phase,
            ending: None,
            ended_in: None,
            abandoned: false,
            state: TaskState::Staging,
            acknowledged: None,
            progress_told: None,
            image: None,
        }
    }

    pub(crate) fn container(&self) -> Option<ContainerId> {
        match self.phase {
            Phase::Starting { container } | Phase::Running { container, .. } => Some(container),
            Phase::Accepted { .. } | Phase::Queued | Phase::Given | Phase::Ended => None,
        }
    }

    /// Whether nobody has heard of it as running.
    pub(crate) fn is_unheard(&self) -> bool {
        matches!(self.state, TaskState::Staging | TaskState::Starting)
    }

    /// Whether its container has been asked for and its files or its image are being brought, or may be.
    pub(crate) fn is_prepared(&self) -> bool {
        let command = self.run.task.command.as_ref();
        matches!(self.phase, Phase::Starting { .. }) && command.is_some_and(Command::is_prepared)
    }

    /// The grace of a kill: the one asked for, else the task's, else the default; never so long
    /// that a kill does not end (semantics M5).
    pub(crate) fn grace(&self, asked: Option<Duration>) -> Duration {
        asked
            .or(self.run.task.kill_grace)
            .unwrap_or(KILL_GRACE_DEFAULT)
            .min(KILL_GRACE_MAX)
    }

    /// Its first process, while it runs in a container of its own.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    pub(crate) fn summary<'a>(&'a self, key: &'a TaskKey) -> TaskSummary<'a> {
        let executor = self.run.task.executor.as_ref();
        let executor_id = |is_group: bool| {
            let executor = executor.filter(|it| it.is_group() == is_group);
            executor.map(|it| &it.executor_id)
        };
        TaskSummary {
            framework_id: key.0,
            framework: &self.run.framework,
            task_id: &key.1,
            name: &self.run.task.name,
            role: &self.run.role,
            resources: &self.run.task.resources,
            labels: &self.run.task.labels,
            state: self.state,
            executor_id: executor_id(false),
            group_id: executor_id(true),
            container: self.container(),
            pid: self.pid(),
        }
    }
}

/// The executor of a task: for a command task the slave itself, under the id of the task.
pub(crate) fn executor_of(run: &RunTask) -> ExecutorId {
    match &run.task.executor {
        Some(executor) => executor.executor_id.clone(),
        None => ExecutorId::from(&run.task.task_id),
    }
}

/// What can be read of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSummary<'a> {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// What is known of that.
    pub framework: &'a TaskFramework,
    /// Its id.
    pub task_id: &'a TaskId,
    /// Its name.
    pub name: &'a str,
    /// The role its resources are allocated to.
    pub role: &'a RoleName,
    /// What it was launched with.
    pub resources: &'a Resources,
    /// For people and tools.
    pub labels: &'a Labels,
    /// Its newest state.
    pub state: TaskState,
    /// The executor of its framework that runs it, if one does.
    pub executor_id: Option<&'a ExecutorId>,
    /// The group that it runs in, if it does; in a container of its own.
    pub group_id: Option<&'a ExecutorId>,
    /// Its container, or that of its executor, while it may exist.
    pub container: Option<ContainerId>,
    /// The first process of that container, while it runs.
    pub pid: Option<u32>,
}
