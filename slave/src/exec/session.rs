//! One session: bytes from a client to a command and back, until either ends.
//!
//! ```text
//! client ─► frames ─► window of input ─► stdin, terminal      signals ─► shim
//!        ◄─ frames ◄─ a few chunks    ◄─ stdout, stderr, terminal
//! ```
//! A reader of the client that is slow makes the command wait in its own pipe. A command that does not read
//! makes the client wait at the end of its window, which is counted, so that what is not input is never
//! behind it.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use meros_proto::codec::{FrameBuffer, encode};
use meros_proto::message::exec::{
    EXEC_ALIVE_INTERVAL, EXEC_CHUNK_BYTES_MAX, EXEC_SILENCE_MAX, EXEC_STDIN_WINDOW_BYTES, ExecEnd,
    FromExec, ToExec,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep, timeout};

use crate::container::{Exec, ExecInput, ExecOutput, ExecStreams, ExitStatus};

/// Messages that wait for their reader: some chunks of output.
const OUT_MESSAGES: usize = 4;
/// One read of the connection.
const READ_BYTES: usize = 16 << 10;
/// A session in which nothing goes either way for so long has been forgotten.
const IDLE_MAX: Duration = Duration::from_secs(4 * 3600);
/// Between two looks for that.
const IDLE_LOOK: Duration = Duration::from_secs(60);
/// After the command has ended an output that brings nothing for so long is held open by somebody who has left the
/// session.
const DRAIN_PAUSE: Duration = Duration::from_millis(500);
/// What may come after that, so that one who writes on and on does not keep the session: more than pipes that
/// were enlarged have room for.
const DRAIN_BYTES_MAX: u64 = 4 << 20;
/// For the last words.
const LAST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing more is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireError {
    /// The client is gone.
    Gone,
    /// It sent bytes that are no message, or not at this moment.
    BadFrame,
}

/// A client's connection.
pub(super) struct Wire<S> {
    reader: WireReader<S>,
    writer: WriteHalf<S>,
}

struct WireReader<S> {
    stream: ReadHalf<S>,
    frames: FrameBuffer,
}

impl<S: AsyncRead + AsyncWrite> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        let (stream, writer) = split(stream);
        Self {
            reader: WireReader {
                stream,
                frames: FrameBuffer::new(),
            },
            writer,
        }
    }

    /// The next message. May be dropped and asked again.
    pub(super) async fn next(&mut self) -> Result<ToExec, WireError> {
        self.reader.next().await
    }

    /// Says one thing and ends the connection.
    pub(super) async fn say_last(&mut self, told: &FromExec) -> io::Result<()> {
        let mut frame = BytesMut::new();
        encode(told, &mut frame).map_err(io::Error::other)?;
        self.writer.write_all(&frame).await?;
        self.writer.shutdown().await
    }
}

impl<S: AsyncRead> WireReader<S> {
    async fn next(&mut self) -> Result<ToExec, WireError> {
        let mut bytes = [0; READ_BYTES];
        loop {
            match self.frames.next_frame() {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(_) => return Err(WireError::BadFrame),
            }
            match self.stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return Err(WireError::Gone),
                Ok(read) => self.frames.push(&bytes[..read]),
            }
        }
    }
}

/// How a session ended, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// With its command.
    Ended(ExitStatus),
    /// With its container, or because the slave lets go of it.
    ContainerGone,
    /// With its client.
    ClientGone(WireError),
    /// Nothing went either way for too long.
    Idle,
}

