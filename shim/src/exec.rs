//! Commands that somebody runs beside the task, with their hands on them: `meros exec`.
//!
//! Like a check such a command is a fork of the shim that becomes as the task is. Its standard input and
//! outputs are pipes, or a terminal, whose other ends go to the slave through a socket in the container's
//! folder ([`exec_socket`]); from then on the shim has no part in what is said. `execve` closes the socket;
//! a [`Failure`] in it says that there was none.
//!
//! A command leads a session of its own, and what is left of that is killed when it ends, when the slave
//! says so or is lost. What has left the session is the task's.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, IoSlice, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::unistd::{
    ForkResult, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, getsid, setsid,
};

use crate::beside::exit_code_of;
use crate::confine;
use crate::files::ExitStatus;
use crate::fork::fork_alone;
use crate::frames::{ExecCommand, Told};
use crate::request::{Failure, Request, step};
use crate::task::{enter, execute, switch_user};

/// Commands of one container at one time; the slave has the same bound.
pub const EXECS_MAX: usize = 8;
/// Rounds of looking for what is left of a session: one that was killed while it forked leaves a child to
/// the next one. A bomb that outruns them is the task's, like all that has left the session.
const ROUNDS: u32 = 32;

/// The socket in the container's folder through which the slave gets the ends of this command.
#[must_use]
pub fn exec_socket(number: u64) -> String {
    format!("exec-{number}")
}

/// One that runs.
#[derive(Debug)]
struct Running {
    number: u64,
    /// Leads its session.
    pid: Pid,
}

/// Those that run now.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    running: Vec<Running>,
}

impl Execs {
    /// Starts a command beside the task.
    pub(crate) fn start(
        &mut self,
        request: &Request,
        filter: &[u8],
        task: Pid,
        number: u64,
        command: &ExecCommand,
    ) -> Result<(), Failure> {
        if self.running.len() >= EXECS_MAX {
            return step("run one more command", Err(io::ErrorKind::QuotaExceeded));
        }
        let socket = UnixStream::connect(exec_socket(number));
        let socket = step("reach the slave", socket)?;
        let pid = match step("fork", fork_alone())? {
            ForkResult::Child => {
                let Err(failure) = become_command(request, filter, task, command, &socket);
                // If the slave is gone as well nobody wants to know.
                let _ = serde_json::to_writer(&socket, &failure);
                std::process::exit(exit_code_of(&failure))
            }
            ForkResult::Parent { child } => child,
        };
        self.running.push(Running { number, pid });
        Ok(())
    }

    /// A child has ended: one of these, or anybody's. What is to be told of it.
    pub(crate) fn on_end(&mut self, pid: Pid, status: ExitStatus) -> Option<Told> {
        let nth = self.running.iter().position(|it| it.pid == pid)?;
        let Running { number, pid } = self.running.swap_remove(nth);
        kill_session(pid);
        Some(Told::Executed { number, status })
    }

    /// Signals a command and its process group.
    pub(crate) fn signal(&self, number: u64, signal: i32) {
        let Ok(signal) = Signal::try_from(signal) else {
            return;
        };
        if let Some(running) = self.running.iter().find(|it| it.number == number) {
            // An error is one that has ended.
            let _ = kill(Pid::from_raw(-running.pid.as_raw()), signal);
        }
    }

    /// Nobody waits for it any more. It is reaped like all children, and its end is not told.
    pub(crate) fn end(&mut self, number: u64) {
        let ended = self.running.extract_if(.., |it| it.number == number);
        ended.for_each(|it| it.kill());
    }

    /// The slave that has started them is gone.
    pub(crate) fn end_all(&mut self) {
        self.running.drain(..).for_each(|it| it.kill());
    }
}

impl Running {
    /// Not reaped yet, so its number is its own. It may not lead a session yet.
    fn kill(&self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        kill_session(self.pid);
    }
}

/// Kills all that have not left a session. Its number is nobody else's as long as it has a member, and we are
/// called when its leader has not been reaped, or was a moment ago.
fn kill_session(leader: Pid) {
    let mut killed = BTreeSet::new();
    for _ in 0..ROUNDS {
        let mut is_one_new = false;
        for member in members(leader) {
            // Fails only if it is dead already; it is still a member until it has been reaped.
            let _ = kill(member, Signal::SIGKILL);
            is_one_new |= killed.insert(member);
        }
        if !is_one_new {
            return;
        }
    }
}

