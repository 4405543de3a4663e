//! What may be launched (semantics D1, D8, D9, A9), and kills (B9).

use std::collections::BTreeMap;

use bytes::Bytes;
use meros_proto::check::{Check, HealthCheck, Probe};
use meros_proto::executor::ExecutorDescription;
use meros_proto::framework::FrameworkCapability;
use meros_proto::ids::{ExecutorId, FrameworkId, SlaveId, UpdateId};
use meros_proto::image::Image;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::status::TaskState;
use meros_proto::task::{
    COMMAND_BYTES_MAX, Command, TASK_DATA_BYTES_MAX, TaskDescription, TaskLimits,
};
use meros_proto::view::ClusterChange;

use super::world::{World, check, framework, resources, secs, task, task_id};

/// The message of the TASK_ERROR that a task gets out of an offer of `cpus:4;mem:1024;gpus:2`.
fn why_refused(task: TaskDescription) -> String {
    let mut world = World::new();
    world.slave("cpus:4;mem:1024;gpus:2");
    let mut description = framework();
    description
        .capabilities
        .push(FrameworkCapability::GpuResources);
    let f = world.framework(description);
    let lines = world.accept(f, &[1], vec![task]);
    let error = format!(
        "f2 t TASK_ERROR by Master on {} TaskInvalid #m1",
        SlaveId(0)
    );
    assert!(
        lines[0] == error || lines[0].starts_with("f2 t TASK_ERROR by Master on S9"),
        "{lines:?}"
    );
    let refused = world.core.updates.in_flight(FrameworkId(0));
    refused[0].message.clone()
}

fn good() -> TaskDescription {
    task("t", SlaveId(0), "cpus:1;mem:64")
}

fn executor() -> ExecutorDescription {
    ExecutorDescription {
        executor_id: ExecutorId::new("e").expect("a good id"),
        framework_id: None,
        name: String::new(),
        command: Some(Command::shell("true")),
        resources: resources("cpus:0.5"),
        labels: Default::default(),
        shutdown_grace: None,
        data: Bytes::new(),
    }
}

#[test]
fn a_bad_task_is_refused_with_the_field_and_the_rule() {
    // semantics: D1, D8, D9
    let shell = |line: &str| Some(Command::shell(line));
    let cases = [
        (
            task("t", SlaveId(9), "cpus:1"),
            "slave_id is not valid: it is S9",
        ),
        (
            task("t", SlaveId(0), ""),
            "resources is not valid: there are none",
        ),
        (
            task("t", SlaveId(0), "cpus:5"),
            "more than the offers have: cpus: wanted 5, has 4",
        ),
        (
            task("t", SlaveId(0), "cpus(x):1"),
            "more than the offers have",
        ),
        (
            task("t", SlaveId(0), "ports:[1-2]"),
            "more than the offers have",
        ),
        (
            TaskDescription {
                command: None,
                ..good()
            },
            "there is no executor either",
        ),
        (
            TaskDescription {
                executor: Some(executor()),
                ..good()
            },
            "there is an executor as well",
        ),
        (
            TaskDescription {
                command: None,
                executor: Some(executor()),
                ..good()
            },
            "runs no executors of frameworks",
        ),
        (
            TaskDescription {
                command: shell(""),
                ..good()
            },
            "it names no program",
        ),
        (
            TaskDescription {
                command: Some(Command::argv(Vec::<String>::new())),
                ..good()
            },
            "it names no program",
        ),
        (
            TaskDescription {
                command: Some(Command::argv([""]).image(Image::new("a"))),
                ..good()
            },
            "it names no program",
        ),
        (
            TaskDescription {
                command: Some(Command::shell("x").image(Image::new("a b"))),
                ..good()
            },
            "image is not valid: \"a b\" is empty, or has a blank",
        ),
        (
            TaskDescription {
                command: shell("a\0b"),
                ..good()
            },
            "a NUL byte cannot be passed",
        ),
        (
            TaskDescription {
                command: shell(&"x".repeat(COMMAND_BYTES_MAX + 1)),
                ..good()
            },
            "at most 1048576 are allowed",
        ),
        (
            TaskDescription {
                command: Some(Command::shell("x").env("A=B", "c")),
                ..good()
            },
            "\"A=B\" cannot be the name of a variable",
        ),
        (
            TaskDescription {
                command: Some(Command::shell("x").env("", "c")),
                ..good()
            },
            "\"\" cannot be the name of a variable",
        ),
        (
            TaskDescription {
                data: Bytes::from(vec![0; TASK_DATA_BYTES_MAX + 1]),
                ..good()
            },
            "data is not valid",
        ),
        (
            TaskDescription {
                name: "x".repeat(2_000),
                ..good()
            },
            "name is not valid",
        ),
        (
            TaskDescription {
                limits: TaskLimits {
                    mem: Some("32".parse().expect("a scalar")),
                    cpus: None,
                },
                ..good()
            },
            "it is below the 64 MiB of its resources",
        ),
        (
            TaskDescription {
                limits: TaskLimits {
                    cpus: Some("0.5".parse().expect("a scalar")),
                    mem: None,
                },
                ..good()
            },
            "it is below the 1 of its resources",
        ),
    ];
    for (task, expected) in cases {
        let message = why_refused(task);
        assert!(
            message.contains(expected),
            "{message:?} does not say {expected:?}"
        );
    }
}

