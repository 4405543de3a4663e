//! Starting the launcher stage, on a thread of its own.
//!
//! One thread for all containers, for two reasons. Making cgroups and starting processes blocks
//! for milliseconds. And the kernel kills a task whose `PDEATHSIG` is set when the *thread* that
//! started it ends, not the process: threads of a pool end when they are idle, this one lives as
//! long as any container.

use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeWriter, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::{Gid, Uid, User, chown, fchown};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::unix::pipe;

use super::error::StartError;
use super::group::Group;
use super::init::{Account, InitFailure, InitRequest, READY, REQUEST_BYTES_MAX};
use super::isolation::Isolation;
use super::logs::LogFile;
use super::main_process::MainProcess;
use super::spec::{ContainerSpec, DEFAULT_PATH};
use super::tree::{CONTAINER_VARIABLE, Tree};

/// How long the launcher may take to read its request; it does nothing before.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an abandoned launcher may take to die.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer of the launcher: a step and an error number.
const ANSWER_BYTES_MAX: u64 = 4 << 10;

/// How to start the launcher stage: a program that calls [`container_init`](super::container_init)
/// first of all when it is given these arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl Default for Launcher {
    /// Our own program with `container-init`. By way of `/proc`, so that it is the running
    /// version also after the file was replaced.
    fn default() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            args: vec!["container-init".into()],
        }
    }
}

/// A launcher at work, soon the task.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) process: Spawned,
    pub(crate) stdout_log: LogFile,
    pub(crate) stderr_log: LogFile,
    pub(crate) group: Group,
    pub(crate) tree: Tree,
}

/// A launcher process and our ends of everything that leads to it.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) main: MainProcess,
    /// Readable when the process has ended.
    pub(crate) exited: AsyncFd<OwnedFd>,
    pub(crate) channel: tokio::net::UnixStream,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
}

impl Launched {
    /// Undoes the launch, for a caller that has gone. Blocks.
    pub(crate) fn abandon(mut self) {
        self.process.main.kill();
        let survivors = self.tree.kill_until_empty(ABANDON_TIMEOUT);
        // What is left then is left to the next start of the slave.
        let _ = self.group.remove_retrying(survivors);
    }
}

/// Prepares everything and starts the launcher. Blocks; needs a tokio runtime to be entered. On
/// error nothing but the sandbox is left.
pub(crate) fn launch(
    launcher: &Launcher,
    isolation: &Isolation,
    spec: &ContainerSpec,
) -> Result<Launched, StartError> {
    let account = spec.user.as_deref().map(find_account).transpose()?;
    let sandbox_error = |path: &Path| {
        let path = path.to_owned();
        |source| StartError::Sandbox { path, source }
    };
    fs::create_dir_all(&spec.sandbox).map_err(sandbox_error(&spec.sandbox))?;
    if let Some(account) = &account {
        let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
        chown(&spec.sandbox, Some(uid), Some(gid))
            .map_err(io::Error::from)
            .map_err(sandbox_error(&spec.sandbox))?;
    }
    let log = |name: &str, bytes_max| {
        LogFile::create(&spec.sandbox, name, bytes_max)
            .map_err(sandbox_error(&spec.sandbox.join(name)))
    };
    let stdout_log = log("stdout", spec.stdout_bytes_max)?;
    let stderr_log = log("stderr", spec.stderr_bytes_max)?;
    let group = Group::create(isolation, &spec.id, &spec.limits)?;
    let name = format!("{}/{}", isolation.root().label(), spec.id);
    match spawn(launcher, &group, spec, account, &name) {
        Ok(process) => {
            let tree = Tree::new(&group, process.main.pid(), &name);
            Ok(Launched {
                process,
                stdout_log,
                stderr_log,
                group,
                tree,
            })
        }
        Err(source) => {
            // A launcher that was started and then not spoken to has entered nothing.
            let _ = group.remove();
            Err(StartError::Spawn {
                program: launcher.program.clone(),
                source,
            })
        }
    }
}

