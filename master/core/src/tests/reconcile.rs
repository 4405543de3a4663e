//! Reconciliation (semantics H).

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::message::master::{
    CALL_ITEMS_MAX, FrameworkToMaster, ReconcileTask, SlaveToMaster,
};
use meros_proto::status::TaskState;

use super::world::{CLUSTER, World, check, framework, report, secs, slave, task, task_id};

fn again() -> FrameworkDescription {
    FrameworkDescription {
        framework_id: Some(FrameworkId(0)),
        ..framework()
    }
}

#[test]
fn a_known_task_is_answered_with_its_last_status() {
    // semantics: H1
    let (mut world, _, f) = World::with_a_running_task();
    world.pass(secs(60));
    world.accept(f, &[2], vec![task("u", SlaveId(0), "cpus:1")]);
    check(
        world.reconcile(f, &[("t", None), ("u", Some(0))]),
        &[
            "f2 t TASK_RUNNING by Master on S0 Reconciliation",
            "f2 u TASK_STAGING by Master on S0 Reconciliation",
        ],
    );
}

#[test]
fn an_unknown_task_is_gone_unreachable_or_unknown_by_the_state_of_its_slave() {
    // semantics: H3, H4, H6
    let (mut world, _, f) = World::with_a_running_task();
    check(
        world.reconcile(f, &[("a", Some(0)), ("b", Some(9)), ("c", None)]),
        &[
            "f2 a TASK_GONE by Master on S0 Reconciliation",
            "f2 b TASK_UNKNOWN by Master on S9 Reconciliation",
            "f2 c TASK_UNKNOWN by Master Reconciliation",
        ],
    );
    world.pass(secs(90));
    check(
        world.reconcile(f, &[("a", Some(0))]),
        &["f2 a TASK_UNREACHABLE by Master on S0 Reconciliation"],
    );
}

#[test]
fn there_is_no_answer_about_a_task_that_may_be_on_a_slave_not_yet_back() {
    // semantics: H2
    let (world, _, _) = World::with_a_running_task();
    let mut world = world.after_failover();
    let f = world.framework(again());
    check(world.reconcile(f, &[("t", Some(0)), ("t", None)]), &[]);
    world.reregister(SlaveId(0), "cpus:4;mem:1024", Vec::new());
    check(
        world.reconcile(f, &[("t", Some(0)), ("t", None)]),
        &[
            "f1 t TASK_GONE by Master on S0 Reconciliation",
            "f1 t TASK_UNKNOWN by Master Reconciliation",
        ],
    );
}

/// The simulator's seed 895.
#[test]
fn there_is_no_answer_about_a_task_that_a_deposed_leader_may_still_start() {
    // semantics: H2
    let (world, _, _) = World::with_a_running_task();
    let mut world = world.after_failover();
    let f = world.framework(again());
    let back = |world: &mut World, tasks| {
        let s = world.connect_slave("slave");
        world.slave_says(s, SlaveToMaster::ReportTasks { tasks });
        let message = SlaveToMaster::Reregister {
            slave_id: SlaveId(0),
            cluster_id: CLUSTER,
            slave: slave("cpus:4;mem:1024"),
        };
        world.slave_says(s, message);
        s
    };
    // It is welcome, but does not hear of it, and goes back to the leader before.
    let s = back(&mut world, Vec::new());
    let questions = [("t", Some(0)), ("t", None)];
    check(world.reconcile(f, &questions), &[]);
    world.disconnect(s);
    check(world.reconcile(f, &questions), &[]);
    // Which gave it something to do.
    let task = report(FrameworkId(0), "t", SlaveId(0), TaskState::Running);
    let s = back(&mut world, vec![task]);
    check(
        world.reconcile(f, &[("t", Some(0)), ("u", Some(0)), ("u", None)]),
        &["f1 t TASK_STAGING by Master on S0 Reconciliation"],
    );
    check(world.term_heard(s), &[]);
    check(
        world.reconcile(f, &[("t", Some(0)), ("u", Some(0)), ("u", None)]),
        &[
            "f1 t TASK_STAGING by Master on S0 Reconciliation",
            "f1 u TASK_GONE by Master on S0 Reconciliation",
            "f1 u TASK_UNKNOWN by Master Reconciliation",
        ],
    );
}

#[test]
fn without_partition_awareness_every_unknown_is_lost() {
    // semantics: H3 to H6, F5
    let mut world = World::new();
    let f = world.framework(FrameworkDescription {
        capabilities: Vec::new(),
        ..framework()
    });
    check(
        world.reconcile(f, &[("a", None)]),
        &["f1 a TASK_LOST by Master Reconciliation"],
    );
}

#[test]
fn an_implicit_reconciliation_tells_all_but_unreachable_tasks() {
    // semantics: H7
    let (mut world, s, f) = World::with_a_running_task();
    check(
        world.reconcile(f, &[]),
        &["f2 t TASK_RUNNING by Master on S0 Reconciliation"],
    );
    world.update(s, "t", TaskState::Failed);
    check(
        world.reconcile(f, &[]),
        &["f2 t TASK_FAILED by Master on S0 Reconciliation"],
    );
    let (mut world, _, f) = World::with_a_running_task();
    world.pass(secs(90));
    check(world.reconcile(f, &[]), &[]);
}

#[test]
fn too_many_questions_are_refused() {
    let mut world = World::new();
    let f = world.framework(framework());
    let question = ReconcileTask {
        task_id: task_id("t"),
        slave_id: None,
    };
    let tasks = vec![question; CALL_ITEMS_MAX + 1];
    check(
        world.framework_says(f, FrameworkToMaster::Reconcile { tasks }),
        &["f1 refused Reconcile over_limit"],
    );
}

#[test]
fn a_long_implicit_reconciliation_is_answered_in_parts() {
    // semantics: H7
    let mut world = World::new();
    world.slave("cpus:1000");
    let f = world.framework(framework());
    let launch = |from: u32, to: u32| {
        (from..to)
            .map(|number| task(&format!("t{number}"), SlaveId(0), "cpus:0.01"))
            .collect()
    };
    let all = |lines: Vec<String>| {
        lines
            .iter()
            .filter(|line| line.contains("Reconciliation"))
            .count()
    };
    world.accept(f, &[1], launch(0, 10_000));
    world.pass(secs(60)); // the rest is offered again
    world.accept(f, &[2], launch(10_000, 20_001));
    assert_eq!(
        world.core.counters().tasks_dropped,
        10_001,
        "more than a call may have"
    );
    world.accept(f, &[3], launch(10_000, 15_000));
    assert_eq!(all(world.reconcile(f, &[])), 10_000);
    assert_eq!(
        all(world.pass(std::time::Duration::from_millis(100))),
        5_000
    );
    assert_eq!(all(world.pass(secs(60))), 0);
}
