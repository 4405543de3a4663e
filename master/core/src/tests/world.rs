//! A core in a world without a world: time is a number, commits are at once unless asked
//! otherwise, and after every event all invariants are checked.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{ClusterId, Epoch, FrameworkId, OfferId, SlaveId, TaskId, UpdateId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::{
    FrameworkToMaster, ReconcileTask, SlaveToMaster, StatusUpdate, TaskReport,
};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::offer::{Filters, Operation};
use meros_proto::refusal::Refusal;
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::slave::SlaveDescription;
use meros_proto::state::{Changed, KeyChange, StateAnswer, StateEntry};
use meros_proto::status::{Source, TaskState, TaskStatus};
use meros_proto::task::{Command as TaskCommand, TaskDescription};
use meros_proto::time::Timestamp;
use meros_proto::view::{ClusterChange, TaskView};
use meros_proto::why::{Why, WhyRow};

use crate::{
    Answer, Command, Config, ConnectionId, Effect, Effects, Event, MasterCore, OperatorCall,
    ProposalId, Registry, RequestId,
};

pub(crate) const CLUSTER: ClusterId = ClusterId(7);

/// A core and what surrounds it.
pub(crate) struct World {
    pub(crate) core: MasterCore,
    pub(crate) now: Timestamp,
    /// Whether what is proposed is committed at once.
    pub(crate) commits: bool,
    pub(crate) proposed: VecDeque<(ProposalId, Command)>,
    pub(crate) committed: Vec<Command>,
    pub(crate) changes: Vec<ClusterChange>,
    /// Why operations were not done, as frameworks were told.
    pub(crate) reasons: Vec<String>,
    connections: u64,
    updates: u64,
}

