//! Slaves as they describe themselves.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attribute::Attributes;
use crate::resources::Resources;

/// What a slave can do beyond the basics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SlaveCapability {
    /// Runs executors that frameworks bring.
    CustomExecutors,
}

/// A slave as it describes itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlaveDescription {
    /// What tasks and people reach the machine by.
    pub hostname: String,
    /// Where its HTTP endpoint listens, as `address:port`; empty if it has none.
    pub http_address: String,
    /// All it has to offer.
    pub resources: Resources,
    /// What its admin says of it, and what isolation it has (`isolation/…`).
    pub attributes: Attributes,
    /// What it can do.
    pub capabilities: Vec<SlaveCapability>,
    /// The version of the software.
    pub version: String,
}

/// What operators have decided about a slave (semantics K10, Q7).
///
/// Transitions, by operators only: from each to each. A slave that is declared gone has none any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlaveMode {
    /// What is free on it is offered.
    #[default]
    Active,
    /// Nothing is offered; its tasks go on.
    Deactivated,
    /// Nothing is offered, and its tasks are killed. It is drained once all have ended and their
    /// frameworks have acknowledged that.
    Draining {
        /// From SIGTERM to SIGKILL, in place of the tasks' own; at most
        /// [`KILL_GRACE_MAX`](crate::task::KILL_GRACE_MAX). None: the tasks' own.
        grace: Option<Duration>,
        /// Whether it is declared gone once it is drained.
        mark_gone: bool,
    },
}

impl SlaveMode {
    /// The word, as JSON has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deactivated => "deactivated",
            Self::Draining { .. } => "draining",
        }
    }

    /// Whether what is free on it is offered.
    #[must_use]
    pub fn is_offered(self) -> bool {
        self == Self::Active
    }
}

/// What the leading master holds of a slave (semantics K).
///
/// Transitions: `Recovered -> Registered | Unreachable`;
/// `Registered -> Disconnected | Unreachable | removed`;
/// `Disconnected -> Registered | Unreachable | removed`; `Unreachable -> Registered`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlaveState {
    /// Known from the registry; has not come back to this leader yet (semantics J2).
    Recovered,
    /// Connected and answering.
    Registered,
    /// Its connection broke; it may come back (semantics K3).
    Disconnected,
    /// Given up after too long a silence; it may still come back (semantics K4, K5).
    Unreachable,
}

impl SlaveState {
    /// The word, as JSON has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Registered => "registered",
            Self::Disconnected => "disconnected",
            Self::Unreachable => "unreachable",
        }
    }
}
