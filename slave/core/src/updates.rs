//! Status updates: made, made durable, sent in order, sent again, acknowledged (semantics I1).

use meros_proto::ids::{ExecutorId, UpdateId};
use meros_proto::message::master::{SlaveToMaster, StatusUpdate};
use meros_proto::mutant::Mutant;
use meros_proto::status::{Reason, Source, TaskState, TaskStatus};
use meros_proto::time::Timestamp;

use crate::config::PHANTOM_TASKS_MAX;
use crate::event::RecordId;
use crate::launch::End;
use crate::stream::Stream;
use crate::timers::Due;
use crate::{Awaiting, Effect, Effects, Record, SlaveCore, TaskKey};

impl SlaveCore {
    /// Makes an update of a task that is here.
    pub(crate) fn update_task(&mut self, key: &TaskKey, status: TaskStatus, effects: &mut Effects) {
        self.update_task_from(key, status, None, effects);
    }

    /// The same, with the executor that said it and its number for it.
    pub(crate) fn update_task_from(
        &mut self,
        key: &TaskKey,
        status: TaskStatus,
        from: Option<(ExecutorId, u64)>,
        effects: &mut Effects,
    ) {
        let task = self.tasks.get_mut(key).expect("callers have looked it up");
        assert!(
            task.state.may_become(status.state),
            "{} cannot become {} (F6)",
            task.state,
            status.state
        );
        task.state = status.state;
        task.checks.tell(&status);
        self.make_update(key, status, from, effects);
    }

    /// Makes the last update of a task that is not here.
    pub(crate) fn update_phantom(
        &mut self,
        key: TaskKey,
        end: End,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if self.phantoms >= PHANTOM_TASKS_MAX || self.identity.is_none() {
            self.counters.unanswered += 1;
            return;
        }
        self.phantoms += 1;
        let status = end.tell(self.status(&key.1, TaskState::Dropped, Source::Slave, now));
        self.make_update(&key, status, None, effects);
    }

    /// semantics: K6, what the master believes to be here and is not.
    pub(crate) fn answer_for_unknown(
        &mut self,
        key: TaskKey,
        started: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if self.tasks.contains_key(&key) || self.streams.contains_key(&key) {
            // Its own updates say it better.
            return;
        }
        let (state, message) = if started {
            (TaskState::Gone, "the slave no longer has this task")
        } else {
            (TaskState::Dropped, "the task never reached the slave")
        };
        let end = End::by_slave(state, Reason::Reconciliation, message);
        self.update_phantom(key, end, now, effects);
    }

    fn make_update(
        &mut self,
        key: &TaskKey,
        mut status: TaskStatus,
        from: Option<(ExecutorId, u64)>,
        effects: &mut Effects,
    ) {
        let slave_id = self.slave_id().expect("S2: without an id there is no task");
        self.updates_made += 1;
        self.counters.updates_made += 1;
        match status.state {
            TaskState::Finished => self.counters.tasks_finished += 1,
            TaskState::Failed => self.counters.tasks_failed += 1,
            TaskState::Killed => self.counters.tasks_killed += 1,
            state if state.is_terminal() => self.counters.tasks_lost += 1,
            _ => {}
        }
        let update_id = UpdateId::by_slave(slave_id, self.incarnation, self.updates_made);
        status.update_id = Some(update_id);
        let (framework_id, boxed) = (key.0, Box::new(status.clone()));
        let executor = from
            .as_ref()
            .map(|(executor_id, _)| (framework_id, executor_id.clone()));
        let record = match from {
            None => Record::UpdateMade {
                framework_id,
                status: boxed,
            },
            Some((executor_id, number)) => Record::UpdateHeard {
                framework_id,
                executor_id,
                number,
                status: boxed,
            },
        };
        let awaiting = Awaiting::Update(key.clone(), executor.clone());
        let record = self.persist_for(record, awaiting, effects);
        if let Some(executor) = executor.and_then(|it| self.executors.get_mut(&it)) {
            executor.heard_record = record;
        }
        self.streams
            .entry(key.clone())
            .or_insert_with(Stream::new)
            .push(record, status);
    }

    /// Sends the head of a stream unless it is in flight, not durable, or nobody listens.
    pub(crate) fn send_head(&mut self, key: &TaskKey, now: Timestamp, effects: &mut Effects) {
        if self
            .streams
            .get(key)
            .is_some_and(|stream| !stream.is_in_flight())
        {
            self.send(key, now, effects);
        }
    }

    pub(crate) fn on_retry_due(&mut self, key: &TaskKey, now: Timestamp, effects: &mut Effects) {
        if self.streams.get(key).is_some_and(Stream::is_in_flight) {
            self.counters.updates_retried += 1;
        }
        self.send(key, now, effects);
    }

    fn send(&mut self, key: &TaskKey, now: Timestamp, effects: &mut Effects) {
        let Some(link) = self.link.filter(|link| link.is_registered()) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let durable = match Mutant::SendBeforePersist.is_on() {
            true => RecordId(u64::MAX),
            false => self.durable,
        };
        let Some(head) = stream.head(durable) else {
            return;
        };
        let mut status = head.clone();
        let latest = stream.latest(durable).expect("the head is durable");
        let latest_state = latest.state;
        if Mutant::ResendWithNewId.is_on() && stream.is_in_flight() {
            status.update_id = status.update_id.map(|id| UpdateId(id.0 + (1 << 32)));
        }
        let wait = stream.sent();
        self.timers.set(Due::Retry(key.clone()), now.after(wait));
        self.counters.updates_sent += 1;
        let is_end = status.state.is_terminal();
        let update = StatusUpdate {
            framework_id: key.0,
            status,
            latest_state,
        };
        let message = SlaveToMaster::Update(update);
        effects.push(Effect::Send {
            connection: link.connection,
            message,
        });
        if Mutant::ForgetUnacknowledged.is_on() && is_end {
            self.drop_stream(key);
            self.tasks.remove(key);
            self.persist(Record::TaskForgotten { task: key.clone() }, effects);
        }
    }

    pub(crate) fn on_acknowledge(
        &mut self,
        key: &TaskKey,
        id: UpdateId,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let durable = self.durable;
        let stream = self.streams.get_mut(key);
        let Some(status) = stream.and_then(|stream| stream.acknowledge(id, durable)) else {
            // Late, repeated, or of another life: at-least-once brings them (semantics I3).
            self.counters.stale_acknowledgements += 1;
            return;
        };
        self.counters.updates_acknowledged += 1;
        if status.state.is_terminal() {
            self.drop_stream(key);
            self.tasks.remove(key);
            self.persist(Record::TaskForgotten { task: key.clone() }, effects);
            return;
        }
        self.persist(
            Record::UpdateAcknowledged {
                task: key.clone(),
                update_id: id,
            },
            effects,
        );
        let task = self
            .tasks
            .get_mut(key)
            .expect("S4: of a phantom there is only a last update");
        // Nobody is told its data again.
        task.acknowledged = Some(Box::new(TaskStatus {
            data: Default::default(),
            ..status
        }));
        if self.streams[key].is_empty() {
            self.drop_stream(key);
        } else {
            self.timers.clear(&Due::Retry(key.clone()));
            self.send_head(key, now, effects);
        }
        self.tell_checks(key, now, effects);
    }

    pub(crate) fn drop_stream(&mut self, key: &TaskKey) {
        if self.streams.remove(key).is_some() && !self.tasks.contains_key(key) {
            self.phantoms -= 1;
        }
        self.timers.clear(&Due::Retry(key.clone()));
    }
}
