//! Executors: programs of a framework that run several of its tasks on a slave.
//!
//! A slave starts the executor with its first task, gives it that and later ones, and asks it to kill them.
//! The executor says what becomes of each. [`run_executor`] keeps up the connection with the slave, also
//! over restarts of the slave, and loses no update.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use meros_sdk::executor::{Executor, ExecutorHandle, run_executor};
//! use meros_sdk::{TaskDescription, TaskId};
//!
//! /// Each task is a thread that sleeps.
//! struct Sleeper;
//!
//! impl Executor for Sleeper {
//!     fn launch(&mut self, task: TaskDescription, slave: &ExecutorHandle) {
//!         let slave = slave.clone();
//!         std::thread::spawn(move || {
//!             slave.running(task.task_id.clone());
//!             std::thread::sleep(Duration::from_secs(1));
//!             slave.finished(task.task_id);
//!         });
//!     }
//!
//!     fn kill(&mut self, task_id: TaskId, _grace: Duration, slave: &ExecutorHandle) {
//!         slave.killed(task_id);
//!     }
//! }
//!
//! # fn program() -> Result<(), Box<dyn std::error::Error>> {
//! // Where the slave is, it says in the environment.
//! run_executor(&mut Sleeper)?;
//! # Ok(())
//! # }
//! ```
//!
//! A framework launches tasks into it with [`Task::in_executor`](crate::Task::in_executor).

mod config;
mod link;

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meros_proto::executor::EXECUTOR_MESSAGE_BYTES_MAX;
use meros_proto::ids::{SlaveId, TaskId};
use meros_proto::message::executor::{ExecutorToSlave, SlaveToExecutor};
use meros_proto::refusal::Refusal;
use meros_proto::status::{TaskState, TaskStatus};
use meros_proto::task::TaskDescription;

pub use config::{ExecutorConfig, ExecutorConfigError, RECONNECT_TIMEOUT_DEFAULT};
use link::{Heard, Link, Shared};

/// What a framework's executor does. Methods are called one at a time on the thread that called
/// [`run_executor`], and must not block for long: while one runs, no kill is heard. Work is done on threads
/// of its own, which say what becomes of it through a clone of the handle.
pub trait Executor {
    /// The slave takes this executor; `again` after the connection was interrupted. Tasks are as they were.
    fn subscribed(&mut self, slave_id: SlaveId, again: bool, slave: &ExecutorHandle) {
        let _ = (slave_id, again, slave);
    }

    /// A task to run. Each needs updates: [`running`](ExecutorHandle::running), and a last one, such as
    /// [`finished`](ExecutorHandle::finished).
    fn launch(&mut self, task: TaskDescription, slave: &ExecutorHandle);

    /// End a task that is not over, within the grace. A repeat shortens it.
    fn kill(&mut self, task_id: TaskId, grace: Duration, slave: &ExecutorHandle);

    /// The framework has sent a message; best effort.
    fn message(&mut self, data: Bytes, slave: &ExecutorHandle) {
        let _ = (data, slave);
    }

    /// The slave is away. What is said meanwhile is told when it is back.
    fn disconnected(&mut self, slave: &ExecutorHandle) {
        let _ = slave;
    }

    /// End everything within the grace: then this process is killed. [`run_executor`] returns when all tasks
    /// have had their last update and the slave has it, at the latest when the grace is over. By default each
    /// task is [killed](Executor::kill).
    fn shutdown(&mut self, grace: Duration, slave: &ExecutorHandle) {
        for task_id in slave.live_tasks() {
            self.kill(task_id, grace, slave);
        }
    }
}

