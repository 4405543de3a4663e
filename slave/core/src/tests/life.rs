//! Tasks from their launch to their end, and what a restart makes of them.

use meros_proto::resources::Scalar;
use meros_proto::status::{Reason, Source, TaskState, TaskStatus};

use super::*;

fn started() -> Event {
    Event::ContainerStarted {
        container: container(1),
        pid: 99,
        image: None,
    }
}

fn ended(how: TaskExit) -> Event {
    Event::ContainerEnded {
        container: container(1),
        exit: exit(how),
    }
}

fn kill(grace: Option<u64>) -> MasterToSlave {
    MasterToSlave::KillTask {
        framework_id: FrameworkId(1),
        task_id: TaskId::new("t").unwrap(),
        grace: grace.map(Duration::from_secs),
    }
}

fn order(run: RunTask) -> MasterToSlave {
    MasterToSlave::RunTask(Box::new(run))
}

/// The newest update of `F1/t` on its way to the disk.
fn newest(slave: &Slave) -> TaskStatus {
    let updates = slave.writing.iter().filter_map(|(_, record)| match record {
        Record::UpdateMade { status, .. } => Some(status.as_ref()),
        _ => None,
    });
    updates
        .max_by_key(|status| status.update_id)
        .unwrap()
        .clone()
}

#[test]
fn a_task_starts_when_it_is_durable_and_its_whole_life_is_told() {
    let mut slave = Slave::registered();
    slave.hear(order(run(1, "t")), &["persist task F1/t"]);
    slave.durable(&["start 1-1 F1/t"]);
    slave.on(started(), &["persist update F1/t RUNNING #1"]);
    let running = newest(&slave);
    assert_eq!(
        (running.slave_id, running.source),
        (Some(SLAVE), Source::Executor)
    );
    assert_eq!(
        running.executor_id.map(|id| id.to_string()),
        Some("t".to_owned())
    );
    slave.durable(&["send 1 update F1/t RUNNING #1 latest RUNNING"]);
    slave.acknowledge("t", 1, &["persist acknowledged F1/t #1"]);
    slave.on(
        ended(TaskExit::Code(0)),
        &["persist update F1/t FINISHED #2"],
    );
    assert_eq!(newest(&slave).exit, Some(TaskExit::Code(0)));
    slave.durable(&["send 1 update F1/t FINISHED #2 latest FINISHED"]);
    slave.acknowledge("t", 2, &["persist forgotten F1/t"]);
    slave.durable(&[]);
    assert_eq!(slave.disk.tasks.len() + slave.disk.updates.len(), 0);
    assert_eq!(*slave.core.free(), config().slave.resources);
}

#[test]
fn the_end_of_a_process_decides_the_last_state() {
    let ends = [
        (TaskExit::Code(0), TaskState::Finished, ""),
        (TaskExit::Code(3), TaskState::Failed, "exited with code 3"),
        (
            TaskExit::Signal(11),
            TaskState::Failed,
            "ended by signal SIGSEGV",
        ),
    ];
    for (how, state, message) in ends {
        let mut slave = Slave::running(run(1, "t"));
        slave.feed(ended(how));
        let status = newest(&slave);
        assert_eq!(
            (status.state, status.message.as_str(), status.exit),
            (state, message, Some(how))
        );
        let line = format!("persist update F1/t {} #2", &state.name()[5..]);
        slave.expect(&[&line]);
    }
}

#[test]
fn a_broken_limit_is_the_reason_of_the_failure() {
    // semantics: G2
    let mut slave = Slave::running(run(1, "t"));
    let limitation = Limitation {
        reason: Reason::ContainerLimitationMemory,
        message: "memory limit exceeded: limit 64 MiB".to_owned(),
    };
    let exit = ContainerExit {
        limitation: Some(limitation),
        ..exit(TaskExit::Signal(9))
    };
    let event = Event::ContainerEnded {
        container: container(1),
        exit,
    };
    slave.on(event, &["persist update F1/t FAILED #2"]);
    let status = newest(&slave);
    assert_eq!(status.reason, Some(Reason::ContainerLimitationMemory));
    assert_eq!(status.message, "memory limit exceeded: limit 64 MiB");
    assert_eq!(status.limitation, Some("mem:64".parse().unwrap()));
}

