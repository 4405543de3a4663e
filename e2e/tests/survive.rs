//! Tasks outlive their slave: kill -9 at random moments, with tasks that start, run and end. The same
//! processes go on, every end is told once and as it was, and nothing is left at the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use meros_e2e::{ClusterOptions, LocalCluster, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;

#[path = "common/burst.rs"]
mod burst;

use burst::{Burst, assert_each_ended_once, journal};

const PATIENCE: Duration = Duration::from_secs(420);
/// Tasks that run all the time.
const STEADY: usize = 5;
/// Kills unless `MEROS_KILLS` says otherwise; issue 6 wants 200.
const KILLS: u32 = 6;
/// Short tasks for each kill.
const TASKS_PER_KILL: u32 = 40;

/// Task and first process of everything that the slave runs.
fn pids(cluster: &LocalCluster) -> Option<BTreeMap<String, u64>> {
    let address = cluster.slaves[0].listening()?.http;
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(5)))
        .build()
        .new_agent();
    let mut answer = agent
        .get(format!("http://{address}/api/v1/tasks"))
        .call()
        .ok()?;
    let tasks: Value = answer.body_mut().read_json().ok()?;
    let tasks = tasks
        .as_array()
        .or_else(|| tasks["tasks"].as_array())?
        .clone();
    let of = |task: &Value| {
        let name = format!("{} {}", task["framework_id"], task["task_id"]);
        Some((name, task["pid"].as_u64()?))
    };
    Some(tasks.iter().filter_map(of).collect())
}

/// Those of the framework that runs for ever: its tasks were the first.
fn steady(cluster: &LocalCluster, known: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut all = None;
    eventually("the slave answers", PATIENCE, || {
        all = pids(cluster);
        all.is_some()
    });
    all.into_iter()
        .flatten()
        .filter(|(name, _)| known.contains_key(name))
        .collect()
}

/// Shims whose folder is below a data directory, and the first processes of their tasks.
fn shims_of(data_dir: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("it is Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_ours = |pid: &u32| {
        let proc = Path::new("/proc").join(pid.to_string());
        let name = std::fs::read_to_string(proc.join("comm")).unwrap_or_default();
        let folder = std::fs::read_link(proc.join("cwd")).unwrap_or_default();
        ["meros-shim", "meros-init"].contains(&name.trim()) && folder.starts_with(data_dir)
    };
    pids.filter(is_ours).collect()
}

/// Numbers that differ from run to run; what matters is that no moment is spared.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        let given = std::env::var("MEROS_KILL_SEED").ok();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        let seed = given.and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(now.subsec_nanos()) | 1);
        eprintln!("MEROS_KILL_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self, most: Duration) -> Duration {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let micros = u64::try_from(most.as_micros()).expect("short");
        Duration::from_micros(self.0 % micros)
    }
}

#[test]
fn a_slave_killed_at_random_moments_loses_no_task_and_no_news() {
    let kills = std::env::var("MEROS_KILLS")
        .ok()
        .and_then(|text| text.parse().ok());
    let kills = kills.unwrap_or(KILLS);
    let mut options = ClusterOptions::new("survive", 1);
    options.resources = "cpus:8;mem:4096;disk:1024;ports:[31000-31099]";
    options.slave_args = vec!["--tasks-end-with-slave=false".to_owned()];
    let mut cluster = LocalCluster::start(options);
    let data_dir = cluster.slaves[0]
        .data_dir()
        .canonicalize()
        .expect("it runs");
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a temp folder"));
    let burst = |dir: &Path, tasks: usize, seconds: &str| {
        let mut command = std::process::Command::new(Burst::program());
        command
            .arg(cluster.address())
            .arg(cluster.identity("framework"));
        command.arg(dir).arg(tasks.to_string()).arg(seconds);
        Burst::spawn(command, dir)
    };
    let service = burst(dirs[0].path(), STEADY, "100000");
    let mut before = BTreeMap::new();
    eventually("the steady tasks run", PATIENCE, || {
        before = pids(&cluster).unwrap_or_default();
        before.len() == STEADY
    });
    let tasks = (kills * TASKS_PER_KILL) as usize;
    let batch = burst(dirs[1].path(), tasks, "0.2");
    let mut moments = Moments::new();
    let mut slowest = Duration::ZERO;
    for kill in 0..kills {
        thread::sleep(moments.next(Duration::from_millis(1_500)));
        cluster.slaves[0].kill();
        // Some tasks end while there is no slave.
        thread::sleep(moments.next(Duration::from_millis(300)));
        let began = Instant::now();
        cluster.slaves[0].start();
        slowest = slowest.max(began.elapsed());
        assert_eq!(
            steady(&cluster, &before),
            before,
            "kill {kill}: not the same processes"
        );
    }
    eprintln!("{kills} kills, slowest start {slowest:?}");
    batch.finish();
    // What was not handed over yet is dropped and said so (semantics: L3): it never ran.
    let allowed = ["TASK_FINISHED", "TASK_DROPPED"];
    assert_each_ended_once(dirs[1].path(), tasks, &allowed);
    let mut ran: Vec<String> = std::fs::read_to_string(dirs[1].path().join("ran"))
        .expect("tasks ran")
        .lines()
        .map(str::to_owned)
        .collect();
    ran.sort();
    let ends = journal(dirs[1].path());
    let finished = ends.iter().filter(|(_, ends)| ends[0] == "TASK_FINISHED");
    let finished: Vec<String> = finished.map(|(id, _)| id.clone()).collect();
    assert_eq!(ran, finished, "each that finished ran once, and no other");
    assert_eq!(steady(&cluster, &before), before);
    let steady_ends = journal(dirs[0].path());
    assert!(steady_ends.values().all(Vec::is_empty), "{steady_ends:?}");

    // For good: all is ended, and nothing is left.
    cluster.slaves[0].signal(Signal::SIGUSR1);
    assert!(cluster.slaves[0].wait().success());
    drop(service);
    let alive = |pid: &u64| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    };
    eventually("its processes are gone", PATIENCE, || {
        !before.values().any(alive) && shims_of(&data_dir).is_empty()
    });
    eventually("its groups are gone", PATIENCE, || {
        cluster.cgroups.groups().is_empty()
    });
}
