//! What a slave remembers across its lives: records as they are made, and the state they add up to.
//!
//! A store may keep the records as a log or, better, the state they lead to, by key; both give the
//! same [`Checkpoint`]. Replay is total: a record that fits nothing changes nothing, because a store
//! may have lost a damaged one before it.
//!
//! Invariants: S10 replay of the records on disk gives what the slave holds.
//!
//! Tasks of frameworks without `checkpoint` (semantics L1) are remembered like all others: they end with
//! the slave, and remembering them costs nothing and makes their end reliable.

use std::collections::{BTreeMap, VecDeque};

use meros_proto::ids::{Epoch, ExecutorId, FrameworkId, UpdateId};
use meros_proto::message::slave::{RunExecutor, RunTask};
use meros_proto::resources::{ConvertError, Resources};
use meros_proto::status::{TaskState, TaskStatus};
use serde::{Deserialize, Serialize};

use crate::Identity;
use crate::claims::Claims;
use crate::event::{ExecutorKey, TaskKey};

/// One thing to remember. Variants are appended, never reordered: stores outlive versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A master has admitted this slave.
    Identity(Identity),
    /// A life of this slave has begun.
    IncarnationStarted(u32),
    /// A task is accepted. Durable before its container is started.
    TaskAdded(Box<RunTask>),
    /// A status update is made; `update_id` is set. Durable before it is sent (semantics I1).
    UpdateMade {
        /// Whose task it is about.
        framework_id: FrameworkId,
        /// The news.
        status: Box<TaskStatus>,
    },
    /// A status update that is not the task's last is acknowledged.
    UpdateAcknowledged {
        /// Which task.
        task: TaskKey,
        /// Which update.
        update_id: UpdateId,
    },
    /// The task's last update is acknowledged: nothing is left to say of it.
    TaskForgotten {
        /// Which.
        task: TaskKey,
    },
    /// The framework is gone: its tasks are ended and their updates forgotten (semantics N3).
    FrameworkShutDown {
        /// Which.
        framework_id: FrameworkId,
    },
    /// The slave has given its id up (semantics K8). What stays is the count of its lives, because
    /// names of containers contain it, and what was reserved here and the volumes.
    Left,
    /// The leader of this term has welcomed the slave: no master of an earlier one is obeyed any more,
    /// also by its next lives.
    TermHeard(Epoch),
    /// What was reserved or made a volume is this now, all of it. Durable before it is told.
    ClaimsChanged(Box<Claims>),
    /// An executor is accepted with its first task, whose record follows.
    ExecutorAdded(Box<RunExecutor>),
    /// As `UpdateMade`, of an executor: nothing that it said up to this is taken again.
    UpdateHeard {
        /// Whose task it is about.
        framework_id: FrameworkId,
        /// Who said it.
        executor_id: ExecutorId,
        /// The executor's number for it.
        number: u64,
        /// The news.
        status: Box<TaskStatus>,
    },
    /// The executor has ended, and the ends of its tasks were recorded.
    ExecutorForgotten {
        /// Which.
        executor: ExecutorKey,
    },
    /// A group of tasks is accepted: all of it or nothing. Durable before the first of its containers is started.
    GroupAdded {
        /// The group.
        executor: Box<RunExecutor>,
        /// Its tasks.
        tasks: Vec<RunTask>,
    },
    /// A task of this group does not finish well: its end follows, and the others are killed, by whichever life of
    /// the slave.
    GroupEnding {
        /// Which.
        executor: ExecutorKey,
    },
}

/// What [`CheckpointedExecutor::heard`] is of a group that is being ended.
pub const GROUP_IS_ENDING: u64 = 1;

/// An executor as a checkpoint knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointedExecutor {
    /// What was ordered.
    pub run: Box<RunExecutor>,
    /// The number of its newest update that is recorded. A group says nothing: of one that is being ended this is
    /// [`GROUP_IS_ENDING`].
    pub heard: u64,
}

impl CheckpointedExecutor {
    /// Whether it is a group of which a task has not finished well.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.run.executor.is_group() && self.heard == GROUP_IS_ENDING
    }
}

/// A task as a checkpoint knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointedTask {
    /// What was ordered.
    pub run: Box<RunTask>,
    /// How far its updates say that it came: `Staging`, `Starting`, `Running` or `Killing`. Their framework may have
    /// acknowledged them.
    pub reached: TaskState,
}

