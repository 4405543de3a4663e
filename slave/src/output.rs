//! Reading what tasks write, while they run and after.
//!
//! An offset counts the bytes of one output that were kept on disk, from the task's start. Files are
//! rotated when they hold exactly `file_bytes_max`, so after `n` rotations the current file begins at
//! `n * file_bytes_max` and the one before it, if it is there, ends where it begins. The sandbox
//! belongs to the task: nothing in it is trusted, links are not followed, pipes are not opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use meros_slave_core::{ContainerId, TaskKey};
use nix::fcntl::OFlag;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::container::{Container, LOG_FLOOR_BYTES, LogUsage};
use crate::files::read_at;
use crate::sandbox::{Ended, Sandboxes};

/// The most bytes in one answer.
pub(crate) const PIECE_BYTES_MAX: u64 = 1 << 20;
/// The longest that a reader is kept waiting for more.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two looks at a file that a reader waits for: the first and the longest.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(50);
/// A rotation takes microseconds.
const ROTATION_PAUSE: Duration = Duration::from_millis(1);
/// Rotations that may happen under one read before it gives up; each takes half of a log.
const READ_ATTEMPTS: usize = 8;

/// One of a task's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At this offset, or where the kept output begins if that is later.
    Offset(u64),
    /// So many bytes before the end.
    Tail(u64),
}

/// A part of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it begins.
    pub(crate) offset: u64,
    /// Where the output ends so far.
    pub(crate) size: u64,
    pub(crate) bytes: Vec<u8>,
    /// The task has ended and this reaches to the end.
    pub(crate) complete: bool,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("no output of this task is kept here")]
    Unknown,
    #[error("output cannot be read")]
    Io(#[from] io::Error),
}

/// The output of one container, from before its start until its end.
#[derive(Debug)]
pub(crate) struct LiveOutput {
    dir: PathBuf,
    file_bytes_max: u64,
    container: OnceLock<Arc<Container>>,
    ended: watch::Sender<bool>,
}

impl LiveOutput {
    pub(crate) fn attach(&self, container: &Arc<Container>) {
        // Attached once, by the one task that started it.
        let _ = self.container.set(Arc::clone(container));
    }

    fn usage(&self, stream: Stream) -> LogUsage {
        let Some(container) = self.container.get() else {
            return LogUsage::default();
        };
        let (stdout, stderr) = container.log_usage();
        match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        }
    }

    /// How it stands now, to be remembered.
    pub(crate) fn ended(&self) -> Ended {
        Ended {
            stdout_rotations: self.usage(Stream::Stdout).rotations(),
            stderr_rotations: self.usage(Stream::Stderr).rotations(),
            file_bytes_max: self.file_bytes_max,
        }
    }
}

/// Outputs of all tasks on this slave.
#[derive(Debug)]
pub(crate) struct Outputs {
    sandboxes: Sandboxes,
    file_bytes_max: u64,
    live: Mutex<BTreeMap<TaskKey, Arc<LiveOutput>>>,
}

/// Bytes of output after which a file is rotated.
pub(crate) fn file_bytes_max(log_bytes_max: u64) -> u64 {
    log_bytes_max.max(LOG_FLOOR_BYTES) / 2
}

/// Where one output is.
enum Source {
    Live(Arc<LiveOutput>),
    Kept { dir: PathBuf, ended: Option<Ended> },
}

impl Outputs {
    pub(crate) fn new(sandboxes: Sandboxes, log_bytes_max: u64) -> Self {
        Self {
            sandboxes,
            file_bytes_max: file_bytes_max(log_bytes_max),
            live: Mutex::default(),
        }
    }

    /// A container of this task is about to be started.
    pub(crate) fn begin(&self, task: &TaskKey, container: ContainerId) -> Arc<LiveOutput> {
        self.live(task, container, self.file_bytes_max)
    }

    /// A container that an earlier slave started, with the bound of that time.
    pub(crate) fn resume(
        &self,
        task: &TaskKey,
        container: ContainerId,
        log_bytes_max: u64,
    ) -> Arc<LiveOutput> {
        self.live(task, container, file_bytes_max(log_bytes_max))
    }

    fn live(&self, task: &TaskKey, container: ContainerId, file_bytes_max: u64) -> Arc<LiveOutput> {
        let output = Arc::new(LiveOutput {
            dir: self.sandboxes.path(task, container),
            file_bytes_max,
            container: OnceLock::new(),
            ended: watch::Sender::new(false),
        });
        self.live.lock().insert(task.clone(), Arc::clone(&output));
        output
    }