#[test]
fn a_broken_limit_above_what_is_reserved_is_told_as_the_limit() {
    let mut order = run(1, "t");
    order.task.limits.mem = Some(Scalar::whole(96));
    let mut slave = Slave::running(order);
    let limitation = Limitation {
        reason: Reason::ContainerLimitationMemory,
        message: String::new(),
    };
    let exit = ContainerExit {
        limitation: Some(limitation),
        ..exit(TaskExit::Signal(9))
    };
    let event = Event::ContainerEnded {
        container: container(1),
        exit,
    };
    slave.on(event, &["persist update F1/t FAILED #2"]);
    assert_eq!(newest(&slave).limitation, Some("mem:96".parse().unwrap()));
}

#[test]
fn a_container_that_does_not_start_fails_its_task_with_the_reason() {
    // semantics: G2
    let mut slave = Slave::registered();
    slave.hear(order(run(1, "t")), &["persist task F1/t"]);
    slave.durable(&["start 1-1 F1/t"]);
    let message = "command not found: \"nope\"".to_owned();
    let event = Event::ContainerNotStarted {
        container: container(1),
        message: message.clone(),
    };
    slave.on(event, &["persist update F1/t FAILED #1"]);
    let status = newest(&slave);
    assert_eq!(
        (status.reason, status.message),
        (Some(Reason::ContainerLaunchFailed), message)
    );
    assert_eq!(*slave.core.free(), config().slave.resources);
}

#[test]
fn the_same_order_twice_starts_one_container() {
    // semantics: R12
    let mut slave = Slave::registered();
    slave.start(run(1, "t"));
    slave.hear(order(run(1, "t")), &[]);
    slave.on(
        ended(TaskExit::Code(0)),
        &["persist update F1/t FINISHED #2"],
    );
    slave.hear(order(run(1, "t")), &[]);
    assert_eq!(slave.core.counters().duplicate_tasks, 2);
    // The end of a container comes once; what a shell says beyond that is not heard.
    slave.on(ended(TaskExit::Code(1)), &[]);
    assert_eq!(slave.core.counters().container_events_ignored, 1);
}

#[test]
fn a_task_id_may_come_again_after_its_end_was_acknowledged() {
    let mut slave = Slave::running(run(1, "t"));
    slave.on(
        ended(TaskExit::Code(0)),
        &["persist update F1/t FINISHED #2"],
    );
    slave.durable(&["send 1 update F1/t FINISHED #2 latest FINISHED"]);
    slave.acknowledge("t", 2, &["persist forgotten F1/t"]);
    slave.hear(order(run(1, "t")), &["persist task F1/t"]);
    slave.durable(&["start 1-2 F1/t"]);
}

#[test]
fn a_task_beyond_the_slaves_resources_is_dropped() {
    let mut slave = Slave::registered();
    let mut big = run(1, "t");
    big.task.resources = "cpus:5".parse().unwrap();
    slave.hear(order(big), &["persist update F1/t DROPPED #1"]);
    let status = newest(&slave);
    assert_eq!(status.reason, Some(Reason::ResourcesUnknown));
    assert!(
        status.message.contains("cpus: wanted 5, has 4"),
        "{}",
        status.message
    );
    slave.durable(&["send 1 update F1/t DROPPED #1 latest DROPPED"]);
    slave.acknowledge("t", 1, &["persist forgotten F1/t"]);
}

#[test]
fn a_task_beyond_the_bound_for_another_slave_or_without_a_command_is_dropped() {
    let mut slave = Slave::with(
        Config {
            tasks_max: 0,
            ..config()
        },
        Checkpoint::default(),
    );
    slave.expect(&["persist incarnation 1"]);
    slave.on(
        Event::Connected {
            connection: ConnectionId(1),
        },
        &["send 1 register"],
    );
    slave.hear(registered(), &["persist term 1", "persist identity S4"]);
    slave.hear(order(run(1, "t")), &["persist update F1/t DROPPED #1"]);
    assert!(newest(&slave).message.contains("limit"));
    let mut slave = Slave::registered();
    let mut other = run(1, "t");
    other.task.slave_id = SlaveId(5);
    slave.hear(order(other), &["persist update F1/t DROPPED #1"]);
    let mut idle = run(1, "u");
    idle.task.command = None;
    slave.hear(order(idle), &["persist update F1/u DROPPED #2"]);
    assert_eq!(newest(&slave).reason, Some(Reason::TaskInvalid));
}

