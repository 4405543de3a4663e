//! Groups of tasks: all or none, together to the end, and what restarts make of it (semantics D2, M7).

use meros_proto::executor::ExecutorDescription;
use meros_proto::group::TaskGroup;
use meros_proto::ids::ExecutorId;
use meros_proto::message::slave::RunGroup;
use meros_proto::status::{Reason, TaskState, TaskStatus};

use super::*;

fn order(tasks: &[&str]) -> RunGroup {
    let like = run(1, "t");
    let tasks = tasks.iter().map(|task| run(1, task).task);
    let resources = "cpus:0.5;mem:32".parse().unwrap();
    RunGroup {
        framework: like.framework,
        role: like.role,
        group: TaskGroup {
            executor: ExecutorDescription::group(ExecutorId::new("g").unwrap(), resources),
            tasks: tasks.collect(),
        },
    }
}

fn run_group(order: RunGroup) -> MasterToSlave {
    MasterToSlave::RunGroup(Box::new(order))
}

fn started(number: u64) -> Event {
    Event::ContainerStarted {
        container: container(number),
        pid: 90 + u32::try_from(number).unwrap(),
        image: None,
    }
}

fn ended(number: u64, how: TaskExit) -> Event {
    Event::ContainerEnded {
        container: container(number),
        exit: exit(how),
    }
}

fn kill(task: &str) -> MasterToSlave {
    MasterToSlave::KillTask {
        framework_id: FrameworkId(1),
        task_id: TaskId::new(task).unwrap(),
        grace: None,
    }
}

fn found(number: u64, task: &str, state: FoundState) -> FoundContainer {
    FoundContainer {
        container: container(number),
        owner: Owner::Task((FrameworkId(1), TaskId::new(task).unwrap())),
        age: Duration::from_secs(5),
        state,
    }
}

fn running(pid: u32) -> FoundState {
    FoundState::Running { pid }
}

/// The updates on their way to the disk.
fn updates(slave: &Slave) -> Vec<TaskStatus> {
    let updates = slave.writing.iter().filter_map(|(_, record)| match record {
        Record::UpdateMade { status, .. } => Some(status.as_ref().clone()),
        _ => None,
    });
    updates.collect()
}

impl Slave {
    /// With a group of `a` and `b` whose containers are being started.
    fn with_group() -> Self {
        let mut slave = Self::registered();
        slave.hear(run_group(order(&["a", "b"])), &["persist group F1/g a+b"]);
        slave.durable(&["start 1-1 F1/a", "start 1-2 F1/b"]);
        slave
    }

    /// With one that runs, as its framework knows.
    fn with_running_group() -> Self {
        let mut slave = Self::with_group();
        slave.on(started(2), &[]);
        slave.on(
            started(1),
            &[
                "persist update F1/a RUNNING #1",
                "persist update F1/b RUNNING #2",
            ],
        );
        slave.durable(&[
            "send 1 update F1/a RUNNING #1 latest RUNNING",
            "send 1 update F1/b RUNNING #2 latest RUNNING",
        ]);
        slave.acknowledge("a", 1, &["persist acknowledged F1/a #1"]);
        slave.acknowledge("b", 2, &["persist acknowledged F1/b #2"]);
        slave.durable(&[]);
        slave
    }

    fn free(&self) -> String {
        self.core.free().to_string()
    }

    /// The same disk, another life, in which these were found.
    fn restarted_finding(mut self, found: Vec<FoundContainer>) -> Self {
        self.expect(&[]);
        Self::finding(config(), std::mem::take(&mut self.disk), found)
    }
}

#[test]
fn a_group_is_told_as_running_when_all_of_it_runs() {
    let mut slave = Slave::with_running_group();
    assert_eq!(
        slave.free(),
        "cpus:1.5;mem:3936;disk:1000;ports:[31000-32000]"
    );
    // One that finishes leaves the other alone.
    slave.on(
        ended(1, TaskExit::Code(0)),
        &["persist update F1/a FINISHED #3"],
    );
    assert_eq!(
        updates(&slave)[0].executor_id,
        Some(ExecutorId::new("g").unwrap())
    );
    slave.durable(&["send 1 update F1/a FINISHED #3 latest FINISHED"]);
    slave.on(
        ended(2, TaskExit::Code(0)),
        &[
            "persist update F1/b FINISHED #4",
            "persist executor ended F1/g",
            "send 1 executor ended F1/g",
        ],
    );
    assert_eq!(slave.free(), slave.core.total().to_string());
    slave.durable(&["send 1 update F1/b FINISHED #4 latest FINISHED"]);
}

