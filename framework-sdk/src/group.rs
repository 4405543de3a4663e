//! Groups of tasks (pods) as a framework wishes for them.

use meros_proto::executor::ExecutorDescription;
use meros_proto::group::TaskGroup;
use meros_proto::ids::ExecutorId;
use meros_proto::offer::Offer;
use meros_proto::resources::Resources;

use crate::{PlaceError, Placement, Task};

/// Tasks that start together on one slave or not at all, and end together when one fails (semantics D2, M7): a server
/// and what ships its logs.
///
/// Each runs in a container of its own, with its own resources, limits and sandbox, and has its own updates. The
/// first `TASK_RUNNING` comes when all have been started. One that ends as `TASK_FINISHED` leaves the others alone;
/// after any other end the others are killed. If one of them is not valid, all are `TASK_ERROR` with
/// [`Reason::TaskGroupInvalid`](crate::Reason::TaskGroupInvalid).
///
/// ```
/// use meros_sdk::{Actions, Group, Offer, Steps, Task};
///
/// fn start(offer: &Offer, actions: &mut Actions) -> Result<(), Box<dyn std::error::Error>> {
///     let group = Group::new("web.1")
///         .task(Task::new("web.1.server").command("exec ./server").cpus(0.5).mem(128.0))
///         .task(Task::new("web.1.logs").command("exec ./ship-logs").cpus(0.1).mem(32.0));
///     let mut steps = Steps::on(offer);
///     steps.launch_group(&group)?;
///     actions.carry_out(steps);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Group {
    id: String,
    resources: Resources,
    tasks: Vec<Task>,
}

impl Group {
    /// A group without tasks. The id is unique in the framework on one slave while the group lives, among its
    /// executors, too; statuses of the tasks show it as their `executor_id`.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            resources: Resources::new(),
            tasks: Vec::new(),
        }
    }

    /// One more task; at most [`TASKS_PER_GROUP_MAX`](meros_proto::group::TASKS_PER_GROUP_MAX). Not one in an
    /// executor.
    #[must_use]
    pub fn task(mut self, task: Task) -> Self {
        self.tasks.push(task);
        self
    }

    /// What the group takes beside its tasks until the last of them has ended. Default: nothing.
    #[must_use]
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// All of it on a part of an offer, and what is left of that.
    pub(crate) fn place(
        &self,
        offer: &Offer,
        free: &Resources,
    ) -> Result<(TaskGroup, Resources), PlaceError> {
        let group_id = ExecutorId::new(&self.id).map_err(PlaceError::TaskId)?;
        let own = free.fit(&self.resources).map_err(PlaceError::NoRoom)?;
        let free = free.checked_sub(&own).map_err(PlaceError::NoRoom)?;
        let mut placement = Placement::within(offer, free);
        for task in &self.tasks {
            placement.place(task)?;
        }
        let free = placement.free().clone();
        let group = TaskGroup {
            executor: ExecutorDescription::group(group_id, own),
            tasks: placement.into_tasks(),
        };
        Ok((group, free))
    }
}
