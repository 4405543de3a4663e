//! Updates that the master itself makes, sent again until acknowledged (semantics Q2).
//!
//! Invariants: M5 of one task at most one update is in flight and at most one waits behind it: the
//! newest (semantics I1, I4). Bound: [`UPDATES_PER_FRAMEWORK_MAX`].

use std::collections::BTreeMap;
use std::time::Duration;

use meros_proto::ids::{Epoch, FrameworkId, TaskId, UpdateId};
use meros_proto::status::TaskStatus;

/// The most tasks of one framework with an unacknowledged update of the master. What comes beyond
/// it is sent once, without an id, as Mesos sends all of them (semantics I2), and is counted; the
/// framework learns of what it missed by reconciliation.
pub const UPDATES_PER_FRAMEWORK_MAX: usize = 100_000;
/// The first wait for an acknowledgement; each further one is twice as long (semantics I1).
pub const RETRY_MIN: Duration = Duration::from_secs(10);
/// The longest wait for an acknowledgement (semantics I1).
pub const RETRY_MAX: Duration = Duration::from_secs(10 * 60);

/// The unacknowledged updates of one task.
#[derive(Debug)]
struct Stream {
    head: TaskStatus,
    sent: u32,
    next: Option<TaskStatus>,
}

/// What to do with an update that was added.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// Send it now, and again until it is acknowledged.
    InFlight(TaskStatus),
    /// It follows when the one in flight is acknowledged.
    Waits,
    /// Send it once: there are too many.
    Unreliable(TaskStatus),
}

/// An update that was acknowledged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// The update.
    pub(crate) status: TaskStatus,
    /// The one to send now.
    pub(crate) next: Option<TaskStatus>,
}

/// The unacknowledged updates of all frameworks.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    last: u64,
    frameworks: BTreeMap<FrameworkId, BTreeMap<TaskId, Stream>>,
}

impl Updates {
    /// Gives an update its id and a place in its task's stream.
    pub(crate) fn add(
        &mut self,
        epoch: Epoch,
        framework: FrameworkId,
        mut status: TaskStatus,
    ) -> Added {
        let streams = self.frameworks.entry(framework).or_default();
        if !streams.contains_key(&status.task_id) && streams.len() >= UPDATES_PER_FRAMEWORK_MAX {
            return Added::Unreliable(status);
        }
        self.last += 1;
        status.update_id = Some(UpdateId::by_master(epoch, self.last));
        match streams.get_mut(&status.task_id) {
            Some(stream) => {
                stream.next = Some(status);
                Added::Waits
            }
            None => {
                let stream = Stream {
                    head: status.clone(),
                    sent: 1,
                    next: None,
                };
                streams.insert(status.task_id.clone(), stream);
                Added::InFlight(status)
            }
        }
    }

    /// Ends an update that is in flight; none if it is not.
    pub(crate) fn acknowledge(
        &mut self,
        framework: FrameworkId,
        task: &TaskId,
        update_id: UpdateId,
    ) -> Option<Acknowledged> {
        let streams = self.frameworks.get_mut(&framework)?;
        let stream = streams.get_mut(task)?;
        if stream.head.update_id != Some(update_id) {
            return None;
        }
        if let Some(next) = stream.next.take() {
            stream.sent = 1;
            let status = std::mem::replace(&mut stream.head, next.clone());
            return Some(Acknowledged {
                status,
                next: Some(next),
            });
        }
        let status = streams.remove(task)?.head;
        if streams.is_empty() {
            self.frameworks.remove(&framework);
        }
        Some(Acknowledged { status, next: None })
    }

    /// The update in flight, to be sent again.
    pub(crate) fn repeat(&mut self, framework: FrameworkId, task: &TaskId) -> Option<TaskStatus> {
        let stream = self.frameworks.get_mut(&framework)?.get_mut(task)?;
        stream.sent = stream.sent.saturating_add(1);
        Some(stream.head.clone())
    }

