//! Status updates and their acknowledgements (semantics F, I, Q2, R12).

use bytes::Bytes;
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{Epoch, FrameworkId, SlaveId, UpdateId};
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster, StatusUpdate};
use meros_proto::status::{Source, TaskState, TaskStatus};
use meros_proto::view::ClusterChange;

use super::world::{World, by_master, check, framework, report, secs, task, task_id};

const F: FrameworkId = FrameworkId(0);

fn again() -> FrameworkDescription {
    FrameworkDescription {
        framework_id: Some(F),
        ..framework()
    }
}

#[test]
fn an_update_for_a_framework_that_is_away_comes_when_it_is_back() {
    // semantics: I1
    let (mut world, s, f) = World::with_a_running_task();
    world.disconnect(f);
    check(world.update(s, "t", TaskState::Finished), &[]);
    let (f, lines) = world.subscribe(again(), Vec::new());
    check(
        lines,
        &[
            "f3 subscribed F0",
            "f3 t TASK_FINISHED by Slave on S0 #2",
            "f3 offers O1-2 S0 * cpus:4;mem:1024",
        ],
    );
    check(world.acknowledge(f, "t", UpdateId(2)), &["s1 ack F0 t #2"]);
}

#[test]
fn an_update_that_is_repeated_is_forwarded_again_and_changes_nothing() {
    // semantics: I3
    let (mut world, s, f) = World::with_a_running_task();
    let running = TaskState::Running;
    for _ in 0..2 {
        check(
            world.update_with(s, F, "t", running, running, UpdateId(9)),
            &["f2 t TASK_RUNNING by Slave on S0 #9"],
        );
    }
    check(world.acknowledge(f, "t", UpdateId(9)), &["s1 ack F0 t #9"]);
    check(world.acknowledge(f, "t", UpdateId(9)), &[]);
    assert_eq!(world.core.counters().acknowledgements_unexpected, 1);
}

#[test]
fn the_newest_state_frees_resources_before_its_update_is_sent() {
    // semantics: F8, I4
    let mut world = World::new();
    let s = world.slave("cpus:4");
    let f = world.framework(framework());
    world.accept(f, &[1], vec![task("t", SlaveId(0), "cpus:1")]);
    let (running, finished) = (TaskState::Running, TaskState::Finished);
    check(
        world.update_with(s, F, "t", running, finished, UpdateId(1)),
        &[
            "f2 t TASK_RUNNING by Slave on S0 #1",
            "f2 offers O1-2 S0 * cpus:4",
        ],
    );
    // The acknowledgement of an earlier update does not end the record.
    check(world.acknowledge(f, "t", UpdateId(1)), &["s1 ack F0 t #1"]);
    assert_eq!(
        world.count(|change| matches!(change, ClusterChange::TaskRemoved { .. })),
        0
    );
    world.update_with(s, F, "t", finished, finished, UpdateId(2));
    world.acknowledge(f, "t", UpdateId(2));
    assert_eq!(
        world.count(|change| matches!(change, ClusterChange::TaskRemoved { .. })),
        1
    );
}

#[test]
fn of_two_ends_the_first_is_kept_and_both_are_acknowledged() {
    // semantics: R12
    let (mut world, s, f) = World::with_a_running_task();
    world.update(s, "t", TaskState::Failed);
    check(
        world.update(s, "t", TaskState::Finished),
        &["f2 t TASK_FINISHED by Slave on S0 #3"],
    );
    let state = world.changes.iter().rev().find_map(|change| match change {
        ClusterChange::TaskChanged { state, .. } => Some(*state),
        _ => None,
    });
    assert_eq!(state, Some(TaskState::Failed));
    check(world.acknowledge(f, "t", UpdateId(3)), &["s1 ack F0 t #3"]);
    // One more, for a record that is gone, is passed on both ways as well.
    check(
        world.update(s, "t", TaskState::Finished),
        &["f2 t TASK_FINISHED by Slave on S0 #4"],
    );
    check(world.acknowledge(f, "t", UpdateId(4)), &["s1 ack F0 t #4"]);
}

#[test]
fn an_update_of_a_removed_framework_is_acknowledged_by_the_master() {
    let (mut world, s, f) = World::with_a_running_task();
    world.framework_says(f, FrameworkToMaster::Teardown);
    check(world.update(s, "t", TaskState::Killed), &["s1 ack F0 t #2"]);
}

#[test]
fn a_slave_cannot_speak_for_the_task_of_another() {
    let (mut world, _, _) = World::with_a_running_task();
    let liar = world.slave("cpus:1");
    check(
        world.update(liar, "t", TaskState::Failed),
        &["s3 ack F0 t #2"],
    );
    assert_eq!(world.core.counters().updates_disowned, 1);
}

#[test]
fn an_update_that_no_slave_can_make_is_dropped_and_counted() {
    let (mut world, s, _) = World::with_a_running_task();
    let running = TaskState::Running;
    check(
        world.update_with(s, F, "t", running, running, by_master(1)),
        &[],
    );
    check(
        world.update_with(s, F, "t", TaskState::Unknown, running, UpdateId(5)),
        &[],
    );
    check(
        world.update_with(s, F, "t", running, TaskState::Unreachable, UpdateId(5)),
        &[],
    );
    let status = TaskStatus::new(task_id("t"), running, Source::Slave, world.now);
    let update = StatusUpdate {
        framework_id: F,
        status,
        latest_state: running,
    };
    check(world.slave_says(s, SlaveToMaster::Update(update)), &[]);
    assert_eq!(world.core.counters().updates_invalid, 4);
}

