//! Executors of frameworks: each lives in a container on its slave's machine, whatever becomes of the slave,
//! runs tasks as their scripts say, and owes the slave what the SDK's executors owe it.
//!
//! A connection takes with it what is on its way; now and then one breaks. An executor that has had nothing
//! to do for a while ends, as one that is written well does.

use std::collections::BTreeMap;
use std::time::Duration;

use meros_proto::ids::TaskId;
use meros_proto::message::executor::{ExecutorToSlave, SlaveToExecutor};
use meros_proto::message::slave::RunExecutor;
use meros_proto::status::{Source, TaskExit, TaskState, TaskStatus};
use meros_proto::task::TaskDescription;
use meros_proto::time::Timestamp;
use meros_sdk_core::executor::Duties;
use meros_slave_core::{ContainerExit, ContainerId, Event, ExecutorKey, SessionId};

use super::slave::{Container, ContainerStep};
use super::{Happening, Life, Node, World};
use crate::behaviour::script::Script;
use crate::invariants::Broken;
use crate::prng::Rng;

/// From one end of a connection to the other. Always the same: what is said first comes first.
const ON_THE_WAY: Duration = Duration::from_micros(100);
/// Of a thousand messages to executors so many find the connection broken.
const BREAKS: u64 = 5;

/// What an executor does next, or what happens to it.
#[derive(Debug)]
pub(crate) enum ExecutorStep {
    /// It looks for its slave.
    Dials,
    /// What it said reaches the slave.
    IsHeard(SessionId, Box<ExecutorToSlave>),
    /// What the slave said reaches it.
    Hears(SessionId, SlaveToExecutor),
    /// The slave notices that a connection is gone.
    IsGone(SessionId),
    /// A task of it has come so far.
    Task(TaskId, TaskState),
    /// It has had nothing to do for a while, if no update was made since this many.
    Idles(u64),
}

/// The program in the container of an executor.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) key: ExecutorKey,
    /// Where it reaches its slave.
    pub(super) session: Option<SessionId>,
    duties: Duties,
    scripts: BTreeMap<TaskId, Script>,
    /// What it has done so far, counted.
    steps: u64,
}

impl Process {
    pub(super) fn of(run: &RunExecutor) -> Self {
        Self {
            key: (run.framework.framework_id, run.executor.executor_id.clone()),
            session: None,
            duties: Duties::new(),
            scripts: BTreeMap::new(),
            steps: 0,
        }
    }

    pub(super) fn live_tasks(&self) -> impl Iterator<Item = &TaskId> {
        self.duties.live()
    }

    pub(super) fn runs(&self, task: &TaskId) -> bool {
        self.duties.is_live(task)
    }

    fn is_idle(&self) -> bool {
        self.duties.live().next().is_none() && self.duties.is_all_acknowledged()
    }

    /// What it says when it is connected.
    fn opening(&self) -> Vec<ExecutorToSlave> {
        let subscribe = ExecutorToSlave::Subscribe {
            framework_id: self.key.0,
            executor_id: self.key.1.clone(),
            made: self.duties.made(),
            tasks: self
                .duties
                .unheard()
                .map(|(id, ended)| (id.clone(), ended))
                .collect(),
        };
        let updates = self.duties.unacknowledged().cloned();
        let updates = updates.map(ExecutorToSlave::Update);
        std::iter::once(subscribe).chain(updates).collect()
    }
}

/// How the container of an executor behaves: most run until they are asked to end.
pub(super) fn script(rng: &mut Rng) -> Script {
    let millis = Duration::from_millis;
    let crashes = rng.percent(15);
    let runs = rng.skewed(millis(100), millis(120_000));
    Script {
        start: rng.skewed(millis(1), millis(2_000)),
        starts: !rng.percent(5),
        runs: crashes.then_some(runs),
        exit: ended(TaskExit::Code(1)),
        yields: (!rng.percent(20)).then(|| rng.skewed(millis(1), millis(10_000))),
    }
}

fn ended(exit: TaskExit) -> ContainerExit {
    ContainerExit {
        exit,
        limitation: None,
        message: String::new(),
    }
}

impl World {
    fn after_in_executor(
        &mut self,
        slave: usize,
        container: ContainerId,
        wait: Duration,
        step: ExecutorStep,
    ) {
        if let Some(it) = self.slaves[slave].containers.get(&container) {
            let life = Life(Node::Slave(slave), it.born);
            self.after(wait, Happening::Executor(life, container, Box::new(step)));
        }
    }

    /// It runs, or its slave is new, or its connection is gone: it looks for its slave soon.
    pub(super) fn dial_from_executor(&mut self, slave: usize, container: ContainerId) {
        let rng = &mut self.slaves[slave].rng;
        let wait = rng.skewed(Duration::from_millis(1), Duration::from_secs(2));
        self.after_in_executor(slave, container, wait, ExecutorStep::Dials);
    }

