//! Why a call about framework state failed.

use meros_proto::refusal::Refusal;
use meros_proto::state::{NameError, StateAnswer, StateRefusal};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A key or name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The masters refuse it: nothing was changed. [`StateRefusal`] tells the cases apart.
    #[error(transparent)]
    Refused(StateRefusal),
    /// The masters refuse it for another reason, such as too many calls at a time.
    #[error(transparent)]
    Busy(Refusal),
    /// No master has answered in time. A change may have been carried out or not; if it was about a
    /// lease, all that this `State` holds is lost.
    #[error("no master has answered in time: {why}; whether a change was carried out is not known")]
    Unavailable {
        /// What was tried last.
        why: String,
    },
    /// The lease was lost while it was waited for: the time to live was over.
    #[error("the place in the queue was lost: no master has heard of this program for too long")]
    Lost,
    /// The runtime is shutting down.
    #[error("the connection to the masters has been shut down")]
    Ended,
}

impl StateError {
    /// Whether a condition of a transaction did not hold, so that reading again is the way on.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(StateRefusal::Conflict { .. }))
    }
}

impl From<Refusal> for StateError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::State(refusal) => Self::Refused(refusal),
            other => Self::Busy(other),
        }
    }
}

/// A master that answers another question than was asked.
pub(super) fn unexpected(answer: &StateAnswer) -> StateError {
    tracing::error!(?answer, "a master answers another question");
    StateError::Unavailable {
        why: "a master answers another question: releases differ".to_owned(),
    }
}