/// What all records together say. The default is that of an empty data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Who this slave is, once admitted.
    pub identity: Option<Identity>,
    /// The number of its latest life; 0 before the first.
    pub incarnation: u32,
    /// The latest term that it has heard of.
    pub epoch: Epoch,
    /// Tasks that are not forgotten.
    pub tasks: BTreeMap<TaskKey, CheckpointedTask>,
    /// Executors that have not ended.
    pub executors: BTreeMap<ExecutorKey, CheckpointedExecutor>,
    /// Updates that are not acknowledged, in the order they were made; no entry is empty.
    pub updates: BTreeMap<TaskKey, VecDeque<TaskStatus>>,
    /// What was reserved or made a volume at run time.
    pub claims: Claims,
}

impl Checkpoint {
    /// What a slave has that declares this and takes up this checkpoint.
    ///
    /// # Errors
    /// It declares less than what was reserved or made a volume before.
    pub fn total(&self, declared: &Resources) -> Result<Resources, ConvertError> {
        declared.with_claims(&self.claims.resources)
    }

    /// Adds one record to what is known. Total: never panics, never refuses.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Identity(identity) => self.identity = Some(identity),
            Record::IncarnationStarted(incarnation) => self.incarnation = incarnation,
            Record::TermHeard(epoch) => self.epoch = epoch,
            Record::ClaimsChanged(claims) => self.claims = *claims,
            Record::TaskAdded(run) => self.add_task(run),
            Record::GroupAdded { executor, tasks } => {
                self.add_executor(executor);
                for run in tasks {
                    self.add_task(Box::new(run));
                }
            }
            Record::GroupEnding { executor } => {
                if let Some(group) = self.executors.get_mut(&executor) {
                    group.heard = GROUP_IS_ENDING;
                }
            }
            Record::UpdateMade {
                framework_id,
                status,
            } => {
                // What was only prepared begins anew elsewhere, as if nothing had been done (semantics L3).
                let lives = matches!(status.state, TaskState::Running | TaskState::Killing);
                self.add_update(framework_id, *status, lives);
            }
            Record::UpdateHeard {
                framework_id,
                executor_id,
                number,
                status,
            } => {
                if let Some(executor) = self.executors.get_mut(&(framework_id, executor_id)) {
                    executor.heard = number;
                }
                // Whatever its executor says, it was given the task.
                let lives = !status.state.is_terminal();
                self.add_update(framework_id, *status, lives);
            }
            Record::ExecutorAdded(run) => self.add_executor(run),
            Record::ExecutorForgotten { executor } => {
                self.executors.remove(&executor);
            }
            Record::UpdateAcknowledged { task, update_id } => {
                if let Some(queue) = self.updates.get_mut(&task) {
                    queue.retain(|status| status.update_id != Some(update_id));
                    if queue.is_empty() {
                        self.updates.remove(&task);
                    }
                }
            }
            Record::TaskForgotten { task } => {
                self.tasks.remove(&task);
                self.updates.remove(&task);
            }
            Record::FrameworkShutDown { framework_id } => {
                self.tasks.retain(|key, _| key.0 != framework_id);
                self.executors.retain(|key, _| key.0 != framework_id);
                self.updates.retain(|key, _| key.0 != framework_id);
            }
            Record::Left => {
                *self = Self {
                    incarnation: self.incarnation,
                    claims: std::mem::take(&mut self.claims),
                    ..Self::default()
                };
            }
        }
    }

    fn add_task(&mut self, run: Box<RunTask>) {
        let key = (run.framework.framework_id, run.task.task_id.clone());
        let reached = TaskState::Staging;
        self.tasks.insert(key, CheckpointedTask { run, reached });
    }

    fn add_executor(&mut self, run: Box<RunExecutor>) {
        let key = (run.framework.framework_id, run.executor.executor_id.clone());
        let added = CheckpointedExecutor { run, heard: 0 };
        self.executors.insert(key, added);
    }

    fn add_update(&mut self, framework_id: FrameworkId, status: TaskStatus, lives: bool) {
        let key = (framework_id, status.task_id.clone());
        if let Some(task) = self.tasks.get_mut(&key).filter(|_| lives) {
            task.reached = status.state;
        }
        self.updates.entry(key).or_default().push_back(status);
    }
}

impl FromIterator<Record> for Checkpoint {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        let mut checkpoint = Self::default();
        records
            .into_iter()
            .for_each(|record| checkpoint.apply(record));
        checkpoint
    }
}
