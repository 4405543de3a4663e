//! What a leader knows of the tasks of the one before it, and what it may do with that (semantics Q1).

use std::sync::Arc;

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::message::master::SlaveToMaster;
use meros_proto::slave::SlaveState;
use meros_proto::status::TaskState;
use meros_proto::view::ClusterChange;

use super::world::{World, by_master, check, config, framework, report, secs, task};
use crate::{Config, OperatorCall};

fn again() -> FrameworkDescription {
    FrameworkDescription {
        framework_id: Some(FrameworkId(0)),
        ..framework()
    }
}

fn names(world: &World) -> Vec<String> {
    let tasks = world.tasks_published();
    let line = |task: &Arc<meros_proto::view::TaskView>| format!("{} {}", task.task_id, task.state);
    tasks.iter().map(line).collect()
}

#[test]
fn tasks_of_a_slave_that_died_with_the_leader_are_told_to_be_cut_off_once() {
    // semantics: J4, K4
    let (world, _, _) = World::with_a_running_task();
    let mut world = world.after_warm_failover();
    let f = world.framework(again());
    check(world.pass(secs(599)), &[]);
    check(
        world.pass(secs(1)),
        &[
            "f1 t TASK_UNREACHABLE by Master on S0 SlaveRemoved #m1",
            "f1 failure S0",
        ],
    );
    check(world.acknowledge(f, "t", by_master(1)), &[]);
    check(world.pass(secs(3_600)), &[]);
    assert_eq!(names(&world), ["t TASK_UNREACHABLE"]);
    // An operator says that it never comes back: now it has ended, once.
    let slave_id = SlaveId(0);
    check(
        world.operator(1, OperatorCall::MarkSlaveGone { slave_id }),
        &[
            "f1 t TASK_GONE_BY_OPERATOR by Master on S0 SlaveRemovedByOperator #m2",
            "f1 failure S0",
            "reply 1 done",
        ],
    );
    check(world.acknowledge(f, "t", by_master(2)), &[]);
    assert_eq!(names(&world), [""; 0]);
}

#[test]
fn a_framework_that_comes_late_hears_of_what_was_cut_off_meanwhile() {
    let (world, _, _) = World::with_a_running_task();
    let mut world = world.after_warm_failover();
    check(world.pass(secs(600)), &[]);
    let (_, lines) = world.subscribe(again(), Vec::new());
    check(
        lines,
        &[
            "f1 subscribed F0",
            "f1 t TASK_UNREACHABLE by Master on S0 SlaveRemoved #m1",
        ],
    );
}

#[test]
fn an_end_that_was_not_acknowledged_is_told_when_its_slave_is_given_up() {
    let (mut world, s, _) = World::with_a_running_task();
    world.update(s, "t", TaskState::Finished);
    let mut world = world.after_warm_failover();
    let f = world.framework(again());
    check(
        world.pass(secs(600)),
        &["f1 t TASK_FINISHED by Slave on S0 #m1", "f1 failure S0"],
    );
    check(world.acknowledge(f, "t", by_master(1)), &[]);
    assert_eq!(names(&world), [""; 0]);
}

#[test]
fn a_slave_that_is_back_says_what_is_true() {
    // semantics: K5, K6
    let (world, _, _) = World::with_a_running_task();
    let mut warm = world.after_warm_failover();
    warm.framework(again());
    assert_eq!(names(&warm), ["t TASK_RUNNING"]);
    let (_, lines) = warm.reregister(SlaveId(0), "cpus:4;mem:1024", Vec::new());
    check(
        lines,
        &["s2 registered S0", "f1 offers O1-1 S0 * cpus:4;mem:1024"],
    );
    assert_eq!(names(&warm), [""; 0], "it is not there, so it is forgotten");

    let mut warm = world.after_warm_failover();
    warm.framework(again());
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Killing)];
    let (_, lines) = warm.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    check(
        lines,
        &["s2 registered S0", "f1 offers O1-1 S0 * cpus:3;mem:1024"],
    );
    assert_eq!(names(&warm), ["t TASK_KILLING"]);
}