#[test]
fn the_first_that_fails_takes_the_others_along() {
    // semantics: M7
    let mut slave = Slave::with_running_group();
    slave.on(
        ended(1, TaskExit::Code(3)),
        &[
            "persist group ending F1/g",
            "persist update F1/a FAILED #3",
            "kill 1-2 3s",
        ],
    );
    slave.durable(&["send 1 update F1/a FAILED #3 latest FAILED"]);
    // However it takes its kill.
    slave.on(
        ended(2, TaskExit::Code(0)),
        &[
            "persist update F1/b KILLED #4",
            "persist executor ended F1/g",
            "send 1 executor ended F1/g",
        ],
    );
    assert!(
        updates(&slave)[0]
            .message
            .contains("another task of its group")
    );
}

#[test]
fn a_kill_of_one_kills_all() {
    // semantics: M7
    let mut slave = Slave::with_running_group();
    slave.hear(kill("b"), &["kill 1-2 3s"]);
    slave.on(
        ended(2, TaskExit::Signal(15)),
        &[
            "persist group ending F1/g",
            "persist update F1/b KILLED #3",
            "kill 1-1 3s",
        ],
    );
    // Before anything of it was started, at once.
    let mut slave = Slave::registered();
    slave.hear(run_group(order(&["a", "b"])), &["persist group F1/g a+b"]);
    slave.hear(
        kill("b"),
        &[
            "persist group ending F1/g",
            "persist update F1/b KILLED #1",
            "persist update F1/a KILLED #2",
            "persist executor ended F1/g",
            "send 1 executor ended F1/g",
        ],
    );
}

#[test]
fn one_that_cannot_be_started_ends_the_others_which_nobody_has_heard_of() {
    let mut slave = Slave::with_group();
    slave.on(started(1), &[]);
    let message = "no such command".to_owned();
    slave.on(
        Event::ContainerNotStarted {
            container: container(2),
            message,
        },
        &[
            "persist group ending F1/g",
            "persist update F1/b FAILED #1",
            "kill 1-1 3s",
        ],
    );
    slave.durable(&["send 1 update F1/b FAILED #1 latest FAILED"]);
    slave.on(
        ended(1, TaskExit::Signal(15)),
        &[
            "persist update F1/a KILLED #2",
            "persist executor ended F1/g",
            "send 1 executor ended F1/g",
        ],
    );
    assert_eq!(
        updates(&slave)[0].reason,
        Some(Reason::TaskKilledDuringLaunch)
    );
}

#[test]
fn a_group_that_does_not_fit_is_dropped_as_a_whole() {
    let mut slave = Slave::registered();
    slave.hear(
        run_group(order(&["a", "b", "c", "d"])),
        &[
            "persist update F1/a DROPPED #1",
            "persist update F1/b DROPPED #2",
            "persist update F1/c DROPPED #3",
            "persist update F1/d DROPPED #4",
            "send 1 executor ended F1/g",
        ],
    );
    assert_eq!(slave.free(), slave.core.total().to_string());
    let mut twice = Slave::registered();
    twice.hear(
        run_group(order(&["a", "a"])),
        &[
            "persist update F1/a DROPPED #1",
            "send 1 executor ended F1/g",
        ],
    );
}

#[test]
fn a_group_that_was_not_durable_was_never_there() {
    let mut slave = Slave::registered();
    slave.hear(run_group(order(&["a", "b"])), &["persist group F1/g a+b"]);
    slave.writing.clear();
    let mut slave = slave.restarted();
    slave.expect(&["persist incarnation 2"]);
    assert_eq!(slave.core.tasks().count(), 0);
}

#[test]
fn a_slave_that_dies_between_two_starts_ends_the_group() {
    let slave = Slave::with_group();
    // Of b there is no container: its shim was never asked.
    let mut slave = slave.restarted_finding(vec![found(1, "a", running(91))]);
    slave.expect(&[
        "persist incarnation 2",
        "persist group ending F1/g",
        "persist update F1/b DROPPED #1",
        "kill 1-1 3s",
    ]);
    slave.on(
        ended(1, TaskExit::Signal(15)),
        &[
            "persist update F1/a KILLED #2",
            "persist executor ended F1/g",
        ],
    );
}

