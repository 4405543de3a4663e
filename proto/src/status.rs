//! What is known of a task: states, who says so, and why (semantics F, G).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::check::CheckStatus;
use crate::ids::{ExecutorId, SlaveId, TaskId, UpdateId};
use crate::labels::Labels;
use crate::resources::Resources;
use crate::time::Timestamp;

/// The state of a task. The discriminants are the numbers of the Mesos v1 protocol (semantics F).
///
/// Transitions (semantics F6):
/// `Staging -> Starting | Running | any terminal | Unreachable`;
/// `Starting -> Starting (how far it is) | Running | Killing | any terminal | Unreachable`;
/// `Running -> Running (health) | Killing | any terminal | Unreachable`;
/// `Killing -> any terminal | Unreachable`;
/// `Unreachable -> what the slave reports when it returns | GoneByOperator | Killed`;
/// a terminal state is never left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// Accepted by the master, not yet heard of from the slave.
    #[serde(rename = "TASK_STAGING")]
    Staging = 6,
    /// The slave prepares its container.
    #[serde(rename = "TASK_STARTING")]
    Starting = 0,
    /// It runs.
    #[serde(rename = "TASK_RUNNING")]
    Running = 1,
    /// It was asked to end and has not yet.
    #[serde(rename = "TASK_KILLING")]
    Killing = 8,
    /// Ended by itself, successfully. Terminal.
    #[serde(rename = "TASK_FINISHED")]
    Finished = 2,
    /// Ended badly, or could not start. Terminal.
    #[serde(rename = "TASK_FAILED")]
    Failed = 3,
    /// Ended because somebody asked for it. Terminal.
    #[serde(rename = "TASK_KILLED")]
    Killed = 4,
    /// Lost, for frameworks that know no finer word. Terminal.
    #[serde(rename = "TASK_LOST")]
    Lost = 5,
    /// Its description was not valid; it never ran. Terminal.
    #[serde(rename = "TASK_ERROR")]
    Error = 7,
    /// Never started, because something was lost on the way. Terminal.
    #[serde(rename = "TASK_DROPPED")]
    Dropped = 9,
    /// Its slave is cut off; it may still run and come back.
    #[serde(rename = "TASK_UNREACHABLE")]
    Unreachable = 10,
    /// Was running and is gone. Terminal.
    #[serde(rename = "TASK_GONE")]
    Gone = 11,
    /// Its slave was declared gone by an operator. Terminal.
    #[serde(rename = "TASK_GONE_BY_OPERATOR")]
    GoneByOperator = 12,
    /// An answer to a question about a task nobody knows. Never stored (semantics F4).
    #[serde(rename = "TASK_UNKNOWN")]
    Unknown = 13,
}

impl TaskState {
    /// Whether nothing comes after it (semantics F3).
    #[must_use]
    pub fn is_terminal(self) -> bool {
        use TaskState::{Dropped, Error, Failed, Finished, Gone, GoneByOperator, Killed, Lost};
        matches!(
            self,
            Finished | Failed | Killed | Lost | Error | Dropped | Gone | GoneByOperator
        )
    }

    /// Whether a task in this state may come to `next` (semantics F6).
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use TaskState::{Killing, Running, Staging, Starting, Unknown, Unreachable};
        if self.is_terminal() || matches!(next, Staging | Unknown) {
            return false;
        }
        let common = next.is_terminal() || next == Unreachable;
        match self {
            Staging => common || matches!(next, Starting | Running | Killing),
            Starting => common || matches!(next, Starting | Running | Killing),
            Running => common || matches!(next, Running | Killing),
            Killing => common,
            Unreachable => next != Unreachable,
            _ => false,
        }
    }

    /// The word of the Mesos v1 protocol, such as `TASK_RUNNING`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Staging => "TASK_STAGING",
            Self::Starting => "TASK_STARTING",
            Self::Running => "TASK_RUNNING",
            Self::Killing => "TASK_KILLING",
            Self::Finished => "TASK_FINISHED",
            Self::Failed => "TASK_FAILED",
            Self::Killed => "TASK_KILLED",
            Self::Lost => "TASK_LOST",
            Self::Error => "TASK_ERROR",
            Self::Dropped => "TASK_DROPPED",
            Self::Unreachable => "TASK_UNREACHABLE",
            Self::Gone => "TASK_GONE",
            Self::GoneByOperator => "TASK_GONE_BY_OPERATOR",
            Self::Unknown => "TASK_UNKNOWN",
        }
    }

    /// Every state, in the order of [`TaskState::name`].
    pub const ALL: [Self; 14] = [
        Self::Staging,
        Self::Starting,
        Self::Running,
        Self::Killing,
        Self::Finished,
        Self::Failed,
        Self::Killed,
        Self::Lost,
        Self::Error,
        Self::Dropped,
        Self::Unreachable,
        Self::Gone,
        Self::GoneByOperator,
        Self::Unknown,
    ];
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Who made a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Source {
    /// A master: it knows of losses, errors and answers to questions.
    Master = 0,
    /// A slave: it knows of containers.
    Slave = 1,
    /// The task's executor.
    Executor = 2,
}

