//! Slaves join, fall silent, come back and leave (semantics K, J).

use std::time::Duration;

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{ClusterId, FrameworkId, SlaveId, UpdateId};
use meros_proto::message::master::{REPORT_TASKS_MAX, SlaveToMaster};
use meros_proto::slave::SlaveState;
use meros_proto::status::TaskState;
use meros_proto::view::ClusterChange;

use super::world::{CLUSTER, World, by_master, check, framework, report, secs, slave, task};
use crate::{Command, ConnectionId, Event};

const GIVEN_UP: Duration = Duration::from_secs(90);

fn last_state(world: &World) -> SlaveState {
    let state = |change: &ClusterChange| match change {
        ClusterChange::Slave(view) => Some(view.state),
        _ => None,
    };
    world
        .changes
        .iter()
        .rev()
        .find_map(state)
        .expect("a slave was published")
}

#[test]
fn nobody_is_told_of_a_slave_before_the_registry_has_it() {
    let mut world = World::new();
    world.commits = false;
    let s = world.connect_slave("slave");
    let register = SlaveToMaster::Register {
        slave: slave("cpus:4"),
    };
    check(world.slave_says(s, register), &["propose AdmitSlave"]);
    check(world.commit_next(), &["s1 registered S0"]);
}

#[test]
fn a_slave_that_is_gone_before_its_admission_is_removed_again() {
    let mut world = World::new();
    world.commits = false;
    let s = world.connect_slave("slave");
    world.slave_says(
        s,
        SlaveToMaster::Register {
            slave: slave("cpus:4"),
        },
    );
    check(world.disconnect(s), &[]);
    check(world.commit_next(), &["propose RemoveSlave"]);
    check(world.commit_next(), &[]);
    assert_eq!(world.core.registry().slaves().count(), 0);
}

#[test]
fn nobody_is_served_before_the_election() {
    let mut core = crate::MasterCore::new(
        crate::Config::default(),
        crate::Registry::default(),
        Default::default(),
    );
    let mut effects = crate::Effects::new();
    let connection = ConnectionId(1);
    let principal = "slave".to_owned();
    core.handle(
        Event::SlaveConnected {
            connection,
            principal,
        },
        Default::default(),
        &mut effects,
    );
    let why = meros_proto::refusal::Refusal::Recovering;
    let done: Vec<_> = effects.drain().collect();
    assert_eq!(done, [crate::Effect::Close { connection, why }]);
    let message = SlaveToMaster::Register {
        slave: slave("cpus:1"),
    };
    core.handle(
        Event::Slave {
            connection,
            message,
        },
        Default::default(),
        &mut effects,
    );
    assert!(effects.is_empty(), "it is not connected any more");
    assert_eq!(core.next_deadline(), None);
}

#[test]
fn five_missed_pongs_make_a_slave_unreachable_and_its_tasks_with_it() {
    // semantics: K1, K4
    let (mut world, _, _) = World::with_a_running_task();
    world.pass(secs(60)); // the filter of the rest of the offer is over by now
    check(world.pass(secs(29)), &["s1 ping registered=true"]);
    check(
        world.pass(secs(1)),
        &[
            "f2 rescind O1-2",
            "f2 t TASK_UNREACHABLE by Master on S0 SlaveRemoved #m1",
            "close 1 too_slow",
            "f2 failure S0",
        ],
    );
    assert_eq!(last_state(&world), SlaveState::Unreachable);
    // One time for the slave, its task and the update.
    let at = world
        .core
        .registry()
        .slave(SlaveId(0))
        .and_then(|it| it.unreachable_since);
    let told = world.changes.iter().rev().find_map(|change| match change {
        ClusterChange::TaskChanged {
            status: Some(status),
            ..
        } => Some(status.clone()),
        _ => None,
    });
    let told = told.expect("the task has changed");
    assert_eq!((Some(told.timestamp), told.unreachable_since), (at, at));
    assert_eq!(at, Some(world.now));
}