#[test]
fn an_acknowledgement_for_a_slave_that_is_away_is_dropped() {
    // semantics: B11
    let (mut world, s, f) = World::with_a_running_task();
    world.update(s, "t", TaskState::Finished);
    world.disconnect(s);
    check(world.acknowledge(f, "t", UpdateId(2)), &[]);
    // Its slave sends it again when it is back.
    let tasks = vec![report(F, "t", SlaveId(0), TaskState::Finished)];
    let (s, _) = world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    let finished = TaskState::Finished;
    check(
        world.update_with(s, F, "t", finished, finished, UpdateId(2)),
        &["f2 t TASK_FINISHED by Slave on S0 #2"],
    );
    check(world.acknowledge(f, "t", UpdateId(2)), &["s3 ack F0 t #2"]);
}

#[test]
fn the_masters_own_updates_are_repeated_until_acknowledged() {
    // semantics: Q2, I1
    let mut world = World::new();
    let f = world.framework(framework());
    world.accept(f, &[], vec![task("t", SlaveId(0), "cpus:1")]);
    let line = "f1 t TASK_DROPPED by Master on S0 InvalidOffers #m1";
    check(world.pass(secs(9)), &[]);
    check(world.pass(secs(1)), &[line]);
    check(world.pass(secs(19)), &[]);
    check(world.pass(secs(1)), &[line]);
    check(world.acknowledge(f, "t", by_master(1)), &[]);
    check(world.pass(secs(10_000)), &[]);
    assert_eq!(world.core.next_deadline(), None);
}

#[test]
fn the_masters_own_updates_wait_for_a_framework_that_is_away() {
    // semantics: Q2
    let (mut world, s, f) = World::with_a_running_task();
    world.disconnect(f);
    check(world.slave_says(s, SlaveToMaster::Unregister), &[]);
    world.pass(secs(3_600));
    let (_, lines) = world.subscribe(again(), Vec::new());
    check(
        lines,
        &[
            "f3 subscribed F0",
            "f3 t TASK_LOST by Master on S0 SlaveRemoved #m1",
        ],
    );
    check(
        world.pass(secs(10)),
        &["f3 t TASK_LOST by Master on S0 SlaveRemoved #m1"],
    );
}

#[test]
fn an_acknowledgement_of_another_term_ends_nothing() {
    let mut world = World::new();
    let f = world.framework(framework());
    world.accept(f, &[], vec![task("t", SlaveId(0), "cpus:1")]);
    check(
        world.acknowledge(f, "t", UpdateId::by_master(Epoch(9), 1)),
        &[],
    );
    assert_eq!(world.pass(secs(10)).len(), 1, "still repeated");
}

#[test]
fn frameworks_that_know_no_partitions_hear_lost() {
    // semantics: F5
    let description = FrameworkDescription {
        capabilities: Vec::new(),
        ..framework()
    };
    let (mut world, s, _) = World::with_a_running_task_of(description);
    check(
        world.update(s, "t", TaskState::Killing),
        &["f2 t TASK_RUNNING by Slave on S0 #2"], // semantics: F2
    );
    world.pass(secs(60));
    let lines = world.pass(secs(30));
    assert!(
        lines.contains(&"f2 t TASK_LOST by Master on S0 SlaveRemoved #m1".to_owned()),
        "{lines:?}"
    );
    // And back: LOST may return to RUNNING.
    let tasks = vec![report(F, "t", SlaveId(0), TaskState::Running)];
    world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    let f = FrameworkToMaster::Acknowledge {
        slave_id: Some(SlaveId(0)),
        task_id: task_id("t"),
        update_id: by_master(1),
    };
    check(
        world.framework_says(crate::ConnectionId(2), f),
        &["f2 t TASK_RUNNING by Master on S0 SlaveReregistered #m2"],
    );
}

#[test]
fn data_reaches_the_framework_and_not_the_readers() {
    // semantics: F7
    let (mut world, s, _) = World::with_a_running_task();
    let mut status = TaskStatus::new(
        task_id("t"),
        TaskState::Running,
        Source::Executor,
        world.now,
    );
    status.update_id = Some(UpdateId(7));
    status.data = Bytes::from_static(b"payload");
    let latest_state = TaskState::Running;
    let update = StatusUpdate {
        framework_id: F,
        status,
        latest_state,
    };
    world.slave_says(s, SlaveToMaster::Update(update));
    let shown = world.changes.iter().rev().find_map(|change| match change {
        ClusterChange::TaskChanged { status, .. } => status.clone(),
        _ => None,
    });
    assert!(shown.expect("published").data.is_empty());
    let kept = world
        .core
        .tasks
        .iter()
        .next()
        .and_then(|task| task.awaiting.clone());
    let kept = kept
        .and_then(|it| it.status)
        .expect("small enough to be kept");
    assert_eq!(kept.data, Bytes::from_static(b"payload"));
}

#[test]
fn a_large_update_is_left_to_its_slave_to_repeat() {
    let (mut world, s, f) = World::with_a_running_task();
    world.disconnect(f);
    let mut status = TaskStatus::new(task_id("t"), TaskState::Failed, Source::Slave, world.now);
    status.update_id = Some(UpdateId(7));
    status.message = "ä".repeat(5_000);
    let update = StatusUpdate {
        framework_id: F,
        status,
        latest_state: TaskState::Failed,
    };
    world.slave_says(s, SlaveToMaster::Update(update.clone()));
    let (f, lines) = world.subscribe(again(), Vec::new());
    check(
        lines,
        &["f3 subscribed F0", "f3 offers O1-2 S0 * cpus:4;mem:1024"],
    );
    check(
        world.slave_says(s, SlaveToMaster::Update(update)),
        &["f3 t TASK_FAILED by Slave on S0 #7"],
    );
    check(world.acknowledge(f, "t", UpdateId(7)), &["s1 ack F0 t #7"]);
}
