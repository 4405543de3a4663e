//! Checks of tasks (semantics M8): when they are probed, what is told, when a task is killed.

use meros_proto::check::{Check, CheckStatus, HealthCheck};
use meros_proto::executor::ExecutorDescription;
use meros_proto::ids::ExecutorId;
use meros_proto::status::{Reason, TaskState, TaskStatus};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// With a delay of 2 s, every 5 s, 1 s at the most, a grace period of 10 s and 3 failures.
fn checked() -> RunTask {
    let check = Check::tcp(80)
        .delay(SECOND * 2)
        .interval(SECOND * 5)
        .timeout(SECOND);
    let mut run = run(1, "t");
    run.task.health_check = Some(HealthCheck::new(check));
    run
}

fn ready() -> RunTask {
    let mut run = checked();
    run.task.check = run.task.health_check.take().map(|health| health.check);
    run
}

pub(crate) fn tcp(passed: bool) -> Found {
    let message = match passed {
        true => String::new(),
        false => "connection refused".to_owned(),
    };
    let succeeded = Some(passed);
    Found {
        status: CheckStatus::Tcp { succeeded },
        message,
    }
}

fn of(purpose: CheckPurpose, number: u64, found: Option<Found>) -> Event {
    let container = container(1);
    let probe = ProbeId {
        container,
        purpose,
        number,
    };
    Event::Probed { probe, found }
}

fn health(number: u64, passed: bool) -> Event {
    of(CheckPurpose::Health, number, Some(tcp(passed)))
}

fn readiness(number: u64, passed: bool) -> Event {
    of(CheckPurpose::Readiness, number, Some(tcp(passed)))
}

fn newest(slave: &Slave) -> TaskStatus {
    let mut updates = slave.writing.iter().filter_map(|(_, record)| match record {
        Record::UpdateMade { status, .. } => Some(status.as_ref()),
        _ => None,
    });
    updates.next_back().expect("an update").clone()
}

/// Up to the first success, which is told and acknowledged as number 2.
fn healthy(run: RunTask) -> Slave {
    let mut slave = Slave::running(run);
    slave.after(SECOND * 2, &["probe 1-1 health 1"]);
    slave.on(health(1, true), &["persist update F1/t RUNNING #2"]);
    let status = newest(&slave);
    assert_eq!(
        (status.healthy, status.reason),
        (Some(true), Some(Reason::TaskHealthCheckStatusUpdated))
    );
    slave.durable(&["send 1 update F1/t RUNNING #2 latest RUNNING"]);
    slave.acknowledge("t", 2, &["persist acknowledged F1/t #2"]);
    slave.durable(&[]);
    slave
}

fn kill_line() -> String {
    format!("kill {} 3s", container(1))
}

#[test]
fn a_task_is_probed_after_the_delay_and_then_an_interval_after_each_answer() {
    let mut slave = Slave::running(checked());
    slave.after(SECOND * 2 - Duration::from_micros(1), &[]);
    slave.after(Duration::from_micros(1), &["probe 1-1 health 1"]);
    slave.now = slave.now.after(SECOND);
    slave.feed(health(1, true));
    slave.expect(&["persist update F1/t RUNNING #2"]);
    slave.after(SECOND * 5 - Duration::from_micros(1), &[]);
    slave.after(Duration::from_micros(1), &["probe 1-1 health 2"]);
}

#[test]
fn only_changes_are_told_and_three_failures_in_a_row_kill() {
    let mut slave = healthy(checked());
    for number in 2..5 {
        slave.after(SECOND * 5, &[&format!("probe 1-1 health {number}")]);
        slave.on(health(number, true), &[]);
    }
    slave.after(SECOND * 5, &["probe 1-1 health 5"]);
    slave.on(health(5, false), &["persist update F1/t RUNNING #3"]);
    let status = newest(&slave);
    assert_eq!(status.healthy, Some(false));
    assert_eq!(status.message, "connection refused");
    slave.after(SECOND * 5, &["probe 1-1 health 6"]);
    slave.on(health(6, false), &[]);
    slave.after(SECOND * 5, &["probe 1-1 health 7"]);
    slave.on(health(7, false), &[&kill_line()]);
    // Nothing is probed any more, and nothing killed twice.
    assert_eq!(
        slave.core.next_deadline(),
        Some(slave.now.after(PING_TIMEOUT - SECOND * 32))
    );
    slave.on(health(8, false), &[]);
    let event = Event::ContainerEnded {
        container: container(1),
        exit: exit(TaskExit::Signal(15)),
    };
    slave.on(event, &["persist update F1/t KILLED #4"]);
    let status = newest(&slave);
    assert_eq!(status.healthy, Some(false));
    assert_eq!(status.reason, Some(Reason::TaskHealthCheckStatusUpdated));
    assert_eq!(
        status.message,
        "killed because its health check failed 3 times in a row, the last time: connection refused"
    );
    assert_eq!(slave.core.counters().tasks_unhealthy, 1);
}