    /// Nothing more will be written; `Ended` is in the sandbox if it could be written.
    pub(crate) fn end(&self, task: &TaskKey, output: &Arc<LiveOutput>) {
        let mut live = self.live.lock();
        if live
            .get(task)
            .is_some_and(|known| Arc::ptr_eq(known, output))
        {
            live.remove(task);
        }
        drop(live);
        output.ended.send_replace(true);
    }

    /// Whether a task has a container, or is about to.
    pub(crate) fn is_live(&self, task: &TaskKey) -> bool {
        self.live.lock().contains_key(task)
    }

    /// Sandboxes that are in use.
    pub(crate) fn live_dirs(&self) -> BTreeSet<PathBuf> {
        self.live
            .lock()
            .values()
            .map(|output| output.dir.clone())
            .collect()
    }

    /// Reads up to `length` bytes; waits up to `wait` for at least one, or for the end.
    pub(crate) async fn read(
        self: &Arc<Self>,
        task: &TaskKey,
        stream: Stream,
        begin: Begin,
        length: u64,
        wait: Duration,
    ) -> Result<Piece, ReadError> {
        let deadline = Instant::now() + wait.min(WAIT_MAX);
        let length = length.min(PIECE_BYTES_MAX);
        let mut delay = POLL_MIN;
        let mut seen = None;
        let source = Arc::new(self.find(task).await.ok_or(ReadError::Unknown)?);
        loop {
            // Before the look at the files: what is written before the end is seen after it.
            let ended = source.has_ended();
            let mark = source.mark(stream);
            if ended || seen != Some(mark) || Instant::now() >= deadline {
                seen = Some(mark);
                let reader = Arc::clone(&source);
                let read = move || reader.read(stream, begin, length);
                let mut piece = spawn_blocking(read).await.map_err(io::Error::other)??;
                let end = piece.offset + piece.bytes.len() as u64;
                piece.complete = ended && end >= piece.size;
                if !piece.bytes.is_empty() || ended || length == 0 || Instant::now() >= deadline {
                    return Ok(piece);
                }
            }
            tokio::select! {
                () = source.end() => {}
                () = sleep(delay.min(deadline.saturating_duration_since(Instant::now()))) => {}
            }
            delay = (delay * 2).min(POLL_MAX);
        }
    }

    async fn find(self: &Arc<Self>, task: &TaskKey) -> Option<Source> {
        if let Some(live) = self.live.lock().get(task) {
            return Some(Source::Live(Arc::clone(live)));
        }
        let (outputs, task) = (Arc::clone(self), task.clone());
        let latest = spawn_blocking(move || outputs.sandboxes.latest(&task))
            .await
            .ok()??;
        Some(Source::Kept {
            dir: latest.0,
            ended: latest.1,
        })
    }
}

impl Source {
    fn dir(&self) -> &Path {
        match self {
            Self::Live(live) => &live.dir,
            Self::Kept { dir, .. } => dir,
        }
    }

    fn has_ended(&self) -> bool {
        match self {
            Self::Live(live) => *live.ended.borrow(),
            Self::Kept { .. } => true,
        }
    }

    async fn end(&self) {
        match self {
            Self::Live(live) => {
                // We hold the sender, so there is an end to wait for.
                let _ = live.ended.subscribe().wait_for(|ended| *ended).await;
            }
            Self::Kept { .. } => {}
        }
    }

    /// Changes whenever there is something new to read.
    fn mark(&self, stream: Stream) -> (u64, u64) {
        let metadata = std::fs::symlink_metadata(self.dir().join(stream.name()));
        metadata.map_or((0, 0), |metadata| (metadata.ino(), metadata.len()))
    }

    /// How often it was rotated; none while it is being rotated.
    fn rotations(&self, stream: Stream) -> Option<u64> {
        match self {
            Self::Live(live) => {
                let usage = live.usage(stream);
                usage.steps.is_multiple_of(2).then(|| usage.rotations())
            }
            Self::Kept {
                ended: Some(ended), ..
            } => Some(match stream {
                Stream::Stdout => ended.stdout_rotations,
                Stream::Stderr => ended.stderr_rotations,
            }),
            // The machine crashed, so nobody knows how many there were: count from what is kept.
            Self::Kept { dir, ended: None } => {
                Some(u64::from(dir.join(format!("{}.1", stream.name())).exists()))
            }
        }
    }

