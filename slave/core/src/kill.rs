//! Ending tasks: kills (semantics M5), frameworks that are gone (N3), and the slave's own going (K8).

use std::time::Duration;

use meros_proto::framework::FrameworkCapability;
use meros_proto::ids::{FrameworkId, TaskId};
use meros_proto::message::master::SlaveToMaster;
use meros_proto::mutant::Mutant;
use meros_proto::status::{Reason, TaskState};
use meros_proto::time::Timestamp;
use tracing::info;

use crate::config::LEAVE_ACKNOWLEDGEMENTS_MAX;
use crate::event::ExecutorKey;
use crate::executors::executor_key;
use crate::launch::killed_during_launch;
use crate::task::{Cause, Ending, Phase, Task};
use crate::timers::Due;
use crate::{Awaiting, Effect, Effects, Going, GoingStep, Record, SlaveCore, TaskKey};

impl SlaveCore {
    pub(crate) fn on_kill_task(
        &mut self,
        key: TaskKey,
        grace: Option<Duration>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        match self.tasks.get(&key) {
            Some(task) => {
                let grace = task.grace(grace);
                self.kill(&key, Cause::Requested, grace, now, effects);
            }
            // What has started is remembered, so what is not known has not.
            None => self.answer_for_unknown(key, false, now, effects),
        }
    }

    pub(crate) fn on_completion_due(
        &mut self,
        key: &TaskKey,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if let Some(task) = self.tasks.get(key) {
            let grace = task.grace(None);
            self.kill(key, Cause::CompletionTime, grace, now, effects);
        }
    }

    /// Ends a task from wherever it is. A repeat may only shorten the grace, and the first cause
    /// stays, except that an abandoned task is nobody's any more.
    pub(crate) fn kill(
        &mut self,
        key: &TaskKey,
        cause: Cause,
        grace: Duration,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        let (first, is_prepared) = (task.ending.is_none(), task.is_prepared());
        let ending = task.ending.get_or_insert(Ending {
            cause,
            grace,
            kill_at: None,
        });
        ending.grace = ending.grace.min(grace);
        match task.phase {
            Phase::Ended => task.ending = None,
            Phase::Accepted { .. } | Phase::Queued => {
                let executor = executor_key(&task.run);
                self.end_task(key, killed_during_launch(cause), now, effects);
                if let Some(executor) = executor {
                    self.end_if_idle(&executor, now, effects);
                }
            }
            Phase::Given => {
                let kill_at = now.after(grace);
                if ending.kill_at.is_none_or(|known| kill_at < known) {
                    ending.kill_at = Some(kill_at);
                    self.kill_in_executor(key, grace, effects);
                }
            }
            // The kill goes out when the container answers: until then there is nothing to kill.
            Phase::Starting { .. } if Mutant::LoseKillWhileStarting.is_on() => task.ending = None,
            Phase::Starting { container } if is_prepared => {
                effects.push(Effect::CancelStart { container });
            }
            Phase::Starting { .. } => {}
            Phase::Running { container, .. } => {
                let kill_at = now.after(grace);
                if ending.kill_at.is_none_or(|known| kill_at < known) {
                    ending.kill_at = Some(kill_at);
                    effects.push(Effect::KillContainer { container, grace });
                }
                if first {
                    // A member of a group that is not all there yet runs, and nobody has heard of it.
                    let is_told = !task.abandoned && !task.is_unheard();
                    self.stop_checks(key);
                    if is_told {
                        self.announce_kill(key, cause, now, effects);
                    }
                }
            }
        }
    }

    /// semantics: F2, only for frameworks that understand it.
    fn announce_kill(
        &mut self,
        key: &TaskKey,
        cause: Cause,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let task = self.tasks.get(key).expect("kill has looked it up");
        let capabilities = &task.run.framework.capabilities;
        if capabilities.contains(&FrameworkCapability::TaskKillingState) {
            let why = (cause == Cause::Unhealthy).then(|| task.checks.why_unhealthy());
            let mut status = self.living(key, TaskState::Killing, now);
            if let Some(why) = why {
                status.reason = Some(Reason::TaskHealthCheckStatusUpdated);
                status.message = why;
            }
            self.update_task(key, status, effects);
        }
    }

    /// semantics: N3
    pub(crate) fn on_shutdown_framework(
        &mut self,
        framework_id: FrameworkId,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let tasks: Vec<TaskKey> = self.keys_of(framework_id);
        let streams: Vec<TaskKey> = {
            let first = (framework_id, first_task_id());
            let of_it = self.streams.range(first..).map(|(key, _)| key);
            of_it
                .take_while(|key| key.0 == framework_id)
                .cloned()
                .collect()
        };
        let executors = self.executors_of(framework_id);
        let groups: Vec<ExecutorKey> = {
            let keys = self.groups.keys();
            keys.filter(|key| key.0 == framework_id).cloned().collect()
        };
        let nothing_known = tasks.iter().all(|key| self.tasks[key].abandoned)
            && executors.iter().all(|key| self.executors[key].abandoned)
            && streams.is_empty();
        if nothing_known {
            return self.tell_if_forgotten(framework_id, effects);
        }
        self.persist(Record::FrameworkShutDown { framework_id }, effects);
        for key in streams {
            self.drop_stream(&key);
        }
        for key in tasks {
            let task = self.tasks.get_mut(&key).expect("listed above");
            if std::mem::replace(&mut task.abandoned, true) {
                continue;
            }
            match task.phase {
                Phase::Ended => {
                    if let Some(container) = task.ended_in {
                        effects.push(Effect::ForgetContainer { container });
                    }
                    self.tasks.remove(&key);
                }
                Phase::Accepted { .. } | Phase::Queued | Phase::Given => {
                    self.timers.clear(&Due::Completion(key.clone()));
                    self.release(&key);
                    self.tasks.remove(&key);
                }
                Phase::Starting { .. } | Phase::Running { .. } => {
                    let grace = task.grace(None);
                    // The master takes them as free from the moment it removes the framework, and
                    // would have others dropped for the few seconds that these take to end.
                    self.release(&key);
                    self.timers.clear(&Due::Completion(key.clone()));
                    self.stop_checks(&key);
                    self.kill(&key, Cause::FrameworkGone, grace, now, effects);
                }
            }
        }
        for key in groups {
            self.leave_group(&key);
        }
        for key in executors {
            self.abandon_executor(&key, now, effects);
        }
        self.tell_if_forgotten(framework_id, effects);
    }