fn members(leader: Pid) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let pids = pids.map(Pid::from_raw);
    pids.filter(|pid| getsid(Some(*pid)) == Ok(leader))
        .collect()
}

/// What a command without a terminal reads and writes.
struct Pipes {
    stdin: PipeReader,
    stdout: PipeWriter,
    stderr: PipeWriter,
}

/// In the copy. Everything that we and Rust's library have open is closed by `execve`.
fn become_command(
    request: &Request,
    filter: &[u8],
    task: Pid,
    command: &ExecCommand,
    socket: &UnixStream,
) -> Result<Infallible, Failure> {
    let pipes = match command.has_terminal {
        true => None,
        false => Some(give_pipes(request, socket)?),
    };
    for procs in &request.groups {
        step(&format!("enter {}", procs.display()), fs::write(procs, "0"))?;
    }
    step("start a session", setsid())?;
    if let Some(pipes) = &pipes {
        step("attach standard input", dup2_stdin(pipes.stdin.as_fd()))?;
        step("attach standard output", dup2_stdout(pipes.stdout.as_fd()))?;
        step("attach standard error", dup2_stderr(pipes.stderr.as_fd()))?;
    }
    // As for the task.
    let _ = fs::write("/proc/self/oom_score_adj", "0");
    confine::join_namespaces(request, task)?;
    if let Some(account) = &request.account {
        switch_user(account)?;
    }
    enter(request.workdir())?;
    step("hear signals", SigSet::empty().thread_set_mask())?;
    confine::give_up_rights(request, filter)?;
    if command.has_terminal {
        // With the task's rights and no others: what is in its /dev may be its own doing.
        give_terminal(socket)?;
    }
    let env = request.env.iter().chain(&command.env);
    execute(&command.argv, env)
}

/// Sends the slave its ends: of standard input, standard output, standard error.
fn give_pipes(request: &Request, socket: &UnixStream) -> Result<Pipes, Failure> {
    let (stdin, to_stdin) = step("make a pipe", io::pipe())?;
    let (from_stdout, stdout) = step("make a pipe", io::pipe())?;
    let (from_stderr, stderr) = step("make a pipe", io::pipe())?;
    if let Some(account) = &request.account {
        // Otherwise it could not open its own /dev/stdout.
        let owner = Some(Uid::from_raw(account.uid));
        let given = fchown(&stdin, owner, None)
            .and_then(|()| fchown(&stdout, owner, None))
            .and_then(|()| fchown(&stderr, owner, None));
        step("give the pipes away", given)?;
    }
    let ends = [
        to_stdin.as_raw_fd(),
        from_stdout.as_raw_fd(),
        from_stderr.as_raw_fd(),
    ];
    step("send the pipes", send(socket, &ends))?;
    Ok(Pipes {
        stdin,
        stdout,
        stderr,
    })
}

/// Opens a terminal, makes it that of our session, sends the slave its other end, and waits for a byte of it.
fn give_terminal(mut socket: &UnixStream) -> Result<(), Failure> {
    let (master, name) = step("open a terminal", open_terminal())?;
    // The first one that the leader of a session without a terminal opens becomes that of the session.
    let terminal = File::options().read(true).write(true).open(&name);
    let terminal = step(&format!("open {name}"), terminal)?;
    step("attach standard input", dup2_stdin(terminal.as_fd()))?;
    step("attach standard output", dup2_stdout(terminal.as_fd()))?;
    step("attach standard error", dup2_stderr(terminal.as_fd()))?;
    step("send the terminal", send(socket, &[master.as_raw_fd()]))?;
    // The command is not to see it without its size, which the slave gives it.
    step("wait for the terminal", socket.read_exact(&mut [0]))
}

fn open_terminal() -> io::Result<(PtyMaster, String)> {
    // Without O_CLOEXEC the command would hold the other end of its own terminal.
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname_r(&master)?;
    Ok((master, name))
}

/// One byte, since nothing goes with nothing.
fn send(mut socket: &UnixStream, ends: &[RawFd]) -> io::Result<()> {
    let byte = [IoSlice::new(b"+")];
    let rights = [ControlMessage::ScmRights(ends)];
    let fd = socket.as_raw_fd();
    sendmsg::<UnixAddr>(fd, &byte, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    socket.flush()
}
