//! A command beside a container's own, with its input and output in our hands.
//!
//! ```text
//! socket in the folder ─► Order::Exec ─► shim forks, sends the ends ─► execve closes the socket ─► [`Exec`]
//!                                                  └── not executed: why, and the socket closes ─► refused
//! ```
//! Dropping an [`Exec`] has its session killed. So does the end of the connection to the shim, which is that
//! of the slave.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use meros_shim::{ExecCommand, FRAME_BYTES_MAX, Failure, Order, exec_socket, frame};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;

use super::report::ExitStatus;
use super::shim::Folder;

/// Commands of one container at one time; its shim has the same bound.
pub const EXECS_MAX: usize = meros_shim::EXECS_MAX;
/// Orders that may wait for the supervisor: for each command a start, an end and some signals.
pub(crate) const EXEC_ORDERS_CAPACITY: usize = 4 * EXECS_MAX;
/// From the order to `execve`; milliseconds unless the host is overloaded.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The most ends that come at once: of input and the two outputs.
const ENDS_MAX: usize = 3;

/// What is to run beside a container's command.
#[derive(Debug, Clone)]
pub struct ExecSpec {
    /// What is executed, its name first; looked up in the task's `PATH` unless it has a `/`.
    pub argv: Vec<String>,
    /// Added to the environment of the container's command.
    pub env: BTreeMap<String, String>,
    /// The lines and columns of its terminal, if it is to have one.
    pub terminal: Option<(u16, u16)>,
}

/// Why a command does not run beside a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// It was started by an earlier release, whose shim would not understand the order.
    #[error(
        "the task was started by an earlier release of this slave, which ran no commands in containers: \
         start the task anew"
    )]
    Unsupported,
    /// There are so many already.
    #[error("{EXECS_MAX} commands run beside this task already: end one, or try again later")]
    Busy,
    /// The order would not fit a line to the shim.
    #[error(
        "the command takes {bytes} bytes as JSON, more than {FRAME_BYTES_MAX}: put it into a file of the sandbox"
    )]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// The container is ending, or its shim does not answer.
    #[error("the task is ending")]
    Ending,
    /// Its shim did not start it in time.
    #[error("the command did not start within {} s: the machine is overloaded, or the task is frozen", START_TIMEOUT.as_secs())]
    TimedOut,
    /// It was not executed.
    #[error("failed to {step}: {source}")]
    NotStarted {
        /// As shells have it: 127 not found, 126 not executable, 125 all else.
        exit_code: i32,
        /// What was tried.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// We could not take part.
    #[error("cannot prepare the streams")]
    Streams(#[from] io::Error),
}

impl ExecError {
    /// Stable, lower case.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unsupported => "exec_unsupported",
            Self::Busy => "exec_busy",
            Self::TooLong { .. } => "exec_command_too_long",
            Self::Ending => "task_ending",
            Self::TimedOut => "exec_timeout",
            Self::NotStarted { .. } => "exec_not_started",
            Self::Streams(_) => "internal",
        }
    }
}

/// For the supervisor of the container, who talks to its shim.
#[derive(Debug)]
pub(crate) enum ExecOrder {
    Start {
        number: u64,
        command: ExecCommand,
        /// Told how it ended; dropped if nobody will ever know.
        end: oneshot::Sender<ExitStatus>,
    },
    Signal {
        number: u64,
        signal: i32,
    },
    End {
        number: u64,
    },
}

impl ExecOrder {
    /// As the shim hears it, and who waits for the end.
    pub(crate) fn into_parts(self) -> (u64, Order, Option<oneshot::Sender<ExitStatus>>) {
        match self {
            Self::Start {
                number,
                command,
                end,
            } => (number, Order::Exec { number, command }, Some(end)),
            Self::Signal { number, signal } => (number, Order::SignalExec { number, signal }, None),
            Self::End { number } => (number, Order::EndExec { number }, None),
        }
    }
}

/// What a command reads: the other end of its standard input, or of its terminal.
#[derive(Debug)]
pub struct ExecInput(pipe::Sender);

