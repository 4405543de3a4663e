//! Why an image cannot be used: a stable code, and a sentence for a person.

use std::io;

use meros_proto::fetch::Sha256;

use crate::fetch;

/// Why a task has not got its image.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {reference}: {why}", code = why.code())]
pub(crate) struct ImageError {
    /// Which image.
    pub(crate) reference: String,
    pub(crate) why: Failure,
}

/// What went wrong with an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// This slave runs no images.
    #[error("this slave runs no images: {0}")]
    Unavailable(String),
    /// The reference is none.
    #[error("{0}")]
    Invalid(String),
    /// It is in no folder that tasks may have images of.
    #[error(
        "it is in no folder of which tasks may have files: an administrator adds one with --fetch-folders"
    )]
    NotAllowed,
    /// There is no such image.
    #[error("{0}")]
    Missing(String),
    /// The registry wants other credentials, or does not give it to anybody.
    #[error(
        "the registry refuses it ({0}): check its name, and the credentials of --image-credentials"
    )]
    Denied(String),
    /// What came is not what it should be.
    #[error("it is damaged: {0}")]
    Corrupt(String),
    /// It is made for other machines.
    #[error("it is for {has}, and this slave is {wants}: choose another image, or another slave")]
    Platform {
        /// What there is.
        has: String,
        /// What is wanted.
        wants: String,
    },
    /// It has what this slave does not know.
    #[error("{0}")]
    Unsupported(String),
    /// A bound.
    #[error("{what} is more than the {max} bytes that the slave allows: see --image-bytes-max")]
    TooLarge {
        /// Of what there is too much.
        what: &'static str,
        /// The most.
        max: u64,
    },
    /// It does not come.
    #[error(transparent)]
    Transfer(#[from] fetch::Failure),
    /// The user is not known in it.
    #[error("{0}")]
    User(String),
    /// Neither the task nor the image says what to run.
    #[error("neither the image nor its task says what to run: give a command")]
    NoCommand,
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
            Self::Unavailable(_) => "image_unavailable",
            Self::Invalid(_) => "image_invalid",
            Self::NotAllowed => "image_not_allowed",
            Self::Missing(_) => "image_missing",
            Self::Denied(_) => "image_denied",
            Self::Corrupt(_) => "image_corrupt",
            Self::Platform { .. } => "image_platform",
            Self::Unsupported(_) => "image_unsupported",
            Self::TooLarge { .. } => "image_too_large",
            Self::Transfer(_) => "image_transfer",
            Self::User(_) => "image_user",
            Self::NoCommand => "image_no_command",
            Self::Disk(_) => "image_disk",
            Self::Cancelled => "image_cancelled",
        }
    }

    /// Something that should have one digest has another.
    pub(super) fn digest(what: &str, expected: Sha256, got: Sha256) -> Self {
        Self::Corrupt(format!(
            "{what} adds up to {got}, and {expected} was expected"
        ))
    }
}