#[test]
fn a_killed_task_gets_its_grace_and_a_repeat_may_only_shorten_it() {
    // semantics: M5
    let mut slave = Slave::running(run(1, "t"));
    slave.hear(kill(Some(20)), &["kill 1-1 20s"]);
    slave.hear(kill(Some(30)), &[]);
    slave.now = slave.now.after(Duration::from_secs(12));
    slave.hear(kill(Some(10)), &[]);
    slave.hear(kill(Some(5)), &["kill 1-1 5s"]);
    slave.hear(kill(None), &["kill 1-1 3s"]);
    slave.on(
        ended(TaskExit::Signal(15)),
        &["persist update F1/t KILLED #2"],
    );
    assert_eq!(newest(&slave).exit, Some(TaskExit::Signal(15)));
}

#[test]
fn the_grace_is_the_kills_else_the_tasks_else_three_seconds_and_at_most_an_hour() {
    // semantics: M5
    let mut with_own = run(1, "t");
    with_own.task.kill_grace = Some(Duration::from_secs(7));
    Slave::running(with_own.clone()).hear(kill(None), &["kill 1-1 7s"]);
    Slave::running(with_own).hear(kill(Some(1)), &["kill 1-1 1s"]);
    Slave::running(run(1, "t")).hear(kill(None), &["kill 1-1 3s"]);
    Slave::running(run(1, "t")).hear(kill(Some(u64::MAX)), &["kill 1-1 3600s"]);
}

#[test]
fn killing_is_told_only_to_those_who_understand_it() {
    // semantics: F2
    let mut slave = Slave::running(killing(run(1, "t")));
    slave.hear(
        kill(None),
        &["kill 1-1 3s", "persist update F1/t KILLING #2"],
    );
    slave.hear(kill(Some(1)), &["kill 1-1 1s"]);
    slave.on(ended(TaskExit::Code(0)), &["persist update F1/t KILLED #3"]);
    assert_eq!(newest(&slave).message, "killed on request");
}

#[test]
fn a_task_killed_before_it_runs_never_runs() {
    // semantics: G2
    let mut slave = Slave::registered();
    slave.hear(order(run(1, "t")), &["persist task F1/t"]);
    slave.hear(kill(None), &["persist update F1/t KILLED #1"]);
    assert_eq!(newest(&slave).reason, Some(Reason::TaskKilledDuringLaunch));
    slave.durable(&["send 1 update F1/t KILLED #1 latest KILLED"]);
}

#[test]
fn a_task_killed_while_it_starts_is_killed_as_soon_as_it_can_be() {
    let mut slave = Slave::registered();
    slave.hear(order(run(1, "t")), &["persist task F1/t"]);
    slave.durable(&["start 1-1 F1/t"]);
    slave.hear(kill(None), &[]);
    slave.hear(kill(Some(1)), &[]);
    slave.on(started(), &["kill 1-1 1s"]);
    slave.on(
        ended(TaskExit::Signal(15)),
        &["persist update F1/t KILLED #1"],
    );
    assert_eq!(newest(&slave).reason, Some(Reason::TaskKilledDuringLaunch));
}

#[test]
fn a_task_that_runs_longer_than_it_may_fails() {
    // semantics: G3
    let mut slow = run(1, "t");
    slow.task.max_completion_time = Some(Duration::from_secs(30));
    let mut slave = Slave::running(slow);
    slave.after(Duration::from_secs(29), &[]);
    slave.after(Duration::from_secs(1), &["kill 1-1 3s"]);
    // A kill that comes later does not change why it ended.
    slave.hear(kill(None), &[]);
    slave.on(
        ended(TaskExit::Signal(15)),
        &["persist update F1/t FAILED #2"],
    );
    assert_eq!(
        newest(&slave).reason,
        Some(Reason::MaxCompletionTimeReached)
    );
}

#[test]
fn a_framework_that_is_gone_loses_its_tasks_and_nobody_is_told() {
    // semantics: N3
    let mut slave = Slave::running(run(1, "t"));
    slave.hear(order(run(1, "u")), &["persist task F1/u"]);
    slave.hear(order(run(2, "t")), &["persist task F2/t"]);
    let gone = || MasterToSlave::ShutdownFramework {
        framework_id: FrameworkId(1),
    };
    slave.hear(gone(), &["persist shutdown F1", "kill 1-1 3s"]);
    slave.durable(&["start 1-2 F2/t"]);
    slave.hear(gone(), &[]);
    slave.on(ended(TaskExit::Signal(15)), &["forgotten F1"]);
    assert_eq!(slave.disk.tasks.len(), 1);
    slave.hear(gone(), &["forgotten F1"]);
}

