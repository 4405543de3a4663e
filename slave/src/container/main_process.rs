//! The command of a container: our own child process.

use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::Duration;

use super::report::ExitStatus;

const SIGKILL: i32 = 9;
/// How long a killed process may take to become reapable when nobody can wait for it.
const DROP_REAP_ATTEMPTS: u32 = 50;
const DROP_REAP_DELAY: Duration = Duration::from_millis(1);

/// The command, our child. Reaped once and explicitly, so that until then its process id is its
/// own; killed when dropped before that.
#[derive(Debug)]
pub(crate) struct MainProcess {
    child: Child,
    reaped: bool,
}

impl MainProcess {
    pub(crate) fn new(child: Child) -> Self {
        Self {
            child,
            reaped: false,
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("the kernel's pid_t is an i32")
    }

    /// Does nothing to a process that is dead.
    pub(crate) fn kill(&mut self) {
        // The only error is that it has been reaped, which is as dead as can be.
        let _ = self.child.kill();
    }

    /// Does not wait: called when it has ended, or survives SIGKILL.
    pub(crate) fn reap(&mut self) -> ExitStatus {
        let status = self.child.try_wait().ok().flatten();
        self.reaped = status.is_some();
        match status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => ExitStatus::Exited(code),
            Some((None, Some(signal))) => ExitStatus::Signaled(signal),
            // A survivor: SIGKILL is what it will have ended by.
            _ => ExitStatus::Signaled(SIGKILL),
        }
    }
}

impl Drop for MainProcess {
    /// Reached unreaped by a failed start, a survivor, or a runtime that shuts down with
    /// containers in it.
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.kill();
        for _ in 0..DROP_REAP_ATTEMPTS {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(DROP_REAP_DELAY);
        }
    }
}
