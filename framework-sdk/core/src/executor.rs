//! What an executor owes its slave (semantics M3): each update is kept until it is acknowledged, and said
//! again, in order, on each new connection.
//!
//! Invariants: D10 an update that was taken is told to the slave until it is acknowledged, under one number.
//! Absent: sockets, clocks, what tasks are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meros_proto::executor::TASKS_PER_EXECUTOR_MAX;
use meros_proto::ids::TaskId;
use meros_proto::message::executor::ExecutorUpdate;
use meros_proto::status::TaskStatus;

/// The most updates that may wait for an acknowledgement: an executor whose slave is away for long is
/// better told than filled up.
pub const EXECUTOR_UPDATES_MAX: usize = 4 * TASKS_PER_EXECUTOR_MAX;

/// Too many updates wait for the slave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyUpdates;

/// A task of which the slave may not know that it is here.
#[derive(Debug, Clone, Copy)]
struct Unheard {
    /// Updates that had been made before it was given.
    made_before: u64,
    /// The number of its last update, if it has ended.
    ended: Option<u64>,
}

/// The unfinished business of an executor.
#[derive(Debug, Clone, Default)]
pub struct Duties {
    made: u64,
    unacknowledged: VecDeque<ExecutorUpdate>,
    /// Tasks that were given and have not ended.
    live: BTreeSet<TaskId>,
    /// Of them and of those that have ended: no update was acknowledged yet. How many updates had been made
    /// when they were given, since those before were of another task of the name.
    unheard: BTreeMap<TaskId, Unheard>,
}

impl Duties {
    /// Of an executor that has just been started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A task is given. False if it is here already: then nothing is to be done.
    pub fn on_launch(&mut self, task_id: &TaskId) -> bool {
        let is_new = self.live.insert(task_id.clone());
        if is_new {
            let unheard = Unheard {
                made_before: self.made,
                ended: None,
            };
            self.unheard.insert(task_id.clone(), unheard);
        }
        is_new
    }

    /// Whether this task was given and has not ended.
    #[must_use]
    pub fn is_live(&self, task_id: &TaskId) -> bool {
        self.live.contains(task_id)
    }

    /// Tasks that were given and have not ended.
    pub fn live(&self) -> impl Iterator<Item = &TaskId> {
        self.live.iter()
    }

    /// Numbers an update and keeps it; to be sent if the slave is there. A last update is always taken.
    ///
    /// # Errors
    /// [`EXECUTOR_UPDATES_MAX`] updates wait, and this is not the task's last.
    pub fn update(&mut self, status: TaskStatus) -> Result<&ExecutorUpdate, TooManyUpdates> {
        let is_last = status.state.is_terminal();
        if self.unacknowledged.len() >= EXECUTOR_UPDATES_MAX && !is_last {
            return Err(TooManyUpdates);
        }
        self.made += 1;
        let number = self.made;
        if is_last {
            self.live.remove(&status.task_id);
            if let Some(unheard) = self.unheard.get_mut(&status.task_id) {
                unheard.ended = Some(number);
            }
        }
        self.unacknowledged
            .push_back(ExecutorUpdate { number, status });
        Ok(self.unacknowledged.back().expect("just added"))
    }

    /// This update and all before it are durable with the slave.
    pub fn on_acknowledged(&mut self, number: u64) {
        while let Some(update) = self.unacknowledged.pop_front_if(|it| it.number <= number) {
            let task_id = &update.status.task_id;
            let unheard = self.unheard.get(task_id);
            if unheard.is_some_and(|it| it.made_before < update.number) {
                self.unheard.remove(task_id);
            }
        }
    }

    /// What a subscription names: tasks of which the slave may not know that they are here, and the number of
    /// their last update if they have ended. Those that live come first.
    pub fn unheard(&self) -> impl Iterator<Item = (&TaskId, Option<u64>)> {
        let lives = self.unheard.iter().filter(|(_, it)| it.ended.is_none());
        let ended = self.unheard.iter().filter(|(_, it)| it.ended.is_some());
        lives.chain(ended).map(|(id, it)| (id, it.ended))
    }

    /// How many updates were made.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made
    }

    /// What follows a subscription, in order.
    pub fn unacknowledged(&self) -> impl Iterator<Item = &ExecutorUpdate> {
        self.unacknowledged.iter()
    }

    /// Whether the slave knows all there is to know.
    #[must_use]
    pub fn is_all_acknowledged(&self) -> bool {
        self.unacknowledged.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::status::{Source, TaskState};
    use meros_proto::time::Timestamp;

    use super::*;

    fn id(name: &str) -> TaskId {
        TaskId::new(name).unwrap()
    }

    fn status(name: &str, state: TaskState) -> TaskStatus {
        TaskStatus::new(id(name), state, Source::Executor, Timestamp(1))
    }

    fn owed(duties: &Duties) -> (Vec<&str>, Vec<u64>) {
        (
            duties.unheard().map(|(id, _)| id.as_str()).collect(),
            duties.unacknowledged().map(|it| it.number).collect(),
        )
    }

    #[test]
    fn what_is_not_acknowledged_is_said_again_in_order() {
        // semantics: M3
        let mut duties = Duties::new();
        assert!(duties.on_launch(&id("a")) && duties.on_launch(&id("b")));
        assert!(!duties.on_launch(&id("a")), "it is here");
        duties.update(status("a", TaskState::Running)).unwrap();
        duties.update(status("a", TaskState::Finished)).unwrap();
        assert_eq!(owed(&duties), (vec!["b", "a"], vec![1, 2]));
        duties.on_acknowledged(1);
        assert_eq!(owed(&duties), (vec!["b"], vec![2]));
        duties.update(status("b", TaskState::Running)).unwrap();
        // Two at once, and one that was acknowledged before.
        duties.on_acknowledged(3);
        duties.on_acknowledged(1);
        assert_eq!(owed(&duties), (vec![], vec![]));
        assert!(!duties.is_live(&id("a")) && duties.is_live(&id("b")));
        assert!(duties.is_all_acknowledged());
    }

    #[test]
    fn a_name_that_is_used_again_is_another_task() {
        let mut duties = Duties::new();
        assert!(duties.on_launch(&id("a")));
        duties.update(status("a", TaskState::Finished)).unwrap();
        let named = |duties: &Duties| {
            let all = duties.unheard().map(|(id, ended)| (id.to_string(), ended));
            all.collect::<Vec<_>>()
        };
        assert_eq!(named(&duties), [("a".to_owned(), Some(1))]);
        // The slave has it, and gives the next one before we hear so.
        assert!(duties.on_launch(&id("a")));
        assert_eq!(named(&duties), [("a".to_owned(), None)]);
        duties.on_acknowledged(1);
        assert_eq!(
            named(&duties),
            [("a".to_owned(), None)],
            "that was the first"
        );
        duties.update(status("a", TaskState::Running)).unwrap();
        duties.on_acknowledged(2);
        assert_eq!((named(&duties), duties.made()), (vec![], 2));
    }

    #[test]
    fn at_the_bound_only_ends_are_taken() {
        let mut duties = Duties::new();
        for _ in 0..EXECUTOR_UPDATES_MAX {
            duties.update(status("a", TaskState::Running)).unwrap();
        }
        let more = status("a", TaskState::Running);
        assert_eq!(duties.update(more).map(|it| it.number), Err(TooManyUpdates));
        assert!(duties.update(status("a", TaskState::Failed)).is_ok());
    }
}
