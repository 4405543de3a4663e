//! The slave as scripts: an event, and exactly the effects that follow.

mod checks;
mod claims;
mod executors;
mod fetch;
mod groups;
mod life;
mod master;
mod property;

use std::time::Duration;

use meros_proto::attribute::Attributes;
use meros_proto::framework::FrameworkCapability;
use meros_proto::ids::{ClusterId, Epoch, FrameworkId, SlaveId, TaskId, UpdateId};
use meros_proto::message::executor::SlaveToExecutor;
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::{MasterToSlave, RunTask, TaskFramework};
use meros_proto::refusal::{Leadership, Refusal};
use meros_proto::role::RoleName;
use meros_proto::slave::SlaveDescription;
use meros_proto::status::TaskExit;
use meros_proto::task::{Command, TaskDescription};
use meros_proto::time::Timestamp;

use crate::*;

pub(crate) const CLUSTER: ClusterId = ClusterId(7);
pub(crate) const SLAVE: SlaveId = SlaveId(4);
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(75);

pub(crate) fn config() -> Config {
    Config::new(SlaveDescription {
        hostname: "host".to_owned(),
        http_address: String::new(),
        resources: "cpus:4;mem:4096;disk:1000;ports:[31000-32000]"
            .parse()
            .unwrap(),
        attributes: Attributes::default(),
        capabilities: Vec::new(),
        version: "0".to_owned(),
    })
}

pub(crate) fn run(framework: u32, task: &str) -> RunTask {
    let resources = "cpus:1;mem:64".parse().unwrap();
    let command = Command::shell("true");
    RunTask {
        framework: TaskFramework {
            framework_id: FrameworkId(framework),
            name: "f".to_owned(),
            user: None,
            checkpoint: true,
            capabilities: Vec::new(),
        },
        role: "*".parse::<RoleName>().unwrap(),
        task: TaskDescription::command(TaskId::new(task).unwrap(), SLAVE, resources, command),
    }
}

pub(crate) fn killing(mut run: RunTask) -> RunTask {
    run.framework
        .capabilities
        .push(FrameworkCapability::TaskKillingState);
    run
}

pub(crate) fn exit(exit: TaskExit) -> ContainerExit {
    ContainerExit {
        exit,
        limitation: None,
        message: String::new(),
    }
}

/// A slave, its disk and its clock.
pub(crate) struct Slave {
    pub(crate) core: SlaveCore,
    pub(crate) now: Timestamp,
    /// What is durable.
    pub(crate) disk: Checkpoint,
    /// What is on its way there.
    pub(crate) writing: Vec<(RecordId, Record)>,
    /// What nobody has looked at yet.
    unread: Vec<String>,
    /// Containers that no later life needs to find.
    pub(crate) forgotten: Vec<ContainerId>,
}

impl Slave {
    pub(crate) fn with(config: Config, disk: Checkpoint) -> Self {
        Self::finding(config, disk, Vec::new())
    }

    pub(crate) fn finding(config: Config, disk: Checkpoint, found: Vec<FoundContainer>) -> Self {
        let now = Timestamp(1_000_000_000);
        let mut effects = Effects::new();
        let core = SlaveCore::new(config, disk.clone(), found, now, &mut effects);
        let mut slave = Self {
            core,
            now,
            disk,
            writing: Vec::new(),
            unread: Vec::new(),
            forgotten: Vec::new(),
        };
        slave.take(effects);
        slave
    }

    /// A slave with an empty data directory whose incarnation is on disk.
    pub(crate) fn new() -> Self {
        let mut slave = Self::with(config(), Checkpoint::default());
        slave.expect(&["persist incarnation 1"]);
        slave.durable(&[]);
        slave
    }

    /// A slave that is registered on connection 1.
    pub(crate) fn registered() -> Self {
        let mut slave = Self::new();
        slave.on(
            Event::Connected {
                connection: ConnectionId(1),
            },
            &["send 1 register"],
        );
        slave.hear(registered(), &["persist term 1", "persist identity S4"]);
        slave.durable(&["send 1 term 1"]);
        slave
    }

