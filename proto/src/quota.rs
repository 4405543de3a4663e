//! Quota: what a role is guaranteed, and what it is limited to (semantics E8).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::resources::{ResourceName, Scalar};

/// The most names in the guarantees or the limits of one role.
pub const QUOTA_NAMES_MAX: usize = 64;

/// The quota of a role, and of all roles below it together.
///
/// Against it counts what they hold by tasks and by offers, and all that is reserved for them.
/// Revocable resources do not count. A name that is not in here is neither guaranteed nor limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// So much is kept for the role, whether it has frameworks or not.
    pub guarantees: BTreeMap<ResourceName, Scalar>,
    /// More than this is not offered to the role. At least the guarantee of the same name.
    pub limits: BTreeMap<ResourceName, Scalar>,
}

impl Quota {
    /// Whether it says nothing, so that the role has no quota.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.guarantees.is_empty() && self.limits.is_empty()
    }
}
