//! Accepts: offers become tasks, step by step with operations on them (semantics B4, D1, E6, F1).
//! Nothing here depends on how many slaves or tasks there are.

use std::sync::Arc;

use meros_proto::ids::{FrameworkId, OfferId, TaskId};
use meros_proto::message::master::{CALL_ITEMS_MAX, TASKS_PER_SLAVE_MAX};
use meros_proto::message::slave::{MasterToSlave, RunTask, TaskFramework};
use meros_proto::mutant::Mutant;
use meros_proto::offer::{Filters, Operation};
use meros_proto::operation::OPERATIONS_PENDING_MAX;
use meros_proto::refusal::Refusal;
use meros_proto::resources::Resources;
use meros_proto::status::{Reason, Source, TaskState, TaskStatus};
use meros_proto::task::TaskDescription;
use meros_proto::view::{ClusterChange, OfferEnd};
use tracing::debug;

use crate::MasterCore;
use crate::event::ConnectionId;
use crate::offers::Outstanding;
use crate::publish::task_view;
use crate::tasks::{TASKS_MAX, TASKS_PER_FRAMEWORK_MAX, Task};
use crate::turn::Turn;
use crate::validate::check_task;

impl MasterCore {
    pub(crate) fn on_accept(
        &mut self,
        framework: FrameworkId,
        offer_ids: &[OfferId],
        operations: Vec<Operation>,
        filters: Filters,
        turn: &mut Turn<'_>,
    ) {
        // Without operations it is a decline.
        let (end, filters) = match operations.is_empty() {
            true => (OfferEnd::Declined, self.declined(filters, turn.now)),
            false => (OfferEnd::Accepted, filters),
        };
        let offers = match self.check_accept(framework, offer_ids, &operations) {
            Ok(numbers) => numbers,
            Err(why) => return self.fail_accept(framework, offer_ids, operations, &why, turn),
        };
        let mut pool: Option<Outstanding> = None;
        for number in offers {
            let Some(offer) = self.take_offer(number, end, turn) else {
                continue;
            };
            match &mut pool {
                Some(pool) => Arc::make_mut(&mut pool.resources)
                    .checked_add_assign(&offer.resources)
                    .expect("offers are parts of what one slave has (M1)"),
                None => pool = Some(offer),
            }
        }
        let Some(mut pool) = pool else { return };
        let mut rest = std::mem::take(&mut pool.resources);
        for operation in operations {
            match operation {
                Operation::Launch(tasks) if tasks.is_empty() => {}
                Operation::Launch(tasks) => {
                    self.launch_tasks(&pool, Arc::make_mut(&mut rest), tasks, turn);
                }
                Operation::LaunchGroup(group) if group.tasks.is_empty() => {}
                Operation::LaunchGroup(group) => {
                    self.launch_group(&pool, Arc::make_mut(&mut rest), *group, turn);
                }
                Operation::Change(operation) => {
                    self.change_offered(&pool, Arc::make_mut(&mut rest), *operation, turn);
                }
            }
        }
        self.give_back(&pool, rest, filters, turn);
    }

