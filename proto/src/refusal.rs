//! Refusals: what is answered to a request that cannot be carried out.
//!
//! A refusal is data on the wire, not an error of ours. Codes are stable: tools match on
//! [`Refusal::code`], people read the Display text, which says what to do.

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, Epoch, FrameworkId, OfferId, SlaveId, TaskId};
use crate::role::RoleName;
use crate::state::StateRefusal;

/// In whose name a leading master speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// Its cluster; terms of two clusters do not compare.
    pub cluster_id: ClusterId,
    /// The term it leads. What a master of an earlier one does not know, its successor may.
    pub epoch: Epoch,
}

impl Leadership {
    /// Whether the master that speaks was deposed, as far as somebody knows who belongs to this
    /// cluster and has heard of this term of it.
    #[must_use]
    pub fn is_over(self, cluster_id: Option<ClusterId>, heard: Epoch) -> bool {
        cluster_id == Some(self.cluster_id) && self.epoch < heard
    }
}

/// Why a request was refused. New reasons are appended: the wire is positional.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The request came before a subscription or registration on this connection.
    #[error("nothing is subscribed on this connection: subscribe or register first")]
    NotSubscribed,
    /// A second subscription or registration on one connection.
    #[error("this connection is subscribed already: open another one")]
    AlreadySubscribed,
    /// This master does not lead.
    #[error("this master does not lead; the leader is {}", leader.as_deref().unwrap_or("not known yet: try again"))]
    NotLeading {
        /// Where the leader is, as `address:port`, if known.
        leader: Option<String>,
    },
    /// The master has not finished its recovery.
    #[error("the master has not finished its recovery: try again in a moment")]
    Recovering,
    /// The slave belongs to another cluster.
    #[error(
        "this is cluster {ours}, but the slave's data directory belongs to cluster {theirs}: give the slave the address of its own masters, or an empty data directory"
    )]
    WrongCluster {
        /// The cluster of this master.
        ours: ClusterId,
        /// The cluster that the peer names.
        theirs: ClusterId,
    },
    /// The id is not known.
    #[error("slave {slave_id} is not known here: give it an empty data directory to register anew")]
    SlaveUnknown {
        /// The id.
        slave_id: SlaveId,
    },
    /// The id belongs to another principal.
    #[error("{what} belongs to another principal: use the certificate it was first used with")]
    NotYours {
        /// What was asked for.
        what: String,
    },
    /// A newer connection of the same slave or framework took over (semantics A8).
    #[error("a newer connection of the same {what} has taken over")]
    Superseded {
        /// `slave` or `framework`.
        what: String,
    },
    /// The framework was torn down or timed out (semantics N4).
    #[error(
        "framework {framework_id} has been removed: subscribe without an id as a new framework"
    )]
    FrameworkRemoved {
        /// The id.
        framework_id: FrameworkId,
    },
    /// The framework is not known.
    #[error(
        "framework {framework_id} is not known: check the id, or leave it out to subscribe as a new framework"
    )]
    FrameworkUnknown {
        /// The id.
        framework_id: FrameworkId,
    },
    /// The task is not known.
    #[error("task {task_id} is not known: `meros ps` lists those that are")]
    TaskUnknown {
        /// The id.
        task_id: TaskId,
    },
    /// The offer is not known: used, rescinded, timed out, or another's (semantics E6).
    #[error("offer {offer_id} is not valid: it was used, rescinded, timed out, or is another's")]
    OfferInvalid {
        /// The id.
        offer_id: OfferId,
    },
    /// A field breaks a rule.
    #[error("{field} is not valid: {why}")]
    Invalid {
        /// The field.
        field: String,
        /// The rule, and what would be right.
        why: String,
    },
    /// The request would pass a bound.
    #[error("{what} is at its limit of {limit}: {advice}")]
    OverLimit {
        /// What is counted.
        what: String,
        /// The most there may be.
        limit: u64,
        /// What to do.
        advice: String,
    },
    /// The peer did not read its messages and was cut off.
    #[error("the connection was closed because its messages were not read in time")]
    TooSlow,
    /// The process is stopping.
    #[error("the master is stopping: connect to another or try again")]
    Stopping,
    /// The role has nothing configured and no framework is in it.
    #[error("role {role} is not known: `meros roles` lists those that are")]
    RoleUnknown {
        /// The role.
        role: RoleName,
    },
    /// The slave was declared gone by an operator, and never comes back (semantics K7).
    #[error(
        "slave {slave_id} was declared gone by an operator: give it an empty data directory to use the machine again"
    )]
    SlaveGone {
        /// The id.
        slave_id: SlaveId,
    },
    /// An operator names a slave that is no member.
    #[error("slave {slave_id} is no member: `meros slaves` lists those that are")]
    NoSuchSlave {
        /// The id.
        slave_id: SlaveId,
    },
    /// What is to be changed is not there, or is in use by tasks (semantics O2).
    #[error(
        "slave {slave_id} has not got it free: {why}; what tasks use becomes free when they end"
    )]
    NotEnough {
        /// The slave.
        slave_id: SlaveId,
        /// What is missing.
        why: String,
    },
    /// The slave is not connected.
    #[error("slave {slave_id} is away: try again when `meros slaves` shows it as registered")]
    SlaveAway {
        /// The slave.
        slave_id: SlaveId,
    },
    /// A call about framework state.
    #[error(transparent)]
    State(StateRefusal),
    /// What the slave or framework has said on a connection of its own that is newer counts. It may
    /// be that this was sent before a crash, and comes late (semantics A8).
    #[error("a newer connection of the same {what} is in use: open another one")]
    Outdated {
        /// `slave` or `framework`.
        what: String,
    },
}

impl Refusal {
    /// The stable code, for tools.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotSubscribed => "not_subscribed",
            Self::AlreadySubscribed => "already_subscribed",
            Self::NotLeading { .. } => "not_leading",
            Self::Recovering => "recovering",
            Self::WrongCluster { .. } => "wrong_cluster",
            Self::SlaveUnknown { .. } => "slave_unknown",
            Self::NotYours { .. } => "not_yours",
            Self::Superseded { .. } => "superseded",
            Self::FrameworkRemoved { .. } => "framework_removed",
            Self::FrameworkUnknown { .. } => "framework_unknown",
            Self::TaskUnknown { .. } => "task_unknown",
            Self::OfferInvalid { .. } => "offer_invalid",
            Self::Invalid { .. } => "invalid",
            Self::OverLimit { .. } => "over_limit",
            Self::TooSlow => "too_slow",
            Self::Stopping => "stopping",
            Self::RoleUnknown { .. } => "role_unknown",
            Self::SlaveGone { .. } => "slave_gone",
            Self::NoSuchSlave { .. } => "no_such_slave",
            Self::NotEnough { .. } => "not_enough",
            Self::SlaveAway { .. } => "slave_away",
            Self::State(refusal) => refusal.code(),
            Self::Outdated { .. } => "outdated",
        }
    }

    /// Whether the same request may succeed later without a change on the peer's side.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::NotLeading { .. }
                | Self::Recovering
                | Self::OverLimit { .. }
                | Self::SlaveAway { .. }
                | Self::TooSlow
                | Self::Stopping
                | Self::Outdated { .. }
        )
    }
}
