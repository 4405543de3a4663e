//! Kills (semantics B9).

use std::time::Duration;

use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
use meros_proto::message::master::ReconcileTask;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::status::TaskState;
use meros_proto::task::KILL_GRACE_MAX;

use crate::MasterCore;
use crate::tasks::Kill;
use crate::turn::Turn;

impl MasterCore {
    pub(crate) fn on_kill(
        &mut self,
        framework_id: FrameworkId,
        task_id: &TaskId,
        slave_id: Option<SlaveId>,
        grace: Option<Duration>,
        turn: &mut Turn<'_>,
    ) {
        self.counters.kills += 1;
        let slot = self.tasks.find(framework_id, task_id);
        let Some(task) = slot.and_then(|slot| self.tasks.get_mut(slot)) else {
            let question = ReconcileTask {
                task_id: task_id.clone(),
                slave_id,
            };
            return self.answer(framework_id, &question, turn);
        };
        if slave_id.is_some_and(|wrong| wrong != task.slave()) || task.state.is_terminal() {
            return;
        }
        let grace = shortened(task.kill, grace);
        task.kill = Some(Kill {
            grace,
            for_drain: false,
        });
        let is_unreachable = task.state == TaskState::Unreachable;
        // A slave that is away hears of it when it is back.
        if let Some(connection) = self.slaves.connection(task.slave()) {
            let task_id = task_id.clone();
            turn.send_slave(
                connection,
                MasterToSlave::KillTask {
                    framework_id,
                    task_id,
                    grace,
                },
            );
        }
        if is_unreachable {
            let question = ReconcileTask {
                task_id: task_id.clone(),
                slave_id,
            };
            self.answer(framework_id, &question, turn);
        }
    }
}

/// The grace of a kill after an earlier one: a repeat may only shorten it.
pub(crate) fn shortened(before: Option<Kill>, grace: Option<Duration>) -> Option<Duration> {
    let grace = grace.map(|grace| grace.min(KILL_GRACE_MAX));
    match before.and_then(|kill| kill.grace) {
        Some(before) => Some(grace.map_or(before, |now| now.min(before))),
        None => grace,
    }
}
