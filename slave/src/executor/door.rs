//! The door of an executor: a socket in its sandbox, behind which the slave listens.
//!
//! Who may come in: processes of the executor's own container, running as its user. The sandbox is closed to
//! all others; the socket is its user's where that is the slave's own, else everybody's, and who connects
//! is asked for in any case.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meros_slave_core::ContainerId;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, fchmod, umask};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::Sessions;
use super::pace::Pace;
use crate::container::Container;

/// The name of the socket in the sandbox.
pub(crate) const SOCKET: &str = "executor.sock";
/// Connections of one executor at one time: the one it had, the one it makes, and room for a mistake.
const CONNECTIONS_MAX: u32 = 4;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 8;
/// After the kernel has refused to accept: it is short of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// After each connection, let in or not: to look whose it is costs us more than it costs to connect.
const NEXT_PAUSE: Duration = Duration::from_millis(10);
/// So long what the dead have sent is heard.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Those who came in by one door. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Callers {
    room: Arc<Semaphore>,
    /// Set when those who are left have to go.
    over: Arc<watch::Sender<bool>>,
}

impl Callers {
    /// Nobody came yet.
    pub(crate) fn new() -> Self {
        Self {
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX as usize)),
            over: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Returns when all have gone; who stays too long is sent away. Their container has ended, and
    /// nobody is let in any more.
    pub(crate) async fn dismiss(&self) {
        let all = || self.room.acquire_many(CONNECTIONS_MAX);
        if timeout(LAST_WORDS, all()).await.is_err() {
            self.over.send_replace(true);
            // It is never closed.
            drop(all().await);
        }
    }
}

/// A door that nobody has come through yet.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
}

impl Door {
    /// Makes the socket in a sandbox; one that an earlier slave made is replaced. Blocks a little; must be
    /// called in the runtime.
    ///
    /// # Errors
    /// The sandbox is not there, or the executor has put something in the place that cannot be removed.
    pub(crate) fn open(sandbox: &Path, is_own_user: bool) -> io::Result<Self> {
        let path = sandbox.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let fd = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )?;
        // Before it has a name: whoever owns the sandbox could put something else in its place.
        let mode = match is_own_user {
            true => Mode::S_IRUSR | Mode::S_IWUSR,
            false => Mode::from_bits_truncate(0o666),
        };
        fchmod(&fd, mode)?;
        if is_own_user {
            bind_in(&fd, sandbox)?;
        } else {
            bind_for_all(&fd, sandbox)?;
        }
        listen(&fd, Backlog::new(BACKLOG)?)?;
        let listener = UnixListener::from_std(fd.into())?;
        Ok(Self { listener })
    }

    /// Lets processes of the container in until dropped.
    pub(crate) async fn serve(
        self,
        container: ContainerId,
        process: Arc<Container>,
        sessions: Sessions,
        callers: Callers,
    ) {
        let pace = Arc::new(Pace::new());
        loop {
            let Ok(place) = Arc::clone(&callers.room).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%container, %error, "cannot let an executor in, trying again");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if is_of(&stream, &process).await {
                debug!(%container, "executor connected");
                let over = callers.over.subscribe();
                let session = sessions.serve(container, stream, Arc::clone(&pace), over);
                tokio::spawn(async move {
                    session.await;
                    drop(place);
                });
            } else {
                warn!(%container, "somebody else at the door of an executor");
            }
            sleep(NEXT_PAUSE).await;
        }
    }
}

/// Binds without the mask of the process, which would take rights from the socket: in a thread that has its
/// own. To change the mode by path afterwards would be a way to have us change another file's.
fn bind_for_all(fd: &OwnedFd, sandbox: &Path) -> io::Result<()> {
    std::thread::scope(|scope| -> io::Result<()> {
        let bind = move || -> io::Result<()> {
            unshare(CloneFlags::CLONE_FS)?;
            umask(Mode::empty());
            bind_in(fd, sandbox)
        };
        let thread = std::thread::Builder::new().name("door".into());
        let bound = thread.spawn_scoped(scope, bind)?.join();
        bound.unwrap_or_else(|_| Err(io::Error::other("the thread that binds panicked")))
    })
}

/// The address of a socket may have 108 bytes, a data directory more: so it is named through the open
/// directory.
fn bind_in(fd: &OwnedFd, sandbox: &Path) -> io::Result<()> {
    let folder = File::open(sandbox)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    let mut attempts = 2;
    loop {
        match bind(fd.as_raw_fd(), &UnixAddr::new(path.as_str())?) {
            Err(Errno::EADDRINUSE) if attempts > 0 => {
                attempts -= 1;
                let _ = std::fs::remove_file(sandbox.join(SOCKET));
            }
            done => return Ok(done?),
        }
    }
}

async fn is_of(stream: &UnixStream, process: &Arc<Container>) -> bool {
    let Some(pid) = stream.peer_cred().ok().and_then(|it| it.pid()) else {
        return false;
    };
    let process = Arc::clone(process);
    // An error is a runtime that shuts down.
    spawn_blocking(move || process.has_process(pid))
        .await
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode_of_socket(is_own_user: bool) -> u32 {
        let dir = tempfile::tempdir().unwrap();
        let _door = Door::open(dir.path(), is_own_user).unwrap();
        let found = std::fs::symlink_metadata(dir.path().join(SOCKET)).unwrap();
        found.permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_mask_of_the_process_takes_nothing_from_the_socket() {
        assert_eq!(mode_of_socket(false), 0o666);
        assert_eq!(mode_of_socket(true), 0o600);
    }

    #[tokio::test]
    async fn who_stays_too_long_is_sent_away() {
        let callers = Callers::new();
        callers.dismiss().await;
        assert!(!*callers.over.borrow());

        let place = Arc::clone(&callers.room).acquire_owned().await.unwrap();
        let mut over = callers.over.subscribe();
        let caller = tokio::spawn(async move {
            over.wait_for(|over| *over).await.unwrap();
            drop(place);
        });
        callers.dismiss().await;
        caller.await.unwrap();
    }
}
