//! Measures what a user waits for: `meros run -- true` on an idle cluster, and what idle daemons
//! hold in memory. `MEROS_BIN=target/release/meros latency [RUNS]`, default 50.

use std::time::{Duration, Instant};

use meros_e2e::{ClusterOptions, LocalCluster};

/// Runs before those that count: page cache, first connections.
const WARM_UP: usize = 5;

fn main() {
    let runs = std::env::args()
        .nth(1)
        .map_or(50, |runs| runs.parse().expect("RUNS is a number"));
    let cluster = LocalCluster::start(ClusterOptions::new("latency", 4));
    let once = || {
        let start = Instant::now();
        let ran = cluster.meros(&["run", "--", "true"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        start.elapsed()
    };
    for _ in 0..WARM_UP {
        once();
    }
    let mut times: Vec<Duration> = (0..runs.max(1)).map(|_| once()).collect();
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!(
        "meros run -- true, {} runs: p50 {:.0?}, p90 {:.0?}, max {:.0?}",
        times.len(),
        at(50),
        at(90),
        times[times.len() - 1]
    );
    println!(
        "idle master: {} KiB resident",
        cluster.master.resident_kib()
    );
    for slave in &cluster.slaves {
        println!("idle slave: {} KiB resident", slave.resident_kib());
    }
}
