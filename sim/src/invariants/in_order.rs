//! W3: what a slave says of a task reaches its framework in the order in which the slave said it,
//! each once, and each step is one that a task can take (semantics F6).

use std::collections::BTreeMap;

use meros_proto::ids::{SlaveId, TaskId, UpdateId};
use meros_proto::status::{TaskState, TaskStatus};

use super::{Broken, check};

/// The last update of each task that came from a slave.
#[derive(Debug, Default)]
pub(crate) struct InOrder(BTreeMap<(usize, TaskId), (Option<SlaveId>, UpdateId, TaskState)>);

impl InOrder {
    /// A new driver starts to speak to this framework.
    pub(crate) fn on_life(&mut self, framework: usize) {
        self.0.retain(|(of, _), _| *of != framework);
    }

    /// A framework uses the id of a task that has ended for another one.
    pub(crate) fn on_reused(&mut self, framework: usize, task: &TaskId) {
        self.0.remove(&(framework, task.clone()));
    }

    /// News that a driver passes on.
    pub(crate) fn on_told(&mut self, framework: usize, status: &TaskStatus) -> Result<(), Broken> {
        let Some(id) = status.update_id.filter(|id| !id.is_by_master()) else {
            return Ok(());
        };
        let key = (framework, status.task_id.clone());
        let now = (status.slave_id, id, status.state);
        let before = self.0.insert(key, now);
        let follows = before.is_none_or(|(slave, last, state)| {
            let is_next = slave != status.slave_id || last < id;
            is_next && state.may_become(status.state)
        });
        check("W3", follows, || {
            format!("{}: {now:?} after {before:?}", status.task_id)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::update;
    use super::*;

    #[test]
    fn an_earlier_or_repeated_update_is_rejected() {
        for (first, second) in [(2, 1), (1, 1)] {
            let mut checker = InOrder::default();
            assert_eq!(
                checker.on_told(0, &update(first, TaskState::Running)),
                Ok(())
            );
            let broken = checker.on_told(0, &update(second, TaskState::Running));
            assert_eq!(broken.expect_err("out of order").id, "W3");
        }
    }

    #[test]
    fn an_impossible_step_is_rejected() {
        let mut checker = InOrder::default();
        assert_eq!(checker.on_told(0, &update(1, TaskState::Killing)), Ok(()));
        let broken = checker.on_told(0, &update(2, TaskState::Running));
        assert_eq!(broken.expect_err("KILLING became RUNNING").id, "W3");
    }
}
