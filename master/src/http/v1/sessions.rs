//! The v1 frameworks that are subscribed: which stream is whose.

use std::collections::BTreeMap;

use meros_master_core::event::ConnectionId;
use meros_proto::ids::FrameworkId;
use parking_lot::Mutex;

use crate::shell::link::V1Link;

/// One subscription.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// What the core knows it by.
    pub(super) connection: ConnectionId,
    /// What its framework names in each call (semantics A4, A5).
    pub(super) stream_id: String,
    /// For what the edge has to tell it.
    pub(super) link: V1Link,
}

/// All subscriptions. As many as there are streams, which the HTTP server bounds.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<FrameworkId, Session>>);

impl Sessions {
    /// A framework is subscribed from now on; an older stream of the same is not any more (semantics
    /// A8).
    pub(super) fn insert(&self, framework: FrameworkId, session: Session) {
        self.0.lock().insert(framework, session);
    }

    /// A stream has ended.
    pub(super) fn remove(&self, framework: FrameworkId, connection: ConnectionId) {
        let mut sessions = self.0.lock();
        if sessions
            .get(&framework)
            .is_some_and(|it| it.connection == connection)
        {
            sessions.remove(&framework);
        }
    }

    pub(super) fn get(&self, framework: FrameworkId) -> Option<Session> {
        self.0.lock().get(&framework).cloned()
    }
}
