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
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::Sessions;
use crate::container::Container;

/// The name of the socket in the sandbox.
pub(crate) const SOCKET: &str = "executor.sock";
/// Connections of one executor at one time: the one it had, the one it makes, and room for a mistake.
const CONNECTIONS_MAX: usize = 4;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 8;
/// After the kernel has refused to accept: it is short of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

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
        bind_in(&fd, sandbox)?;
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
    ) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%container, %error, "cannot let an executor in, trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if !is_of(&stream, &process) {
                warn!(%container, "somebody else at the door of an executor");
                continue;
            }
            debug!(%container, "executor connected");
            let session = sessions.serve(container, stream);
            tokio::spawn(async move {
                session.await;
                drop(place);
            });
        }
    }
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

fn is_of(stream: &UnixStream, process: &Container) -> bool {
    let peer = stream.peer_cred().ok().and_then(|it| it.pid());
    peer.is_some_and(|pid| process.has_process(pid))
}
