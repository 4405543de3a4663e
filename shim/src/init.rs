//! The first process of a process namespace: a copy of the shim that only reaps.
//!
//! The kernel wants a first process in each such namespace, kills all others when it ends, and gives it
//! whatever lost its parent. It is not the task: that would hear no signal that it has not asked for
//! (SIGTERM included), and had to reap what it does not know. The task is the second one, a child of the
//! shim like without a namespace, so its end is seen by the same `waitpid`.
//!
//! It is in no group of the task: nothing of the task's limits is taken by it. Its memory is the shim's,
//! shared. It ends with the shim, whose end of a pipe closes then: invariant S22.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stdout};

use crate::confine::{Part, of};
use crate::fork::fork_alone;
use crate::request::{Failure, step};
use crate::serve::close_inherited;

/// The first process of the task's namespace.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) pid: Pid,
    /// Closed when we are gone, however that happens.
    _alive: PipeWriter,
}

/// Makes a namespace for all processes that are started from now on, and its first one.
pub(crate) fn start() -> Result<Init, Failure> {
    let started = || {
        let (shim, alive) = step("make a pipe", io::pipe())?;
        step(
            "make a process namespace",
            unshare(CloneFlags::CLONE_NEWPID),
        )?;
        match step("fork the first process", fork_alone())? {
            ForkResult::Child => {
                reap_until_alone(&shim);
                // All others die of it.
                std::process::exit(0)
            }
            ForkResult::Parent { child } => Ok(Init {
                pid: child,
                _alive: alive,
            }),
        }
    };
    of(Part::Pid, started())
}

/// Until the shim is gone. An error ends the task, and its shim tells.
fn reap_until_alone(shim: &PipeReader) {
    // Also the other end of the pipe, or it would never be closed.
    close_inherited(Some(shim.as_raw_fd()));
    let _ = prctl::set_name(c"meros-init");
    // Nobody of the task may look into it, whatever their user.
    let _ = prctl::set_dumpable(false);
    let _ = dup2_stdout(io::stdin().as_fd());
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    // Signals are blocked by the shim already.
    let Ok(signals) = SignalFd::with_flags(&children, flags) else {
        return;
    };
    loop {
        let mut sources = [
            PollFd::new(shim.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut sources, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        // Nothing is ever written: what can be read is the end.
        if sources[0].any() != Some(false) {
            return;
        }
        while let Ok(Some(_)) = signals.read_signal() {}
        while !matches!(
            waitpid(None, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive) | Err(_)
        ) {}
    }
}
