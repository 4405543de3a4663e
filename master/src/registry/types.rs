//! What is replicated: batches of commands, who the masters are, and how an entry looks on disk.
//!
//! The record on disk is our own, not openraft's: the log outlives the version of the library.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Cursor;

use meros_master_core::Format;
use meros_master_core::command::Command;
use openraft::{CommittedLeaderId, EntryPayload, LogId, Membership};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// The types that openraft is used with.
    pub(crate) Types:
        D = Batch,
        R = (),
        NodeId = MasterId,
        Node = Member,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
);

pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type EntryId = LogId<MasterId>;
pub(crate) type StorageError = openraft::StorageError<MasterId>;
pub(crate) type StorageIoError = openraft::StorageIOError<MasterId>;
pub(crate) type StoredMembers = openraft::StoredMembership<MasterId, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<MasterId, Member>;
pub(crate) type Vote = openraft::Vote<MasterId>;

/// A member's number, drawn at random with its data directory: a master that lost its disk is
/// another member, and cannot be taken for the one that promised.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MasterId(pub u64);

impl fmt::Display for MasterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<u64> for MasterId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

/// What the members know of one another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name in its certificate.
    pub name: String,
    /// Where it is reached, as `host:port`: QUIC on UDP and HTTP on TCP.
    pub address: String,
}

/// One time of leading, from the entry that begins it to its end. Unlike a term it is not taken up
/// again by a master that restarts, or that could not reach the others for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reign {
    /// Who leads.
    pub(crate) master: MasterId,
    /// Drawn by it, so that it knows its own.
    pub(crate) number: u64,
}

/// What one entry of the log holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// In which reign it was proposed.
    pub(crate) reign: Reign,
    /// What it is about.
    pub(crate) body: Body,
    /// What the proposer's registry was at an earlier entry, so that the others can compare.
    pub(crate) check: Option<StateCheck>,
}

/// See [`Batch`]. Variants are appended, never reordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// A reign begins: its epoch is the index of this entry.
    Lead,
    /// Commands in order, each with the proposer's number for it.
    Commands(Vec<(u64, Command)>),
}

/// The hash of a registry, of those that this release computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateCheck {
    /// After which entry.
    pub(crate) index: u64,
    /// The release that computed it: another one may know fields that ours does not.
    pub(crate) release: u64,
    /// The hash.
    pub(crate) hash: u64,
}

/// The format that an entry raises the cluster's to, if it is about that.
pub(crate) fn raises(entry: &Entry) -> Option<Format> {
    let EntryPayload::Normal(batch) = &entry.payload else {
        return None;
    };
    let Body::Commands(commands) = &batch.body else {
        return None;
    };
    let raised = commands.iter().filter_map(|(_, command)| match command {
        Command::RaiseFormat { format } => Some(*format),
        _ => None,
    });
    raised.max()
}

/// An entry as it is stored under its index.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    term: u64,
    leader: MasterId,
    payload: Payload,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Payload {
    Blank,
    Batch(Batch),
    Members(Members),
}

/// The members of the cluster as they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members {
    voters: Vec<BTreeSet<MasterId>>,
    members: BTreeMap<MasterId, Member>,
}

impl From<&Membership<MasterId, Member>> for Members {
    fn from(from: &Membership<MasterId, Member>) -> Self {
        Self {
            voters: from.get_joint_config().clone(),
            members: from.nodes().map(|(id, node)| (*id, node.clone())).collect(),
        }
    }
}

impl From<Members> for Membership<MasterId, Member> {
    fn from(from: Members) -> Self {
        Self::new(from.voters, from.members)
    }
}

/// The id of an entry.
pub(crate) fn entry_id(term: u64, leader: MasterId, index: u64) -> EntryId {
    LogId::new(CommittedLeaderId::new(term, leader), index)
}

impl From<Entry> for Record {
    fn from(entry: Entry) -> Self {
        Self {
            term: entry.log_id.leader_id.term,
            leader: entry.log_id.leader_id.node_id,
            payload: match entry.payload {
                EntryPayload::Blank => Payload::Blank,
                EntryPayload::Normal(batch) => Payload::Batch(batch),
                EntryPayload::Membership(membership) => Payload::Members((&membership).into()),
            },
        }
    }
}

impl Record {
    /// The entry that was stored under this index.
    pub(crate) fn into_entry(self, index: u64) -> Entry {
        Entry {
            log_id: entry_id(self.term, self.leader, index),
            payload: match self.payload {
                Payload::Blank => EntryPayload::Blank,
                Payload::Batch(batch) => EntryPayload::Normal(batch),
                Payload::Members(members) => EntryPayload::Membership(members.into()),
            },
        }
    }
}