    /// The numbers of offers that are all valid together, or why they are not (semantics E6).
    fn check_accept(
        &self,
        framework: FrameworkId,
        offer_ids: &[OfferId],
        operations: &[Operation],
    ) -> Result<Vec<u64>, String> {
        let (mut items, mut changes) = (0, 0);
        for operation in operations {
            items += operation.tasks().len();
            changes += usize::from(matches!(operation, Operation::Change(_)));
        }
        // More could not all be on their way to one slave.
        if changes > OPERATIONS_PENDING_MAX {
            return Err(format!(
                "the accept has more than {OPERATIONS_PENDING_MAX} operations on resources"
            ));
        }
        items += changes;
        if offer_ids.len() > CALL_ITEMS_MAX || items > CALL_ITEMS_MAX {
            return Err(format!(
                "the accept has more than {CALL_ITEMS_MAX} offers, or tasks and operations"
            ));
        }
        let mut numbers: Vec<u64> = Vec::with_capacity(offer_ids.len());
        let mut first: Option<&Outstanding> = None;
        for id in offer_ids {
            let offer = self
                .offer_number(*id)
                .and_then(|number| self.offers.get(number));
            let Some(offer) = offer.filter(|offer| offer.framework == framework) else {
                return Err(Refusal::OfferInvalid { offer_id: *id }.to_string());
            };
            match first {
                Some(first) if first.slave != offer.slave => {
                    return Err(
                        "the offers are of different slaves; accept those of one".to_owned()
                    );
                }
                Some(first) if first.role != offer.role => {
                    return Err(
                        "the offers are for different roles; accept those of one".to_owned()
                    );
                }
                _ => first = Some(offer),
            }
            numbers.push(id.number);
        }
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.len() < count {
            return Err("an offer is named twice".to_owned());
        }
        match first {
            None if items > 0 => return Err("no offer is named".to_owned()),
            Some(offer) if self.slaves.connection(offer.slave).is_none() => {
                return Err(format!("slave {} is away", offer.slave));
            }
            _ => {}
        }
        Ok(numbers)
    }

    /// The whole accept fails: the offers that are valid are taken back, no task is launched.
    fn fail_accept(
        &mut self,
        framework: FrameworkId,
        offer_ids: &[OfferId],
        operations: Vec<Operation>,
        why: &str,
        turn: &mut Turn<'_>,
    ) {
        debug!(framework_id = %framework, why, "accept failed");
        self.counters.accepts_invalid += 1;
        for id in offer_ids {
            let Some(number) = self.offer_number(*id) else {
                continue;
            };
            if self
                .offers
                .get(number)
                .is_some_and(|offer| offer.framework == framework)
            {
                self.end_offer(number, OfferEnd::Rescinded, turn);
            }
        }
        for operation in operations {
            for task in operation.tasks() {
                self.counters.tasks_dropped += 1;
                let mut status = refused_status(task, TaskState::Dropped, turn);
                status.reason = Some(Reason::InvalidOffers);
                why.clone_into(&mut status.message);
                self.send_master_update(framework, status, turn);
            }
            if let Operation::Change(operation) = operation {
                let refusal = Refusal::Invalid {
                    field: "offer_ids".to_owned(),
                    why: why.to_owned(),
                };
                let id = operation.operation_id;
                self.fail_operation(framework, None, id, refusal, turn);
            }
        }
    }

    /// Launches what is valid and fits into the rest; each task is judged by itself (semantics
    /// D1).
    fn launch_tasks(
        &mut self,
        pool: &Outstanding,
        rest: &mut Resources,
        tasks: Vec<TaskDescription>,
        turn: &mut Turn<'_>,
    ) {
        let Some(order) = self.order_for(pool) else {
            return;
        };
        for task in tasks {
            match self.check_launch(pool, &task, rest) {
                Ok(()) => self.launch_task(pool, &order, task, turn),
                Err(refusal) => {
                    debug!(framework_id = %pool.framework, task_id = %task.task_id, error = %refusal, "task refused");
                    self.counters.tasks_invalid += 1;
                    let mut status = refused_status(&task, TaskState::Error, turn);
                    status.reason = Some(Reason::TaskInvalid);
                    status.message = refusal.to_string();
                    self.send_master_update(pool.framework, status, turn);
                }
            }
        }
    }

    /// What is the same for all tasks of one accept.
    pub(crate) fn order_for(&self, pool: &Outstanding) -> Option<Order> {
        let connection = self.slaves.connection(pool.slave)?;
        let description = self.description(pool.framework)?;
        let framework = TaskFramework {
            framework_id: pool.framework,
            name: description.name.clone(),
            user: description.user.clone(),
            checkpoint: description.checkpoint,
            capabilities: description.capabilities.clone(),
        };
        Some(Order {
            connection,
            framework,
        })
    }

