//! The status updates of one task on their way to its framework (semantics I1): in order, the first
//! one alone in flight, each durable before it is sent.

use std::collections::VecDeque;
use std::time::Duration;

use meros_proto::ids::UpdateId;
use meros_proto::status::{TaskState, TaskStatus};

use crate::config::{RETRY_INTERVAL_MAX, RETRY_INTERVAL_MIN};
use crate::event::RecordId;

/// Never empty while in a table.
#[derive(Debug)]
pub(crate) struct Stream {
    queue: VecDeque<Queued>,
    /// Set while the head is in flight: how long to wait for its acknowledgement.
    waiting: Option<Duration>,
}

#[derive(Debug)]
struct Queued {
    record: RecordId,
    status: TaskStatus,
}

impl Stream {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            waiting: None,
        }
    }

    /// Of updates that an earlier life made durable.
    pub(crate) fn recovered(statuses: impl IntoIterator<Item = TaskStatus>) -> Self {
        let durable = |status| Queued {
            record: RecordId(0),
            status,
        };
        Self {
            queue: statuses.into_iter().map(durable).collect(),
            waiting: None,
        }
    }

    pub(crate) fn push(&mut self, record: RecordId, status: TaskStatus) {
        self.queue.push_back(Queued { record, status });
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The update that is to be in flight, if its record is durable.
    pub(crate) fn head(&self, durable: RecordId) -> Option<&TaskStatus> {
        self.queue
            .front()
            .filter(|head| head.record <= durable)
            .map(|head| &head.status)
    }

    /// The newest update that is durable: only that far may others be told (semantics I4).
    pub(crate) fn latest(&self, durable: RecordId) -> Option<&TaskStatus> {
        self.queue
            .iter()
            .rev()
            .find(|queued| queued.record <= durable)
            .map(|queued| &queued.status)
    }

    /// The newest update made, durable or not.
    pub(crate) fn newest(&self) -> Option<&TaskStatus> {
        self.queue.back().map(|queued| &queued.status)
    }

    /// The state that it says.
    pub(crate) fn newest_state(&self) -> Option<TaskState> {
        self.newest().map(|status| status.state)
    }

    /// Removes the head if it is this one and durable; then nothing is in flight.
    pub(crate) fn acknowledge(&mut self, id: UpdateId, durable: RecordId) -> Option<TaskStatus> {
        self.head(durable)
            .filter(|head| head.update_id == Some(id))?;
        self.waiting = None;
        self.queue.pop_front().map(|queued| queued.status)
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.waiting.is_some()
    }

    /// The head was sent: how long to wait before it is sent again; longer with each repeat.
    pub(crate) fn sent(&mut self) -> Duration {
        let wait = match self.waiting {
            None => RETRY_INTERVAL_MIN,
            Some(waited) => (waited * 2).min(RETRY_INTERVAL_MAX),
        };
        self.waiting = Some(wait);
        wait
    }

    /// The master it was sent to is gone, or is to hear it anew.
    pub(crate) fn recall(&mut self) {
        self.waiting = None;
    }

    pub(crate) fn statuses(&self) -> impl Iterator<Item = &TaskStatus> {
        self.queue.iter().map(|queued| &queued.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_ten_seconds_to_ten_minutes() {
        // semantics: I1
        let mut stream = Stream::new();
        let waits: Vec<u64> = (0..9).map(|_| stream.sent().as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
        stream.recall();
        assert_eq!(stream.sent().as_secs(), 10);
    }
}
