//! What a master does to the world: the one door out. The shell carries effects out in order and
//! decides nothing.
//!
//! Order within one `handle`: what must be durable is proposed and only told to others when it
//! comes back as `Event::Committed`.

use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::refusal::Refusal;
use meros_proto::state::{SpaceView, StateAnswer};
use meros_proto::view::ClusterEvent;
use meros_proto::why::Why;

use crate::command::Command;
use crate::event::{ConnectionId, ProposalId, RequestId};

/// Effects in the order in which they are to be carried out.
///
/// In this crate's tests it panics when dropped with effects unread: "and nothing else happened".
#[derive(Debug, Default)]
pub struct Effects(Vec<Effect>);

impl Effects {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one at the end.
    pub fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// How many wait to be carried out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes them out in order; the room is kept for the next ones.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> {
        self.0.drain(..)
    }
}

#[cfg(test)]
impl Drop for Effects {
    fn drop(&mut self) {
        let read = self.0.is_empty() || std::thread::panicking();
        assert!(read, "unread effects: {:#?}", self.0);
    }
}

/// What an operator is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// What was ordered is done, or on its way.
    Done,
    /// What was asked for.
    Why(Box<Why>),
    /// What a call about framework state is answered.
    State(StateAnswer),
    /// All spaces.
    Spaces(Vec<SpaceView>),
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most effects are publications: a box each would cost an allocation per task step"
)]
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
        reply: Result<Answer, Refusal>,
    },
    /// Something that can be read has changed.
    Publish(ClusterEvent),
}