/// Sees it through. When this returns the command has ended, or its session is being killed.
pub(super) async fn run<S>(
    wire: Wire<S>,
    mut exec: Exec,
    streams: ExecStreams,
    has_stdin: bool,
) -> SessionEnd
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Wire { reader, writer } = wire;
    let (out, queue) = mpsc::channel(OUT_MESSAGES);
    let mut writing = tokio::spawn(write(writer, queue));
    // Never full: the client is held to the window, and an empty piece counts as one byte.
    let (input, pieces) = mpsc::channel(EXEC_STDIN_WINDOW_BYTES as usize + 1);
    let (signals, mut signalled) = mpsc::channel(1);
    let moved = AtomicU64::new(0);
    let _ = out.send(FromExec::Started).await;
    let ExecStreams {
        stdin,
        stdout,
        stderr,
    } = streams;
    // Closed at once if there is to be none.
    let stdin = has_stdin.then_some(stdin);
    let end = {
        let terminal = stderr.is_none().then_some(&stdout);
        let window = AtomicU64::new(u64::from(EXEC_STDIN_WINDOW_BYTES));
        let mut hear = pin!(hear(reader, input, &window, terminal, signals));
        let mut feed = pin!(feed(stdin, pieces, &window, &out, &moved));
        let mut copy = pin!(copy(&stdout, stderr.as_ref(), &out, &moved));
        let (mut is_fed, mut is_copied, mut status) = (false, false, None);
        let mut alive = interval_at(Instant::now() + EXEC_ALIVE_INTERVAL, EXEC_ALIVE_INTERVAL);
        let mut idle = Idle::new();
        let (mut moved_before, mut moved_at_end) = (0, 0);
        loop {
            if is_copied && let Some(status) = status {
                break SessionEnd::Ended(status);
            }
            tokio::select! {
                biased;
                gone = &mut hear => break SessionEnd::ClientGone(gone),
                _ = &mut writing => break SessionEnd::ClientGone(WireError::Gone),
                ended = exec.wait(), if status.is_none() => match ended {
                    Some(ended) => {
                        status = Some(ended);
                        moved_at_end = moved.load(Ordering::Relaxed);
                        moved_before = moved_at_end;
                    }
                    None => break SessionEnd::ContainerGone,
                },
                () = &mut copy, if !is_copied => is_copied = true,
                () = &mut feed, if !is_fed => is_fed = true,
                Some(signal) = signalled.recv(), if status.is_none() => exec.signal(signal).await,
                () = sleep(DRAIN_PAUSE), if status.is_some() => {
                    let now = moved.load(Ordering::Relaxed);
                    // A full queue waits for the client, and so do we.
                    let is_quiet = now == moved_before && out.capacity() > 0;
                    is_copied |= is_quiet || now - moved_at_end > DRAIN_BYTES_MAX;
                    moved_before = now;
                }
                _ = alive.tick() => {
                    // No room is a sign of life that is on its way.
                    let _ = out.try_send(FromExec::Alive);
                    if idle.is_over(moved.load(Ordering::Relaxed)) {
                        break SessionEnd::Idle;
                    }
                }
            }
        }
    };
    // Whatever the end is, the command is not to wait for its client's last words.
    drop(exec);
    let last = match &end {
        SessionEnd::Ended(ExitStatus::Exited(code)) => ExecEnd::Exited(*code),
        SessionEnd::Ended(ExitStatus::Signaled(signal)) => ExecEnd::Signaled(*signal),
        SessionEnd::ContainerGone => ExecEnd::Cut {
            code: "task_ended".to_owned(),
            message: "the task has ended, or its slave is stopping".to_owned(),
        },
        SessionEnd::Idle => ExecEnd::Cut {
            code: "idle".to_owned(),
            message: format!(
                "nothing was read or written for {} h",
                IDLE_MAX.as_secs() / 3600
            ),
        },
        SessionEnd::ClientGone(_) => {
            writing.abort();
            return end;
        }
    };
    let last = async {
        let _ = out.send(FromExec::Ended(last)).await;
        drop(out);
        let _ = (&mut writing).await;
    };
    if timeout(LAST_TIMEOUT, last).await.is_err() {
        writing.abort();
    }
    end
}

/// Since when nothing has moved.
struct Idle {
    moved: u64,
    since: Instant,
    looked: Instant,
}

impl Idle {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            moved: 0,
            since: now,
            looked: now,
        }
    }

    fn is_over(&mut self, moved: u64) -> bool {
        if self.looked.elapsed() < IDLE_LOOK {
            return false;
        }
        self.looked = Instant::now();
        if moved != self.moved {
            (self.moved, self.since) = (moved, self.looked);
        }
        self.since.elapsed() >= IDLE_MAX
    }
}

