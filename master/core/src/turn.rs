//! What is the same for all that is done about one event: its time, and where effects go.

use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::refusal::Refusal;
use meros_proto::time::Timestamp;

use crate::effect::{Answer, Effect, Effects};
use crate::event::{ConnectionId, RequestId};

/// One event being handled.
pub(crate) struct Turn<'a> {
    pub(crate) now: Timestamp,
    pub(crate) effects: &'a mut Effects,
}

impl Turn<'_> {
    pub(crate) fn send_slave(&mut self, connection: ConnectionId, message: MasterToSlave) {
        self.effects.push(Effect::SendSlave {
            connection,
            message,
        });
    }

    pub(crate) fn send_framework(&mut self, connection: ConnectionId, message: MasterToFramework) {
        self.effects.push(Effect::SendFramework {
            connection,
            message,
        });
    }

    pub(crate) fn close(&mut self, connection: ConnectionId, why: Refusal) {
        self.effects.push(Effect::Close { connection, why });
    }

    pub(crate) fn reply(&mut self, request: RequestId, reply: Result<Answer, Refusal>) {
        self.effects.push(Effect::Reply { request, reply });
    }
}
