//! What a driver does to the world: the one door out.

use meros_proto::ids::{FrameworkId, OfferId, SlaveId};
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::offer::Offer;
use meros_proto::refusal::Refusal;
use meros_proto::status::TaskStatus;

/// News for the framework.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The subscription holds. On the first one the id is new; store it to come back as the same
    /// framework.
    Subscribed {
        /// The framework's id.
        framework_id: FrameworkId,
        /// Whether it is a re-subscription: offers held before are void.
        again: bool,
    },
    /// The connection is lost: offers are void, the driver is coming back by itself.
    Disconnected,
    /// Resources to use or decline.
    Offers(Vec<Offer>),
    /// An offer is no longer valid.
    Rescinded(OfferId),
    /// News of a task; duplicates have been taken out.
    Update(TaskStatus),
    /// A slave was lost.
    SlaveLost(SlaveId),
    /// A call was refused; the subscription goes on.
    Refused {
        /// The call's name.
        call: String,
        /// Why.
        refusal: Refusal,
    },
    /// The session has ended and does not come back by itself.
    Ended {
        /// Why; none if it was asked for.
        why: Option<Refusal>,
    },
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell the master.
    Send(FrameworkToMaster),
    /// Tell the framework.
    Deliver(News),
    /// Look for the leading master, at this address first if one is named; the shell backs off
    /// between attempts. Answer: `Connected`, or `Disconnected` for an attempt that failed.
    Connect {
        /// Where the leader is said to be, as `address:port`.
        hint: Option<String>,
    },
    /// Close the connection after what was sent before.
    Disconnect,
}
