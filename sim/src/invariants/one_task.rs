//! W18: a task id names one task of its framework at a time: none is added to a leader's table while
//! another one of that id is in it (semantics A9).

use std::collections::BTreeSet;

use meros_proto::ids::{FrameworkId, TaskId};
use meros_proto::view::ClusterChange;

use super::{Broken, check};

/// The tasks in one master's table.
#[derive(Debug, Default)]
pub(crate) struct OneTask(BTreeSet<(FrameworkId, TaskId)>);

impl OneTask {
    pub(crate) fn on_published(&mut self, change: &ClusterChange) -> Result<(), Broken> {
        match change {
            ClusterChange::Elected(_) => self.0.clear(),
            ClusterChange::TaskAdded(task) => {
                let is_new = self.0.insert((task.framework_id, task.task_id.clone()));
                check("W18", is_new, || {
                    let (framework, task) = (task.framework_id, &task.task_id);
                    format!("{task} of {framework} is added, and there is one of that id")
                })?;
            }
            ClusterChange::TaskRemoved {
                framework_id,
                task_id,
            } => {
                self.0.remove(&(*framework_id, task_id.clone()));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::{task_id, task_view};
    use super::*;

    #[test]
    fn a_second_task_of_an_id_is_rejected_until_the_first_is_gone() {
        let added = |framework| ClusterChange::TaskAdded(task_view(FrameworkId(framework)));
        let mut checker = OneTask::default();
        assert_eq!(checker.on_published(&added(0)), Ok(()));
        assert_eq!(
            checker.on_published(&added(1)),
            Ok(()),
            "of another framework"
        );
        let broken = checker.on_published(&added(0));
        assert_eq!(broken.expect_err("it is there").id, "W18");
        let removed = ClusterChange::TaskRemoved {
            framework_id: FrameworkId(0),
            task_id: task_id(),
        };
        assert_eq!(checker.on_published(&removed), Ok(()));
        assert_eq!(checker.on_published(&added(0)), Ok(()));
    }
}