#[test]
fn any_pong_starts_the_count_anew() {
    // semantics: K1
    let (mut world, s, _) = World::with_a_running_task();
    for _ in 0..20 {
        world.pass(secs(60));
        check(world.slave_says(s, SlaveToMaster::Pong), &[]);
    }
    assert_eq!(last_state(&world), SlaveState::Registered);
}

#[test]
fn the_registry_is_written_before_anybody_hears_that_a_slave_is_unreachable() {
    // semantics: K4
    let (mut world, _, _) = World::with_a_running_task();
    world.commits = false;
    world.pass(secs(60));
    let lines = world.pass(secs(30));
    assert_eq!(
        lines.last().map(String::as_str),
        Some("propose MarkSlaveUnreachable")
    );
    assert_eq!(last_state(&world), SlaveState::Registered);
    assert!(world.commit_next().contains(&"f2 failure S0".to_owned()));
}

#[test]
fn an_unreachable_slave_may_return_with_its_tasks() {
    // semantics: K5
    let (mut world, _, f) = World::with_a_running_task();
    world.pass(GIVEN_UP);
    check(world.acknowledge(f, "t", by_master(1)), &[]);
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Running)];
    let (_, lines) = world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    check(
        lines,
        &[
            "s3 registered S0",
            "f2 t TASK_RUNNING by Master on S0 SlaveReregistered #m2",
            "f2 offers O1-3 S0 * cpus:3;mem:1024",
        ],
    );
    assert_eq!(last_state(&world), SlaveState::Registered);
}

#[test]
fn an_update_that_is_superseded_while_another_is_in_flight_waits_for_its_acknowledgement() {
    // semantics: I1, K5
    let (mut world, _, f) = World::with_a_running_task();
    world.pass(GIVEN_UP);
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Running)];
    let (_, lines) = world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    check(
        lines,
        &["s3 registered S0", "f2 offers O1-3 S0 * cpus:3;mem:1024"],
    );
    check(
        world.acknowledge(f, "t", by_master(1)),
        &["f2 t TASK_RUNNING by Master on S0 SlaveReregistered #m2"],
    );
}

#[test]
fn a_broken_connection_rescinds_offers_and_harms_no_task() {
    // semantics: K3, E5
    let (mut world, s, _) = World::with_a_running_task();
    world.pass(secs(60));
    check(world.disconnect(s), &["f2 rescind O1-2"]);
    assert_eq!(last_state(&world), SlaveState::Disconnected);
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Running)];
    let (_, lines) = world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    check(
        lines,
        &["s3 registered S0", "f2 offers O1-3 S0 * cpus:3;mem:1024"],
    );
}

#[test]
fn a_disconnected_slave_that_stays_silent_is_given_up() {
    // semantics: K1, K3
    let (mut world, s, _) = World::with_a_running_task();
    world.disconnect(s);
    check(world.pass(secs(74)), &[]);
    check(
        world.pass(secs(1)),
        &[
            "f2 t TASK_UNREACHABLE by Master on S0 SlaveRemoved #m1",
            "f2 failure S0",
        ],
    );
}

#[test]
fn mesos_7911_tasks_without_checkpoint_survive_a_blink_of_the_connection() {
    // semantics: K3, with a ping interval of patience
    let description = FrameworkDescription {
        checkpoint: false,
        ..framework()
    };
    let (mut world, s, _) = World::with_a_running_task_of(description);
    world.disconnect(s);
    check(world.pass(secs(14)), &[]);
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Running)];
    let (_, lines) = world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    check(lines, &["s3 registered S0"]);
}

#[test]
fn tasks_without_checkpoint_are_lost_when_their_slave_stays_away() {
    // semantics: K3
    let description = FrameworkDescription {
        checkpoint: false,
        ..framework()
    };
    let (mut world, s, f) = World::with_a_running_task_of(description);
    world.disconnect(s);
    check(
        world.pass(secs(15)),
        &["f2 t TASK_LOST by Master on S0 SlaveDisconnected #m1"],
    );
    check(world.acknowledge(f, "t", by_master(1)), &[]);
    // What was said to be lost does not come back to life.
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Running)];
    let (s, lines) = world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    check(lines, &["s3 registered S0", "s3 kill F0 t"]);
    check(
        world.update(s, "t", TaskState::Killed),
        &[
            "f2 t TASK_KILLED by Slave on S0 #2",
            "f2 offers O1-2 S0 * cpus:4;mem:1024",
        ],
    );
}