    fn read(&self, stream: Stream, begin: Begin, length: u64) -> io::Result<Piece> {
        let name = stream.name();
        for _ in 0..READ_ATTEMPTS {
            let Some(rotations) = self.rotations(stream) else {
                std::thread::sleep(ROTATION_PAUSE);
                continue;
            };
            let current = open_log(&self.dir().join(name))?;
            let before = match rotations {
                0 => None,
                _ => open_log(&self.dir().join(format!("{name}.1")))?,
            };
            if self.rotations(stream) == Some(rotations) {
                let file_bytes_max = self.file_bytes_max(before.as_ref());
                return Files {
                    current,
                    before,
                    rotations,
                    file_bytes_max,
                }
                .read(begin, length);
            }
        }
        Err(io::Error::other("it is rotated faster than it can be read"))
    }

    fn file_bytes_max(&self, before: Option<&File>) -> u64 {
        match self {
            Self::Live(live) => live.file_bytes_max,
            Self::Kept {
                ended: Some(ended), ..
            } => ended.file_bytes_max,
            Self::Kept { ended: None, .. } => before.map_or(0, length_of),
        }
    }
}

/// The two files of one output, opened between the same rotations.
struct Files {
    current: Option<File>,
    before: Option<File>,
    rotations: u64,
    file_bytes_max: u64,
}

impl Files {
    fn read(&self, begin: Begin, length: u64) -> io::Result<Piece> {
        let base = self.rotations.saturating_mul(self.file_bytes_max);
        let size = base + self.current.as_ref().map_or(0, length_of);
        let oldest = match &self.before {
            Some(_) => base.saturating_sub(self.file_bytes_max),
            None => base,
        };
        let wanted = match begin {
            Begin::Offset(offset) => offset,
            Begin::Tail(bytes) => size.saturating_sub(bytes),
        };
        let mut offset = wanted.max(oldest);
        let mut bytes = Vec::new();
        if let Some(before) = self.before.as_ref().filter(|_| offset < base) {
            let room = length.min(base - offset);
            bytes = read_at(before, offset - oldest, room)?;
            if bytes.is_empty() && room > 0 {
                // The task cut its own log short.
                offset = base;
            }
        }
        let at = offset + bytes.len() as u64;
        if let Some(current) = self.current.as_ref().filter(|_| at >= base) {
            bytes.append(&mut read_at(
                current,
                at - base,
                length - bytes.len() as u64,
            )?);
        }
        Ok(Piece {
            offset,
            size,
            bytes,
            complete: false,
        })
    }
}