/// Hears the client until it is gone.
async fn hear<S: AsyncRead>(
    mut reader: WireReader<S>,
    input: mpsc::Sender<Bytes>,
    window: &AtomicU64,
    terminal: Option<&ExecOutput>,
    signals: mpsc::Sender<i32>,
) -> WireError {
    let mut input = Some(input);
    loop {
        let message = match timeout(EXEC_SILENCE_MAX, reader.next()).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => return error,
            Err(_) => return WireError::Gone,
        };
        match message {
            ToExec::Start(_) => return WireError::BadFrame,
            ToExec::Stdin(bytes) => {
                let size = bytes.len().max(1) as u64;
                // Only we take from it; others give back.
                if window.load(Ordering::Acquire) < size {
                    return WireError::BadFrame;
                }
                window.fetch_sub(size, Ordering::AcqRel);
                if let Some(input) = &input {
                    // Closed when nobody takes input; then it is nobody's.
                    let _ = input.try_send(bytes);
                }
            }
            ToExec::StdinEnd => input = None,
            ToExec::Resize(size) => {
                if let Some(terminal) = terminal {
                    // An error is a terminal that has ended.
                    let _ = terminal.resize(size.rows, size.columns);
                }
            }
            // One at a time: more are not worth their room.
            ToExec::Signal(signal) => {
                let _ = signals.try_send(signal);
            }
            ToExec::Alive => {}
        }
    }
}

/// Gives the command its input, and closes that at its end.
async fn feed(
    stdin: Option<ExecInput>,
    mut pieces: mpsc::Receiver<Bytes>,
    window: &AtomicU64,
    out: &mpsc::Sender<FromExec>,
    moved: &AtomicU64,
) {
    let Some(stdin) = stdin else {
        return;
    };
    while let Some(piece) = pieces.recv().await {
        let size = piece.len().max(1);
        let mut rest = &piece[..];
        while !rest.is_empty() {
            match stdin.write(rest).await {
                Ok(written) => rest = &rest[written..],
                // Nobody reads it any more, and nothing more is taken of the client.
                Err(_) => return,
            }
        }
        moved.fetch_add(size as u64, Ordering::Relaxed);
        window.fetch_add(size as u64, Ordering::AcqRel);
        let taken = u32::try_from(size).unwrap_or(u32::MAX);
        if out.send(FromExec::StdinTaken(taken)).await.is_err() {
            return;
        }
    }
}

/// Copies all outputs to their ends.
async fn copy(
    stdout: &ExecOutput,
    stderr: Option<&ExecOutput>,
    out: &mpsc::Sender<FromExec>,
    moved: &AtomicU64,
) {
    let errors = async {
        if let Some(stderr) = stderr {
            copy_one(stderr, FromExec::Stderr, out, moved).await;
        }
    };
    tokio::join!(copy_one(stdout, FromExec::Stdout, out, moved), errors);
}

async fn copy_one(
    from: &ExecOutput,
    message: fn(Bytes) -> FromExec,
    out: &mpsc::Sender<FromExec>,
    moved: &AtomicU64,
) {
    let mut chunk = vec![0; EXEC_CHUNK_BYTES_MAX];
    loop {
        match from.read(&mut chunk).await {
            Ok(read @ 1..) => {
                let bytes = Bytes::copy_from_slice(&chunk[..read]);
                if out.send(message(bytes)).await.is_err() {
                    return;
                }
                moved.fetch_add(read as u64, Ordering::Relaxed);
            }
            Ok(0) | Err(_) => return,
        }
    }
}

/// Writes what is queued, and ends the connection when nothing more comes.
async fn write<S: AsyncWrite>(mut writer: WriteHalf<S>, mut queue: mpsc::Receiver<FromExec>) {
    let mut frame = BytesMut::new();
    while let Some(message) = queue.recv().await {
        frame.clear();
        if encode(&message, &mut frame).is_err() || writer.write_all(&frame).await.is_err() {
            return;
        }
        if queue.is_empty() && writer.flush().await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}
