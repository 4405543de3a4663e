//! The task table: every task that this leader knows of and that is not over and done with.
//!
//! Invariants: M2 a task that has ended or is unreachable holds no resources; M4 the indexes hold
//! what the table holds. Absent: what a task runs; that goes to the slave and is not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use meros_proto::ids::{ExecutorId, FrameworkId, SlaveId, TaskId, UpdateId};
use meros_proto::labels::Labels;
use meros_proto::message::master::TaskReport;
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::status::{TaskState, TaskStatus};
use meros_proto::task::TaskDescription;
use meros_proto::time::Timestamp;
use meros_proto::view::TaskView;

/// The most tasks of all frameworks in the table: what fits into the memory of a large machine. A
/// launch beyond it is TASK_ERROR, a reported task beyond it is not kept, and counted.
pub const TASKS_MAX: usize = 50_000_000;
/// The most tasks of one framework in the table; a launch beyond it is TASK_ERROR.
pub const TASKS_PER_FRAMEWORK_MAX: usize = 1_000_000;
/// The most unreachable tasks kept for one framework; the longest unreachable are forgotten, and
/// a question about them is answered as about unknown ones (semantics F9, H4).
pub const UNREACHABLE_PER_FRAMEWORK_MAX: usize = 1_000;
/// The most of a status' free text that is kept: readers see the beginning, frameworks all.
const KEPT_MESSAGE_BYTES_MAX: usize = 1_024;
/// A status with more labels than this is kept without them.
const KEPT_LABELS_BYTES_MAX: usize = 16 * 1_024;
/// An unacknowledged update with more free text, labels and data than this is left to the slave to
/// send again instead of being kept here for a framework that comes back.
const AWAITING_BYTES_MAX: usize = 4_096;

/// The place of a task in the table; used again after the task is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskSlot(u32);

/// A kill that has been asked for, to be repeated when the slave comes back (semantics B9, K6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Kill {
    /// Instead of the task's own grace.
    pub(crate) grace: Option<Duration>,
    /// Nobody but the draining of its slave asks for it.
    pub(crate) for_drain: bool,
}

/// The last update that was forwarded for a slave and is not acknowledged (semantics F7).
#[derive(Debug, Clone)]
pub(crate) struct Awaiting {
    pub(crate) update_id: UpdateId,
    pub(crate) state: TaskState,
    /// All of it, unless it is large.
    pub(crate) status: Option<Box<TaskStatus>>,
}

impl Awaiting {
    pub(crate) fn new(update_id: UpdateId, status: &TaskStatus) -> Self {
        let bytes = status.message.len() + status.data.len() + labels_bytes(&status.labels);
        let kept = (bytes <= AWAITING_BYTES_MAX).then(|| Box::new(status.clone()));
        Self {
            update_id,
            state: status.state,
            status: kept,
        }
    }
}

/// One task.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    // The keys of the indexes, never changed.
    framework: FrameworkId,
    id: TaskId,
    slave: SlaveId,
    pub(crate) name: String,
    pub(crate) role: RoleName,
    /// Without those of its executor, which has a table of its own.
    pub(crate) resources: Resources,
    /// Whether its resources are charged to slave, framework and role.
    pub(crate) is_charged: bool,
    /// The newest state known.
    pub(crate) state: TaskState,
    /// Whether it was ever seen to start.
    pub(crate) has_started: bool,
    /// The last status made, without `data`.
    pub(crate) status: Option<Box<TaskStatus>>,
    pub(crate) awaiting: Option<Awaiting>,
    pub(crate) kill: Option<Kill>,
    pub(crate) launched_at: Timestamp,
    pub(crate) labels: Labels,
    /// The executor of its framework that runs it.
    pub(crate) executor_id: Option<ExecutorId>,
}

impl Task {
    /// A task that has just been launched.
    pub(crate) fn launched(
        framework: FrameworkId,
        role: RoleName,
        task: &TaskDescription,
        now: Timestamp,
    ) -> Self {
        Self {
            framework,
            id: task.task_id.clone(),
            slave: task.slave_id,
            name: task.name.clone(),
            role,
            resources: task.resources.clone(),
            is_charged: true,
            state: TaskState::Staging,
            has_started: false,
            status: None,
            awaiting: None,
            kill: None,
            launched_at: now,
            labels: kept_labels(&task.labels),
            executor_id: executor_id(task),
        }
    }

    /// A task that a slave holds and this leader has not launched.
    pub(crate) fn reported(slave: SlaveId, report: ReportedTask, now: Timestamp) -> Self {
        Self {
            framework: report.framework,
            id: report.id,
            slave,
            name: report.name,
            role: report.role,
            resources: report.resources,
            is_charged: false,
            state: report.state,
            has_started: has_started(report.state),
            status: report.status,
            awaiting: None,
            kill: None,
            launched_at: now,
            labels: report.labels,
            executor_id: report.executor_id,
        }
    }

