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
        let on = |kind| {
            signal(kind)
                .map_err(|error| CliError::failure(format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
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
