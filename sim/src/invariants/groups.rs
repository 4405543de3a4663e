//! W25: of a group of tasks none is told as running before all have been started, and none goes on when another has
//! ended in any other way than FINISHED.

use meros_proto::status::{TaskState, TaskStatus};
use meros_slave_core::{Checkpoint, ExecutorKey, Record, TaskKey};

use super::{Broken, check};

/// The group of a task that is on the disk.
fn group_of(disk: &Checkpoint, task: &TaskKey) -> Option<ExecutorKey> {
    let known = disk.tasks.get(task)?;
    let executor = known.run.task.executor.as_ref();
    let executor = executor.filter(|it| it.is_group())?;
    Some((task.0, executor.executor_id.clone()))
}

/// The other tasks of its group whose end is not on the disk.
fn others<'d>(
    disk: &'d Checkpoint,
    task: &'d TaskKey,
    group: &'d ExecutorKey,
) -> impl Iterator<Item = &'d TaskKey> {
    let of_it = disk.tasks.keys().filter(move |key| *key != task);
    let of_it = of_it.filter(move |key| group_of(disk, key).as_ref() == Some(group));
    of_it.filter(|key| {
        let newest = disk.updates.get(*key).and_then(|queue| queue.back());
        newest.is_none_or(|status| !status.state.is_terminal())
    })
}

/// A record is about to become durable: before the bad end of a task it has to be known what follows for the others,
/// since after it a crash would leave nothing that tells.
pub(crate) fn check_record(disk: &Checkpoint, record: &Record) -> Result<(), Broken> {
    let Record::UpdateMade {
        framework_id,
        status,
    } = record
    else {
        return Ok(());
    };
    if !status.state.is_terminal() || status.state == TaskState::Finished {
        return Ok(());
    }
    let task = (*framework_id, status.task_id.clone());
    let Some(group) = group_of(disk, &task) else {
        return Ok(());
    };
    let goes_on = disk.executors.get(&group).is_some_and(|it| !it.is_ending());
    let left = others(disk, &task, &group).next();
    check("W25", !goes_on || left.is_none(), || {
        format!("{task:?} ended as {}, and {left:?} goes on", status.state)
    })
}

/// A slave is about to say this of a task. `has_started` is told by containers.
pub(crate) fn check_made(
    disk: &Checkpoint,
    task: &TaskKey,
    status: &TaskStatus,
    has_started: impl Fn(&TaskKey) -> bool,
) -> Result<(), Broken> {
    if status.state != TaskState::Running {
        return Ok(());
    }
    let Some(group) = group_of(disk, task) else {
        return Ok(());
    };
    let waiting = others(disk, task, &group).find(|other| !has_started(other));
    check("W25", waiting.is_none(), || {
        format!("{task:?} is told as running, and {waiting:?} is not started")
    })
}

#[cfg(test)]
mod tests {
    use meros_proto::executor::ExecutorDescription;
    use meros_proto::ids::{ExecutorId, FrameworkId, TaskId};
    use meros_proto::message::slave::{RunExecutor, RunTask};
    use meros_proto::status::Source;
    use meros_proto::time::Timestamp;

    use super::super::example::run_in_executor;
    use super::*;

    fn key(task: &str) -> TaskKey {
        (FrameworkId(0), TaskId::new(task).expect("a letter"))
    }

    /// A group of the tasks a and b.
    fn disk() -> Checkpoint {
        let group_id = ExecutorId::new("g").expect("a letter");
        let executor = ExecutorDescription::group(group_id, "mem:1".parse().expect("resources"));
        let like = run_in_executor("mem:1");
        let member = |task: &str| {
            let mut run: RunTask = like.clone();
            run.task.task_id = key(task).1;
            run.task.executor = Some(executor.clone());
            run
        };
        let tasks = vec![member("a"), member("b")];
        let executor = Box::new(RunExecutor {
            framework: like.framework.clone(),
            role: like.role.clone(),
            executor,
        });
        [Record::GroupAdded { executor, tasks }]
            .into_iter()
            .collect()
    }

    fn status(task: &str, state: TaskState) -> TaskStatus {
        TaskStatus::new(key(task).1, state, Source::Slave, Timestamp(1))
    }

    fn made(task: &str, state: TaskState) -> Record {
        Record::UpdateMade {
            framework_id: FrameworkId(0),
            status: Box::new(status(task, state)),
        }
    }

    #[test]
    fn one_that_goes_on_alone_is_rejected() {
        let mut disk = disk();
        let ends = |disk: &Checkpoint, state| check_record(disk, &made("a", state));
        assert_eq!(ends(&disk, TaskState::Finished), Ok(()));
        assert_eq!(ends(&disk, TaskState::Running), Ok(()));
        let broken = ends(&disk, TaskState::Failed).expect_err("b goes on");
        assert_eq!(broken.id, "W25");
        let executor = (FrameworkId(0), ExecutorId::new("g").expect("a letter"));
        disk.apply(Record::GroupEnding { executor });
        assert_eq!(ends(&disk, TaskState::Failed), Ok(()));
        let mut alone = self::disk();
        alone.apply(made("b", TaskState::Finished));
        assert_eq!(ends(&alone, TaskState::Failed), Ok(()));
    }

    #[test]
    fn one_that_is_told_as_running_before_the_others_is_rejected() {
        let disk = disk();
        let told = status("a", TaskState::Running);
        let tell = |all: bool| check_made(&disk, &key("a"), &told, |_| all);
        assert_eq!(tell(true), Ok(()));
        assert_eq!(tell(false).expect_err("b waits").id, "W25");
    }
}