#[test]
fn resources_of_a_gone_framework_are_free_while_its_containers_end() {
    let mut whole = run(1, "t");
    whole.task.resources = "cpus:4".parse().unwrap();
    let mut slave = Slave::running(whole);
    let gone = MasterToSlave::ShutdownFramework {
        framework_id: FrameworkId(1),
    };
    slave.hear(gone, &["persist shutdown F1", "kill 1-1 3s"]);
    slave.hear(order(run(2, "u")), &["persist task F2/u"]);
}

#[test]
fn a_restart_keeps_the_id_and_the_unacknowledged_updates() {
    let mut slave = Slave::registered();
    slave.start(run(1, "t"));
    slave.on(
        ended(TaskExit::Code(0)),
        &["persist update F1/t FINISHED #2"],
    );
    slave.durable(&[]);
    let mut slave = slave.restarted();
    slave.expect(&["persist incarnation 2"]);
    slave.durable(&[]);
    let lines = ["send 1 report F1/t FINISHED", "send 1 reregister S4"];
    slave.on(
        Event::Connected {
            connection: ConnectionId(1),
        },
        &lines,
    );
    slave.hear(
        registered(),
        &[
            "send 1 term 1",
            "send 1 update F1/t RUNNING #1 latest FINISHED",
        ],
    );
}

#[test]
fn tasks_that_ran_are_gone_after_a_restart() {
    // semantics: L5, G2
    let mut slave = Slave::running(run(1, "t")).restarted();
    slave.expect(&["persist incarnation 2", "persist update F1/t GONE #1"]);
    assert_eq!(
        newest(&slave).reason,
        Some(Reason::ExecutorReregistrationTimeout)
    );
    slave.durable(&[]);
    // Lost again before anybody heard of it: it is not made twice.
    slave.restarted().expect(&["persist incarnation 3"]);
}

#[test]
fn tasks_that_never_ran_are_dropped_after_a_restart() {
    // semantics: L3
    let mut slave = Slave::registered();
    slave.hear(order(run(1, "t")), &["persist task F1/t"]);
    slave.durable(&["start 1-1 F1/t"]);
    let mut slave = slave.restarted();
    slave.expect(&["persist incarnation 2", "persist update F1/t DROPPED #1"]);
    assert_eq!(newest(&slave).reason, Some(Reason::SlaveRestarted));
}

#[test]
fn a_task_that_was_not_durable_at_the_crash_was_never_here() {
    let mut slave = Slave::registered();
    slave.hear(order(run(1, "t")), &["persist task F1/t"]);
    slave.restarted().expect(&["persist incarnation 2"]);
}

#[test]
fn a_stopped_slave_kills_tasks_that_end_with_it_and_exits_when_all_is_durable() {
    // semantics: L1
    let mut tied = run(1, "t");
    tied.framework.checkpoint = false;
    let mut slave = Slave::running(tied);
    slave.hear(order(run(1, "u")), &["persist task F1/u"]);
    let stop = || Event::Stop {
        grace: Duration::from_secs(2),
    };
    slave.on(stop(), &["kill 1-1 2s", "persist update F1/u KILLED #2"]);
    slave.hear(order(run(1, "v")), &["persist update F1/v DROPPED #3"]);
    slave.on(
        ended(TaskExit::Signal(15)),
        &["persist update F1/t KILLED #4"],
    );
    assert_eq!(newest(&slave).reason, Some(Reason::SlaveDraining));
    slave.durable(&[
        "send 1 update F1/u KILLED #2 latest KILLED",
        "send 1 update F1/v DROPPED #3 latest DROPPED",
        "send 1 update F1/t KILLED #4 latest KILLED",
        "exit",
    ]);
    slave.on(stop(), &[]);
    let mut slave = slave.restarted();
    slave.expect(&["persist incarnation 2"]);
    let lines = [
        "send 1 report F1/t KILLED, F1/u KILLED",
        "send 1 reregister S4",
    ];
    slave.on(
        Event::Connected {
            connection: ConnectionId(1),
        },
        &lines,
    );
}

#[test]
fn a_stopped_slave_leaves_its_tasks_to_its_next_life() {
    // semantics: L2
    let mut slave = Slave::running(run(1, "t"));
    let grace = Duration::ZERO;
    slave.on(Event::Stop { grace }, &["exit"]);
    let mut slave = slave.restarted_with(FoundState::Running { pid: 99 });
    slave.expect(&["persist incarnation 2"]);
    slave.durable(&[]);
    let connection = ConnectionId(1);
    let lines = ["send 1 report F1/t RUNNING", "send 1 reregister S4"];
    slave.on(Event::Connected { connection }, &lines);
    slave.hear(registered(), &["send 1 term 1"]);
    slave.hear(kill(Some(0)), &["kill 1-1 0ns"]);
    slave.on(
        ended(TaskExit::Signal(9)),
        &["persist update F1/t KILLED #1"],
    );
    assert_eq!(slave.forgotten, []);
    slave.durable(&["send 1 update F1/t KILLED #1 latest KILLED"]);
    assert_eq!(
        slave.forgotten,
        [container(1)],
        "only when its end is durable"
    );
}

