//! SlaveCore: task life cycle, status updates, recovery decisions; no clock, socket, file or thread.
//!
//! One door in, [`SlaveCore::handle`]; one door out, [`Effects`]. The shell feeds events in, carries
//! effects out in order, and calls [`Event::Tick`] when [`SlaveCore::next_deadline`] has passed.
//!
//! Invariants: S1 to S11, S15 to S17, S30 and S31 of `docs/INVARIANTS.md`; [`SlaveCore::check_invariants`] checks those that
//! can be seen in one state, tests the others.
//!
//! Absent: how containers are made, where records are kept, which master leads.

mod checkpoint;
mod checks;
mod claims;
mod config;
mod counters;
mod effect;
mod event;
mod executor;
mod executors;
mod groups;
mod invariants;
mod kill;
mod launch;
mod recovery;
mod registration;
mod sessions;
mod signal;
mod stream;
mod task;
#[cfg(test)]
mod tests;
mod timers;
mod updates;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meros_proto::ids::{ClusterId, Epoch, SlaveId};
use meros_proto::operation::OperationNumber;
use meros_proto::resources::Resources;
use meros_proto::status::TaskExit;
use meros_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use checkpoint::{Checkpoint, CheckpointedExecutor, CheckpointedTask, GROUP_IS_ENDING, Record};
pub use claims::{Claims, MountedVolume, VolumeDirectory, VolumeKey, WIPING_MAX};
pub use config::{
    Config, EXECUTOR_REGISTRATION_TIMEOUT_DEFAULT, EXECUTOR_REREGISTRATION_TIMEOUT_DEFAULT,
    LEAVE_ACKNOWLEDGEMENTS_MAX, PHANTOM_TASKS_MAX, PING_TIMEOUT_DEFAULT, PROGRESS_INTERVAL,
    REGISTER_TIMEOUT, RETRY_INTERVAL_MAX, RETRY_INTERVAL_MIN,
};
pub use counters::Counters;
pub use effect::{Effect, Effects};
pub use event::{
    CheckPurpose, ConnectionId, ContainerExit, ContainerId, Event, ExecutorKey, Found,
    FoundContainer, FoundState, Limitation, Owner, ProbeId, RecordId, SessionId, TaskKey,
};
pub use executor::ExecutorSummary;
pub use task::TaskSummary;

use executor::Executor;
use groups::Group;
use registration::Link;
use stream::Stream;
use task::{Phase, Task};
use timers::{Due, Timers};

/// Who this slave is: given by the registry of a cluster, kept for life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id.
    pub slave_id: SlaveId,
    /// The cluster that gave it.
    pub cluster_id: ClusterId,
}

/// What waits for its record to become durable.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Awaiting {
    /// A task, to be started.
    Task(TaskKey),
    /// A group of tasks, to be started.
    Group(ExecutorKey),
    /// A status update, to be sent, and to be acknowledged to the executor that said it.
    Update(TaskKey, Option<ExecutorKey>),
    /// The ends of an executor and of its tasks: its container need not be found again.
    ExecutorEnd(ContainerId),
    /// A term, which its leader is told of.
    Term,
    /// The checkpoint is wiped: the last word to the master may go out.
    Left,
    /// An operation on resources, to be confirmed, and the directories of volumes that it destroyed.
    Change {
        number: OperationNumber,
        wiped: Vec<VolumeDirectory>,
    },
}

/// The slave is going, with or without its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Going {
    /// Set by [`Event::Leave`]: its id is given up.
    unregister: bool,
    /// Until when a leaving slave waits for its last updates to be acknowledged.
    patience: Timestamp,
    /// The step of [`Going`] that has been reached.
    step: GoingStep,
}

/// `Killing -> Exiting` for a stop; `Killing -> Wiping -> Exiting` for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoingStep {
    /// Containers end, updates become durable.
    Killing,
    /// The checkpoint is being wiped.
    Wiping,
    /// `Effect::Exit` is out.
    Exiting,
}