#[test]
fn a_slave_is_asked_about_tasks_that_it_does_not_report() {
    // semantics: K6
    let (mut world, s, f) = World::with_a_running_task();
    world.pass(secs(60));
    world.accept(f, &[2], vec![task("u", SlaveId(0), "cpus:1")]);
    world.disconnect(s);
    let (_, lines) = world.reregister(SlaveId(0), "cpus:4;mem:1024", Vec::new());
    check(
        lines,
        &[
            "s3 registered S0",
            "s3 reconcile F0 t started=true F0 u started=false",
        ],
    );
}

#[test]
fn an_end_that_is_acknowledged_while_its_slave_is_away_is_settled() {
    // semantics: B11, F8. The slave may have lost the task with its disk, or have had the
    // acknowledgement by way of a deposed leader: it will not say it again.
    let (mut world, s, f) = World::with_a_running_task();
    world.update(s, "t", TaskState::Finished);
    world.disconnect(s);
    check(world.acknowledge(f, "t", UpdateId(2)), &[]);
    let removed =
        |world: &World| world.count(|change| matches!(change, ClusterChange::TaskRemoved { .. }));
    assert_eq!(removed(&world), 1);
    // If it has it still, it says it again and is answered.
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Finished)];
    let (s, _) = world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    let (id, end) = (UpdateId(2), TaskState::Finished);
    world.update_with(s, FrameworkId(0), "t", end, end, id);
    check(world.acknowledge(f, "t", id), &["s3 ack F0 t #2"]);
    assert_eq!(removed(&world), 2);
}

#[test]
fn a_kill_for_a_slave_that_is_away_is_repeated_when_it_is_back() {
    // semantics: B9, K6
    let (mut world, s, f) = World::with_a_running_task();
    world.disconnect(s);
    check(world.kill(f, "t"), &[]);
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Running)];
    let (_, lines) = world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    check(lines, &["s3 registered S0", "s3 kill F0 t"]);
}

#[test]
fn tasks_of_a_removed_framework_are_shut_down_when_their_slave_returns() {
    // semantics: K5, K6, N3
    let (mut world, s, f) = World::with_a_running_task();
    world.disconnect(s);
    let teardown = meros_proto::message::master::FrameworkToMaster::Teardown;
    world.framework_says(f, teardown);
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Running)];
    let (_, lines) = world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    check(lines, &["s3 registered S0", "s3 shutdown F0"]);
}

#[test]
fn a_newer_connection_of_a_slave_supersedes_the_older() {
    // semantics: A8
    let mut world = World::new();
    let s = world.slave("cpus:4");
    let (_, lines) = world.reregister(SlaveId(0), "cpus:4", Vec::new());
    check(
        lines,
        &[
            "s1 refused superseded",
            "close 1 superseded",
            "s2 registered S0",
        ],
    );
    check(world.disconnect(s), &[]);
    check(world.slave_says(s, SlaveToMaster::Pong), &[]);
    assert_eq!(last_state(&world), SlaveState::Registered);
}

#[test]
fn a_registration_that_a_dead_slave_sent_comes_too_late() {
    // semantics: A8
    let mut world = World::new();
    world.slave("cpus:4");
    let late = world.connect_slave("slave");
    world.reregister(SlaveId(0), "cpus:4", Vec::new());
    let message = SlaveToMaster::Reregister {
        slave_id: SlaveId(0),
        cluster_id: CLUSTER,
        slave: slave("cpus:4"),
    };
    let lines = world.slave_says(late, message);
    check(lines, &["s2 refused outdated", "close 2 outdated"]);
    assert_eq!(last_state(&world), SlaveState::Registered);
}

