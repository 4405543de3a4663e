//! What a slave does to the world: the one door out. The shell carries effects out in order and
//! decides nothing.

use std::time::Duration;

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::RunTask;
use meros_proto::refusal::Refusal;

use crate::checkpoint::Record;
use crate::event::{ConnectionId, ContainerId, RecordId};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make a record durable, in order; comes back as `Event::Persisted`, possibly for several at
    /// once.
    Persist {
        /// To know it by when it comes back.
        id: RecordId,
        /// What to remember.
        record: Record,
    },
    /// Tell a master.
    Send {
        /// Where to.
        connection: ConnectionId,
        /// What.
        message: SlaveToMaster,
    },
    /// Close a connection; the shell looks for a master anew. `Event::Disconnected` follows.
    Reconnect {
        /// Which.
        connection: ConnectionId,
    },
    /// Start a container. Answer: `ContainerStarted`, later `ContainerEnded`; or
    /// `ContainerNotStarted`.
    StartContainer {
        /// Its name.
        container: ContainerId,
        /// This slave.
        slave_id: SlaveId,
        /// What to run in it.
        run: Box<RunTask>,
    },
    /// SIGTERM to its whole tree, SIGKILL after the grace; a repeat may only shorten it. Answer:
    /// `ContainerEnded`.
    KillContainer {
        /// Which.
        container: ContainerId,
        /// From SIGTERM to SIGKILL.
        grace: Duration,
    },
    /// Nothing of this framework is left on this slave.
    FrameworkForgotten {
        /// Which.
        framework_id: FrameworkId,
    },
    /// End the process: there is nothing more to do here, for this reason. None: it has left as
    /// it was asked to.
    Exit {
        /// Why, if not asked.
        why: Option<Refusal>,
    },
}
