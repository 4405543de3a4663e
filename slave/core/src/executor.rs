//! One executor of a framework on this slave: the process that runs some of its tasks (semantics M).
//!
//! `Accepted -> Starting -> Running`, and out of the table when its process tree is dead. How it stands with
//! its socket is apart from that: `session` comes and goes while it runs.

use std::collections::BTreeSet;
use std::time::Duration;

use meros_proto::executor::SHUTDOWN_GRACE_DEFAULT;
use meros_proto::ids::{ExecutorId, FrameworkId, TaskId};
use meros_proto::message::slave::RunExecutor;
use meros_proto::resources::Resources;
use meros_proto::task::KILL_GRACE_MAX;
use meros_proto::time::Timestamp;

use crate::event::{ContainerId, RecordId, SessionId};

/// How far an executor has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecutorPhase {
    /// Its first task is on its way to the disk; nothing has been started.
    Accepted,
    /// Its container was asked for.
    Starting { container: ContainerId },
    /// Its first process runs.
    Running { container: ContainerId, pid: u32 },
}

/// Why an executor is being ended by us. The first cause is the one that is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExecutorCause {
    /// Its framework asked for it.
    Requested,
    /// It was to subscribe for the first time, and did not.
    NeverSubscribed,
    /// It was to subscribe again, and did not.
    LostSight,
    /// Its tasks were killed before it could be given them.
    Idle,
    /// The slave is going.
    SlaveGoes,
    /// Its framework is gone: nobody is told.
    FrameworkGone,
}

/// An executor is being ended by us (semantics M4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExecutorEnding {
    pub(crate) cause: ExecutorCause,
    /// From being asked to SIGKILL.
    pub(crate) grace: Duration,
    /// When it is killed, once it has been asked.
    pub(crate) kill_at: Option<Timestamp>,
}

#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) run: Box<RunExecutor>,
    pub(crate) phase: ExecutorPhase,
    /// Where it is reached, while it is subscribed.
    pub(crate) session: Option<SessionId>,
    /// Whether it has ever subscribed, as far as is known.
    pub(crate) was_subscribed: bool,
    /// It was started by an earlier life of the slave and has not been heard of in this one: what it was
    /// given is not known.
    pub(crate) is_inherited: bool,
    pub(crate) ending: Option<ExecutorEnding>,
    /// The number of its newest update that was taken, and the record that waits for the disk with it.
    pub(crate) heard: u64,
    pub(crate) heard_record: RecordId,
    /// Its tasks that have not ended.
    pub(crate) tasks: BTreeSet<TaskId>,
    /// What it and those of them that it was given take together: what its container may use.
    pub(crate) promised: Resources,
    /// Its framework is gone: it takes no resources, and is forgotten when its container has ended.
    pub(crate) abandoned: bool,
}

impl Executor {
    pub(crate) fn new(run: Box<RunExecutor>) -> Self {
        Self {
            promised: run.executor.resources.clone(),
            run,
            phase: ExecutorPhase::Accepted,
            session: None,
            was_subscribed: false,
            is_inherited: false,
            ending: None,
            heard: 0,
            heard_record: RecordId(0),
            tasks: BTreeSet::new(),
            abandoned: false,
        }
    }

    /// It is given a task of its own.
    pub(crate) fn promise(&mut self, resources: &Resources) {
        self.promised
            .checked_add_assign(resources)
            .expect("they are parts of what the slave has (S1)");
    }

    /// A task that it was given is over.
    pub(crate) fn take_back(&mut self, resources: &Resources) {
        self.promised
            .checked_sub_assign(resources)
            .expect("they were promised to it (X1)");
    }

    pub(crate) fn container(&self) -> Option<ContainerId> {
        match self.phase {
            ExecutorPhase::Starting { container } | ExecutorPhase::Running { container, .. } => {
                Some(container)
            }
            ExecutorPhase::Accepted => None,
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        match self.phase {
            ExecutorPhase::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// semantics: M4
    pub(crate) fn grace(&self) -> Duration {
        let own = self.run.executor.shutdown_grace;
        own.unwrap_or(SHUTDOWN_GRACE_DEFAULT).min(KILL_GRACE_MAX)
    }
}

/// What can be read of an executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorSummary<'a> {
    /// Whose it is.
    pub framework_id: FrameworkId,
    /// Its id.
    pub executor_id: &'a ExecutorId,
    /// What it was started as.
    pub run: &'a RunExecutor,
    /// Its container, once it was asked for; a group has none.
    pub container: Option<ContainerId>,
    /// Its first process, while it runs.
    pub pid: Option<u32>,
    /// Whether it is subscribed.
    pub is_subscribed: bool,
    /// How many tasks it has that have not ended.
    pub tasks: usize,
    /// What it and those of its tasks that it was given take together: what its container may use.
    pub promised: &'a Resources,
}