#[test]
fn a_slave_that_changed_is_updated_in_the_registry_first() {
    // semantics: Q7
    let (mut world, s, _) = World::with_a_running_task();
    world.disconnect(s);
    world.commits = false;
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Running)];
    let (_, lines) = world.reregister(SlaveId(0), "cpus:8;mem:1024", tasks);
    check(lines, &["propose UpdateSlave"]);
    check(
        world.commit_next(),
        &["s3 registered S0", "f2 offers O1-2 S0 * cpus:7;mem:1024"],
    );
}

#[test]
fn a_task_larger_than_what_its_slave_has_now_is_kept_and_charged_nothing() {
    let (mut world, s, _) = World::with_a_running_task();
    world.disconnect(s);
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Running)];
    let (_, lines) = world.reregister(SlaveId(0), "cpus:0.5;mem:1024", tasks);
    check(
        lines,
        &["s3 registered S0", "f2 offers O1-2 S0 * cpus:0.5;mem:1024"],
    );
    assert_eq!(world.core.counters().tasks_uncharged, 1);
}

#[test]
fn a_slave_that_leaves_for_good_takes_its_tasks_with_it_as_lost() {
    // semantics: K8
    let (mut world, s, f) = World::with_a_running_task();
    world.pass(secs(60));
    check(
        world.slave_says(s, SlaveToMaster::Unregister),
        &[
            "f2 rescind O1-2",
            "f2 t TASK_LOST by Master on S0 SlaveRemoved #m1",
            "f2 failure S0",
        ],
    );
    check(world.acknowledge(f, "t", by_master(1)), &[]);
    // Its id is not used again.
    let (_, lines) = world.reregister(SlaveId(0), "cpus:4;mem:1024", Vec::new());
    check(
        lines,
        &["s3 refused slave_unknown", "close 3 slave_unknown"],
    );
    world.slave("cpus:1");
    assert!(world.core.registry().slave(SlaveId(1)).is_some());
}

#[test]
fn the_end_of_a_task_outlives_its_slave_until_it_is_acknowledged() {
    // semantics: K8, F8
    let (mut world, s, f) = World::with_a_running_task();
    world.update(s, "t", TaskState::Finished);
    check(
        world.slave_says(s, SlaveToMaster::Unregister),
        &["f2 rescind O1-2", "f2 failure S0"],
    );
    check(world.acknowledge(f, "t", UpdateId(2)), &[]);
    assert_eq!(
        world.count(|change| matches!(change, ClusterChange::TaskRemoved { .. })),
        1
    );
}

#[test]
fn after_a_failover_slaves_have_ten_minutes_to_return() {
    // semantics: J2, J4
    let (world, _, _) = World::with_a_running_task();
    let mut world = world.after_failover();
    assert_eq!(last_state(&world), SlaveState::Recovered);
    let f = world.framework(FrameworkDescription {
        framework_id: Some(FrameworkId(0)),
        ..framework()
    });
    check(world.pass(secs(599)), &[]);
    check(world.pass(secs(1)), &["f1 failure S0"]);
    assert_eq!(last_state(&world), SlaveState::Unreachable);
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
    check(world.acknowledge(f, "t", by_master(1)), &[]);
}

#[test]
fn after_a_failover_a_slave_brings_its_tasks_back() {
    // semantics: Q1, K5
    let (world, _, _) = World::with_a_running_task();
    let mut world = world.after_failover();
    let tasks = vec![report(FrameworkId(0), "t", SlaveId(0), TaskState::Running)];
    let (_, lines) = world.reregister(SlaveId(0), "cpus:4;mem:1024", tasks);
    check(lines, &["s1 registered S0"]);
    assert_eq!(
        world.count(|change| matches!(change, ClusterChange::TaskAdded(_))),
        1
    );
}