    /// With a task `F1/t` that runs and whose RUNNING is acknowledged.
    pub(crate) fn running(run: RunTask) -> Self {
        let mut slave = Self::registered();
        slave.start(run);
        slave.acknowledge("t", 1, &["persist acknowledged F1/t #1"]);
        slave.durable(&[]);
        slave
    }

    /// Runs the task `F1/t` up to its RUNNING being sent.
    pub(crate) fn start(&mut self, run: RunTask) {
        self.hear(
            MasterToSlave::RunTask(Box::new(run)),
            &["persist task F1/t"],
        );
        self.durable(&["start 1-1 F1/t"]);
        let started = Event::ContainerStarted {
            container: container(1),
            pid: 99,
            image: None,
        };
        self.on(started, &["persist update F1/t RUNNING #1"]);
        self.durable(&["send 1 update F1/t RUNNING #1 latest RUNNING"]);
    }

    /// The same disk, another life.
    pub(crate) fn restarted(mut self) -> Self {
        self.expect(&[]);
        Self::with(config(), std::mem::take(&mut self.disk))
    }

    /// The same disk, another life, and the container of `F1/t`.
    pub(crate) fn restarted_with(mut self, state: FoundState) -> Self {
        self.expect(&[]);
        let found = FoundContainer {
            container: container(1),
            owner: Owner::Task((FrameworkId(1), TaskId::new("t").unwrap())),
            age: Duration::from_secs(5),
            state,
        };
        Self::finding(config(), std::mem::take(&mut self.disk), vec![found])
    }

    fn take(&mut self, mut effects: Effects) {
        for effect in effects.drain() {
            if let Effect::ForgetContainer { container } = effect {
                self.forgotten.push(container);
                continue;
            }
            self.unread.push(line(&effect));
            if let Effect::Persist { id, record } = effect {
                self.writing.push((id, record));
            }
        }
        self.core.check_invariants();
    }

    /// What has happened and was not looked at yet is exactly this.
    #[track_caller]
    pub(crate) fn expect(&mut self, lines: &[&str]) {
        assert_eq!(std::mem::take(&mut self.unread), lines);
    }

    /// What nobody has looked at yet.
    pub(crate) fn take_unread(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unread)
    }

    pub(crate) fn feed(&mut self, event: Event) {
        let mut effects = Effects::new();
        self.core.handle(event, self.now, &mut effects);
        self.take(effects);
    }

    #[track_caller]
    pub(crate) fn on(&mut self, event: Event, lines: &[&str]) {
        self.expect(&[]);
        self.feed(event);
        self.expect(lines);
    }

    /// A message of the master on connection 1.
    #[track_caller]
    pub(crate) fn hear(&mut self, message: MasterToSlave, lines: &[&str]) {
        self.on(
            Event::Master {
                connection: ConnectionId(1),
                message,
            },
            lines,
        );
    }

    /// All that was written is durable.
    #[track_caller]
    pub(crate) fn durable(&mut self, lines: &[&str]) {
        let (record, _) = *self
            .writing
            .last()
            .as_ref()
            .map(|last| (last.0, ()))
            .as_ref()
            .unwrap();
        for (_, record) in self.writing.drain(..) {
            self.disk.apply(record);
        }
        self.on(Event::Persisted { record }, lines);
    }

    #[track_caller]
    pub(crate) fn acknowledge(&mut self, task: &str, number: u64, lines: &[&str]) {
        let incarnation = self.core.incarnation();
        let update_id = UpdateId::by_slave(SLAVE, incarnation, number);
        let task_id = TaskId::new(task).unwrap();
        let framework_id = FrameworkId(1);
        self.hear(
            MasterToSlave::Acknowledge {
                framework_id,
                task_id,
                update_id,
            },
            lines,
        );
    }

    #[track_caller]
    pub(crate) fn after(&mut self, duration: Duration, lines: &[&str]) {
        self.now = self.now.after(duration);
        self.on(Event::Tick, lines);
    }
}

