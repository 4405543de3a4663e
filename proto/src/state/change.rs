//! Changes of a space. They are replicated as they are asked for; nothing in them is a time, so that
//! carrying them out is the same on every master.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{LeaseName, Revision, SessionId, StateKey, StateValue, Token};

/// The most conditions, and the most operations, of one transaction.
pub const OPERATIONS_MAX: usize = 64;
/// The shortest time to live of a session: shorter, and a change of the leading master would end
/// those of healthy clients. Less is taken as this.
pub const TTL_MIN: Duration = Duration::from_secs(2);
/// The longest time to live of a session; more is taken as this.
pub const TTL_MAX: Duration = Duration::from_secs(60 * 60);
/// The most permits of a semaphore.
pub const PERMITS_MAX: u32 = 1_000_000;

/// One change of a space. Variants are appended, never reordered: logs outlive versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateChange {
    /// Open a session; never numbered. Answer: [`Changed::Opened`]. Asked for again it opens another.
    Open {
        /// Who opens it, for people and for the other candidates of an election; at most 256 bytes.
        holder: String,
        /// How long it lives without [`KeepAlive`](super::StateCall::KeepAlive).
        ttl: Duration,
    },
    /// End the session that asks: what it holds is free.
    Close,
    /// A transaction: if all conditions hold, all operations are carried out, else none. A key may be
    /// named several times: the last operation on it counts.
    Commit {
        /// Up to [`OPERATIONS_MAX`].
        conditions: Vec<Condition>,
        /// Up to [`OPERATIONS_MAX`]. None: it only asks whether the conditions hold.
        operations: Vec<StateOperation>,
    },
    /// Queue for a lease; needs a session. Of those in the queue the first ones, as many as it has
    /// permits, hold it. Answer: [`Changed::Queued`].
    Acquire {
        /// Which. It is there while somebody queues for it.
        lease: LeaseName,
        /// How many can hold it at once, from 1 to [`PERMITS_MAX`]; 1 is an exclusive lease. All who
        /// queue for it must say the same.
        permits: u32,
        /// Whether to wait in the queue if it cannot be held at once.
        wait: bool,
    },
    /// Leave the queue for a lease, or give up holding it. Only of the session's own.
    Release {
        /// Which.
        lease: LeaseName,
        /// Which of the session's.
        token: Token,
    },
    /// Remove all keys, sessions and leases.
    Clear,
}

/// What must be so for a transaction to be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// There is no such key.
    Absent(StateKey),
    /// The key was last changed at this revision, so that it is what the client has read.
    Revision {
        /// Which.
        key: StateKey,
        /// As read with it.
        modified: Revision,
    },
    /// The key has this value.
    Value {
        /// Which.
        key: StateKey,
        /// What.
        value: StateValue,
    },
    /// The lease is held with this token: fences off whoever has lost it.
    Holds {
        /// Which.
        lease: LeaseName,
        /// The holder's token.
        token: Token,
    },
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateOperation {
    /// Give a key a value.
    Set {
        /// Which.
        key: StateKey,
        /// What.
        value: StateValue,
    },
    /// Remove a key, if it is there.
    Delete(StateKey),
}

impl StateOperation {
    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> &StateKey {
        match self {
            Self::Set { key, .. } | Self::Delete(key) => key,
        }
    }
}

/// What a change has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    /// A session is open.
    Opened {
        /// Its id.
        session: SessionId,
        /// How long it lives without a sign of life.
        ttl: Duration,
    },
    /// It is so.
    Done {
        /// As of this revision; that of the change itself if it changed anything.
        revision: Revision,
    },
    /// In the queue for a lease.
    Queued {
        /// The fencing token.
        token: Token,
        /// Whether it is held already.
        holds: bool,
    },
}
