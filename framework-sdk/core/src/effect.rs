//! What a driver does to the world: the one door out. The shell carries effects out in order and
//! decides nothing.

use std::time::Duration;

use bytes::Bytes;
use meros_proto::ids::{ClusterId, ExecutorId, FrameworkId, OfferId, SlaveId};
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::offer::Offer;
use meros_proto::operation::OperationStatus;
use meros_proto::refusal::Refusal;
use meros_proto::status::{TaskExit, TaskStatus};

/// Why a session has ended for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// The framework left; its tasks stay for its failover timeout.
    Left,
    /// The framework was torn down at its own wish.
    TornDown {
        /// Whether a master said so. If not, none could be reached in time, and the framework
        /// ends with its failover timeout.
        confirmed: bool,
    },
    /// A master refused the subscription, and would refuse it again.
    Refused(Refusal),
    /// The masters and this framework do not trust each other's certificates.
    Untrusted {
        /// What is wrong, for a person.
        why: String,
    },
    /// Something beside the masters failed that the session cannot do without.
    Failed {
        /// What, for a person.
        why: String,
    },
}

/// News for the framework.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "updates are the common case: a box each would cost more"
)]
pub enum News {
    /// The subscription holds. On the first one the id is new; store it to come back as the same
    /// framework.
    Subscribed {
        /// The framework's id.
        framework_id: FrameworkId,
        /// The cluster.
        cluster_id: ClusterId,
        /// Whether this driver was subscribed before: offers held from then are void.
        again: bool,
    },
    /// An attempt to reach a master failed; another follows by itself.
    ConnectFailed {
        /// Why, for a person.
        why: String,
        /// Failed attempts in a row.
        attempts: u32,
        /// When the next one is made, from now.
        retry_in: Duration,
    },
    /// The subscription is interrupted: offers are void, the driver is coming back by itself.
    Disconnected {
        /// Why, for a person.
        why: String,
    },
    /// Resources to use or decline.
    Offers(Vec<Offer>),
    /// An offer is no longer valid.
    Rescinded(OfferId),
    /// News of a task; duplicates have been taken out. If it has an update id, it comes again to
    /// a later session until it is acknowledged.
    Update(TaskStatus),
    /// A slave was lost; what becomes of each task follows as updates.
    SlaveLost(SlaveId),
    /// A call was refused; the subscription goes on.
    Refused {
        /// The call's name.
        call: String,
        /// Why.
        refusal: Refusal,
    },
    /// What became of an operation on resources that was given an id. Said once; after an
    /// interruption the next offers show what is reserved.
    Operation(OperationStatus),
    /// An executor has ended; the ends of its tasks come as updates. Said once.
    ExecutorEnded {
        /// Where it was.
        slave_id: SlaveId,
        /// Which.
        executor_id: ExecutorId,
        /// How its first process ended, if it ran and that is known.
        exit: Option<TaskExit>,
    },
    /// A message of an executor: best effort.
    ExecutorMessage {
        /// Where it is.
        slave_id: SlaveId,
        /// Which.
        executor_id: ExecutorId,
        /// What.
        data: Bytes,
    },
    /// The session has ended and does not come back by itself. Always the last news.
    Ended(EndReason),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "updates are the common case: a box each would cost more"
)]
pub enum Effect {
    /// Tell the master, on the connection that stands.
    Send(FrameworkToMaster),
    /// Tell the framework.
    Deliver(News),
    /// Make one attempt to reach a master: the one named, or else the next of the list. Answer:
    /// `Connected` or `ConnectFailed`.
    Connect {
        /// Where the leader is said to be, as `address:port`. From the wire: may be nonsense.
        hint: Option<String>,
    },
    /// Close the connection after what was sent before. Nothing more comes from it, no
    /// `Disconnected` either.
    Disconnect,
}