#[test]
fn a_success_starts_the_count_of_failures_anew() {
    let mut slave = healthy(checked());
    for number in 2..20 {
        slave.after(SECOND * 5, &[&format!("probe 1-1 health {number}")]);
        slave.feed(health(number, number % 3 == 1));
        slave.feed(Event::Tick);
        // Health has changed, or an update of that is on its way.
        for line in slave.take_unread() {
            assert!(line.starts_with("persist update F1/t RUNNING"), "{line}");
        }
        slave.hear(MasterToSlave::Ping { registered: true }, &["send 1 pong"]);
    }
    assert_eq!(slave.core.counters().tasks_unhealthy, 0);
}

#[test]
fn failures_within_the_grace_period_count_only_after_a_success() {
    let mut slave = Slave::running(checked());
    // At 2 s and 7 s of 10.
    slave.after(SECOND * 2, &["probe 1-1 health 1"]);
    slave.on(health(1, false), &[]);
    slave.after(SECOND * 5, &["probe 1-1 health 2"]);
    slave.on(health(2, false), &[]);
    slave.after(SECOND * 5, &["probe 1-1 health 3"]);
    slave.on(health(3, false), &["persist update F1/t RUNNING #2"]);
    // One of them: the first that counts.
    slave.after(SECOND * 5, &["probe 1-1 health 4"]);
    slave.on(health(4, false), &[]);
    slave.after(SECOND * 5, &["probe 1-1 health 5"]);
    slave.on(health(5, false), &[&kill_line()]);

    let mut slave = Slave::running(checked());
    slave.after(SECOND * 2, &["probe 1-1 health 1"]);
    slave.on(health(1, true), &["persist update F1/t RUNNING #2"]);
    slave.after(SECOND * 5, &["probe 1-1 health 2"]);
    slave.on(health(2, false), &[]);
    let checks = &slave.core.tasks[&(FrameworkId(1), TaskId::new("t").unwrap())].checks;
    let mut status = newest(&slave);
    checks.dress(&mut status);
    assert_eq!(
        status.healthy,
        Some(false),
        "the grace period has ended with the success"
    );
}

#[test]
fn readiness_is_told_and_kills_nothing() {
    let mut slave = Slave::registered();
    slave.hear(
        MasterToSlave::RunTask(Box::new(ready())),
        &["persist task F1/t"],
    );
    slave.durable(&["start 1-1 F1/t"]);
    let started = Event::ContainerStarted {
        container: container(1),
        pid: 99,
        image: None,
    };
    slave.on(started, &["persist update F1/t RUNNING #1"]);
    // Without a result, and of the right kind.
    let none = CheckStatus::Tcp { succeeded: None };
    assert_eq!(newest(&slave).check_status, Some(none));
    slave.durable(&["send 1 update F1/t RUNNING #1 latest RUNNING"]);
    slave.acknowledge("t", 1, &["persist acknowledged F1/t #1"]);
    slave.after(SECOND * 2, &["probe 1-1 readiness 1"]);
    slave.on(readiness(1, false), &["persist update F1/t RUNNING #2"]);
    let status = newest(&slave);
    assert_eq!(status.check_status, Some(tcp(false).status));
    assert_eq!(
        (status.healthy, status.reason),
        (None, Some(Reason::TaskCheckStatusUpdated))
    );
    slave.durable(&["send 1 update F1/t RUNNING #2 latest RUNNING"]);
    slave.acknowledge("t", 2, &["persist acknowledged F1/t #2"]);
    for number in 2..9 {
        slave.after(SECOND * 5, &[&format!("probe 1-1 readiness {number}")]);
        slave.on(readiness(number, false), &[]);
    }
    slave.after(SECOND * 5, &["probe 1-1 readiness 9"]);
    slave.on(readiness(9, true), &["persist update F1/t RUNNING #3"]);
}

