//! W2, W9, W10: after the faults have ended everything comes to its end within a bounded time. W2
//! each task that a framework launched is told to have ended. W9 no container runs on for a task
//! that its framework takes for ended. W10 slaves are back and nothing is left in any table.

use meros_proto::ids::TaskId;

use super::{Broken, check};

/// What has not come to its end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Tasks that frameworks wait for.
    pub(crate) tasks: Vec<TaskId>,
    /// Containers whose task's framework does not wait for it.
    pub(crate) ghosts: Vec<String>,
    /// Anything else, for people.
    pub(crate) others: Vec<String>,
}

impl Unfinished {
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.ghosts.is_empty() && self.others.is_empty()
    }

    /// The time is over.
    pub(crate) fn check_nothing(&self) -> Result<(), Broken> {
        let ghosts = self.ghosts.join(", ");
        let ended_only = self.tasks.is_empty();
        check("W9", !ended_only || self.ghosts.is_empty(), || {
            format!("run on: {ghosts}")
        })?;
        check("W2", ended_only, || {
            format!(
                "never told to have ended: {:?}; {}",
                self.tasks,
                self.others.join("; ")
            )
        })?;
        check("W10", self.others.is_empty(), || self.others.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::task_id;
    use super::*;

    #[test]
    fn each_kind_of_unfinished_business_is_rejected_under_its_id() {
        assert_eq!(Unfinished::default().check_nothing(), Ok(()));
        let of = |unfinished: Unfinished| unfinished.check_nothing().expect_err("unfinished").id;
        let tasks = vec![task_id()];
        assert_eq!(
            of(Unfinished {
                tasks,
                ..Default::default()
            }),
            "W2"
        );
        let ghosts = vec!["1-1".to_owned()];
        assert_eq!(
            of(Unfinished {
                ghosts,
                ..Default::default()
            }),
            "W9"
        );
        let others = vec!["slave 0 is not registered".to_owned()];
        assert_eq!(
            of(Unfinished {
                others,
                ..Default::default()
            }),
            "W10"
        );
    }
}
