//! What an executor and its slave say to each other (semantics M1, M2), over the socket in the sandbox.
//!
//! One ordered stream each way, in frames of the codec from the first byte on: there is no opening, each
//! frame has the version. The executor speaks first: `Subscribe`, then again every update that is not
//! acknowledged, in order.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{ExecutorId, FrameworkId, SlaveId, TaskId};
use crate::refusal::Refusal;
use crate::status::TaskStatus;
use crate::task::TaskDescription;

/// News of a task from its executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorUpdate {
    /// Counted by the executor from 1 over all its tasks: what is acknowledged, and what tells a
    /// repeated delivery from a new one.
    pub number: u64,
    /// The news. The slave says itself where it comes from (`slave_id`, `executor_id`, `source`,
    /// `update_id`).
    pub status: TaskStatus,
}

/// From an executor to its slave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "updates are the common case: a box each would cost more than it saves"
)]
pub enum ExecutorToSlave {
    /// The first message of each connection. Answer: `Subscribed` or `Refused`. Repeated by the
    /// executor on each new connection.
    Subscribe {
        /// From its environment.
        framework_id: FrameworkId,
        /// From its environment.
        executor_id: ExecutorId,
        /// How many updates this process has made. Fewer than are acknowledged: it is another process than the
        /// one that made those, and what that one ran is lost.
        made: u64,
        /// Tasks that it was given and of which no update is acknowledged yet (semantics M3); with the number
        /// of the last update of those that have ended, since the next task may have the same name.
        tasks: Vec<(TaskId, Option<u64>)>,
    },
    /// News of a task. Answer: `Acknowledged`, once it is durable. Repeated by the executor on each
    /// new connection until acknowledged.
    Update(ExecutorUpdate),
    /// For the framework: best effort.
    Message(Bytes),
}

/// From a slave to an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlaveToExecutor {
    /// The executor is expected; tasks follow.
    Subscribed {
        /// Where it is.
        slave_id: SlaveId,
        /// The highest number of its updates that was heard, durable or not: where one goes on that does
        /// not count over its whole life (v1).
        heard: u64,
    },
    /// Run a task. Answer: updates. Repeated on a new connection if `Subscribe` did not name it; a task
    /// that the executor has already is left alone.
    Launch(Box<TaskDescription>),
    /// End a task. Answer: its last update. Repeated on a new connection; a repeat on the same one
    /// shortens the grace.
    Kill {
        /// Which.
        task_id: TaskId,
        /// How long it has to end.
        grace: Duration,
    },
    /// The update is durable with the slave, which takes care of it from now on.
    Acknowledged {
        /// Which.
        number: u64,
    },
    /// From the framework: best effort.
    Message(Bytes),
    /// End all tasks, and then itself; it is killed when the grace is over (semantics M4). Repeated on a
    /// new connection.
    Shutdown {
        /// How long it has.
        grace: Duration,
    },
    /// Nobody waits for this executor: it ends. The connection is closed.
    Refused {
        /// Why.
        refusal: Refusal,
    },
}
