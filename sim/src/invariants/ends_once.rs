//! W1: in one life of its driver a framework is told at most one end of a task, and nothing of it
//! afterwards.

use std::collections::BTreeMap;

use meros_proto::ids::TaskId;
use meros_proto::status::{TaskState, TaskStatus};

use super::{Broken, check};

/// The ends that have been told, by framework.
#[derive(Debug, Default)]
pub(crate) struct EndsOnce(BTreeMap<(usize, TaskId), TaskState>);

impl EndsOnce {
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
        let key = (framework, status.task_id.clone());
        let before = self.0.get(&key);
        check("W1", before.is_none(), || {
            format!(
                "{} is told as {} after its end {before:?}",
                status.task_id, status.state
            )
        })?;
        if status.state.is_terminal() {
            self.0.insert(key, status.state);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::update;
    use super::*;

    #[test]
    fn a_second_end_and_news_after_the_end_are_rejected() {
        for second in [TaskState::Failed, TaskState::Finished, TaskState::Running] {
            let mut checker = EndsOnce::default();
            assert_eq!(checker.on_told(0, &update(1, TaskState::Running)), Ok(()));
            assert_eq!(checker.on_told(0, &update(2, TaskState::Finished)), Ok(()));
            let broken = checker
                .on_told(0, &update(3, second))
                .expect_err("told after its end");
            assert_eq!(broken.id, "W1");
        }
    }

    #[test]
    fn another_life_and_another_framework_may_be_told_again() {
        let mut checker = EndsOnce::default();
        let end = update(1, TaskState::Finished);
        assert_eq!(checker.on_told(0, &end), Ok(()));
        assert_eq!(checker.on_told(1, &end), Ok(()));
        checker.on_life(0);
        assert_eq!(checker.on_told(0, &end), Ok(()));
    }
}
