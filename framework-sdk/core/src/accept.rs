//! Accepts: every task in one gets exactly one terminal status, whatever becomes of it.

use std::collections::BTreeSet;

use meros_proto::executor::ExecutorDescription;
use meros_proto::ids::{OfferId, TaskId};
use meros_proto::labels::Labels;
use meros_proto::message::master::{CALL_ITEMS_MAX, FrameworkToMaster};
use meros_proto::offer::{Filters, Operation};
use meros_proto::operation::{
    OPERATIONS_PENDING_MAX, OperationState, OperationStatus, ResourceOperation,
};
use meros_proto::refusal::Refusal;
use meros_proto::resources::Resources;
use meros_proto::status::{Reason, Source, TaskState, TaskStatus};
use meros_proto::task::{Command, TaskDescription};
use meros_proto::time::Timestamp;

use crate::config::{ACCEPT_BYTES_MAX, LIVE_TASKS_MAX};
use crate::{Driver, Effect, Link, News};

/// An accept on its way through the driver.
pub(crate) struct Accept {
    pub(crate) offer_ids: Vec<OfferId>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) filters: Filters,
}

impl Accept {
    fn tasks(&self) -> impl Iterator<Item = &TaskDescription> {
        self.operations.iter().flat_map(Operation::tasks)
    }

    fn changes(&self) -> impl Iterator<Item = &ResourceOperation> {
        self.operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Change(change) => Some(&**change),
                Operation::Launch(_) | Operation::LaunchGroup(_) => None,
            })
    }

    /// About how many bytes it takes on the wire, from above.
    fn bytes(&self) -> usize {
        let tasks: usize = self.tasks().map(task_bytes).sum();
        let changes = self
            .changes()
            .map(|it| 512 + resources_bytes(&it.change.resources));
        let groups = self
            .operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::LaunchGroup(group) => Some(executor_bytes(&group.executor)),
                Operation::Launch(_) | Operation::Change(_) => None,
            });
        let groups = groups.sum::<usize>();
        tasks + groups + changes.sum::<usize>() + self.offer_ids.len() * 20
    }
}

/// Ids, counts, and the lengths in front of texts.
const FIXED: usize = 1_024;

/// About how many bytes an executor takes on the wire, from above.
fn executor_bytes(executor: &ExecutorDescription) -> usize {
    let command = executor.command.as_ref().map_or(0, Command::bytes);
    let about = list_bytes(&executor.resources, &executor.labels);
    FIXED + command + executor.name.len() + executor.data.len() + about
}

/// About how many bytes a task takes on the wire, from above.
fn task_bytes(task: &TaskDescription) -> usize {
    let executor = task.executor.as_ref().map_or(0, executor_bytes);
    let command = task.command.as_ref().map_or(0, |command| command.bytes());
    let about = list_bytes(&task.resources, &task.labels);
    FIXED + command + executor + task.data.len() + task.name.len() + about
}

fn list_bytes(resources: &Resources, labels: &Labels) -> usize {
    // A resource in its text form is longer than on the wire, but for the labels in reservations,
    // which a framework gets from the offer that it answers.
    let labels = labels
        .iter()
        .map(|l| 16 + l.key().len() + l.value().map_or(0, str::len));
    resources.to_string().len() * 2 + labels.sum::<usize>()
}

/// About how many bytes resources take on the wire, from above: labels of reservations are in the text.
fn resources_bytes(resources: &Resources) -> usize {
    resources.to_string().len() * 2
}

impl Driver {
    /// Passes an accept on, or ends its tasks at once (semantics B4, E6).
    pub(crate) fn on_accept(
        &mut self,
        mut accept: Accept,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.take_out_live(&mut accept, now, effects);
        if self.link != Link::Subscribed || self.teardown_until.is_some() {
            self.counters.refused_calls += 1;
            let is_answered = accept.tasks().next().is_some()
                || accept.changes().any(|it| it.operation_id.is_some());
            if let (false, Some(offer_id)) = (is_answered, accept.offer_ids.first()) {
                let refusal = Refusal::OfferInvalid {
                    offer_id: *offer_id,
                };
                effects.push(refused_accept(refusal));
            }
            let why = "the driver was not subscribed: the offer was void";
            let ended = Ended {
                state: TaskState::Dropped,
                reason: Reason::MasterDisconnected,
                why,
                at: now,
            };
            end_changes(&accept, OperationState::Dropped, why, effects);
            return self.end_tasks(accept.tasks(), &ended, effects);
        }
        if let Some(why) = self.why_too_large(&accept) {
            self.counters.refused_calls += 1;
            let ended = Ended {
                state: TaskState::Error,
                reason: Reason::TaskInvalid,
                why: &why,
                at: now,
            };
            end_changes(&accept, OperationState::Error, &why, effects);
            self.end_tasks(accept.tasks(), &ended, effects);
            return self.decline(&accept.offer_ids, accept.filters, effects);
        }
        for task in accept.tasks() {
            self.tasks.launch(&task.task_id, task.slave_id);
        }
        let Accept {
            offer_ids,
            operations,
            filters,
        } = accept;
        effects.push(Effect::Send(FrameworkToMaster::Accept {
            offer_ids,
            operations,
            filters,
        }));
    }