#[test]
fn a_check_that_flaps_has_one_update_waiting_and_then_the_newest_result() {
    let mut slave = Slave::running(ready());
    let mut passed = false;
    for number in 1..6 {
        let wait = if number == 1 { 2 } else { 5 };
        slave.after(SECOND * wait, &[&format!("probe 1-1 readiness {number}")]);
        passed = !passed;
        let made: &[&str] = match number {
            1 => &["persist update F1/t RUNNING #2"],
            _ => &[],
        };
        slave.on(readiness(number, passed), made);
    }
    slave.after(SECOND * 5, &["probe 1-1 readiness 6"]);
    slave.on(readiness(6, false), &[]);
    slave.durable(&["send 1 update F1/t RUNNING #2 latest RUNNING"]);
    let made = [
        "persist acknowledged F1/t #2",
        "persist update F1/t RUNNING #3",
    ];
    slave.acknowledge("t", 2, &made);
    assert_eq!(newest(&slave).check_status, Some(tcp(false).status));
}

#[test]
fn what_was_not_tried_says_nothing_and_who_does_not_answer_is_not_waited_for() {
    let mut slave = healthy(checked());
    for number in 2..8 {
        slave.after(SECOND * 5, &[&format!("probe 1-1 health {number}")]);
        slave.on(of(CheckPurpose::Health, number, None), &[]);
        slave.hear(MasterToSlave::Ping { registered: true }, &["send 1 pong"]);
    }
    assert_eq!(slave.core.counters().probes_untried, 6);
    slave.after(SECOND * 5, &["probe 1-1 health 8"]);
    slave.after(SECOND * 12, &[]);
    assert_eq!(slave.core.counters().probes_overdue, 1);
    slave.on(health(8, false), &[]);
    assert_eq!(slave.core.counters().probes_late, 1);
    slave.after(SECOND * 5, &["probe 1-1 health 9"]);
}

#[test]
fn a_slave_that_starts_anew_goes_on_checking_and_kills_what_is_told_to_be_unhealthy_once() {
    let slave = healthy(checked());
    // It has run for 5 s: the delay is over, the grace period is not.
    let mut slave = slave.restarted_with(FoundState::Running { pid: 99 });
    slave.expect(&["persist incarnation 2"]);
    slave.durable(&[]);
    slave.on(Event::Tick, &["probe 1-1 health 1"]);
    slave.on(health(1, false), &[]);
    slave.after(SECOND * 5, &["probe 1-1 health 2"]);
    slave.on(health(2, true), &["persist update F1/t RUNNING #1"]);
    for number in 3..5 {
        slave.after(SECOND * 5, &[&format!("probe 1-1 health {number}")]);
        slave.on(health(number, false), &[]);
    }
    slave.after(SECOND * 5, &["probe 1-1 health 5"]);
    slave.on(health(5, false), &[&kill_line()]);
    slave.after(SECOND * 60, &[]);
}

#[test]
fn a_task_that_was_being_killed_for_its_health_is_told_so_by_the_next_life() {
    let mut slave = healthy(killing(checked()));
    for number in 2..4 {
        slave.after(SECOND * 5, &[&format!("probe 1-1 health {number}")]);
        slave.feed(health(number, false));
        slave.take_unread();
    }
    slave.durable(&["send 1 update F1/t RUNNING #3 latest RUNNING"]);
    slave.after(SECOND * 5, &["probe 1-1 health 4"]);
    slave.on(
        health(4, false),
        &[&kill_line(), "persist update F1/t KILLING #4"],
    );
    slave.durable(&[]);
    let ended = FoundState::Ended(exit(TaskExit::Signal(15)));
    let mut slave = slave.restarted_with(ended);
    slave.expect(&["persist incarnation 2", "persist update F1/t KILLED #1"]);
    let status = newest(&slave);
    assert_eq!(
        (status.state, status.healthy),
        (TaskState::Killed, Some(false))
    );
    assert_eq!(status.reason, Some(Reason::TaskHealthCheckStatusUpdated));
}

#[test]
fn a_task_of_an_executor_is_not_checked_by_the_slave() {
    let mut run = checked();
    let command = run.task.command.take().expect("a command task");
    let executor_id = ExecutorId::new("e").unwrap();
    let resources = "cpus:0.1".parse().unwrap();
    run.task.executor = Some(ExecutorDescription::new(executor_id, command, resources));
    let mut status = TaskStatus::new(
        run.task.task_id.clone(),
        TaskState::Running,
        meros_proto::status::Source::Slave,
        Timestamp(1),
    );
    crate::checks::Checks::of(&run.task).dress(&mut status);
    assert_eq!((status.healthy, status.check_status), (None, None));
}
