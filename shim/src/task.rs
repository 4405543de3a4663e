//! From a request to a running task: what happens between fork and `execve`, in a copy of the shim.
//!
//! ```text
//! shim: [user namespace] [process namespace, its first process] fork ─► groups ─► session, output ─► namespaces,
//!       mounts ─► bounding set ─► user ─► capabilities, Landlock, filter ─► execve
//! ```
//! The copy enters the control groups before anything of the task's choosing happens, so no code of
//! the user ever runs outside of its limits. Why it failed comes back through a pipe that `execve`
//! closes.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::SigSet;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, setgid, setgroups,
    setsid, setuid,
};

use crate::confine::{self, Part};
use crate::fork::fork_alone;
use crate::init::{self, Init};
use crate::logs::LogFile;
use crate::request::{Account, Failure, Request, step};

/// Everything but `execve` is done.
const READY: u8 = b'R';
/// The longest account of a failure: a step with a path.
const FAILURE_BYTES_MAX: u64 = 12 << 10;
/// Exit code of a copy that failed; nobody sees it.
const EXIT_FAILED: i32 = 125;

/// One of the two outputs of a task.
#[derive(Debug)]
pub(crate) struct Output {
    /// None once every writer has closed it.
    pub(crate) pipe: Option<PipeReader>,
    pub(crate) log: LogFile,
}

/// A task that runs.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) main: Pid,
    /// Of its process namespace, if it has one.
    pub(crate) init: Option<Init>,
    pub(crate) outputs: [Output; 2],
}

impl Task {
    pub(crate) fn init_pid(&self) -> Option<Pid> {
        self.init.as_ref().map(|init| init.pid)
    }
}

/// Starts the task; blocks until it runs or has failed.
pub(crate) fn start(request: &Request, filter: &[u8]) -> Result<Task, Failure> {
    // First, so that it holds no end of a pipe that is made here.
    let init = match request.confinement.has(Part::Pid) {
        true => Some(init::start()?),
        false => None,
    };
    let (stdout, stdout_end) = output(request, "stdout", request.stdout_bytes_max)?;
    let (stderr, stderr_end) = output(request, "stderr", request.stderr_bytes_max)?;
    let (mut answer, answer_end) = step("make a pipe", io::pipe())?;
    let main = match step("fork", fork_alone())? {
        ForkResult::Child => {
            let Err(failure) = become_task(request, filter, &stdout_end, &stderr_end, &answer_end);
            // If the shim is gone as well nobody wants to know.
            let _ = serde_json::to_writer(&answer_end, &failure);
            std::process::exit(EXIT_FAILED);
        }
        ForkResult::Parent { child } => child,
    };
    drop((stdout_end, stderr_end, answer_end));
    let mut bytes = Vec::new();
    let heard = answer
        .by_ref()
        .take(FAILURE_BYTES_MAX)
        .read_to_end(&mut bytes);
    step("listen to the task", heard)?;
    match bytes.as_slice() {
        [READY] => Ok(Task {
            main,
            init,
            outputs: [stdout, stderr],
        }),
        [] => Err(Failure {
            step: Failure::DIED.to_owned(),
            errno: signal_of(main),
            part: None,
        }),
        [READY, failure @ ..] | failure => {
            Err(serde_json::from_slice(failure).unwrap_or(Failure {
                step: "understand the task".to_owned(),
                errno: 0,
                part: None,
            }))
        }
    }
}

/// What ended it; it is dead, for its end of the pipe is closed.
fn signal_of(main: Pid) -> i32 {
    match waitpid(main, None) {
        Ok(WaitStatus::Signaled(_, signal, _)) => signal as i32,
        _ => 0,
    }
}

fn output(request: &Request, name: &str, bytes_max: u64) -> Result<(Output, PipeWriter), Failure> {
    let (pipe, end) = step("make a pipe", io::pipe())?;
    if let Some(account) = &request.account {
        // Otherwise the task could not open its own /dev/stdout.
        step(
            "give a pipe away",
            fchown(&end, Some(Uid::from_raw(account.uid)), None),
        )?;
    }
    let log = LogFile::create(&request.sandbox, name, bytes_max);
    let log = step(
        &format!("create {name} in {}", request.sandbox.display()),
        log,
    )?;
    let pipe = Some(pipe);
    Ok((Output { pipe, log }, end))
}

/// Everything that we and Rust's library have open is closed by `execve`.
fn become_task(
    request: &Request,
    filter: &[u8],
    stdout: &PipeWriter,
    stderr: &PipeWriter,
    mut answer: &PipeWriter,
) -> Result<Infallible, Failure> {
    for procs in &request.groups {
        step(&format!("enter {}", procs.display()), fs::write(procs, "0"))?;
    }
    step("start a session", setsid())?;
    let nothing = step("open /dev/null", File::open("/dev/null"))?;
    step("detach standard input", dup2_stdin(nothing.as_fd()))?;
    step("attach standard output", dup2_stdout(stdout.as_fd()))?;
    step("attach standard error", dup2_stderr(stderr.as_fd()))?;
    // A slave that the kernel is to spare is no reason to spare its tasks. Raising needs no privilege,
    // and a kernel without the file spares nobody.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    confine::enter_namespaces(request)?;
    if let Some(account) = &request.account {
        switch_user(account)?;
    }
    enter(request.workdir())?;
    step("hear signals", SigSet::empty().thread_set_mask())?;
    // Last: what comes before may not be allowed any more.
    confine::give_up_rights(request, filter)?;
    step("report", answer.write_all(&[READY]))?;
    execute(&request.argv, &request.env)
}

/// Becomes the command.
pub(crate) fn execute<'a>(
    argv: &[String],
    env: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Infallible, Failure> {
    let words = argv.split_first().ok_or(io::ErrorKind::InvalidInput);
    let (program, arguments) = step("find the command", words)?;
    // Resets SIGPIPE, which our own runtime ignores; looks in the task's own PATH.
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(env)
        .exec();
    step(Failure::EXEC, Err(error))
}

pub(crate) fn enter(workdir: &Path) -> Result<(), Failure> {
    let entered = std::env::set_current_dir(workdir);
    step(&format!("enter {}", workdir.display()), entered)
}

pub(crate) fn switch_user(account: &Account) -> Result<(), Failure> {
    let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
    step("take the groups of the user", setgroups(&groups))?;
    step(
        "take the group of the user",
        setgid(Gid::from_raw(account.gid)),
    )?;
    step("become the user", setuid(Uid::from_raw(account.uid)))
}
