//! `allocator/*`: the offer-matching hot path, with the workloads of Apache Mesos's benchmarks.
//!
//! Set-up is asserted before anything is timed, and a digest of the decisions is printed, so that
//! two commits can be compared. With `--test` everything runs once, on small clusters.

mod setup;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use meros_proto::ids::{FrameworkId, SlaveId};

use setup::{Chance, Cluster, Digest, FOR_EVER, parsed};

fn is_test() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

/// The size, or a small one in a test.
fn sized(slaves: u32, frameworks: u32) -> (u32, u32) {
    if is_test() {
        (slaves.min(200), frameworks.min(20))
    } else {
        (slaves, frameworks)
    }
}

/// Five rounds: all offers come back without a filter, another fifth of the frameworks is
/// suppressed, and one round is timed. In the last one nobody is left to offer to.
fn suppress_offers(c: &mut Criterion) {
    for (slaves, frameworks) in [(10_000, 1_000), (20_000, 2_000), (50_000, 6_000)] {
        let (slaves, frameworks) = sized(slaves, frameworks);
        let mut cluster = Cluster::fragmented(slaves, frameworks, 1_024);
        let mut digest = Digest::default();
        let fifth = frameworks / 5;
        // The time of the first four rounds, and that of the last.
        let mut rounds = |cluster: &mut Cluster, digest: &mut Digest| {
            let mut times = (Duration::ZERO, Duration::ZERO);
            cluster.activate_all();
            for round in 0..5u32 {
                cluster.give_back(None);
                for framework in round * fifth..(round + 1) * fifth {
                    cluster.set_active(framework, false);
                }
                let begin = Instant::now();
                cluster.plan();
                let time = begin.elapsed();
                let offers = if round < 4 { slaves } else { 0 };
                assert_eq!(cluster.grants.len(), offers as usize);
                digest.add(&cluster.grants);
                *(if round < 4 {
                    &mut times.0
                } else {
                    &mut times.1
                }) += time;
            }
            (times.0 / 4, times.1)
        };
        rounds(&mut cluster, &mut digest);
        digest.print(&format!("suppress_offers/{slaves}x{frameworks}"));
        let mut group = c.benchmark_group("allocator/suppress_offers");
        group.sample_size(10);
        let size = format!("{slaves}x{frameworks}");
        group.bench_function(BenchmarkId::new("round", &size), |b| {
            b.iter_custom(|count| {
                (0..count)
                    .map(|_| rounds(&mut cluster, &mut digest).0)
                    .sum()
            });
        });
        group.bench_function(BenchmarkId::new("all_suppressed", &size), |b| {
            b.iter_custom(|count| {
                (0..count)
                    .map(|_| rounds(&mut cluster, &mut digest).1)
                    .sum()
            });
        });
    }
}

/// Rounds that are followed by declining every offer for ever.
fn decline_offers(c: &mut Criterion) {
    for (slaves, frameworks) in [(1_000, 200), (10_000, 1_000)] {
        let (slaves, frameworks) = sized(slaves, frameworks);
        let size = format!("{slaves}x{frameworks}");
        let mut group = c.benchmark_group("allocator/decline_offers");
        group.sample_size(10);
        let mut digest = Digest::default();
        let mut run = |rounds: u32| {
            let mut cluster = Cluster::fragmented(slaves, frameworks, 2_014);
            // The slowest round with offers, and the slowest without.
            let mut slowest = (Duration::ZERO, Duration::ZERO);
            let begin = Instant::now();
            for round in 0..rounds {
                let begin = Instant::now();
                cluster.plan();
                let time = begin.elapsed();
                let offers = if round < frameworks { slaves } else { 0 };
                assert_eq!(cluster.grants.len(), offers as usize, "round {round}");
                // The round after the last decline finds that all is filtered; later ones know.
                match round.cmp(&frameworks) {
                    std::cmp::Ordering::Less => slowest.0 = slowest.0.max(time),
                    std::cmp::Ordering::Equal => {}
                    std::cmp::Ordering::Greater => slowest.1 = slowest.1.max(time),
                }
                digest.add(&cluster.grants);
                cluster.give_back(Some(FOR_EVER));
            }
            (begin.elapsed(), slowest)
        };
        // The large one is measured on its first rounds: all of it would be ten million declines.
        let rounds = if slaves == 10_000 { 40 } else { 2 * frameworks };
        let (all, slowest) = run(rounds);
        println!("decline_offers/{size}: {rounds} rounds in {all:?}; slowest round {slowest:?}");
        group.bench_function(BenchmarkId::new("all_rounds", &size), |b| {
            b.iter_custom(|count| (0..count).map(|_| run(rounds).0).sum());
        });
        digest.print(&format!("decline_offers/{size}"));
    }
}

