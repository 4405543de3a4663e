//! Tasks that the leader before knew, on slaves that have not come back to this one (semantics Q1).
//!
//! What runs is the slaves' to say (architecture decision 4), so a remembered task is no task of this
//! leader: it is charged nowhere, answers no question, cannot be killed, and keeps no id from being used.
//! It is good for three things only, for which nobody else is left who knows: readers see it, marked;
//! the next leader remembers it, too; and when its slave is given up or has left, it is *recalled*:
//! it becomes a task of this leader, which then tells its framework what has become of it (semantics K4, K7,
//! K8). A slave that comes back ends all memory of what was on it, whatever it reports.
//!
//! Invariants: M4 a remembered task has a framework, and a slave that has not come back; no task of this
//! leader has its id. Bound: the table of the leader before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
use meros_proto::slave::SlaveState;
use meros_proto::status::{Reason, TaskState};
use meros_proto::time::Timestamp;
use meros_proto::view::{ClusterChange, TaskView};
use tracing::info;

use crate::MasterCore;
use crate::publish::task_view;
use crate::tasks::{Task, TaskSlot};
use crate::turn::Turn;

/// A task id is its framework's.
type Name = (FrameworkId, TaskId);

/// All remembered tasks.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    tasks: BTreeMap<Name, Arc<TaskView>>,
    by_slave: BTreeMap<SlaveId, BTreeSet<Name>>,
}

impl Remembered {
    fn insert(&mut self, task: Arc<TaskView>) {
        let name = (task.framework_id, task.task_id.clone());
        self.remove(name.0, &name.1);
        let of_slave = self.by_slave.entry(task.slave_id).or_default();
        of_slave.insert(name.clone());
        self.tasks.insert(name, task);
    }

    /// Forgets one; nothing if it is not remembered.
    pub(crate) fn remove(&mut self, framework: FrameworkId, id: &TaskId) {
        if self.tasks.is_empty() {
            return;
        }
        let name = (framework, id.clone());
        let Some(task) = self.tasks.remove(&name) else {
            return;
        };
        if let Some(names) = self.by_slave.get_mut(&task.slave_id) {
            names.remove(&name);
            if names.is_empty() {
                self.by_slave.remove(&task.slave_id);
            }
        }
    }

    /// Takes out those of a slave.
    fn take_of_slave(&mut self, slave: SlaveId) -> Vec<Arc<TaskView>> {
        let names = self.by_slave.remove(&slave).into_iter().flatten();
        names.filter_map(|name| self.tasks.remove(&name)).collect()
    }

    /// Takes out those of a framework.
    fn take_of_framework(&mut self, framework: FrameworkId) -> Vec<Arc<TaskView>> {
        let of_it = self.tasks.keys().filter(|name| name.0 == framework);
        let names: Vec<Name> = of_it.cloned().collect();
        let tasks = names
            .iter()
            .filter_map(|name| self.tasks.get(name).cloned());
        let tasks: Vec<_> = tasks.collect();
        for (framework, id) in &names {
            self.remove(*framework, id);
        }
        tasks
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TaskView> {
        self.tasks.values().map(|task| &**task)
    }

    /// Whether the index holds exactly what the table holds.
    pub(crate) fn is_consistent(&self) -> bool {
        let listed = self.by_slave.values().map(BTreeSet::len).sum::<usize>();
        let is_listed = |(name, task): (&Name, &Arc<TaskView>)| {
            let of_slave = self.by_slave.get(&task.slave_id);
            of_slave.is_some_and(|names| names.contains(name))
        };
        listed == self.tasks.len() && self.tasks.iter().all(is_listed)
    }
}

impl MasterCore {
    /// Begins to lead with what the leader before knew. Of slaves that were given up or have left meanwhile,
    /// its frameworks are told now: the leader before may not have come to that.
    pub(crate) fn remember(&mut self, tasks: Vec<Arc<TaskView>>, turn: &mut Turn<'_>) {
        if self.epoch.is_none() {
            return;
        }
        let mut absent: BTreeSet<SlaveId> = BTreeSet::new();
        for task in tasks {
            // Those of a framework that was removed nobody asks for; what runs of it is ended when its
            // slave is back.
            if self.frameworks.get(task.framework_id).is_none() || task.state == TaskState::Unknown
            {
                continue;
            }
            self.counters.tasks_remembered += 1;
            let slave = self.slaves.get(task.slave_id);
            if slave.is_none_or(|slave| slave.state() != SlaveState::Recovered) {
                absent.insert(task.slave_id);
            }
            let change = ClusterChange::TaskRemembered(Arc::clone(&task));
            self.publisher.publish(change, turn);
            self.remembered.insert(task);
        }
        for slave_id in absent {
            self.settle_absent(slave_id, turn);
        }
        if self.counters.tasks_remembered > 0 {
            info!(
                tasks = self.counters.tasks_remembered,
                "tasks of the leader before are remembered"
            );
        }
    }

