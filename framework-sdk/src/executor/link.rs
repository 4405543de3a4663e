//! The connection of an executor with its slave: one thread that dials and reads; whoever has something to
//! say writes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use meros_proto::codec::{FrameBuffer, encode};
use meros_proto::executor::{EXECUTOR_UPDATE_DATA_BYTES_MAX, TASKS_PER_EXECUTOR_MAX};
use meros_proto::ids::TaskId;
use meros_proto::message::executor::{ExecutorToSlave, SlaveToExecutor};
use meros_proto::status::{Source, TaskState, TaskStatus};
use meros_proto::time::Timestamp;
use meros_sdk_core::executor::Duties;

use super::ExecutorConfig;

/// What the executor has not looked at yet. Beyond it nothing is read, and in time the slave closes the
/// connection.
const HEARD_MAX: usize = 1_024;
/// The most tasks that a subscription names.
const NAMED_MAX: usize = TASKS_PER_EXECUTOR_MAX;
/// Between two attempts to reach the slave: the first and the longest.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// A slave that does not read for so long is taken for gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stopping executor waits for its last acknowledgements.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 16 << 10;
/// The longest path that fits the address of a socket, with its end.
const ADDRESS_BYTES_MAX: usize = 107;

/// What the thread that dials tells the one that runs the executor.
#[derive(Debug)]
pub(super) enum Heard {
    Message(SlaveToExecutor),
    Disconnected,
    Stop,
    SlaveGone { path: String, why: String },
}

/// What all threads of an executor share.
#[derive(Debug)]
pub(super) struct Shared {
    config: ExecutorConfig,
    state: Mutex<State>,
    /// An update was acknowledged, or the executor is over.
    changed: Condvar,
    heard: SyncSender<Heard>,
}

#[derive(Debug)]
struct State {
    duties: Duties,
    /// To write to; none while the slave is away.
    stream: Option<UnixStream>,
    frame: BytesMut,
    is_over: bool,
    is_stopping: bool,
}

impl Shared {
    pub(super) fn new(config: ExecutorConfig) -> (Arc<Self>, Receiver<Heard>) {
        let (heard, receiver) = sync_channel(HEARD_MAX);
        let state = State {
            duties: Duties::new(),
            stream: None,
            frame: BytesMut::new(),
            is_over: false,
            is_stopping: false,
        };
        let shared = Self {
            config,
            state: Mutex::new(state),
            changed: Condvar::new(),
            heard,
        };
        (Arc::new(shared), receiver)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What it holds is consistent between two calls, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn update(&self, status: TaskStatus) -> bool {
        let is_for_executors = !matches!(
            status.state,
            TaskState::Staging
                | TaskState::Unknown
                | TaskState::Unreachable
                | TaskState::Gone
                | TaskState::GoneByOperator
        );
        if !is_for_executors || status.data.len() > EXECUTOR_UPDATE_DATA_BYTES_MAX {
            return false;
        }
        let mut state = self.state();
        let Ok(update) = state.duties.update(status) else {
            return false;
        };
        let message = ExecutorToSlave::Update(update.clone());
        state.say(&message);
        true
    }

    pub(super) fn say(&self, message: &ExecutorToSlave) -> bool {
        self.state().say(message)
    }

    pub(super) fn live_tasks(&self) -> Vec<TaskId> {
        self.state().duties.live().cloned().collect()
    }

    fn is_new(&self, task_id: &TaskId) -> bool {
        self.state().duties.on_launch(task_id)
    }

    pub(super) fn is_live(&self, task_id: &TaskId) -> bool {
        self.state().duties.is_live(task_id)
    }

    /// Whether all tasks are over and the slave knows it.
    pub(super) fn has_nothing_to_do(&self) -> bool {
        let state = self.state();
        state.duties.live().next().is_none() && state.duties.is_all_acknowledged()
    }

    pub(super) fn stop(&self) {
        self.state().is_stopping = true;
        // Full: then it is about to look.
        let _ = self.heard.try_send(Heard::Stop);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state().is_stopping
    }

    pub(super) fn wait_until_acknowledged(&self) {
        let waits = |state: &mut State| !state.duties.is_all_acknowledged();
        // Late or poisoned: there is nothing more to be done.
        drop(
            self.changed
                .wait_timeout_while(self.state(), ACKNOWLEDGE_TIMEOUT, waits),
        );
    }

    fn is_over(&self) -> bool {
        self.state().is_over
    }

    /// Connects, and says what the slave has to know first.
    fn subscribe(&self) -> io::Result<UnixStream> {
        let stream = connect(&self.config.socket)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let mut state = self.state();
        let tasks = state.duties.unheard().take(NAMED_MAX);
        let tasks = tasks.map(|(id, ended)| (id.clone(), ended)).collect();
        let subscribe = ExecutorToSlave::Subscribe {
            framework_id: self.config.framework_id,
            executor_id: self.config.executor_id.clone(),
            made: state.duties.made(),
            tasks,
        };
        state.stream = Some(stream.try_clone()?);
        let unacknowledged = state.duties.unacknowledged().cloned();
        let updates: Vec<_> = unacknowledged.map(ExecutorToSlave::Update).collect();
        let is_said = state.say(&subscribe) && updates.iter().all(|it| state.say(it));
        match is_said {
            true => Ok(stream),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl State {
    /// False if the slave is away.
    fn say(&mut self, message: &ExecutorToSlave) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        self.frame.clear();
        let is_said =
            encode(message, &mut self.frame).is_ok() && stream.write_all(&self.frame).is_ok();
        if !is_said {
            // Half a message may be out. The thread that reads notices, and dials anew.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            self.stream = None;
        }
        is_said
    }
}

/// A status made now.
pub(super) fn status(task_id: TaskId, state: TaskState) -> TaskStatus {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX));
    TaskStatus::new(task_id, state, Source::Executor, Timestamp(micros))
}

/// The thread that dials and reads. Ended when dropped.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let own = Arc::clone(&shared);
        let body = move || keep_connected(&own);
        let thread = thread::Builder::new()
            .name("executor-link".into())
            .spawn(body)?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_over = true;
        if let Some(stream) = state.stream.take() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        // It may be about to tell what nobody hears any more: then it is left to the end of the process.
        if let Some(thread) = self.thread.take().filter(JoinHandle::is_finished) {
            let _ = thread.join();
        }
    }
}

