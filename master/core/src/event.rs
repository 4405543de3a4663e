//! What can happen to a master: the one door in.

use meros_proto::constraint::OfferWishes;
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{Epoch, FrameworkId, SlaveId, TaskId};
use meros_proto::maintenance::Unavailability;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::minimum::Minimum;
use meros_proto::operation::Change;
use meros_proto::quota::Quota;
use meros_proto::resources::Scalar;
use meros_proto::role::RoleName;
use meros_proto::slave::SlaveMode;
use meros_proto::state::{SpaceId, StateCall};
use meros_proto::view::TaskView;
use meros_proto::why::WhyQuestion;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::command::Command;
use crate::settings::ClusterSetting;

/// A connection, numbered by the shell and never reused within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A proposal of this process, numbered by the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// A question or order of an operator, numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What an operator can ask of the leading master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperatorCall {
    /// Kill a task of any framework, as the framework itself would (semantics B9).
    KillTask {
        /// Whose.
        framework_id: FrameworkId,
        /// Which.
        task_id: TaskId,
        /// Instead of the task's own grace.
        grace: Option<Duration>,
    },
    /// End a framework with its tasks (semantics B3).
    Teardown {
        /// Which.
        framework_id: FrameworkId,
    },
    /// Set the quotas of roles, all or none (semantics E8).
    SetQuotas {
        /// Each role once; an empty quota takes it away.
        quotas: Vec<(RoleName, Quota)>,
        /// Even if there is not enough to guarantee, or more is used than the limit.
        force: bool,
    },
    /// Set the weights of roles, all or none (semantics E10).
    SetWeights {
        /// Each role once, from 0.001 to 1,000,000; 1 is what a role has otherwise.
        weights: Vec<(RoleName, Scalar)>,
    },
    /// Set what is worth an offer in roles, all or none (semantics E2).
    SetMinimums {
        /// Each role once; none takes away what was set for it.
        minimums: Vec<(RoleName, Option<Minimum>)>,
    },
    /// Decide about a slave (semantics K10, Q7).
    SetSlaveMode {
        /// Which.
        slave_id: SlaveId,
        /// What.
        mode: SlaveMode,
    },
    /// Declare a slave gone: it never comes back, its tasks end as GONE_BY_OPERATOR (semantics K7).
    MarkSlaveGone {
        /// Which.
        slave_id: SlaveId,
    },
    /// Plan the maintenance of slaves, or call it off, all or none (semantics K11).
    SetMaintenance {
        /// Each slave once; none to call it off.
        windows: Vec<(SlaveId, Option<Unavailability>)>,
        /// Whether that of all other slaves is called off.
        replace: bool,
    },
    /// Begin the maintenance of slaves for which it is planned: they are drained (semantics K11).
    StartMaintenance {
        /// Those that are drained already are left as they are, unless all are.
        slaves: BTreeSet<SlaveId>,
    },
    /// End the maintenance that was begun: slaves are active again, and their windows are over (semantics
    /// K11).
    StopMaintenance {
        /// Those whose maintenance has not begun are left as they are, unless all are.
        slaves: BTreeSet<SlaveId>,
    },
    /// Change settings of the cluster, all or none.
    SetSettings {
        /// Each once, within [`ClusterSetting::range`]; none: what masters were started with.
        settings: Vec<(ClusterSetting, Option<u64>)>,
    },
    /// Reserve, unreserve, create, destroy, grow or shrink volumes on a slave, of what no task uses there
    /// (semantics O1). Answered when it is ordered; the slave may still fail (semantics O2).
    ChangeResources {
        /// Where.
        slave_id: SlaveId,
        /// What.
        change: Box<Change>,
    },
    /// Tell why. Costs a time in proportion to the slaves, so it is limited: [`WHY_JUDGEMENTS_MAX`]
    /// a question, [`WHY_JUDGEMENTS_PER_SECOND`] altogether.
    ///
    /// [`WHY_JUDGEMENTS_MAX`]: crate::WHY_JUDGEMENTS_MAX
    /// [`WHY_JUDGEMENTS_PER_SECOND`]: crate::WHY_JUDGEMENTS_PER_SECOND
    Why(WhyQuestion),
    /// A call about the framework state of anybody.
    State {
        /// Where.
        space: SpaceId,
        /// What.
        call: StateCall,
    },
    /// List all spaces of framework state.
    Spaces,
    /// A subscribed framework changes what it said of itself (semantics B17). Answered when it is
    /// committed. Whoever asks has made sure that it is the framework, or acts for it.
    UpdateFramework {
        /// Which.
        framework_id: FrameworkId,
        /// All of it; user and checkpoint as before.
        framework: Box<FrameworkDescription>,
        /// Of its roles, those that it wants no offers for.
        suppressed_roles: Vec<RoleName>,
        /// What it wishes of its offers, for each of its roles at most once.
        wishes: Vec<OfferWishes>,
    },
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This master leads from now on: the registry is complete up to this term.
    Elected {
        /// The term; higher than any before.
        epoch: Epoch,
        /// The tasks of the leader before, as far as this master has followed it; each id of a
        /// framework once. What is made of them: see `remembered`.
        remembered: Vec<Arc<TaskView>>,
    },
    /// A command has become part of the registry, on this master in this order.
    Committed {
        /// Set if this process proposed it in this term.
        proposal: Option<ProposalId>,
        /// The command.
        command: Command,
    },
    /// A peer with a slave's certificate has connected.
    SlaveConnected {
        /// Its connection.
        connection: ConnectionId,
        /// The name in its certificate.
        principal: String,
    },
    /// A peer with a framework's certificate has connected.
    FrameworkConnected {
        /// Its connection.
        connection: ConnectionId,
        /// The name in its certificate.
        principal: String,
    },
    /// A connection has ended, by whomever; nothing more comes from it or reaches it.
    Disconnected {
        /// Which.
        connection: ConnectionId,
    },
    /// A message of a slave.
    Slave {
        /// From where.
        connection: ConnectionId,
        /// What.
        message: SlaveToMaster,
    },
    /// A message of a framework.
    Framework {
        /// From where.
        connection: ConnectionId,
        /// What.
        message: FrameworkToMaster,
    },
    /// An operator asks. Answered by exactly one `Effect::Reply`.
    Operator {
        /// To answer it.
        request: RequestId,
        /// What.
        call: OperatorCall,
    },
    /// Time has passed: what is due at `now` happens.
    Tick,
}
