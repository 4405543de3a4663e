//! What frameworks keep with the masters: a *space* of keys, sessions and leases for each of their
//! names (docs/decisions/0012-framework-state.md).
//!
//! A space belongs to a principal, the name in a certificate, and has a name of its own. It depends
//! on no framework id: a standby reaches it before it subscribes, a restarted scheduler after.

mod call;
mod change;
mod name;
mod refusal;
mod value;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use call::{
    HoldView, KeyChange, LIST_BYTES_MAX, LIST_MAX, LeaseView, READ_MAX, SpaceView, StateAnswer,
    StateCall, StateEntry,
};
pub use change::{
    Changed, Condition, OPERATIONS_MAX, PERMITS_MAX, StateChange, StateOperation, TTL_MAX, TTL_MIN,
};
pub use name::{LeaseName, NameError, SpaceName, StateKey};
pub use refusal::{StateBound, StateRefusal};
pub use value::StateValue;

macro_rules! count {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

count! {
    /// A change of framework state. One count for all spaces of a cluster: it grows with every change
    /// and never begins again. 0: before all changes.
    Revision
}
count! {
    /// A session: the revision that opened it.
    SessionId
}
count! {
    /// The fencing token of a hold on a lease: the revision at which it was asked for. Of two holders
    /// of an exclusive lease the later one has the higher token.
    Token
}

/// A space, in all clusters of a principal's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpaceId {
    /// Whose: the name in the certificate.
    pub principal: String,
    /// Which of theirs.
    pub name: SpaceName,
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.principal, self.name)
    }
}

/// A change by a session. A session numbers its changes upwards and makes one at a time, so that one
/// that is sent again, because its answer was lost, is not carried out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// Whose change it is.
    pub session: SessionId,
    /// Higher than that of the session's change before; the same if it is sent again.
    pub number: u64,
}