    /// Checks a task and takes its resources out of the rest of the offers.
    fn check_launch(
        &self,
        pool: &Outstanding,
        task: &TaskDescription,
        rest: &mut Resources,
    ) -> Result<(), Refusal> {
        let invalid = |field: &str, why: String| Refusal::Invalid {
            field: field.to_owned(),
            why,
        };
        let record = self.registry.slave(pool.slave);
        let slave = record.ok_or(Refusal::SlaveUnknown {
            slave_id: pool.slave,
        })?;
        check_task(task, pool.slave, &slave.slave)?;
        self.check_task_id(pool.framework, &task.task_id)?;
        self.check_task_limits(pool, 1)?;
        let executor = self.check_executor(pool.slave, pool.framework, task.executor.as_ref())?;
        let need = task
            .resources
            .checked_add(&executor)
            .map_err(|sum| invalid("resources", sum.to_string()))?;
        rest.checked_sub_assign(&need).map_err(|missing| {
            invalid("resources", format!("more than the offers have: {missing}"))
        })
    }

    /// semantics: A9
    pub(crate) fn check_task_id(
        &self,
        framework: FrameworkId,
        task_id: &TaskId,
    ) -> Result<(), Refusal> {
        if self.tasks.find(framework, task_id).is_none() || Mutant::ReuseTaskIds.is_on() {
            return Ok(());
        }
        Err(Refusal::Invalid {
            field: "task_id".to_owned(),
            why: format!("{task_id} is the id of another task of this framework"),
        })
    }

    /// Whether there is room in the tables for so many more tasks.
    pub(crate) fn check_task_limits(&self, pool: &Outstanding, more: usize) -> Result<(), Refusal> {
        let of_framework = self.tasks.count_of_framework(pool.framework);
        let (what, limit) = if of_framework + more > TASKS_PER_FRAMEWORK_MAX {
            ("tasks of this framework", TASKS_PER_FRAMEWORK_MAX)
        } else if self.tasks.count_of_slave(pool.slave) + more > TASKS_PER_SLAVE_MAX {
            ("tasks of this slave", TASKS_PER_SLAVE_MAX)
        } else if !self.tasks.has_room(more) {
            ("tasks of all frameworks", TASKS_MAX)
        } else {
            return Ok(());
        };
        Err(Refusal::OverLimit {
            what: format!("the number of {what}"),
            limit: limit as u64,
            advice: "launch it when others have ended".to_owned(),
        })
    }

    fn launch_task(
        &mut self,
        pool: &Outstanding,
        order: &Order,
        mut description: TaskDescription,
        turn: &mut Turn<'_>,
    ) {
        let mut starts = None;
        if let Some(executor) = &mut description.executor {
            executor.framework_id = Some(pool.framework);
            let (slave, framework) = (pool.slave, pool.framework);
            starts = Some(self.charge_executor(slave, framework, &pool.role, executor, turn));
        }
        self.record_launched(pool, &description, turn);
        let run = RunTask {
            framework: order.framework.clone(),
            role: pool.role.clone(),
            task: description,
        };
        let run = Box::new(run);
        let order_to_run = match starts {
            Some(starts) => MasterToSlave::RunInExecutor { run, starts },
            None => MasterToSlave::RunTask(run),
        };
        turn.send_slave(order.connection, order_to_run);
    }

    /// The task is on its way to its slave.
    pub(crate) fn record_launched(
        &mut self,
        pool: &Outstanding,
        description: &TaskDescription,
        turn: &mut Turn<'_>,
    ) {
        self.counters.tasks_launched += 1;
        let task = Task::launched(pool.framework, pool.role.clone(), description, turn.now);
        self.remembered.remove(pool.framework, task.id());
        self.publisher
            .publish(ClusterChange::TaskAdded(task_view(&task)), turn);
        self.tasks.insert(task);
    }
}

/// Where the tasks of an accept go, and what their slave is told of their framework.
pub(crate) struct Order {
    pub(crate) connection: ConnectionId,
    pub(crate) framework: TaskFramework,
}

/// The status of a task that never gets into the table.
pub(crate) fn refused_status(
    task: &TaskDescription,
    state: TaskState,
    turn: &Turn<'_>,
) -> TaskStatus {
    let mut status = TaskStatus::new(task.task_id.clone(), state, Source::Master, turn.now);
    status.slave_id = Some(task.slave_id);
    status
}
