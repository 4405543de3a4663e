//! A whole system under load: real masters, emulated slaves on real connections, frameworks on the SDK.
//!
//! `load [KEY=VALUE…]` starts everything, prints figures and ends it again. Keys:
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `slaves` | emulated slaves, of `cpus:16;mem:65536` each | 1000 |
//! | `masters` | masters, each a process | 3 |
//! | `frameworks` | frameworks, which launch as much as fits | 4 |
//! | `rate` | launches a second of all together, at most; 0: as many as there is room for | 0 |
//! | `cpus` | of a task | 1 |
//! | `task_ms` | how long a task runs, in milliseconds | 1000 |
//! | `seconds` | how long it is measured, after everybody is there | 20 |
//! | `kills` | how often the leader is killed (kill -9) after that, when all are connected to all masters; started again when the next one offers | 0 |
//! | `endpoints` | UDP sockets of all slaves together | 8 |
//!
//! `MEROS_BIN` names the binary of the masters. Everything is on the same processors, so figures are of
//! masters, slaves and frameworks together.

mod emulated;
mod framework;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meros_e2e::cluster::issue;
use meros_e2e::{ClusterOptions, LocalCluster};
use meros_proto::transport::{Client, Identity};

use emulated::{Counts, Emulated, Ground};
use framework::{Launcher, Launches};

/// What everybody is waited for at most.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// Slaves that begin to dial at once: each handshake costs milliseconds of processor on both sides.
const DIALLING: usize = 64;