pub(crate) fn container(number: u64) -> ContainerId {
    ContainerId {
        incarnation: 1,
        number,
    }
}

pub(crate) fn registered() -> MasterToSlave {
    MasterToSlave::Registered {
        slave_id: SLAVE,
        cluster_id: CLUSTER,
        epoch: Epoch(1),
        ping_timeout: PING_TIMEOUT,
    }
}

/// The leader of term 1 refuses.
pub(crate) fn refused(refusal: Refusal) -> MasterToSlave {
    refused_by(1, refusal)
}

pub(crate) fn refused_by(term: u64, refusal: Refusal) -> MasterToSlave {
    let by = Some(Leadership {
        cluster_id: CLUSTER,
        epoch: Epoch(term),
    });
    MasterToSlave::Refused { refusal, by }
}

/// An effect in one line.
fn line(effect: &Effect) -> String {
    let key = |key: &TaskKey| format!("{}/{}", key.0, key.1);
    let word = |state: meros_proto::status::TaskState| state.name().trim_start_matches("TASK_");
    let number = |id: Option<UpdateId>| id.map_or(0, |id| u64::try_from(id.0 & 0xffff).unwrap());
    match effect {
        Effect::Persist { record, .. } => match record {
            Record::Identity(identity) => format!("persist identity {}", identity.slave_id),
            Record::IncarnationStarted(n) => format!("persist incarnation {n}"),
            Record::TaskAdded(run) => {
                format!(
                    "persist task {}/{}",
                    run.framework.framework_id, run.task.task_id
                )
            }
            Record::UpdateMade {
                framework_id,
                status,
            } => format!(
                "persist update {framework_id}/{} {} #{}",
                status.task_id,
                word(status.state),
                number(status.update_id)
            ),
            Record::UpdateAcknowledged { task, update_id } => {
                format!(
                    "persist acknowledged {} #{}",
                    key(task),
                    number(Some(*update_id))
                )
            }
            Record::ExecutorAdded(run) => format!(
                "persist executor {}/{}",
                run.framework.framework_id, run.executor.executor_id
            ),
            Record::UpdateHeard {
                framework_id,
                executor_id,
                number: heard,
                status,
            } => format!(
                "persist heard {framework_id}/{executor_id} {heard} {} {} #{}",
                status.task_id,
                word(status.state),
                number(status.update_id)
            ),
            Record::ExecutorForgotten { executor } => {
                format!("persist executor ended {}/{}", executor.0, executor.1)
            }
            Record::GroupAdded { executor, tasks } => {
                let tasks = tasks.iter().map(|run| run.task.task_id.as_str());
                let tasks: Vec<&str> = tasks.collect();
                format!(
                    "persist group {}/{} {}",
                    executor.framework.framework_id,
                    executor.executor.executor_id,
                    tasks.join("+")
                )
            }
            Record::GroupEnding { executor } => {
                format!("persist group ending {}/{}", executor.0, executor.1)
            }
            Record::TaskForgotten { task } => format!("persist forgotten {}", key(task)),
            Record::FrameworkShutDown { framework_id } => {
                format!("persist shutdown {framework_id}")
            }
            Record::Left => "persist left".to_owned(),
            Record::TermHeard(epoch) => format!("persist term {epoch}"),
            Record::ClaimsChanged(claims) => format!("persist claims {}", claims.resources),
        },
        Effect::Send {
            connection,
            message,
        } => {
            let what = match message {
                SlaveToMaster::Register { .. } => "register".to_owned(),
                SlaveToMaster::ReportTasks { tasks } => {
                    let tasks: Vec<String> = tasks
                        .iter()
                        .map(|t| format!("{}/{} {}", t.framework_id, t.task.task_id, word(t.state)))
                        .collect();
                    format!("report {}", tasks.join(", "))
                }
                SlaveToMaster::Reregister { slave_id, .. } => format!("reregister {slave_id}"),
                SlaveToMaster::Pong => "pong".to_owned(),
                SlaveToMaster::Update(update) => format!(
                    "update {}/{} {} #{} latest {}",
                    update.framework_id,
                    update.status.task_id,
                    word(update.status.state),
                    number(update.status.update_id),
                    word(update.latest_state)
                ),
                SlaveToMaster::Unregister => "unregister".to_owned(),
                SlaveToMaster::ReportClaims { claims, decided } => {
                    let decided: Vec<String> = decided
                        .iter()
                        .map(|it| match &it.refused {
                            Some(_) => format!("-{}", it.number.number),
                            None => format!("+{}", it.number.number),
                        })
                        .collect();
                    format!("claims {claims} {}", decided.join(" "))
                }
                SlaveToMaster::ReportExecutors { executors } => {
                    let executors: Vec<String> = executors
                        .iter()
                        .map(|it| {
                            let framework = it.framework.framework_id;
                            format!("{framework}/{}", it.executor.executor_id)
                        })
                        .collect();
                    format!("executors {}", executors.join(", "))
                }
                SlaveToMaster::ExecutorEnded {
                    framework_id,
                    executor_id,
                    ..
                } => format!("executor ended {framework_id}/{executor_id}"),
                SlaveToMaster::ExecutorMessage {
                    framework_id,
                    executor_id,
                    data,
                } => format!("message of {framework_id}/{executor_id} {data:?}"),
                SlaveToMaster::ChangeApplied { number } => format!("applied {}", number.number),
                SlaveToMaster::TermHeard { epoch } => format!("term {epoch}"),
            };
            format!("send {} {what}", connection.0)
        }
        Effect::Reconnect { connection, leader } => match leader {
            Some(leader) => format!("reconnect {} to {leader}", connection.0),
            None => format!("reconnect {}", connection.0),
        },
        Effect::StartContainer { container, run, .. } => {
            format!(
                "start {container} {}/{}",
                run.framework.framework_id, run.task.task_id
            )
        }
        Effect::CancelStart { container } => format!("cancel {container}"),
        Effect::StartExecutor { container, run, .. } => format!(
            "start executor {container} {}/{}",
            run.framework.framework_id, run.executor.executor_id
        ),
        Effect::ResizeContainer {
            container,
            resources,
        } => format!("resize {container} {resources}"),
        Effect::TellExecutor { session, message } => {
            let what = match message {
                SlaveToExecutor::Subscribed { .. } => "subscribed".to_owned(),
                SlaveToExecutor::Launch(task) => format!("launch {}", task.task_id),
                SlaveToExecutor::Kill { task_id, grace } => format!("kill {task_id} {grace:?}"),
                SlaveToExecutor::Acknowledged { number } => format!("acknowledged {number}"),
                SlaveToExecutor::Message(data) => format!("message {data:?}"),
                SlaveToExecutor::Shutdown { grace } => format!("shutdown {grace:?}"),
                SlaveToExecutor::Refused { refusal } => format!("refused {}", refusal.code()),
            };
            format!("tell {} {what}", session.0)
        }
        Effect::CloseSession { session } => format!("close {}", session.0),
        Effect::KillContainer { container, grace } => format!("kill {container} {grace:?}"),
        Effect::ForgetContainer { container } => format!("forget {container}"),
        Effect::Probe { id, .. } => {
            let ProbeId {
                container,
                purpose,
                number,
            } = id;
            format!("probe {container} {} {number}", purpose.name())
        }
        Effect::WipeVolume { directory } => format!("wipe {directory}"),
        Effect::FrameworkForgotten { framework_id } => format!("forgotten {framework_id}"),
        Effect::Exit { why: None } => "exit".to_owned(),
        Effect::Exit { why: Some(why) } => format!("exit {}", why.code()),
    }
}
