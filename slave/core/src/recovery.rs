//! A new life: what an earlier one left unfinished is finished with an update (semantics L).
//!
//! Containers end with the slave that started them, and the shell removes what is left of them
//! before this core is made. So no recovered task runs.

use meros_proto::mutant::Mutant;
use meros_proto::status::{Reason, Source, TaskState};
use meros_proto::time::Timestamp;
use tracing::info;

use crate::checkpoint::{Checkpoint, CheckpointedTask, Record};
use crate::launch::End;
use crate::stream::Stream;
use crate::task::{Phase, Task};
use crate::{Effect, Effects, SlaveCore, TaskKey};

impl SlaveCore {
    pub(crate) fn recover(&mut self, recovered: Checkpoint, now: Timestamp, effects: &mut Effects) {
        let Checkpoint {
            identity,
            tasks,
            updates,
            claims,
            ..
        } = recovered;
        self.claims = claims;
        for directory in self.claims.wiping.iter().cloned() {
            effects.push(Effect::WipeVolume { directory });
        }
        if identity.is_none() {
            self.forget_answers(effects);
            if !tasks.is_empty() || !updates.is_empty() {
                // Nobody would know whose tasks these were.
                self.persist(Record::Left, effects);
            }
            return;
        }
        for (key, statuses) in updates {
            let stream = Stream::recovered(statuses);
            if !stream.is_empty() {
                self.phantoms += usize::from(!tasks.contains_key(&key));
                self.streams.insert(key, stream);
            }
        }
        let total = tasks.len();
        let mut lost = 0;
        for (key, CheckpointedTask { run, started }) in tasks {
            let mut task = Task::new(run, Phase::Ended);
            let newest = self.streams.get(&key).and_then(Stream::newest_state);
            task.state = newest.unwrap_or(if started {
                TaskState::Running
            } else {
                task.state
            });
            let is_over = task.state.is_terminal();
            self.tasks.insert(key.clone(), task);
            if !is_over && !Mutant::LeaveLostTasks.is_on() {
                lost += 1;
                self.end_recovered(&key, started, now, effects);
            }
        }
        // A damaged checkpoint may have lost a task but not its updates; if the last one is not
        // the end of the task, the master asks for the task when the slave re-registers (K6).
        let open: Vec<TaskKey> = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.newest_state().is_some_and(TaskState::is_terminal))
            .map(|(key, _)| key.clone())
            .collect();
        for key in open {
            self.drop_stream(&key);
            self.persist(Record::TaskForgotten { task: key }, effects);
        }
        if total > 0 {
            info!(tasks = total, lost, "recovered tasks of an earlier life");
        }
    }

    fn end_recovered(
        &mut self,
        key: &TaskKey,
        started: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let end = if started {
            let message = "its slave restarted, and the task ended with it";
            End::by_slave(
                TaskState::Gone,
                Reason::ExecutorReregistrationTimeout,
                message,
            )
        } else {
            let message = "its slave restarted before the task was seen running";
            End::by_slave(TaskState::Dropped, Reason::SlaveRestarted, message)
        };
        let status = end.tell(self.status(&key.1, TaskState::Dropped, Source::Slave, now));
        self.update_task(key, status, effects);
    }
}
