//! Groups of tasks (pods): judged, launched and refused as a whole (semantics D2).
//!
//! What ends together is the slave's business, which sees the members end (M7). Here a group is its tasks, and a row
//! among the executors for what it takes beside them.

use std::collections::BTreeSet;

use meros_proto::group::{TASKS_PER_GROUP_MAX, TaskGroup};
use meros_proto::ids::TaskId;
use meros_proto::message::slave::{MasterToSlave, RunGroup};
use meros_proto::refusal::Refusal;
use meros_proto::resources::Resources;
use meros_proto::status::{Reason, TaskState};
use tracing::debug;

use crate::MasterCore;
use crate::launch::refused_status;
use crate::offers::Outstanding;
use crate::turn::Turn;
use crate::validate::{check_group_executor, check_task};

/// Why a group is not launched.
struct Refused {
    /// Whose fault it is, if that of one task.
    task: Option<TaskId>,
    refusal: Refusal,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let task = None;
        Self { task, refusal }
    }
}

fn invalid(field: &str, why: String) -> Refusal {
    Refusal::Invalid {
        field: field.to_owned(),
        why,
    }
}

impl MasterCore {
    /// Launches the group if all of it is valid and fits into the rest; else none of it.
    pub(crate) fn launch_group(
        &mut self,
        pool: &Outstanding,
        rest: &mut Resources,
        group: TaskGroup,
        turn: &mut Turn<'_>,
    ) {
        let Some(order) = self.order_for(pool) else {
            return;
        };
        if let Err(refused) = self.check_group(pool, &group, rest) {
            return self.refuse_group(pool, &group, &refused, turn);
        }
        let mut group = group;
        group.executor.framework_id = Some(pool.framework);
        let executor = &group.executor;
        self.charge_executor(pool.slave, pool.framework, &pool.role, executor, turn);
        for member in group.clone().into_members() {
            self.record_launched(pool, &member, turn);
        }
        let run = RunGroup {
            framework: order.framework,
            role: pool.role.clone(),
            group,
        };
        turn.send_slave(order.connection, MasterToSlave::RunGroup(Box::new(run)));
    }

    /// Checks a group and takes its resources out of the rest of the offers.
    fn check_group(
        &self,
        pool: &Outstanding,
        group: &TaskGroup,
        rest: &mut Resources,
    ) -> Result<(), Refused> {
        let TaskGroup { executor, tasks } = group;
        check_group_executor(executor)?;
        if tasks.len() > TASKS_PER_GROUP_MAX {
            return Err(Refused::from(Refusal::OverLimit {
                what: "the number of tasks in a group".to_owned(),
                limit: TASKS_PER_GROUP_MAX as u64,
                advice: "launch several groups".to_owned(),
            }));
        }
        let record = self.registry.slave(pool.slave);
        let slave = record.ok_or(Refusal::SlaveUnknown {
            slave_id: pool.slave,
        })?;
        let id = &executor.executor_id;
        let at = (pool.slave, pool.framework, id.clone());
        if self.executors.get(&at).is_some() {
            let why = format!(
                "{id} runs on slave {} already: give each group an id of its own, or wait for its end",
                pool.slave
            );
            return Err(Refused::from(invalid("executor.executor_id", why)));
        }
        let mut need = self.check_executor(pool.slave, pool.framework, Some(executor))?;
        let mut named = BTreeSet::new();
        for task in tasks {
            let blame = |refusal| Refused {
                task: Some(task.task_id.clone()),
                refusal,
            };
            if task.executor.is_some() {
                let why =
                    "a task of a group has a command, and the executor of its group".to_owned();
                return Err(blame(invalid("executor", why)));
            }
            check_task(task, pool.slave, &slave.slave).map_err(blame)?;
            self.check_task_id(pool.framework, &task.task_id)
                .map_err(blame)?;
            if !named.insert(&task.task_id) {
                let why = format!("{} is in the group twice", task.task_id);
                return Err(blame(invalid("task_id", why)));
            }
            need.checked_add_assign(&task.resources)
                .map_err(|sum| blame(invalid("resources", sum.to_string())))?;
        }
        self.check_task_limits(pool, tasks.len())?;
        rest.checked_sub_assign(&need).map_err(|missing| {
            let why = format!("the group takes more than the offers have: {missing}");
            Refused::from(invalid("resources", why))
        })
    }

    /// Every task of it is told why; of one that is in it twice, once.
    fn refuse_group(
        &mut self,
        pool: &Outstanding,
        group: &TaskGroup,
        refused: &Refused,
        turn: &mut Turn<'_>,
    ) {
        let Refused { task, refusal } = refused;
        debug!(framework_id = %pool.framework, group = %group.executor.executor_id, error = %refusal, "group refused");
        let mut told = BTreeSet::new();
        for member in &group.tasks {
            if !told.insert(&member.task_id) {
                continue;
            }
            self.counters.tasks_invalid += 1;
            let mut status = refused_status(member, TaskState::Error, turn);
            status.reason = Some(Reason::TaskGroupInvalid);
            status.message = match task {
                Some(task) if *task != member.task_id => {
                    format!("task {task} of its group is refused: {refusal}")
                }
                _ => refusal.to_string(),
            };
            self.send_master_update(pool.framework, status, turn);
        }
    }
}