fn length_of(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// A regular file, or nothing.
fn open_log(path: &Path) -> io::Result<Option<File>> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A link that the task put there.
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::{FrameworkId, TaskId};

    use super::*;

    const FILE: u64 = 2_048;

    fn key() -> TaskKey {
        (FrameworkId(1), TaskId::new("t").unwrap())
    }

    struct Fixture {
        _dir: tempfile::TempDir,
        outputs: Arc<Outputs>,
        sandbox: PathBuf,
        container: ContainerId,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = Sandboxes::below(dir.path().join("sandboxes"));
        let container = ContainerId {
            incarnation: 1,
            number: 1,
        };
        let sandbox = sandboxes.create(&key(), container).unwrap();
        let outputs = Arc::new(Outputs::new(sandboxes, 2 * FILE));
        Fixture {
            _dir: dir,
            outputs,
            sandbox,
            container,
        }
    }

    impl Fixture {
        fn ended(&self, rotations: u64) {
            let ended = Ended {
                stdout_rotations: rotations,
                stderr_rotations: 0,
                file_bytes_max: FILE,
            };
            self.outputs
                .sandboxes
                .finish(&key(), self.container, &ended)
                .unwrap();
        }

        async fn read(&self, begin: Begin, length: u64) -> Piece {
            let wait = Duration::ZERO;
            self.outputs
                .read(&key(), Stream::Stdout, begin, length, wait)
                .await
                .unwrap()
        }
    }

    fn piece(offset: u64, size: u64, bytes: &str, complete: bool) -> Piece {
        Piece {
            offset,
            size,
            bytes: bytes.into(),
            complete,
        }
    }

    #[tokio::test]
    async fn an_ended_task_is_read_from_any_offset() {
        let it = fixture();
        std::fs::write(it.sandbox.join("stdout"), "hello").unwrap();
        it.ended(0);
        assert_eq!(
            it.read(Begin::Offset(0), 100).await,
            piece(0, 5, "hello", true)
        );
        assert_eq!(it.read(Begin::Offset(1), 2).await, piece(1, 5, "el", false));
        assert_eq!(it.read(Begin::Offset(5), 9).await, piece(5, 5, "", true));
        assert_eq!(it.read(Begin::Offset(99), 9).await, piece(99, 5, "", true));
        assert_eq!(it.read(Begin::Offset(u64::MAX), 9).await.bytes, b"");
        assert_eq!(it.read(Begin::Tail(2), 9).await, piece(3, 5, "lo", true));
        assert_eq!(
            it.read(Begin::Tail(99), 9).await,
            piece(0, 5, "hello", true)
        );
    }

    #[tokio::test]
    async fn what_was_rotated_away_is_skipped_and_said_so() {
        let it = fixture();
        let old: String = "o".repeat(2_048);
        std::fs::write(it.sandbox.join("stdout.1"), &old).unwrap();
        std::fs::write(it.sandbox.join("stdout"), "new").unwrap();
        it.ended(3);
        let size = 3 * FILE + 3;
        let all = it.read(Begin::Offset(0), PIECE_BYTES_MAX).await;
        assert_eq!(all, piece(2 * FILE, size, &(old + "new"), true));
        let seam = it.read(Begin::Offset(3 * FILE - 1), 2).await;
        assert_eq!(seam, piece(3 * FILE - 1, size, "on", false));
    }

    #[tokio::test]
    async fn a_crashed_slave_leaves_what_is_on_disk() {
        let it = fixture();
        std::fs::write(it.sandbox.join("stdout.1"), "1234").unwrap();
        std::fs::write(it.sandbox.join("stdout"), "56").unwrap();
        assert_eq!(
            it.read(Begin::Offset(0), 100).await,
            piece(0, 6, "123456", true)
        );
    }

    #[tokio::test]
    async fn links_pipes_and_short_files_of_the_task_do_no_harm() {
        let it = fixture();
        let log = it.sandbox.join("stdout");
        std::os::unix::fs::symlink("/etc/passwd", &log).unwrap();
        it.ended(1);
        assert_eq!(it.read(Begin::Offset(0), 100).await.bytes, b"");
        std::fs::remove_file(&log).unwrap();
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(it.read(Begin::Offset(0), 100).await.bytes, b"");
        std::fs::remove_file(&log).unwrap();
        std::fs::write(&log, "x").unwrap();
        std::fs::write(it.sandbox.join("stdout.1"), "").unwrap();
        assert_eq!(
            it.read(Begin::Offset(0), 100).await,
            piece(FILE, FILE + 1, "x", true)
        );
    }

    #[tokio::test]
    async fn a_task_that_is_not_known_has_no_output() {
        let it = fixture();
        let other = (FrameworkId(1), TaskId::new("u").unwrap());
        let read = it
            .outputs
            .read(&other, Stream::Stdout, Begin::Offset(0), 1, Duration::ZERO);
        assert!(matches!(read.await, Err(ReadError::Unknown)));
    }

    #[tokio::test]
    async fn a_reader_waits_for_output_and_for_the_end() {
        let it = fixture();
        let live = it.outputs.begin(&key(), it.container);
        let outputs = Arc::clone(&it.outputs);
        let read = |offset| {
            let outputs = Arc::clone(&outputs);
            let begin = Begin::Offset(offset);
            async move {
                outputs
                    .read(&key(), Stream::Stdout, begin, 9, WAIT_MAX)
                    .await
                    .unwrap()
            }
        };
        let waiting = tokio::spawn(read(0));
        std::fs::write(it.sandbox.join("stdout"), "hi").unwrap();
        assert_eq!(waiting.await.unwrap(), piece(0, 2, "hi", false));
        let waiting = tokio::spawn(read(2));
        it.ended(0);
        it.outputs.end(&key(), &live);
        assert_eq!(waiting.await.unwrap(), piece(2, 2, "", true));
        assert!(it.outputs.live_dirs().is_empty());
    }
}