#[test]
fn a_slave_that_is_not_what_it_says_is_refused_with_a_code() {
    let mut world = World::new();
    world.slave("cpus:4");
    let again = |slave_id, cluster_id| SlaveToMaster::Reregister {
        slave_id,
        cluster_id,
        slave: slave("cpus:4"),
    };
    let s = world.connect_slave("slave");
    check(
        world.slave_says(s, again(SlaveId(0), ClusterId(8))),
        &["s2 refused wrong_cluster", "close 2 wrong_cluster"],
    );
    let s = world.connect_slave("slave");
    check(
        world.slave_says(s, again(SlaveId(5), CLUSTER)),
        &["s3 refused slave_unknown", "close 3 slave_unknown"],
    );
    let s = world.connect_slave("another");
    check(
        world.slave_says(s, again(SlaveId(0), CLUSTER)),
        &["s4 refused not_yours", "close 4 not_yours"],
    );
    let s = world.connect_slave("slave");
    check(
        world.slave_says(s, SlaveToMaster::Pong),
        &["s5 refused not_subscribed", "close 5 not_subscribed"],
    );
    let s = world.connect_slave("slave");
    let nameless = meros_proto::slave::SlaveDescription {
        hostname: String::new(),
        ..slave("cpus:1")
    };
    check(
        world.slave_says(s, SlaveToMaster::Register { slave: nameless }),
        &["s6 refused invalid", "close 6 invalid"],
    );
    assert_eq!(world.core.counters().refusals.values().sum::<u64>(), 5);
}

#[test]
fn a_second_registration_on_one_connection_ends_it() {
    let mut world = World::new();
    let s = world.slave("cpus:4");
    check(
        world.slave_says(
            s,
            SlaveToMaster::Register {
                slave: slave("cpus:4"),
            },
        ),
        &[
            "s1 refused already_subscribed",
            "close 1 already_subscribed",
        ],
    );
    assert_eq!(last_state(&world), SlaveState::Disconnected);
}

#[test]
fn a_report_that_is_too_long_is_refused() {
    let mut world = World::new();
    let s = world.connect_slave("slave");
    let one = report(FrameworkId(0), "t", SlaveId(0), TaskState::Running);
    let tasks = vec![one; REPORT_TASKS_MAX + 1];
    check(
        world.slave_says(s, SlaveToMaster::ReportTasks { tasks }),
        &["s1 refused over_limit", "close 1 over_limit"],
    );
}

#[test]
fn a_slave_that_dies_while_it_comes_back_is_noticed() {
    let (mut world, s, _) = World::with_a_running_task();
    world.disconnect(s);
    world.commits = false;
    let (s, lines) = world.reregister(SlaveId(0), "cpus:8;mem:1024", Vec::new());
    check(lines, &["propose UpdateSlave"]);
    world.disconnect(s);
    check(world.commit_next(), &[]);
    check(world.pass(secs(75)), &["propose MarkSlaveUnreachable"]);
}

#[test]
fn replaying_what_was_committed_builds_the_same_registry() {
    // semantics: J1, Q1
    let (mut world, s, _) = World::with_a_running_task();
    world.disconnect(s);
    world.pass(secs(100));
    world.reregister(SlaveId(0), "cpus:5;mem:1024", Vec::new());
    let mut registry = crate::Registry::default();
    for command in &world.committed {
        assert_eq!(registry.apply(command), Ok(()));
    }
    assert_eq!(&registry, world.core.registry());
    assert!(
        world
            .committed
            .iter()
            .any(|it| matches!(it, Command::MarkSlaveReachable { .. }))
    );
}

#[test]
fn only_the_longest_unreachable_tasks_are_forgotten() {
    // semantics: F9
    let mut world = World::new();
    let s = world.slave("cpus:2000;mem:1024");
    let f = world.framework(framework());
    let tasks = (0..1_010)
        .map(|number| task(&format!("t{number}"), SlaveId(0), "cpus:1"))
        .collect();
    world.accept(f, &[1], tasks);
    world.disconnect(s);
    world.pass(GIVEN_UP);
    assert_eq!(world.core.counters().unreachable_tasks_forgotten, 10);
    assert_eq!(
        world.count(|change| matches!(change, ClusterChange::TaskRemoved { .. })),
        10
    );
}