fn keep_connected(shared: &Shared) {
    let mut away_since = Instant::now();
    let mut pause = RETRY_MIN;
    while !shared.is_over() {
        match shared.subscribe() {
            Ok(stream) => {
                if listen(shared, stream) {
                    away_since = Instant::now();
                    pause = RETRY_MIN;
                }
                shared.state().stream = None;
                if shared.is_over() || shared.heard.send(Heard::Disconnected).is_err() {
                    return;
                }
            }
            Err(error) => {
                if away_since.elapsed() >= shared.config.reconnect_timeout {
                    let path = shared.config.socket.display().to_string();
                    let why = error.to_string();
                    let _ = shared.heard.send(Heard::SlaveGone { path, why });
                    return;
                }
            }
        }
        let state = shared.state();
        let waits = |state: &mut State| !state.is_over;
        drop(shared.changed.wait_timeout_while(state, pause, waits));
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Until the connection ends. Whether the slave has said anything.
fn listen(shared: &Shared, mut stream: UnixStream) -> bool {
    let mut frames = FrameBuffer::new();
    let mut read = vec![0; READ_BYTES];
    let mut has_spoken = false;
    loop {
        match stream.read(&mut read) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return has_spoken,
            Ok(count) => frames.push(&read[..count]),
        }
        // A frame that is none is the end of the connection: the next one begins anew.
        while let Ok(message) = frames.next_frame::<SlaveToExecutor>() {
            let Some(message) = message else { break };
            has_spoken = true;
            if let SlaveToExecutor::Acknowledged { number } = message {
                shared.state().duties.on_acknowledged(number);
                shared.changed.notify_all();
                continue;
            }
            // Here, and not when it is looked at: the next subscription has to name it, or a new slave says
            // that it was dropped, and it would run all the same.
            let is_repeated = match &message {
                SlaveToExecutor::Launch(task) => !shared.is_new(&task.task_id),
                _ => false,
            };
            if is_repeated {
                continue;
            }
            if shared.heard.send(Heard::Message(message)).is_err() {
                return has_spoken;
            }
        }
        if frames.next_frame::<SlaveToExecutor>().is_err() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return has_spoken;
        }
    }
}

/// A path that is too long for an address is taken through the open directory.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return UnixStream::connect(path);
    };
    if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
        return UnixStream::connect(path);
    }
    let folder = File::open(folder)?;
    let short = Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name);
    UnixStream::connect(short)
}