pub(crate) fn config() -> Config {
    Config {
        allocation_delay: Duration::ZERO,
        ..Config::default()
    }
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn resources(text: &str) -> Resources {
    text.parse().expect("written well in the test")
}

pub(crate) fn role(name: &str) -> RoleName {
    RoleName::new(name).expect("written well in the test")
}

pub(crate) fn task_id(name: &str) -> TaskId {
    TaskId::new(name).expect("written well in the test")
}

pub(crate) fn offer(number: u64) -> OfferId {
    OfferId {
        epoch: Epoch(1),
        number,
    }
}

pub(crate) fn slave(text: &str) -> SlaveDescription {
    SlaveDescription {
        hostname: "host".to_owned(),
        http_address: String::new(),
        resources: resources(text),
        attributes: Default::default(),
        capabilities: Vec::new(),
        version: "1".to_owned(),
    }
}

pub(crate) fn framework() -> FrameworkDescription {
    FrameworkDescription::new("test", role("*"))
}

pub(crate) fn task(name: &str, slave: SlaveId, text: &str) -> TaskDescription {
    TaskDescription::command(
        task_id(name),
        slave,
        resources(text),
        TaskCommand::shell("true"),
    )
}

/// A report of a task with `cpus:1`.
pub(crate) fn report(
    framework: FrameworkId,
    name: &str,
    slave: SlaveId,
    state: TaskState,
) -> TaskReport {
    TaskReport {
        framework_id: framework,
        role: role("*"),
        task: task(name, slave, "cpus:1"),
        state,
        status: None,
    }
}

impl World {
    /// A core that leads the first term of an empty cluster.
    pub(crate) fn new() -> Self {
        Self::with(config(), Registry::default())
    }

    pub(crate) fn with(config: Config, registry: Registry) -> Self {
        Self::remembering(config, registry, Vec::new())
    }

    /// With what the leader before knew of the tasks.
    pub(crate) fn remembering(
        config: Config,
        registry: Registry,
        remembered: Vec<Arc<TaskView>>,
    ) -> Self {
        let is_new = registry.cluster_id().is_none();
        let now = Timestamp(1_000_000);
        let mut world = Self {
            core: MasterCore::new(config, registry, now),
            now,
            commits: true,
            proposed: VecDeque::new(),
            committed: Vec::new(),
            changes: Vec::new(),
            reasons: Vec::new(),
            connections: 0,
            updates: 0,
        };
        if is_new {
            let command = Command::FormCluster {
                cluster_id: CLUSTER,
            };
            world.committed.push(command.clone());
            world.handle(Event::Committed {
                proposal: None,
                command,
            });
        }
        world.handle(Event::Elected {
            epoch: Epoch(1),
            remembered,
        });
        world
    }

    /// Another core on the registry of this one, elected for the same term number.
    pub(crate) fn after_failover(&self) -> Self {
        Self::with(config(), self.core.registry().clone())
    }

    /// The same, and it has followed this one up to the end.
    pub(crate) fn after_warm_failover(&self) -> Self {
        let registry = self.core.registry().clone();
        Self::remembering(config(), registry, self.tasks_published())
    }

    /// The leader is gone with what it had proposed, and another one, which has followed it, takes its place.
    pub(crate) fn fail_over(&mut self) -> Vec<String> {
        let remembered = self.tasks_published();
        let registry = self.core.registry().clone();
        self.core = MasterCore::new(config(), registry, self.now);
        self.proposed.clear();
        self.changes.clear();
        self.handle(Event::Elected {
            epoch: Epoch(1),
            remembered,
        })
    }

    /// The tasks that readers know, remembered ones too.
    pub(crate) fn tasks_published(&self) -> Vec<Arc<TaskView>> {
        let mut tasks: BTreeMap<(FrameworkId, TaskId), TaskView> = BTreeMap::new();
        for change in &self.changes {
            match change.clone() {
                ClusterChange::TaskAdded(task) => {
                    tasks.insert((task.framework_id, task.task_id.clone()), task);
                }
                ClusterChange::TaskRemembered(task) => {
                    tasks.insert((task.framework_id, task.task_id.clone()), (*task).clone());
                }
                ClusterChange::TaskChanged {
                    framework_id,
                    task_id,
                    state,
                    status,
                } => {
                    let task = tasks.get_mut(&(framework_id, task_id));
                    let task = task.expect("a task that changes is known");
                    task.state = state;
                    task.status = status;
                }
                ClusterChange::TaskRemoved {
                    framework_id,
                    task_id,
                }
                | ClusterChange::TaskForgotten {
                    framework_id,
                    task_id,
                } => {
                    let known = tasks.remove(&(framework_id, task_id));
                    assert!(known.is_some(), "a task that leaves is known");
                }
                _ => {}
            }
        }
        tasks.into_values().map(Arc::new).collect()
    }

    /// Hands in an event; what is done about it, a line each.
    pub(crate) fn handle(&mut self, event: Event) -> Vec<String> {
        let mut effects = Effects::new();
        self.core.handle(event, self.now, &mut effects);
        if let Err(violation) = self.core.check_invariants() {
            panic!("{violation}");
        }
        let mut lines = Vec::new();
        let mut to_commit = Vec::new();
        for effect in effects.drain() {
            match effect {
                Effect::Publish(event) => {
                    self.changes.push(event.change);
                    assert_eq!(event.sequence, self.changes.len() as u64, "M9");
                }
                Effect::Propose { proposal, command } if self.commits => {
                    to_commit.push((proposal, command));
                }
                Effect::Propose { proposal, command } => {
                    lines.push(format!("propose {}", command_line(&command)));
                    self.proposed.push_back((proposal, command));
                }
                effect => {
                    if let Effect::SendFramework {
                        message: MasterToFramework::Operation(status),
                        ..
                    } = &effect
                    {
                        self.reasons.push(status.message.clone());
                    }
                    lines.push(line(&effect));
                }
            }
        }
        for (proposal, command) in to_commit {
            lines.extend(self.commit(proposal, command));
        }
        lines
    }

    fn commit(&mut self, proposal: ProposalId, command: Command) -> Vec<String> {
        self.committed.push(command.clone());
        self.handle(Event::Committed {
            proposal: Some(proposal),
            command,
        })
    }

    /// Commits the first proposal that waits.
    pub(crate) fn commit_next(&mut self) -> Vec<String> {
        let (proposal, command) = self.proposed.pop_front().expect("something was proposed");
        self.commit(proposal, command)
    }

    /// Lets time pass, with a tick at each deadline on the way.
    pub(crate) fn pass(&mut self, duration: Duration) -> Vec<String> {
        let end = self.now.after(duration);
        let mut lines = Vec::new();
        while let Some(next) = self.core.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(next);
            lines.extend(self.handle(Event::Tick));
        }
        self.now = end;
        lines
    }

    pub(crate) fn connect_slave(&mut self, principal: &str) -> ConnectionId {
        let (connection, lines) = self.connect(true, principal);
        assert_eq!(lines, [""; 0]);
        connection
    }

    pub(crate) fn connect_framework(&mut self, principal: &str) -> ConnectionId {
        let (connection, lines) = self.connect(false, principal);
        assert_eq!(lines, [""; 0]);
        connection
    }

    pub(crate) fn connect(
        &mut self,
        is_slave: bool,
        principal: &str,
    ) -> (ConnectionId, Vec<String>) {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let principal = principal.to_owned();
        let lines = self.handle(if is_slave {
            Event::SlaveConnected {
                connection,
                principal,
            }
        } else {
            Event::FrameworkConnected {
                connection,
                principal,
            }
        });
        (connection, lines)
    }

    pub(crate) fn disconnect(&mut self, connection: ConnectionId) -> Vec<String> {
        self.handle(Event::Disconnected { connection })
    }

    pub(crate) fn slave_says(
        &mut self,
        connection: ConnectionId,
        message: SlaveToMaster,
    ) -> Vec<String> {
        self.handle(Event::Slave {
            connection,
            message,
        })
    }

    pub(crate) fn framework_says(
        &mut self,
        connection: ConnectionId,
        message: FrameworkToMaster,
    ) -> Vec<String> {
        self.handle(Event::Framework {
            connection,
            message,
        })
    }

    /// A registered slave with these resources, in ids from S0; the answers are not looked at.
    pub(crate) fn slave(&mut self, text: &str) -> ConnectionId {
        let connection = self.connect_slave("slave");
        self.slave_says(connection, SlaveToMaster::Register { slave: slave(text) });
        connection
    }

    /// A slave comes back with these resources and tasks.
    pub(crate) fn reregister(
        &mut self,
        slave_id: SlaveId,
        text: &str,
        tasks: Vec<TaskReport>,
    ) -> (ConnectionId, Vec<String>) {
        let connection = self.connect_slave("slave");
        let mut lines = self.slave_says(connection, SlaveToMaster::ReportTasks { tasks });
        let message = SlaveToMaster::Reregister {
            slave_id,
            cluster_id: CLUSTER,
            slave: slave(text),
        };
        lines.extend(self.slave_says(connection, message));
        if lines.iter().any(|line| line.contains(" registered ")) {
            lines.extend(self.term_heard(connection));
        }
        (connection, lines)
    }

    /// A slave obeys no leader before this one any more.
    pub(crate) fn term_heard(&mut self, connection: ConnectionId) -> Vec<String> {
        let epoch = self.core.epoch.expect("leads");
        self.slave_says(connection, SlaveToMaster::TermHeard { epoch })
    }

    /// A subscribed framework, in ids from F0; the answers are not looked at.
    pub(crate) fn framework(&mut self, framework: FrameworkDescription) -> ConnectionId {
        self.subscribe(framework, Vec::new()).0
    }

    pub(crate) fn subscribe(
        &mut self,
        framework: FrameworkDescription,
        suppressed_roles: Vec<RoleName>,
    ) -> (ConnectionId, Vec<String>) {
        let connection = self.connect_framework("framework");
        let message = FrameworkToMaster::Subscribe {
            framework,
            suppressed_roles,
            wishes: Vec::new(),
        };
        let lines = self.framework_says(connection, message);
        (connection, lines)
    }

    pub(crate) fn accept(
        &mut self,
        connection: ConnectionId,
        offers: &[u64],
        tasks: Vec<TaskDescription>,
    ) -> Vec<String> {
        let message = FrameworkToMaster::Accept {
            offer_ids: offers.iter().map(|number| offer(*number)).collect(),
            operations: vec![Operation::Launch(tasks)],
            filters: Filters { refuse: secs(60) },
        };
        self.framework_says(connection, message)
    }

    pub(crate) fn decline(
        &mut self,
        connection: ConnectionId,
        offers: &[u64],
        refuse: Duration,
    ) -> Vec<String> {
        let offer_ids = offers.iter().map(|number| offer(*number)).collect();
        let message = FrameworkToMaster::Decline {
            offer_ids,
            filters: Filters { refuse },
        };
        self.framework_says(connection, message)
    }

    /// An update of a slave about a task of F0, with ids from 1.
    pub(crate) fn update(
        &mut self,
        connection: ConnectionId,
        name: &str,
        state: TaskState,
    ) -> Vec<String> {
        self.updates += 1;
        let id = UpdateId(u128::from(self.updates));
        self.update_with(connection, FrameworkId(0), name, state, state, id)
    }

    pub(crate) fn update_with(
        &mut self,
        connection: ConnectionId,
        framework_id: FrameworkId,
        name: &str,
        state: TaskState,
        latest_state: TaskState,
        id: UpdateId,
    ) -> Vec<String> {
        let mut status = TaskStatus::new(task_id(name), state, Source::Slave, self.now);
        status.update_id = Some(id);
        let update = StatusUpdate {
            framework_id,
            status,
            latest_state,
        };
        self.slave_says(connection, SlaveToMaster::Update(update))
    }

    pub(crate) fn acknowledge(
        &mut self,
        connection: ConnectionId,
        name: &str,
        update_id: UpdateId,
    ) -> Vec<String> {
        let message = FrameworkToMaster::Acknowledge {
            slave_id: Some(SlaveId(0)),
            task_id: task_id(name),
            update_id,
        };
        self.framework_says(connection, message)
    }

    pub(crate) fn kill(&mut self, connection: ConnectionId, name: &str) -> Vec<String> {
        let message = FrameworkToMaster::Kill {
            task_id: task_id(name),
            slave_id: None,
            grace: None,
        };
        self.framework_says(connection, message)
    }

    pub(crate) fn reconcile(
        &mut self,
        connection: ConnectionId,
        tasks: &[(&str, Option<u32>)],
    ) -> Vec<String> {
        let question = |(name, slave): &(&str, Option<u32>)| ReconcileTask {
            task_id: task_id(name),
            slave_id: slave.map(SlaveId),
        };
        let tasks = tasks.iter().map(question).collect();
        self.framework_says(connection, FrameworkToMaster::Reconcile { tasks })
    }

    pub(crate) fn operator(&mut self, request: u64, call: OperatorCall) -> Vec<String> {
        self.handle(Event::Operator {
            request: RequestId(request),
            call,
        })
    }

    /// The changes published since the last call of this.
    pub(crate) fn count(&self, is: impl Fn(&ClusterChange) -> bool) -> usize {
        self.changes.iter().filter(|change| is(change)).count()
    }

    /// One slave of `cpus:4;mem:1024`, one framework, one task `t` of `cpus:1` running there,
    /// acknowledged, and the rest declined for long.
    pub(crate) fn with_a_running_task() -> (Self, ConnectionId, ConnectionId) {
        Self::with_a_running_task_of(framework())
    }

    pub(crate) fn with_a_running_task_of(
        framework: FrameworkDescription,
    ) -> (Self, ConnectionId, ConnectionId) {
        let mut world = Self::new();
        let slave = world.slave("cpus:4;mem:1024");
        let framework = world.framework(framework);
        world.accept(framework, &[1], vec![task("t", SlaveId(0), "cpus:1")]);
        world.update(slave, "t", TaskState::Running);
        world.acknowledge(framework, "t", UpdateId(1));
        (world, slave, framework)
    }
}

