//! What a slave does to the world: the one door out. The shell carries effects out in order and
//! decides nothing.
//!
//! Order within one `handle`: what must be durable is persisted first and only acted on or told to
//! others when it comes back as `Event::Persisted`.

use std::collections::BTreeMap;
use std::time::Duration;

use meros_proto::check::Probe;
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::message::executor::SlaveToExecutor;
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::{RunExecutor, RunTask};
use meros_proto::refusal::Refusal;
use meros_proto::resources::Resources;

use crate::checkpoint::Record;
use crate::claims::{MountedVolume, VolumeDirectory};
use crate::event::{ConnectionId, ContainerId, ProbeId, RecordId, SessionId};

/// One thing to do.
#[expect(
    clippy::large_enum_variant,
    reason = "the largest, a status update, is the most frequent, and effects live for microseconds"
)]
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
    /// Close a connection; the shell looks for a master anew. `Event::Disconnected` follows, and
    /// changes nothing any more.
    Reconnect {
        /// Which.
        connection: ConnectionId,
        /// Where the leader is said to be, as `address:port`; worth trying first.
        leader: Option<String>,
    },
    /// Start a container. Answer: `ContainerStarted`, later `ContainerEnded` or `ContainerLost`; or
    /// `ContainerNotStarted`.
    StartContainer {
        /// Its name.
        container: ContainerId,
        /// This slave.
        slave_id: SlaveId,
        /// What to run in it.
        run: Box<RunTask>,
        /// The volumes that it finds in its sandbox; a directory that is not there yet is made.
        volumes: Vec<MountedVolume>,
        /// Whether it is killed when the slave goes, however that happens (semantics L1).
        ends_with_slave: bool,
    },
    /// Stop preparing a container that has not answered yet. The answer is `ContainerNotStarted`, or
    /// `ContainerStarted` if it was too late, and comes without this, too.
    CancelStart {
        /// Which.
        container: ContainerId,
    },
    /// Start the container of an executor, with a socket in its sandbox through which it subscribes. Answer:
    /// as for `StartContainer`; then `Executor` and `ExecutorDisconnected` for each connection.
    StartExecutor {
        /// Its name.
        container: ContainerId,
        /// This slave.
        slave_id: SlaveId,
        /// What to run in it.
        run: Box<RunExecutor>,
        /// As for `StartContainer`.
        ends_with_slave: bool,
    },
    /// Change what the container of an executor may use; only after `ContainerStarted`. Before the task is
    /// given that it is for.
    ResizeContainer {
        /// Which.
        container: ContainerId,
        /// What the executor and its tasks take together.
        resources: Resources,
    },
    /// Tell an executor. Lost if the connection has ended.
    TellExecutor {
        /// On which connection.
        session: SessionId,
        /// What.
        message: SlaveToExecutor,
    },
    /// Close a connection of an executor, after what was sent before. `Event::ExecutorDisconnected` may
    /// follow, and changes nothing any more.
    CloseSession {
        /// Which.
        session: SessionId,
    },
    /// SIGTERM to its whole tree, SIGKILL after the grace; a repeat may only shorten it. Only for
    /// containers that have answered `ContainerStarted` or were found. Answer: `ContainerEnded` or
    /// `ContainerLost`.
    KillContainer {
        /// Which.
        container: ContainerId,
        /// From SIGTERM to SIGKILL.
        grace: Duration,
    },
    /// Probe a task that runs, once. Answer: `Probed`, unless the container ends first. The shell may
    /// make it wait for a place, for no longer than the timeout.
    Probe {
        /// To know it by when it comes back.
        id: ProbeId,
        /// What to try.
        probe: Box<Probe>,
        /// How long that may take, from the moment that it has a place.
        timeout: Duration,
    },
    /// Nothing is to be said of this container any more: later lives need not find it. It has ended.
    ForgetContainer {
        /// Which.
        container: ContainerId,
    },
    /// Remove the directory of a destroyed volume with all that is in it, and nothing else. Answer:
    /// `VolumeWiped`; asked again in the next life if there is none.
    WipeVolume {
        /// Which.
        directory: VolumeDirectory,
    },
    /// Nothing of this framework is left on this slave.
    FrameworkForgotten {
        /// Which.
        framework_id: FrameworkId,
    },
    /// End the process after what was sent before: there is nothing more to do here, for this
    /// reason. None: it goes as it was asked to, and containers that still run go on. With a reason they
    /// are killed by the shell: there is no cluster that they belong to.
    Exit {
        /// Why, if not asked.
        why: Option<Refusal>,
    },
}

/// The effects of one or more calls of `handle`, in order.
#[derive(Debug, Default)]
pub struct Effects {
    queue: Vec<Effect>,
    /// Where the `ResizeContainer` of each container is in the queue.
    resizes: BTreeMap<ContainerId, usize>,
}

impl Effects {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes all of them out, in order; the memory is kept for the next.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> + '_ {
        self.resizes.clear();
        self.queue.drain(..)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        self.queue.push(effect);
    }

    /// A `ResizeContainer`. Of several that nobody has taken out yet only one is left, the first in the order, with
    /// what the last one said: a thousand tasks given at once change the limits once.
    pub(crate) fn resize(&mut self, container: ContainerId, resources: Resources) {
        let at = *self.resizes.entry(container).or_insert(self.queue.len());
        let resize = Effect::ResizeContainer {
            container,
            resources,
        };
        match self.queue.get_mut(at) {
            Some(earlier) => *earlier = resize,
            None => self.queue.push(resize),
        }
    }
}