    /// A task that the leader before knew, on a slave that is given up or has left.
    pub(crate) fn recalled(view: &TaskView) -> Self {
        Self {
            framework: view.framework_id,
            id: view.task_id.clone(),
            slave: view.slave_id,
            name: view.name.clone(),
            role: view.role.clone(),
            resources: view.resources.clone(),
            is_charged: false,
            state: view.state,
            has_started: has_started(view.state),
            status: view.status.clone().map(Box::new),
            awaiting: None,
            kill: None,
            launched_at: view.launched_at,
            labels: view.labels.clone(),
            executor_id: view.executor_id.clone(),
        }
    }

    pub(crate) fn framework(&self) -> FrameworkId {
        self.framework
    }

    pub(crate) fn id(&self) -> &TaskId {
        &self.id
    }

    pub(crate) fn slave(&self) -> SlaveId {
        self.slave
    }

    /// Remembers a status as the last one made.
    pub(crate) fn keep_status(&mut self, status: &TaskStatus) {
        self.status = Some(Box::new(kept(status)));
    }

    /// Moves to a state; nothing happens if semantics F6 has no such step.
    pub(crate) fn advance(&mut self, next: TaskState) -> bool {
        let moves = self.state.may_become(next);
        if moves {
            self.state = next;
            self.has_started |= has_started(next);
        }
        moves
    }

    /// Whether its end waits here, whole, for an acknowledgement.
    pub(crate) fn has_full_end(&self) -> bool {
        self.awaiting
            .as_ref()
            .is_some_and(|it| it.state.is_terminal() && it.status.is_some())
    }

    /// Whether it is running or about to, as far as is known.
    pub(crate) fn is_live(&self) -> bool {
        !self.state.is_terminal() && self.state != TaskState::Unreachable
    }
}

fn has_started(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Starting | TaskState::Running | TaskState::Killing
    )
}

fn labels_bytes(labels: &Labels) -> usize {
    labels
        .iter()
        .map(|label| label.key().len() + label.value().map_or(0, str::len))
        .sum()
}

pub(crate) fn kept_labels(labels: &Labels) -> Labels {
    if labels_bytes(labels) <= KEPT_LABELS_BYTES_MAX {
        labels.clone()
    } else {
        Labels::new()
    }
}

fn executor_id(task: &TaskDescription) -> Option<ExecutorId> {
    task.executor.as_ref().map(|it| it.executor_id.clone())
}

/// A status as it is kept: bounded, and without `data` (semantics F7).
pub(crate) fn kept(status: &TaskStatus) -> TaskStatus {
    let mut end = status.message.len().min(KEPT_MESSAGE_BYTES_MAX);
    while !status.message.is_char_boundary(end) {
        end -= 1;
    }
    TaskStatus {
        message: status.message[..end].to_owned(),
        labels: kept_labels(&status.labels),
        data: Default::default(),
        ..status.clone()
    }
}

/// What is kept of a [`TaskReport`] until its slave is registered again.
#[derive(Debug, Clone)]
pub(crate) struct ReportedTask {
    pub(crate) framework: FrameworkId,
    pub(crate) id: TaskId,
    pub(crate) name: String,
    pub(crate) role: RoleName,
    pub(crate) resources: Resources,
    pub(crate) state: TaskState,
    pub(crate) status: Option<Box<TaskStatus>>,
    pub(crate) labels: Labels,
    pub(crate) executor_id: Option<ExecutorId>,
}

impl From<TaskReport> for ReportedTask {
    fn from(report: TaskReport) -> Self {
        // A slave knows no Unreachable or Unknown; what it holds is at least staging.
        let state = match report.state {
            TaskState::Unreachable | TaskState::Unknown => TaskState::Staging,
            state => state,
        };
        Self {
            framework: report.framework_id,
            executor_id: executor_id(&report.task),
            resources: report.task.resources,
            role: report.role,
            state,
            status: report.status.map(|status| Box::new(kept(&status))),
            labels: kept_labels(&report.task.labels),
            name: report.task.name,
            id: report.task.task_id,
        }
    }
}

/// All tasks.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    slots: Vec<Option<Box<Task>>>,
    vacant: Vec<TaskSlot>,
    by_framework: BTreeMap<FrameworkId, BTreeMap<TaskId, TaskSlot>>,
    by_slave: BTreeMap<SlaveId, BTreeSet<TaskSlot>>,
    unreachable: BTreeMap<FrameworkId, BTreeSet<(Timestamp, TaskSlot)>>,
}

