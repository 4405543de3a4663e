//! Three masters, and kill -9 of the one that leads, again and again under load: no task is lost, run
//! twice or ended twice, and offers flow again soon.

use std::time::{Duration, Instant};

use meros_e2e::{ClusterOptions, LocalCluster, eventually};
use serde_json::Value;

#[path = "common/burst.rs"]
mod burst;

use burst::{Burst, assert_each_ended_once, journal};

const TASKS: usize = 5_000;
const PATIENCE: Duration = Duration::from_secs(420);
const SLAVES: usize = 4;

fn cluster(name: &'static str) -> LocalCluster {
    let mut options = ClusterOptions::new(name, SLAVES);
    options.masters = 3;
    options.resources = "cpus:8;mem:2048;disk:1024;ports:[31000-31099]";
    LocalCluster::start(options)
}

fn await_leader(cluster: &LocalCluster) -> usize {
    let mut leader = None;
    eventually("a master leads", PATIENCE, || {
        leader = cluster.leader();
        leader.is_some()
    });
    leader.expect("just found")
}

/// Whether this master leads and a framework has used an offer of it.
fn offers_flow(cluster: &LocalCluster, at: usize) -> bool {
    let metrics = cluster.try_metrics_of(at).unwrap_or_default();
    let value = |name: &str| {
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    value("meros_master_leading ") == Some(1)
        && value("meros_master_offers_accepted_total ") > Some(0)
}

#[test]
fn leaders_killed_one_after_the_other_lose_and_repeat_nothing() {
    let rounds = std::env::var("MEROS_FAILOVERS").map_or(3, |rounds| {
        rounds.parse().expect("MEROS_FAILOVERS is a number")
    });
    let mut cluster = cluster("failover");
    let dir = tempfile::tempdir().expect("a temp folder");
    let tasks = TASKS / 3 * rounds;
    let burst = Burst::start(&cluster, dir.path(), tasks);
    let mut pauses = Vec::new();
    for round in 1..=rounds {
        eventually("some tasks have ended", PATIENCE, || {
            burst.ended() >= (2 * round - 1) * tasks / (2 * rounds + 1)
        });
        let leader = await_leader(&cluster);
        let killed_at = Instant::now();
        cluster.master_at(leader).kill();
        eventually("offers flow again", PATIENCE, || {
            (0..3).any(|at| at != leader && offers_flow(&cluster, at))
        });
        pauses.push(killed_at.elapsed());
        cluster.master_at(leader).start();
    }
    burst.finish();
    pauses.sort();
    eprintln!(
        "{rounds} leaders killed: offers flowed again after {:.2?} (median), {:.2?} (longest)",
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    );
    // A launch on its way to the killed master is dropped or unknown to its successor.
    let allowed = ["TASK_FINISHED", "TASK_UNKNOWN", "TASK_GONE", "TASK_DROPPED"];
    assert_each_ended_once(dir.path(), tasks, &allowed);
    let finished = journal(dir.path())
        .values()
        .filter(|ends| ends[0] == "TASK_FINISHED")
        .count();
    assert!(
        finished >= tasks - rounds * SLAVES * burst::BATCH_MAX,
        "only {finished} of {tasks} finished"
    );
    cluster.await_registered(SLAVES);
}

#[test]
fn masters_that_follow_send_readers_and_writers_to_the_leader() {
    let cluster = cluster("follow");
    let leader = await_leader(&cluster);
    let masters: Vec<Value> = cluster.get("/api/v1/masters");
    assert_eq!(masters.len(), 3, "{masters:?}");
    for at in (0..3).filter(|at| *at != leader) {
        let agent = ureq::Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .build()
            .new_agent();
        let base = format!("http://{}", cluster.address_of(at));
        let health = agent
            .get(format!("{base}/health"))
            .call()
            .expect("it answers");
        assert_eq!(health.status(), 200);
        let read = agent.get(format!("{base}/api/v1/slaves?limit=2"));
        let read = read.call().expect("it answers");
        let order = agent.post(format!("{base}/api/v1/frameworks/F7/teardown"));
        let order = order.send_empty().expect("it answers");
        for (answer, path) in [
            (read, "/api/v1/slaves?limit=2"),
            (order, "/api/v1/frameworks/F7/teardown"),
        ] {
            assert_eq!(answer.status(), 307);
            let location = answer.headers().get("location").expect("it says where");
            let expected = format!("http://{}{path}", cluster.address_of(leader));
            assert_eq!(location.to_str().expect("text"), expected);
        }
    }
}

#[test]
fn a_leader_without_the_others_leads_no_more_until_they_are_back() {
    let mut cluster = cluster("alone");
    let leader = await_leader(&cluster);
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    for at in &others {
        cluster.master_at(*at).kill();
    }
    eventually("its lease ends", Duration::from_secs(30), || {
        cluster.leader().is_none()
    });
    for at in &others {
        cluster.master_at(*at).start();
    }
    await_leader(&cluster);
    cluster.await_registered(SLAVES);
}