/// The slave as a state machine.
///
/// The same events with the same times give the same effects.
#[derive(Debug)]
pub struct SlaveCore {
    config: Config,
    identity: Option<Identity>,
    /// The how many-th life of this slave, from 1; in every container and update id.
    incarnation: u32,
    containers_made: u64,
    updates_made: u64,
    records_made: u64,
    /// Records up to this one are durable.
    durable: RecordId,
    /// In the order of their records.
    awaiting: VecDeque<(RecordId, Awaiting)>,
    link: Option<Link>,
    /// The highest term heard of: an older leader is not obeyed.
    epoch: Epoch,
    /// Its record.
    epoch_record: RecordId,
    tasks: BTreeMap<TaskKey, Task>,
    /// Of tasks with unacknowledged updates, and of tasks that are not here and were asked about.
    streams: BTreeMap<TaskKey, Stream>,
    /// Streams whose task is not in `tasks`.
    phantoms: usize,
    /// Tasks whose container may exist.
    containers: BTreeMap<ContainerId, TaskKey>,
    /// Executors of frameworks that have not ended.
    executors: BTreeMap<ExecutorKey, Executor>,
    /// Theirs.
    executor_containers: BTreeMap<ContainerId, ExecutorKey>,
    /// Groups of tasks that are not over. No executor of the same framework has the same id.
    groups: BTreeMap<ExecutorKey, Group>,
    /// Connections of those that are subscribed.
    sessions: BTreeMap<SessionId, ExecutorKey>,
    /// Those that ended since the master was told what is here, before its welcome.
    executors_ended: Vec<(ExecutorKey, Option<TaskExit>)>,
    /// Containers that were found and belong to no task; they are being killed.
    strays: BTreeSet<ContainerId>,
    /// What is declared, with its claims.
    total: Resources,
    /// What no task or executor uses.
    free: Resources,
    claims: Claims,
    /// The latest record of claims: no master is told of claims that are not durable.
    claims_record: RecordId,
    /// A registration waits until they are.
    registration_waits: bool,
    timers: Timers,
    going: Option<Going>,
    counters: Counters,
}

impl SlaveCore {
    /// A slave that takes up where `recovered` left off, with the containers that the shell has `found`:
    /// those that run go on, and tasks that have ended meanwhile without a last update get one now
    /// (semantics L2, L3, L5).
    ///
    /// # Panics
    /// The claims that were recovered do not fit what is declared: ask [`Checkpoint::total`] before.
    #[must_use]
    pub fn new(
        config: Config,
        recovered: Checkpoint,
        found: Vec<FoundContainer>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Self {
        let declared = &config.slave.resources;
        let total = recovered.total(declared);
        let total = total.expect("the shell has asked whether the claims fit");
        let mut core = Self {
            identity: recovered.identity,
            incarnation: recovered.incarnation.saturating_add(1),
            containers_made: 0,
            updates_made: 0,
            records_made: 0,
            durable: RecordId(0),
            awaiting: VecDeque::new(),
            link: None,
            // Of which cluster a term is, only the identity says.
            epoch: recovered.identity.map_or(Epoch(0), |_| recovered.epoch),
            epoch_record: RecordId(0),
            tasks: BTreeMap::new(),
            streams: BTreeMap::new(),
            phantoms: 0,
            containers: BTreeMap::new(),
            executors: BTreeMap::new(),
            executor_containers: BTreeMap::new(),
            groups: BTreeMap::new(),
            sessions: BTreeMap::new(),
            executors_ended: Vec::new(),
            strays: BTreeSet::new(),
            free: total.clone(),
            total,
            claims: Claims::default(),
            claims_record: RecordId(0),
            registration_waits: false,
            timers: Timers::default(),
            going: None,
            counters: Counters::default(),
            config,
        };
        core.persist(Record::IncarnationStarted(core.incarnation), effects);
        core.recover(recovered, found, now, effects);
        core
    }

    /// Takes in one event and appends what is to be done. Never panics for what peers send;
    /// panics if the shell breaks its side (an answer about a container that was never started is
    /// ignored and counted, not obeyed).
    pub fn handle(&mut self, event: Event, now: Timestamp, effects: &mut Effects) {
        match event {
            Event::Connected { connection } => self.on_connected(connection, now, effects),
            Event::Disconnected { connection } => self.on_disconnected(connection),
            Event::Master {
                connection,
                message,
            } => {
                self.on_master(connection, message, now, effects);
            }
            Event::Persisted { record } => self.on_persisted(record, now, effects),
            Event::ContainerStarted {
                container,
                pid,
                image,
            } => self.on_container_started(container, pid, image, now, effects),
            Event::ContainerPreparing { container, message } => {
                self.on_container_preparing(container, message, now, effects);
            }
            Event::ContainerNotStarted { container, message } => {
                self.on_container_not_started(container, message, now, effects);
            }
            Event::ContainerEnded { container, exit } => {
                self.on_container_ended(container, exit, now, effects);
            }
            Event::ContainerLost { container } => self.on_container_lost(container, now, effects),
            Event::Probed { probe, found } => self.on_probed(probe, found, now, effects),
            Event::Executor {
                session,
                container,
                message,
            } => self.on_executor(session, container, *message, now, effects),
            Event::ExecutorResent { session, updates } => {
                self.on_executor_resent(session, updates, now, effects);
            }
            Event::ExecutorDisconnected { session } => self.on_executor_disconnected(session, now),
            Event::VolumeWiped { directory } => self.on_volume_wiped(&directory, effects),
            Event::Stop { grace } => self.on_go(false, grace, now, effects),
            Event::Leave { grace } => self.on_go(true, grace, now, effects),
            Event::Tick => self.on_tick(now, effects),
        }
        self.advance_going(now, effects);
    }

    /// When the next [`Event::Tick`] is due; none while nothing is waited for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// Who this slave is, once a master has admitted it.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Whether a master has welcomed this slave on the current connection.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_registered)
    }