/// Why an executor cannot go on. Its tasks are over for the framework.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// It was not started by a slave.
    #[error(transparent)]
    Config(#[from] ExecutorConfigError),
    /// The slave does not expect it.
    #[error("the slave refused this executor: {0}")]
    Refused(Refusal),
    /// The slave was away for too long.
    #[error("the slave cannot be reached at {path}: {why}")]
    SlaveGone {
        /// The socket.
        path: String,
        /// What went wrong last.
        why: String,
    },
    /// The system gives no thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// The way back to the slave. Cheap to clone, for use on any thread; nothing here waits for the framework.
#[derive(Debug, Clone)]
pub struct ExecutorHandle {
    shared: Arc<Shared>,
}

impl ExecutorHandle {
    /// Says what becomes of a task. The slave says itself where it comes from; `timestamp` is set here. After
    /// a last update of a task nothing more is heard of it.
    ///
    /// False, and nothing is told: it is a state that only slaves and masters know (STAGING, UNKNOWN, UNREACHABLE,
    /// GONE), its `data` has more than [`EXECUTOR_UPDATE_DATA_BYTES_MAX`](meros_proto::executor::EXECUTOR_UPDATE_DATA_BYTES_MAX),
    /// or 40,000 updates wait for the slave and this is not the task's last.
    pub fn update(&self, status: TaskStatus) -> bool {
        self.shared.update(status)
    }

    /// The task runs.
    pub fn running(&self, task_id: TaskId) -> bool {
        self.update(self.status(task_id, TaskState::Running))
    }

    /// The task has done what it was to do.
    pub fn finished(&self, task_id: TaskId) -> bool {
        self.update(self.status(task_id, TaskState::Finished))
    }

    /// The task has ended badly; the message is for people.
    pub fn failed(&self, task_id: TaskId, message: impl Into<String>) -> bool {
        self.update(TaskStatus {
            message: message.into(),
            ..self.status(task_id, TaskState::Failed)
        })
    }

    /// The task was killed, as asked.
    pub fn killed(&self, task_id: TaskId) -> bool {
        self.update(self.status(task_id, TaskState::Killed))
    }

    /// A status that says no more than it must, to be filled in and given to
    /// [`update`](ExecutorHandle::update).
    #[must_use]
    pub fn status(&self, task_id: TaskId, state: TaskState) -> TaskStatus {
        link::status(task_id, state)
    }

    /// Sends the framework a message: best effort, at most
    /// [`EXECUTOR_MESSAGE_BYTES_MAX`]. False if the slave is away or it is too long.
    pub fn send(&self, data: Bytes) -> bool {
        data.len() <= EXECUTOR_MESSAGE_BYTES_MAX && self.shared.say(&ExecutorToSlave::Message(data))
    }

    /// Tasks that were given and have had no last update.
    #[must_use]
    pub fn live_tasks(&self) -> Vec<TaskId> {
        self.shared.live_tasks()
    }

    /// Ends the executor: [`run_executor`] returns as soon as the slave has all updates. Tasks that have had
    /// no last update fail with their executor.
    pub fn stop(&self) {
        self.shared.stop();
    }
}

/// Runs an executor until the slave asks it to shut down, or it [stops](ExecutorHandle::stop). Blocks.
///
/// # Errors
/// [`ExecutorError`]: the program should end then, and its tasks with it.
pub fn run_executor(executor: &mut (impl Executor + ?Sized)) -> Result<(), ExecutorError> {
    run_executor_with(ExecutorConfig::from_env()?, executor)
}

/// The same, with what the slave says in the environment given otherwise.
///
/// # Errors
/// [`ExecutorError`].
pub fn run_executor_with(
    config: ExecutorConfig,
    executor: &mut (impl Executor + ?Sized),
) -> Result<(), ExecutorError> {
    let (shared, heard) = Shared::new(config);
    let link = Link::start(Arc::clone(&shared)).map_err(ExecutorError::Thread)?;
    let handle = ExecutorHandle {
        shared: Arc::clone(&shared),
    };
    let ended = serve(executor, &handle, &heard);
    if ended.is_ok() {
        shared.wait_until_acknowledged();
    }
    drop(link);
    ended
}

fn serve(
    executor: &mut (impl Executor + ?Sized),
    handle: &ExecutorHandle,
    heard: &Receiver<Heard>,
) -> Result<(), ExecutorError> {
    let mut again = false;
    let mut until: Option<Instant> = None;
    loop {
        if handle.shared.is_stopping() {
            return Ok(());
        }
        let is_over =
            until.is_some_and(|until| until <= Instant::now() || handle.shared.has_nothing_to_do());
        if is_over {
            return Ok(());
        }
        // While it ends, its last updates come from other threads.
        let next = match until {
            Some(_) => match heard.recv_timeout(Duration::from_millis(5)) {
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => continue,
                next => next.ok(),
            },
            None => heard.recv().ok(),
        };
        match next {
            Some(Heard::Message(message)) => match message {
                SlaveToExecutor::Subscribed { slave_id, .. } => {
                    executor.subscribed(slave_id, std::mem::replace(&mut again, true), handle);
                }
                SlaveToExecutor::Launch(task) => executor.launch(*task, handle),
                SlaveToExecutor::Kill { task_id, grace } => {
                    if handle.shared.is_live(&task_id) {
                        executor.kill(task_id, grace, handle);
                    }
                }
                SlaveToExecutor::Message(data) => executor.message(data, handle),
                SlaveToExecutor::Shutdown { grace } => {
                    let is_first = until.is_none();
                    let end = Instant::now() + grace;
                    until = Some(until.map_or(end, |known| known.min(end)));
                    if is_first {
                        executor.shutdown(grace, handle);
                    }
                }
                SlaveToExecutor::Refused { refusal } => {
                    return Err(ExecutorError::Refused(refusal));
                }
                // Heard by the link.
                SlaveToExecutor::Acknowledged { .. } => {}
            },
            Some(Heard::Disconnected) => executor.disconnected(handle),
            Some(Heard::Stop) => return Ok(()),
            Some(Heard::SlaveGone { path, why }) => {
                return Err(ExecutorError::SlaveGone { path, why });
            }
            // The link never ends before it has said why.
            None => return Ok(()),
        }
    }
}