fn spawn(
    launcher: &Launcher,
    group: &Group,
    spec: &ContainerSpec,
    account: Option<Account>,
    name: &str,
) -> io::Result<Spawned> {
    let (mut channel, launcher_end) = UnixStream::pair()?;
    let (stdout, stdout_writer) = io::pipe()?;
    let (stderr, stderr_writer) = io::pipe()?;
    if let Some(account) = &account {
        // Otherwise the task could not open its own /dev/stdout.
        let own = |writer: &PipeWriter| fchown(writer, Some(Uid::from_raw(account.uid)), None);
        own(&stdout_writer).and(own(&stderr_writer))?;
    }
    let mut env = spec.env.clone();
    env.entry("PATH".into())
        .or_insert_with(|| DEFAULT_PATH.into());
    env.insert(CONTAINER_VARIABLE.into(), name.into());
    let request = InitRequest {
        groups: group.procs_files(),
        parent: std::process::id(),
        argv: spec.command.argv(),
        env,
        sandbox: spec.sandbox.clone(),
        account,
    };
    let request = serde_json::to_vec(&request)?;
    if request.len() as u64 > REQUEST_BYTES_MAX {
        return Err(io::ErrorKind::ArgumentListTooLong.into());
    }
    // Nothing here may need code between fork and exec (a user, a pre_exec hook), or std would
    // fork instead of posix_spawn.
    let child = Command::new(&launcher.program)
        .args(&launcher.args)
        .env_clear()
        .stdin(OwnedFd::from(launcher_end))
        .stdout(Stdio::from(stdout_writer))
        .stderr(Stdio::from(stderr_writer))
        .spawn()?;
    // Killed when dropped, so from here on an error leaves no process.
    let main = MainProcess::new(child);
    let pid = Pid::from_raw(main.pid()).ok_or(io::ErrorKind::InvalidData)?;
    let exited = watch_exit(pidfd_open(pid, PidfdFlags::empty())?)?;
    let stdout = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
    let stderr = pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?;
    channel.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    channel.write_all(&request)?;
    channel.shutdown(Shutdown::Write)?;
    channel.set_nonblocking(true)?;
    let channel = tokio::net::UnixStream::from_std(channel)?;
    Ok(Spawned {
        main,
        exited,
        channel,
        stdout,
        stderr,
    })
}

#[expect(
    deprecated,
    reason = "unsound only for types that can change their descriptor, which an OwnedFd cannot"
)]
fn watch_exit(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// Waits until the launcher has become the task.
pub(crate) async fn await_task(
    channel: tokio::net::UnixStream,
    spec: &ContainerSpec,
) -> Result<(), StartError> {
    let lost = |source| StartError::Setup {
        step: "listen to the launcher".into(),
        source,
    };
    let mut answer = Vec::new();
    channel
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await
        .map_err(lost)?;
    match answer.as_slice() {
        [READY] => Ok(()),
        [] => Err(StartError::LauncherDied {
            ended: String::new(),
        }),
        [READY, failure @ ..] | failure => Err(explain(failure, spec)),
    }
}

fn explain(failure: &[u8], spec: &ContainerSpec) -> StartError {
    let failure: InitFailure = match serde_json::from_slice(failure) {
        Ok(failure) => failure,
        Err(error) => {
            return StartError::Setup {
                step: "understand the launcher".into(),
                source: error.into(),
            };
        }
    };
    let source = io::Error::from_raw_os_error(failure.errno);
    if failure.step != InitFailure::EXEC {
        return StartError::Setup {
            step: failure.step,
            source,
        };
    }
    let command = match &spec.command {
        super::TaskCommand::Shell(_) => "/bin/sh".to_owned(),
        super::TaskCommand::Argv(_) => spec.command.name().to_owned(),
    };
    // ENOENT of a script that does exist means its interpreter.
    let is_missing = !command.contains('/') || !spec.sandbox.join(&command).exists();
    if source.kind() == io::ErrorKind::NotFound && is_missing {
        StartError::CommandNotFound { command }
    } else {
        StartError::CommandNotExecutable { command, source }
    }
}

fn find_account(name: &str) -> Result<Account, StartError> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(Account {
            name: name.into(),
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        }),
        _ => Err(StartError::UserUnknown { user: name.into() }),
    }
}
