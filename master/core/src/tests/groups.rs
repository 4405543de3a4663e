//! Groups of tasks: launched, refused and charged as a whole (semantics D2).

use meros_proto::executor::ExecutorDescription;
use meros_proto::group::{TASKS_PER_GROUP_MAX, TaskGroup};
use meros_proto::ids::{ExecutorId, FrameworkId, SlaveId, UpdateId};
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::offer::{Filters, Operation};
use meros_proto::status::{Reason, TaskState};
use meros_proto::task::{Command, TaskDescription};

use super::world::*;
use crate::ConnectionId;

fn group(tasks: Vec<TaskDescription>) -> TaskGroup {
    let id = ExecutorId::new("g").expect("a good id");
    TaskGroup {
        executor: ExecutorDescription::group(id, resources("cpus:0.5")),
        tasks,
    }
}

fn member(name: &str) -> TaskDescription {
    task(name, SlaveId(0), "cpus:1;mem:64")
}

fn launch(world: &mut World, f: ConnectionId, number: u64, group: TaskGroup) -> Vec<String> {
    let message = FrameworkToMaster::Accept {
        offer_ids: vec![offer(number)],
        operations: vec![Operation::LaunchGroup(Box::new(group))],
        filters: Filters { refuse: secs(60) },
    };
    world.framework_says(f, message)
}

fn free(world: &World) -> String {
    let free = world.core.allocator.free(SlaveId(0));
    free.expect("it takes part").to_string()
}

fn with_group() -> (World, ConnectionId, ConnectionId) {
    let mut world = World::new();
    let s = world.slave("cpus:4;mem:1024");
    let f = world.framework(framework());
    check(
        launch(&mut world, f, 1, group(vec![member("a"), member("b")])),
        &["s1 run F0 a+b in group g"],
    );
    (world, s, f)
}

fn ended() -> SlaveToMaster {
    SlaveToMaster::ExecutorEnded {
        framework_id: FrameworkId(0),
        executor_id: ExecutorId::new("g").expect("a good id"),
        exit: None,
    }
}

#[test]
fn a_group_is_one_order_and_takes_what_it_says_until_it_has_ended() {
    let (mut world, s, f) = with_group();
    assert_eq!(free(&world), "cpus:1.5;mem:896");
    // What is given back is not to be offered again.
    let roles = Vec::new();
    world.framework_says(f, FrameworkToMaster::Suppress { roles });
    world.update(s, "a", TaskState::Finished);
    world.acknowledge(f, "a", UpdateId(1));
    assert_eq!(free(&world), "cpus:2.5;mem:960");
    world.update(s, "b", TaskState::Finished);
    world.slave_says(s, ended());
    assert_eq!(free(&world), "cpus:4;mem:1024");
    let tasks = world.core.tasks.count_of_slave(SlaveId(0));
    assert_eq!(tasks, 1, "b is not acknowledged");
}

#[test]
fn of_a_group_that_is_not_valid_nothing_is_launched() {
    // semantics: D2
    let shell = |resources: &str| task("b", SlaveId(0), resources);
    let executor = group(Vec::new()).executor;
    let custom = {
        let id = ExecutorId::new("e").expect("a good id");
        ExecutorDescription::new(id, Command::shell("true"), resources("cpus:0.5"))
    };
    let cases = [
        (
            group(vec![member("a"), shell("")]),
            "resources is not valid: there are none",
        ),
        (
            group(vec![member("a"), shell("cpus:3")]),
            "the group takes more than the offers have: cpus: wanted 4.5, has 4",
        ),
        (
            group(vec![
                member("a"),
                TaskDescription {
                    executor: Some(executor.clone()),
                    ..member("b")
                },
            ]),
            "a task of a group has a command",
        ),
        (
            group(vec![
                member("a"),
                TaskDescription {
                    command: None,
                    ..member("b")
                },
            ]),
            "there is no executor either",
        ),
        (
            TaskGroup {
                executor: custom,
                tasks: vec![member("a"), member("b")],
            },
            "a group runs under no program",
        ),
    ];
    for (group, why) in cases {
        let mut world = World::new();
        world.slave("cpus:4;mem:1024");
        let f = world.framework(framework());
        let lines = launch(&mut world, f, 1, group);
        assert_eq!(
            lines[..2],
            [
                "f2 a TASK_ERROR by Master on S0 TaskGroupInvalid #m1",
                "f2 b TASK_ERROR by Master on S0 TaskGroupInvalid #m2",
            ],
            "{why}: {lines:?}"
        );
        assert_eq!(free(&world), "cpus:4;mem:1024", "{why}");
        let told = world.core.updates.in_flight(FrameworkId(0));
        for status in told {
            assert_eq!(status.reason, Some(Reason::TaskGroupInvalid));
            assert!(status.message.contains(why), "{}", status.message);
        }
        assert_eq!(world.core.executors.count_of_slave(SlaveId(0)), 0);
    }
}

#[test]
fn a_group_has_an_id_and_tasks_of_its_own_and_not_too_many() {
    let mut world = World::new();
    world.slave("cpus:4;mem:1024");
    let f = world.framework(framework());
    let one = |name: &str| Operation::LaunchGroup(Box::new(group(vec![member(name)])));
    let twice = Operation::LaunchGroup(Box::new(TaskGroup {
        executor: ExecutorDescription::group(
            ExecutorId::new("h").expect("a good id"),
            resources("cpus:0.5"),
        ),
        tasks: vec![member("c"), member("c")],
    }));
    let message = FrameworkToMaster::Accept {
        offer_ids: vec![offer(1)],
        operations: vec![one("a"), one("b"), twice],
        filters: Filters { refuse: secs(60) },
    };
    let lines = world.framework_says(f, message);
    assert_eq!(
        lines[..3],
        [
            "s1 run F0 a in group g",
            "f2 b TASK_ERROR by Master on S0 TaskGroupInvalid #m1",
            "f2 c TASK_ERROR by Master on S0 TaskGroupInvalid #m2",
        ],
        "{lines:?}"
    );
    let told = world.core.updates.in_flight(FrameworkId(0));
    assert!(told[0].message.contains("g runs on slave S0 already"));
    assert!(told[1].message.contains("c is in the group twice"));
    let many = (0..=TASKS_PER_GROUP_MAX).map(|n| task(&format!("t{n}"), SlaveId(0), "cpus:0.001"));
    let mut world = World::new();
    world.slave("cpus:4;mem:1024");
    let f = world.framework(framework());
    launch(&mut world, f, 1, group(many.collect()));
    let told = world.core.updates.in_flight(FrameworkId(0));
    assert!(!told.is_empty());
    assert!(told.iter().all(|it| it.state == TaskState::Error));
    assert_eq!(world.core.tasks.count_of_slave(SlaveId(0)), 0);
}

#[test]
fn a_group_on_an_offer_that_was_used_is_dropped_as_a_whole() {
    // semantics: E6
    let (mut world, _, f) = with_group();
    let lines = launch(&mut world, f, 1, group(vec![member("c"), member("d")]));
    let dropped = lines.iter().filter(|line| line.contains("TASK_DROPPED"));
    assert_eq!(dropped.count(), 2, "{lines:?}");
}
