//! Groups of tasks (pods): tasks of one slave that start together or not at all, and end together when one fails
//! (semantics D2, M7).

use serde::{Deserialize, Serialize};

use crate::executor::ExecutorDescription;
use crate::task::TaskDescription;

/// The most tasks of one group; one with more is refused as a whole.
pub const TASKS_PER_GROUP_MAX: usize = 100;

/// Tasks that are launched as one: all of them start, or none.
///
/// One that ends in any other way than FINISHED takes the others along: they are killed. One that finishes leaves them
/// alone. The group is over with its last task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskGroup {
    /// Under which id they run, and what that takes beside them, from the launch until the last of them has
    /// ended: see [`ExecutorDescription::group`]. The id is free again then.
    pub executor: ExecutorDescription,
    /// 1 to [`TASKS_PER_GROUP_MAX`], each with a `command` and without an `executor`.
    pub tasks: Vec<TaskDescription>,
}

impl TaskGroup {
    /// The tasks as they are kept and shown: each names the group as its executor.
    pub fn into_members(self) -> impl Iterator<Item = TaskDescription> {
        let Self { executor, tasks } = self;
        tasks.into_iter().map(move |mut task| {
            task.executor = Some(executor.clone());
            task
        })
    }
}
