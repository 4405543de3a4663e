//! The invariants that can be seen in one state of the slave. For tests and the simulator: the
//! release path does not call this.

use std::collections::BTreeSet;

use meros_proto::operation::OPERATIONS_PENDING_MAX;
use meros_proto::resources::Resources;

use crate::claims::{WIPING_MAX, key_of};
use crate::config::UPDATES_PER_TASK_MAX;
use crate::executor::Executor;
use crate::executors::executor_key;
use crate::groups::group_key;
use crate::stream::Stream;
use crate::task::Phase;
use crate::timers::Due;
use crate::{SlaveCore, TaskKey};

impl SlaveCore {
    /// Checks S1 to S9, S16, S17, S30, S31, S40, X1 and X2 of `docs/INVARIANTS.md`.
    ///
    /// # Panics
    /// One of them is broken; the message names it.
    pub fn check_invariants(&self) {
        self.check_resources();
        self.check_tasks();
        self.check_executors();
        self.check_groups();
        self.check_streams();
        self.check_journal();
        self.check_timers();
        self.check_checks();
    }

    fn check_resources(&self) {
        let mut sum = self.free.clone();
        for task in self.tasks.values() {
            if task.phase != Phase::Ended && !task.abandoned {
                sum.checked_add_assign(&task.run.task.resources)
                    .expect("S1: sum too large");
            }
        }
        for executor in self.executors.values().filter(|it| !it.abandoned) {
            sum.checked_add_assign(&executor.run.executor.resources)
                .expect("X1: sum too large");
        }
        for group in self.groups.values() {
            sum.checked_add_assign(&group.run.executor.resources)
                .expect("X1: sum too large");
        }
        assert_eq!(sum, self.total, "S1: free and used are not the total");
        self.check_claims();
    }

    fn check_claims(&self) {
        let declared = &self.config.slave.resources;
        let total = declared.with_claims(&self.claims.resources);
        assert_eq!(
            total.as_ref(),
            Ok(&self.total),
            "S16: what is declared and claimed is not the total"
        );
        assert_eq!(self.total.check_claims(), Ok(()), "S16: claims");
        let volumes: BTreeSet<_> = self.total.iter().filter_map(key_of).collect();
        let known: BTreeSet<_> = self.claims.volumes.keys().cloned().collect();
        assert_eq!(volumes, known, "S17: volumes and directories differ");
        let directories: BTreeSet<_> = self.claims.volumes.values().collect();
        assert_eq!(
            directories.len(),
            self.claims.volumes.len(),
            "S17: two volumes in one directory"
        );
        assert!(
            self.claims.wiping.len() <= WIPING_MAX
                && self
                    .claims
                    .wiping
                    .iter()
                    .all(|it| !directories.contains(it)),
            "S17: the directory of a volume is wiped"
        );
        assert!(
            self.claims.decided.len() <= OPERATIONS_PENDING_MAX,
            "S16: answers pile up"
        );
    }

    fn check_tasks(&self) {
        if self.identity.is_none() {
            assert!(
                self.tasks.is_empty() && self.streams.is_empty(),
                "S2: tasks without an id"
            );
        }
        assert!(
            self.tasks.len() <= self.config.tasks_max.max(self.tasks_recovered()),
            "S3: too many tasks"
        );
        for (key, task) in &self.tasks {
            assert_eq!(key.1, task.run.task.task_id, "S5: key and task differ");
            if let Some(container) = task.container() {
                assert_eq!(
                    self.containers.get(&container),
                    Some(key),
                    "S5: container of {key:?}"
                );
            }
            if task.phase == Phase::Ended {
                assert!(
                    !task.abandoned,
                    "S4: {key:?} is over and nobody waits for it"
                );
                assert!(
                    task.state.is_terminal(),
                    "S4: {key:?} ended as {}",
                    task.state
                );
                assert!(
                    self.streams.contains_key(key),
                    "S4: {key:?} has no last update"
                );
            } else {
                assert!(
                    !task.state.is_terminal(),
                    "S4: {key:?} is {} and not over",
                    task.state
                );
            }
            if task.abandoned {
                assert!(
                    !self.streams.contains_key(key),
                    "S7: {key:?} of a framework that is gone"
                );
            }
        }
        assert!(
            self.strays
                .iter()
                .all(|it| !self.containers.contains_key(it)),
            "S5: a stray container is a task's"
        );
        let with_container = self
            .tasks
            .values()
            .filter(|task| task.container().is_some())
            .count();
        assert_eq!(
            with_container,
            self.containers.len(),
            "S5: a container without its task"
        );
    }