    /// The slave says something to an executor.
    pub(super) fn tell_executor(
        &mut self,
        slave: usize,
        session: SessionId,
        message: SlaveToExecutor,
    ) {
        if let Some(container) = self.on_session(slave, session) {
            let step = ExecutorStep::Hears(session, message);
            self.after_in_executor(slave, container, ON_THE_WAY, step);
        }
    }

    /// The slave closes a connection: what it has said on it arrives, and what comes from there does not.
    pub(super) fn close_session(&mut self, slave: usize, session: SessionId) {
        if let Some(container) = self.on_session(slave, session) {
            let step = ExecutorStep::IsGone(session);
            self.after_in_executor(slave, container, ON_THE_WAY, step);
        }
    }

    fn on_session(&self, slave: usize, session: SessionId) -> Option<ContainerId> {
        let mut containers = self.slaves[slave].containers.iter();
        let found = containers.find(|(_, it)| {
            let process = it.executor.as_deref();
            process.is_some_and(|process| process.session == Some(session))
        });
        found.map(|(container, _)| *container)
    }

    pub(super) fn on_executor_step(
        &mut self,
        slave: usize,
        born: u32,
        container: ContainerId,
        step: ExecutorStep,
    ) -> Result<(), Broken> {
        let node = &mut self.slaves[slave];
        let known = node.containers.get_mut(&container);
        let known = known.filter(|it| it.born == born && it.runs());
        let Some(process) = known.and_then(|it| it.executor.as_deref_mut()) else {
            return match step {
                // The slave hears of the end of the connection, too, if it still lives.
                ExecutorStep::IsGone(session) => {
                    self.feed_slave(slave, Event::ExecutorDisconnected { session })
                }
                _ => Ok(()),
            };
        };
        match step {
            ExecutorStep::Dials => self.connect_executor(slave, container),
            ExecutorStep::IsHeard(session, message) => {
                if process.session != Some(session) {
                    return Ok(());
                }
                let event = Event::Executor {
                    session,
                    container,
                    message,
                };
                self.feed_slave(slave, event)
            }
            ExecutorStep::IsGone(session) => {
                if process.session.take_if(|it| *it == session).is_some() {
                    self.dial_from_executor(slave, container);
                }
                self.feed_slave(slave, Event::ExecutorDisconnected { session })
            }
            ExecutorStep::Hears(session, message) => {
                if process.session != Some(session) {
                    return Ok(());
                }
                if node.rng.below(1_000) < BREAKS {
                    process.session = None;
                    self.meet("an executor loses its connection");
                    self.dial_from_executor(slave, container);
                    return self.feed_slave(slave, Event::ExecutorDisconnected { session });
                }
                self.hear_in_executor(slave, container, message);
                Ok(())
            }
            ExecutorStep::Task(task, state) => {
                self.on_task_in_executor(slave, container, task, state);
                Ok(())
            }
            ExecutorStep::Idles(steps) => {
                if process.steps == steps && process.is_idle() {
                    self.end_executor_soon(slave, container, Duration::ZERO, TaskExit::Code(0));
                }
                Ok(())
            }
        }
    }

    /// Nothing while the slave is down: the next one is looked for when it starts.
    fn connect_executor(&mut self, slave: usize, container: ContainerId) -> Result<(), Broken> {
        let node = &mut self.slaves[slave];
        if node.core.is_none() {
            return Ok(());
        }
        node.sessions += 1;
        let session = SessionId(node.sessions);
        let process = node.containers.get_mut(&container);
        let Some(process) = process.and_then(|it| it.executor.as_deref_mut()) else {
            return Ok(());
        };
        if process.session.is_some() {
            return Ok(());
        }
        process.session = Some(session);
        let opening = process.opening();
        if opening.len() > 1 {
            self.meet("an executor repeats what it said");
        }
        for message in opening {
            let step = ExecutorStep::IsHeard(session, Box::new(message));
            self.after_in_executor(slave, container, ON_THE_WAY, step);
        }
        Ok(())
    }

