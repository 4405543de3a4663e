//! Reconciliation: what the master knows of tasks that a framework asks about (semantics H).
//!
//! Answers have no id: they are not repeated, the framework asks again.

use std::time::Duration;

use meros_proto::ids::{FrameworkId, TaskId};
use meros_proto::message::master::ReconcileTask;
use meros_proto::mutant::Mutant;
use meros_proto::slave::SlaveState;
use meros_proto::status::{Reason, Source, TaskState, TaskStatus};

use crate::MasterCore;
use crate::event::ConnectionId;
use crate::offering::check_items;
use crate::tasks::Task;
use crate::timers::Timer;
use crate::turn::Turn;

/// An implicit reconciliation is answered in parts of so many updates, because the queue of a
/// connection has a bound, and a framework may have more tasks than that.
const ANSWERS_AT_ONCE_MAX: usize = 10_000;
/// From one part to the next: a hundred thousand updates a second, which one connection carries.
const ANSWERS_PAUSE: Duration = Duration::from_millis(100);

impl MasterCore {
    pub(crate) fn on_reconcile(
        &mut self,
        framework: FrameworkId,
        connection: ConnectionId,
        questions: &[ReconcileTask],
        turn: &mut Turn<'_>,
    ) {
        if let Err(refusal) = check_items("tasks", questions.len()) {
            return self.refuse_call(connection, "Reconcile", refusal, turn);
        }
        for question in questions {
            self.answer(framework, question, turn);
        }
        if questions.is_empty() {
            self.answer_all(framework, None, turn);
        }
    }

    /// One update for each task that is not cut off (semantics H7), from the one behind `after`.
    fn answer_all(&mut self, framework: FrameworkId, after: Option<&TaskId>, turn: &mut Turn<'_>) {
        let slots = self
            .tasks
            .next_of_framework(framework, after, ANSWERS_AT_ONCE_MAX);
        let mut last = None;
        for slot in &slots {
            let Some(task) = self.tasks.get(*slot) else {
                continue;
            };
            last = Some(task.id().clone());
            if task.state != TaskState::Unreachable {
                let status = answer_for(task, turn);
                self.counters.reconciliations += 1;
                self.tell_status(framework, &status, turn);
            }
        }
        let Some(row) = self.frameworks.get_mut(framework) else {
            return;
        };
        row.answered = last.filter(|_| slots.len() == ANSWERS_AT_ONCE_MAX);
        let timer = Timer::Answer(framework);
        if row.answered.is_some() {
            self.timers.arm(timer, turn.now.after(ANSWERS_PAUSE));
        } else {
            self.timers.cancel(&timer);
        }
    }

    pub(crate) fn on_answer_due(&mut self, framework: FrameworkId, turn: &mut Turn<'_>) {
        let row = self
            .frameworks
            .get_mut(framework)
            .filter(|row| row.connection.is_some());
        if let Some(after) = row.and_then(|row| row.answered.take()) {
            self.answer_all(framework, Some(&after), turn);
        }
    }

    /// The answer about one task, if there is one (semantics H1 to H6).
    pub(crate) fn answer(
        &mut self,
        framework: FrameworkId,
        question: &ReconcileTask,
        turn: &mut Turn<'_>,
    ) {
        let slot = self.tasks.find(framework, &question.task_id);
        let status = match slot.and_then(|slot| self.tasks.get(slot)) {
            Some(task) => Some(answer_for(task, turn)),
            None => self.answer_for_unknown(question, turn),
        };
        if let Some(status) = status {
            self.counters.reconciliations += 1;
            self.tell_status(framework, &status, turn);
        }
    }

    fn answer_for_unknown(&self, question: &ReconcileTask, turn: &Turn<'_>) -> Option<TaskStatus> {
        let slave = question.slave_id.map(|id| self.slaves.get(id));
        let (state, unreachable_since) = match slave {
            // It may be on a slave that has not come back yet: no answer, ask again (H2).
            _ if Mutant::AnswerWhileRecovering.is_on() => (TaskState::Gone, None),
            None if self.slaves.unsure() > 0 => return None,
            Some(Some(slave)) => match slave.state() {
                SlaveState::Unreachable => (TaskState::Unreachable, Some(slave.since)),
                _ if slave.is_known() => (TaskState::Gone, None),
                _ => return None,
            },
            Some(None)
                if question
                    .slave_id
                    .is_some_and(|id| self.registry.is_gone_slave(id)) =>
            {
                (TaskState::GoneByOperator, None)
            }
            None | Some(None) => (TaskState::Unknown, None),
        };
        let mut status = TaskStatus::new(question.task_id.clone(), state, Source::Master, turn.now);
        status.slave_id = question.slave_id;
        status.reason = Some(Reason::Reconciliation);
        status.unreachable_since = unreachable_since;
        Some(status)
    }
}

/// The state that was last told of a task (semantics H1): not ahead of its updates, so that an end
/// is first heard from the update that brings the reason.
fn answer_for(task: &Task, turn: &Turn<'_>) -> TaskStatus {
    let told = task.status.as_deref();
    let state = match task.state {
        TaskState::Unreachable => TaskState::Unreachable,
        _ => told.map_or(TaskState::Staging, |status| status.state),
    };
    let mut status = TaskStatus::new(task.id().clone(), state, Source::Master, turn.now);
    status.slave_id = Some(task.slave());
    status.reason = Some(Reason::Reconciliation);
    if let Some(told) = told {
        status.executor_id.clone_from(&told.executor_id);
        status.healthy = told.healthy;
        status.check_status = told.check_status;
        status.unreachable_since = told.unreachable_since;
    }
    status
}
