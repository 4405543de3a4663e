//! W15: the leader does not take a task for gone that runs. (For a framework that is not partition
//! aware, or whose tasks are not to outlive a lost connection, it may: semantics F5, K3.)

use meros_proto::status::{Reason, TaskState, TaskStatus};

use super::{Broken, check};

/// The leader answers a question about a task, of which so many containers run on slaves that are
/// members.
pub(crate) fn check_answer(status: &TaskStatus, running: usize) -> Result<(), Broken> {
    let is_answer = status.update_id.is_none() && status.reason == Some(Reason::Reconciliation);
    let is_gone = matches!(status.state, TaskState::Gone | TaskState::Unknown);
    check("W15", !(is_answer && is_gone) || running == 0, || {
        format!(
            "{} is said to be {}, and runs",
            status.task_id, status.state
        )
    })
}

#[cfg(test)]
mod tests {
    use meros_proto::status::Source;
    use meros_proto::time::Timestamp;

    use super::super::example::task_id;
    use super::*;

    #[test]
    fn an_end_that_is_not_true_is_rejected() {
        let answer = |state| {
            let mut status = TaskStatus::new(task_id(), state, Source::Master, Timestamp(1));
            status.reason = Some(Reason::Reconciliation);
            status
        };
        let broken = check_answer(&answer(TaskState::Gone), 1);
        assert_eq!(broken.expect_err("it runs").id, "W15");
        assert!(check_answer(&answer(TaskState::Unknown), 1).is_err());
        assert_eq!(check_answer(&answer(TaskState::Gone), 0), Ok(()));
        assert_eq!(check_answer(&answer(TaskState::Unreachable), 1), Ok(()));
    }
}