impl Tasks {
    /// Adds a task whose id its framework does not use yet.
    pub(crate) fn insert(&mut self, task: Task) -> TaskSlot {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            TaskSlot(u32::try_from(self.slots.len() - 1).expect("callers keep to TASKS_MAX"))
        });
        let of_framework = self.by_framework.entry(task.framework).or_default();
        let before = of_framework.insert(task.id.clone(), slot);
        assert!(
            before.is_none(),
            "task {} of {} is in the table already",
            task.id,
            task.framework
        );
        self.by_slave.entry(task.slave).or_default().insert(slot);
        self.slots[slot.0 as usize] = Some(Box::new(task));
        slot
    }

    /// Whether there is room for so many more.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        self.slots.len() - self.vacant.len() + more <= TASKS_MAX
    }

    pub(crate) fn remove(&mut self, slot: TaskSlot) -> Option<Task> {
        self.unlist_unreachable(slot);
        let task = self.slots.get_mut(slot.0 as usize)?.take()?;
        self.vacant.push(slot);
        if let Some(tasks) = self.by_framework.get_mut(&task.framework) {
            tasks.remove(&task.id);
            if tasks.is_empty() {
                self.by_framework.remove(&task.framework);
            }
        }
        if let Some(tasks) = self.by_slave.get_mut(&task.slave) {
            tasks.remove(&slot);
            if tasks.is_empty() {
                self.by_slave.remove(&task.slave);
            }
        }
        Some(*task)
    }

    pub(crate) fn find(&self, framework: FrameworkId, id: &TaskId) -> Option<TaskSlot> {
        self.by_framework.get(&framework)?.get(id).copied()
    }

    pub(crate) fn get(&self, slot: TaskSlot) -> Option<&Task> {
        self.slots.get(slot.0 as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, slot: TaskSlot) -> Option<&mut Task> {
        self.slots.get_mut(slot.0 as usize)?.as_deref_mut()
    }

    /// Those of a framework, by task id.
    pub(crate) fn of_framework(&self, framework: FrameworkId) -> Vec<TaskSlot> {
        self.by_framework
            .get(&framework)
            .into_iter()
            .flat_map(BTreeMap::values)
            .copied()
            .collect()
    }

    /// The next `count` of a framework by task id, behind `after` or from the first.
    pub(crate) fn next_of_framework(
        &self,
        framework: FrameworkId,
        after: Option<&TaskId>,
        count: usize,
    ) -> Vec<TaskSlot> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tasks = self.by_framework.get(&framework).into_iter();
        let behind = tasks.flat_map(|tasks| tasks.range::<TaskId, _>((start, Bound::Unbounded)));
        behind.map(|(_, slot)| *slot).take(count).collect()
    }

    /// Those of a slave, unreachable ones included.
    pub(crate) fn of_slave(&self, slave: SlaveId) -> Vec<TaskSlot> {
        self.by_slave
            .get(&slave)
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    pub(crate) fn count_of_framework(&self, framework: FrameworkId) -> usize {
        self.by_framework.get(&framework).map_or(0, BTreeMap::len)
    }

    pub(crate) fn count_of_slave(&self, slave: SlaveId) -> usize {
        self.by_slave.get(&slave).map_or(0, BTreeSet::len)
    }

    /// Lists a task as unreachable since then; tells the one to forget if there are too many.
    pub(crate) fn list_unreachable(
        &mut self,
        slot: TaskSlot,
        since: Timestamp,
    ) -> Option<TaskSlot> {
        let framework = self.get(slot)?.framework;
        let list = self.unreachable.entry(framework).or_default();
        list.insert((since, slot));
        let (_, oldest) = *list.first()?;
        (list.len() > UNREACHABLE_PER_FRAMEWORK_MAX).then_some(oldest)
    }

    /// The reverse: the task is reachable again, or forgotten.
    pub(crate) fn unlist_unreachable(&mut self, slot: TaskSlot) {
        let Some(framework) = self.get(slot).map(Task::framework) else {
            return;
        };
        if let Some(list) = self.unreachable.get_mut(&framework) {
            // At most UNREACHABLE_PER_FRAMEWORK_MAX, and only for tasks that were cut off.
            list.retain(|(_, listed)| *listed != slot);
            if list.is_empty() {
                self.unreachable.remove(&framework);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.slots.iter().filter_map(Option::as_deref)
    }

    /// Whether the indexes hold exactly what the table holds.
    pub(crate) fn is_consistent(&self) -> bool {
        let len = self.iter().count();
        let slots = || {
            (0u32..)
                .zip(&self.slots)
                .filter_map(|(at, task)| Some((TaskSlot(at), task.as_deref()?)))
        };
        len + self.vacant.len() == self.slots.len()
            && self.by_framework.values().map(BTreeMap::len).sum::<usize>() == len
            && self.by_slave.values().map(BTreeSet::len).sum::<usize>() == len
            && slots().all(|(slot, task)| {
                self.find(task.framework, &task.id) == Some(slot)
                    && self
                        .by_slave
                        .get(&task.slave)
                        .is_some_and(|set| set.contains(&slot))
            })
            && self.unreachable.iter().all(|(framework, list)| {
                list.len() <= UNREACHABLE_PER_FRAMEWORK_MAX
                    && list.iter().all(|(_, slot)| {
                        self.get(*slot).is_some_and(|task| {
                            task.framework == *framework && task.state == TaskState::Unreachable
                        })
                    })
            })
    }
}