/// Everything that was done, or the first difference.
#[track_caller]
pub(crate) fn check(got: Vec<String>, expected: &[&str]) {
    assert_eq!(got, expected, "got:\n{}", got.join("\n"));
}

/// A slave's connection is written `s<n>`, a framework's `f<n>`.
fn line(effect: &Effect) -> String {
    match effect {
        Effect::SendSlave {
            connection,
            message,
        } => {
            format!("s{} {}", connection.0, slave_line(message))
        }
        Effect::SendFramework {
            connection,
            message,
        } => {
            format!("f{} {}", connection.0, framework_line(message))
        }
        Effect::Close { connection, why } => format!("close {} {}", connection.0, why.code()),
        Effect::Reply {
            request,
            reply: Ok(Answer::Done),
        } => format!("reply {} done", request.0),
        Effect::Reply {
            request,
            reply: Ok(Answer::Why(why)),
        } => format!("reply {} {}", request.0, why_line(why)),
        Effect::Reply {
            request,
            reply: Ok(Answer::State(answer)),
        } => format!("reply {} {}", request.0, state_line(&Ok(answer.clone()))),
        Effect::Reply {
            request,
            reply: Ok(Answer::Spaces(spaces)),
        } => format!("reply {} {} spaces", request.0, spaces.len()),
        Effect::Reply {
            request,
            reply: Err(why),
        } => format!("reply {} {}", request.0, why.code()),
        Effect::Propose { .. } | Effect::Publish(_) => unreachable!("kept apart by World::handle"),
    }
}