    /// What the container of an executor may use.
    fn promised_to(&self, executor: &Executor) -> Resources {
        let mut sum = executor.run.executor.resources.clone();
        let framework_id = executor.run.framework.framework_id;
        for id in &executor.tasks {
            let task = &self.tasks[&(framework_id, id.clone())];
            if task.phase == Phase::Given {
                sum.checked_add_assign(&task.run.task.resources)
                    .expect("X1: sum too large");
            }
        }
        sum
    }

    fn check_executors(&self) {
        let mut with_container = 0;
        for (key, executor) in &self.executors {
            if let Some(container) = executor.container() {
                with_container += 1;
                let known = self.executor_containers.get(&container);
                assert_eq!(known, Some(key), "S5: container of {key:?}");
            }
            for id in &executor.tasks {
                let task = self.tasks.get(&(key.0, id.clone()));
                assert!(
                    task.is_some_and(|it| it.phase != Phase::Ended),
                    "X1: {key:?} has {id}, which is over"
                );
            }
            if !executor.abandoned {
                assert_eq!(self.promised_to(executor), executor.promised, "X1: {key:?}");
            }
            if let Some(session) = executor.session {
                assert_eq!(self.sessions.get(&session), Some(key), "X2: session");
            }
            let waits =
                executor.pid().is_some() && executor.session.is_none() && executor.ending.is_none();
            assert!(
                !waits || self.timers.at(&Due::Executor(key.clone())).is_some(),
                "S9: nobody notices that {key:?} does not subscribe"
            );
        }
        assert_eq!(
            with_container,
            self.executor_containers.len(),
            "S5: a container without its executor"
        );
        for (session, key) in &self.sessions {
            let executor = self.executors.get(key);
            assert!(
                executor.is_some_and(|it| it.session == Some(*session)),
                "X2: a session of nobody"
            );
        }
        let of_executors = self
            .tasks
            .iter()
            .filter(|(_, task)| task.phase != Phase::Ended && executor_key(&task.run).is_some());
        for (key, task) in of_executors {
            let executor = executor_key(&task.run).and_then(|it| self.executors.get(&it));
            assert!(
                executor.is_some_and(|it| it.tasks.contains(&key.1)),
                "X1: {key:?} has no executor"
            );
        }
    }

    fn check_groups(&self) {
        for (key, group) in &self.groups {
            assert!(!group.tasks.is_empty(), "S40: {key:?} is over and is kept");
            let members = group
                .tasks
                .iter()
                .map(|id| &self.tasks[&(key.0, id.clone())]);
            for member in members.clone() {
                assert_eq!(
                    group_key(&member.run).as_ref(),
                    Some(key),
                    "S40: a task in a group that is not its own"
                );
                assert!(
                    !group.is_ending || member.ending.is_some(),
                    "S40: {key:?} is ending and goes on"
                );
            }
            let is_coming = members.clone().any(|task| task.pid().is_none());
            let is_told = members.clone().any(|task| !task.is_unheard());
            assert!(!is_told || !is_coming, "S40: {key:?} is told in parts");
        }
        let members = self.tasks.iter().filter_map(|(key, task)| {
            let goes_on = task.phase != Phase::Ended && !task.abandoned;
            Some((key, group_key(&task.run).filter(|_| goes_on)?))
        });
        for (key, group) in members {
            let group = self.groups.get(&group);
            assert!(
                group.is_some_and(|it| it.tasks.contains(&key.1)),
                "S40: {key:?} has no group"
            );
        }
    }

