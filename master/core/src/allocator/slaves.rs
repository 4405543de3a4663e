//! A slave as the allocator sees it.

use meros_proto::resources::{ResourceName, Resources};

use super::constraints::Profile;

/// Why a whole slave is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exclusion {
    /// It is not connected.
    Away,
    /// An operator has taken it out: deactivated, draining, or down for maintenance.
    ByOperator,
}

#[derive(Debug)]
pub(super) struct Slave {
    pub(super) total: Resources,
    pub(super) free: Resources,
    pub(super) is_here: bool,
    pub(super) is_excluded: bool,
    pub(super) has_gpus: bool,
    pub(super) profile: Profile,
}

impl Slave {
    pub(super) fn new(total: &Resources, profile: Profile, is_excluded: bool) -> Self {
        Self {
            total: total.clone(),
            free: total.clone(),
            is_here: true,
            is_excluded,
            has_gpus: !total.scalar(&ResourceName::GPUS).is_zero(),
            profile,
        }
    }

    pub(super) fn exclusion(&self) -> Option<Exclusion> {
        match (self.is_here, self.is_excluded) {
            (false, _) => Some(Exclusion::Away),
            (true, true) => Some(Exclusion::ByOperator),
            (true, false) => None,
        }
    }
}