fn slave_line(message: &MasterToSlave) -> String {
    match message {
        MasterToSlave::Registered { slave_id, .. } => format!("registered {slave_id}"),
        MasterToSlave::Refused { refusal, .. } => format!("refused {}", refusal.code()),
        MasterToSlave::Ping { registered } => format!("ping registered={registered}"),
        MasterToSlave::RunTask(run) => {
            format!(
                "run {} {} {}",
                run.framework.framework_id, run.task.task_id, run.task.resources
            )
        }
        MasterToSlave::KillTask {
            framework_id,
            task_id,
            grace,
        } => match grace {
            Some(grace) => format!("kill {framework_id} {task_id} grace={grace:?}"),
            None => format!("kill {framework_id} {task_id}"),
        },
        MasterToSlave::Acknowledge {
            framework_id,
            task_id,
            update_id,
        } => {
            format!("ack {framework_id} {task_id} #{}", short(*update_id))
        }
        MasterToSlave::ReconcileTasks { tasks } => {
            let mut text = "reconcile".to_owned();
            for it in tasks {
                write!(
                    text,
                    " {} {} started={}",
                    it.framework_id, it.task_id, it.started
                )
                .expect("text has room");
            }
            text
        }
        MasterToSlave::RunInExecutor { run, starts } => {
            let executor = run.task.executor.as_ref().map(|it| &it.executor_id);
            format!(
                "run {} {} in {} starts={starts}",
                run.framework.framework_id,
                run.task.task_id,
                executor.expect("its executor")
            )
        }
        MasterToSlave::RunGroup(run) => {
            let tasks = run.group.tasks.iter().map(|task| task.task_id.as_str());
            let tasks: Vec<&str> = tasks.collect();
            format!(
                "run {} {} in group {}",
                run.framework.framework_id,
                tasks.join("+"),
                run.group.executor.executor_id
            )
        }
        MasterToSlave::ShutdownExecutor {
            framework_id,
            executor_id,
        } => format!("shutdown {framework_id} {executor_id}"),
        MasterToSlave::ExecutorMessage {
            framework_id,
            executor_id,
            data,
        } => format!("message {framework_id} {executor_id} {data:?}"),
        MasterToSlave::ShutdownFramework { framework_id } => format!("shutdown {framework_id}"),
        MasterToSlave::ChangeResources { number, change } => {
            format!("{} {} {}", change.kind, number.number, change.resources)
        }
        MasterToSlave::Masters { addresses } => format!("masters {}", addresses.join(",")),
    }
}

