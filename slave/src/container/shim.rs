//! The shim of a container, as the slave knows it: a program to start, a folder, a connection.
//!
//! What goes wrong on the connection is one thing, [`Heard::Lost`]: a shim does not end before its
//! container, except when it crashes or is killed.

use std::ffi::CStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use meros_shim::{Exit, Frames, Order, REQUEST, REQUEST_BYTES_MAX, Request, SOCKET, STATE, Told};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::seccomp::default_filter;

/// How long a shim may take to kill what is left and to write the rest of the output, by its own
/// bounds.
const FINISH_TIMEOUT: Duration = Duration::from_secs(75);
/// Enough for everything that is ever told at one time.
const READ_BYTES: usize = 4 << 10;
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/meros-shim"));

/// The program, in memory: it needs no file that could be missing, replaced or on a disk that allows
/// no programs, and all shims share its pages.
#[derive(Debug)]
pub(crate) struct ShimProgram {
    file: OwnedFd,
    /// What tasks may ask of the kernel; every shim has it as its standard output.
    filter: Option<OwnedFd>,
}

impl ShimProgram {
    pub(crate) fn load() -> io::Result<Self> {
        let filter = default_filter();
        let filter = filter.map(|bytes| seal(c"meros-filter", &bytes));
        Ok(Self {
            file: seal(c"meros-shim", PROGRAM)?,
            filter: filter.transpose()?,
        })
    }

    /// Starts it in a folder with a request, and connects. Blocks.
    pub(crate) fn start(&self, folder: &Folder) -> io::Result<(Child, UnixStream)> {
        let (_open, path) = folder.place(SOCKET)?;
        let listener = UnixListener::bind(path)?;
        let filter = match &self.filter {
            Some(filter) => Stdio::from(filter.try_clone()?),
            None => Stdio::null(),
        };
        let id = folder.path.file_name().unwrap_or_default();
        // Nothing here may need code between fork and exec (a user, a pre_exec hook), or std would
        // fork the whole slave instead of posix_spawn.
        let mut child = Command::new(self.path())
            .arg0("meros-shim")
            .arg(id)
            .current_dir(&folder.path)
            .env_clear()
            .stdin(OwnedFd::from(listener))
            .stdout(filter)
            .stderr(Stdio::null())
            .spawn()?;
        match folder.connect() {
            Ok(stream) => Ok((child, stream)),
            Err(error) => {
                kill(&mut child);
                Err(error)
            }
        }
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// In memory, and never to be changed: a task that runs as root could otherwise write into the program
/// of all others.
fn seal(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(name, flags)?);
    file.write_all(bytes)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// What a container keeps outside of its sandbox, out of the task's reach.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it and puts the request there.
    pub(crate) fn create(&self, request: &Request) -> io::Result<()> {
        let bytes = serde_json::to_vec(request)?;
        if bytes.len() as u64 > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::ArgumentListTooLong.into());
        }
        if let Some(above) = self.path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(above)?;
        }
        DirBuilder::new().mode(0o700).create(&self.path)?;
        self.write(REQUEST, &bytes)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(self.path.join(name))?.write_all(bytes)
    }

    /// Something that was written as JSON; none if it is not there, or is not whole.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let mut bytes = Vec::new();
        let file = File::open(self.path.join(name)).ok()?;
        file.take(REQUEST_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        meros_shim::read_exit(&self.path)
    }

    pub(crate) fn state_file(&self) -> Option<File> {
        File::open(self.path.join(STATE)).ok()
    }

    /// A folder without a request is none of a container.
    pub(crate) fn unname(&self) -> io::Result<()> {
        match fs::remove_file(self.path.join(REQUEST)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Gone already counts as removed.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A way to something in it of a few bytes: the address of a socket may have 108, a data directory more.
    /// Good as long as the folder is kept open.
    pub(crate) fn place(&self, name: &str) -> io::Result<(File, String)> {
        let folder = File::open(&self.path)?;
        let path = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
        Ok((folder, path))
    }

    /// Connects to a shim; also if it is too busy to notice.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        let (_open, path) = self.place(SOCKET)?;
        UnixStream::connect(path)
    }
}

/// What a shim has said.
#[derive(Debug)]
pub(crate) enum Heard {
    Told(Told),
    /// It is gone, or does not speak our language.
    Lost,
}

/// A shim and the connection to it.
#[derive(Debug)]
pub(crate) struct Shim {
    /// None if an earlier slave started it.
    child: Option<Child>,
    stream: tokio::net::UnixStream,
    frames: Frames,
}

impl Shim {
    /// Starts it in its folder. Blocks; a tokio runtime must be entered.
    pub(crate) fn spawn(program: &ShimProgram, folder: &Folder) -> io::Result<Self> {
        let (mut child, stream) = program.start(folder)?;
        match register(stream) {
            Ok(stream) => Ok(Self {
                child: Some(child),
                stream,
                frames: Frames::default(),
            }),
            Err(error) => {
                kill(&mut child);
                Err(error)
            }
        }
    }

    /// One that an earlier slave started, with what it has said since we connected.
    pub(crate) fn adopted(stream: UnixStream, frames: Frames) -> io::Result<Self> {
        Ok(Self {
            child: None,
            stream: register(stream)?,
            frames,
        })
    }

    /// The next that it says. May be dropped and asked again.
    pub(crate) async fn told(&mut self) -> Heard {
        loop {
            match self.frames.message() {
                Ok(Some(told)) => return Heard::Told(told),
                Ok(None) => {}
                Err(_) => return Heard::Lost,
            }
            let mut bytes = [0; READ_BYTES];
            match self.stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return Heard::Lost,
                Ok(read) => self.frames.push(&bytes[..read]),
            }
        }
    }

    /// Gives it an order, or fails: an order is short, so only one that is lost does not take it at once.
    pub(crate) fn order(&mut self, order: &Order) -> io::Result<()> {
        let line = meros_shim::frame(order);
        match self.stream.try_write(&line)? {
            written if written == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Has it kill what is left and write the rest, and waits for its end. Returns what it says of the
    /// end of the task meanwhile.
    pub(crate) async fn finish(mut self) -> Option<Exit> {
        // An error is a shim that is gone.
        let _ = self
            .stream
            .write_all(&meros_shim::frame(&Order::Finish))
            .await;
        let mut exit = None;
        let until_lost = async {
            while let Heard::Told(told) = self.told().await {
                if let Told::Ended(ended) = told {
                    exit = Some(ended);
                }
            }
        };
        let _ = timeout(FINISH_TIMEOUT, until_lost).await;
        if let Some(mut child) = self.child.take() {
            // Dead by now, or dies of this.
            let _ = spawn_blocking(move || kill(&mut child)).await;
        }
        exit
    }

    /// Leaves it to a later slave, or to itself.
    pub(crate) fn leave(self) {}
}

fn register(stream: UnixStream) -> io::Result<tokio::net::UnixStream> {
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

fn kill(child: &mut Child) {
    // Errors say that it is dead and reaped.
    let _ = child.kill();
    let _ = child.wait();
}

/// A first word of a shim that an earlier slave started.
pub(crate) fn first_word(
    stream: &mut UnixStream,
    frames: &mut Frames,
    patience: Duration,
) -> io::Result<Option<Told>> {
    stream.set_read_timeout(Some(patience))?;
    loop {
        if let Some(told) = frames.message().map_err(|_| io::ErrorKind::InvalidData)? {
            return Ok(Some(told));
        }
        let mut bytes = [0; READ_BYTES];
        match stream.read(&mut bytes)? {
            0 => return Ok(None),
            read => frames.push(&bytes[..read]),
        }
    }
}
