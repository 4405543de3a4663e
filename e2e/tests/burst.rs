//! Thousands of tasks through one framework, and kill -9 of everything in the middle: each task
//! ends exactly once.

use std::time::{Duration, Instant};

use meros_e2e::{ClusterOptions, LocalCluster, eventually};

#[path = "common/burst.rs"]
mod burst;

use burst::{Burst, assert_each_ended_once};

const TASKS: usize = 5_000;
/// Tasks that fit on the four slaves at once: what a kill can cost at most.
const CAPACITY: usize = 4 * 80;
const PATIENCE: Duration = Duration::from_secs(420);

fn cluster(name: &'static str) -> LocalCluster {
    let mut options = ClusterOptions::new(name, 4);
    options.resources = "cpus:8;mem:2048;disk:1024;ports:[31000-31099]";
    LocalCluster::start(options)
}

#[test]
fn five_thousand_tasks_on_four_slaves_end_exactly_once_each() {
    let cluster = cluster("burst");
    let dir = tempfile::tempdir().expect("a temp folder");
    let start = Instant::now();
    Burst::start(&cluster, dir.path(), TASKS).finish();
    let rate = TASKS as f64 / start.elapsed().as_secs_f64();
    eprintln!("{TASKS} tasks at {rate:.0} tasks/s");
    let in_vain = assert_each_ended_once(dir.path(), TASKS, &["TASK_FINISHED"]);
    assert_eq!(in_vain, 0);
    eventually(
        "nothing is left of the containers",
        Duration::from_secs(30),
        || {
            // One group per slave remains for the next tasks.
            cluster
                .cgroups
                .groups()
                .iter()
                .all(|group| group.iter().count() <= 7)
        },
    );
}

#[test]
fn a_framework_killed_and_restarted_loses_and_repeats_nothing() {
    let cluster = cluster("fwkill");
    let dir = tempfile::tempdir().expect("a temp folder");
    for round in 1..=3 {
        let mut burst = Burst::start(&cluster, dir.path(), TASKS);
        eventually("some tasks have ended", PATIENCE, || {
            burst.finished() >= round * TASKS / 5
        });
        burst.kill();
    }
    Burst::start(&cluster, dir.path(), TASKS).finish();
    // A launch that was written down and not sent before the kill is answered as unknown or gone.
    let allowed = ["TASK_FINISHED", "TASK_UNKNOWN", "TASK_GONE", "TASK_DROPPED"];
    let in_vain = assert_each_ended_once(dir.path(), TASKS, &allowed);
    assert!(in_vain <= 3 * CAPACITY);
}

#[test]
fn a_master_killed_and_restarted_loses_and_repeats_nothing() {
    let mut cluster = cluster("masterkill");
    let dir = tempfile::tempdir().expect("a temp folder");
    let burst = Burst::start(&cluster, dir.path(), TASKS);
    for round in 1..=3 {
        eventually("some tasks have ended", PATIENCE, || {
            burst.finished() >= round * TASKS / 5
        });
        cluster.master.kill();
        cluster.master.start();
    }
    burst.finish();
    // A launch on its way to the killed master is dropped or unknown to its successor.
    let allowed = ["TASK_FINISHED", "TASK_UNKNOWN", "TASK_GONE", "TASK_DROPPED"];
    let in_vain = assert_each_ended_once(dir.path(), TASKS, &allowed);
    assert!(in_vain <= 3 * CAPACITY);
    cluster.await_registered(4);
}

#[test]
fn a_slave_killed_and_restarted_reports_every_task_once() {
    let mut cluster = cluster("slavekill");
    let dir = tempfile::tempdir().expect("a temp folder");
    let tasks = TASKS / 5;
    let burst = Burst::start(&cluster, dir.path(), tasks);
    for round in 1..=3 {
        eventually("some tasks have ended", PATIENCE, || {
            burst.finished() >= round * tasks / 5
        });
        let slave = &mut cluster.slaves[round % 4];
        slave.kill();
        slave.start();
    }
    burst.finish();
    let allowed = ["TASK_FINISHED", "TASK_GONE", "TASK_DROPPED", "TASK_FAILED"];
    let in_vain = assert_each_ended_once(dir.path(), tasks, &allowed);
    assert!(in_vain <= 3 * CAPACITY);
    cluster.await_registered(4);
}
