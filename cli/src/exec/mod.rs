//! `meros exec [-it] TASK -- COMMAND`: a command inside of a task's container, with its input, output and exit
//! code here.
//!
//! Exit codes are the command's; 128+n if signal n ended it, 127 if it was not found, 126 if it cannot be
//! executed, 125 if it was not run.

mod dial;
mod terminal;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use meros_proto::codec::{FrameBuffer, encode};
use meros_proto::ids::FrameworkId;
use meros_proto::message::exec::{
    EXEC_ALIVE_INTERVAL, EXEC_CHUNK_BYTES_MAX, EXEC_SILENCE_MAX, EXEC_STDIN_WINDOW_BYTES, ExecEnd,
    FromExec, StartExec, ToExec,
};
use meros_proto::transport::Identity;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split, stderr, stdin, stdout};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, timeout};

use crate::client::{Client, ClusterArgs, IdentityArgs};
use crate::exit::{CliError, Exit, chain};
use crate::logs::{find_task, slave_of};
use crate::output::table::printable;
use crate::run::parse_env;

/// The exit code of what was not run.
pub(super) const NOT_RUN: u8 = 125;
/// So many Ctrl-C are the command's; with one more this ends, and the command is killed.
const INTERRUPTS_PASSED: u32 = 2;
/// From the request to the running command: what a slave takes at the most, and some.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// One read of the connection.
const READ_BYTES: usize = 16 << 10;
/// News of room for input that wait; each stands for a message of ours at least.
const TAKEN_CAPACITY: usize = EXEC_STDIN_WINDOW_BYTES as usize;

/// What `meros exec` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Give it our input; without, its input is empty
    #[arg(long, short)]
    interactive: bool,
    /// Give it a terminal
    #[arg(long, short)]
    tty: bool,
    /// The task's framework, where several have a task of that id
    #[arg(long)]
    framework: Option<FrameworkId>,
    /// A variable for its environment, beside the task's; can be given again
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_env)]
    env: Vec<(String, String)>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    /// The task's id
    task: String,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<Exit, CliError> {
    if args.tty && args.interactive && !terminal::is_terminal() {
        return Err(CliError::usage(
            "the input is no terminal: leave out -t, or do not redirect the input",
        ));
    }
    let identity = args.identity.folder()?;
    let identity = Identity::load(&identity).map_err(|error| CliError::failure(chain(&error)))?;
    let client = Client::new(&args.cluster);
    let task = find_task(&client, &args.task, args.framework)?;
    if task.state.is_terminal() {
        let (id, state) = (&task.task_id, task.state);
        let why = format!("task {id} does not run: it is {state}");
        return Err(CliError::with_code(NOT_RUN, why));
    }
    let slave = slave_of(&client, &task)?;
    let mut env: BTreeMap<String, String> = args.env.iter().cloned().collect();
    if args.tty
        && let Ok(kind) = std::env::var("TERM")
    {
        env.entry("TERM".to_owned()).or_insert(kind);
    }
    let start = StartExec {
        framework_id: task.framework_id,
        task_id: task.task_id,
        argv: args.command.clone(),
        env,
        stdin: args.interactive,
        terminal: args.tty.then(terminal::size),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failure(format!("cannot start the runtime: {error}")))?;
    let ended = runtime.block_on(async {
        let stream = dial::dial(&slave, &identity).await?;
        session(stream, start).await
    });
    // A thread may still wait for a key.
    runtime.shutdown_background();
    ended
}