#[test]
fn one_bad_task_does_not_harm_the_others_of_its_accept() {
    // semantics: D1
    let mut world = World::new();
    world.slave("cpus:4;mem:1024");
    let f = world.framework(framework());
    let tasks = vec![
        task("a", SlaveId(0), "cpus:3"),
        task("b", SlaveId(0), "cpus:2"),
        task("a", SlaveId(0), "cpus:1"),
        task("c", SlaveId(0), "cpus:1"),
    ];
    check(
        world.accept(f, &[1], tasks),
        &[
            "s1 run F0 a cpus:3",
            "f2 b TASK_ERROR by Master on S0 TaskInvalid #m1",
            "f2 a TASK_ERROR by Master on S0 TaskInvalid #m2",
            "s1 run F0 c cpus:1",
        ],
    );
    // The refused twin of a task that lives ends nothing but itself.
    check(world.acknowledge(f, "a", super::world::by_master(2)), &[]);
    assert_eq!(
        world.count(|change| matches!(change, ClusterChange::TaskRemoved { .. })),
        0
    );
}

#[test]
fn a_task_id_can_be_used_again_once_its_task_is_over_and_done_with() {
    // semantics: A9
    let (mut world, s, f) = World::with_a_running_task();
    world.update(s, "t", TaskState::Finished); // O1-2: everything
    let early = world.accept(f, &[2], vec![task("t", SlaveId(0), "cpus:1")]);
    assert_eq!(early[0], "f2 t TASK_ERROR by Master on S0 TaskInvalid #m1");
    world.acknowledge(f, "t", UpdateId(2));
    let revive = FrameworkToMaster::Revive { roles: Vec::new() };
    world.framework_says(f, revive);
    check(
        world.accept(f, &[3], vec![task("t", SlaveId(0), "cpus:1")]),
        &["s1 run F0 t cpus:1"],
    );
}

#[test]
fn what_a_task_runs_is_not_kept() {
    let mut world = World::new();
    world.slave("cpus:4");
    let f = world.framework(framework());
    let secret = Command {
        environment: BTreeMap::from([("K".into(), "s3cret".into())]),
        ..Command::shell("x")
    };
    world.accept(
        f,
        &[1],
        vec![TaskDescription {
            command: Some(secret),
            ..task("t", SlaveId(0), "cpus:1")
        }],
    );
    assert!(!format!("{:?}", world.core).contains("s3cret"));
}

#[test]
fn a_kill_goes_to_the_slave_and_a_repeat_only_shortens_it() {
    // semantics: B9, M5
    let (mut world, _, f) = World::with_a_running_task();
    let kill = |grace: Option<u64>, slave: Option<u32>| FrameworkToMaster::Kill {
        task_id: task_id("t"),
        slave_id: slave.map(SlaveId),
        grace: grace.map(secs),
    };
    check(world.framework_says(f, kill(None, None)), &["s1 kill F0 t"]);
    check(
        world.framework_says(f, kill(Some(9), Some(0))),
        &["s1 kill F0 t grace=9s"],
    );
    check(
        world.framework_says(f, kill(Some(30), None)),
        &["s1 kill F0 t grace=9s"],
    );
    check(
        world.framework_says(f, kill(Some(2), None)),
        &["s1 kill F0 t grace=2s"],
    );
    check(
        world.framework_says(f, kill(Some(u64::MAX), None)),
        &["s1 kill F0 t grace=2s"],
    );
    // A wrong slave is ignored.
    check(world.framework_says(f, kill(None, Some(5))), &[]);
}