impl ExecInput {
    /// Writes some of it, and says how much.
    ///
    /// # Errors
    /// What the kernel says, most often that nobody reads any more.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }
}

/// What a command writes: the other end of one of its outputs, or of its terminal.
#[derive(Debug)]
pub struct ExecOutput(pipe::Receiver);

impl ExecOutput {
    /// Some bytes; 0 at the end, which of a terminal is when nobody has it open any more. May be dropped and
    /// asked again.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            self.0.readable().await?;
            match self.0.try_read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // So ends a terminal.
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Ok(0);
                }
                read => return read,
            }
        }
    }

    /// Gives a terminal a size; those who run in it are told by SIGWINCH.
    ///
    /// # Errors
    /// It is no terminal.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(&self.0, size)?)
    }
}

/// The streams of a command.
#[derive(Debug)]
pub struct ExecStreams {
    /// What it reads.
    pub stdin: ExecInput,
    /// What it writes; all of it if it has a terminal.
    pub stdout: ExecOutput,
    /// What it writes to standard error; none if it has a terminal.
    pub stderr: Option<ExecOutput>,
}

impl ExecStreams {
    fn new(ends: Vec<OwnedFd>, has_terminal: bool) -> io::Result<Self> {
        if has_terminal {
            let one: Result<[OwnedFd; 1], _> = ends.try_into();
            let [terminal] = one.map_err(|_| io::ErrorKind::InvalidData)?;
            fcntl_setfl(&terminal, fcntl_getfl(&terminal)? | OFlags::NONBLOCK)?;
            // There is no type for terminals: of those for pipes nothing but read, write and poll is used.
            let input = pipe::Sender::from_owned_fd_unchecked(terminal.try_clone()?)?;
            let output = pipe::Receiver::from_owned_fd_unchecked(terminal)?;
            return Ok(Self {
                stdin: ExecInput(input),
                stdout: ExecOutput(output),
                stderr: None,
            });
        }
        let three: Result<[OwnedFd; ENDS_MAX], _> = ends.try_into();
        let [stdin, stdout, stderr] = three.map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Self {
            stdin: ExecInput(pipe::Sender::from_owned_fd(stdin)?),
            stdout: ExecOutput(pipe::Receiver::from_owned_fd(stdout)?),
            stderr: Some(ExecOutput(pipe::Receiver::from_owned_fd(stderr)?)),
        })
    }
}

/// A command that runs beside a container's own. Dropping it has its session killed.
#[derive(Debug)]
pub struct Exec {
    end: oneshot::Receiver<ExitStatus>,
    hold: Hold,
}

impl Exec {
    /// Waits for its end; none if the container ends first, or the slave lets go of it. Once it has returned it
    /// must not be asked again; may be dropped and asked again before.
    pub async fn wait(&mut self) -> Option<ExitStatus> {
        let end = (&mut self.end).await.ok();
        self.hold.is_over = true;
        end
    }

    /// Sends a signal to it and its process group.
    pub async fn signal(&self, signal: i32) {
        let number = self.hold.number;
        // The supervisor is gone when the container is.
        let _ = self
            .hold
            .orders
            .send(ExecOrder::Signal { number, signal })
            .await;
    }
}

/// Ends a command when dropped.
#[derive(Debug)]
struct Hold {
    number: u64,
    orders: mpsc::Sender<ExecOrder>,
    is_over: bool,
    /// Given back when the order to end it is on its way, so that the next one comes after it.
    place: Option<OwnedSemaphorePermit>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let number = self.number;
        let (orders, place) = (self.orders.clone(), self.place.take());
        // Without a runtime the slave goes, and the shim sees that itself.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // The supervisor is gone when the container is.
                let _ = orders.send(ExecOrder::End { number }).await;
                drop(place);
            });
        }
    }
}