    /// The life of this slave, counted from 1.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// What has been counted in this life.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What it has: what is declared, with what was reserved or made a volume.
    #[must_use]
    pub fn total(&self) -> &Resources {
        &self.total
    }

    /// What was reserved or made a volume at run time.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What no task uses.
    #[must_use]
    pub fn free(&self) -> &Resources {
        &self.free
    }

    /// Tasks that are here, ended ones with an unacknowledged last update included, by key.
    pub fn tasks(&self) -> impl Iterator<Item = TaskSummary<'_>> {
        let tasks = self.tasks.iter();
        tasks.map(|(key, task)| self.summary(key, task))
    }

    /// One of them.
    #[must_use]
    pub fn task(&self, key: &TaskKey) -> Option<TaskSummary<'_>> {
        let (key, task) = self.tasks.get_key_value(key)?;
        Some(self.summary(key, task))
    }

    fn summary<'a>(&'a self, key: &'a TaskKey, task: &'a Task) -> TaskSummary<'a> {
        let mut summary = task.summary(key);
        let executor = executors::executor_key(&task.run).filter(|_| task.phase == Phase::Given);
        if let Some(executor) = executor.and_then(|it| self.executors.get(&it)) {
            summary.container = executor.container();
            summary.pid = executor.pid();
        }
        summary
    }

    /// The executor of a task that is here, if one of its framework runs it.
    #[must_use]
    pub fn executor_of(&self, task: &TaskKey) -> Option<ExecutorKey> {
        let task = self.tasks.get(task)?;
        executors::executor_key(&task.run)
    }

    /// How many status updates wait to be sent or acknowledged.
    #[must_use]
    pub fn updates_pending(&self) -> usize {
        self.streams.values().map(Stream::len).sum()
    }

    fn on_tick(&mut self, now: Timestamp, effects: &mut Effects) {
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Master => self.on_master_silent(now, effects),
                Due::Retry(key) => self.on_retry_due(&key, now, effects),
                Due::Completion(key) => self.on_completion_due(&key, now, effects),
                Due::Check(key, purpose) => self.on_check_due(&key, purpose, now, effects),
                // What is due is seen by `advance_going` after every event.
                Due::Patience => {}
                Due::Executor(key) => self.on_executor_due(&key, now, effects),
            }
        }
    }

    /// Emits a record; what waits for it is remembered by the caller.
    fn persist(&mut self, record: Record, effects: &mut Effects) -> RecordId {
        self.records_made += 1;
        let id = RecordId(self.records_made);
        effects.push(Effect::Persist { id, record });
        id
    }

    fn persist_for(
        &mut self,
        record: Record,
        awaiting: Awaiting,
        effects: &mut Effects,
    ) -> RecordId {
        let id = self.persist(record, effects);
        self.awaiting.push_back((id, awaiting));
        id
    }

    fn on_persisted(&mut self, record: RecordId, now: Timestamp, effects: &mut Effects) {
        assert!(
            record.0 <= self.records_made,
            "record {record:?} was never made"
        );
        let were_durable = self.claims_record <= self.durable;
        self.durable = self.durable.max(record);
        if !were_durable && self.claims_record <= self.durable {
            self.on_claims_durable(now, effects);
        }
        while let Some((_, awaiting)) = self.awaiting.pop_front_if(|(id, _)| *id <= self.durable) {
            match awaiting {
                Awaiting::Task(key) => self.start_task(&key, effects),
                Awaiting::Group(key) => self.start_group(&key, effects),
                Awaiting::Update(key, executor) => {
                    self.forget_container(&key, effects);
                    self.send_head(&key, now, effects);
                    if let Some(executor) = executor {
                        self.acknowledge_executor(&executor, effects);
                    }
                }
                Awaiting::ExecutorEnd(container) => {
                    effects.push(Effect::ForgetContainer { container });
                }
                Awaiting::Term => self.tell_term(effects),
                Awaiting::Left => self.say_goodbye(effects),
                Awaiting::Change { number, wiped } => {
                    self.on_change_durable(number, wiped, effects);
                }
            }
        }
    }
}
