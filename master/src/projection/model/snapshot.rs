//! The whole read model as rows, for a master that follows, and back.
//!
//! A row is small: what is large is shared with the model, so that rows are picked in a moment. Rows
//! are put back in the order in which they were given.

use std::sync::Arc;

use meros_master_core::Holding;
use meros_proto::ids::FrameworkId;
use meros_proto::view::{
    ExecutorView, FrameworkView, MasterView, OfferView, RoleView, SlaveView, TaskView,
};
use serde::{Deserialize, Serialize};

use super::ReadModel;

/// A part of a read model. Variants are appended, never reordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row {
    /// The leading master.
    Master(Box<MasterView>),
    /// What is configured for a role.
    Role(Box<RoleView>),
    /// A slave.
    Slave(Arc<SlaveView>),
    /// A framework, and how it has treated its offers; those that are completed first, oldest first.
    Framework(Arc<FrameworkView>, Box<Holding>),
    /// An outstanding offer.
    Offer(Arc<OfferView>),
    /// A task in the master's tables.
    Task(Arc<TaskView>),
    /// A remembered task.
    Remembered(Arc<TaskView>),
    /// A task that has left the tables, and its number among those of its framework; oldest first.
    Left(u64, Arc<TaskView>),
    /// An executor.
    Executor(Arc<ExecutorView>),
}

impl ReadModel {
    /// Everything, and the number of the last event in it.
    #[must_use]
    pub fn rows(&self) -> (Vec<Row>, u64) {
        let master = self.master.iter().cloned().map(Box::new).map(Row::Master);
        let mut rows: Vec<Row> = master.collect();
        rows.extend(self.roles.configured().map(Box::new).map(Row::Role));
        let slaves = self.slaves.values();
        rows.extend(slaves.map(|slave| Row::Slave(Arc::clone(&slave.view))));
        let is_completed = |id: &FrameworkId| self.completed.contains(id);
        let others = self.frameworks.keys().filter(|id| !is_completed(id));
        for id in self.completed.iter().chain(others) {
            let Some(framework) = self.frameworks.get(id) else {
                continue;
            };
            let holding = Box::new(framework.holding);
            rows.push(Row::Framework(Arc::clone(&framework.view), holding));
            rows.extend(framework.tasks.values().map(|row| match row.remembered {
                true => Row::Remembered(Arc::clone(&row.task)),
                false => Row::Task(Arc::clone(&row.task)),
            }));
            let left = framework.completed.iter();
            rows.extend(left.map(|(number, task)| Row::Left(*number, Arc::clone(task))));
        }
        rows.extend(self.offers.values().map(|it| Row::Offer(Arc::clone(it))));
        let executors = self.executors.values();
        rows.extend(executors.map(|it| Row::Executor(Arc::clone(it))));
        (rows, self.sequence)
    }

    /// Puts a row of another model into this one.
    pub fn put(&mut self, row: Row) {
        match row {
            Row::Master(master) => self.master = Some(*master),
            Row::Role(role) => self.roles.configure(*role),
            Row::Slave(slave) => self.put_slave(slave),
            Row::Framework(framework, holding) => {
                let id = framework.framework_id;
                self.put_framework(framework);
                if let Some(framework) = self.frameworks.get_mut(&id) {
                    framework.holding = *holding;
                }
            }
            Row::Offer(offer) => self.add_offer(offer),
            Row::Task(task) => self.add_task(task),
            Row::Remembered(task) => self.remember_task(task),
            Row::Left(number, task) => self.put_left(number, task),
            Row::Executor(executor) => self.add_executor(executor),
        }
    }

    /// All rows have been put: events from the next one on may be applied.
    pub fn complete(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    fn put_left(&mut self, number: u64, task: Arc<TaskView>) {
        let Some(framework) = self.frameworks.get_mut(&task.framework_id) else {
            return;
        };
        // What comes from another process has no say in how much is kept.
        if framework.completed.len() < super::COMPLETED_TASKS_MAX {
            framework.completed.push_back((number, task));
            framework.completed_next = framework.completed_next.max(number.saturating_add(1));
        }
    }
}
