//! How commands end: exit codes, and errors that say what to do next.

use std::fmt;

/// An exit code of `meros`.
///
/// `meros run` also returns the exit code of its task, and 128 + n for a task that signal n ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Success,
    /// It could not be done; the message says why.
    Failure,
    /// The command line or configuration is wrong; nothing was started. The same as clap's.
    Usage,
    /// The cluster could not be reached, so nothing is known of what was asked for. The number is
    /// the one that container tools use for "the engine failed, not your command".
    Unreachable,
    /// A daemon's or a task's own code.
    Code(u8),
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 125,
            Exit::Code(code) => code,
        })
    }
}

/// Why a command failed, for a person: what, why, and what to do.
#[derive(Debug)]
pub(crate) struct CliError {
    exit: Exit,
    message: String,
}

impl CliError {
    /// It could not be done.
    pub(crate) fn failure(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failure,
            message: message.into(),
        }
    }

    /// It was asked for wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.into(),
        }
    }

    /// The cluster could not be reached.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Unreachable,
            message: message.into(),
        }
    }

    /// It ends with a code of its own.
    pub(crate) fn with_code(code: u8, message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Code(code),
            message: message.into(),
        }
    }

    /// Whether the same may succeed a little later.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.exit == Exit::Unreachable
    }

    /// The code to end with.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An error with its causes, in one line: `failed to open /x: permission denied`.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