/// All slaves are added one by one, with a round after each; then each gets 10 revocable cpus.
fn add_slaves(c: &mut Criterion) {
    let (slaves, frameworks) = sized(10_000, 1_000);
    let size = format!("{slaves}x{frameworks}");
    let total = parsed("cpus:2;mem:1024;disk:4096;ports:[31000-32000]");
    let in_use = parsed("cpus:1;mem:512;disk:2048;ports:[31000-31500]");
    let mut group = c.benchmark_group("allocator/add_and_update_slave");
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("add", &size), |b| {
        b.iter_custom(|count| {
            (0..count)
                .map(|_| {
                    let mut cluster = Cluster::empty(slaves, frameworks);
                    cluster.activate_all();
                    let begin = Instant::now();
                    for number in 0..slaves {
                        let slave = SlaveId(number);
                        cluster.allocator.add_slave(slave, &total);
                        let holder = FrameworkId(number % frameworks);
                        let role = &cluster.role;
                        assert!(cluster.allocator.charge(holder, role, slave, &in_use));
                        cluster.allocator.plan(&mut cluster.grants);
                    }
                    let time = begin.elapsed();
                    assert_eq!(cluster.grants.len(), slaves as usize);
                    time
                })
                .sum()
        });
    });
}

/// Frameworks first, then slaves that come one by one, then a revival of every framework.
fn backlog(c: &mut Criterion) {
    let (slaves, frameworks) = sized(10_000, 1_000);
    let size = format!("{slaves}x{frameworks}");
    let total = parsed("cpus:24;mem:4096;disk:4096;ports:[31000-32000]");
    let run = || {
        let mut cluster = Cluster::empty(slaves, frameworks);
        let begin = Instant::now();
        for framework in 0..frameworks {
            cluster.set_active(framework, true);
            cluster.allocator.plan(&mut cluster.grants);
        }
        let added_frameworks = begin.elapsed();
        let begin = Instant::now();
        for number in 0..slaves {
            cluster.allocator.add_slave(SlaveId(number), &total);
            cluster.allocator.plan(&mut cluster.grants);
        }
        let added_slaves = begin.elapsed();
        assert_eq!(cluster.grants.len(), slaves as usize);
        let begin = Instant::now();
        for framework in 0..frameworks {
            cluster
                .allocator
                .clear_filters(FrameworkId(framework), None);
            cluster.set_active(framework, true);
            cluster.allocator.plan(&mut cluster.grants);
        }
        let revived = begin.elapsed();
        assert_eq!(cluster.grants.len(), slaves as usize);
        [added_frameworks, added_slaves, revived]
    };
    let mut group = c.benchmark_group("allocator/backlog");
    group.sample_size(10);
    for (at, name) in ["add_frameworks", "add_slaves", "revive_all"]
        .into_iter()
        .enumerate()
    {
        group.bench_function(BenchmarkId::new(name, &size), |b| {
            b.iter_custom(|count| (0..count).map(|_| run()[at]).sum());
        });
    }
}

/// A round when nothing has happened.
fn idle(c: &mut Criterion) {
    let (slaves, frameworks) = sized(50_000, 1_000);
    let mut cluster = Cluster::fragmented(slaves, frameworks, 1_024);
    cluster.plan();
    assert_eq!(cluster.grants.len(), slaves as usize);
    cluster.plan();
    let mut group = c.benchmark_group("allocator/idle");
    group.bench_function(BenchmarkId::from_parameter(slaves), |b| {
        b.iter(|| cluster.plan());
    });
    assert_eq!(cluster.grants.len(), 0);
}

/// Steady state: a task ends somewhere, and what it held is offered, and used again.
fn churn(c: &mut Criterion) {
    let (slaves, frameworks) = sized(10_000, 1_000);
    let size = format!("{slaves}x{frameworks}");
    let mut cluster = Cluster::fragmented(slaves, frameworks, 1_024);
    cluster.plan();
    assert_eq!(cluster.grants.len(), slaves as usize);
    let mut held = std::mem::take(&mut cluster.grants);
    held.sort_by_key(|grant| grant.slave);
    let mut chance = Chance(7);
    let mut times: Vec<Duration> = Vec::new();
    let mut group = c.benchmark_group("allocator/churn");
    group.bench_function(BenchmarkId::new("completion", &size), |b| {
        b.iter_custom(|count| {
            let mut all = Duration::ZERO;
            for _ in 0..count {
                let at = chance.below(slaves) as usize;
                let begin = Instant::now();
                let resources = std::mem::take(&mut held[at].resources);
                let (framework, slave) = (held[at].framework, held[at].slave);
                cluster
                    .allocator
                    .release(framework, &held[at].role, slave, resources);
                cluster.plan();
                let time = begin.elapsed();
                assert_eq!(cluster.grants.len(), 1);
                held[at] = cluster.grants.pop().expect("one");
                all += time;
                if times.len() < 1_000_000 {
                    times.push(time);
                }
            }
            all
        });
    });
    times.sort_unstable();
    if let Some(p99) = times.get(times.len() * 99 / 100) {
        println!("churn/{size}: from freed to offered p99 {p99:?}");
    }
}

criterion_group!(
    benches,
    suppress_offers,
    decline_offers,
    add_slaves,
    backlog,
    idle,
    churn
);
criterion_main!(benches);
