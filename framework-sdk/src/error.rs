//! Why a session cannot begin, and how it ended.

use std::error::Error;

use meros_proto::refusal::Refusal;
use meros_proto::state::NameError;
use meros_proto::transport::{ClientError, LoadError};
use meros_sdk_core::EndReason;

use crate::config::ConfigError;
use crate::state_file::StateFileError;

/// Why a session cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The configuration is not valid.
    #[error("the configuration is not valid")]
    Config(#[from] ConfigError),
    /// The identity cannot be read.
    #[error("the framework's identity cannot be used: `meros ca issue` makes one")]
    Identity(#[source] LoadError),
    /// No connection can be made with it.
    #[error("no connection can be made")]
    Client(#[source] ClientError),
    /// The state file cannot be used.
    #[error("the framework's id cannot be taken up")]
    StateFile(#[from] StateFileError),
    /// The space of framework state has no proper name.
    #[error("the space of framework state cannot be used")]
    Space(#[source] NameError),
}

/// Why a framework's session ended without having been asked to.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It could not begin.
    #[error("the session could not begin")]
    Setup(#[from] SetupError),
    /// A master refused the subscription, and would refuse it again.
    #[error("the master refused the subscription")]
    Refused(#[source] Refusal),
    /// The masters and this framework do not trust each other's certificates.
    #[error("no master can be trusted, or none trusts this framework: {why}")]
    Untrusted {
        /// What is wrong.
        why: String,
    },
    /// The teardown did not reach a master in time: the framework's tasks run on until its
    /// failover timeout, or until somebody tears it down.
    #[error("no master has confirmed the teardown: the framework's tasks may still run")]
    TeardownUnconfirmed,
    /// Something else that the session cannot do without.
    #[error("the session cannot go on: {why}")]
    Failed {
        /// What.
        why: String,
    },
}

/// What the end of a session means to a program.
pub(crate) fn outcome(reason: EndReason) -> Result<(), SessionError> {
    match reason {
        EndReason::Left | EndReason::TornDown { confirmed: true } => Ok(()),
        EndReason::TornDown { confirmed: false } => Err(SessionError::TeardownUnconfirmed),
        EndReason::Refused(refusal) => Err(SessionError::Refused(refusal)),
        EndReason::Untrusted { why } => Err(SessionError::Untrusted { why }),
        EndReason::Failed { why } => Err(SessionError::Failed { why }),
    }
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
