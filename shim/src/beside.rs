//! Commands that run beside the task for a moment: checks of the task, when the slave orders them.
//!
//! A check is a fork of the shim like the task: it enters the task's control groups and namespaces, takes
//! its user, its sandbox and its rights, and executes. So it can do what the task can, sees what the task
//! sees, and is held to the same limits together with it. What a check leaves behind is the task's, and
//! ends with it.
//!
//! Bounds: one of each name at a time, a time for each, [`CHECK_OUTPUT_BYTES_MAX`] of output kept; more is
//! read and thrown away, so that no check waits for a full pipe.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{ForkResult, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, setsid};

use crate::confine;
use crate::files::ExitStatus;
use crate::fork::fork_alone;
use crate::frames::{CheckEnd, Told};
use crate::request::{CheckCommand, Failure, Request, step};
use crate::serve::is_readable;
use crate::task::{enter, execute, switch_user};

/// What is kept of the output of a check: its beginning.
pub const CHECK_OUTPUT_BYTES_MAX: usize = 512;
/// Exit codes of a check that did not run, as shells and container engines have them.
pub(crate) const NOT_PREPARED: i32 = 125;
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// One that runs, or has ended and was not told yet.
#[derive(Debug)]
struct Running {
    check: String,
    number: u64,
    pid: Pid,
    /// None once every writer has closed it.
    output: Option<PipeReader>,
    text: Vec<u8>,
    deadline: Instant,
    end: Option<CheckEnd>,
}

/// Those that run now.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    running: Vec<Running>,
}

impl Checks {
    /// Starts a check. One of the same name that still runs is of a slave that has gone: it is killed.
    pub(crate) fn start(
        &mut self,
        request: &Request,
        filter: &[u8],
        task: Pid,
        (check, number): (String, u64),
        timeout: Duration,
    ) -> Result<(), Failure> {
        self.running.retain(|running| {
            let is_old = running.check == check;
            if is_old {
                running.kill();
            }
            !is_old
        });
        let command = request.checks.get(&check);
        let command = step("find the check", command.ok_or(io::ErrorKind::InvalidInput))?;
        let (output, end) = step("make a pipe", io::pipe())?;
        if let Some(account) = &request.account {
            let given = fchown(&end, Some(Uid::from_raw(account.uid)), None);
            step("give a pipe away", given)?;
        }
        let pid = match step("fork", fork_alone())? {
            ForkResult::Child => {
                let Err(failure) = become_check(request, filter, task, command, &end);
                report(&failure)
            }
            ForkResult::Parent { child } => child,
        };
        self.running.push(Running {
            check,
            number,
            pid,
            output: Some(output),
            text: Vec::new(),
            deadline: Instant::now() + timeout,
            end: None,
        });
        Ok(())
    }

    /// A child has ended: one of these, or anybody's.
    pub(crate) fn on_end(&mut self, pid: Pid, status: ExitStatus) {
        let mut all = self.running.iter_mut();
        if let Some(running) = all.find(|running| running.pid == pid) {
            let end = match status {
                ExitStatus::Exited(code) => CheckEnd::Exited(code),
                ExitStatus::Signaled(signal) => CheckEnd::Signaled(signal),
            };
            running.end.get_or_insert(end);
        }
    }

    /// Kills those whose time is over, and takes out what has ended, to be told.
    pub(crate) fn take_ended(&mut self, chunk: &mut [u8]) -> Vec<Told> {
        let now = Instant::now();
        for running in &mut self.running {
            if running.end.is_none() && running.deadline <= now {
                running.kill();
                running.end = Some(CheckEnd::TimedOut);
            }
        }
        let ended = self.running.extract_if(.., |running| running.end.is_some());
        ended.filter_map(|running| running.told(chunk)).collect()
    }

    /// What they have written.
    pub(crate) fn read(&mut self, chunk: &mut [u8]) {
        self.running.iter_mut().for_each(|it| it.read(chunk));
    }

    pub(crate) fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let open = self.running.iter();
        open.filter_map(|it| Some(it.output.as_ref()?.as_fd()))
    }

    /// When the next one has had its time.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.running.iter().map(|running| running.deadline).min()
    }
}

impl Running {
    /// It leads a session of its own, unless it has not got so far. Reaped like all children.
    fn kill(&self) {
        for target in [-self.pid.as_raw(), self.pid.as_raw()] {
            // An error is one that has ended.
            let _ = kill(Pid::from_raw(target), Signal::SIGKILL);
        }
    }

    /// One chunk at the most, of which the beginning of all is kept.
    fn read(&mut self, chunk: &mut [u8]) {
        let Some(output) = self.output.as_mut().filter(|it| is_readable(it)) else {
            return;
        };
        match output.read(chunk) {
            Ok(read @ 1..) => {
                let room = CHECK_OUTPUT_BYTES_MAX.saturating_sub(self.text.len());
                self.text.extend_from_slice(&chunk[..read.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Closed, or of no use.
            Ok(0) | Err(_) => self.output = None,
        }
    }

    /// The last word; none if it has not ended.
    fn told(mut self, chunk: &mut [u8]) -> Option<Told> {
        // What it wrote before it ended is in the pipe.
        self.read(chunk);
        let output = String::from_utf8_lossy(&self.text).into_owned();
        Some(Told::Checked {
            number: self.number,
            end: self.end?,
            output,
        })
    }
}

/// In the copy. Everything that we and Rust's library have open is closed by `execve`.
fn become_check(
    request: &Request,
    filter: &[u8],
    task: Pid,
    command: &CheckCommand,
    output: &PipeWriter,
) -> Result<Infallible, Failure> {
    step("attach standard output", dup2_stdout(output.as_fd()))?;
    step("attach standard error", dup2_stderr(output.as_fd()))?;
    for procs in &request.groups {
        step(&format!("enter {}", procs.display()), fs::write(procs, "0"))?;
    }
    step("start a session", setsid())?;
    let nothing = step("open /dev/null", File::open("/dev/null"))?;
    step("detach standard input", dup2_stdin(nothing.as_fd()))?;
    // As for the task.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    confine::join_namespaces(request, task)?;
    if let Some(account) = &request.account {
        switch_user(account)?;
    }
    enter(request.workdir())?;
    step("hear signals", SigSet::empty().thread_set_mask())?;
    confine::give_up_rights(request, filter)?;
    let env = request.env.iter().chain(&command.env);
    execute(&command.argv, env)
}

/// What a check says that could not run.
fn report(failure: &Failure) -> ! {
    let why = io::Error::from_raw_os_error(failure.errno);
    eprintln!("failed to {}: {why}", failure.step);
    std::process::exit(exit_code_of(failure))
}

/// The exit code of what could not run beside the task.
pub(crate) fn exit_code_of(failure: &Failure) -> i32 {
    match failure.step.as_str() {
        Failure::EXEC if failure.errno == Errno::ENOENT as i32 => NOT_FOUND,
        Failure::EXEC => NOT_EXECUTABLE,
        _ => NOT_PREPARED,
    }
}
