//! One thread, one loop: children that end, output, the slave. Invariant S19: it needs no slave to go on.

use std::fs::{self, File};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::libc::STDERR_FILENO;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Pid, dup2_stdin, dup2_stdout, geteuid, getpid, setsid};

use crate::beside::{Checks, NOT_PREPARED};
use crate::confine::{Part, enter_user_namespace};
use crate::exec::Execs;
use crate::files::{self, Exit, ExitStatus, State};
use crate::frames::{CheckEnd, ExecCommand, Frames, Order, Told, frame};
use crate::reap::{kill_all, reap};
use crate::request::{Failure, REQUEST_BYTES_MAX, Request, step};
use crate::rights::read_filter;
use crate::task::{self, Task};

/// How long the slave that started us may take to connect; it does so at once or is dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an output may stay open after all processes are dead: only somebody who was handed it by
/// the task can hold it then. For all others this is what a slow disk may take to write the rest.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Usual capacity of a pipe, so one read empties it.
const CHUNK_BYTES: usize = 64 << 10;
/// An order is a few bytes.
const ORDER_BYTES: usize = 512;

/// The only thing the program does.
pub(crate) fn run() {
    close_inherited(None);
    let filter = inherited_filter();
    let Ok(listener) = listener() else {
        // Not started by a slave, so a person is reading.
        eprintln!("meros-shim: only a slave can start it");
        return;
    };
    let mut link = Link {
        listener,
        slave: None,
        patience: Some(Instant::now() + CONNECT_TIMEOUT),
    };
    match begin(&filter) {
        Ok(running) => {
            let Begun {
                request,
                task,
                state_file,
                state,
                signals,
            } = running;
            let chunk = vec![0; CHUNK_BYTES];
            let (exit, is_unwritten) = (None, false);
            Shim {
                request,
                task,
                state_file,
                state,
                signals,
                link,
                exit,
                is_unwritten,
                chunk,
                filter,
                checks: Checks::default(),
                execs: Execs::default(),
            }
            .serve();
        }
        Err(failure) => link.tell_last(&Told::NotStarted(failure)),
    }
}

/// Closes what whoever started the slave forgot to close; a task could read or block it. Comes first,
/// when nothing is open yet that anything of ours owns.
pub(crate) fn close_inherited(except: Option<RawFd>) {
    let entries = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let open: Vec<RawFd> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let is_inherited = |it: &RawFd| *it > STDERR_FILENO && Some(*it) != except;
    for descriptor in open.into_iter().filter(is_inherited) {
        // The listing itself is among them and closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

/// The system call filter comes as standard output: sealed memory that all shims share.
fn inherited_filter() -> Vec<u8> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let filter = stdout.map(|stdout| read_filter(&stdout));
    // Who has nothing there has none; a person sees what is said on standard error.
    if let Ok(nothing) = File::open("/dev/null") {
        let _ = dup2_stdout(nothing.as_fd());
    }
    filter.unwrap_or_default()
}

fn listener() -> io::Result<UnixListener> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    dup2_stdin(File::open("/dev/null")?.as_fd())?;
    Ok(listener)
}

/// What is inherited by the task, or keeps others from us.
fn prepare(request: &Request) -> Result<SignalFd, Failure> {
    // Else it would be called after a number of a descriptor.
    step("take a name", prctl::set_name(c"meros-shim"))?;
    // Of whoever started the slave: a Ctrl-C in that terminal is not meant for tasks.
    step("leave the session", setsid())?;
    let all = SigSet::all();
    step("block signals", all.thread_set_mask())?;
    let mut children = SigSet::empty();
    children.add(nix::sys::signal::Signal::SIGCHLD);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = step("watch children", SignalFd::with_flags(&children, flags))?;
    step(
        "adopt what the task leaves",
        prctl::set_child_subreaper(true),
    )?;
    step("give up privileges for good", prctl::set_no_new_privs())?;
    // A core file would fill the sandbox past every bound that we promise.
    step("forbid core files", setrlimit(Resource::RLIMIT_CORE, 0, 0))?;
    if request.confinement.has(Part::User) {
        enter_user_namespace()?;
    }
    // Nobody of the same user may look into us; undone by `execve`.
    step("hide", prctl::set_dumpable(false))?;
    Ok(signals)
}

struct Begun {
    request: Request,
    task: Task,
    state_file: File,
    state: State,
    signals: SignalFd,
}

fn begin(filter: &[u8]) -> Result<Begun, Failure> {
    let request = step("read the request", read_request())?;
    let signals = prepare(&request)?;
    let state_file = step("write the state", files::create_state())?;
    let task = task::start(&request, filter)?;
    let state = State {
        pid: task.main.as_raw(),
        shim: getpid().as_raw(),
        ..State::default()
    };
    // Without it the task would be taken for one that never ran, should we be killed.
    if let Err(failure) = step("write the state", files::write_state(&state_file, &state)) {
        kill_all(&request.groups, task.main, task.init_pid());
        return Err(failure);
    }
    Ok(Begun {
        request,
        task,
        state_file,
        state,
        signals,
    })
}