#[test]
fn a_stopped_slave_waits_for_a_task_that_is_being_started() {
    let mut slave = Slave::registered();
    slave.hear(order(run(1, "t")), &["persist task F1/t"]);
    slave.durable(&["start 1-1 F1/t"]);
    let grace = Duration::ZERO;
    slave.on(Event::Stop { grace }, &[]);
    let started = Event::ContainerStarted {
        container: container(1),
        pid: 99,
        image: None,
    };
    slave.on(started, &["persist update F1/t RUNNING #1"]);
    slave.durable(&["send 1 update F1/t RUNNING #1 latest RUNNING", "exit"]);
}

#[test]
fn a_task_that_ended_without_its_slave_ends_as_it_did() {
    // semantics: L2
    let state = FoundState::Ended(exit(TaskExit::Code(3)));
    let mut slave = Slave::running(run(1, "t")).restarted_with(state);
    slave.expect(&["persist incarnation 2", "persist update F1/t FAILED #1"]);
    assert_eq!(newest(&slave).exit, Some(TaskExit::Code(3)));
    slave.durable(&[]);
    assert_eq!(slave.forgotten, [container(1)]);
}

#[test]
fn a_task_that_was_not_heard_of_is_taken_up_as_what_it_is() {
    let starting = || {
        let mut slave = Slave::registered();
        slave.hear(order(run(1, "t")), &["persist task F1/t"]);
        slave.durable(&["start 1-1 F1/t"]);
        slave
    };
    let mut slave = starting().restarted_with(FoundState::Running { pid: 99 });
    slave.expect(&["persist incarnation 2", "persist update F1/t RUNNING #1"]);
    let state = FoundState::Ended(exit(TaskExit::Code(0)));
    let mut slave = starting().restarted_with(state);
    slave.expect(&["persist incarnation 2", "persist update F1/t FINISHED #1"]);
    let mut slave = starting().restarted_with(FoundState::NeverRan);
    slave.expect(&["persist incarnation 2", "persist update F1/t DROPPED #1"]);
}

#[test]
fn a_task_whose_shim_is_gone_failed_and_says_why() {
    let mut slave = Slave::running(run(1, "t"));
    let lost = Event::ContainerLost {
        container: container(1),
    };
    slave.on(lost, &["persist update F1/t FAILED #2"]);
    assert_eq!(newest(&slave).reason, Some(Reason::IoSwitchboardExited));
    let mut slave = Slave::running(run(1, "t")).restarted_with(FoundState::Lost);
    slave.expect(&["persist incarnation 2", "persist update F1/t FAILED #1"]);
    assert_eq!(newest(&slave).reason, Some(Reason::IoSwitchboardExited));
}

#[test]
fn a_task_of_a_machine_that_was_restarted_or_that_ends_with_its_slave_is_gone() {
    // semantics: L1, L5
    for state in [FoundState::Rebooted, FoundState::EndedWithSlave] {
        let mut slave = Slave::running(run(1, "t")).restarted_with(state);
        slave.expect(&["persist incarnation 2", "persist update F1/t GONE #1"]);
    }
}

#[test]
fn a_kill_that_was_told_is_done_by_the_next_life() {
    let mut slave = Slave::running(killing(run(1, "t")));
    let lines = ["kill 1-1 3s", "persist update F1/t KILLING #2"];
    slave.hear(kill(None), &lines);
    slave.durable(&["send 1 update F1/t KILLING #2 latest KILLING"]);
    let mut slave = slave.restarted_with(FoundState::Running { pid: 99 });
    slave.expect(&["persist incarnation 2", "kill 1-1 3s"]);
    slave.on(
        ended(TaskExit::Signal(15)),
        &["persist update F1/t KILLED #1"],
    );
}