#[test]
fn what_is_remembered_answers_no_question_and_cannot_be_killed() {
    // semantics: H2
    let (world, _, _) = World::with_a_running_task();
    let mut world = world.after_warm_failover();
    let f = world.framework(again());
    check(world.reconcile(f, &[("t", Some(0))]), &[]);
    check(world.reconcile(f, &[]), &[]);
    check(world.kill(f, "t"), &[]);
}

#[test]
fn what_is_remembered_keeps_no_id_from_being_used() {
    let (world, _, _) = World::with_a_running_task();
    let mut world = world.after_warm_failover();
    world.slave("cpus:2");
    let f = world.framework(again());
    let lines = world.accept(f, &[1], vec![task("t", SlaveId(1), "cpus:1")]);
    check(lines[..1].to_vec(), &["s1 run F0 t cpus:1"]);
    assert_eq!(names(&world), ["t TASK_STAGING"]);
    // The other one is nobody's any more: giving its slave up is no news of this one.
    let lines = world.pass(secs(600));
    assert!(
        lines.iter().all(|line| !line.contains(" on S0")),
        "{lines:?}"
    );
}

#[test]
fn the_next_leader_remembers_what_nobody_has_answered_for() {
    let (world, _, _) = World::with_a_running_task();
    let mut world = world.after_warm_failover().after_warm_failover();
    assert_eq!(names(&world), ["t TASK_RUNNING"]);
    world.framework(again());
    check(
        world.pass(secs(600)),
        &[
            "f1 t TASK_UNREACHABLE by Master on S0 SlaveRemoved #m1",
            "f1 failure S0",
        ],
    );
    // And one that was cut off stays so: its framework has been told.
    let mut world = world.after_warm_failover();
    world.framework(again());
    check(world.pass(secs(3_600)), &[]);
    assert_eq!(names(&world), ["t TASK_UNREACHABLE"]);
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Running)];
    let (_, lines) = world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    check(
        lines,
        &[
            "s2 registered S0",
            "f1 t TASK_RUNNING by Master on S0 SlaveReregistered #m1",
            "f1 offers O1-1 S0 * cpus:3;mem:1024",
        ],
    );
}

#[test]
fn what_the_leader_before_had_decided_and_not_told_is_told() {
    // The commit that removes the slave was the last thing that leader did.
    let (mut world, s, _) = World::with_a_running_task();
    let remembered = world.tasks_published();
    world.slave_says(s, SlaveToMaster::Unregister);
    let registry = world.core.registry().clone();
    let mut next = World::remembering(config(), registry, remembered);
    let (_, lines) = next.subscribe(again(), Vec::new());
    check(
        lines,
        &[
            "f1 subscribed F0",
            "f1 t TASK_LOST by Master on S0 SlaveRemoved #m1",
        ],
    );
}

#[test]
fn tasks_of_a_framework_that_is_removed_are_forgotten() {
    let (world, _, _) = World::with_a_running_task();
    let mut world = world.after_warm_failover();
    let framework_id = FrameworkId(0);
    world.operator(1, OperatorCall::Teardown { framework_id });
    assert_eq!(names(&world), [""; 0]);
    check(world.pass(secs(600)), &[]);
}

#[test]
fn what_is_remembered_is_in_no_sum() {
    let (world, _, _) = World::with_a_running_task();
    let remembered = world.tasks_published();
    let registry = world.core.registry().clone();
    let quick = Config {
        slave_reregister_timeout: secs(60),
        ..config()
    };
    let world = World::remembering(quick, registry, remembered);
    assert_eq!(world.core.counters().tasks_remembered, 1);
    assert_eq!(
        world.count(|change| matches!(change, ClusterChange::TaskAdded(_))),
        0
    );
    let state = |change: &ClusterChange| match change {
        ClusterChange::Slave(view) => Some(view.state),
        _ => None,
    };
    let states: Vec<_> = world.changes.iter().filter_map(state).collect();
    assert_eq!(states, [SlaveState::Recovered]);
}