/// What was asked for.
#[derive(Debug, Clone)]
struct Load(BTreeMap<&'static str, u64>);

impl Load {
    const DEFAULTS: [(&'static str, u64); 9] = [
        ("slaves", 1_000),
        ("masters", 3),
        ("frameworks", 4),
        ("rate", 0),
        ("cpus", 1),
        ("task_ms", 1_000),
        ("seconds", 20),
        ("kills", 0),
        ("endpoints", 8),
    ];

    fn read(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut values = BTreeMap::from(Self::DEFAULTS);
        for arg in args {
            let (key, value) = arg
                .split_once('=')
                .ok_or(format!("{arg} is not KEY=VALUE"))?;
            let slot = values.iter_mut().find(|(known, _)| **known == key);
            let (_, slot) = slot.ok_or(format!("{key} is no key"))?;
            *slot = value.parse().map_err(|_| format!("{value} is no number"))?;
        }
        Ok(Self(values))
    }

    fn get(&self, key: &str) -> u64 {
        self.0[key]
    }

    fn count(&self, key: &str) -> usize {
        usize::try_from(self.get(key)).expect("it was a small number")
    }
}

fn main() -> ExitCode {
    let load = match Load::read(std::env::args().skip(1)) {
        Ok(load) => load,
        Err(why) => {
            eprintln!("load: {why}");
            return ExitCode::from(2);
        }
    };
    let mut options = ClusterOptions::new("load", 0);
    options.masters = load.count("masters");
    let mut cluster = LocalCluster::start(options);
    issue(cluster.dir(), "slave", "emulated");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let inside = runtime.enter();
    let ground = Arc::new(Ground {
        started: Instant::now(),
        masters: cluster.address().split(',').map(str::to_owned).collect(),
        resources: "cpus:16;mem:65536".parse().expect("resources"),
        task_time: Duration::from_millis(load.get("task_ms")),
        counts: Counts::default(),
        freed_at: (0..load.count("slaves") * 2)
            .map(|_| AtomicU64::new(0))
            .collect(),
    });
    start_slaves(&load, &cluster, &ground, &runtime);
    let launches = Arc::new(Launches::default());
    for number in 0..load.count("frameworks") {
        let launcher = Launcher {
            number,
            masters: ground.masters.clone(),
            identity: cluster.identity("framework"),
            state_file: cluster.dir().join(format!("load-{number}")),
            cpus: load.get("cpus"),
            // Shared out; those that do not divide are left away.
            rate: load.get("rate") / load.get("frameworks").max(1),
            ground: Arc::clone(&ground),
            launches: Arc::clone(&launches),
        };
        runtime.spawn(launcher.run());
    }
    measure(&load, &ground, &launches);
    for _ in 0..load.get("kills") {
        fail_over(&load, &mut cluster, &ground, &launches);
    }
    settle(&launches);
    for at in 0..load.count("masters") {
        println!(
            "master {}: {} KiB resident",
            at + 1,
            cluster.master_at(at).resident_kib()
        );
    }
    drop(inside);
    runtime.shutdown_timeout(Duration::from_secs(5));
    ExitCode::SUCCESS
}

/// Waits until something is so, and tells how long that took.
fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(
            began.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(LOOK);
    }
    began.elapsed()
}

fn start_slaves(
    load: &Load,
    cluster: &LocalCluster,
    ground: &Arc<Ground>,
    runtime: &tokio::runtime::Runtime,
) {
    let identity = Identity::load(&cluster.identity("emulated")).expect("just issued");
    let endpoints = load.count("endpoints").max(1);
    let clients: Vec<Client> = (0..endpoints)
        .map(|_| Client::new(&identity).expect("a UDP port"))
        .collect();
    let wanted = load.get("slaves");
    let registered = || ground.counts.registered.load(Ordering::Relaxed);
    let began = Instant::now();
    for number in 0..load.count("slaves") {
        until("slaves that were started are registered", || {
            number < usize::try_from(registered()).expect("a count") + DIALLING
        });
        let slave = Emulated::new(Arc::clone(ground), number);
        runtime.spawn(slave.run(clients[number % endpoints].clone()));
    }
    until("all slaves are registered", || registered() == wanted);
    println!(
        "{wanted} slaves registered in {:.1?}, handshakes with the leader included",
        began.elapsed()
    );
}

fn measure(load: &Load, ground: &Ground, launches: &Launches) {
    until("tasks run", || {
        ground.counts.started.load(Ordering::Relaxed) > 0
    });
    // The first offers are of everything at once.
    std::thread::sleep(ground.task_time.max(Duration::from_secs(2)));
    let ended = || ground.counts.ended.load(Ordering::Relaxed);
    launches.clear();
    let (began, before) = (Instant::now(), ended());
    std::thread::sleep(Duration::from_secs(load.get("seconds")));
    let tasks = ended() - before;
    let acknowledged = launches.finished.load(Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    let per_second = |count: u64| count as f64 / seconds;
    println!(
        "tasks: {:.0}/s ended on slaves, {:.0}/s heard of and acknowledged, in {seconds:.1} s",
        per_second(tasks),
        per_second(acknowledged)
    );
    let mut waits = launches.take_waits();
    waits.sort_unstable();
    let at = |part: usize| match waits.len() {
        0 => Duration::ZERO,
        len => Duration::from_micros(waits[(len * part / 1_000).min(len - 1)]),
    };
    println!(
        "offer latency (a task has ended -> its slave is offered), {} samples: p50 {:.2?}, p99 {:.2?}, max {:.2?}",
        waits.len(),
        at(500),
        at(990),
        at(1_000),
    );
}

/// Launches nothing more, waits until each task has an end, and says which.
fn settle(launches: &Launches) {
    launches.is_over.store(true, Ordering::Relaxed);
    until("each task has an end", || launches.open() == 0);
    println!(
        "{} tasks launched, {} finished, {} ended twice; else {:?}",
        launches.launched.load(Ordering::Relaxed),
        launches.succeeded.load(Ordering::Relaxed),
        launches.ended_again.load(Ordering::Relaxed),
        launches.others()
    );
}

/// Peers that are connected to a master and wait until it leads; none while it does not answer.
fn waiting_at(cluster: &LocalCluster, at: usize) -> u64 {
    let metrics = cluster.try_metrics_of(at).unwrap_or_default();
    let told = metrics
        .lines()
        .find_map(|line| line.strip_prefix("meros_master_peers_waiting "));
    told.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn fail_over(load: &Load, cluster: &mut LocalCluster, ground: &Ground, launches: &Launches) {
    let mut leader = None;
    until("somebody leads", || {
        leader = cluster.leader();
        leader.is_some()
    });
    let leader = leader.expect("just found");
    // What is measured is a leader that is lost, not one right after another.
    let wanted = load.get("slaves") + load.get("frameworks");
    let warm = until("slaves and frameworks are connected to all masters", || {
        let mut standbys = (0..load.count("masters")).filter(|at| *at != leader);
        let is_warm = standbys.all(|at| waiting_at(cluster, at) >= wanted);
        if !is_warm {
            std::thread::sleep(Duration::from_millis(500));
        }
        is_warm
    });
    let epoch = launches.epoch.load(Ordering::Relaxed);
    let began = Instant::now();
    cluster.master_at(leader).kill();
    until("the next leader offers", || {
        launches.epoch.load(Ordering::Relaxed) > epoch
    });
    let offered = began.elapsed();
    // As whoever looks after daemons does. Until then each slave dials it in vain.
    cluster.master_at(leader).start();
    let wanted = load.get("slaves");
    // By its own word, which is a few milliseconds old.
    until("all slaves are back", || {
        let registered = ground.counts.registered.load(Ordering::Relaxed);
        registered == wanted && launches.epoch.load(Ordering::Relaxed) > epoch
    });
    println!(
        "failover: first offer after {:.2?}, all {wanted} slaves registered after {:.2?}; before it, {:.0?} until all were connected to all masters",
        offered,
        began.elapsed(),
        warm
    );
    std::thread::sleep(Duration::from_secs(5));
}
