//! The ways out to peers: what the core wants to be sent or closed, by connection.
//!
//! A send never waits. A peer whose queue is full does not read, or is slower than what it asked
//! for: it is cut off with `Refusal::TooSlow`, which harms nobody else, and catches up when it comes
//! back (updates are repeated, offers are made anew).

use std::collections::HashMap;
use std::sync::Arc;

use meros_master_core::event::ConnectionId;
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::refusal::Refusal;
use meros_proto::transport::{CloseCode, Sender, TrySendError};
use tracing::{debug, info, warn};

use super::link::{FrameworkLink, Unsent};
use crate::metrics::Metrics;

/// Messages that may wait for one slave. The largest burst is an accept that launches
/// `CALL_ITEMS_MAX` (10,000) tasks on it.
pub(crate) const SLAVE_QUEUE: usize = 16_384;

/// A message of a framework to an executor is dropped when so many of any kind wait for the slave. It may have
/// 1 MiB, so that 16 MiB of them wait for one slave at the most, where thousands of small ones have room.
const BEST_EFFORT_WAITING_MAX: usize = 16;

/// Characters of a close reason: it must fit a packet beside the rest.
const REASON_CHARS_MAX: usize = 256;

/// The connections of this process. Owned by the core's thread.
#[derive(Debug)]
pub(crate) struct Outbox {
    // Hashed, not ordered: looked up for every message, never iterated but to close all.
    slaves: HashMap<ConnectionId, Sender<MasterToSlave>>,
    frameworks: HashMap<ConnectionId, FrameworkLink>,
    /// Where the masters are, as peers are told.
    masters: Vec<String>,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// Without connections.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            slaves: HashMap::new(),
            frameworks: HashMap::new(),
            masters: Vec::new(),
            metrics,
        }
    }

    /// A slave can be reached from now on.
    pub(crate) fn add_slave(&mut self, id: ConnectionId, sender: Sender<MasterToSlave>) {
        if let Some(addresses) = self.others() {
            // One that is not told is told with the next change, or by the next leader.
            let _ = sender.try_send(MasterToSlave::Masters { addresses });
        }
        self.slaves.insert(id, sender);
    }

    /// A framework can be reached from now on.
    pub(crate) fn add_framework(&mut self, id: ConnectionId, link: FrameworkLink) {
        if let Some(addresses) = self.others() {
            let _ = link.try_send(MasterToFramework::Masters { addresses });
        }
        self.frameworks.insert(id, link);
    }

    /// The list, if there are others than this master.
    fn others(&self) -> Option<Vec<String>> {
        (self.masters.len() > 1).then(|| self.masters.clone())
    }

    /// The masters are these from now on: whoever is connected hears of it.
    pub(crate) fn tell_masters(&mut self, addresses: Vec<String>) {
        if self.masters == addresses {
            return;
        }
        self.masters = addresses;
        for sender in self.slaves.values() {
            let addresses = self.masters.clone();
            let _ = sender.try_send(MasterToSlave::Masters { addresses });
        }
        for link in self.frameworks.values() {
            let addresses = self.masters.clone();
            let _ = link.try_send(MasterToFramework::Masters { addresses });
        }
    }

    /// The connection has ended.
    pub(crate) fn remove(&mut self, id: ConnectionId) {
        self.slaves.remove(&id);
        self.frameworks.remove(&id);
    }

    /// Sends to a slave, or cuts it off. What is best effort is dropped before that.
    pub(crate) fn send_slave(&mut self, id: ConnectionId, message: MasterToSlave) {
        let sender = self.slaves.get(&id);
        if matches!(message, MasterToSlave::ExecutorMessage { .. })
            && sender.is_some_and(|sender| sender.waiting() >= BEST_EFFORT_WAITING_MAX)
        {
            return self.metrics.executor_message_dropped();
        }
        if !try_send(sender, message, &self.metrics) {
            self.close(id, &Refusal::TooSlow);
        }
    }

    /// Sends to a framework, or cuts it off.
    pub(crate) fn send_framework(&mut self, id: ConnectionId, message: MasterToFramework) {
        match self.frameworks.get(&id).map(|link| link.try_send(message)) {
            Some(Ok(())) => {}
            Some(Err(Unsent::Full)) => self.close(id, &Refusal::TooSlow),
            // It is lost with the connection.
            Some(Err(Unsent::Gone)) | None => self.metrics.undeliverable(),
        }
    }

    /// Closes after what was sent before. The reader's task then reports the end.
    pub(crate) fn close(&mut self, id: ConnectionId, why: &Refusal) {
        let code = match why {
            Refusal::TooSlow => CloseCode::SlowReader,
            Refusal::Stopping => CloseCode::ShuttingDown,
            Refusal::Superseded { .. } => CloseCode::Superseded,
            _ => CloseCode::Refused,
        };
        let reason: String = why.to_string().chars().take(REASON_CHARS_MAX).collect();
        if let Some(sender) = self.slaves.remove(&id) {
            sender.close(code, &reason);
        } else if let Some(link) = self.frameworks.remove(&id) {
            link.close(code, &reason, why);
        } else {
            debug!(
                connection = id.0,
                why = why.code(),
                "connection to be closed is gone already"
            );
            return;
        }
        self.metrics.cut(why.code());
        match why {
            Refusal::TooSlow => warn!(connection = id.0, "peer does not read, cut off"),
            _ => info!(connection = id.0, code = why.code(), %why, "connection closed"),
        }
    }

    /// Closes all, because the process is stopping.
    pub(crate) fn close_all(&mut self) {
        for id in self.ids() {
            self.close(id, &Refusal::Stopping);
        }
    }

    /// Tells a peer where to go instead, and closes.
    pub(crate) fn redirect(&mut self, id: ConnectionId, why: &Refusal) {
        if let Some(sender) = self.slaves.get(&id) {
            // One that does not read is closed all the same.
            let _ = sender.try_send(MasterToSlave::Refused {
                refusal: why.clone(),
                by: None,
            });
        }
        if let Some(link) = self.frameworks.get(&id) {
            let _ = link.try_send(MasterToFramework::Error {
                refusal: why.clone(),
                by: None,
            });
        }
        self.close(id, why);
    }

    /// Tells all peers where to go instead, and closes.
    pub(crate) fn redirect_all(&mut self, why: &Refusal) {
        for id in self.ids() {
            self.redirect(id, why);
        }
    }

    fn ids(&self) -> Vec<ConnectionId> {
        self.slaves
            .keys()
            .chain(self.frameworks.keys())
            .copied()
            .collect()
    }
}

/// Whether the peer can go on; a message to one that is gone is lost with it.
fn try_send<M>(sender: Option<&Sender<M>>, message: M, metrics: &Metrics) -> bool {
    match sender.map(|sender| sender.try_send(message)) {
        Some(Ok(())) => true,
        Some(Err(TrySendError::Full(_))) => false,
        Some(Err(TrySendError::Closed(_))) | None => {
            metrics.undeliverable();
            true
        }
    }
}
