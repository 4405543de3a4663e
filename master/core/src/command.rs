//! What is replicated: the configured truth, as commands that carry their own ids and times
//! (architecture decision 4). `Registry::apply` is total: a command that no longer fits is a
//! result, never a panic, because every master applies the same entry.

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{ClusterId, FrameworkId, SlaveId};
use meros_proto::maintenance::Unavailability;
use meros_proto::minimum::Minimum;
use meros_proto::quota::Quota;
use meros_proto::resources::Scalar;
use meros_proto::role::RoleName;
use meros_proto::slave::{SlaveDescription, SlaveMode};
use meros_proto::state::{Numbered, SessionId, SpaceId, StateChange};
use meros_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::Format;
use crate::settings::ClusterSetting;

/// One replicated change. Variants are appended, never reordered: logs outlive versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a cluster.
    FormCluster {
        /// Drawn at random by the first master.
        cluster_id: ClusterId,
    },
    /// A slave becomes a member (semantics J1).
    AdmitSlave {
        /// Its new id.
        slave_id: SlaveId,
        /// The name in its certificate: nobody else may come back under this id.
        principal: String,
        /// What it is and has.
        slave: SlaveDescription,
        /// When.
        at: Timestamp,
    },
    /// A slave came back as something else than it was.
    UpdateSlave {
        /// Which.
        slave_id: SlaveId,
        /// What it is and has now.
        slave: SlaveDescription,
    },
    /// A slave is given up (semantics K4).
    MarkSlaveUnreachable {
        /// Which.
        slave_id: SlaveId,
        /// The one time for all its tasks.
        at: Timestamp,
    },
    /// An unreachable slave is back (semantics K5).
    MarkSlaveReachable {
        /// Which.
        slave_id: SlaveId,
    },
    /// A slave left for good (semantics K8).
    RemoveSlave {
        /// Which.
        slave_id: SlaveId,
        /// When.
        at: Timestamp,
    },
    /// A framework is known from now on (semantics Q1).
    AdmitFramework {
        /// Its new id.
        framework_id: FrameworkId,
        /// Who it is: the name in its certificate.
        principal: String,
        /// What it says of itself.
        framework: FrameworkDescription,
        /// Roles without offers.
        suppressed_roles: Vec<RoleName>,
        /// When.
        at: Timestamp,
    },
    /// A framework came back with another description or other suppressed roles.
    UpdateFramework {
        /// Which.
        framework_id: FrameworkId,
        /// What it says of itself now.
        framework: FrameworkDescription,
        /// Roles without offers.
        suppressed_roles: Vec<RoleName>,
    },
    /// A framework was torn down or timed out (semantics N3, N4).
    RemoveFramework {
        /// Which.
        framework_id: FrameworkId,
        /// When.
        at: Timestamp,
    },
    /// Roles have other quotas from now on, all of them together (semantics E8).
    SetQuotas {
        /// Each role once; an empty quota takes it away.
        quotas: Vec<(RoleName, Quota)>,
    },
    /// Roles have other weights from now on (semantics E10).
    SetWeights {
        /// Each role once; 1 is what a role has otherwise.
        weights: Vec<(RoleName, Scalar)>,
    },
    /// Operators have decided about a slave (semantics K10).
    SetSlaveMode {
        /// Which.
        slave_id: SlaveId,
        /// What.
        mode: SlaveMode,
        /// When.
        at: Timestamp,
    },
    /// A slave was declared gone by an operator: it never comes back (semantics K7).
    MarkSlaveGone {
        /// Which.
        slave_id: SlaveId,
        /// When.
        at: Timestamp,
    },
    /// The maintenance of slaves is planned, or called off, all of them together (semantics K11).
    SetMaintenance {
        /// Each slave once.
        windows: Vec<(SlaveId, Option<Unavailability>)>,
    },
    /// A client changes framework state. What comes of it is decided when it is applied.
    ChangeState {
        /// Where.
        space: SpaceId,
        /// By which session, so that it is carried out once.
        by: Option<Numbered>,
        /// What.
        change: StateChange,
    },
    /// A client of framework state has shown no sign of life for its time to live.
    EndStateSession {
        /// Where.
        space: SpaceId,
        /// Which.
        session: SessionId,
    },
    /// Every master knows this format, so what is replicated may have it from now on. There is no way back.
    RaiseFormat {
        /// Higher than before.
        format: Format,
    },
    /// Operators have changed settings of the cluster, all of them together.
    SetSettings {
        /// Each once, in milliseconds or as a number; none: what masters were started with.
        settings: Vec<(ClusterSetting, Option<u64>)>,
    },
    /// Other amounts are worth an offer in these roles from now on (semantics E2).
    SetMinimums {
        /// Each role once; none takes it away.
        minimums: Vec<(RoleName, Option<Minimum>)>,
    },
}
