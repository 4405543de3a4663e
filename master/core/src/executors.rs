//! The executor table: executors of frameworks that slaves have, or are about to start (semantics M).
//!
//! Invariants: X1 an executor is charged once, to the framework and role of its first task, from the launch
//! of that task until its slave says that it has ended. Absent: its tasks, which have their own table.
//!
//! The slave owns the truth. A row is made by a launch, and removed by `ExecutorEnded`, by a report that
//! does not name it, or with its slave or framework. A launch into a row that has ended at the slave
//! meanwhile comes back as DROPPED, because it does not say `starts`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use meros_proto::codec::encode_record;
use meros_proto::executor::{
    EXECUTOR_ID_BYTES_MAX, EXECUTOR_MESSAGE_BYTES_MAX, EXECUTORS_PER_SLAVE_MAX, ExecutorDescription,
};
use meros_proto::ids::{ExecutorId, FrameworkId, SlaveId};
use meros_proto::labels::Labels;
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::REPORT_EXECUTORS_MAX;
use meros_proto::message::slave::{MasterToSlave, RunExecutor};
use meros_proto::refusal::Refusal;
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::status::TaskExit;
use tracing::warn;

use crate::MasterCore;
use crate::connections::Stage;
use crate::event::ConnectionId;
use crate::publish::{executor_added, executor_removed};
use crate::tasks::kept_labels;
use crate::turn::Turn;

/// Where an executor is, whose, and which.
pub(crate) type ExecutorAt = (SlaveId, FrameworkId, ExecutorId);

/// One executor: what is shown of it, and what tells another description from its own.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) role: RoleName,
    pub(crate) name: String,
    pub(crate) resources: Resources,
    /// As they are kept: those of a description may be many.
    pub(crate) labels: Labels,
    /// Its command may have a megabyte, and is needed by its slave only.
    description_hash: u64,
    /// Whether its resources are charged to slave, framework and role.
    pub(crate) is_charged: bool,
}

impl Executor {
    fn new(role: RoleName, description: &ExecutorDescription, is_charged: bool) -> Self {
        Self {
            role,
            name: description.name.clone(),
            resources: description.resources.clone(),
            labels: kept_labels(&description.labels),
            description_hash: hash_of(description),
            is_charged,
        }
    }
}

