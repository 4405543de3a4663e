//! What can happen to a slave: the one door in.

use std::time::Duration;

use meros_proto::check::{Check, CheckStatus};
use meros_proto::ids::{ExecutorId, FrameworkId, TaskId};
use meros_proto::message::executor::{ExecutorToSlave, ExecutorUpdate};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::status::{Reason, TaskExit};
use meros_proto::task::TaskDescription;
use serde::{Deserialize, Serialize};

use crate::claims::VolumeDirectory;

/// A connection to a master, numbered by the shell and never reused within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// One record to be made durable, numbered by the core, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u64);

/// A connection of an executor, numbered by the shell and never reused within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// The container of a task or of an executor. One task has one container in its life, and task ids may come again
/// after their end, so containers are numbered: `<incarnation>-<number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId {
    /// The life of the slave that made it.
    pub incarnation: u32,
    /// Counted within that life.
    pub number: u64,
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.incarnation, self.number)
    }
}

/// How a container ended, as the shell observed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerExit {
    /// How its first process ended.
    pub exit: TaskExit,
    /// Set if a limit ended it.
    pub limitation: Option<Limitation>,
    /// For a person, where there is more to say than `exit`: the command that a shell did not find.
    /// May be empty.
    pub message: String,
}

/// A container that an earlier life of the slave has started, as the shell found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundContainer {
    /// Which.
    pub container: ContainerId,
    /// Whose it is.
    pub owner: Owner,
    /// How long ago it was asked for.
    pub age: Duration,
    /// What has become of it.
    pub state: FoundState,
}

/// What has become of a container while there was no slave. Only a running one has processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundState {
    /// It runs.
    Running {
        /// Its first process.
        pid: u32,
    },
    /// It ended by itself.
    Ended(ContainerExit),
    /// As in [`Event::ContainerLost`].
    Lost,
    /// It was killed because it was to end with the slave.
    EndedWithSlave,
    /// Its first process never ran.
    NeverRan,
    /// The machine was started anew.
    Rebooted,
}

/// A limit that a container broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limitation {
    /// Which: `ContainerLimitationMemory`, `…Disk` or `ContainerLimitation`.
    pub reason: Reason,
    /// For a person: the limit, the use, and what to do.
    pub message: String,
}

/// What a check is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckPurpose {
    /// A task that fails it is killed.
    Health,
    /// Its results are reported.
    Readiness,
}

impl CheckPurpose {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Health, Self::Readiness];

    /// In logs, and between slave and shim.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Readiness => "readiness",
        }
    }

    /// The check of a task for this purpose.
    #[must_use]
    pub fn of(self, task: &TaskDescription) -> Option<&Check> {
        match self {
            Self::Health => task.health_check.as_ref().map(|health| &health.check),
            Self::Readiness => task.check.as_ref(),
        }
    }
}

/// One probe. A check has at most one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId {
    /// Of the task that is probed.
    pub container: ContainerId,
    /// For which of its checks.
    pub purpose: CheckPurpose,
    /// Counted for that check, within one life of the slave.
    pub number: u64,
}

/// What a probe has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The result, of the kind that was probed.
    pub status: CheckStatus,
    /// For a person: what was answered, or why there was no answer. Bounded by the shell.
    pub message: String,
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A connection to a master stands.
    Connected {
        /// Which.
        connection: ConnectionId,
    },
    /// It has ended.
    Disconnected {
        /// Which.
        connection: ConnectionId,
    },
    /// A message of a master.
    Master {
        /// From where.
        connection: ConnectionId,
        /// What.
        message: MasterToSlave,
    },
    /// All records up to this one are durable.
    Persisted {
        /// The last of them.
        record: RecordId,
    },
    /// A container's first process has started.
    ContainerStarted {
        /// Which.
        container: ContainerId,
        /// Its process id.
        pid: u32,
        /// Its image by its digest, if it has one.
        image: Option<String>,
    },
    /// Its sandbox or its image is being prepared and this is how far it is; may come again and again before
    /// `ContainerStarted`.
    ContainerPreparing {
        /// Which.
        container: ContainerId,
        /// For a person: what is being done, how much of it is done.
        message: String,
    },
    /// A container could not be started; nothing of it is left.
    ContainerNotStarted {
        /// Which.
        container: ContainerId,
        /// For a person: what, why, and what to do.
        message: String,
    },
    /// A container has ended and its whole process tree is dead.
    ContainerEnded {
        /// Which.
        container: ContainerId,
        /// How.
        exit: ContainerExit,
    },
    /// Nobody knows how a container ended: what watched over it was killed or crashed. Its whole process
    /// tree is dead.
    ContainerLost {
        /// Which.
        container: ContainerId,
    },
    /// A probe has come to an end, by its timeout at the latest.
    Probed {
        /// Which.
        probe: ProbeId,
        /// What it has found; none if it was not tried for want of a place, or the slave could not try:
        /// that says nothing of the task.
        found: Option<Found>,
    },
    /// An executor has said something on a connection that leads into its container.
    Executor {
        /// Which connection.
        session: SessionId,
        /// Which container.
        container: ContainerId,
        /// What.
        message: Box<ExecutorToSlave>,
    },
    /// An executor that names its updates instead of counting them (v1) says again, on a new connection and
    /// after `Subscribe`, those that were not acknowledged to it (semantics M3).
    ExecutorResent {
        /// Which connection.
        session: SessionId,
        /// In the order in which it made them, under numbers of this connection.
        updates: Vec<ExecutorUpdate>,
    },
    /// A connection of an executor has ended.
    ExecutorDisconnected {
        /// Which.
        session: SessionId,
    },
    /// Nothing is left of the directory of a destroyed volume.
    VolumeWiped {
        /// Which.
        directory: VolumeDirectory,
    },
    /// The process is asked to stop (SIGTERM). Tasks run on, except those that end with the slave, which
    /// are killed; it keeps its id and reports what is left to report when it starts again.
    Stop {
        /// How long tasks that end with the slave have to end.
        grace: Duration,
    },
    /// An operator stops the slave for good: its tasks are killed, then it unregisters
    /// (semantics K8).
    Leave {
        /// How long tasks have to end.
        grace: Duration,
    },
    /// Time has passed: what is due at `now` happens.
    Tick,
}

/// The key of a task on a slave.
pub type TaskKey = (FrameworkId, TaskId);

/// The key of an executor on a slave.
pub type ExecutorKey = (FrameworkId, ExecutorId);

/// What a container is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Owner {
    /// A task with a command.
    Task(TaskKey),
    /// An executor of a framework.
    Executor(ExecutorKey),
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Task((framework, task)) => write!(f, "task {task} of {framework}"),
            Self::Executor((framework, executor)) => {
                write!(f, "executor {executor} of {framework}")
            }
        }
    }
}
