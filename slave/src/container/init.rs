//! The launcher stage: a fresh copy of our own program that becomes the task.
//!
//! Why not `fork` and set things up in the child: forking a large process copies its page tables,
//! and between `fork` and `exec` hardly anything is allowed. The slave instead starts a small
//! program with `posix_spawn` (no page tables are copied), and that program, single-threaded and
//! with all of Rust at hand, enters the cgroups, drops privileges and executes the task, so no
//! user code ever runs outside of its limits.
//!
//! Both talk over a socket that is the launcher's standard input: the slave sends one JSON
//! [`InitRequest`] and ends its side; the launcher answers [`READY`] just before `execve`, which
//! closes the socket. A failure is answered as JSON, before or after `READY`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getppid, initgroups, setgid, setsid, setuid};
use serde::{Deserialize, Serialize};

/// The launcher has done everything but `execve`.
pub(crate) const READY: u8 = b'R';
/// The longest request: the command may have 1 MiB, and JSON escapes up to six-fold.
pub(crate) const REQUEST_BYTES_MAX: u64 = 8 << 20;
/// Exit code of a launcher that failed; nobody but a person who runs it by hand sees it.
const EXIT_FAILED: i32 = 125;

/// What the slave wants executed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InitRequest {
    /// The `cgroup.procs` files of the groups to enter.
    pub(crate) groups: Vec<PathBuf>,
    /// Process id of the slave, to notice that it died before we could ask to be told.
    pub(crate) parent: u32,
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) sandbox: PathBuf,
    pub(crate) account: Option<Account>,
}

/// Who the task runs as.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What the launcher could not do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InitFailure {
    /// For people; [`EXEC`](Self::EXEC) is the only one that is told apart.
    pub(crate) step: String,
    /// The kernel's error number, 0 if it was not the kernel.
    pub(crate) errno: i32,
}

impl InitFailure {
    pub(crate) const EXEC: &str = "execute the command";
}

/// Becomes the task that the slave asks for on standard input. For the hidden subcommand
/// `container-init` of the `meros` program, called before anything else is started: the caller
/// must be single-threaded. Ends the process with code 125 on failure, after telling the slave.
pub fn container_init() -> ! {
    match io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(UnixStream::from)
    {
        Ok(mut slave) => {
            let Err(failure) = become_task(&mut slave);
            let answer = serde_json::to_vec(&failure).unwrap_or_default();
            if slave.write_all(&answer).is_err() {
                // Not started by a slave, so a person is reading.
                let reason = io::Error::from_raw_os_error(failure.errno);
                eprintln!(
                    "container-init: cannot {}: {reason}; only a slave can start it",
                    failure.step
                );
            }
        }
        Err(error) => eprintln!("container-init: no standard input: {error}"),
    }
    std::process::exit(EXIT_FAILED);
}

fn become_task(slave: &mut UnixStream) -> Result<Infallible, InitFailure> {
    let mut bytes = Vec::new();
    step(
        "read the request",
        Read::by_ref(slave)
            .take(REQUEST_BYTES_MAX)
            .read_to_end(&mut bytes),
    )?;
    let request: InitRequest = step(
        "parse the request",
        serde_json::from_slice(&bytes).map_err(io::Error::from),
    )?;
    for procs in &request.groups {
        step(&format!("enter {}", procs.display()), fs::write(procs, "0"))?;
    }
    close_inherited(slave);
    step("start a session", setsid())?;
    let nothing = step("open /dev/null", File::open("/dev/null"))?;
    step(
        "detach standard input",
        nix::unistd::dup2_stdin(nothing.as_fd()),
    )?;
    // A core file would fill the sandbox past every bound that we promise.
    step("forbid core files", setrlimit(Resource::RLIMIT_CORE, 0, 0))?;
    if let Some(account) = &request.account {
        switch_user(account)?;
    }
    step(
        &format!("enter {}", request.sandbox.display()),
        std::env::set_current_dir(&request.sandbox),
    )?;
    step("give up privileges for good", prctl::set_no_new_privs())?;
    // After the change of user, which would undo it.
    step(
        "tie the task to the slave",
        prctl::set_pdeathsig(Signal::SIGKILL),
    )?;
    if u32::try_from(getppid().as_raw()) != Ok(request.parent) {
        // The slave died before the kernel knew that we want to be told.
        std::process::exit(EXIT_FAILED);
    }
    let (program, arguments) = step(
        "find the command",
        request
            .argv
            .split_first()
            .ok_or(io::ErrorKind::InvalidInput),
    )?;
    step("report", slave.write_all(&[READY]))?;
    // Resets what our own runtime changed (SIGPIPE, signal mask), looks in the task's own PATH.
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&request.env)
        .exec();
    step(InitFailure::EXEC, Err(error))
}

/// Closes what whoever started the slave forgot to close; a task could read or block it.
/// Everything that we and Rust's library open is closed by `execve` itself.
fn close_inherited(slave: &UnixStream) {
    let entries = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let open: Vec<RawFd> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open {
        if descriptor > nix::libc::STDERR_FILENO && descriptor != slave.as_raw_fd() {
            // The listing itself is among them and closed already.
            let _ = nix::unistd::close(descriptor);
        }
    }
}

fn switch_user(account: &Account) -> Result<(), InitFailure> {
    let gid = Gid::from_raw(account.gid);
    let name = step("read the user name", CString::new(account.name.as_str()))?;
    step("take the groups of the user", initgroups(&name, gid))?;
    step("take the group of the user", setgid(gid))?;
    step("become the user", setuid(Uid::from_raw(account.uid)))
}

fn step<T, E: Into<io::Error>>(step: &str, result: Result<T, E>) -> Result<T, InitFailure> {
    result.map_err(|error| {
        let errno = error.into().raw_os_error().unwrap_or(0);
        InitFailure {
            step: step.into(),
            errno,
        }
    })
}
