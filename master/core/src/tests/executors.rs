//! Executors: charged once, given back when they end, and known again after a change of leader (semantics M).

use meros_proto::executor::ExecutorDescription;
use meros_proto::ids::{ExecutorId, FrameworkId, SlaveId, UpdateId};
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::message::slave::{RunExecutor, TaskFramework};
use meros_proto::slave::{SlaveCapability, SlaveDescription, SlaveMode};
use meros_proto::status::TaskState;
use meros_proto::task::{Command, TaskDescription};
use meros_proto::view::ClusterChange;

use super::world::*;
use crate::{ConnectionId, OperatorCall};

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

fn reported() -> RunExecutor {
    RunExecutor {
        framework: TaskFramework {
            framework_id: FrameworkId(0),
            name: String::new(),
            user: None,
            checkpoint: true,
            capabilities: Vec::new(),
        },
        role: role("*"),
        executor: executor(),
    }
}

fn drain() -> OperatorCall {
    let mode = SlaveMode::Draining {
        grace: Some(secs(9)),
        mark_gone: false,
    };
    let slave_id = SlaveId(0);
    OperatorCall::SetSlaveMode { slave_id, mode }
}

fn is_drained(world: &World) -> bool {
    let slave = world.core.slaves.get(SlaveId(0));
    slave.expect("it is a member").is_drained
}

/// Both tasks end, and their framework knows it.
fn end_both(world: &mut World, s: ConnectionId, f: ConnectionId) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, id) in [("t", 1), ("u", 2)] {
        lines.extend(world.update(s, name, TaskState::Finished));
        lines.extend(world.acknowledge(f, name, UpdateId(id)));
    }
    lines
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
    other.executor.as_mut().expect("it has one").command = Some(Command::shell("other"));
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
    let s = back(&mut world, vec![reported()]);
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

#[test]
fn an_executor_that_ignores_kills_holds_no_drain_up() {
    // semantics: K10
    let (mut world, s, f) = with_two_tasks();
    check(
        world.operator(1, drain()),
        &[
            "s1 kill F0 t grace=9s",
            "s1 kill F0 u grace=9s",
            "reply 1 done",
        ],
    );
    check(world.pass(secs(8)), &[]);
    check(world.pass(secs(1)), &["s1 shutdown F0 e"]);
    let lines = end_both(&mut world, s, f);
    let is_told = lines.iter().any(|line| line.contains("shutdown"));
    assert!(!is_told, "it was told already: {lines:?}");
    assert!(!is_drained(&world), "the executor is there");
    world.slave_says(s, ended());
    assert!(is_drained(&world));
}

#[test]
fn an_executor_without_tasks_ends_with_a_drain_and_is_told_again_after_a_lost_connection() {
    // semantics: K10
    let (mut world, s, f) = with_two_tasks();
    end_both(&mut world, s, f);
    let lines = world.operator(1, drain());
    assert!(lines.contains(&"s1 shutdown F0 e".to_owned()), "{lines:?}");
    assert!(!is_drained(&world));
    world.disconnect(s);
    let s = world.connect_slave("slave");
    let executors = vec![reported()];
    world.slave_says(s, SlaveToMaster::ReportExecutors { executors });
    let reregister = SlaveToMaster::Reregister {
        slave_id: SlaveId(0),
        cluster_id: CLUSTER,
        slave: able("cpus:4;mem:1024"),
    };
    let lines = world.slave_says(s, reregister);
    let told = format!("s{} shutdown F0 e", s.0);
    assert!(lines.contains(&told), "{lines:?}");
    assert!(!is_drained(&world));
    world.slave_says(s, ended());
    assert!(is_drained(&world));
}

#[test]
fn an_executor_goes_on_when_a_drain_is_called_off_in_time() {
    // semantics: Q7
    let (mut world, _, _) = with_two_tasks();
    world.operator(1, drain());
    let mode = SlaveMode::Deactivated;
    let slave_id = SlaveId(0);
    world.operator(2, OperatorCall::SetSlaveMode { slave_id, mode });
    check(world.pass(secs(9)), &[]);
}

#[test]
fn a_task_does_not_take_the_place_of_an_executor() {
    let (mut world, _, f) = with_two_tasks();
    world.pass(secs(60));
    let other = task("executor:e", SlaveId(0), "cpus:1");
    let told = world.accept(f, &[2], vec![other]);
    assert!(
        told.iter()
            .any(|line| line.starts_with("f2 executor:e TASK_ERROR")),
        "{told:?}"
    );
}