    /// Gives offers back, in messages that a master takes.
    pub(crate) fn decline(
        &mut self,
        offer_ids: &[OfferId],
        filters: Filters,
        effects: &mut Vec<Effect>,
    ) {
        for offer_ids in offer_ids.chunks(CALL_ITEMS_MAX) {
            let offer_ids = offer_ids.to_vec();
            effects.push(Effect::Send(FrameworkToMaster::Decline {
                offer_ids,
                filters,
            }));
        }
    }

    /// Takes out the tasks whose ids are in use, and the rest of their groups with them. A status for such an id
    /// would be taken for news of the task that lives under it, so they are answered by a refusal that names the id.
    fn take_out_live(&mut self, accept: &mut Accept, now: Timestamp, effects: &mut Vec<Effect>) {
        let mut named = BTreeSet::new();
        let (mut twice, mut broken): (Vec<TaskId>, Vec<TaskDescription>) = (Vec::new(), Vec::new());
        let mut is_stale = |task: &TaskDescription| {
            let fresh = !self.tasks.is_live(&task.task_id) && named.insert(task.task_id.clone());
            (!fresh).then(|| task.task_id.clone())
        };
        for operation in &mut accept.operations {
            match operation {
                Operation::Launch(tasks) => tasks.retain(|task| {
                    let stale = is_stale(task);
                    let is_kept = stale.is_none();
                    twice.extend(stale);
                    is_kept
                }),
                Operation::LaunchGroup(group) => {
                    let stale: Vec<TaskId> = group.tasks.iter().filter_map(&mut is_stale).collect();
                    if !stale.is_empty() {
                        let others = std::mem::take(&mut group.tasks).into_iter();
                        broken.extend(others.filter(|it| !stale.contains(&it.task_id)));
                        twice.extend(stale);
                    }
                }
                Operation::Change(_) => {}
            }
        }
        for task_id in twice {
            self.counters.refused_calls += 1;
            let why = format!("a task {task_id} is live already: give each task an id of its own");
            effects.push(refused_accept(Refusal::Invalid {
                field: "task_id".to_owned(),
                why,
            }));
        }
        let ended = Ended {
            state: TaskState::Error,
            reason: Reason::TaskGroupInvalid,
            why: "another task of its group has the id of a task that is live",
            at: now,
        };
        self.end_tasks(broken.iter(), &ended, effects);
    }

    fn why_too_large(&self, accept: &Accept) -> Option<String> {
        let (tasks, changes) = (accept.tasks().count(), accept.changes().count());
        if changes > OPERATIONS_PENDING_MAX {
            return Some(format!(
                "an accept has at most {OPERATIONS_PENDING_MAX} operations on resources"
            ));
        }
        if tasks + changes > CALL_ITEMS_MAX || accept.offer_ids.len() > CALL_ITEMS_MAX {
            return Some(format!(
                "an accept names at most {CALL_ITEMS_MAX} offers, and tasks and operations"
            ));
        }
        let bytes = accept.bytes();
        if bytes > ACCEPT_BYTES_MAX {
            return Some(format!(
                "the accept takes about {bytes} bytes and may take {ACCEPT_BYTES_MAX}: \
                 launch fewer tasks at a time, or smaller ones"
            ));
        }
        (self.tasks.live_count() + tasks > LIVE_TASKS_MAX)
            .then(|| format!("a framework has at most {LIVE_TASKS_MAX} live tasks"))
    }

    /// Tells the framework of the end of tasks that no master has heard of.
    fn end_tasks<'a>(
        &mut self,
        tasks: impl Iterator<Item = &'a TaskDescription>,
        ended: &Ended<'_>,
        effects: &mut Vec<Effect>,
    ) {
        for task in tasks {
            self.tasks.end_launch(&task.task_id); // D2
            let task_id = task.task_id.clone();
            let mut status = TaskStatus::new(task_id, ended.state, Source::Master, ended.at);
            status.slave_id = Some(task.slave_id);
            status.reason = Some(ended.reason);
            ended.why.clone_into(&mut status.message);
            effects.push(Effect::Deliver(News::Update(status)));
        }
    }
}

/// Tells the framework of operations that no master has heard of.
fn end_changes(accept: &Accept, state: OperationState, why: &str, effects: &mut Vec<Effect>) {
    for change in accept.changes() {
        if let Some(operation_id) = change.operation_id.clone() {
            effects.push(Effect::Deliver(News::Operation(OperationStatus {
                operation_id,
                slave_id: None,
                state,
                message: why.to_owned(),
            })));
        }
    }
}

/// How tasks end that never left the driver.
struct Ended<'a> {
    state: TaskState,
    reason: Reason,
    why: &'a str,
    at: Timestamp,
}

fn refused_accept(refusal: Refusal) -> Effect {
    Effect::Deliver(News::Refused {
        call: "Accept".to_owned(),
        refusal,
    })
}