    /// How long to wait for the acknowledgement of the update in flight.
    pub(crate) fn retry_after(&self, framework: FrameworkId, task: &TaskId) -> Option<Duration> {
        let stream = self.frameworks.get(&framework)?.get(task)?;
        let doublings = stream.sent.saturating_sub(1).min(16);
        Some(RETRY_MIN.saturating_mul(1 << doublings).min(RETRY_MAX))
    }

    /// All that are in flight, to be sent to a framework that is back.
    pub(crate) fn in_flight(&mut self, framework: FrameworkId) -> Vec<TaskStatus> {
        let streams = self
            .frameworks
            .get_mut(&framework)
            .into_iter()
            .flat_map(BTreeMap::values_mut);
        streams
            .map(|stream| {
                stream.sent = 1;
                stream.head.clone()
            })
            .collect()
    }

    /// Whether an update of a task waits for its acknowledgement.
    pub(crate) fn contains(&self, framework: FrameworkId, task: &TaskId) -> bool {
        self.frameworks
            .get(&framework)
            .is_some_and(|streams| streams.contains_key(task))
    }

    /// Forgets those of a framework that is gone; tells which tasks had one.
    pub(crate) fn remove(&mut self, framework: FrameworkId) -> Vec<TaskId> {
        self.frameworks
            .remove(&framework)
            .into_iter()
            .flat_map(BTreeMap::into_keys)
            .collect()
    }

    /// Frameworks and tasks with an update in flight.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FrameworkId, &TaskId)> {
        self.frameworks
            .iter()
            .flat_map(|(id, streams)| streams.keys().map(move |task| (*id, task)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meros_proto::status::{Source, TaskState};
    use meros_proto::time::Timestamp;

    fn status(state: TaskState) -> TaskStatus {
        let task = TaskId::new("t").expect("a good id");
        TaskStatus::new(task, state, Source::Master, Timestamp(1))
    }

    fn add(updates: &mut Updates, state: TaskState) -> Added {
        updates.add(Epoch(1), FrameworkId(0), status(state))
    }

    #[test]
    fn one_update_of_a_task_is_in_flight_and_the_newest_waits() {
        let mut updates = Updates::default();
        let Added::InFlight(head) = add(&mut updates, TaskState::Unreachable) else {
            panic!()
        };
        assert_eq!(add(&mut updates, TaskState::Running), Added::Waits);
        assert_eq!(add(&mut updates, TaskState::Lost), Added::Waits);
        let id = head.update_id.expect("reliable");
        let done = updates
            .acknowledge(FrameworkId(0), &head.task_id, id)
            .expect("in flight");
        assert_eq!(done.next.expect("waited").state, TaskState::Lost);
        assert_eq!(
            updates.acknowledge(FrameworkId(0), &head.task_id, id),
            None,
            "only once"
        );
    }

    #[test]
    fn an_update_is_repeated_after_10_s_doubling_up_to_10_min() {
        // semantics: I1
        let mut updates = Updates::default();
        add(&mut updates, TaskState::Lost);
        let task = status(TaskState::Lost).task_id;
        let mut waits = Vec::new();
        for _ in 0..9 {
            waits.push(
                updates
                    .retry_after(FrameworkId(0), &task)
                    .expect("in flight")
                    .as_secs(),
            );
            updates.repeat(FrameworkId(0), &task);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    }

    #[test]
    fn at_the_bound_an_update_is_sent_once_without_an_id() {
        let mut updates = Updates::default();
        for number in 0..UPDATES_PER_FRAMEWORK_MAX {
            let task_id = TaskId::new(number.to_string()).expect("a good id");
            let status = TaskStatus {
                task_id,
                ..status(TaskState::Lost)
            };
            assert!(matches!(
                updates.add(Epoch(1), FrameworkId(0), status),
                Added::InFlight(_)
            ));
        }
        let Added::Unreliable(status) = add(&mut updates, TaskState::Lost) else {
            panic!()
        };
        assert_eq!(status.update_id, None);
    }
}