    fn settle_absent(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        let since = self.slaves.get(slave_id).map(|slave| slave.since);
        self.recall_tasks(slave_id, since.unwrap_or(turn.now), turn);
        let end = match self.registry.is_gone_slave(slave_id) {
            true => (TaskState::GoneByOperator, Reason::SlaveRemovedByOperator),
            false => (TaskState::Lost, Reason::SlaveRemoved),
        };
        for slot in self.tasks.of_slave(slave_id) {
            match since {
                Some(at) => self.cut_off_task(slot, at, turn),
                None => self.lose_task_of_removed_slave(slot, end, turn.now, turn),
            }
        }
    }

    /// What was on this slave is a task of this leader from now on: the slave does not answer for it. Ends
    /// that were not acknowledged are told; what lives is the caller's to end or to cut off.
    pub(crate) fn recall_tasks(&mut self, slave_id: SlaveId, at: Timestamp, turn: &mut Turn<'_>) {
        for view in self.remembered.take_of_slave(slave_id) {
            if !self.tasks.has_room(1) {
                self.counters.tasks_not_kept += 1;
                self.publish_forgotten(&view, turn);
                continue;
            }
            self.counters.tasks_recalled += 1;
            let task = Task::recalled(&view);
            let (state, has_ended) = (task.state, task.state.is_terminal());
            let change = ClusterChange::TaskAdded(task_view(&task));
            self.publisher.publish(change, turn);
            let slot = self.tasks.insert(task);
            match state {
                TaskState::Unreachable => self.list_recalled(slot, at, turn),
                _ if has_ended => self.tell_end_again(slot, turn),
                _ => {}
            }
        }
    }

    /// Its framework has been told that it is unreachable.
    fn list_recalled(&mut self, slot: TaskSlot, at: Timestamp, turn: &mut Turn<'_>) {
        if let Some(oldest) = self.tasks.list_unreachable(slot, at) {
            self.counters.unreachable_tasks_forgotten += 1;
            self.forget_task(oldest, turn);
        }
    }

    /// Its framework may not have heard of the end, and its slave will not say it again soon.
    fn tell_end_again(&mut self, slot: TaskSlot, turn: &mut Turn<'_>) {
        let Some(task) = self.tasks.get(slot) else {
            return;
        };
        let framework = task.framework();
        let told = task.status.as_deref();
        let status = match told.filter(|told| told.state == task.state) {
            Some(told) => told.clone(),
            None => self.master_status(task, task.state, turn.now),
        };
        self.send_master_update(framework, status, turn);
    }

    /// The slave is back: what it has not reported is not there.
    pub(crate) fn forget_remembered_of(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        for view in self.remembered.take_of_slave(slave_id) {
            self.publish_forgotten(&view, turn);
        }
    }

    /// The framework is removed: nobody is left who would ask.
    pub(crate) fn forget_remembered_for(&mut self, framework: FrameworkId, turn: &mut Turn<'_>) {
        for view in self.remembered.take_of_framework(framework) {
            self.publish_forgotten(&view, turn);
        }
    }

    fn publish_forgotten(&mut self, view: &TaskView, turn: &mut Turn<'_>) {
        let forgotten = ClusterChange::TaskForgotten {
            framework_id: view.framework_id,
            task_id: view.task_id.clone(),
        };
        self.publisher.publish(forgotten, turn);
    }
}
