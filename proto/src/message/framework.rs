//! What a framework receives from the leading master (semantics C).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, Epoch, ExecutorId, FrameworkId, OfferId, SlaveId};
use crate::offer::Offer;
use crate::operation::OperationStatus;
use crate::refusal::{Leadership, Refusal};
use crate::state::StateAnswer;
use crate::status::{TaskExit, TaskStatus};

/// From a master to a framework.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "updates are the common case: a box each would cost more than it saves"
)]
pub enum MasterToFramework {
    /// The subscription holds; offers and updates follow.
    Subscribed {
        /// Its id, to be kept and used on the next subscription.
        framework_id: FrameworkId,
        /// The cluster.
        cluster_id: ClusterId,
        /// The leader's term.
        epoch: Epoch,
    },
    /// Resources to use or decline; not repeated, not persisted (semantics C2).
    Offers(Vec<Offer>),
    /// An offer is no longer valid (semantics C4).
    Rescind {
        /// Which.
        offer_id: OfferId,
    },
    /// News of a task; to be acknowledged if `update_id` is set (semantics C5).
    Update(TaskStatus),
    /// A slave was lost (semantics C7).
    Failure {
        /// Which.
        slave_id: SlaveId,
    },
    /// A call was refused; the subscription goes on.
    Refused {
        /// The call, by the name of its variant.
        call: String,
        /// Why.
        refusal: Refusal,
    },
    /// The subscription has ended; the connection is closed (semantics C7). A framework that has
    /// heard of a later term does not believe a refusal that would end it for good: it tries the
    /// next master.
    Error {
        /// Why.
        refusal: Refusal,
        /// Who says so; none if this master leads nothing.
        by: Option<Leadership>,
    },
    /// What became of an operation that has an id (semantics C6). Not repeated.
    Operation(OperationStatus),
    /// The answer to a call about framework state, subscribed or not.
    State {
        /// The client's number for the call.
        request: u64,
        /// The answer, or why not.
        answer: Result<StateAnswer, Refusal>,
    },
    /// The masters of the cluster are these now. Told on each connection and when it changes; idempotent,
    /// never answered. For whoever dials, who keeps a connection to each: the driver ignores it.
    Masters {
        /// Each `host:port`; see [`is_list_of_masters`](super::is_list_of_masters).
        addresses: Vec<String>,
    },
    /// An executor of the framework has ended (semantics C7); the ends of its tasks come as updates. Not
    /// repeated.
    ExecutorEnded {
        /// Where it was.
        slave_id: SlaveId,
        /// Which.
        executor_id: ExecutorId,
        /// How its first process ended, if it ran and that is known.
        exit: Option<TaskExit>,
    },
    /// A message of an executor: best effort (semantics B15).
    ExecutorMessage {
        /// Where it is.
        slave_id: SlaveId,
        /// Which.
        executor_id: ExecutorId,
        /// What.
        data: Bytes,
    },
}
