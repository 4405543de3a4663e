//! Signals: what ends a command in a terminal or under an init system.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::CliError;

/// SIGINT or SIGTERM, whichever comes.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Listens from now on.
    ///
    /// # Errors
    /// The process cannot have signal handlers.
    pub(crate) fn listen() -> Result<Self, CliError> {
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// SIGUSR1: a slave leaves its cluster for good (semantics: K8).
pub(crate) struct Leave(Signal);

impl Leave {
    /// Listens from now on.
    ///
    /// # Errors
    /// The process cannot have signal handlers.
    pub(crate) fn listen() -> Result<Self, CliError> {
        listen(SignalKind::user_defined1()).map(Self)
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}

fn listen(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|error| CliError::failure(format!("cannot listen for signals: {error}")))
}

/// Lets `meros ps | head` end quietly: a write to a closed pipe ends the process as it ends `ls`,
/// instead of a panic in `println!`. Only for commands that do nothing but print: others have
/// something to clean up.
pub(crate) fn restore_broken_pipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    #[expect(
        unsafe_code,
        reason = "nix marks every change of a signal's disposition unsafe"
    )]
    // SAFETY: SIG_DFL installs no handler of ours, so no code runs in signal context, and no
    // other thread exists yet: main calls this before anything starts one.
    let set = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    // A kernel that refuses SIG_DFL for SIGPIPE does not exist; if one did, println would panic
    // on a closed pipe, which is what would happen without this call.
    let _ = set;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sigusr1_means_leave_and_not_stop() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let heard = runtime.block_on(async {
            let (mut stop, mut leave) = (Stop::listen().unwrap(), Leave::listen().unwrap());
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGUSR1).unwrap();
            tokio::select! {
                biased;
                () = stop.next() => "stop",
                () = leave.next() => "leave",
                () = tokio::time::sleep(Duration::from_secs(10)) => "nothing",
            }
        });
        assert_eq!(heard, "leave");
    }
}