    /// Recovered tasks do not count as over the bound: they were within the one of an earlier life.
    fn tasks_recovered(&self) -> usize {
        self.tasks
            .values()
            .filter(|task| task.phase == Phase::Ended)
            .count()
    }

    fn check_streams(&self) {
        let mut ids = BTreeSet::new();
        let mut phantoms = 0;
        for (key, stream) in &self.streams {
            assert!(!stream.is_empty(), "S6: empty stream of {key:?}");
            let task = self.tasks.get(key);
            let most = match task.is_some_and(|task| task.run.task.command.is_some()) {
                // STARTING, RUNNING, the same with a check, KILLING and an end.
                true => 5,
                false => UPDATES_PER_TASK_MAX + 1,
            };
            assert!(stream.len() <= most, "S3: updates of a task pile up");
            let states: Vec<_> = stream.statuses().map(|status| status.state).collect();
            let ends = states.iter().filter(|state| state.is_terminal()).count();
            assert!(
                ends <= 1 && states[..states.len() - 1].iter().all(|s| !s.is_terminal()),
                "S6: {key:?} goes on after its end: {states:?}"
            );
            for status in stream.statuses() {
                let id = status.update_id.expect("S6: an update without an id");
                assert!(ids.insert(id), "S6: update {id} twice");
            }
            if stream.is_in_flight() {
                assert!(self.is_registered(), "S6: {key:?} in flight to nobody");
                assert!(
                    stream.head(self.durable).is_some(),
                    "S8: {key:?} sent before it was durable"
                );
            }
            match self.tasks.get(key) {
                Some(task) => assert_eq!(Some(task.state), stream.newest_state(), "S6: {key:?}"),
                None => {
                    phantoms += 1;
                    assert!(
                        stream
                            .newest_state()
                            .is_some_and(|state| state.is_terminal()),
                        "S4: {key:?} is not here and not over"
                    );
                }
            }
        }
        assert_eq!(phantoms, self.phantoms, "S3: phantoms are miscounted");
    }

    fn check_journal(&self) {
        let mut last = self.durable;
        for (id, _) in &self.awaiting {
            assert!(*id > last, "S8: records wait out of order");
            last = *id;
        }
        assert!(
            last.0 <= self.records_made,
            "S8: waits for a record that was never made"
        );
    }

    fn check_timers(&self) {
        let known = |key: &TaskKey| self.tasks.contains_key(key);
        for due in self.timers.dues() {
            match due {
                Due::Master => assert!(self.link.is_some(), "S9: nobody to be silent"),
                Due::Retry(key) => {
                    assert!(
                        self.streams.contains_key(key),
                        "S9: retry of nothing: {key:?}"
                    );
                }
                Due::Completion(key) => assert!(known(key), "S9: completion of nothing: {key:?}"),
                Due::Check(key, _) => assert!(known(key), "S30: check of nothing: {key:?}"),
                Due::Executor(key) => assert!(
                    self.executors.contains_key(key),
                    "S9: waits for an executor that is not here: {key:?}"
                ),
                Due::Patience => assert!(self.going.is_some(), "S9: patience for nothing"),
            }
        }
        if self.link.is_some() {
            assert!(
                self.timers.at(&Due::Master).is_some(),
                "S9: a silent master goes unnoticed"
            );
        }
        let in_flight = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.is_in_flight());
        for (key, _) in in_flight.collect::<Vec<(&TaskKey, &Stream)>>() {
            assert!(
                self.timers.at(&Due::Retry(key.clone())).is_some(),
                "S9: {key:?} is never retried"
            );
        }
        assert!(
            self.timers.len()
                <= 2 + self.streams.len() + 3 * self.tasks.len() + self.executors.len(),
            "S9: timers leak"
        );
    }
}