    fn hear_in_executor(&mut self, slave: usize, container: ContainerId, message: SlaveToExecutor) {
        let node = &mut self.slaves[slave];
        let process = node.containers.get_mut(&container);
        let Some(process) = process.and_then(|it| it.executor.as_deref_mut()) else {
            return;
        };
        process.steps += 1;
        let millis = Duration::from_millis;
        match message {
            SlaveToExecutor::Launch(task) => {
                if process.duties.on_launch(&task.task_id) {
                    let framework = process.key.0;
                    if process.live_tasks().nth(1).is_some() {
                        self.meet("an executor runs two tasks at once");
                    }
                    let script = self.script_in_executor(slave, framework, &task);
                    self.begin_in_executor(slave, container, task.task_id, script);
                }
            }
            SlaveToExecutor::Kill { task_id, grace } => {
                if let Some(script) = process.scripts.get(&task_id) {
                    let (after, _) = script.killed(grace);
                    let step = ExecutorStep::Task(task_id, TaskState::Killed);
                    self.after_in_executor(slave, container, after, step);
                }
            }
            SlaveToExecutor::Acknowledged { number } => {
                process.duties.on_acknowledged(number);
                if process.is_idle() {
                    let steps = process.steps;
                    let wait = node.rng.skewed(millis(100), millis(30_000));
                    self.after_in_executor(slave, container, wait, ExecutorStep::Idles(steps));
                }
            }
            SlaveToExecutor::Shutdown { grace } => {
                let tells = node.rng.percent(50);
                let live: Vec<TaskId> = process.duties.live().cloned().collect();
                let wait = node.rng.skewed(millis(1), grace.max(millis(2)));
                for task in live.into_iter().filter(|_| tells) {
                    self.on_task_in_executor(slave, container, task, TaskState::Killed);
                }
                self.end_executor_soon(slave, container, wait, TaskExit::Code(0));
            }
            SlaveToExecutor::Refused { .. } => {
                self.end_executor_soon(slave, container, millis(1), TaskExit::Code(1));
            }
            // One that was started for nothing ends, too.
            SlaveToExecutor::Subscribed { .. } => {
                let steps = process.steps;
                let wait = node.rng.skewed(millis(5_000), millis(30_000));
                self.after_in_executor(slave, container, wait, ExecutorStep::Idles(steps));
            }
            SlaveToExecutor::Message(_) => {}
        }
    }

    fn script_in_executor(
        &self,
        slave: usize,
        framework: meros_proto::ids::FrameworkId,
        task: &TaskDescription,
    ) -> Script {
        let of_guest = super::guests::script_of(&self.plan, &self.owners, framework, task);
        of_guest.unwrap_or_else(|| Script::of(&self.slaves[slave].rng, task))
    }

    fn begin_in_executor(
        &mut self,
        slave: usize,
        container: ContainerId,
        task: TaskId,
        script: Script,
    ) {
        let state = match script.starts {
            true => TaskState::Running,
            false => TaskState::Failed,
        };
        let start = script.start;
        let process = self.slaves[slave].containers.get_mut(&container);
        if let Some(process) = process.and_then(|it| it.executor.as_deref_mut()) {
            process.scripts.insert(task.clone(), script);
        }
        let step = ExecutorStep::Task(task, state);
        self.after_in_executor(slave, container, start, step);
    }

    /// It says what has become of a task, unless the task is over.
    fn on_task_in_executor(
        &mut self,
        slave: usize,
        container: ContainerId,
        task: TaskId,
        state: TaskState,
    ) {
        let now = self.slaves[slave].clock.local(self.now);
        let node = &mut self.slaves[slave];
        let process = node.containers.get_mut(&container);
        let Some(process) = process.and_then(|it| it.executor.as_deref_mut()) else {
            return;
        };
        if !process.duties.is_live(&task) {
            return;
        }
        process.steps += 1;
        let next = next_of(process, &task, state);
        if state.is_terminal() {
            process.scripts.remove(&task);
        }
        let Some(update) = said(process, task.clone(), state, now) else {
            return;
        };
        let session = process.session;
        if let Some((wait, state)) = next {
            let step = ExecutorStep::Task(task, state);
            self.after_in_executor(slave, container, wait, step);
        }
        if let Some(session) = session {
            let step = ExecutorStep::IsHeard(session, Box::new(update));
            self.after_in_executor(slave, container, ON_THE_WAY, step);
        }
    }

    fn end_executor_soon(
        &mut self,
        slave: usize,
        container: ContainerId,
        wait: Duration,
        exit: TaskExit,
    ) {
        if let Some(it) = self.slaves[slave].containers.get(&container) {
            let life = Life(Node::Slave(slave), it.born);
            let step = ContainerStep::Ended(Box::new(ended(exit)));
            self.after(wait, Happening::Container(life, container, step));
        }
    }
}

/// What becomes of a task that runs from now on.
fn next_of(process: &Process, task: &TaskId, state: TaskState) -> Option<(Duration, TaskState)> {
    let script = process.scripts.get(task)?;
    let runs = script.runs.filter(|_| state == TaskState::Running)?;
    let end = match script.exit.exit {
        TaskExit::Code(0) => TaskState::Finished,
        _ => TaskState::Failed,
    };
    Some((runs, end))
}

/// Keeps an update and gives it to be sent.
fn said(
    process: &mut Process,
    task: TaskId,
    state: TaskState,
    now: Timestamp,
) -> Option<ExecutorToSlave> {
    let status = TaskStatus::new(task, state, Source::Executor, now);
    let update = process.duties.update(status).ok()?;
    Some(ExecutorToSlave::Update(update.clone()))
}

impl Container {
    /// The task, or those that its executor runs.
    pub(super) fn tasks(&self) -> Vec<meros_slave_core::TaskKey> {
        match self.executor.as_deref() {
            None => vec![self.key.clone()],
            Some(process) => {
                let tasks = process.live_tasks().cloned();
                tasks.map(|task| (process.key.0, task)).collect()
            }
        }
    }
}