    fn keys_of(&self, framework_id: FrameworkId) -> Vec<TaskKey> {
        let keys = self
            .tasks
            .range((framework_id, first_task_id())..)
            .map(|(key, _)| key);
        keys.take_while(|key| key.0 == framework_id)
            .cloned()
            .collect()
    }

    pub(crate) fn tell_if_forgotten(&self, framework_id: FrameworkId, effects: &mut Effects) {
        let next = self.tasks.range((framework_id, first_task_id())..).next();
        let has_tasks = next.is_some_and(|(key, _)| key.0 == framework_id);
        if !has_tasks && self.executors_of(framework_id).is_empty() {
            effects.push(Effect::FrameworkForgotten { framework_id });
        }
    }

    /// The slave goes, for good or until its next start; a repeat may shorten the grace.
    pub(crate) fn on_go(
        &mut self,
        unregister: bool,
        grace: Duration,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let patience = now.after(grace.saturating_add(LEAVE_ACKNOWLEDGEMENTS_MAX));
        match &mut self.going {
            Some(going) => {
                going.unregister |= unregister;
                going.patience = going.patience.min(patience);
            }
            None => {
                info!(
                    for_good = unregister,
                    tasks = self.tasks.len(),
                    "slave is going"
                );
                self.going = Some(Going {
                    unregister,
                    patience,
                    step: GoingStep::Killing,
                });
            }
        }
        let patience = self.going.map_or(patience, |going| going.patience);
        self.timers.set(Due::Patience, patience);
        let keys: Vec<TaskKey> = self.tasks.keys().cloned().collect();
        for key in keys {
            if !self.ends_now(&self.tasks[&key]) {
                continue;
            }
            let grace = self.tasks[&key].grace(None).min(grace);
            self.kill(&key, Cause::SlaveGoes, grace, now, effects);
        }
        self.end_executors_with_slave(grace, now, effects);
    }

    /// Whether a slave that goes takes this task with it. One that has not been started is none that
    /// could go on.
    fn ends_now(&self, task: &Task) -> bool {
        if task.phase == Phase::Given {
            // It ends with its executor, if at all.
            return false;
        }
        let for_good = self.going.is_some_and(|going| going.unregister);
        let has_container = task.container().is_some() && !task.is_prepared();
        for_good || !has_container || !self.outlives(&task.run)
    }

    /// Whether a slave that goes has to wait for this task: only what runs can be left.
    fn is_waited_for(&self, task: &Task) -> bool {
        let runs = matches!(task.phase, Phase::Running { .. });
        !runs || task.ending.is_some() || self.ends_now(task)
    }

    /// Whether nothing is left to do but to exit.
    pub(crate) fn is_gone(&self) -> bool {
        self.going
            .is_some_and(|going| going.step != GoingStep::Killing)
    }

    /// Takes the next step of going once everything it waits for has come.
    pub(crate) fn advance_going(&mut self, now: Timestamp, effects: &mut Effects) {
        if self
            .going
            .is_none_or(|going| going.step != GoingStep::Killing)
        {
            return;
        }
        let mut tasks = self.containers.values().map(|key| &self.tasks[key]);
        let mut executors = self.executors.values();
        let waits = tasks.any(|task| self.is_waited_for(task))
            || executors.any(|it| self.is_executor_waited_for(it))
            || !self.strays.is_empty();
        if waits || self.durable.0 < self.records_made {
            return;
        }
        let Some(going) = &mut self.going else { return };
        if !going.unregister || self.identity.is_none() {
            going.step = GoingStep::Exiting;
            self.timers.clear(&Due::Patience);
            return effects.push(Effect::Exit { why: None });
        }
        let registered = self.link.is_some_and(|link| link.is_registered());
        if registered && !self.streams.is_empty() && now < going.patience {
            return;
        }
        going.step = GoingStep::Wiping;
        self.timers.clear(&Due::Patience);
        let streams: Vec<TaskKey> = self.streams.keys().cloned().collect();
        for key in streams {
            self.drop_stream(&key);
        }
        self.tasks.clear();
        self.identity = None;
        self.persist_for(Record::Left, Awaiting::Left, effects);
    }

    /// The checkpoint is wiped, so the id cannot come back: the master may give it up.
    pub(crate) fn say_goodbye(&mut self, effects: &mut Effects) {
        if let Some(link) = self.link.filter(|link| link.is_registered()) {
            let message = SlaveToMaster::Unregister;
            effects.push(Effect::Send {
                connection: link.connection,
                message,
            });
        }
        if let Some(going) = &mut self.going {
            going.step = GoingStep::Exiting;
        }
        effects.push(Effect::Exit { why: None });
    }
}

/// Comes before every other task id: no valid one has a character below '!'.
fn first_task_id() -> TaskId {
    TaskId::new("!").expect("one printable character")
}