/// Why a task is in a state. The discriminants are those of the Mesos v1 protocol, where `AGENT`
/// stands for our slave (semantics G).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// The command ended badly. Legacy of the first command executors (semantics G4).
    CommandExecutorFailed = 0,
    /// The executor ended before its task.
    ExecutorTerminated = 1,
    /// An executor left without a word. Legacy.
    ExecutorUnregistered = 2,
    /// Its framework was torn down or timed out.
    FrameworkRemoved = 3,
    /// Its sandbox could not be kept from collection.
    GcError = 4,
    /// The framework id was wrong. Legacy.
    InvalidFrameworkId = 5,
    /// An offer of the accept was unknown, used, rescinded or another's.
    InvalidOffers = 6,
    /// The driver lost its master. Legacy.
    MasterDisconnected = 7,
    /// It used more memory than its limit.
    ContainerLimitationMemory = 8,
    /// An answer to a reconciliation.
    Reconciliation = 9,
    /// Its slave was not connected when it was launched.
    SlaveDisconnected = 10,
    /// Its slave was removed or became unreachable.
    SlaveRemoved = 11,
    /// Its slave restarted and the task had not been handed over.
    SlaveRestarted = 12,
    /// Its slave is not known. Legacy.
    SlaveUnknown = 13,
    /// Its description breaks a rule; the message says which.
    TaskInvalid = 14,
    /// The principal may not launch it.
    TaskUnauthorized = 15,
    /// It is not known. Legacy.
    TaskUnknown = 16,
    /// It was preempted for others.
    ContainerPreempted = 17,
    /// The slave no longer has the resources it was offered with.
    ResourcesUnknown = 18,
    /// It broke a limit of its container.
    ContainerLimitation = 19,
    /// It used more disk than its limit.
    ContainerLimitationDisk = 20,
    /// Its container could not be started; the message says why.
    ContainerLaunchFailed = 21,
    /// Its container could not be resized.
    ContainerUpdateFailed = 22,
    /// Its executor did not register in time.
    ExecutorRegistrationTimeout = 23,
    /// Its executor did not come back after the slave restarted.
    ExecutorReregistrationTimeout = 24,
    /// A task of its group breaks a rule.
    TaskGroupInvalid = 25,
    /// The principal may not launch its group.
    TaskGroupUnauthorized = 26,
    /// The process that kept its input and output ended.
    IoSwitchboardExited = 27,
    /// A check reported a new result.
    TaskCheckStatusUpdated = 28,
    /// A health check reported a new result.
    TaskHealthCheckStatusUpdated = 29,
    /// It was killed before it was started.
    TaskKilledDuringLaunch = 30,
    /// Its slave was declared gone by an operator.
    SlaveRemovedByOperator = 31,
    /// Its slave came back.
    SlaveReregistered = 32,
    /// It ran longer than it was allowed to.
    MaxCompletionTimeReached = 33,
    /// Its slave is being drained.
    SlaveDraining = 34,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskExit {
    /// It returned this code, 0 to 255.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// What is said of a task at one moment (semantics C5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The task.
    pub task_id: TaskId,
    /// Where it is, if it has a place.
    pub slave_id: Option<SlaveId>,
    /// Its executor, if it has got that far.
    pub executor_id: Option<ExecutorId>,
    /// Its state.
    pub state: TaskState,
    /// Who says so.
    pub source: Source,
    /// Why, where there is more to say than the state.
    pub reason: Option<Reason>,
    /// The same for a person; may be empty.
    pub message: String,
    /// When it was made.
    pub timestamp: Timestamp,
    /// Set if it is reliable: sent again until acknowledged (semantics I1, Q2).
    pub update_id: Option<UpdateId>,
    /// How its process ended, if it has.
    pub exit: Option<TaskExit>,
    /// The result of its health check, if it has one.
    pub healthy: Option<bool>,
    /// Since when its slave has been cut off, in `Unreachable`.
    pub unreachable_since: Option<Timestamp>,
    /// The resources whose limit it broke, if that ended it.
    pub limitation: Option<Resources>,
    /// From the executor, for the framework.
    pub labels: Labels,
    /// From the executor, for the framework; not kept by masters (semantics F7).
    pub data: Bytes,
    /// The latest result of its check, if it has one; without a result before the first probe.
    pub check_status: Option<CheckStatus>,
}

impl TaskStatus {
    /// A status that says no more than it must.
    #[must_use]
    pub fn new(task_id: TaskId, state: TaskState, source: Source, timestamp: Timestamp) -> Self {
        Self {
            task_id,
            slave_id: None,
            executor_id: None,
            state,
            source,
            reason: None,
            message: String::new(),
            timestamp,
            update_id: None,
            exit: None,
            healthy: None,
            unreachable_since: None,
            limitation: None,
            labels: Labels::default(),
            data: Bytes::new(),
            check_status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_state_is_never_left() {
        for from in TaskState::ALL {
            for to in TaskState::ALL {
                if from.is_terminal() {
                    assert!(!from.may_become(to), "{from} became {to}");
                }
                assert!(
                    !from.may_become(TaskState::Unknown),
                    "unknown is never stored"
                );
            }
        }
    }

    #[test]
    fn transitions_are_those_of_f6() {
        use TaskState::{Finished, Killing, Running, Staging, Starting, Unreachable};
        let allowed = [
            (Staging, Running),
            (Starting, Starting),
            (Starting, Killing),
            (Running, Running),
            (Killing, Finished),
            (Unreachable, Running),
            (Running, Unreachable),
        ];
        for (from, to) in allowed {
            assert!(from.may_become(to), "{from} -> {to}");
        }
        for (from, to) in [
            (Running, Starting),
            (Killing, Running),
            (Unreachable, Unreachable),
        ] {
            assert!(!from.may_become(to), "{from} -> {to}");
        }
    }

    #[test]
    fn numbers_and_names_are_those_of_the_protocol() {
        assert_eq!(TaskState::Staging as u8, 6);
        assert_eq!(TaskState::Unknown as u8, 13);
        assert_eq!(Reason::SlaveDraining as u8, 34);
        for state in TaskState::ALL {
            let json = serde_json::to_string(&state).expect("a plain name");
            assert_eq!(json, format!("{:?}", state.name()));
        }
    }
}