fn framework_line(message: &MasterToFramework) -> String {
    match message {
        MasterToFramework::Subscribed { framework_id, .. } => format!("subscribed {framework_id}"),
        MasterToFramework::Offers(offers) => {
            let mut text = "offers".to_owned();
            for it in offers {
                write!(
                    text,
                    " {} {} {} {}",
                    it.offer_id, it.slave_id, it.role, it.resources
                )
                .expect("text has room");
            }
            text
        }
        MasterToFramework::Rescind { offer_id } => format!("rescind {offer_id}"),
        MasterToFramework::Update(status) => status_line(status),
        MasterToFramework::ExecutorEnded {
            slave_id,
            executor_id,
            ..
        } => format!("executor ended {slave_id} {executor_id}"),
        MasterToFramework::ExecutorMessage {
            slave_id,
            executor_id,
            data,
        } => format!("message {slave_id} {executor_id} {data:?}"),
        MasterToFramework::Failure { slave_id } => format!("failure {slave_id}"),
        MasterToFramework::Refused { call, refusal } => {
            format!("refused {call} {}", refusal.code())
        }
        MasterToFramework::Error { refusal, .. } => format!("error {}", refusal.code()),
        MasterToFramework::Operation(status) => {
            format!("{} {}", status.operation_id, status.state)
        }
        MasterToFramework::State { request, answer } => {
            format!("state {request} {}", state_line(answer))
        }
        MasterToFramework::Masters { addresses } => format!("masters {}", addresses.join(",")),
    }
}