/// Starts a command, given its number and a place among those of its container.
pub(crate) async fn start(
    folder: &Folder,
    number: u64,
    spec: ExecSpec,
    orders: mpsc::Sender<ExecOrder>,
    place: OwnedSemaphorePermit,
) -> Result<(Exec, ExecStreams), ExecError> {
    let command = ExecCommand {
        argv: spec.argv,
        env: spec.env,
        has_terminal: spec.terminal.is_some(),
    };
    let order = Order::Exec {
        number,
        command: command.clone(),
    };
    let bytes = frame(&order).len();
    if bytes > FRAME_BYTES_MAX {
        return Err(ExecError::TooLong { bytes });
    }
    let socket = Socket::bind(folder, number)?;
    let (end, ended) = oneshot::channel();
    let order = ExecOrder::Start {
        number,
        command,
        end,
    };
    orders.send(order).await.map_err(|_| ExecError::Ending)?;
    // From now on whatever goes wrong ends it.
    let mut exec = Exec {
        end: ended,
        hold: Hold {
            number,
            orders,
            is_over: false,
            place: Some(place),
        },
    };
    let received = async {
        let stream = tokio::select! {
            biased;
            accepted = socket.listener.accept() => accepted?.0,
            // Without having connected: the shim could not even fork, or it is gone.
            end = exec.wait() => return Err(match end {
                Some(_) => not_started(Failure {
                    step: "put the command beside the task".to_owned(),
                    errno: Errno::AGAIN.raw_os_error(),
                    part: None,
                }),
                None => ExecError::Ending,
            }),
        };
        receive(stream, spec.terminal).await
    };
    let received = timeout(START_TIMEOUT, received).await;
    let streams = received.map_err(|_| ExecError::TimedOut)??;
    Ok((exec, streams))
}

/// The ends, and that the command runs.
async fn receive(
    mut stream: UnixStream,
    terminal: Option<(u16, u16)>,
) -> Result<ExecStreams, ExecError> {
    let mut said = Vec::new();
    let mut ends = Vec::new();
    // One message with the ends, unless it has failed before: then only the failure.
    let mut bytes = [0; 1];
    let read = stream
        .async_io(Interest::READABLE, || {
            receive_ends(&stream, &mut bytes, &mut ends)
        })
        .await?;
    let streams = if ends.is_empty() {
        said.extend_from_slice(&bytes[..read]);
        None
    } else {
        let streams = ExecStreams::new(ends, terminal.is_some())?;
        if let Some((rows, columns)) = terminal {
            streams.stdout.resize(rows, columns)?;
            // The command has waited for that.
            stream.write_all(b"+").await?;
        }
        Some(streams)
    };
    let mut rest = [0; 4096];
    while said.len() < FRAME_BYTES_MAX {
        match stream.read(&mut rest).await {
            Ok(read @ 1..) => said.extend_from_slice(&rest[..read]),
            Ok(0) | Err(_) => break,
        }
    }
    if let Ok(failure) = serde_json::from_slice::<Failure>(&said) {
        return Err(not_started(failure));
    }
    streams.ok_or(ExecError::Ending)
}

fn not_started(failure: Failure) -> ExecError {
    ExecError::NotStarted {
        exit_code: exit_code_of(&failure),
        source: io::Error::from_raw_os_error(failure.errno),
        step: failure.step,
    }
}

fn exit_code_of(failure: &Failure) -> i32 {
    let not_found = Errno::NOENT.raw_os_error();
    match failure.step == Failure::EXEC {
        true if failure.errno == not_found => 127,
        true => 126,
        false => 125,
    }
}

/// Whoever writes there is a copy of our shim, before it is anything of the task.
fn receive_ends(
    stream: &UnixStream,
    bytes: &mut [u8],
    ends: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ENDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(stream, &mut into, &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            ends.extend(rights);
        }
    }
    Ok(received.bytes)
}

/// Where the shim connects; removed when dropped.
struct Socket {
    listener: UnixListener,
    folder: Folder,
    name: String,
}

impl Socket {
    fn bind(folder: &Folder, number: u64) -> io::Result<Self> {
        let name = exec_socket(number);
        // Of an earlier slave.
        let _ = fs::remove_file(folder.path().join(&name));
        let (_open, path) = folder.place(&name)?;
        Ok(Self {
            listener: UnixListener::bind(path)?,
            folder: folder.clone(),
            name,
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.folder.path().join(&self.name));
    }
}
