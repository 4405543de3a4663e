//! Why a file could not be fetched: a stable code, and a sentence for a person.

use std::io;

/// Why the files of a task are not there.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {uri}: {why}", code = why.code(), uri = shortened(uri))]
pub(crate) struct FetchError {
    /// Of which file.
    pub(crate) uri: String,
    pub(crate) why: Failure,
}

/// What went wrong with one file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It is in no folder that tasks may have files of.
    #[error(
        "it is in no folder of which tasks may have files: an administrator adds one with --fetch-folders"
    )]
    NotAllowed,
    /// The URI is none.
    #[error("{0}")]
    Invalid(String),
    /// The server cannot be reached.
    #[error("the server cannot be reached: {0}")]
    Connect(String),
    /// The connection broke, or what came was no HTTP.
    #[error("the transfer broke off after {bytes} bytes: {cause}")]
    Broken {
        /// How many had come.
        bytes: u64,
        /// Why.
        cause: String,
    },
    /// The server has not got it, or does not give it.
    #[error("the server answered {0}")]
    Status(u16),
    /// Redirects that lead nowhere.
    #[error("{0}")]
    Redirect(&'static str),
    /// Too little has come for too long.
    #[error("it came to a standstill after {bytes} bytes")]
    Stalled {
        /// How many had come.
        bytes: u64,
    },
    /// A bound.
    #[error(
        "{what} is more than the {max} bytes that the slave allows: see --fetch-{option}-bytes-max"
    )]
    TooLarge {
        /// Of what there is too much.
        what: &'static str,
        /// The most.
        max: u64,
        /// Which option.
        option: &'static str,
    },
    /// It is not what was expected.
    #[error("its digest is {got}, and {expected} was expected")]
    Digest {
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// The archive is damaged, or wants what it may not.
    #[error("{0}")]
    Archive(String),
    /// Its place in the sandbox is taken, or cannot be made.
    #[error("cannot put it into the sandbox: {0}")]
    Sandbox(String),
    /// A file of the machine is not there, or cannot be read.
    #[error("the slave cannot read it: {0}")]
    Local(io::Error),
    /// The slave's disk.
    #[error("the slave cannot keep it: {0}")]
    Disk(io::Error),
    /// Nobody wants it any more.
    #[error("the task was killed, or the slave stops")]
    Cancelled,
}

impl Failure {
    /// Stable, lower case and without spaces.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NotAllowed => "fetch_not_allowed",
            Self::Invalid(_) => "fetch_invalid",
            Self::Connect(_) => "fetch_unreachable",
            Self::Broken { .. } => "fetch_broken",
            Self::Status(_) => "fetch_refused",
            Self::Redirect(_) => "fetch_redirect",
            Self::Stalled { .. } => "fetch_stalled",
            Self::TooLarge { .. } => "fetch_too_large",
            Self::Digest { .. } => "fetch_digest",
            Self::Archive(_) => "fetch_archive",
            Self::Sandbox(_) => "fetch_sandbox",
            Self::Local(_) => "fetch_local",
            Self::Disk(_) => "fetch_disk",
            Self::Cancelled => "fetch_cancelled",
        }
    }
}

/// URIs are as long as a framework wants.
pub(super) fn shortened(uri: &str) -> String {
    match uri.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &uri[..at]),
        None => uri.to_owned(),
    }
}
