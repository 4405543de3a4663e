//! Executors: what runs tasks on a slave on behalf of a framework.

use serde::{Deserialize, Serialize};

use crate::ids::{ExecutorId, FrameworkId};
use crate::labels::Labels;
use crate::resources::Resources;
use crate::task::Command;

/// An executor as a framework describes it.
///
/// A command task has one implicitly: the slave itself, under the id of the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorDescription {
    /// Unique in the framework on one slave.
    pub executor_id: ExecutorId,
    /// Its framework; filled in by the master when absent (semantics R9).
    pub framework_id: Option<FrameworkId>,
    /// For people.
    pub name: String,
    /// What starts it.
    pub command: Command,
    /// What it takes beside its tasks (semantics D9).
    pub resources: Resources,
    /// For people and tools.
    pub labels: Labels,
}
