//! Commands a second through the replicated registry, and how long each takes: changes of framework state, since
//! each is one command that is answered when a majority has it on disk.
//!
//! `MEROS_BIN=target/release/meros registry [CLIENTS] [SECONDS] [MASTERS]`, by default 256, 10 and 3. Each
//! client has its own connections, and waits for one answer before its next change. All processes are on this
//! machine, so its disk syncs for all masters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use meros_e2e::cluster::issue;
use meros_e2e::{ClusterOptions, LocalCluster};
use meros_sdk::state::{State, StateConfig};

/// So many principals share the clients: one has at most 128 changes on their way.
const PRINCIPALS: u64 = 4;
/// What is not counted at the beginning: handshakes, with all masters.
const WARM_UP: Duration = Duration::from_secs(5);

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| {
        args.next()
            .map_or(default, |arg| arg.parse().expect("a number"))
    };
    let (clients, seconds, masters) = (number(256), number(10), number(3));
    let mut options = ClusterOptions::new("registry", 0);
    options.masters = usize::try_from(masters).expect("a few");
    let cluster = LocalCluster::start(options);
    for number in 0..PRINCIPALS {
        issue(cluster.dir(), "framework", &principal(number));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut waits = runtime.block_on(run(&cluster, clients, Duration::from_secs(seconds)));
    waits.sort_unstable();
    assert!(!waits.is_empty(), "nothing was changed");
    let at = |part: usize| waits[(waits.len() * part / 1_000).min(waits.len() - 1)];
    let rate = waits.len() as f64 / seconds as f64;
    println!(
        "{masters} masters, {clients} clients: {rate:.0} commands/s, p50 {:.1?}, p99 {:.1?}, max {:.1?}",
        at(500),
        at(990),
        at(1_000)
    );
    for line in cluster.metrics().lines() {
        let is_one = |name: &str| line.starts_with(&format!("meros_master_{name}_total "));
        if is_one("commits") || is_one("commands_committed") {
            println!("the master that formed the cluster: {line}");
        }
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
}

/// Whom a client belongs to.
fn principal(number: u64) -> String {
    format!("bench-{}", number % PRINCIPALS)
}

/// How long each change took.
async fn run(cluster: &LocalCluster, clients: u64, time: Duration) -> Vec<Duration> {
    let is_over = Arc::new(AtomicBool::new(false));
    let from = Instant::now() + WARM_UP;
    let tasks: Vec<_> = (0..clients)
        .map(|number| {
            let config = StateConfig {
                masters: cluster.address().split(',').map(str::to_owned).collect(),
                identity: cluster.identity(&principal(number)),
                space: "bench".to_owned(),
                holder: format!("bench-{number}"),
                ttl: Duration::from_secs(60),
                call_timeout: Duration::from_secs(60),
            };
            let state = State::open(&config).expect("a good configuration");
            let is_over = Arc::clone(&is_over);
            tokio::spawn(async move {
                let (key, mut waits) = (format!("k{number}"), Vec::new());
                while !is_over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let set = state.set(&key, format!("{}", waits.len())).await;
                    set.expect("a majority is there");
                    if began >= from {
                        waits.push(began.elapsed());
                    }
                }
                waits
            })
        })
        .collect();
    tokio::time::sleep(WARM_UP + time).await;
    is_over.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for task in tasks {
        all.append(&mut task.await.expect("no panic"));
    }
    all
}
