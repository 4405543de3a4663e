//! Why a slave ends: one reason, one exit code.

use std::process::ExitCode;

use meros_proto::refusal::Refusal;

/// Why a slave has ended. The codes are stable: supervisors decide by them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExitReason {
    /// It was asked to stop or to leave. Exit code 0.
    #[error("stopped as asked")]
    Stopped,
    /// The checkpoint could not be written for a minute: a full or failing disk. Exit code 20.
    /// What was promised before is safe.
    #[error(
        "checkpoint could not be written: {cause}; free some space or replace the disk, then start again: no update that was sent is lost"
    )]
    CheckpointFailed {
        /// What the store said.
        cause: String,
    },
    /// A thread of ours panicked; the log has its message. Exit code 21.
    #[error(
        "thread {thread:?} panicked: this is a bug, please report it with the log; its tasks run on, and the next start takes them up"
    )]
    Panicked {
        /// The name of the thread.
        thread: &'static str,
    },
    /// The HTTP listener ended by itself. Exit code 22.
    #[error("http listener ended: {cause}")]
    ListenerFailed {
        /// What it said.
        cause: String,
    },
    /// Its masters will never take it as it is. Exit code 23.
    #[error("masters refuse this slave: {why}")]
    Refused {
        /// Why.
        why: Refusal,
    },
}

impl ExitReason {
    /// The code that the process returns.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::CheckpointFailed { .. } => 20,
            Self::Panicked { .. } => 21,
            Self::ListenerFailed { .. } => 22,
            Self::Refused { .. } => 23,
        }
    }
}

impl From<&ExitReason> for ExitCode {
    fn from(reason: &ExitReason) -> Self {
        Self::from(reason.code())
    }
}
