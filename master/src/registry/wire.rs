//! What masters say to each other, on one stream each way per connection (`meros-raft/1`).
//!
//! The one that dialled asks, the other one answers, each answer with the number of its question.
//! A question names the member that it is for: another one that has come to live at the same address
//! must not answer in its place.

use meros_master_core::Format;
use meros_proto::ids::ClusterId;
use openraft::error::SnapshotMismatch;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::types::{EntryId, MasterId, Member, Types, Vote};
use super::upgrade::Knows;

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Counted by the one that asks.
    pub(crate) number: u64,
    /// For whom it is; none: for whoever answers.
    pub(crate) to: Option<MasterId>,
    /// What.
    pub(crate) call: Call,
}

/// See [`Request`]. Variants are appended, never reordered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// The leader's entries, or its sign of life. Repeated by the leader until answered; idempotent
    /// on the entries' ids.
    Append(AppendEntriesRequest<Types>),
    /// A candidate asks for a vote.
    Vote(VoteRequest<MasterId>),
    /// A piece of the leader's snapshot, for one that is far behind. Idempotent on its offset.
    Snapshot(InstallSnapshotRequest<Types>),
    /// A master wants to be a member, or is one and has a new address. Repeated by it until answered;
    /// idempotent on its number.
    Join {
        /// Its number.
        master_id: MasterId,
        /// Where it is reached. The name must be that of its certificate.
        member: Member,
    },
    /// The leader acts no more: stand for election at once. Never repeated.
    TakeOver {
        /// The leader's; void if the other one knows a later one.
        vote: Vote,
    },
    /// Would the other one vote for a candidate, as far as it knows? Changes nothing there. Repeated
    /// while no leader is heard.
    MayStand {
        /// Who asks.
        candidate: MasterId,
        /// The last entry of its log.
        last: Option<EntryId>,
    },
    /// Which cluster is it?
    Cluster,
    /// What the one that asks knows: the first on each connection.
    Formats(Knows),
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Response {
    /// Of the question.
    pub(crate) number: u64,
    /// What.
    pub(crate) answer: Answer,
}

/// See [`Response`]. Variants are appended, never reordered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To `Append`.
    Append(AppendEntriesResponse<MasterId>),
    /// To `Vote`.
    Vote(VoteResponse<MasterId>),
    /// To `Snapshot`.
    Snapshot(InstallSnapshotResponse<MasterId>),
    /// To `Join`: it is a member now.
    Joined {
        /// Of which cluster.
        cluster_id: ClusterId,
    },
    /// To `Join`: ask the leader.
    NotLeading {
        /// Where it is, if known.
        leader: Option<String>,
    },
    /// It will not do: nobody should ask again without an operator's help.
    Refused(String),
    /// It could not be done this time.
    Failed(String),
    /// To `Snapshot`: the pieces do not fit together, so send them from the first on.
    SnapshotMismatch(SnapshotMismatch),
    /// To `TakeOver`: it has asked the others for their votes.
    TakesOver,
    /// To `MayStand`.
    MayStand(bool),
    /// To `Cluster`.
    Cluster {
        /// None while it is not known.
        cluster_id: Option<ClusterId>,
    },
    /// To `Formats`.
    Formats {
        /// What this one knows.
        knows: Knows,
        /// What the cluster uses.
        current: Format,
    },
}