async fn session<S>(stream: S, start: StartExec) -> Result<Exit, CliError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (has_stdin, has_terminal) = (start.stdin, start.terminal.is_some());
    let (reader, writer) = split(stream);
    let mut to = ToSlave { writer };
    let mut from = FromSlave {
        reader,
        frames: FrameBuffer::new(),
    };
    let listen = |kind| {
        signal(kind)
            .map_err(|error| CliError::failure(format!("cannot listen for signals: {error}")))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let mut quit = listen(SignalKind::quit())?;
    let mut resized = listen(SignalKind::window_change())?;
    to.say(&ToExec::Start(Box::new(start))).await?;
    match timeout(START_TIMEOUT, from.next()).await {
        Ok(Ok(FromExec::Started)) => {}
        Ok(Ok(FromExec::Refused { code, message })) => {
            let why = format!("{} ({})", printable(&message), printable(&code));
            return Err(CliError::with_code(NOT_RUN, why));
        }
        Ok(Ok(FromExec::Ended(end))) => return exit_of(end),
        Ok(Ok(_)) => return Err(broken("it said something else than that it runs")),
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(broken("the command did not start in time")),
    }
    // From here on every way out restores it.
    let raw = (has_terminal && has_stdin).then(terminal::Raw::enter);
    let _raw = raw
        .transpose()
        .map_err(|error| CliError::failure(format!("cannot use the terminal: {error}")))?;
    let (taken, mut room) = mpsc::channel(TAKEN_CAPACITY);
    let mut output = tokio::spawn(from.copy(taken));
    let mut input = stdin();
    let mut chunk = vec![0; EXEC_CHUNK_BYTES_MAX];
    let mut window = EXEC_STDIN_WINDOW_BYTES as usize;
    let mut is_open = has_stdin;
    let mut interrupts = 0;
    let mut alive = interval_at(Instant::now() + EXEC_ALIVE_INTERVAL, EXEC_ALIVE_INTERVAL);
    loop {
        let piece = window.min(chunk.len());
        let message = tokio::select! {
            biased;
            ended = &mut output => {
                return exit_of(ended.map_err(|error| CliError::failure(error.to_string()))??);
            }
            _ = terminate.recv() => return Ok(Exit::Code(128 + 15)),
            _ = hang_up.recv() => return Ok(Exit::Code(128 + 1)),
            _ = quit.recv() => return Ok(Exit::Code(128 + 3)),
            _ = interrupt.recv() => {
                interrupts += 1;
                if interrupts > INTERRUPTS_PASSED {
                    return Ok(Exit::Code(128 + 2));
                }
                ToExec::Signal(2)
            }
            _ = resized.recv(), if has_terminal => ToExec::Resize(terminal::size()),
            Some(taken) = room.recv() => {
                window += taken as usize;
                continue;
            }
            _ = alive.tick() => ToExec::Alive,
            read = input.read(&mut chunk[..piece]), if is_open && piece > 0 => match read {
                Ok(read @ 1..) => {
                    window -= read;
                    ToExec::Stdin(Bytes::copy_from_slice(&chunk[..read]))
                }
                Ok(0) | Err(_) => {
                    is_open = false;
                    ToExec::StdinEnd
                }
            },
        };
        // One that is gone has perhaps said why: its last words are awaited.
        if to.say(&message).await.is_err() {
            let ended = timeout(EXEC_SILENCE_MAX, &mut output).await;
            let ended = ended.map_err(|_| broken("it does not answer"))?;
            return exit_of(ended.map_err(|error| CliError::failure(error.to_string()))??);
        }
    }
}

struct ToSlave<W> {
    writer: W,
}

impl<W: AsyncWrite + Unpin> ToSlave<W> {
    async fn say(&mut self, message: &ToExec) -> Result<(), CliError> {
        let mut frame = BytesMut::new();
        encode(message, &mut frame).map_err(|error| CliError::usage(error.to_string()))?;
        let said = async {
            self.writer.write_all(&frame).await?;
            self.writer.flush().await
        };
        said.await.map_err(|error| broken(&chain(&error)))
    }
}

struct FromSlave<R> {
    reader: R,
    frames: FrameBuffer,
}

impl<R: AsyncRead + Unpin> FromSlave<R> {
    async fn next(&mut self) -> Result<FromExec, CliError> {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let message = self.frames.next_frame();
            if let Some(message) = message.map_err(|error| broken(&chain(&error)))? {
                return Ok(message);
            }
            match timeout(EXEC_SILENCE_MAX, self.reader.read(&mut bytes)).await {
                Ok(Ok(read @ 1..)) => self.frames.push(&bytes[..read]),
                Ok(Ok(0)) => return Err(broken("it ended the connection")),
                Ok(Err(error)) => return Err(broken(&chain(&error))),
                Err(_) => return Err(broken("it is silent")),
            }
        }
    }

    /// Prints what the command writes until it has ended.
    async fn copy(mut self, taken: mpsc::Sender<u32>) -> Result<ExecEnd, CliError> {
        let unwritten =
            |error: std::io::Error| CliError::failure(format!("cannot write the output: {error}"));
        loop {
            match self.next().await? {
                FromExec::Stdout(bytes) => print(stdout(), &bytes).await.map_err(unwritten)?,
                FromExec::Stderr(bytes) => print(stderr(), &bytes).await.map_err(unwritten)?,
                FromExec::StdinTaken(bytes) => {
                    // Gone when we are.
                    let _ = taken.send(bytes).await;
                }
                FromExec::Ended(end) => return Ok(end),
                FromExec::Refused { code, message } => {
                    return Ok(ExecEnd::Cut { code, message });
                }
                FromExec::Started | FromExec::Alive => {}
            }
        }
    }
}

async fn print(mut to: impl AsyncWrite + Unpin, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

fn broken(why: &str) -> CliError {
    CliError::unreachable(format!(
        "the connection to the slave broke ({why}); the command is killed if it ran"
    ))
}

fn exit_of(end: ExecEnd) -> Result<Exit, CliError> {
    let code = |code: i32| u8::try_from(code).unwrap_or(NOT_RUN);
    match end {
        ExecEnd::Exited(exit_code) => Ok(Exit::Code(code(exit_code))),
        ExecEnd::Signaled(signal) => Ok(Exit::Code(code(128 + signal))),
        ExecEnd::NotStarted { exit_code, message } => {
            Err(CliError::with_code(code(exit_code), printable(&message)))
        }
        ExecEnd::Cut { code, message } => {
            let why = format!("{} ({})", printable(&message), printable(&code));
            Err(CliError::with_code(NOT_RUN, why))
        }
    }
}