#[test]
fn a_kill_of_an_unknown_task_is_answered_like_a_question() {
    // semantics: B9, H6
    let (mut world, _, f) = World::with_a_running_task();
    check(
        world.kill(f, "none"),
        &["f2 none TASK_UNKNOWN by Master Reconciliation"],
    );
}

#[test]
fn a_kill_of_an_unreachable_task_is_answered_and_remembered() {
    // semantics: B9, K5
    let (mut world, _, f) = World::with_a_running_task();
    world.pass(secs(90));
    check(
        world.kill(f, "t"),
        &["f2 t TASK_UNREACHABLE by Master on S0 Reconciliation"],
    );
    let tasks = vec![super::world::report(
        FrameworkId(0),
        "t",
        SlaveId(0),
        TaskState::Running,
    )];
    let (_, lines) = world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    assert!(lines.contains(&"s3 kill F0 t".to_owned()), "{lines:?}");
}

#[test]
fn a_check_that_breaks_a_rule_is_refused_with_its_field() {
    // semantics: M8
    let of = |check: Check| TaskDescription {
        check: Some(check),
        ..good()
    };
    let health = |health: HealthCheck| TaskDescription {
        health_check: Some(health),
        ..good()
    };
    let mut as_root = Command::shell("true");
    as_root.user = Some("root".to_owned());
    let as_root = Probe::Command(Box::new(as_root));
    let cases = [
        (of(Check::tcp(0)), "check.port is not valid: it is 0"),
        (of(Check::grpc(0, "")), "check.port is not valid"),
        (
            of(Check::http(1, "x")),
            "check.path is not valid: it does not begin with /",
        ),
        (
            of(Check::http(1, "/a b")),
            "check.path is not valid: it has a blank",
        ),
        (of(Check::grpc(1, "\n")), "check.service is not valid"),
        (
            of(Check::http(1, "/".repeat(3_000))),
            "at most 2048 are allowed",
        ),
        (
            of(Check::new(Probe::Command(Box::new(
                Command::shell("x").image(Image::new("a")),
            )))),
            "check.command is not valid: it has an image",
        ),
        (
            of(Check::shell("")),
            "check.command is not valid: it names no program",
        ),
        (
            of(Check::shell("x".repeat(65_537))),
            "at most 65536 are allowed",
        ),
        (of(Check::new(as_root)), "check.command.user is not valid"),
        (
            of(Check::tcp(1).interval(secs(0))),
            "check.interval is not valid: it is 0ns; 100ms to",
        ),
        (
            of(Check::tcp(1).timeout(secs(601))),
            "check.timeout is not valid: it is 601s",
        ),
        (
            of(Check::tcp(1).delay(secs(86_401))),
            "check.delay is not valid",
        ),
        (
            health(HealthCheck::new(Check::tcp(1)).consecutive_failures(0)),
            "health_check.consecutive_failures is not valid: it is 0",
        ),
        (
            health(HealthCheck::new(Check::tcp(1)).grace_period(secs(86_401))),
            "health_check.grace_period is not valid",
        ),
        (
            health(HealthCheck::new(Check::tcp(0))),
            "health_check.port is not valid",
        ),
    ];
    for (task, why) in cases {
        let message = why_refused(task);
        assert!(message.contains(why), "{message}");
    }
    let mut world = World::new();
    world.slave("cpus:4;mem:1024");
    let f = world.framework(framework());
    let fine = TaskDescription {
        check: Some(Check::https(443, "/ready?full=1")),
        ..health(HealthCheck::new(Check::grpc(80, "a.b.C")))
    };
    world.accept(f, &[1], vec![fine]);
    assert!(
        world
            .core
            .tasks
            .find(FrameworkId(0), &task_id("t"))
            .is_some()
    );
}
