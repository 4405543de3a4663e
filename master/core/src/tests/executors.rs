//! Executors: charged once, given back when they end, and known again after a change of leader (semantics M).

use meros_proto::executor::ExecutorDescription;
use meros_proto::ids::{ExecutorId, FrameworkId, SlaveId};
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::message::slave::{RunExecutor, TaskFramework};
use meros_proto::slave::{SlaveCapability, SlaveDescription};
use meros_proto::status::TaskState;
use meros_proto::task::{Command, TaskDescription};
use meros_proto::view::ClusterChange;

use super::world::*;
use crate::ConnectionId;

fn executor() -> ExecutorDescription {
    let id = ExecutorId::new("e").expect("a good id");
    ExecutorDescription::new(id, Command::shell("true"), resources("cpus:0.5"))
}

fn able(text: &str) -> SlaveDescription {
    SlaveDescription {
        capabilities: vec![SlaveCapability::CustomExecutors],
        ..slave(text)
    }
}

fn run_in(name: &str) -> TaskDescription {
    TaskDescription {
        command: None,
        executor: Some(executor()),
        ..task(name, SlaveId(0), "cpus:1;mem:64")
    }
}

/// A slave that runs executors and a framework with two tasks in one.
fn with_two_tasks() -> (World, ConnectionId, ConnectionId) {
    let mut world = World::new();
    let s = world.connect_slave("slave");
    let slave = able("cpus:4;mem:1024");
    world.slave_says(s, SlaveToMaster::Register { slave });
    let f = world.framework(framework());
    check(
        world.accept(f, &[1], vec![run_in("t"), run_in("u")]),
        &[
            "s1 run F0 t in e starts=true",
            "s1 run F0 u in e starts=false",
        ],
    );
    (world, s, f)
}

fn ended() -> SlaveToMaster {
    SlaveToMaster::ExecutorEnded {
        framework_id: FrameworkId(0),
        executor_id: executor().executor_id,
        exit: None,
    }
}

fn free(world: &World) -> String {
    let free = world.core.allocator.free(SlaveId(0));
    free.expect("it takes part").to_string()
}

/// What readers were told of executors: which, and whether it is there.
fn told_of(world: &World) -> Vec<(String, bool)> {
    let told = world.changes.iter().filter_map(|change| match change {
        ClusterChange::ExecutorAdded(view) => Some((view.executor_id.to_string(), true)),
        ClusterChange::ExecutorRemoved { executor_id, .. } => {
            Some((executor_id.to_string(), false))
        }
        _ => None,
    });
    told.collect()
}

/// All that is not used, whether it is offered or not.
fn unused(world: &mut World, f: ConnectionId) -> String {
    world.framework_says(f, FrameworkToMaster::Suppress { roles: Vec::new() });
    let held: Vec<_> = world
        .core
        .offers
        .iter()
        .map(|(number, _)| offer(number))
        .collect();
    for id in held {
        world.framework_says(
            f,
            FrameworkToMaster::Decline {
                offer_ids: vec![id],
                filters: Default::default(),
            },
        );
    }
    free(world)
}

#[test]
fn an_executor_is_paid_for_once() {
    let (mut world, s, f) = with_two_tasks();
    assert_eq!(unused(&mut world, f), "cpus:1.5;mem:896");
    world.update(s, "t", TaskState::Finished);
    world.update(s, "u", TaskState::Finished);
    assert_eq!(
        unused(&mut world, f),
        "cpus:3.5;mem:1024",
        "it is still there"
    );
    assert_eq!(told_of(&world), [("e".to_owned(), true)]);
    check(world.slave_says(s, ended()), &["f2 executor ended S0 e"]);
    assert_eq!(unused(&mut world, f), "cpus:4;mem:1024");
    check(world.slave_says(s, ended()), &[]);
    let both = [("e".to_owned(), true), ("e".to_owned(), false)];
    assert_eq!(told_of(&world), both, "readers hear of it once");
}

#[test]
fn what_an_executor_gives_back_is_more_than_was_refused() {
    // semantics: E3
    let (mut world, s, _) = with_two_tasks();
    let offered = |world: &World| -> Vec<String> {
        let all = world.core.offers.iter();
        all.map(|(_, it)| it.resources.to_string()).collect()
    };
    world.pass(secs(30));
    assert_eq!(offered(&world), [""; 0], "it does not want the rest");
    world.slave_says(s, ended());
    world.pass(secs(1));
    assert_eq!(offered(&world), ["cpus:2;mem:896"]);
}