fn status_line(status: &TaskStatus) -> String {
    let mut text = format!("{} {} by {:?}", status.task_id, status.state, status.source);
    if let Some(slave) = status.slave_id {
        write!(text, " on {slave}").expect("text has room");
    }
    if let Some(reason) = status.reason {
        write!(text, " {reason:?}").expect("text has room");
    }
    if let Some(id) = status.update_id {
        write!(text, " #{}", short(id)).expect("text has room");
    }
    text
}

/// `#m4` is the fourth update of the master, `#4` one of a slave.
fn short(id: UpdateId) -> String {
    let number = id.0 & u128::from(u64::MAX);
    if id.is_by_master() {
        format!("m{number}")
    } else {
        number.to_string()
    }
}

/// `a=1@3` a key with its revision, `-a@4` one that was deleted, `lease l: 5, 8` with tokens, those
/// that wait in brackets.
fn state_line(answer: &Result<StateAnswer, Refusal>) -> String {
    let value = |entry: &StateEntry| {
        let text = entry.value.as_text().unwrap_or("?");
        format!("{}={text}@{}", entry.key, entry.modified)
    };
    match answer {
        Err(refusal) => refusal.code().to_owned(),
        Ok(StateAnswer::Entries { entries, .. }) => {
            let entries: Vec<_> = entries.iter().map(value).collect();
            format!("entries {}", entries.join(" "))
        }
        Ok(StateAnswer::Changes { revision, changes }) => {
            let changes: Vec<_> = changes
                .iter()
                .map(|change| match change {
                    KeyChange::Set(entry) => value(entry),
                    KeyChange::Deleted { key, revision } => format!("-{key}@{revision}"),
                })
                .collect();
            format!("changes until {revision}: {}", changes.join(" "))
        }
        Ok(StateAnswer::Lease(view)) => {
            let queue: Vec<_> = view
                .queue
                .iter()
                .map(|hold| match hold.holds {
                    true => hold.token.to_string(),
                    false => format!("({})", hold.token),
                })
                .collect();
            format!("lease {}: {}", view.lease, queue.join(" "))
        }
        Ok(StateAnswer::Leases(views)) => format!("{} leases", views.len()),
        Ok(StateAnswer::Alive) => "alive".to_owned(),
        Ok(StateAnswer::Changed(Changed::Opened { session, .. })) => format!("opened {session}"),
        Ok(StateAnswer::Changed(Changed::Done { revision })) => format!("done {revision}"),
        Ok(StateAnswer::Changed(Changed::Queued { token, holds })) => {
            format!("queued {token} holds={holds}")
        }
    }
}

/// `F0 * can=1 cannot=declined:2,limit:1`, or `t TASK_RUNNING`.
fn why_line(why: &Why) -> String {
    match why {
        Why::Task(task) => format!("{} {}", task.task_id, task.state),
        Why::Offers(offers) => {
            let row = |row: &WhyRow| {
                let reasons = row.reasons.iter();
                let reasons: Vec<_> = reasons
                    .map(|it| format!("{}:{}", it.code, it.slaves))
                    .collect();
                let (framework, role) = (row.framework_id, &row.role);
                format!(
                    "{framework} {role} can={} cannot={}",
                    row.offerable,
                    reasons.join(",")
                )
            };
            let rows: Vec<_> = offers.rows.iter().map(row).collect();
            format!("{} left_out={}", rows.join("; "), offers.left_out)
        }
    }
}

fn command_line(command: &Command) -> String {
    let text = format!("{command:?}");
    let end = text.find([' ', '{']).unwrap_or(text.len());
    text[..end].to_owned()
}

/// The `number`-th update of the master of the first term.
pub(crate) fn by_master(number: u64) -> UpdateId {
    UpdateId::by_master(Epoch(1), number)
}
