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
    await_leader(&cluster);
    eventually("three masters are known", PATIENCE, || {
        let masters = cluster.try_get::<Vec<Value>>("/api/v1/masters");
        masters.is_some_and(|masters| masters.len() == 3)
    });
    // On a machine that stands still another one may come to lead meanwhile: then they are asked anew.
    eventually("all others send to the leader", PATIENCE, || {
        let leader = await_leader(&cluster);
        let said: Vec<_> = (0..3)
            .filter(|at| *at != leader)
            .flat_map(|at| asked(&cluster, at))
            .collect();
        let expected = [READ, ORDER].map(|path| {
            let location = format!("http://{}{path}", cluster.address_of(leader));
            (307_u16, Some(location))
        });
        let of_each = [(200, None)].into_iter().chain(expected);
        said.into_iter().eq(of_each.clone().chain(of_each))
    });
}

const READ: &str = "/api/v1/slaves?limit=2";
const ORDER: &str = "/api/v1/frameworks/F7/teardown";

/// What a master says to a look at its health, a read and an order: status and where to go.
fn asked(cluster: &LocalCluster, at: usize) -> Vec<(u16, Option<String>)> {
    let agent = ureq::Agent::config_builder()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .build()
        .new_agent();
    let base = format!("http://{}", cluster.address_of(at));
    let answers = [
        agent.get(format!("{base}/health")).call(),
        agent.get(format!("{base}{READ}")).call(),
        agent.post(format!("{base}{ORDER}")).send_empty(),
    ];
    let said = answers.into_iter().map(|answer| {
        let answer = answer.expect("it answers");
        let location = answer.headers().get("location");
        let location = location.map(|location| location.to_str().expect("text").to_owned());
        (answer.status().as_u16(), location)
    });
    said.collect()
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
