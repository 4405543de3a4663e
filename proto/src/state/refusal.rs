//! Why a call about framework state is refused.

use serde::{Deserialize, Serialize};

use super::{LeaseName, Revision, SessionId, Token};

/// A bound of framework state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum StateBound {
    /// Bytes of one value.
    #[error("bytes of a value")]
    ValueBytes,
    /// Conditions or operations of one transaction.
    #[error("operations of a transaction")]
    Operations,
    /// Bytes of the keys and values of one transaction.
    #[error("bytes of a transaction")]
    TransactionBytes,
    /// Keys of a space.
    #[error("keys of a space")]
    Keys,
    /// Bytes of a space.
    #[error("bytes of a space")]
    SpaceBytes,
    /// Bytes of all spaces.
    #[error("bytes of all spaces of the cluster")]
    Bytes,
    /// Spaces of a principal.
    #[error("spaces of a principal")]
    Spaces,
    /// Spaces of all principals.
    #[error("spaces of the cluster")]
    AllSpaces,
    /// Sessions of a space.
    #[error("sessions of a space")]
    Sessions,
    /// Sessions of all spaces.
    #[error("sessions of the cluster")]
    AllSessions,
    /// Holders and waiters of all leases of a space.
    #[error("holders and waiters of a space")]
    Holds,
    /// Permits of a lease.
    #[error("permits of a lease")]
    Permits,
    /// Bytes of a holder's name.
    #[error("bytes of a holder's name")]
    HolderBytes,
}

/// Why a call was refused. Variants are appended: the wire is positional, and answers are replicated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum StateRefusal {
    /// A condition of a transaction does not hold; nothing was changed.
    #[error("condition {condition} of the transaction does not hold: read again and decide anew")]
    Conflict {
        /// Its place among the conditions, from 0.
        condition: u32,
    },
    /// A token that does not hold its lease, or not any more; nothing was changed.
    #[error("token {token} does not hold lease {lease}: somebody else may have acted meanwhile")]
    StaleToken {
        /// Which lease.
        lease: LeaseName,
        /// The token.
        token: Token,
    },
    /// The lease is held and the call would not wait.
    #[error("lease {lease} is held by others")]
    LeaseHeld {
        /// Which.
        lease: LeaseName,
    },
    /// Others queue for the lease with another number of permits.
    #[error("lease {lease} has {permits} permits: all who queue for it must say the same")]
    PermitsDiffer {
        /// Which.
        lease: LeaseName,
        /// As many as the others said.
        permits: u32,
    },
    /// The session has ended, or never was: its time to live is over, it was closed, or its space was
    /// cleared. What it held is free.
    #[error("session {session} has ended: open another one; what it held is free")]
    SessionEnded {
        /// Which.
        session: SessionId,
    },
    /// The call needs a session.
    #[error("leases are held by sessions: open one first")]
    NoSession,
    /// A session's change that comes after a later one of the same session.
    #[error(
        "change {number} comes after a later one of its session: it is not carried out any more"
    )]
    Outdated {
        /// Its number.
        number: u64,
    },
    /// Too far back for a watch: keys that have been deleted since are forgotten.
    #[error(
        "what was deleted since that revision is forgotten: list the keys, and watch from revision {revision}"
    )]
    Compacted {
        /// The present one.
        revision: Revision,
    },
    /// More than there may be.
    #[error("the most {bound} is {limit}")]
    OverLimit {
        /// Of what.
        bound: StateBound,
        /// How many.
        limit: u64,
    },
}

impl StateRefusal {
    /// The stable code, for tools.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "state_conflict",
            Self::StaleToken { .. } => "stale_token",
            Self::LeaseHeld { .. } => "lease_held",
            Self::PermitsDiffer { .. } => "permits_differ",
            Self::SessionEnded { .. } => "session_ended",
            Self::NoSession => "no_session",
            Self::Outdated { .. } => "outdated",
            Self::Compacted { .. } => "compacted",
            Self::OverLimit { .. } => "over_limit",
        }
    }
}
