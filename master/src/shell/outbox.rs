//! The ways out to peers: what the core wants to be sent or closed, by connection.
//!
//! A send never waits. A peer whose queue is full does not read, or is slower than what it asked
//! for: it is cut off with `Refusal::TooSlow`, which harms nobody else, and catches up when it comes
//! back (updates are repeated, offers are made anew).

use std::collections::HashMap;
use std::sync::Arc;

use meros_master_core::event::ConnectionId;
use meros_proto::labels::Label;
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::offer::Offer;
use meros_proto::refusal::Refusal;
use meros_proto::resources::Resource;
use meros_proto::state::{HoldView, KeyChange, LeaseView, StateAnswer, StateEntry};
use meros_proto::transport::{CloseCode, QueueBound, Sender, TrySendError};
use tracing::{debug, info, warn};

use crate::metrics::Metrics;

/// Messages that may wait for one slave. The largest burst is an accept that launches
/// `CALL_ITEMS_MAX` (10,000) tasks on it.
pub(crate) const SLAVE_QUEUE: usize = 16_384;

/// Messages that may wait for one framework. The largest burst is the answer to an implicit
/// reconciliation: an update for each of its tasks.
const FRAMEWORK_QUEUE: usize = 131_072;

/// Bytes that may wait for one framework: 128 MiB. Honest updates take less than 1 KiB each, so the
/// burst above fits; data and labels of tasks may be so large that their number alone bounds little.
const FRAMEWORK_QUEUE_BYTES: usize = 128 << 20;

/// Both together.
pub(crate) const FRAMEWORK_BOUND: QueueBound<MasterToFramework> = QueueBound {
    messages: FRAMEWORK_QUEUE,
    bytes: FRAMEWORK_QUEUE_BYTES,
    weigh,
};

/// Characters of a close reason: it must fit a packet beside the rest.
const REASON_CHARS_MAX: usize = 256;

/// The connections of this process. Owned by the core's thread.
#[derive(Debug)]
pub(crate) struct Outbox {
    // Hashed, not ordered: looked up for every message, never iterated but to close all.
    slaves: HashMap<ConnectionId, Sender<MasterToSlave>>,
    frameworks: HashMap<ConnectionId, Sender<MasterToFramework>>,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// Without connections.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            slaves: HashMap::new(),
            frameworks: HashMap::new(),
            metrics,
        }
    }

    /// A slave can be reached from now on.
    pub(crate) fn add_slave(&mut self, id: ConnectionId, sender: Sender<MasterToSlave>) {
        self.slaves.insert(id, sender);
    }

    /// A framework can be reached from now on.
    pub(crate) fn add_framework(&mut self, id: ConnectionId, sender: Sender<MasterToFramework>) {
        self.frameworks.insert(id, sender);
    }

    /// The connection has ended.
    pub(crate) fn remove(&mut self, id: ConnectionId) {
        self.slaves.remove(&id);
        self.frameworks.remove(&id);
    }

    /// Sends to a slave, or cuts it off.
    pub(crate) fn send_slave(&mut self, id: ConnectionId, message: MasterToSlave) {
        if !try_send(self.slaves.get(&id), message, &self.metrics) {
            self.close(id, &Refusal::TooSlow);
        }
    }

    /// Sends to a framework, or cuts it off.
    pub(crate) fn send_framework(&mut self, id: ConnectionId, message: MasterToFramework) {
        if !try_send(self.frameworks.get(&id), message, &self.metrics) {
            self.close(id, &Refusal::TooSlow);
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
        } else if let Some(sender) = self.frameworks.remove(&id) {
            sender.close(code, &reason);
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
        if let Some(sender) = self.frameworks.get(&id) {
            let _ = sender.try_send(MasterToFramework::Error {
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

/// How many bytes of memory a message for a framework takes, roughly: the parts whose size others
/// choose are counted, the rest is the size of the type.
fn weigh(message: &MasterToFramework) -> usize {
    let inside = match message {
        MasterToFramework::Offers(offers) => offers.iter().map(weigh_offer).sum(),
        MasterToFramework::Update(status) => {
            let labels = status.labels.iter().map(|label| {
                size_of::<Label>() + label.key().len() + label.value().map_or(0, str::len)
            });
            status.message.len() + status.data.len() + labels.sum::<usize>()
        }
        MasterToFramework::Refused { call, .. } => call.len(),
        MasterToFramework::Operation(status) => status.message.len(),
        MasterToFramework::State { answer, .. } => answer.as_ref().map_or(0, weigh_answer),
        MasterToFramework::Subscribed { .. }
        | MasterToFramework::Rescind { .. }
        | MasterToFramework::Failure { .. }
        | MasterToFramework::Error { .. } => 0,
    };
    size_of::<MasterToFramework>() + inside
}

fn weigh_answer(answer: &StateAnswer) -> usize {
    let weigh_entry =
        |entry: &StateEntry| size_of::<StateEntry>() + entry.key.as_str().len() + entry.value.len();
    let weigh_lease = |view: &LeaseView| {
        let holders = view.queue.iter().map(|hold| hold.holder.len());
        size_of::<LeaseView>() + size_of::<HoldView>() * view.queue.len() + holders.sum::<usize>()
    };
    match answer {
        StateAnswer::Entries { entries, .. } => entries.iter().map(weigh_entry).sum(),
        StateAnswer::Changes { changes, .. } => changes
            .iter()
            .map(|change| match change {
                KeyChange::Set(entry) => weigh_entry(entry),
                KeyChange::Deleted { key, .. } => size_of::<KeyChange>() + key.as_str().len(),
            })
            .sum(),
        StateAnswer::Lease(view) => weigh_lease(view),
        StateAnswer::Leases(views) => views.iter().map(weigh_lease).sum(),
        StateAnswer::Alive | StateAnswer::Changed(_) => 0,
    }
}

fn weigh_offer(offer: &Offer) -> usize {
    let attributes = offer.attributes.iter();
    let attributes = attributes.map(|(name, value)| name.len() + value.len());
    size_of::<Offer>()
        + size_of::<Resource>() * offer.resources.iter().count()
        + offer.hostname.len()
        + attributes.sum::<usize>()
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

#[cfg(test)]
mod tests {
    use meros_proto::ids::TaskId;
    use meros_proto::labels::Labels;
    use meros_proto::status::{Source, TaskState, TaskStatus};
    use meros_proto::time::Timestamp;

    use super::*;

    fn status() -> TaskStatus {
        let id = TaskId::new("t").unwrap();
        TaskStatus::new(id, TaskState::Running, Source::Slave, Timestamp(0))
    }

    #[test]
    fn what_others_make_large_is_weighed() {
        let small = weigh(&MasterToFramework::Update(status()));
        assert!(small < 1_024, "an honest burst must fit: {small}");
        let mut large = status();
        large.data = vec![0; 1 << 20].into();
        large.message = "m".repeat(1 << 10);
        let label = Label::new("k", Some("v".repeat(1 << 16))).unwrap();
        large.labels = Labels::from_list(vec![label; 4]).unwrap();
        let large = weigh(&MasterToFramework::Update(large));
        assert!(
            large >= small + (1 << 20) + (1 << 10) + 4 * (1 << 16),
            "{large}"
        );
    }

    #[test]
    fn a_full_queue_of_honest_updates_is_within_its_bytes() {
        let one = weigh(&MasterToFramework::Update(status()));
        assert!(
            one * FRAMEWORK_QUEUE <= FRAMEWORK_QUEUE_BYTES,
            "{one} bytes each"
        );
    }
}
