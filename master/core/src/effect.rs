//! What a master does to the world: the one door out. The shell carries effects out in order and
//! decides nothing.
//!
//! Order within one `handle`: what must be durable is proposed and only told to others when it
//! comes back as `Event::Committed`.

use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::refusal::Refusal;
use meros_proto::view::ClusterEvent;

use crate::command::Command;
use crate::event::{ConnectionId, ProposalId, RequestId};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make the command part of the registry; comes back as `Event::Committed`.
    Propose {
        /// To know it by when it comes back.
        proposal: ProposalId,
        /// The command.
        command: Command,
    },
    /// Tell a slave.
    SendSlave {
        /// Where to.
        connection: ConnectionId,
        /// What.
        message: MasterToSlave,
    },
    /// Tell a framework.
    SendFramework {
        /// Where to.
        connection: ConnectionId,
        /// What.
        message: MasterToFramework,
    },
    /// Close a connection after what was sent on it before. `Event::Disconnected` follows, and
    /// changes nothing any more.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why; a code and a text for the peer.
        why: Refusal,
    },
    /// Answer an operator.
    Reply {
        /// The request.
        request: RequestId,
        /// Done, or why not.
        reply: Result<(), Refusal>,
    },
    /// Something that can be read has changed.
    Publish(ClusterEvent),
}
