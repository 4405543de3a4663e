//! What is asked about a space, and what is answered.

use serde::{Deserialize, Serialize};

use super::{
    Changed, LeaseName, Numbered, Revision, SessionId, SpaceId, StateChange, StateKey, StateValue,
    Token,
};

/// The most keys of one [`StateCall::Read`].
pub const READ_MAX: usize = 64;
/// The most rows of one answer to a list or a watch.
pub const LIST_MAX: usize = 1_000;
/// Bytes of keys and values after which an answer to a list or a watch is cut.
pub const LIST_BYTES_MAX: usize = 1 << 20;

/// A call about a space. Reads are linearizable: they see every change that was answered before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateCall {
    /// Some keys, all as of one revision. Answer: `Entries`, without those that are not there.
    Read {
        /// Up to [`READ_MAX`].
        keys: Vec<StateKey>,
    },
    /// Keys that begin with a text, in their order. Answer: `Entries`.
    List {
        /// Empty: all.
        prefix: String,
        /// Only those after this one.
        after: Option<StateKey>,
    },
    /// What has become of keys that begin with a text. Answer: `Changes`, as soon as there are some,
    /// or without any after ten seconds.
    Watch {
        /// Empty: all.
        prefix: String,
        /// Changes after this revision.
        after: Revision,
    },
    /// Who holds a lease and who waits. Answer: `Lease`.
    Lease {
        /// Which.
        lease: LeaseName,
    },
    /// The same as soon as it is not as of this revision any more, or after ten seconds.
    WatchLease {
        /// Which.
        lease: LeaseName,
        /// Of the view that the client has.
        revision: Revision,
    },
    /// All leases. Answer: `Leases`.
    Leases,
    /// A sign of life of a session. Answer: `Alive`.
    KeepAlive {
        /// Which.
        session: SessionId,
    },
    /// Change something. Answer: `Changed`, when it is durable.
    Change {
        /// By a session: at most once however often it is sent. None: whether a change whose answer
        /// was lost is carried out is not known.
        by: Option<Numbered>,
        /// What.
        change: StateChange,
    },
}

/// What a call is answered. Variants are appended: the wire is positional.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateAnswer {
    /// Keys.
    Entries {
        /// As of this revision.
        revision: Revision,
        /// In their order.
        entries: Vec<StateEntry>,
        /// Whether there are more after the last one.
        more: bool,
    },
    /// What has become of keys, the latest of each, in the order of revisions.
    Changes {
        /// To watch on from.
        revision: Revision,
        /// Keys that are there or have been deleted.
        changes: Vec<KeyChange>,
    },
    /// A lease.
    Lease(LeaseView),
    /// Leases, by name.
    Leases(Vec<LeaseView>),
    /// The session lives on.
    Alive,
    /// It is done.
    Changed(Changed),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// The key.
    pub key: StateKey,
    /// Its value.
    pub value: StateValue,
    /// Since when it is there.
    pub created: Revision,
    /// When it was last set.
    pub modified: Revision,
}

/// What has become of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyChange {
    /// It is there.
    Set(StateEntry),
    /// It was deleted.
    Deleted {
        /// Which.
        key: StateKey,
        /// When.
        revision: Revision,
    },
}

impl KeyChange {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &StateKey {
        match self {
            Self::Set(entry) => &entry.key,
            Self::Deleted { key, .. } => key,
        }
    }

    /// When it changed.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Set(entry) => entry.modified,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}

/// A lease: those that hold it, and those that wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Its name.
    pub lease: LeaseName,
    /// How many can hold it; 0 while nobody does or wants to.
    pub permits: u32,
    /// When it last changed; 0 while nobody holds it or wants to.
    pub revision: Revision,
    /// In the order of their tokens: first those that hold it.
    pub queue: Vec<HoldView>,
}

impl LeaseView {
    /// Those that hold it.
    pub fn holders(&self) -> impl Iterator<Item = &HoldView> {
        self.queue.iter().filter(|hold| hold.holds)
    }
}

/// One that holds a lease or waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldView {
    /// Its fencing token.
    pub token: Token,
    /// Its session.
    pub session: SessionId,
    /// Who that is, as it says itself.
    pub holder: String,
    /// Whether it holds the lease; else it waits.
    pub holds: bool,
}

/// A space, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceView {
    /// Which.
    pub space: SpaceId,
    /// Keys in it.
    pub keys: u64,
    /// Bytes that it takes of its limit.
    pub bytes: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Leases that are held.
    pub leases: u64,
}
