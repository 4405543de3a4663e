//! The v1 frameworks that are subscribed: which stream is whose.

use std::collections::BTreeMap;
use std::sync::Arc;

use meros_master_core::event::ConnectionId;
use meros_proto::ids::FrameworkId;
use parking_lot::Mutex;

use super::rate::Rate;
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
    /// How often it calls.
    pub(super) rate: Arc<Rate>,
}

/// All subscriptions. As many as there are streams, which the HTTP server bounds.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<FrameworkId, Session>>);

impl Sessions {
    /// A framework is subscribed from now on; an older stream of the same is not any more (semantics
    /// A8). Streams are read at the pace of their clients: an older one may hear of its subscription
    /// after the newer one did, and changes nothing.
    pub(super) fn insert(&self, framework: FrameworkId, session: Session) {
        let mut sessions = self.0.lock();
        let present = sessions.get(&framework).map(|it| it.connection);
        if present.is_none_or(|present| present < session.connection) {
            sessions.insert(framework, session);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::link::Pool;

    #[test]
    fn an_older_stream_that_hears_late_of_its_subscription_replaces_no_newer_one() {
        let sessions = Sessions::default();
        let framework = FrameworkId(1);
        let session = |connection, stream_id: &str| Session {
            connection: ConnectionId(connection),
            stream_id: stream_id.to_owned(),
            link: V1Link::new(&Pool::default()),
            rate: Arc::default(),
        };
        sessions.insert(framework, session(2, "new"));
        sessions.insert(framework, session(1, "old"));
        assert_eq!(sessions.get(framework).unwrap().stream_id, "new");

        sessions.remove(framework, ConnectionId(1));
        assert_eq!(sessions.get(framework).unwrap().stream_id, "new");

        sessions.insert(framework, session(3, "newest"));
        assert_eq!(sessions.get(framework).unwrap().stream_id, "newest");
        sessions.remove(framework, ConnectionId(3));
        assert!(sessions.get(framework).is_none());
    }
}