/// The simulator's seed 2752.
#[test]
fn a_kill_whose_news_was_acknowledged_is_not_told_again_by_the_next_life() {
    // semantics: F2, L2
    let mut slave = Slave::running(killing(run(1, "t")));
    let lines = ["kill 1-1 3s", "persist update F1/t KILLING #2"];
    slave.hear(kill(None), &lines);
    slave.durable(&["send 1 update F1/t KILLING #2 latest KILLING"]);
    slave.acknowledge("t", 2, &["persist acknowledged F1/t #2"]);
    slave.durable(&[]);
    let mut slave = slave.restarted_with(FoundState::Running { pid: 99 });
    slave.expect(&["persist incarnation 2", "kill 1-1 3s"]);
    slave.durable(&[]);
    let connection = ConnectionId(1);
    let lines = ["send 1 report F1/t KILLING", "send 1 reregister S4"];
    slave.on(Event::Connected { connection }, &lines);
    slave.hear(registered(), &["send 1 term 1"]);
    // The master, which does not know what came of it, orders it again.
    slave.hear(kill(None), &[]);
    slave.on(
        ended(TaskExit::Signal(15)),
        &["persist update F1/t KILLED #1"],
    );
}

#[test]
fn a_container_that_is_no_tasks_is_killed_and_forgotten() {
    let mut slave = Slave::registered().restarted_with(FoundState::Running { pid: 99 });
    slave.expect(&["persist incarnation 2", "kill 1-1 0ns"]);
    slave.durable(&[]);
    // Nothing of ours may be alive when we have stopped.
    let grace = Duration::ZERO;
    slave.on(Event::Stop { grace }, &[]);
    slave.on(ended(TaskExit::Signal(9)), &["exit"]);
    assert_eq!(slave.forgotten, [container(1)]);
    let state = FoundState::Ended(exit(TaskExit::Code(0)));
    let slave = Slave::registered().restarted_with(state);
    assert_eq!(slave.forgotten, [container(1)]);
}

#[test]
fn an_idle_slave_stops_at_once() {
    Slave::new().on(
        Event::Stop {
            grace: Duration::ZERO,
        },
        &["exit"],
    );
    Slave::registered().on(
        Event::Stop {
            grace: Duration::ZERO,
        },
        &["exit"],
    );
}

#[test]
fn a_slave_that_leaves_ends_its_tasks_then_gives_its_id_up() {
    // semantics: K8
    let mut slave = Slave::running(run(1, "t"));
    slave.on(
        Event::Leave {
            grace: Duration::from_secs(2),
        },
        &["kill 1-1 2s"],
    );
    slave.on(ended(TaskExit::Code(0)), &["persist update F1/t KILLED #2"]);
    slave.durable(&["send 1 update F1/t KILLED #2 latest KILLED"]);
    slave.acknowledge("t", 2, &["persist forgotten F1/t"]);
    slave.durable(&["persist left"]);
    slave.durable(&["send 1 unregister", "exit"]);
    // Nothing brings it back.
    slave.hear(registered(), &[]);
    slave.on(
        Event::Connected {
            connection: ConnectionId(2),
        },
        &["reconnect 1"],
    );
    let mut slave = slave.restarted();
    slave.expect(&["persist incarnation 2"]);
    slave.on(
        Event::Connected {
            connection: ConnectionId(1),
        },
        &["send 1 register"],
    );
}

#[test]
fn a_leaving_slave_does_not_wait_for_ever_for_acknowledgements() {
    let mut slave = Slave::running(run(1, "t"));
    slave.on(
        Event::Leave {
            grace: Duration::from_secs(2),
        },
        &["kill 1-1 2s"],
    );
    slave.on(ended(TaskExit::Code(0)), &["persist update F1/t KILLED #2"]);
    slave.durable(&["send 1 update F1/t KILLED #2 latest KILLED"]);
    slave.after(
        Duration::from_secs(12),
        &["send 1 update F1/t KILLED #2 latest KILLED", "persist left"],
    );
    slave.durable(&["send 1 unregister", "exit"]);
}

#[test]
fn a_checkpoint_without_an_id_is_given_up() {
    let mut disk = Slave::running(run(1, "t")).disk;
    disk.identity = None;
    let mut slave = Slave::with(config(), disk);
    slave.expect(&["persist incarnation 2", "persist left"]);
    slave.durable(&[]);
    assert_eq!(
        slave.disk,
        Checkpoint {
            incarnation: 2,
            ..Checkpoint::default()
        }
    );
}

#[test]
fn a_master_that_ends_the_slave_says_why() {
    let mut slave = Slave::running(run(1, "t"));
    let refusal = Refusal::SlaveUnknown { slave_id: SLAVE };
    slave.hear(refused(refusal), &["exit slave_unknown"]);
}