#[test]
fn another_executor_of_the_same_id_is_refused() {
    let (mut world, _, f) = with_two_tasks();
    world.pass(secs(60));
    let mut other = run_in("v");
    other.executor.as_mut().expect("it has one").command = Command::shell("other");
    let told = world.accept(f, &[2], vec![other]);
    let refused = told.iter().find(|line| line.contains("ERROR"));
    let refused = refused.unwrap_or_else(|| panic!("{told:?}"));
    assert!(refused.starts_with("f2 v TASK_ERROR"), "{refused}");
}

#[test]
fn a_task_in_an_executor_has_no_volume() {
    let (mut world, _, f) = with_two_tasks();
    world.pass(secs(60));
    let mut other = run_in("v");
    other.resources = resources("cpus:1;disk(web,)[db:data]:64");
    let told = world.accept(f, &[2], vec![other]);
    assert!(
        told.iter().any(|line| line.starts_with("f2 v TASK_ERROR")),
        "{told:?}"
    );
}

#[test]
fn a_framework_speaks_to_its_executors_and_to_no_others() {
    // semantics: B10, B15
    let (mut world, s, f) = with_two_tasks();
    let executor_id = executor().executor_id;
    let message = |id: &str| FrameworkToMaster::ExecutorMessage {
        slave_id: SlaveId(0),
        executor_id: ExecutorId::new(id).expect("a good id"),
        data: "hi".into(),
    };
    check(
        world.framework_says(f, message("e")),
        &[r#"s1 message F0 e b"hi""#],
    );
    check(world.framework_says(f, message("x")), &[]);
    let answer = |framework| SlaveToMaster::ExecutorMessage {
        framework_id: FrameworkId(framework),
        executor_id: ExecutorId::new("e").expect("a good id"),
        data: "ho".into(),
    };
    check(
        world.slave_says(s, answer(0)),
        &[r#"f2 message S0 e b"ho""#],
    );
    check(world.slave_says(s, answer(1)), &[]);
    let shutdown = FrameworkToMaster::ShutdownExecutor {
        slave_id: SlaveId(0),
        executor_id,
    };
    check(world.framework_says(f, shutdown), &["s1 shutdown F0 e"]);
    assert_eq!(world.core.counters().executor_calls_ignored, 2);
}

#[test]
fn what_a_slave_that_is_back_does_not_report_has_ended() {
    let (mut world, s, f) = with_two_tasks();
    world.update(s, "t", TaskState::Finished);
    world.update(s, "u", TaskState::Finished);
    world.disconnect(s);
    let run = RunExecutor {
        framework: TaskFramework {
            framework_id: FrameworkId(0),
            name: String::new(),
            user: None,
            checkpoint: true,
            capabilities: Vec::new(),
        },
        role: role("*"),
        executor: executor(),
    };
    let back = |world: &mut World, executors: Vec<RunExecutor>| {
        let s = world.connect_slave("slave");
        if !executors.is_empty() {
            let report = SlaveToMaster::ReportExecutors { executors };
            check(world.slave_says(s, report), &[]);
        }
        let reregister = SlaveToMaster::Reregister {
            slave_id: SlaveId(0),
            cluster_id: CLUSTER,
            slave: able("cpus:4;mem:1024"),
        };
        world.slave_says(s, reregister);
        s
    };
    let s = back(&mut world, vec![run]);
    assert_eq!(unused(&mut world, f), "cpus:3.5;mem:1024");
    world.disconnect(s);
    back(&mut world, Vec::new());
    assert_eq!(unused(&mut world, f), "cpus:4;mem:1024");
}

#[test]
fn a_framework_that_is_gone_takes_its_idle_executors_with_it() {
    // semantics: N3
    let (mut world, s, f) = with_two_tasks();
    world.update(s, "t", TaskState::Finished);
    world.update(s, "u", TaskState::Finished);
    let told = world.framework_says(f, FrameworkToMaster::Teardown);
    assert!(told.contains(&"s1 shutdown F0".to_owned()), "{told:?}");
    assert_eq!(free(&world), "cpus:4;mem:1024");
}
