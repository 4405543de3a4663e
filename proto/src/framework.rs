//! Frameworks as they describe themselves (semantics B1).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::FrameworkId;
use crate::labels::Labels;
use crate::role::RoleName;

/// How long a native framework may stay away before it is removed with its tasks (semantics Q6).
pub const FAILOVER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The longest failover timeout; a longer one is refused.
pub const FAILOVER_TIMEOUT_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// The most roles that one framework may have.
pub const FRAMEWORK_ROLES_MAX: usize = 256;

/// What a framework understands beyond the basics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FrameworkCapability {
    /// Hears DROPPED, UNREACHABLE, GONE, GONE_BY_OPERATOR and UNKNOWN instead of LOST
    /// (semantics F5). Native frameworks have it unless they take it off.
    PartitionAware,
    /// Hears KILLING (semantics F2).
    TaskKillingState,
    /// Is offered resources that may be taken away at any time (semantics E2).
    RevocableResources,
    /// Is offered volumes that others use as well (semantics D7).
    SharedResources,
    /// Is offered slaves with graphics processors, which others had better leave alone (semantics
    /// E2).
    GpuResources,
    /// Understands reservations on top of reservations (semantics D6). Native frameworks have it
    /// unless they take it off.
    ReservationRefinement,
}

/// A framework as it describes itself when it subscribes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameworkDescription {
    /// For people; not empty.
    pub name: String,
    /// Its own id, to take up where it left off; absent: a new framework.
    pub framework_id: Option<FrameworkId>,
    /// The roles it wants offers for, at least one, each once.
    pub roles: Vec<RoleName>,
    /// Who it is: the name in its certificate. Filled in when absent, refused when another.
    pub principal: Option<String>,
    /// The user its tasks run as; absent: the slave's own. Cannot be changed (semantics B2).
    pub user: Option<String>,
    /// How long it may stay away before it is removed with its tasks.
    pub failover_timeout: Duration,
    /// Whether its tasks outlive a restart of the slave process (semantics L1). Cannot be changed.
    pub checkpoint: bool,
    /// What it understands.
    pub capabilities: Vec<FrameworkCapability>,
    /// Where its user interface is; may be empty.
    pub webui_url: String,
    /// For people and tools.
    pub labels: Labels,
}

impl FrameworkDescription {
    /// A new framework with the safe defaults of semantics Q6.
    #[must_use]
    pub fn new(name: impl Into<String>, role: RoleName) -> Self {
        Self {
            name: name.into(),
            framework_id: None,
            roles: vec![role],
            principal: None,
            user: None,
            failover_timeout: FAILOVER_TIMEOUT_DEFAULT,
            checkpoint: true,
            capabilities: vec![
                FrameworkCapability::PartitionAware,
                FrameworkCapability::TaskKillingState,
                FrameworkCapability::ReservationRefinement,
            ],
            webui_url: String::new(),
            labels: Labels::default(),
        }
    }

    /// Whether it has a capability.
    #[must_use]
    pub fn can(&self, capability: FrameworkCapability) -> bool {
        self.capabilities.contains(&capability)
    }
}