/// FNV-1a over all that a framework may say of an executor, beside whose and which it is. Two that have
/// the same one are told apart by the slave, which compares the whole.
fn hash_of(description: &ExecutorDescription) -> u64 {
    let ExecutorDescription {
        executor_id: _,
        framework_id: _,
        name,
        command,
        resources,
        labels,
        data,
        shutdown_grace,
    } = description;
    let said = (name, command, resources, labels, data, shutdown_grace);
    // What has no record was not read from a frame either.
    let bytes = encode_record(&said).unwrap_or_default();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// All executors.
#[derive(Debug, Default)]
pub(crate) struct Executors {
    rows: BTreeMap<ExecutorAt, Executor>,
    /// How many each slave has that has any: asked at each launch.
    per_slave: BTreeMap<SlaveId, usize>,
}

impl Executors {
    pub(crate) fn get(&self, at: &ExecutorAt) -> Option<&Executor> {
        self.rows.get(at)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ExecutorAt, &Executor)> {
        self.rows.iter()
    }

    pub(crate) fn insert(&mut self, at: ExecutorAt, executor: Executor) {
        let slave_id = at.0;
        if self.rows.insert(at, executor).is_none() {
            *self.per_slave.entry(slave_id).or_default() += 1;
        }
    }

    fn remove(&mut self, at: &ExecutorAt) -> Option<Executor> {
        let executor = self.rows.remove(at)?;
        if let Some(count) = self.per_slave.get_mut(&at.0) {
            *count -= 1;
            if *count == 0 {
                self.per_slave.remove(&at.0);
            }
        }
        Some(executor)
    }

    pub(crate) fn count_of_slave(&self, slave_id: SlaveId) -> usize {
        self.per_slave.get(&slave_id).copied().unwrap_or_default()
    }

    pub(crate) fn of_slave(&self, slave_id: SlaveId) -> Vec<ExecutorAt> {
        let keys = self.rows.range(first_of(slave_id)..).map(|(at, _)| at);
        keys.take_while(|at| at.0 == slave_id).cloned().collect()
    }

    fn of_framework(&self, framework_id: FrameworkId) -> Vec<ExecutorAt> {
        let keys = self.rows.keys();
        keys.filter(|at| at.1 == framework_id).cloned().collect()
    }

    /// Whether what is counted is what is there.
    pub(crate) fn is_consistent(&self) -> bool {
        let mut counted: BTreeMap<SlaveId, usize> = BTreeMap::new();
        for at in self.rows.keys() {
            *counted.entry(at.0).or_default() += 1;
        }
        counted == self.per_slave
    }
}

fn first_of(slave_id: SlaveId) -> ExecutorAt {
    // Comes before every other: no valid id has a character below '!'.
    let first = ExecutorId::new("!").expect("one printable character");
    (slave_id, FrameworkId(0), first)
}

fn invalid(field: &str, why: String) -> Refusal {
    Refusal::Invalid {
        field: field.to_owned(),
        why,
    }
}

impl MasterCore {
    /// What a task takes beside its own resources: those of its executor, if it is to be started.
    ///
    /// # Errors
    /// The executor cannot be started, or is another one than the one that is there.
    pub(crate) fn check_executor(
        &self,
        slave_id: SlaveId,
        framework: FrameworkId,
        executor: Option<&ExecutorDescription>,
    ) -> Result<Resources, Refusal> {
        let Some(executor) = executor else {
            return Ok(Resources::default());
        };
        let id = &executor.executor_id;
        let at = (slave_id, framework, id.clone());
        if let Some(known) = self.executors.get(&at) {
            if known.description_hash != hash_of(executor) {
                let why = format!(
                    "executor {id} is on slave {slave_id} with another description: give it the same \
                     one, or another executor_id"
                );
                return Err(invalid("executor", why));
            }
            return Ok(Resources::default());
        }
        if id.as_str().len() > EXECUTOR_ID_BYTES_MAX {
            let why = format!("it has more than {EXECUTOR_ID_BYTES_MAX} bytes");
            return Err(invalid("executor.executor_id", why));
        }
        if self.executors.count_of_slave(slave_id) >= EXECUTORS_PER_SLAVE_MAX {
            return Err(Refusal::OverLimit {
                what: "the number of executors of this slave".to_owned(),
                limit: EXECUTORS_PER_SLAVE_MAX as u64,
                advice: "launch it when others have ended".to_owned(),
            });
        }
        Ok(executor.resources.clone())
    }

    /// A task is launched in this executor, which is charged with it if it is new. Whether it is.
    pub(crate) fn charge_executor(
        &mut self,
        slave_id: SlaveId,
        framework: FrameworkId,
        role: &RoleName,
        executor: &ExecutorDescription,
        turn: &mut Turn<'_>,
    ) -> bool {
        let at = (slave_id, framework, executor.executor_id.clone());
        if self.executors.get(&at).is_some() {
            return false;
        }
        let executor = Executor::new(role.clone(), executor, true);
        self.add_executor(at, executor, turn);
        true
    }

    fn add_executor(&mut self, at: ExecutorAt, executor: Executor, turn: &mut Turn<'_>) {
        let added = executor_added(&at, &executor);
        self.publisher.publish(added, turn);
        self.executors.insert(at, executor);
    }

    pub(crate) fn on_report_executors(
        &mut self,
        connection: ConnectionId,
        reported: Vec<RunExecutor>,
        turn: &mut Turn<'_>,
    ) {
        let Some(Stage::SlaveFresh { executors, .. }) = self.connections.stage_mut(connection)
        else {
            return;
        };
        let all = executors.len() + reported.len();
        if reported.len() > REPORT_EXECUTORS_MAX || all > EXECUTORS_PER_SLAVE_MAX {
            let refusal = Refusal::OverLimit {
                what: "the number of reported executors".to_owned(),
                limit: EXECUTORS_PER_SLAVE_MAX as u64,
                advice: format!("send at most {REPORT_EXECUTORS_MAX} in one message"),
            };
            return self.refuse_slave(connection, refusal, turn);
        }
        executors.extend(reported);
    }

    /// A slave is back: those that it reports are there, and no others. Its resources are known.
    pub(crate) fn take_over_executors(
        &mut self,
        slave_id: SlaveId,
        reported: Vec<RunExecutor>,
        orphans: &mut BTreeSet<FrameworkId>,
        turn: &mut Turn<'_>,
    ) {
        for run in reported {
            let framework = run.framework.framework_id;
            if self.frameworks.get(framework).is_none() {
                orphans.insert(framework);
                continue;
            }
            let at = (slave_id, framework, run.executor.executor_id.clone());
            if self.executors.get(&at).is_some() {
                warn!(%slave_id, executor_id = %run.executor.executor_id, "a slave reported an executor twice");
                continue;
            }
            let resources = &run.executor.resources;
            let is_charged = self
                .allocator
                .charge(framework, &run.role, slave_id, resources);
            if !is_charged {
                warn!(%slave_id, executor_id = %run.executor.executor_id, "a reported executor does not fit its slave");
            }
            let executor = Executor::new(run.role, &run.executor, is_charged);
            self.add_executor(at, executor, turn);
        }
    }

    pub(crate) fn on_executor_ended(
        &mut self,
        slave_id: SlaveId,
        framework_id: FrameworkId,
        executor_id: ExecutorId,
        exit: Option<TaskExit>,
        turn: &mut Turn<'_>,
    ) {
        let at = (slave_id, framework_id, executor_id);
        if !self.remove_executor(&at, turn) {
            return;
        }
        if let Some(connection) = self.frameworks.connection(framework_id) {
            let ended = MasterToFramework::ExecutorEnded {
                slave_id,
                executor_id: at.2,
                exit,
            };
            turn.send_framework(connection, ended);
        }
        self.note_drained(slave_id, turn);
    }

    pub(crate) fn forget_executors_of_slave(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        for at in self.executors.of_slave(slave_id) {
            self.remove_executor(&at, turn);
        }
    }

    /// Of a framework that is gone; the slaves that have to be told.
    pub(crate) fn forget_executors_of_framework(
        &mut self,
        framework_id: FrameworkId,
        turn: &mut Turn<'_>,
    ) -> BTreeSet<SlaveId> {
        let gone = self.executors.of_framework(framework_id);
        let mut slaves = BTreeSet::new();
        for at in gone {
            self.remove_executor(&at, turn);
            slaves.insert(at.0);
        }
        for slave_id in &slaves {
            self.note_drained(*slave_id, turn);
        }
        slaves
    }

    fn remove_executor(&mut self, at: &ExecutorAt, turn: &mut Turn<'_>) -> bool {
        let Some(executor) = self.executors.remove(at) else {
            return false;
        };
        self.publisher.publish(executor_removed(at), turn);
        if executor.is_charged {
            let (slave_id, framework_id, _) = *at;
            let resources = executor.resources;
            self.allocator
                .release(framework_id, &executor.role, slave_id, resources);
        }
        true
    }

    /// semantics: B10
    pub(crate) fn on_shutdown_executor(
        &mut self,
        framework_id: FrameworkId,
        slave_id: SlaveId,
        executor_id: ExecutorId,
        turn: &mut Turn<'_>,
    ) {
        let at = (slave_id, framework_id, executor_id);
        let connection = self.slaves.connection(slave_id);
        let Some(connection) = connection.filter(|_| self.executors.get(&at).is_some()) else {
            self.counters.executor_calls_ignored += 1;
            return;
        };
        let order = MasterToSlave::ShutdownExecutor {
            framework_id,
            executor_id: at.2,
        };
        turn.send_slave(connection, order);
    }

    /// semantics: B15, best effort
    pub(crate) fn on_message_for_executor(
        &mut self,
        framework_id: FrameworkId,
        slave_id: SlaveId,
        executor_id: ExecutorId,
        data: Bytes,
        turn: &mut Turn<'_>,
    ) {
        let at = (slave_id, framework_id, executor_id);
        let is_there = self.executors.get(&at).is_some();
        let connection = self.slaves.connection(slave_id);
        let is_taken = is_there && data.len() <= EXECUTOR_MESSAGE_BYTES_MAX;
        let Some(connection) = connection.filter(|_| is_taken) else {
            self.counters.executor_calls_ignored += 1;
            return;
        };
        let message = MasterToSlave::ExecutorMessage {
            framework_id,
            executor_id: at.2,
            data,
        };
        turn.send_slave(connection, message);
    }

    /// semantics: C7, best effort
    pub(crate) fn on_message_of_executor(
        &mut self,
        slave_id: SlaveId,
        framework_id: FrameworkId,
        executor_id: ExecutorId,
        data: Bytes,
        turn: &mut Turn<'_>,
    ) {
        let at = (slave_id, framework_id, executor_id);
        let is_taken =
            self.executors.get(&at).is_some() && data.len() <= EXECUTOR_MESSAGE_BYTES_MAX;
        let connection = self.frameworks.connection(framework_id);
        let Some(connection) = connection.filter(|_| is_taken) else {
            self.counters.executor_calls_ignored += 1;
            return;
        };
        let message = MasterToFramework::ExecutorMessage {
            slave_id,
            executor_id: at.2,
            data,
        };
        turn.send_framework(connection, message);
    }
}