#[test]
fn a_slave_that_dies_before_it_tells_of_a_group_tells_of_all_of_it() {
    let slave = Slave::with_group();
    let all = vec![found(1, "a", running(91)), found(2, "b", running(92))];
    let mut slave = slave.restarted_finding(all);
    slave.expect(&[
        "persist incarnation 2",
        "persist update F1/a RUNNING #1",
        "persist update F1/b RUNNING #2",
    ]);
    assert_eq!(
        slave.free(),
        "cpus:1.5;mem:3936;disk:1000;ports:[31000-32000]"
    );
    let connection = ConnectionId(1);
    slave.on(
        Event::Connected { connection },
        &[
            "send 1 executors F1/g",
            "send 1 report F1/a STAGING, F1/b STAGING",
            "send 1 reregister S4",
        ],
    );
}

#[test]
fn what_a_bad_end_means_for_the_others_survives_its_acknowledgement() {
    let mut slave = Slave::with_running_group();
    slave.on(
        ended(1, TaskExit::Code(3)),
        &[
            "persist group ending F1/g",
            "persist update F1/a FAILED #3",
            "kill 1-2 3s",
        ],
    );
    slave.durable(&["send 1 update F1/a FAILED #3 latest FAILED"]);
    slave.acknowledge("a", 3, &["persist forgotten F1/a"]);
    slave.durable(&[]);
    // The kill was lost with the slave.
    let mut slave = slave.restarted_finding(vec![found(2, "b", running(92))]);
    slave.expect(&["persist incarnation 2", "kill 1-2 3s"]);
    slave.on(
        ended(2, TaskExit::Signal(9)),
        &[
            "persist update F1/b KILLED #1",
            "persist executor ended F1/g",
        ],
    );
    // One that finished leaves no such word.
    let mut slave = Slave::with_running_group();
    slave.on(
        ended(1, TaskExit::Code(0)),
        &["persist update F1/a FINISHED #3"],
    );
    slave.durable(&["send 1 update F1/a FINISHED #3 latest FINISHED"]);
    slave.acknowledge("a", 3, &["persist forgotten F1/a"]);
    slave.durable(&[]);
    let mut slave = slave.restarted_finding(vec![found(2, "b", running(92))]);
    slave.expect(&["persist incarnation 2"]);
}

#[test]
fn what_ended_without_a_slave_ends_the_group_in_its_next_life() {
    let slave = Slave::with_running_group();
    let failed = FoundState::Ended(exit(TaskExit::Code(1)));
    let mut slave =
        slave.restarted_finding(vec![found(1, "a", failed), found(2, "b", running(92))]);
    slave.expect(&[
        "persist incarnation 2",
        "persist group ending F1/g",
        "persist update F1/a FAILED #1",
        "kill 1-2 3s",
    ]);
}

#[test]
fn a_group_of_a_framework_that_is_gone_takes_nothing() {
    let mut slave = Slave::with_running_group();
    slave.hear(
        MasterToSlave::ShutdownFramework {
            framework_id: FrameworkId(1),
        },
        &["persist shutdown F1", "kill 1-1 3s", "kill 1-2 3s"],
    );
    assert_eq!(slave.free(), slave.core.total().to_string());
    slave.on(ended(1, TaskExit::Signal(15)), &[]);
    slave.on(ended(2, TaskExit::Signal(15)), &["forgotten F1"]);
}

#[test]
fn a_group_that_is_shut_down_is_killed() {
    let mut slave = Slave::with_running_group();
    slave.hear(
        MasterToSlave::ShutdownExecutor {
            framework_id: FrameworkId(1),
            executor_id: ExecutorId::new("g").unwrap(),
        },
        &["kill 1-1 3s", "kill 1-2 3s"],
    );
    slave.on(
        ended(1, TaskExit::Signal(15)),
        &["persist group ending F1/g", "persist update F1/a KILLED #3"],
    );
    assert_eq!(updates(&slave)[0].state, TaskState::Killed);
}