fn read_request() -> io::Result<Request> {
    let mut bytes = Vec::new();
    let file = File::open(files::REQUEST)?;
    file.take(REQUEST_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The way to the slave.
struct Link {
    listener: UnixListener,
    slave: Option<Slave>,
    /// Until when the first one may take to connect; none once one has.
    patience: Option<Instant>,
}

struct Slave {
    stream: UnixStream,
    frames: Frames,
}

impl Link {
    /// Takes in who waits, the newest; whether there is somebody new.
    fn accept(&mut self) -> bool {
        let mut is_new = false;
        while let Ok((stream, _)) = self.listener.accept() {
            if is_ours(&stream) && stream.set_nonblocking(true).is_ok() {
                let frames = Frames::default();
                self.slave = Some(Slave { stream, frames });
                self.patience = None;
                is_new = true;
            }
        }
        is_new
    }

    /// Loses a slave that does not take it: all that is ever said fits the buffer of a socket.
    fn tell(&mut self, told: &Told) {
        let refused = |slave: &mut Slave| slave.stream.write_all(&frame(told)).is_err();
        self.slave.take_if(refused);
    }

    /// Waits for the slave if it is not there yet.
    fn tell_last(&mut self, told: &Told) {
        while !self.accept() && self.slave.is_none() {
            let left = self
                .patience
                .map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.unwrap_or_default();
            let mut waiting = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            if left.is_zero() || poll(&mut waiting, timeout_of(Some(left))).is_err() {
                return;
            }
        }
        self.tell(told);
    }

    /// Nobody is there, nor on the way.
    fn is_lost(&self) -> bool {
        self.slave.is_none() && self.patience.is_none_or(|until| Instant::now() >= until)
    }
}

/// Only our own user may order; the folder keeps others away already.
fn is_ours(stream: &UnixStream) -> bool {
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| peer.uid() == geteuid().as_raw())
}

fn timeout_of(left: Option<Duration>) -> PollTimeout {
    // Rounded up, so that the deadline has passed when it ends.
    let millis = left.map(|left| left.as_millis().saturating_add(1));
    let millis = millis.map(|millis| i32::try_from(millis).unwrap_or(i32::MAX));
    millis.map_or(PollTimeout::NONE, |millis| {
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    })
}

struct Shim {
    request: Request,
    task: Task,
    state_file: File,
    state: State,
    signals: SignalFd,
    link: Link,
    exit: Option<Exit>,
    /// The end could not be written down: the next slave has to hear of it from us.
    is_unwritten: bool,
    chunk: Vec<u8>,
    /// What checks may ask of the kernel: the same as the task.
    filter: Vec<u8>,
    checks: Checks,
    execs: Execs,
}

impl Shim {
    fn serve(mut self) {
        let mut is_over = false;
        while !is_over {
            // First of all: who is there is told rather than the disk synced.
            if self.link.accept() {
                // Whoever had the other ends is gone.
                self.execs.end_all();
                self.greet();
            }
            while let Ok(Some(_)) = self.signals.read_signal() {}
            let (checks, execs) = (&mut self.checks, &mut self.execs);
            let mut executed = Vec::new();
            let reaped = reap(self.task.main, |pid, status| {
                checks.on_end(pid, status);
                executed.extend(execs.on_end(pid, status));
            });
            executed.iter().for_each(|told| self.link.tell(told));
            if let Some(status) = reaped.main {
                self.on_end(status, false);
            }
            for told in self.checks.take_ended(&mut self.chunk) {
                self.link.tell(&told);
            }
            is_over = self.hear_orders() || self.is_to_end();
            if self.link.slave.is_none() {
                self.execs.end_all();
            }
            if !is_over {
                self.wait();
                self.read_outputs();
            }
        }
        self.finish();
    }

    /// A slave that has come anew hears everything.
    fn greet(&mut self) {
        let State { pid, shim, .. } = self.state;
        let init = self.task.init_pid().map(Pid::as_raw);
        self.link.tell(&Told::Running {
            pid,
            shim,
            init,
            execs: true,
        });
        if let Some(exit) = self.exit {
            self.link.tell(&Told::Ended(exit));
        }
    }

    /// Written down before it is told. Not synced if there is a slave to be told: that makes it durable
    /// itself before it tells anybody.
    fn on_end(&mut self, status: ExitStatus, with_slave: bool) {
        let exit = Exit { status, with_slave };
        self.exit = Some(exit);
        // An error is a full disk: a slave may hear of the end all the same.
        self.is_unwritten = files::write_exit(&exit, self.link.slave.is_none()).is_err();
        self.link.tell(&Told::Ended(exit));
    }

    /// Whether the slave has said that it is over.
    fn hear_orders(&mut self) -> bool {
        let Some(slave) = &mut self.link.slave else {
            return false;
        };
        let mut bytes = [0; ORDER_BYTES];
        let mut is_lost = match slave.stream.read(&mut bytes) {
            Ok(0) => true,
            Ok(read) => {
                slave.frames.push(&bytes[..read]);
                false
            }
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ),
        };
        while let Some(slave) = self.link.slave.as_mut().filter(|_| !is_lost) {
            match slave.frames.message::<Order>() {
                Ok(Some(Order::Finish)) => return true,
                Ok(Some(Order::Check {
                    number,
                    check,
                    timeout_ms,
                })) => self.start_check(number, check, Duration::from_millis(timeout_ms)),
                Ok(Some(Order::Exec { number, command })) => self.start_exec(number, &command),
                Ok(Some(Order::SignalExec { number, signal })) => self.execs.signal(number, signal),
                Ok(Some(Order::EndExec { number })) => self.execs.end(number),
                Ok(None) => break,
                Err(_) => is_lost = true,
            }
        }
        if is_lost {
            self.link.slave = None;
        }
        false
    }

    /// What cannot be started is told at once.
    fn start_check(&mut self, number: u64, check: String, timeout: Duration) {
        let (request, task) = (&self.request, self.task.main);
        let id = (check, number);
        let started = self.checks.start(request, &self.filter, task, id, timeout);
        if let Err(failure) = started {
            let why = io::Error::from_raw_os_error(failure.errno);
            self.link.tell(&Told::Checked {
                number,
                end: CheckEnd::Exited(NOT_PREPARED),
                output: format!("failed to {}: {why}", failure.step),
            });
        }
    }

    /// What cannot be started is told at once; why, only the copy can say.
    fn start_exec(&mut self, number: u64, command: &ExecCommand) {
        let (request, task) = (&self.request, self.task.main);
        // The number of a task that has ended may be somebody else's, and so would the namespaces be.
        let is_started = self.exit.is_none()
            && self
                .execs
                .start(request, &self.filter, task, number, command)
                .is_ok();
        if !is_started {
            let status = ExitStatus::Exited(NOT_PREPARED);
            self.link.tell(&Told::Executed { number, status });
        }
    }

    /// Without a slave an ended task is only cleared away, and one that ends with it is ended.
    fn is_to_end(&self) -> bool {
        let is_known = self.exit.is_some() && !self.is_unwritten;
        self.link.is_lost() && (is_known || self.request.ends_with_slave)
    }

    fn wait(&self) {
        let mut sources: Vec<BorrowedFd<'_>> =
            vec![self.signals.as_fd(), self.link.listener.as_fd()];
        sources.extend(self.link.slave.iter().map(|slave| slave.stream.as_fd()));
        let outputs = self.task.outputs.iter();
        sources.extend(outputs.filter_map(|output| Some(output.pipe.as_ref()?.as_fd())));
        sources.extend(self.checks.sources());
        let patience = self.link.patience.filter(|until| *until > Instant::now());
        let until = [patience, self.checks.deadline()];
        let left = until.into_iter().flatten().min();
        let left = left.map(|until| until.saturating_duration_since(Instant::now()));
        wait_for(&sources, left);
    }

    /// One chunk of each output at the most, so that nobody else waits for a task that floods.
    fn read_outputs(&mut self) {
        let Self {
            task,
            state,
            state_file,
            chunk,
            checks,
            ..
        } = self;
        checks.read(chunk);
        for (nth, output) in task.outputs.iter_mut().enumerate() {
            let Some(pipe) = &mut output.pipe else {
                continue;
            };
            if !is_readable(pipe) {
                continue;
            }
            match pipe.read(chunk) {
                Ok(0) => output.pipe = None,
                Ok(read) => output.log.append(&chunk[..read], |usage| {
                    match nth {
                        0 => state.stdout = usage,
                        _ => state.stderr = usage,
                    }
                    // A file of 64 bytes that is there already: no disk is too full for it.
                    let _ = files::write_state(state_file, state);
                }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => output.pipe = None,
            }
        }
    }

    /// Kills what is left, and writes the last of the output.
    fn finish(mut self) {
        let ended = kill_all(&self.request.groups, self.task.main, self.task.init_pid());
        if let (None, Some(status)) = (self.exit, ended) {
            let with_slave = self.link.is_lost();
            self.on_end(status, with_slave);
        }
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while self.task.outputs.iter().any(|output| output.pipe.is_some()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let pipes = self
                .task
                .outputs
                .iter()
                .filter_map(|output| output.pipe.as_ref());
            let sources: Vec<BorrowedFd<'_>> = pipes.map(AsFd::as_fd).collect();
            wait_for(&sources, Some(left));
            self.read_outputs();
        }
        // Nobody can connect any more.
        let _ = fs::remove_file(files::SOCKET);
    }
}

pub(crate) fn is_readable(pipe: &PipeReader) -> bool {
    let mut source = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut source, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn wait_for(sources: &[BorrowedFd<'_>], left: Option<Duration>) {
    let mut sources: Vec<PollFd<'_>> = sources
        .iter()
        .map(|source| PollFd::new(*source, PollFlags::POLLIN))
        .collect();
    // An error is none that waiting longer would mend; who asks looks at everything anyway.
    let _ = poll(&mut sources, timeout_of(left));
}
