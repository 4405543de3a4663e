//! W24: what the leader before knew of a slave is not lost with that leader. A new leader remembers it until
//! the slave is back; if it gives the slave up instead, or lets it go, it takes on what was there, as cut off or ended,
//! and forgets nothing but for frameworks that are completed.

use std::collections::{BTreeMap, BTreeSet};

use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
use meros_proto::slave::SlaveState;
use meros_proto::status::TaskState;
use meros_proto::view::{ClusterChange, FrameworkState};

use super::{Broken, check};

type Name = (FrameworkId, TaskId);

/// What one leader remembers, and what it has taken on.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    slaves: BTreeMap<SlaveId, SlaveState>,
    completed: BTreeSet<FrameworkId>,
    remembered: BTreeMap<Name, SlaveId>,
    /// In this event.
    forgotten: Vec<(Name, SlaveId)>,
    /// In this event, with the state that they have by now.
    taken_on: BTreeMap<Name, (SlaveId, TaskState)>,
    is_changed: bool,
}

impl Remembered {
    pub(crate) fn on_published(&mut self, change: &ClusterChange) {
        match change {
            ClusterChange::Elected(_) => *self = Self::default(),
            ClusterChange::Slave(slave) => {
                self.slaves.insert(slave.slave_id, slave.state);
            }
            ClusterChange::SlaveRemoved(slave) => {
                self.slaves.remove(slave);
            }
            ClusterChange::Framework(framework) => {
                if framework.state == FrameworkState::Completed {
                    self.completed.insert(framework.framework_id);
                }
            }
            ClusterChange::TaskRemembered(task) => {
                let name = (task.framework_id, task.task_id.clone());
                self.remembered.insert(name, task.slave_id);
            }
            ClusterChange::TaskForgotten {
                framework_id,
                task_id,
            } => {
                let name = (*framework_id, task_id.clone());
                if let Some(slave) = self.remembered.remove(&name) {
                    self.forgotten.push((name, slave));
                }
            }
            ClusterChange::TaskAdded(task) => {
                let name = (task.framework_id, task.task_id.clone());
                if let Some(slave) = self.remembered.remove(&name) {
                    // It may have become the id of a task elsewhere.
                    if slave == task.slave_id {
                        self.taken_on.insert(name, (slave, task.state));
                    }
                }
            }
            ClusterChange::TaskChanged {
                framework_id,
                task_id,
                state,
                ..
            } => {
                if !self.taken_on.is_empty()
                    && let Some((_, now)) = self.taken_on.get_mut(&(*framework_id, task_id.clone()))
                {
                    *now = *state;
                }
                return;
            }
            _ => return,
        }
        self.is_changed = true;
    }

    /// An event is over.
    pub(crate) fn check(&mut self) -> Result<(), Broken> {
        if !std::mem::take(&mut self.is_changed) {
            return Ok(());
        }
        let state_of = |slave: &SlaveId| self.slaves.get(slave).copied();
        for (name, slave) in &self.remembered {
            let is_away = state_of(slave) == Some(SlaveState::Recovered);
            check("W24", is_away, || {
                let state = state_of(slave);
                format!(
                    "{} of {} is remembered on {slave}, which is {state:?}",
                    name.1, name.0
                )
            })?;
        }
        for ((framework, task), slave) in std::mem::take(&mut self.forgotten) {
            let is_back = state_of(&slave) == Some(SlaveState::Registered);
            check(
                "W24",
                is_back || self.completed.contains(&framework),
                || format!("{task} of {framework} is forgotten, and {slave} has not come back"),
            )?;
        }
        for ((framework, task), (slave, state)) in std::mem::take(&mut self.taken_on) {
            let answers = state_of(&slave) == Some(SlaveState::Registered);
            let is_settled = state.is_terminal() || state == TaskState::Unreachable;
            check("W24", answers || is_settled, || {
                format!("{task} of {framework} is {state}, and {slave} does not answer for it")
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use meros_proto::view::SlaveView;

    use super::super::example::{slave_view, task_id, task_view};
    use super::*;

    const F0: FrameworkId = FrameworkId(0);

    /// A leader that remembers task `t` of F0 on S0, which has not come back.
    fn remembering() -> Remembered {
        let mut checker = Remembered::default();
        checker.on_published(&slave(SlaveState::Recovered));
        checker.on_published(&ClusterChange::TaskRemembered(Arc::new(task_view(F0))));
        assert_eq!(checker.check(), Ok(()));
        checker
    }

    fn slave(state: SlaveState) -> ClusterChange {
        let view = slave_view(SlaveId(0), "cpus:4");
        ClusterChange::Slave(SlaveView { state, ..view })
    }

    fn forgotten() -> ClusterChange {
        ClusterChange::TaskForgotten {
            framework_id: F0,
            task_id: task_id(),
        }
    }

    #[test]
    fn a_slave_that_is_back_ends_all_memory_of_it() {
        let mut checker = remembering();
        checker.on_published(&slave(SlaveState::Registered));
        assert_eq!(checker.check().expect_err("remembered still").id, "W24");
        let mut checker = remembering();
        checker.on_published(&slave(SlaveState::Registered));
        checker.on_published(&forgotten());
        assert_eq!(checker.check(), Ok(()));
    }

    #[test]
    fn what_was_on_a_slave_that_is_given_up_is_not_forgotten() {
        let mut checker = remembering();
        checker.on_published(&slave(SlaveState::Unreachable));
        checker.on_published(&forgotten());
        assert_eq!(checker.check().expect_err("nobody is told").id, "W24");
    }

    #[test]
    fn what_is_taken_on_is_cut_off_or_ended() {
        let take_on = |state| {
            let mut checker = remembering();
            checker.on_published(&slave(SlaveState::Unreachable));
            checker.on_published(&ClusterChange::TaskAdded(task_view(F0)));
            checker.on_published(&ClusterChange::TaskChanged {
                framework_id: F0,
                task_id: task_id(),
                state,
                status: None,
            });
            checker.check()
        };
        assert_eq!(take_on(TaskState::Unreachable), Ok(()));
        assert_eq!(take_on(TaskState::Lost), Ok(()));
        assert_eq!(take_on(TaskState::Running).expect_err("it lives").id, "W24");
    }
}
