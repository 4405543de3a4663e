//! Hello on a simulated cluster: what is lost is said again, whatever goes wrong.

use std::time::Duration;

use meros_sdk::testing::{Builder, Cluster, Framework, TaskRun, seeds};
use meros_sdk::{EndReason, TaskState};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A greeting takes ten seconds here, so that there is time for something to go wrong.
fn cluster(slaves: usize) -> Builder {
    Cluster::builder()
        .masters(3)
        .slaves(slaves, "cpus:0.3;mem:1024")
        .tasks(|_, _| TaskRun::finishes_after(Duration::from_secs(10)))
}

fn is_done(cluster: &Cluster, hello: Framework<Hello>) -> bool {
    matches!(cluster.ended(hello), Some(EndReason::TornDown { .. }))
}

#[test]
fn five_greetings_are_said_by_five_tasks() {
    let mut cluster = cluster(2).start();
    let hello = cluster.framework("hello", || Hello::new(5));
    cluster.run_until(MINUTE, |cluster| is_done(cluster, hello));
    assert_eq!(cluster[hello].launched, 5);
    assert_eq!(cluster.count(hello, TaskState::Finished), 5);
}

#[test]
fn the_death_of_the_leading_master_is_survived_and_no_greeting_is_said_twice() {
    let mut cluster = cluster(2).start();
    let hello = cluster.framework("hello", || Hello::new(5));
    cluster.run_until(MINUTE, |cluster| cluster.running(hello) == 5);
    cluster.kill_leader(5 * MINUTE);
    cluster.run_until(MINUTE, |cluster| is_done(cluster, hello));
    assert_eq!(cluster[hello].launched, 5);
    assert_eq!(cluster.count(hello, TaskState::Finished), 5);
}

#[test]
fn greetings_on_a_slave_that_is_cut_off_are_said_by_another_one() {
    let mut cluster = cluster(2).start();
    let hello = cluster.framework("hello", || Hello::new(5));
    cluster.run_until(MINUTE, |cluster| cluster.running(hello) == 5);
    // The tasks there go on and finish, but nobody hears of it.
    cluster.cut_off("host0");
    cluster.run_until(30 * MINUTE, |cluster| is_done(cluster, hello));
    assert_eq!(cluster.task(hello, "hello-0").told, TaskState::Unreachable);
    assert_eq!(cluster.count(hello, TaskState::Finished), 5);
    cluster.settle();
}

#[test]
fn greetings_that_die_with_their_host_are_said_again() {
    let mut cluster = cluster(2).start();
    let hello = cluster.framework("hello", || Hello::new(5));
    cluster.run_until(MINUTE, |cluster| cluster.running(hello) == 5);
    cluster.reboot_slave("host1", MINUTE);
    cluster.run_until(30 * MINUTE, |cluster| is_done(cluster, hello));
    assert_eq!(cluster.count(hello, TaskState::Finished), 5);
}

#[test]
fn whatever_goes_wrong_all_greetings_are_said_once_it_is_over() {
    for seed in seeds(0..50) {
        let mut cluster = cluster(3).seed(seed).start();
        let hello = cluster.framework("hello", || Hello::new(20));
        cluster.run_with_faults(5 * MINUTE);
        cluster.run_until(30 * MINUTE, |cluster| is_done(cluster, hello));
        cluster.settle();
    }
}
